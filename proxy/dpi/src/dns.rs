//! DNS over TCP: messages behind a 16-bit length.
//!
//! Recognised by a client's first query: on port 53 one that is well formed, on other ports one that
//! leaves no doubt. Messages are counted by their lengths, not read.

pub mod message;

use outrider_model::{AppId, Side};

use crate::{
    Need,
    bytes::{Reader, Small, pass},
    inspector::{Inspector, Sink},
    recognise::{Guess, Prefix},
};

/// The port where a query need not prove that it is one.
const PORT: u16 = 53;

/// Longest first message.
const MAX_QUERY: u16 = 4096;

/// Shortest message with a question.
const MIN_QUERY: u16 = 17;

/// Longest name, with its length bytes.
const MAX_NAME: usize = 255;

/// Bytes of a message before its question.
const HEADER: usize = 12;

/// Starts reading a flow that was recognised as DNS.
pub(crate) fn start() -> Box<dyn Inspector> {
    Box::new(Dns { head: Small::default(), left: 0, stopped: false })
}

#[derive(Debug)]
struct Dns {
    head: Small<2>,
    left: u64,
    stopped: bool,
}

impl Inspector for Dns {
    fn feed(&mut self, side: Side, mut chunk: &[u8], sink: &mut Sink<'_>) {
        if side == Side::Server || self.stopped {
            return;
        }
        sink.application(AppId::DNS);
        while !chunk.is_empty() {
            self.left = pass(&mut chunk, self.left);
            let Some(head) = self.head.fill(&mut chunk, 2) else { return };
            self.left = Reader::new(head).be16().map_or(0, u64::from);
            self.head.clear();
            if self.left == 0 {
                self.stopped = true;
                return;
            }
            sink.request();
        }
    }

    fn skip(&mut self, side: Side, bytes: u64) {
        if side == Side::Client {
            self.left = self.left.saturating_sub(bytes);
        }
    }

    fn need(&self, side: Side) -> Need {
        match side {
            Side::Client if self.left > 0 => Need::Skip(self.left),
            Side::Client if !self.stopped => Need::Bytes,
            _ => Need::Nothing,
        }
    }

    fn held(&self) -> usize {
        self.head.bytes().len()
    }
}

/// Whether a client's first bytes are a query: decided at the end of its question.
pub(crate) fn guess(prefix: Prefix<'_>) -> Guess {
    let mut reader = Reader::new(prefix.bytes);
    let Some(length) = reader.be16() else { return guess_length(prefix.bytes) };
    if !(MIN_QUERY..=MAX_QUERY).contains(&length) {
        return Guess::No;
    }
    let message = reader.rest();
    let message = message.get(..length.into()).unwrap_or(message);
    let complete = message.len() == usize::from(length);
    match query(message, length, prefix.port == PORT) {
        Parsed::Query => Guess::Yes,
        Parsed::Cut if !complete => Guess::More,
        Parsed::Cut | Parsed::Other => Guess::No,
    }
}

/// One byte of a length is here, or none.
fn guess_length(prefix: &[u8]) -> Guess {
    let [longest, _] = MAX_QUERY.to_be_bytes();
    if prefix.first().is_some_and(|byte| *byte > longest) { Guess::No } else { Guess::More }
}

/// How far a message could be read.
enum Parsed {
    Query,
    Cut,
    Other,
}

/// Reads header and question; with `trusted`, the port speaks for it.
fn query(message: &[u8], length: u16, trusted: bool) -> Parsed {
    let Some((header, question)) = message.split_at_checked(HEADER) else { return Parsed::Cut };
    let Some(extra) = header_extra(header, trusted) else { return Parsed::Other };
    let name = match name_length(question, trusted) {
        Ok(Some(name)) => name,
        Ok(None) => return Parsed::Cut,
        Err(NoName) => return Parsed::Other,
    };
    let mut reader = Reader::new(question.get(name..).unwrap_or_default());
    let (Some(kind), Some(class)) = (reader.be16(), reader.be16()) else { return Parsed::Cut };
    let end = HEADER.saturating_add(name).saturating_add(4);
    let fits = if extra { end < usize::from(length) } else { end == usize::from(length) };
    let classes = [1, 3, 4, 254, 255];
    if kind != 0 && classes.contains(&class) && fits { Parsed::Query } else { Parsed::Other }
}

