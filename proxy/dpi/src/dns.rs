//! DNS over TCP: messages behind a 16-bit length.
//!
//! Recognised by a client's first query: on port 53 one that is well formed, on other ports one that
//! leaves no doubt. Of each message the header and the questions are read, the rest passes unread.

pub mod message;

use outrider_model::{AppId, Side, ThreatId};

use self::message::{DNS_HEADER, DnsHeader, DnsName};
use crate::{
    Need,
    bytes::{Reader, Small, pass},
    datagram::dns::{AXFR, HUGE, IXFR, NULL, loops},
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

/// Bytes of a message that are read: its header and a question of any length.
const MAX_READ: u16 = 512;

/// Questions of a message that are looked at.
const MAX_QUESTIONS: u16 = 8;

/// Starts reading a flow that was recognised as DNS.
pub(crate) fn start() -> Box<dyn Inspector> {
    Box::new(Dns::default())
}

#[derive(Debug, Default)]
struct Dns {
    client: Wing,
    server: Wing,
}

/// One side's messages.
#[derive(Debug, Default)]
struct Wing {
    head: Small<2>,
    /// The message's beginning, as far as it has come.
    start: Vec<u8>,
    /// So much of it is still to be read.
    wanted: u16,
    /// So much of it passes unread after that.
    left: u64,
    stopped: bool,
}

impl Inspector for Dns {
    fn feed(&mut self, side: Side, mut chunk: &[u8], sink: &mut Sink<'_>) {
        if side == Side::Client {
            sink.application(AppId::DNS);
        }
        let wing = self.wing(side);
        while !chunk.is_empty() && !wing.stopped {
            wing.feed(side, &mut chunk, sink);
        }
    }

    fn skip(&mut self, side: Side, bytes: u64) {
        let wing = self.wing(side);
        wing.left = wing.left.saturating_sub(bytes);
    }

    fn need(&self, side: Side) -> Need {
        let wing = match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        };
        match wing {
            Wing { stopped: true, .. } => Need::Nothing,
            Wing { wanted: 0, left: 1.., .. } => Need::Skip(wing.left),
            _ => Need::Bytes,
        }
    }

    fn held(&self) -> usize {
        self.client.held().saturating_add(self.server.held())
    }
}

impl Dns {
    fn wing(&mut self, side: Side) -> &mut Wing {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }
}

impl Wing {
    /// Takes what the chunk has of the next thing: the beginning of a message, its rest, a length.
    fn feed(&mut self, side: Side, chunk: &mut &[u8], sink: &mut Sink<'_>) {
        if self.wanted > 0 {
            let here = chunk.len().min(self.wanted.into());
            let Some((part, rest)) = chunk.split_at_checked(here) else { return };
            self.start.extend_from_slice(part);
            *chunk = rest;
            self.wanted = self
                .wanted
                .saturating_sub(u16::try_from(here).unwrap_or(u16::MAX));
            if self.wanted == 0 {
                let message = std::mem::take(&mut self.start);
                let length = self.left.saturating_add(message.len() as u64);
                watch(side, &message, length, sink);
            }
        } else if self.left > 0 {
            self.left = pass(chunk, self.left);
        } else if let Some(head) = self.head.fill(chunk, 2) {
            let length = Reader::new(head).be16().unwrap_or_default();
            self.head.clear();
            self.wanted = length.min(MAX_READ);
            self.left = length.saturating_sub(self.wanted).into();
            self.stopped = length == 0;
            if side == Side::Client && length > 0 {
                sink.request();
            }
        }
    }

    fn held(&self) -> usize {
        self.head.bytes().len().saturating_add(self.start.len())
    }
}

