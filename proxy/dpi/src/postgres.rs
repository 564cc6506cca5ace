//! PostgreSQL: the start-up, and the queries in clear text after it.
//!
//! A client that asks for encryption is answered by one byte; when the answer is yes nothing more is
//! read. After a start-up in clear text the client's messages are counted by their heads: simple
//! queries, executions of prepared ones, function calls. Compressed or encrypted protocols inside
//! are not.

use outrider_model::{AppId, Side};

use crate::{
    Need,
    bytes::{Reader, Small, pass},
    inspector::{Inspector, Sink},
    recognise::{Guess, Prefix},
};

/// Longest start-up: the server's own limit.
const MAX_STARTUP: u32 = 10_000;

/// Longest cancel key that is taken for one.
const MAX_CANCEL: u32 = 16 + 256;

/// Longest name of a first start-up parameter.
const MAX_PARAMETER: usize = 63;

/// Longest message: the server's own limit.
const MAX_MESSAGE: u32 = 0x3fff_ffff;

/// Bytes of a start-up's length and code.
const STARTUP_HEAD: usize = 8;

/// Bytes of a message's type and length.
const MESSAGE_HEAD: usize = 5;

/// What a client asks for first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Opening {
    /// A session; its parameters follow.
    Startup,
    /// TLS or GSSAPI; one byte is the answer.
    Encryption,
    /// The end of another session's query.
    Cancel,
}

/// Whether a client's first bytes are an opening.
pub(crate) fn guess(prefix: Prefix<'_>) -> Guess {
    let prefix = prefix.bytes;
    let zeroes: &[u8] = &[0, 0];
    if !prefix.starts_with(zeroes.get(..prefix.len().min(2)).unwrap_or_default()) {
        return Guess::No;
    }
    // Too long for a start-up, or a code that is none.
    let implausible = [(2, 0x28..=0xff), (4, 1..=3), (4, 5..=0xff)];
    if implausible
        .iter()
        .any(|(at, bytes)| prefix.get(*at).is_some_and(|b| bytes.contains(b)))
    {
        return Guess::No;
    }
    let Some((head, parameters)) = prefix.split_at_checked(STARTUP_HEAD) else {
        return Guess::More;
    };
    match opening(head) {
        None => Guess::No,
        Some((Opening::Startup, _)) => guess_parameter(parameters),
        Some(_) => Guess::Yes,
    }
}

/// A session begins with the name of a parameter; other protocols have numbers there.
fn guess_parameter(bytes: &[u8]) -> Guess {
    let usual = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.-".contains(byte);
    let length = bytes.iter().take_while(|byte| usual(byte)).count();
    match bytes.get(length) {
        _ if length > MAX_PARAMETER => Guess::No,
        None => Guess::More,
        Some(0) if length > 0 => Guess::Yes,
        Some(_) => Guess::No,
    }
}

/// What an opening asks for, and how many bytes follow its head.
fn opening(head: &[u8]) -> Option<(Opening, u64)> {
    let mut reader = Reader::new(head);
    let (length, major, minor) = (reader.be32()?, reader.be16()?, reader.be16()?);
    let opening = match (major, minor) {
        (3, _) if (9..=MAX_STARTUP).contains(&length) => Opening::Startup,
        (1234, 5678) if (16..=MAX_CANCEL).contains(&length) => Opening::Cancel,
        (1234, 5679 | 5680) if length == 8 => Opening::Encryption,
        _ => return None,
    };
    Some((opening, u64::from(length).saturating_sub(8)))
}

/// Starts reading a flow that was recognised as PostgreSQL.
pub(crate) fn start() -> Box<dyn Inspector> {
    Box::new(Postgres { phase: Phase::Opening, head: Small::default(), left: 0 })
}

#[derive(Debug)]
struct Postgres {
    phase: Phase,
    head: Small<STARTUP_HEAD>,
    /// Bytes of the client that are passed over.
    left: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// The client's opening is next.
    Opening,
    /// The server's byte is next.
    Answer,
    /// The client's messages.
    Messages,
    /// Nothing is read any more.
    Stopped,
}

impl Inspector for Postgres {
    fn feed(&mut self, side: Side, mut chunk: &[u8], sink: &mut Sink<'_>) {
        sink.application(AppId::POSTGRESQL);
        match (side, self.phase) {
            (Side::Server, Phase::Answer) => self.answer(chunk),
            (Side::Server, _) => {}
            (Side::Client, _) => {
                while !chunk.is_empty() {
                    self.left = pass(&mut chunk, self.left);
                    match self.phase {
                        Phase::Opening => self.opening(&mut chunk),
                        Phase::Messages => self.message(&mut chunk, sink),
                        // Whoever sends before the answer is not understood.
                        Phase::Answer if !chunk.is_empty() => self.phase = Phase::Stopped,
                        Phase::Answer => {}
                        Phase::Stopped => return,
                    }
                }
            }
        }
    }

    fn skip(&mut self, side: Side, bytes: u64) {
        if side == Side::Client {
            self.left = self.left.saturating_sub(bytes);
        }
    }

