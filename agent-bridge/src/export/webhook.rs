//! Batches as a JSON array, posted. Only 2xx acknowledges; redirects and proxies are not followed.

use std::path::PathBuf;

use aws_lc_rs::hmac;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request, StatusCode,
    body::Bytes,
    client::conn::http1,
    header::{CONTENT_TYPE, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use outrider_telemetry::unix_seconds;

use super::{settings::WebhookTarget, sink::Failure, spool::Entry};
use crate::connect::Peer;

/// Most bytes of an answer that are read.
const MAX_ANSWER: usize = 64 << 10;
/// Most bytes of a secret.
const MAX_SECRET: usize = 4096;

/// A receiver.
#[derive(Debug)]
pub(super) struct Webhook {
    peer: Peer,
    authority: String,
    path: String,
    secret: Option<PathBuf>,
}

impl Webhook {
    /// Signs with the content of the file `secret`, if there is one.
    pub(super) fn new(target: WebhookTarget, secret: Option<PathBuf>, ca: Option<PathBuf>) -> Self {
        let WebhookTarget { tls, host, port, authority, path } = target;
        Self { peer: Peer { host, port, tls, ca, lost_after: None }, authority, path, secret }
    }

    /// Posts the batch over a connection of its own.
    pub(super) async fn deliver(&self, batch: &[Entry]) -> Result<(), Failure> {
        let request = self.request(batch).await?;
        let stream = TokioIo::new(self.peer.connect().await?);
        let (mut sender, connection) = http1::handshake(stream).await?;
        let exchange = async {
            let answer = sender.send_request(request).await?;
            let status = answer.status();
            // An answer is read so that the receiver is not cut off; what it says is of no use.
            drop(Limited::new(answer.into_body(), MAX_ANSWER).collect().await);
            Ok::<_, hyper::Error>(status)
        };
        tokio::pin!(exchange);
        let status = tokio::select! {
            biased;
            answered = &mut exchange => answered?,
            // Without an answer the exchange fails by itself; with one, how it ended is no matter.
            _ended = connection => exchange.await?,
        };
        judge(status)
    }

    async fn request(&self, batch: &[Entry]) -> Result<Request<Full<Bytes>>, Failure> {
        let body = array(batch);
        let time = unix_seconds().to_string();
        let mut request = Request::post(&self.path)
            .header(HOST, &self.authority)
            .header(USER_AGENT, concat!("outrider/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/json")
            .header("outrider-batch", batch_id(batch))
            .header("outrider-time", &time);
        if let Some(secret) = self.read_secret().await? {
            request = request.header("outrider-signature", signature(&secret, &time, &body));
        }
        let unusable = |error: hyper::http::Error| Failure::Setting {
            file: "OUTRIDER_EXPORT_WEBHOOK".into(),
            reason: error.to_string(),
        };
        request.body(Full::new(body.into())).map_err(unusable)
    }

    /// Read anew each time, so that a secret can be changed. An empty one signs nothing.
    async fn read_secret(&self) -> Result<Option<Vec<u8>>, Failure> {
        let Some(path) = &self.secret else { return Ok(None) };
        let unusable =
            |reason: String| Failure::Setting { file: path.display().to_string(), reason };
        let secret = tokio::fs::read(path)
            .await
            .map_err(|error| unusable(error.to_string()))?;
        let secret = secret.trim_ascii_end();
        match secret.len() {
            0 => Err(unusable("holds no secret".into())),
            1..=MAX_SECRET => Ok(Some(secret.to_vec())),
            _ => Err(unusable(format!("more than {MAX_SECRET} bytes"))),
        }
    }
}

fn judge(status: StatusCode) -> Result<(), Failure> {
    match status {
        status if status.is_success() => Ok(()),
        StatusCode::BAD_REQUEST
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::UNPROCESSABLE_ENTITY => Err(Failure::Refused(status.as_u16())),
        other => Err(Failure::Status(other.as_u16())),
    }
}

fn array(batch: &[Entry]) -> String {
    let events: Vec<&str> = batch.iter().map(|entry| &*entry.json).collect();
    format!("[{}]", events.join(","))
}

/// The ids of the first and the last event, which name a batch: one that is sent again has the same.
fn batch_id(batch: &[Entry]) -> String {
    let id = |entry: Option<&Entry>| {
        let event = entry.map(|entry| serde_json::from_str::<super::Event>(&entry.json));
        event
            .and_then(Result::ok)
            .map(|event| event.id)
            .unwrap_or_default()
    };
    let last = batch.last().map(|entry| entry.number).unwrap_or_default();
    format!("{}-{last}", id(batch.first()))
}

/// HMAC-SHA256 of the time, a dot and the body.
pub(super) fn signature(secret: &[u8], time: &str, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let tag = hmac::sign(&key, format!("{time}.{body}").as_bytes());
    let hex: String = tag
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256={hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_what_openssl_makes_of_it() {
        // printf '1700000000.[]' | openssl dgst -sha256 -hmac secret
        let golden = "sha256=74f76d8933679a54d6be8c7560a5233b124658241ca5a3b0f09af80d3ea60d78";
        assert_eq!(signature(b"secret", "1700000000", "[]"), golden);
    }

    #[test]
    fn only_a_success_acknowledges_and_only_a_bad_batch_is_refused() {
        let judged = |status: u16| judge(StatusCode::from_u16(status).unwrap());
        assert!(judged(200).is_ok() && judged(204).is_ok());
        for status in [301, 307, 401, 403, 404, 408, 429, 500, 503] {
            assert!(matches!(judged(status), Err(Failure::Status(code)) if code == status));
        }
        assert!(matches!(judged(413), Err(Failure::Refused(413))));
    }
}
