//! One side of a TCP connection, put in order.
//!
//! Positions count the bytes of a side from the first one that was seen, without wrapping. What comes
//! early is held up to limits; what is acknowledged by the other side and does not come is lost, and
//! so is what is in front of held bytes when a limit is reached. Where bytes are sent twice the first
//! copy counts, and a difference is counted.

use std::collections::BTreeMap;

use crate::record::SideRecord;

/// Segments of one side that may be held.
pub(crate) const MAX_HELD_SEGMENTS: usize = 4_096;

/// What it costs to hold a segment beside its bytes: a flood of tiny ones must not be for free.
pub(crate) const PIECE_COST: usize = 64;

/// Acknowledged bytes are lost once so many packets of the flow have passed without them: frames of
/// one moment may be captured in any order.
pub(crate) const PATIENCE: u64 = 32;

/// How far before and behind the bytes in order a segment may be, whatever the windows say.
const MAX_DISTANCE: u64 = 1 << 30;

/// How far behind what is acknowledged a segment may be.
const BEHIND: u64 = 65_536;

/// What is known of one side.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    /// Sequence number of the byte at `position`, once one was seen.
    next: Option<u32>,
    position: u64,
    /// The other side has said that it has everything before this.
    acked: u64,
    /// The packet of the flow after which acknowledged bytes were first missed.
    missed_at: Option<u64>,
    held: BTreeMap<u64, Piece>,
    held_bytes: usize,
    fin: Option<u64>,
    ended: bool,
}

/// A run of bytes that came early.
#[derive(Debug)]
enum Piece {
    Bytes(Vec<u8>),
    /// They were on the wire and not captured.
    Unseen(u64),
}

impl Piece {
    fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Unseen(count) => *count,
        }
    }

    /// What it costs to hold.
    fn size(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len().saturating_add(PIECE_COST),
            Self::Unseen(_) => PIECE_COST,
        }
    }
}

/// What comes out of a stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Chunk<'a> {
    Bytes(&'a [u8]),
    Lost(u64),
    End,
}

/// What a side sent in one segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent<'a> {
    pub(crate) seq: u32,
    pub(crate) payload: &'a [u8],
    /// Bytes of the payload on the wire.
    pub(crate) length: usize,
    pub(crate) fin: bool,
    /// How much the other side said it would take.
    pub(crate) window: u64,
}

/// What may still be held, by this side and by all.
#[derive(Debug)]
pub(crate) struct Room<'a> {
    pub(crate) by_side: usize,
    /// Bytes held by all streams.
    pub(crate) used: &'a mut usize,
    pub(crate) total: usize,
    pub(crate) tally: &'a mut Tally,
}

/// Segments that were held, and those of them that were let go.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) held: u64,
    pub(crate) freed: u64,
}

impl Stream {
    /// The first byte of the stream has this sequence number, unless another one was seen before.
    pub(crate) fn start(&mut self, seq: u32) {
        self.next.get_or_insert(seq);
    }

    /// Whether a SYN with this first sequence number belongs to what was seen.
    pub(crate) fn started_at(&self, seq: u32) -> bool {
        let first = |next: u32| next.wrapping_sub(low(self.position));
        self.next.is_none_or(|next| first(next) == seq)
    }

