//! The hello of SSL 2.0, which clients also sent to offer newer versions: a threat by itself.

use outrider_model::{AppId, Side, ThreatId};

use crate::{
    Need,
    bytes::{Reader, Small},
    inspector::{Inspector, Sink},
    recognise::{Guess, Prefix},
};

/// Bytes of a hello before its variable part, with the record's length.
const HEAD: usize = 11;

/// The fixed part of a hello.
struct Hello {
    /// Bytes of the record that are left for the three parts below.
    room: u32,
    ciphers: u32,
    session: u32,
    challenge: u32,
}

/// Whether a client's first bytes are a hello of SSL 2.0.
pub(crate) fn guess(prefix: Prefix<'_>) -> Guess {
    let prefix = prefix.bytes;
    let fits = |(at, byte): (usize, &u8)| match at {
        0 => *byte & 0x80 != 0,
        2 => *byte == 1,
        3 => matches!(*byte, 0 | 3),
        4 => matches!((prefix.get(3), *byte), (Some(0), 2) | (Some(3), 0..=4)),
        _ => true,
    };
    if !prefix.iter().take(5).enumerate().all(fits) {
        return Guess::No;
    }
    match prefix.get(..HEAD) {
        None => Guess::More,
        Some(head) if parse(head).is_some() => Guess::Yes,
        Some(_) => Guess::No,
    }
}

/// Reads the fixed part; `None` if its lengths make no sense.
fn parse(head: &[u8]) -> Option<Hello> {
    let mut reader = Reader::new(head);
    let length = reader.be16()? & 0x7fff;
    let room = u32::from(length.checked_sub(9)?);
    reader.take(3)?;
    let [ciphers, session, challenge] =
        [reader.be16()?, reader.be16()?, reader.be16()?].map(u32::from);
    let sensible = ciphers.is_multiple_of(3)
        && ciphers > 0
        && matches!(session, 0 | 16)
        && (16..=32).contains(&challenge);
    sensible.then_some(Hello { room, ciphers, session, challenge })
}

/// Starts reading a flow that was recognised as SSL 2.0.
pub(crate) fn start() -> Box<dyn Inspector> {
    Box::new(SslV2 { head: Small::default(), stopped: false })
}

#[derive(Debug)]
struct SslV2 {
    head: Small<HEAD>,
    stopped: bool,
}

impl Inspector for SslV2 {
    fn feed(&mut self, side: Side, mut chunk: &[u8], sink: &mut Sink<'_>) {
        if self.stopped || side == Side::Server {
            return;
        }
        let Some(head) = self.head.fill(&mut chunk, HEAD) else { return };
        self.stopped = true;
        sink.application(AppId::SSL);
        sink.threat(ThreatId::SSL_VERSION, side, "client hello of SSL 2.0");
        let Some(hello) = parse(head) else { return };
        let others = hello.session.saturating_add(hello.challenge);
        if hello.ciphers > hello.room.saturating_sub(others) {
            sink.threat(ThreatId::CIPHER_OVERFLOW, side, "ciphers exceed the SSL 2.0 hello");
        }
    }

    fn skip(&mut self, _side: Side, _bytes: u64) {}

    fn need(&self, _side: Side) -> Need {
        if self.stopped { Need::Nothing } else { Need::Bytes }
    }

    fn held(&self) -> usize {
        self.head.bytes().len()
    }
}