    fn need(&self, side: Side) -> Need {
        match (self.phase, side) {
            (Phase::Stopped, _) | (Phase::Messages, Side::Server) => Need::Nothing,
            (_, Side::Client) if self.left > 0 => Need::Skip(self.left),
            _ => Need::Bytes,
        }
    }

    fn held(&self) -> usize {
        self.head.bytes().len()
    }
}

impl Postgres {
    fn opening(&mut self, chunk: &mut &[u8]) {
        let Some(head) = self.head.fill(chunk, STARTUP_HEAD) else { return };
        let opening = opening(head);
        self.head.clear();
        (self.phase, self.left) = match opening {
            Some((Opening::Startup, left)) => (Phase::Messages, left),
            Some((Opening::Encryption, _)) => (Phase::Answer, 0),
            Some((Opening::Cancel, _)) | None => (Phase::Stopped, 0),
        };
    }

    /// `N` refuses encryption, and a start-up follows.
    fn answer(&mut self, chunk: &[u8]) {
        let refused = chunk.first() == Some(&b'N');
        self.phase = if refused { Phase::Opening } else { Phase::Stopped };
    }

    fn message(&mut self, chunk: &mut &[u8], sink: &mut Sink<'_>) {
        let Some(head) = self.head.fill(chunk, MESSAGE_HEAD) else { return };
        let mut reader = Reader::new(head);
        let (kind, length) = (reader.u8().unwrap_or_default(), reader.be32().unwrap_or_default());
        self.head.clear();
        if !kind.is_ascii_alphabetic() || !(4..=MAX_MESSAGE).contains(&length) {
            self.phase = Phase::Stopped;
            return;
        }
        self.left = u64::from(length).saturating_sub(4);
        if matches!(kind, b'Q' | b'E' | b'F') {
            sink.request();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Event, testing::events};

    const SSL: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";
    const GSS: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x30";
    const STARTUP: &[u8] = b"\0\0\0\x14\0\x03\0\0user\0alice\0\0";
    const QUERY: &[u8] = b"Q\0\0\0\x0eselect 1;\0";

    fn is(seen: &[Event], requests: usize) -> bool {
        let count = seen
            .iter()
            .filter(|event| **event == Event::Request)
            .count();
        seen.first() == Some(&Event::Application(AppId::POSTGRESQL)) && count == requests
    }

    #[test]
    fn recognises_every_opening() {
        let newer = b"\0\0\0\x14\0\x03\0\x02user\0alice\0\0";
        let cancel = b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x01\0\0\0\x02";
        for opening in [SSL, GSS, STARTUP, newer, cancel] {
            assert!(is(&events(5432, &[(Side::Client, opening)]), 0), "{opening:?}");
        }
    }

    #[test]
    fn counts_queries_in_clear_text() {
        let flow = [
            (Side::Client, GSS),
            (Side::Server, b"N"),
            (Side::Client, SSL),
            (Side::Server, b"N"),
            (Side::Client, STARTUP),
            (Side::Server, b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I"),
            (Side::Client, QUERY),
            (Side::Client, b"P\0\0\0\x08\0\0\0\0E\0\0\0\x09\0\0\0\0\0S\0\0\0\x04"),
        ];
        assert!(is(&events(5432, &flow), 2));
    }

    #[test]
    fn stops_at_encryption_and_at_nonsense() {
        for answer in [&b"S"[..], b"E", b"G"] {
            let flow = [(Side::Client, SSL), (Side::Server, answer), (Side::Client, STARTUP)];
            let mut then = flow.to_vec();
            then.push((Side::Client, QUERY));
            assert!(is(&events(5432, &then), 0), "{answer:?}");
        }
        let early = [(Side::Client, SSL), (Side::Client, STARTUP), (Side::Client, QUERY)];
        assert!(is(&events(5432, &early), 0));
        let odd = [(Side::Client, STARTUP), (Side::Client, b"Q\0\0\0\x03"), (Side::Client, QUERY)];
        assert!(is(&events(5432, &odd), 0));
    }

    #[test]
    fn refuses_other_protocols_with_a_length_first() {
        // Kafka, metadata request version 0: the same first eight bytes as a start-up.
        let kafka = b"\0\0\0\x14\0\x03\0\0\0\0\0\x01\0\x05admin\0\0\0\0\0";
        assert_eq!(events(9092, &[(Side::Client, kafka)]), [Event::Unidentified]);
        for (at, value) in [(2, 0x28), (3, 7), (5, 4), (8, 0), (12, b' ')] {
            let mut opening = STARTUP.to_vec();
            opening[at] = value;
            assert_eq!(
                events(5432, &[(Side::Client, &opening)]),
                [Event::Unidentified],
                "byte {at}"
            );
        }
        let mut long = b"\0\0\0\x80\0\x03\0\0".to_vec();
        long.extend([b'u'; MAX_PARAMETER + 1]);
        assert_eq!(events(5432, &[(Side::Client, &long)]), [Event::Unidentified]);
    }
}
