//! HTTP/2 in clear text with prior knowledge: the preface, the frames, the first header block.
//!
//! It is HTTP as soon as the preface is complete, even if it will turn out to be gRPC: a client may
//! wait for the server's settings before it sends a header, so waiting for the content type could
//! stall a flow whose first bytes are held. For the same reason the host comes after
//! [`Event::Application`] here. It is read from the first request only, the server software from
//! the first response only; later header blocks are counted and skipped, as is all data.

mod hpack;
mod huffman;

#[cfg(test)]
mod tests;

use outrider_model::{AppId, Side};

use crate::{
    Event, Need,
    bytes::{Reader, Small, pass},
    http,
    inspector::{Inspector, Sink},
    recognise::{Guess, Prefix, begins},
};
use hpack::Known;

/// What a client sends first.
pub(crate) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Longest first header block that is read.
pub(crate) const MAX_BLOCK: usize = 16 * 1024;

/// Bytes before the payload of each frame.
const FRAME_HEAD: usize = 9;

const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;

const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;

/// Whether a client's first bytes are the preface.
pub(crate) fn guess(prefix: Prefix<'_>) -> Guess {
    begins(prefix.bytes, PREFACE)
}

/// Starts reading a flow that was recognised as HTTP/2.
pub(crate) fn start() -> Box<dyn Inspector> {
    Box::new(Http2 {
        client: Wing { preface: PREFACE.len() as u64, ..Wing::default() },
        server: Wing::default(),
        last_stream: 0,
    })
}

#[derive(Debug)]
struct Http2 {
    client: Wing,
    server: Wing,
    /// Highest stream that the client opened.
    last_stream: u32,
}

/// One side's frames.
#[derive(Debug, Default)]
struct Wing {
    /// Bytes of the preface that are still to come.
    preface: u64,
    head: Small<FRAME_HEAD>,
    settled: bool,
    payload: Payload,
    left: u64,
    /// The first header block, while it is being read.
    block: Vec<u8>,
    stage: Stage,
}

/// How far the first header block has come.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Stage {
    #[default]
    Before,
    /// In a frame of the block; whether it is the last one.
    Within {
        last: bool,
        flags: u8,
    },
    After,
    Stopped,
}

/// What the frame at hand carries.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Payload {
    #[default]
    Opaque,
    Block,
}

/// The fixed part of a frame.
#[derive(Clone, Copy, Debug)]
struct Frame {
    length: u32,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl Inspector for Http2 {
    fn feed(&mut self, side: Side, mut chunk: &[u8], sink: &mut Sink<'_>) {
        sink.application(AppId::HTTP);
        while !chunk.is_empty() {
            let wing = self.wing(side);
            if wing.stage == Stage::Stopped {
                return;
            }
            if wing.preface > 0 {
                wing.preface = pass(&mut chunk, wing.preface);
            } else if wing.left > 0 {
                self.payload(side, &mut chunk, sink);
            } else {
                self.frame(side, &mut chunk, sink);
            }
        }
    }

    fn skip(&mut self, side: Side, bytes: u64) {
        let wing = self.wing(side);
        if wing.payload == Payload::Opaque {
            wing.left = wing.left.saturating_sub(bytes);
        }
    }

    fn need(&self, side: Side) -> Need {
        let wing = match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        };
        match (wing.stage, wing.payload) {
            (Stage::Stopped, _) => Need::Nothing,
            (_, Payload::Opaque) if wing.left > 0 => Need::Skip(wing.left),
            _ => Need::Bytes,
        }
    }

    fn held(&self) -> usize {
        self.client
            .block
            .len()
            .saturating_add(self.server.block.len())
    }
}

impl Http2 {
    fn wing(&mut self, side: Side) -> &mut Wing {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }

    /// Reads a frame's head.
    fn frame(&mut self, side: Side, chunk: &mut &[u8], sink: &mut Sink<'_>) {
        let wing = self.wing(side);
        let Some(head) = wing.head.fill(chunk, FRAME_HEAD) else { return };
        let frame = Frame::read(head);
        wing.head.clear();
        let Some(frame) = frame.filter(|frame| wing.admits(*frame)) else {
            return wing.stop();
        };
        wing.settled = true;
        wing.left = frame.length.into();
        wing.open(frame);
        if wing.left == 0 {
            self.end_of_frame(side, sink);
        }
        let opens = frame.kind == HEADERS && side == Side::Client;
        if opens && frame.stream & 1 == 1 && frame.stream > self.last_stream {
            self.last_stream = frame.stream;
            sink.request();
        }
    }