/// Looks for what is wrong with a message of which the beginning is here.
fn watch(side: Side, start: &[u8], length: u64, sink: &mut Sink<'_>) {
    let Some(header) = DnsHeader::read(start) else { return };
    let (mut at, mut kinds) = (DNS_HEADER, Vec::new());
    for _ in 0..header.questions.min(MAX_QUESTIONS) {
        let Some((kind, end)) = question(start, at) else { break };
        kinds.push(kind);
        at = end;
    }
    if kinds.iter().any(|kind| matches!(*kind, AXFR | IXFR)) && !header.is_answer() {
        sink.threat(ThreatId::ZONE_TRANSFER, side, "question for a whole zone");
    }
    if kinds.contains(&NULL) && !header.is_answer() {
        sink.threat(ThreatId::DNS_NULL, side, "question of type NULL");
    }
    if !kinds.is_empty() || header.questions == 0 {
        return;
    }
    if loops(start, DNS_HEADER) {
        sink.threat(ThreatId::DNS_LOOP, side, "name whose pointers go in circles");
    } else if length > HUGE {
        sink.threat(ThreatId::DNS_OVERFLOW, side, "huge message that cannot be read");
    }
}

/// The type of the question at a place, and the place behind it.
fn question(start: &[u8], at: usize) -> Option<(u16, usize)> {
    let (_, behind) = DnsName::read(start, at)?;
    let mut reader = Reader::new(start.get(behind..)?);
    let (kind, _class) = (reader.be16()?, reader.be16()?);
    Some((kind, behind.checked_add(4)?))
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
    use crate::{
        Event,
        testing::{events, threats},
    };

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

    /// A message behind its length.
    fn framed(message: &[u8]) -> Vec<u8> {
        let length = u16::try_from(message.len()).unwrap();
        [&length.to_be_bytes()[..], message].concat()
    }

    #[test]
    fn watches_the_questions_of_every_message() {
        for (kind, threat) in [
            (252, ThreatId::ZONE_TRANSFER),
            (251, ThreatId::ZONE_TRANSFER),
            (10, ThreatId::DNS_NULL),
        ] {
            let mut asked = QUERY.to_vec();
            let at = asked.len().saturating_sub(3);
            asked[at] = kind;
            let seen = events(53, &[(Side::Client, &[QUERY, &asked, QUERY].concat())]);
            let found = threats(&seen);
            assert_eq!(found.len(), 1, "{kind}");
            assert_eq!((found[0].0, found[0].1), (threat, Side::Client));
            assert_eq!(
                seen.iter()
                    .filter(|event| **event == Event::Request)
                    .count(),
                3
            );
            asked[4] |= 0x80;
            let answered = events(53, &[(Side::Client, QUERY), (Side::Server, &asked)]);
            assert!(threats(&answered).is_empty(), "an answer repeats the question");
        }
    }

    #[test]
    fn finds_names_in_circles_and_huge_nonsense_of_either_side() {
        let mut circle = QUERY[2..14].to_vec();
        circle.extend([0xc0, 12, 0, 1, 0, 1]);
        let mut huge = QUERY[2..14].to_vec();
        huge.resize(3_000, 0x3f);
        for (message, threat) in [(circle, ThreatId::DNS_LOOP), (huge, ThreatId::DNS_OVERFLOW)] {
            for side in [Side::Client, Side::Server] {
                let flow = [(Side::Client, QUERY), (side, &*framed(&message))];
                assert_eq!(threats(&events(53, &flow))[0].0, threat, "{side:?}");
            }
        }
        let mut long = QUERY[2..].to_vec();
        long.resize(60_000, 0);
        let flow = [(Side::Client, QUERY), (Side::Server, &*framed(&long))];
        assert!(threats(&events(53, &flow)).is_empty(), "its question can be read");
    }

    #[test]
    fn so_much_of_a_message_is_read_and_so_many_questions() {
        let question = b"\0\0\x01\0\x01";
        for (before, found) in [(7, 1), (8, 0)] {
            let mut message = b"\x12\x34\0\0\0\x09\0\0\0\0\0\0".to_vec();
            message.extend(question.repeat(before));
            message.extend(b"\0\0\xfc\0\x01");
            let flow = [(Side::Client, QUERY), (Side::Client, &*framed(&message))];
            assert_eq!(threats(&events(53, &flow)).len(), found, "{before}");
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