    /// Takes a segment; `false` if it is far outside what the other side would take.
    pub(crate) fn take(
        &mut self,
        sent: &Sent<'_>,
        record: &mut SideRecord,
        room: &mut Room<'_>,
        out: &mut dyn FnMut(Chunk<'_>),
    ) -> bool {
        self.start(sent.seq);
        let Some((start, repeated)) = self.place(sent) else { return false };
        let length = (sent.length as u64).saturating_sub(repeated);
        let end = start.saturating_add(length);
        record.repeated = record
            .repeated
            .saturating_add(repeated.min(sent.length as u64));
        let behind = repeated > sent.length as u64;
        if sent.fin && !behind {
            self.fin.get_or_insert(end);
        }
        let skipped = usize::try_from(repeated).unwrap_or(usize::MAX);
        let payload = sent.payload.get(skipped..).unwrap_or_default();
        if length > 0 {
            if start == self.position && self.held.is_empty() {
                self.emit(payload, length, record, out);
            } else {
                if start > self.position {
                    record.early = record.early.saturating_add(1);
                }
                self.hold(start, payload, length, record, room);
                self.drain(record, room, out);
                self.make_room(record, room, out);
            }
        }
        self.finish(out);
        true
    }

    /// Where a segment begins, and how many of its bytes are before the position.
    fn place(&self, sent: &Sent<'_>) -> Option<(u64, u64)> {
        let ahead = sent.seq.wrapping_sub(self.next?);
        if ahead < 1 << 31 {
            let start = self.position.saturating_add(ahead.into());
            let most = self
                .acked
                .max(self.position)
                .saturating_add(sent.window.min(MAX_DISTANCE));
            return (start <= most.saturating_add(1)).then_some((start, 0));
        }
        let behind = u64::from(ahead.wrapping_neg());
        let open = self.position.saturating_sub(self.acked.min(self.position));
        let near = behind <= BEHIND.saturating_add(open);
        near.then_some((self.position, behind))
    }

    /// Whether a reset with this sequence number may be the other side's doing.
    pub(crate) fn is_near(&self, seq: u32, window: u64) -> bool {
        let sent = Sent { seq, payload: &[], length: 0, fin: false, window };
        self.next.is_none() || self.place(&sent).is_some()
    }

    /// The next bytes, in order, of which the first are here.
    fn emit(
        &mut self,
        bytes: &[u8],
        length: u64,
        record: &mut SideRecord,
        out: &mut dyn FnMut(Chunk<'_>),
    ) {
        let seen = bytes
            .get(..usize::try_from(length).unwrap_or(usize::MAX))
            .unwrap_or(bytes);
        if !seen.is_empty() {
            out(Chunk::Bytes(seen));
        }
        let lost = length.saturating_sub(seen.len() as u64);
        if lost > 0 {
            out(Chunk::Lost(lost));
        }
        record.bytes = record.bytes.saturating_add(length);
        record.lost = record.lost.saturating_add(lost);
        self.position = self.position.saturating_add(length);
        self.next = self.next.map(|next| next.wrapping_add(low(length)));
        self.missed_at = None;
    }

    /// Keeps what is not yet there of a segment.
    fn hold(
        &mut self,
        start: u64,
        payload: &[u8],
        length: u64,
        record: &mut SideRecord,
        room: &mut Room<'_>,
    ) {
        let end = start.saturating_add(length);
        let mut at = start;
        while at < end {
            let before = self.held.range(..=at).next_back();
            if let Some((from, piece)) = before
                && from.saturating_add(piece.len()) > at
            {
                let stop = from.saturating_add(piece.len()).min(end);
                let again = stop.saturating_sub(at);
                record.repeated = record.repeated.saturating_add(again);
                record.conflicting = record.conflicting.saturating_add(differing(
                    piece,
                    at.saturating_sub(*from),
                    part(payload, start, at, stop),
                ));
                at = stop;
                continue;
            }
            let following = self.held.range(at..).next().map_or(end, |(from, _)| *from);
            let stop = following.min(end);
            self.hold_new(at, stop, part(payload, start, at, stop), room);
            at = stop;
        }
    }

    fn hold_new(&mut self, at: u64, stop: u64, bytes: &[u8], room: &mut Room<'_>) {
        let seen = at.saturating_add(bytes.len() as u64);
        if !bytes.is_empty() {
            room.tally.held = room.tally.held.saturating_add(1);
            self.insert(at, Piece::Bytes(bytes.to_vec()), room);
        }
        if stop > seen {
            self.insert(seen, Piece::Unseen(stop.saturating_sub(seen)), room);
        }
    }

    fn insert(&mut self, at: u64, piece: Piece, room: &mut Room<'_>) {
        self.held_bytes = self.held_bytes.saturating_add(piece.size());
        *room.used = room.used.saturating_add(piece.size());
        self.held.insert(at, piece);
    }

    /// Gives out what has come to be in order.
    fn drain(
        &mut self,
        record: &mut SideRecord,
        room: &mut Room<'_>,
        out: &mut dyn FnMut(Chunk<'_>),
    ) {
        while let Some(entry) = self.held.first_entry()
            && *entry.key() <= self.position
        {
            let piece = entry.remove();
            self.held_bytes = self.held_bytes.saturating_sub(piece.size());
            *room.used = room.used.saturating_sub(piece.size());
            match piece {
                Piece::Bytes(bytes) => {
                    room.tally.freed = room.tally.freed.saturating_add(1);
                    self.emit(&bytes, bytes.len() as u64, record, out);
                }
                Piece::Unseen(count) => self.emit(&[], count, record, out),
            }
        }
    }

    fn make_room(
        &mut self,
        record: &mut SideRecord,
        room: &mut Room<'_>,
        out: &mut dyn FnMut(Chunk<'_>),
    ) {
        while self.held_bytes > room.by_side
            || self.held.len() > MAX_HELD_SEGMENTS
            || (*room.used > room.total && !self.held.is_empty())
        {
            self.give_up_hole(record, room, out);
        }
    }

    /// What is in front of the first held bytes is lost.
    fn give_up_hole(
        &mut self,
        record: &mut SideRecord,
        room: &mut Room<'_>,
        out: &mut dyn FnMut(Chunk<'_>),
    ) {
        if let Some((from, _)) = self.held.first_key_value() {
            let hole = from.saturating_sub(self.position);
            if hole > 0 {
                self.emit(&[], hole, record, out);
            }
            self.drain(record, room, out);
        }
    }

    /// The other side acknowledges.
    pub(crate) fn acknowledge(&mut self, ack: u32) {
        // Without a byte of this side there is nothing to compare with: the next one is the first.
        let Some(next) = self.next else {
            self.next = Some(ack);
            return;
        };
        let ahead = u64::from(ack.wrapping_sub(next));
        if ahead < MAX_DISTANCE {
            self.acked = self.acked.max(self.position.saturating_add(ahead));
        }
    }

    /// Gives up what the other side has acknowledged and what has not come since; `packets` of the
    /// flow were seen so far.
    pub(crate) fn settle(
        &mut self,
        packets: u64,
        record: &mut SideRecord,
        room: &mut Room<'_>,
        out: &mut dyn FnMut(Chunk<'_>),
    ) {
        if self.acked <= self.position || self.only_end_is_missing() {
            self.missed_at = None;
            return;
        }
        let since = *self.missed_at.get_or_insert(packets);
        if packets.saturating_sub(since) < PATIENCE {
            return;
        }
        while self.position < self.acked && !self.only_end_is_missing() {
            let first = self
                .held
                .first_key_value()
                .map_or(self.acked, |(from, _)| *from);
            let hole = first.min(self.acked).saturating_sub(self.position);
            if hole > 0 {
                self.emit(&[], hole, record, out);
            }
            self.drain(record, room, out);
        }
        self.finish(out);
    }

    /// The end of a stream is acknowledged like a byte.
    fn only_end_is_missing(&self) -> bool {
        self.held.is_empty() && self.acked == self.position.saturating_add(1)
            || self.fin.is_some_and(|fin| self.position >= fin)
    }

    /// No more packets will come: everything that is held goes out, with the holes before it.
    pub(crate) fn flush(
        &mut self,
        record: &mut SideRecord,
        room: &mut Room<'_>,
        out: &mut dyn FnMut(Chunk<'_>),
    ) {
        while !self.held.is_empty() {
            self.give_up_hole(record, room, out);
        }
        if self.acked > self.position && !self.only_end_is_missing() {
            let hole = self.acked.saturating_sub(self.position);
            self.emit(&[], hole, record, out);
        }
        self.finish(out);
    }

    /// Says the end when everything before it has been said.
    fn finish(&mut self, out: &mut dyn FnMut(Chunk<'_>)) {
        if !self.ended && self.fin.is_some_and(|fin| self.position >= fin) {
            self.ended = true;
            out(Chunk::End);
        }
    }

    /// Sequence numbers of the next byte in order, and of the next one that the other side expects.
    pub(crate) fn sequence(&self) -> Option<(u32, u32)> {
        let next = self.next?;
        let first = next.wrapping_sub(low(self.position));
        let end = u32::from(self.ended);
        Some((next.wrapping_add(end), first.wrapping_add(low(self.acked))))
    }

    #[cfg(test)]
    pub(crate) fn held_bytes(&self) -> usize {
        self.held_bytes
    }
}

/// The bytes of a payload from one position to another; fewer if it was cut.
fn part(payload: &[u8], start: u64, from: u64, to: u64) -> &[u8] {
    let place = |at: u64| usize::try_from(at.saturating_sub(start)).unwrap_or(usize::MAX);
    let rest = payload.get(place(from)..).unwrap_or_default();
    rest.get(..place(to).saturating_sub(place(from)))
        .unwrap_or(rest)
}

/// How many bytes differ from those of a piece from `offset` on.
fn differing(piece: &Piece, offset: u64, bytes: &[u8]) -> u64 {
    let Piece::Bytes(known) = piece else { return 0 };
    let known = known
        .get(usize::try_from(offset).unwrap_or(usize::MAX)..)
        .unwrap_or_default();
    known
        .iter()
        .zip(bytes)
        .filter(|(one, other)| one != other)
        .count() as u64
}

/// Sequence numbers are positions modulo 2^32.
fn low(position: u64) -> u32 {
    (position & 0xffff_ffff) as u32
}

#[cfg(test)]
mod tests;
