//! `outrider capture WORKLOAD`: a pod's packets into a file or a pipe, as they come.

mod sink;

use std::{path::PathBuf, pin::pin, time::Duration};

use clap::Args;
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use outrider_api::{CAPTURE_ID, Capture, CaptureRequest, CaptureState, paths};
use outrider_model::PacketFilter;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    signal::unix::{SignalKind, signal},
    time::{Instant, interval, sleep_until, timeout},
};

use crate::{
    client::{self, Client, Failure, Stream},
    follow::refusal,
    show::Output,
};
use sink::{Progress, Sink};

/// How long the bridge may take to begin: a proxy is asked.
const BEGIN: Duration = Duration::from_secs(20);
/// How long the end may take after it was asked for, or is due.
const END: Duration = Duration::from_secs(10);
/// Time between two looks of the progress line.
const TICK: Duration = Duration::from_millis(500);

/// What is to be captured.
#[derive(Clone, Debug, Args)]
pub(crate) struct Wanted {
    /// Whose packets
    pub(crate) workload: String,
    /// Which packets, as tcpdump has it: 'tcp port 80 and not host 10.0.0.7'; without it, all
    #[arg(long, short, value_name = "FILTER", value_parser = filter)]
    filter: Option<PacketFilter>,
    /// End after this time: 30s, 10m, 1h; an hour at most
    #[arg(long, short, value_name = "TIME", default_value = "60s", value_parser = seconds)]
    duration: u32,
    /// End after so many packets
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End at this size, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=1024))]
    size: u64,
    /// Keep so many bytes of each packet; 96 are enough for all headers
    #[arg(long, short, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(64..=65535))]
    snap_length: Option<u32>,
    /// Packets of loopback too: the proxy's side towards the application
    #[arg(long)]
    loopback: bool,
    /// File to write, `-` for standard output, which is also meant if it is no terminal
    #[arg(long, short, value_name = "FILE|-")]
    write: Option<PathBuf>,
}

impl Wanted {
    fn request(&self) -> CaptureRequest {
        CaptureRequest {
            filter: self
                .filter
                .as_ref()
                .map_or_else(String::new, |filter| filter.text().to_owned()),
            loopback: self.loopback,
            snap_length: self.snap_length,
            packets: self.count,
            bytes: Some(self.size << 20),
            seconds: Some(self.duration),
        }
    }
}

fn filter(text: &str) -> Result<PacketFilter, String> {
    text.parse()
        .map_err(|error: outrider_model::filter::FilterError| error.to_string())
}

fn seconds(text: &str) -> Result<u32, String> {
    let wrong = || "write 30s, 10m or 1h; an hour at most".to_owned();
    let (number, unit) = text
        .split_at_checked(text.len().saturating_sub(1))
        .ok_or_else(wrong)?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(wrong()),
    };
    let number: u32 = number.parse().map_err(|_not_one| wrong())?;
    number
        .checked_mul(unit)
        .filter(|seconds| (1..=MAX_SECONDS).contains(seconds))
        .ok_or_else(wrong)
}

/// An hour.
const MAX_SECONDS: u32 = 3600;

/// Captures until the end, or until told to stop.
pub(crate) async fn run(
    client: &Client,
    output: &mut Output,
    wanted: &Wanted,
) -> Result<(), Failure> {
    let target = sink::Target::choose(wanted.write.as_deref())?;
    let path = paths::CAPTURE.replace("{name}", &client::encode(&wanted.workload));
    let body = serde_json::to_vec(&wanted.request())
        .map_err(|error| Failure::Refused(error.to_string()))?;
    let (bridge, stream) = client.connect().await?;
    let request = client
        .request(bridge, &path)
        .method(Method::POST)
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| Failure::Refused(error.to_string()))?;
    let taking = Taking { client, target: &target, time: wanted.duration };
    let id = match stream {
        Stream::Unix(stream) => Box::pin(taking.exchange(stream, request)).await?,
        Stream::Tcp(stream) => Box::pin(taking.exchange(stream, request)).await?,
    };
    // The bridge knows what became of it.
    let all: Vec<Capture> = client.get(paths::CAPTURES).await?;
    let Some(capture) = all.into_iter().find(|one| one.id == id) else { return Ok(()) };
    target.summary(output, &capture)?;
    match (capture.state, capture.error) {
        (CaptureState::Failed, why) => {
            let why = why.unwrap_or_default();
            Err(Failure::Refused(format!("the capture broke off: {why}")))
        }
        _ => Ok(()),
    }
}

