//! What a client is told before it is cut off.

use std::{
    fmt::Write as _,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Poll, ready},
    time::Duration,
};

use outrider_model::{FlowId, RuleId};
use tokio::{
    io::{AsyncRead as _, AsyncWriteExt as _, ReadBuf},
    time::timeout,
};

use crate::{leg::Leg, scratch};

/// TLS fatal alert `access_denied` (RFC 8446, section 6), in a plaintext record.
pub(crate) const ACCESS_DENIED: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];

/// The HTTP answer to a request that a rule denies, or that carried a threat. The numbers lead to the
/// record of it.
pub(crate) fn forbidden(flow: FlowId, rule: Option<RuleId>) -> Vec<u8> {
    let body = match rule {
        Some(rule) => format!("Denied by policy: flow {flow}, rule {rule}.\n"),
        None => format!("Refused as a threat: flow {flow}.\n"),
    };
    let mut answer = String::with_capacity(256);
    let written = write!(
        answer,
        "HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    debug_assert!(written.is_ok(), "writing to a string cannot fail");
    answer.into_bytes()
}

/// Says it, ends the connection, and waits a moment for the client to take it: a reset would overtake
/// the answer. The client is reset if it does not end by itself.
pub(crate) async fn say(mut leg: Leg, answer: &[u8]) {
    match timeout(PATIENCE, deliver(&mut leg, answer)).await {
        Ok(Ok(())) => leg.finish(),
        Ok(Err(error)) => tracing::debug!(%error, "answer not delivered"),
        Err(_elapsed) => tracing::debug!("client did not end after the answer"),
    }
}

async fn deliver(leg: &mut Leg, answer: &[u8]) -> io::Result<()> {
    leg.write_all(answer).await?;
    leg.shutdown().await?;
    let mut left = DISCARD;
    poll_fn(|context| {
        while left > 0 {
            let read = scratch::with(|scratch| {
                let mut buffer = ReadBuf::new(&mut scratch.bytes);
                let result = Pin::new(&mut **leg).poll_read(context, &mut buffer);
                result.map_ok(|()| buffer.filled().len())
            });
            match ready!(read)? {
                0 => return Poll::Ready(Ok(())),
                some => left = left.saturating_sub(some),
            }
        }
        Poll::Ready(Err(io::Error::other("client goes on sending")))
    })
    .await
}

/// How long a client may take to end after the answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Bytes of a client that are read and thrown away after the answer.
const DISCARD: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_names_flow_and_rule_and_its_length_is_right() {
        let answer = String::from_utf8(forbidden(FlowId(7), Some(RuleId(10_001)))).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 403 "));
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
        assert_eq!(body, "Denied by policy: flow 7, rule 10001.\n");
    }

    #[test]
    fn the_answer_to_a_threat_does_not_blame_a_rule() {
        let answer = String::from_utf8(forbidden(FlowId(7), None)).unwrap();
        assert!(answer.ends_with("\r\n\r\nRefused as a threat: flow 7.\n"), "{answer}");
    }
}