    /// Reads or passes a frame's payload.
    fn payload(&mut self, side: Side, chunk: &mut &[u8], sink: &mut Sink<'_>) {
        let wing = self.wing(side);
        let before = *chunk;
        wing.left = pass(chunk, wing.left);
        if wing.payload == Payload::Block {
            let taken = before.len().saturating_sub(chunk.len());
            wing.gather(before.get(..taken).unwrap_or_default());
            if side == Side::Server && wing.stage == Stage::After {
                return wing.stop();
            }
        }
        if wing.left == 0 {
            self.end_of_frame(side, sink);
        }
    }

    /// After the last frame of the first header block: reads it.
    fn end_of_frame(&mut self, side: Side, sink: &mut Sink<'_>) {
        let wing = self.wing(side);
        if wing.payload == Payload::Block {
            wing.payload = Payload::Opaque;
            wing.strip();
        }
        if let Stage::Within { last: true, .. } = wing.stage {
            let block = std::mem::take(&mut wing.block);
            wing.stage = if side == Side::Client { Stage::After } else { Stage::Stopped };
            hpack::fields(&block, |known, value| say(side, known, value, sink));
        }
    }
}

/// Turns a header of interest into an event.
fn say(side: Side, known: Known, value: &[u8], sink: &mut Sink<'_>) {
    match (side, known) {
        (Side::Client, Known::Authority | Known::Host) => {
            let host = http::normal_host(value).map(Event::Host);
            sink.events.extend(host);
        }
        (Side::Server, Known::Server) => {
            sink.events
                .extend(http::software(value).map(Event::ServerSoftware));
        }
        _ => {}
    }
}

impl Wing {
    fn stop(&mut self) {
        *self = Self { stage: Stage::Stopped, ..Self::default() };
    }

    /// Settings come first, and nothing interrupts a header block.
    fn admits(&self, frame: Frame) -> bool {
        let in_block = matches!(self.stage, Stage::Within { .. });
        match frame.kind {
            SETTINGS => !in_block,
            CONTINUATION => self.settled && self.stage != Stage::Before,
            _ => self.settled && !in_block,
        }
    }

    /// Decides what the payload of a frame is good for.
    fn open(&mut self, frame: Frame) {
        let last = frame.flags & END_HEADERS != 0;
        self.payload = match (self.stage, frame.kind) {
            (Stage::Before, HEADERS) => {
                self.stage = Stage::Within { last, flags: frame.flags };
                Payload::Block
            }
            (Stage::Within { .. }, CONTINUATION) => {
                self.stage = Stage::Within { last, flags: 0 };
                Payload::Block
            }
            _ => Payload::Opaque,
        };
    }

    /// Keeps a part of the block; of one that is too long nothing is kept.
    fn gather(&mut self, part: &[u8]) {
        if self.block.len().saturating_add(part.len()) > MAX_BLOCK {
            self.block = Vec::new();
            self.stage = Stage::After;
            self.payload = Payload::Opaque;
        } else {
            self.block.extend_from_slice(part);
        }
    }

    /// Removes padding and priority of the frame that began the block.
    fn strip(&mut self) {
        let Stage::Within { flags, last } = self.stage else { return };
        if flags & (PADDED | PRIORITY) == 0 {
            return;
        }
        self.stage = Stage::Within { last, flags: 0 };
        let mut reader = Reader::new(&self.block);
        let padding = if flags & PADDED != 0 { reader.u8().unwrap_or_default() } else { 0 };
        if flags & PRIORITY != 0 {
            reader.take(5);
        }
        let rest = reader.rest();
        let end = rest.len().saturating_sub(padding.into());
        self.block = rest.get(..end).unwrap_or_default().to_vec();
    }
}

impl Frame {
    fn read(head: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(head);
        let (length, kind, flags) = (reader.be24()?, reader.u8()?, reader.u8()?);
        let stream = reader.be32()? & 0x7fff_ffff;
        Some(Self { length, kind, flags, stream })
    }
}