struct Taking<'a> {
    client: &'a Client,
    target: &'a sink::Target,
    time: u32,
}

impl Taking<'_> {
    /// Takes the whole answer; gives the capture's name.
    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        request: Request<Full<Bytes>>,
    ) -> Result<String, Failure> {
        let gone = |error: hyper::Error| Failure::Unreachable(error.to_string());
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(gone)?;
        let taking = async {
            let Ok(answer) = timeout(BEGIN, sender.send_request(request)).await else {
                return Err(Failure::Unreachable("the bridge does not answer".into()));
            };
            let answer = answer.map_err(gone)?;
            if answer.status() != StatusCode::OK {
                return Err(match refusal(answer.status(), answer.into_body()).await {
                    // As many run as may: the bridge is there.
                    Failure::Unreachable(said) => Failure::Refused(said),
                    other => other,
                });
            }
            let id = answer.headers().get(CAPTURE_ID);
            let id = id.and_then(|id| id.to_str().ok()).map(str::to_owned);
            let id = id.ok_or_else(|| {
                Failure::Refused("the answer is no capture; is that address a bridge?".into())
            })?;
            let mut sink = self.target.open()?;
            self.take(answer.into_body(), &id, &mut sink).await?;
            Ok(id)
        };
        let (mut taking, mut connection) = (pin!(taking), pin!(connection));
        tokio::select! {
            biased;
            taken = &mut taking => taken,
            // What came before the end is still to be read.
            _ = &mut connection => taking.await,
        }
    }

    async fn take(&self, mut body: Incoming, id: &str, sink: &mut Sink) -> Result<(), Failure> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut progress = Progress::new();
        let mut ticker = interval(TICK);
        let mut end = Instant::now() + Duration::from_secs(self.time.into()) + END;
        let mut stopped = false;
        loop {
            tokio::select! {
                biased;
                told = async { tokio::select! { t = interrupt.recv() => t, t = terminate.recv() => t } } => {
                    if told.is_none() || stopped {
                        return Err(Failure::Refused("interrupted: the file has no end".into()));
                    }
                    stopped = true;
                    end = end.min(Instant::now() + END);
                    self.stop(id).await?;
                }
                () = sleep_until(end) => {
                    return Err(Failure::Refused("the bridge did not end the capture in time".into()));
                }
                frame = body.frame() => match frame {
                    None => break,
                    // Cut off: the bridge says why when it is asked.
                    Some(Err(_)) => break,
                    Some(Ok(frame)) => if let Ok(bytes) = frame.into_data() {
                        progress.add(bytes.len());
                        sink.write(&bytes)?;
                    },
                },
                _ = ticker.tick() => progress.show(),
            }
        }
        progress.clear();
        sink.finish()
    }

    async fn stop(&self, id: &str) -> Result<(), Failure> {
        let path = paths::CAPTURE_STOP.replace("{id}", id);
        self.client.delete::<Capture>(&path).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit_and_a_bound() {
        for (text, want) in [("1s", 1), ("90s", 90), ("10m", 600), ("1h", 3600)] {
            assert_eq!(seconds(text), Ok(want));
        }
        for wrong in ["", "s", "5", "0s", "61m", "2h", "1d", "-1s", "99999999h", "é"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
