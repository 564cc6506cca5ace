//! What happens, as it happens: a stream of events that is taken up again where it broke off.

mod sse;

use std::{pin::pin, time::Duration};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use outrider_api::{EventKind, GAP, Gap, paths};
use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{sleep, timeout},
};

use crate::{
    client::{Client, Failure, Stream, failure, with_query},
    narrow::Narrow,
    show::{Output, Row},
};
use sse::{Message, Parser};

/// The bridge says something every 10 s; one that does not is gone.
const SILENCE: Duration = Duration::from_secs(35);
/// Time before the first try to connect again; doubled up to [`MAX_BACKOFF`].
const BACKOFF: Duration = Duration::from_millis(500);
/// Longest time between two tries.
const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// Largest body of a refusal.
const MAX_REFUSAL: usize = 64 * 1024;

/// Prints events of one kind until something cannot be printed, or the bridge refuses.
///
/// # Errors
/// When the bridge is not there at first, refuses, or the output is closed.
pub(crate) async fn run<T: Row + DeserializeOwned>(
    client: &Client,
    output: &mut Output,
    kind: EventKind,
    narrow: &Narrow,
) -> Result<(), Failure> {
    let filters = [("workload", narrow.workload.as_deref()), ("app", narrow.app.as_deref())];
    let path = with_query(paths::EVENTS, &[("kinds", Some(kind.label()))]);
    let path = with_query(&path, &filters);
    let mut following = Following { client, output, path, last: None, was_there: false };
    let mut backoff = BACKOFF;
    loop {
        match following.once::<T>().await {
            Ok(()) => backoff = BACKOFF,
            Err(Failure::Unreachable(_)) if following.was_there => {
                backoff = (backoff * 2).min(MAX_BACKOFF);
            }
            Err(failure) => return Err(failure),
        }
        following
            .output
            .note("the bridge is gone; looking for it again")?;
        sleep(backoff).await;
    }
}

struct Following<'a> {
    client: &'a Client,
    output: &'a mut Output,
    path: String,
    /// Id of the last event that was had.
    last: Option<String>,
    /// A bridge answered once.
    was_there: bool,
}

impl Following<'_> {
    /// One connection, to its end.
    async fn once<T: Row + DeserializeOwned>(&mut self) -> Result<(), Failure> {
        let (target, stream) = self.client.connect().await?;
        let mut request = self
            .client
            .request(target, &self.path)
            .header("accept", "text/event-stream");
        if let Some(last) = &self.last {
            request = request.header("last-event-id", last);
        }
        let request = request
            .body(Full::new(Bytes::new()))
            .map_err(|error| Failure::Refused(error.to_string()))?;
        match stream {
            Stream::Unix(stream) => self.read::<T>(stream, request).await,
            Stream::Tcp(stream) => self.read::<T>(stream, request).await,
        }
    }

    async fn read<T: Row + DeserializeOwned>(
        &mut self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        request: Request<Full<Bytes>>,
    ) -> Result<(), Failure> {
        let gone = |error: hyper::Error| Failure::Unreachable(error.to_string());
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(gone)?;
        let reading = async {
            let Ok(answer) = timeout(SILENCE, sender.send_request(request)).await else {
                return Err(Failure::Unreachable("the bridge does not answer".into()));
            };
            let answer = answer.map_err(gone)?;
            match answer.status() {
                StatusCode::OK => self.events::<T>(answer.into_body()).await,
                status => Err(refusal(status, answer.into_body()).await),
            }
        };
        let (mut reading, mut connection) = (pin!(reading), pin!(connection));
        tokio::select! {
            biased;
            read = &mut reading => read,
            // What came before the end is still to be read.
            _ = &mut connection => reading.await,
        }
    }

    async fn events<T: Row + DeserializeOwned>(
        &mut self,
        mut body: Incoming,
    ) -> Result<(), Failure> {
        self.was_there = true;
        let mut parser = Parser::default();
        while let Ok(Some(Ok(frame))) = timeout(SILENCE, body.frame()).await {
            let Ok(bytes) = frame.into_data() else { continue };
            for message in parser.feed(&bytes)? {
                self.print::<T>(message)?;
            }
        }
        Ok(())
    }

    fn print<T: Row + DeserializeOwned>(&mut self, message: Message) -> Result<(), Failure> {
        let no_sense = |error: serde_json::Error| {
            Failure::Refused(format!("the bridge's event makes no sense: {error}"))
        };
        if message.event == GAP {
            let gap: Gap = serde_json::from_str(&message.data).map_err(no_sense)?;
            let count = gap
                .missed
                .map_or_else(|| "an unknown number of".into(), |missed| missed.to_string());
            self.output
                .note(&format!("{count} events were missed: {}", gap.reason))?;
        } else {
            let row: T = serde_json::from_str(&message.data).map_err(no_sense)?;
            self.output.next(&row)?;
        }
        if !message.id.is_empty() {
            self.last = Some(message.id);
        }
        Ok(())
    }
}

/// Why the bridge does not tell; a busy one may later.
pub(crate) async fn refusal(status: StatusCode, body: Incoming) -> Failure {
    let body = Limited::new(body, MAX_REFUSAL).collect().await;
    let body = body.map(http_body_util::Collected::to_bytes);
    match failure(status, &body.unwrap_or_default()) {
        Failure::Refused(said) if status == StatusCode::SERVICE_UNAVAILABLE => {
            Failure::Unreachable(said)
        }
        other => other,
    }
}
