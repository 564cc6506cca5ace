//! Putting a client's hello together from the CRYPTO frames of its packets.

use std::ops::Range;

use super::variable;
use crate::{
    bytes::Reader,
    tls::{CLIENT_HELLO, MAX_HELLO},
};

/// Pieces with gaps between them that are kept at once.
const MAX_PIECES: usize = 64;
/// Ranges of an acknowledgement that are passed over.
const MAX_RANGES: u64 = 64;

const PADDING: u8 = 0;
const PING: u8 = 1;
const ACK: u8 = 2;
const ACK_ECN: u8 = 3;
const CRYPTO: u8 = 6;

/// The beginning of a stream of handshake messages, as far as it has come.
#[derive(Debug, Default)]
pub(super) struct Hello {
    bytes: Vec<u8>,
    /// What of `bytes` is here: in order, with gaps between.
    here: Vec<Range<usize>>,
    hopeless: bool,
}

impl Hello {
    /// Bytes that are held, gaps included.
    pub(super) fn held(&self) -> usize {
        self.bytes.len()
    }

    /// Takes the CRYPTO frames of a packet. What follows a frame that has no place here is not read.
    pub(super) fn take(&mut self, payload: &[u8]) {
        let mut reader = Reader::new(payload);
        while self.frame(&mut reader).is_some() {}
    }

    /// The hello, once all of it is here.
    pub(super) fn whole(&self) -> Option<&[u8]> {
        let start = self.start();
        start.get(..length(start)?)
    }

    /// It cannot become whole: no hello, too long, or in too many pieces.
    pub(super) fn is_hopeless(&self) -> bool {
        let start = self.start();
        let wrong = start.first().is_some_and(|kind| *kind != CLIENT_HELLO);
        self.hopeless || wrong || length(start).is_some_and(|length| length > MAX_HELLO)
    }

    /// All that is here without a gap.
    fn start(&self) -> &[u8] {
        let first = self.here.first().filter(|first| first.start == 0);
        first
            .and_then(|first| self.bytes.get(first.clone()))
            .unwrap_or_default()
    }

    fn frame(&mut self, reader: &mut Reader<'_>) -> Option<()> {
        match reader.u8()? {
            PADDING | PING => {}
            kind @ (ACK | ACK_ECN) => {
                let (_largest, _delay) = (variable(reader)?, variable(reader)?);
                let ranges = variable(reader).filter(|ranges| *ranges <= MAX_RANGES)?;
                let counts = if kind == ACK_ECN { 3 } else { 0 };
                let numbers = ranges
                    .saturating_mul(2)
                    .saturating_add(1)
                    .saturating_add(counts);
                for _ in 0..numbers {
                    variable(reader)?;
                }
            }
            CRYPTO => {
                let offset = usize::try_from(variable(reader)?).ok()?;
                let length = usize::try_from(variable(reader)?).ok()?;
                self.add(offset, reader.take(length)?);
            }
            _ => return None,
        }
        Some(())
    }

    /// Adds a piece; where it repeats what is here, that stays.
    fn add(&mut self, offset: usize, piece: &[u8]) {
        let end = offset.saturating_add(piece.len());
        if end > MAX_HELLO {
            self.hopeless = true;
            return;
        }
        if piece.is_empty() {
            return;
        }
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        let mut from = offset;
        for here in &self.here {
            copy(&mut self.bytes, offset, piece, from..here.start.min(end));
            from = from.max(here.end);
        }
        copy(&mut self.bytes, offset, piece, from..end);
        self.mark(offset..end);
    }

    /// Joins a piece with those that it touches.
    fn mark(&mut self, mut piece: Range<usize>) {
        self.here.retain(|here| {
            let apart = here.end < piece.start || piece.end < here.start;
            if !apart {
                piece = piece.start.min(here.start)..piece.end.max(here.end);
            }
            apart
        });
        let at = self.here.partition_point(|here| here.start < piece.start);
        self.here.insert(at, piece);
        self.hopeless |= self.here.len() > MAX_PIECES;
    }
}

/// Copies a part of a piece that begins at `offset`, if the part is one.
fn copy(bytes: &mut [u8], offset: usize, piece: &[u8], part: Range<usize>) {
    let from = part.start.saturating_sub(offset)..part.end.saturating_sub(offset);
    if let (Some(place), Some(from)) = (bytes.get_mut(part), piece.get(from)) {
        place.copy_from_slice(from);
    }
}

/// How long the message is that begins here.
fn length(start: &[u8]) -> Option<usize> {
    let mut reader = Reader::new(start);
    reader.u8()?;
    usize::try_from(reader.be24()?).ok()?.checked_add(4)
}
