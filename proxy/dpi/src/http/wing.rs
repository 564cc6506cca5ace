//! One side of an HTTP flow: cuts it into start lines, headers and bodies.

use std::borrow::Cow;

use outrider_model::{Side, ThreatId};

use super::{
    MAX_FIRST_HEAD, chunk,
    head::{self, FieldName, Framing, Head},
    startline::MAX_EMPTY_LINES,
};
use crate::{
    Need,
    bytes::{Line, Lines, pass},
};

/// Why the framing of a flow can't be trusted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Fault {
    pub(super) id: ThreatId,
    pub(super) message: &'static str,
}

impl Fault {
    pub(super) const BARE_CR: Self =
        Self::smuggling("bare carriage return beside a framing header");
    pub(super) const NO_REQUEST: Self = Self::smuggling("malformed request line after a request");
    const NO_CRLF: Self = Self::smuggling("chunk data does not end in CR LF");

    pub(super) const fn smuggling(message: &'static str) -> Self {
        Self { id: ThreatId::SMUGGLING, message }
    }
}

/// What a wing came upon.
#[derive(Debug)]
pub(super) enum Step<'a> {
    /// The end of the chunk.
    More,
    /// A start line; the caller calls [`Wing::begin`] or stops.
    Start(Line<'a>),
    /// A header of interest.
    Field(FieldName, Cow<'a, [u8]>),
    /// The first head is longer than [`MAX_FIRST_HEAD`].
    Long,
    /// The end of the head; the caller calls [`Wing::body`] or stops.
    End(Framing),
    /// Framing that can't be trusted; the caller stops.
    Fault(Fault),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    StartLine { empty: u8 },
    Headers,
    Body(u64),
    ChunkSize,
    ChunkData(u64),
    ChunkEnd(&'static [u8]),
    Trailers,
    Stopped,
}

impl State {
    const START: Self = Self::StartLine { empty: 0 };
}

/// The reader of one side.
#[derive(Debug)]
pub(super) struct Wing {
    side: Side,
    state: State,
    lines: Lines,
    head: Head,
    /// Bytes of the first head so far; `None` from then on.
    first_head: Option<usize>,
}

impl Wing {
    pub(super) fn new(side: Side) -> Self {
        Self {
            side,
            state: State::START,
            lines: Lines::default(),
            head: Head::default(),
            first_head: Some(0),
        }
    }

    /// Reads up to the next thing of interest.
    pub(super) fn read<'a>(&mut self, chunk: &mut &'a [u8]) -> Step<'a> {
        while !chunk.is_empty() {
            let step = match self.state {
                State::StartLine { empty } => self.start_line(empty, chunk),
                State::Headers => self.headers(chunk),
                State::Body(left) => {
                    self.state = body_state(pass(chunk, left));
                    None
                }
                State::ChunkSize => self.chunk_size(chunk),
                State::ChunkData(left) => {
                    self.state = chunk_state(pass(chunk, left));
                    None
                }
                State::ChunkEnd(wanted) => self.chunk_end(wanted, chunk),
                State::Trailers => self.trailers(chunk),
                State::Stopped => return Step::More,
            };
            if let Some(step) = step {
                return step;
            }
        }
        Step::More
    }

    /// The start line was good: headers follow.
    pub(super) fn begin(&mut self, http10: bool) {
        self.head = Head::new(http10);
        self.state = State::Headers;
    }

    /// The head was good: a body follows.
    pub(super) fn body(&mut self, framing: Framing) {
        self.first_head = None;
        match framing {
            Framing::Empty => self.state = State::START,
            Framing::Length(length) => self.state = body_state(length),
            Framing::Chunked => self.state = State::ChunkSize,
            Framing::UntilClose => self.stop(),
        }
    }

    /// Reads nothing any more.
    pub(super) fn stop(&mut self) {
        self.state = State::Stopped;
        self.lines = Lines::default();
    }

    pub(super) fn skip(&mut self, bytes: u64) {
        match self.state {
            State::Body(left) => self.state = body_state(left.saturating_sub(bytes)),
            State::ChunkData(left) => self.state = chunk_state(left.saturating_sub(bytes)),
            _ => {}
        }
    }

    pub(super) fn need(&self) -> Need {
        match self.state {
            State::Body(left) | State::ChunkData(left) => Need::Skip(left),
            State::Stopped => Need::Nothing,
            _ => Need::Bytes,
        }
    }

    pub(super) fn held(&self) -> usize {
        self.lines.held()
    }

    fn start_line<'a>(&mut self, empty: u8, chunk: &mut &'a [u8]) -> Option<Step<'a>> {
        let line = self.lines.next(chunk)?;
        if line.is_empty() && empty < MAX_EMPTY_LINES {
            self.state = State::StartLine { empty: empty.saturating_add(1) };
            return None;
        }
        Some(Step::Start(line))
    }

    fn headers<'a>(&mut self, chunk: &mut &'a [u8]) -> Option<Step<'a>> {
        let side = self.side;
        let passed = self
            .lines
            .pass(chunk, |initial| head::unwanted(side, initial));
        if passed > 0 {
            self.head.passed();
            if self.is_long(passed) {
                self.first_head = None;
                return Some(Step::Long);
            }
        }
        let line = self.lines.next(chunk)?;
        if line.is_empty() {
            self.head.note_end(&line);
            return Some(match self.head.finish(self.side) {
                Ok(framing) => Step::End(framing),
                Err(fault) => Step::Fault(fault),
            });
        }
        let long = self.is_long(line.size());
        match self.head.line(self.side, line) {
            Ok(Some((name, value))) => Some(Step::Field(name, value)),
            Ok(None) if long => {
                self.first_head = None;
                Some(Step::Long)
            }
            Ok(None) => None,
            Err(fault) => Some(Step::Fault(fault)),
        }
    }

    /// Counts the first head's bytes; whether there are too many of them to wait for its end.
    fn is_long(&mut self, line: usize) -> bool {
        let Some(bytes) = &mut self.first_head else { return false };
        *bytes = bytes.saturating_add(line);
        *bytes > MAX_FIRST_HEAD
    }

    fn chunk_size<'a>(&mut self, chunk: &mut &'a [u8]) -> Option<Step<'a>> {
        let line = self.lines.next(chunk)?;
        match chunk::size(&line) {
            Ok(0) => self.state = State::Trailers,
            Ok(size) => self.state = State::ChunkData(size),
            Err(fault) => return Some(Step::Fault(fault)),
        }
        None
    }

    /// The two bytes after a chunk's data.
    fn chunk_end<'a>(&mut self, wanted: &'static [u8], chunk: &mut &'a [u8]) -> Option<Step<'a>> {
        let (byte, rest) = chunk.split_first()?;
        let (first, wanted) = wanted.split_first()?;
        if byte != first {
            return Some(Step::Fault(Fault::NO_CRLF));
        }
        *chunk = rest;
        self.state = if wanted.is_empty() { State::ChunkSize } else { State::ChunkEnd(wanted) };
        None
    }

    /// Lines after the last chunk: a framing header there is a finding.
    fn trailers<'a>(&mut self, chunk: &mut &'a [u8]) -> Option<Step<'a>> {
        let line = self.lines.next(chunk)?;
        if line.is_empty() {
            self.state = State::START;
            return None;
        }
        head::trailer(&line).err().map(Step::Fault)
    }
}

/// Within a body, or after it.
fn body_state(left: u64) -> State {
    if left == 0 { State::START } else { State::Body(left) }
}

/// Within a chunk, or after it.
fn chunk_state(left: u64) -> State {
    if left == 0 { State::ChunkEnd(b"\r\n") } else { State::ChunkData(left) }
}
