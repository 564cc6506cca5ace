//! One side's records, up to where it encrypts.

use crate::{
    Need,
    bytes::{Reader, Small, pass},
};

use super::MAX_HELLO;

pub(super) const CHANGE_CIPHER_SPEC: u8 = 20;
pub(super) const ALERT: u8 = 21;
pub(super) const HANDSHAKE: u8 = 22;
pub(super) const APPLICATION_DATA: u8 = 23;
pub(super) const HEARTBEAT: u8 = 24;

/// Longest record: 2^14 bytes and what encryption adds.
const MAX_RECORD: u16 = 16384 + 2048;

/// Bytes before each record's body.
const HEAD: usize = 5;

/// Bytes of a heartbeat before its payload.
const HEARTBEAT_HEAD: usize = 3;

/// Bytes before a handshake message's body.
const MESSAGE_HEAD: usize = 4;

/// What the records contained.
#[derive(Debug)]
pub(super) enum Found {
    /// Nothing, so far.
    Nothing,
    /// The first handshake message.
    Hello(Vec<u8>),
    /// A first handshake message that is too long to be kept.
    Other,
    /// A heartbeat request.
    Heartbeat {
        /// Bytes it wants back.
        asked: u16,
        /// Bytes it has.
        sent: u16,
    },
}

/// The reader of one side's records.
#[derive(Debug, Default)]
pub(super) struct Records {
    head: Small<HEAD>,
    body: Body,
    /// Bytes of the record's body that are still to come.
    left: u16,
    /// The first handshake message; `None` once it was read.
    hello: Hello,
    heartbeat: Small<HEARTBEAT_HEAD>,
}

/// What the body at hand is good for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Body {
    #[default]
    Opaque,
    Hello,
    Heartbeat {
        length: u16,
    },
    Stopped,
}

/// How far the first handshake message has come.
#[derive(Debug)]
enum Hello {
    Open(Vec<u8>),
    Read,
}

impl Default for Hello {
    fn default() -> Self {
        Self::Open(Vec::new())
    }
}

impl Records {
    /// Reads up to the next thing of interest, or the end of the chunk.
    pub(super) fn read(&mut self, chunk: &mut &[u8]) -> Found {
        while !chunk.is_empty() && self.body != Body::Stopped {
            if self.left == 0 {
                self.open(chunk);
                continue;
            }
            let here = chunk.len().min(self.left.into());
            let found = match self.body {
                Body::Hello => self.hello(chunk.get(..here).unwrap_or_default()),
                Body::Heartbeat { length } => self.heartbeat(chunk, length),
                Body::Opaque | Body::Stopped => Found::Nothing,
            };
            self.left = u16::try_from(pass(chunk, self.left.into())).unwrap_or_default();
            if !matches!(found, Found::Nothing) {
                return found;
            }
        }
        Found::Nothing
    }

    /// Reads nothing any more.
    pub(super) fn stop(&mut self) {
        self.body = Body::Stopped;
        self.hello = Hello::Read;
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.body == Body::Stopped
    }

    pub(super) fn skip(&mut self, bytes: u64) {
        let bytes = u16::try_from(bytes).unwrap_or(u16::MAX);
        self.left = self.left.saturating_sub(bytes);
    }

    pub(super) fn need(&self) -> Need {
        match self.body {
            Body::Stopped => Need::Nothing,
            Body::Opaque if self.left > 0 => Need::Skip(self.left.into()),
            _ => Need::Bytes,
        }
    }

    pub(super) fn held(&self) -> usize {
        match &self.hello {
            Hello::Open(bytes) => bytes.len(),
            Hello::Read => 0,
        }
    }

    /// Reads a record's head.
    fn open(&mut self, chunk: &mut &[u8]) {
        let Some(head) = self.head.fill(chunk, HEAD) else { return };
        let mut reader = Reader::new(head);
        let (kind, major) = (reader.u8().unwrap_or_default(), reader.u8().unwrap_or_default());
        reader.u8();
        let length = reader.be16().unwrap_or_default();
        self.head.clear();
        self.left = length;
        if major != 3 || length == 0 || length > MAX_RECORD {
            return self.stop();
        }
        self.body = match (kind, &self.hello) {
            (HANDSHAKE, Hello::Open(_)) => Body::Hello,
            (HEARTBEAT, _) => {
                self.heartbeat.clear();
                Body::Heartbeat { length }
            }
            (HANDSHAKE | ALERT, _) => Body::Opaque,
            (CHANGE_CIPHER_SPEC | APPLICATION_DATA, _) | (_, _) => return self.stop(),
        };
    }

    /// Adds to the first handshake message.
    fn hello(&mut self, part: &[u8]) -> Found {
        let Hello::Open(bytes) = &mut self.hello else { return Found::Nothing };
        bytes.extend_from_slice(part);
        let mut reader = Reader::new(bytes);
        let Some([_kind, a, b, c]) = reader.array::<MESSAGE_HEAD>() else { return Found::Nothing };
        let length = u32::from_be_bytes([0, a, b, c]);
        let end = usize::try_from(length)
            .unwrap_or(usize::MAX)
            .saturating_add(MESSAGE_HEAD);
        if end <= MAX_HELLO && bytes.len() < end {
            return Found::Nothing;
        }
        let mut message = std::mem::take(bytes);
        self.hello = Hello::Read;
        self.body = Body::Opaque;
        if end > MAX_HELLO {
            return Found::Other;
        }
        message.truncate(end);
        Found::Hello(message)
    }

    /// Adds to a heartbeat's head, of which nothing is taken off the chunk.
    fn heartbeat(&mut self, chunk: &[u8], length: u16) -> Found {
        let mut part = chunk.get(..self.left.into()).unwrap_or(chunk);
        let Some(head) = self.heartbeat.fill(&mut part, HEARTBEAT_HEAD) else {
            return Found::Nothing;
        };
        let mut reader = Reader::new(head);
        let request = reader.u8() == Some(1);
        let asked = reader.be16().unwrap_or_default();
        self.body = Body::Opaque;
        if !request {
            return Found::Nothing;
        }
        Found::Heartbeat { asked, sent: length.saturating_sub(3) }
    }
}