/// Checks a query's header; whether records follow the question.
fn header_extra(header: &[u8], trusted: bool) -> Option<bool> {
    let mut reader = Reader::new(header);
    let (_id, flags) = (reader.be16()?, reader.be16()?);
    let (questions, answers) = (reader.be16()?, reader.be16()?);
    let (authorities, extras) = (reader.be16()?, reader.be16()?);
    let opcode = (flags & 0x7800).rotate_right(11);
    let plain = matches!(opcode, 0 | 4) && answers == 0 && authorities <= 1 && extras <= 2;
    let update = opcode == 5 && trusted;
    let is_query = flags & 0x8000 == 0 && flags & 0x000f == 0 && flags & 0x0200 == 0;
    let convincing = trusted || flags & 0x0680 == 0;
    let records = answers > 0 || authorities > 0 || extras > 0;
    (questions == 1 && (plain || update) && is_query && convincing).then_some(records)
}

struct NoName;

/// The length of an uncompressed name with its root; `Ok(None)` if its end is not here.
fn name_length(bytes: &[u8], trusted: bool) -> Result<Option<usize>, NoName> {
    let mut reader = Reader::new(bytes);
    let mut length = 0_usize;
    loop {
        let Some(label) = reader.u8() else { return Ok(None) };
        length = length.saturating_add(1).saturating_add(label.into());
        if label > 63 || length > MAX_NAME {
            return Err(NoName);
        }
        if label == 0 {
            return Ok(Some(length));
        }
        let rest = reader.rest();
        let usual = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_*".contains(byte);
        let here = rest.get(..label.into()).unwrap_or(rest);
        if !trusted && !here.iter().all(usual) {
            return Err(NoName);
        }
        if reader.take(label.into()).is_none() {
            return Ok(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Event, testing::events};

    /// A query for example.com's A record, with its length before it.
    const QUERY: &[u8] =
        b"\0\x1d\x12\x34\x01\x20\0\x01\0\0\0\0\0\0\x07example\x03com\0\0\x01\0\x01";

    #[test]
    fn recognises_and_counts_queries() {
        let two = [QUERY, QUERY].concat();
        let seen = events(5353, &[(Side::Client, &two), (Side::Server, QUERY)]);
        assert_eq!(seen, [Event::Application(AppId::DNS), Event::Request, Event::Request]);
    }

    #[test]
    fn the_port_speaks_for_an_odd_name() {
        let mut query = QUERY.to_vec();
        query[16] = b' ';
        assert_eq!(events(853, &[(Side::Client, &query)]), [Event::Unidentified]);
        assert_eq!(events(53, &[(Side::Client, &query)]).len(), 2);
    }

    #[test]
    fn refuses_what_is_no_query() {
        for (at, value) in [(0, 0x11), (1, 0x1c), (1, 0x1e), (4, 0x81), (5, 0x03), (7, 2), (9, 1)] {
            let mut query = QUERY.to_vec();
            query[at] = value;
            let mut seen = events(53, &[(Side::Client, &query)]);
            seen.truncate(1);
            assert_eq!(seen, [Event::Unidentified], "byte {at} = {value:#x}");
        }
        for (at, value) in [(14, 0xc0), (14, 64), (28, 0), (30, 9)] {
            let mut query = QUERY.to_vec();
            query[at] = value;
            assert_eq!(events(53, &[(Side::Client, &query)]), [Event::Unidentified], "byte {at}");
        }
    }

    #[test]
    fn a_name_has_a_limit() {
        let mut query = b"\x01\x40\x12\x34\x01\x20\0\x01\0\0\0\0\0\0".to_vec();
        for _ in 0..4 {
            query.push(63);
            query.extend([b'a'; 63]);
        }
        assert_eq!(events(53, &[(Side::Client, &query)]), [Event::Unidentified]);
    }
}
