//! Putting fragments together, with limits on everything.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::IpAddr,
    time::Duration,
};

use outrider_model::IpProto;

use crate::ip::{Packet, Piece};

/// A packet whose fragments stop coming is forgotten after this.
pub(crate) const FRAGMENT_TIME: Duration = Duration::from_secs(10);

/// Longest packet that fragments can make.
pub(crate) const MAX_WHOLE: usize = 65_535;

/// Fragments of one packet.
pub(crate) const MAX_PIECES: usize = 8_192;

/// What it costs to hold a fragment beside its bytes: a flood of tiny ones must not be for free.
const PIECE_COST: usize = 64;

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Key {
    src: IpAddr,
    dst: IpAddr,
    proto: IpProto,
    id: u32,
}

#[derive(Debug)]
struct Parts {
    serial: u64,
    pieces: BTreeMap<usize, Vec<u8>>,
    /// Where the last fragment ends.
    end: Option<usize>,
    bytes: usize,
    /// What it costs to hold them.
    cost: usize,
    deadline: Duration,
    /// Nothing of it is trusted any more.
    spoilt: bool,
}

/// What a fragment led to.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Joined {
    /// Others are missing.
    Held,
    /// All are here.
    Whole(Vec<u8>),
    /// It overlaps another one: the packet is given up.
    Overlap,
    /// It contradicts itself or another one.
    Malformed(&'static str),
    /// It could not be kept, or belongs to a packet that was given up.
    Dropped,
}

/// All packets that are not whole.
#[derive(Debug)]
pub(crate) struct Fragments {
    parts: HashMap<Key, Parts>,
    /// In the order of their first fragments.
    order: VecDeque<(u64, Key)>,
    serial: u64,
    bytes: usize,
    max_packets: usize,
    max_bytes: usize,
    pub(crate) evicted: u64,
}

impl Fragments {
    pub(crate) fn new(max_packets: usize, max_bytes: usize) -> Self {
        Self {
            parts: HashMap::new(),
            order: VecDeque::new(),
            serial: 0,
            bytes: 0,
            max_packets: max_packets.max(1),
            max_bytes,
            evicted: 0,
        }
    }

    /// Packets and bytes that are held.
    pub(crate) fn held(&self) -> (usize, usize) {
        (self.parts.len(), self.bytes)
    }

    /// Nothing more will come.
    pub(crate) fn clear(&mut self) {
        while self.evict() {}
    }

    /// Takes one fragment.
    pub(crate) fn join(&mut self, packet: &Packet<'_>, piece: Piece, now: Duration) -> Joined {
        if packet.payload.len() < packet.length || packet.length == 0 {
            return Joined::Dropped;
        }
        let end = piece.offset.saturating_add(packet.length);
        if piece.more && !packet.length.is_multiple_of(8) {
            return Joined::Malformed("length of a fragment");
        }
        if end > MAX_WHOLE {
            return Joined::Malformed("fragments exceed 65535 bytes");
        }
        self.expire(now);
        let key = Key { src: packet.src, dst: packet.dst, proto: packet.proto, id: piece.id };
        if self
            .parts
            .get(&key)
            .is_none_or(|parts| parts.deadline <= now)
        {
            self.remove(&key);
            self.open(key);
        }
        let Some(parts) = self.parts.get_mut(&key) else { return Joined::Dropped };
        parts.deadline = now.saturating_add(FRAGMENT_TIME);
        let before = parts.cost;
        let joined = parts.add(piece, packet.payload, end);
        self.bytes = self.bytes.saturating_sub(before).saturating_add(parts.cost);
        if matches!(joined, Joined::Whole(_)) {
            self.remove(&key);
        }
        while self.bytes > self.max_bytes && self.evict() {}
        joined
    }

    fn open(&mut self, key: Key) {
        while self.parts.len() >= self.max_packets && self.evict() {}
        self.serial = self.serial.wrapping_add(1);
        let parts = Parts {
            serial: self.serial,
            pieces: BTreeMap::new(),
            end: None,
            bytes: 0,
            cost: 0,
            deadline: Duration::MAX,
            spoilt: false,
        };
        self.parts.insert(key, parts);
        self.order.push_back((self.serial, key));
        // One packet that stays incomplete keeps what is behind it waiting, whole ones too.
        if self.order.len() > self.max_packets.saturating_mul(4) {
            let parts = &self.parts;
            self.order.retain(|(serial, key)| {
                parts.get(key).is_some_and(|parts| parts.serial == *serial)
            });
        }
    }

    /// Forgets the oldest packet; whether there was one.
    fn evict(&mut self) -> bool {
        while let Some((serial, key)) = self.order.pop_front() {
            if self
                .parts
                .get(&key)
                .is_some_and(|parts| parts.serial == serial)
            {
                self.remove(&key);
                self.evicted = self.evicted.saturating_add(1);
                return true;
            }
        }
        false
    }

    fn expire(&mut self, now: Duration) {
        while let Some((serial, key)) = self.order.front().copied() {
            let alive = |parts: &&Parts| parts.serial == serial && parts.deadline > now;
            if self.parts.get(&key).filter(alive).is_some() {
                return;
            }
            self.order.pop_front();
            if self
                .parts
                .get(&key)
                .is_some_and(|parts| parts.serial == serial)
            {
                self.remove(&key);
                self.evicted = self.evicted.saturating_add(1);
            }
        }
    }

    fn remove(&mut self, key: &Key) {
        if let Some(parts) = self.parts.remove(key) {
            self.bytes = self.bytes.saturating_sub(parts.cost);
        }
    }
}

impl Parts {
    fn add(&mut self, piece: Piece, payload: &[u8], end: usize) -> Joined {
        if self.spoilt {
            return Joined::Dropped;
        }
        if self
            .pieces
            .get(&piece.offset)
            .is_some_and(|known| known == payload)
        {
            return Joined::Held;
        }
        let before = self.pieces.range(..end).next_back();
        let overlaps =
            before.is_some_and(|(at, bytes)| at.saturating_add(bytes.len()) > piece.offset);
        if overlaps {
            return self.spoil(Joined::Overlap);
        }
        let last = self.pieces.last_key_value();
        let beyond = last.map_or(0, |(at, bytes)| at.saturating_add(bytes.len()));
        if self
            .end
            .is_some_and(|known| end > known || !piece.more && end != known)
            || !piece.more && end < beyond
        {
            return self.spoil(Joined::Malformed("fragments disagree about the end"));
        }
        if self.pieces.len() >= MAX_PIECES {
            return self.spoil(Joined::Malformed("too many fragments"));
        }
        if !piece.more {
            self.end = Some(end);
        }
        self.bytes = self.bytes.saturating_add(payload.len());
        self.cost = self
            .cost
            .saturating_add(payload.len())
            .saturating_add(PIECE_COST);
        self.pieces.insert(piece.offset, payload.to_vec());
        if self.end == Some(self.bytes) {
            let pieces: Vec<_> = std::mem::take(&mut self.pieces).into_values().collect();
            return Joined::Whole(pieces.concat());
        }
        Joined::Held
    }

    fn spoil(&mut self, why: Joined) -> Joined {
        self.spoilt = true;
        self.pieces.clear();
        self.bytes = 0;
        self.cost = 0;
        why
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn join(
        fragments: &mut Fragments,
        id: u32,
        (offset, bytes, more): (usize, &[u8], bool),
        now: Duration,
    ) -> Joined {
        let piece = Piece { id, offset, more };
        let packet = Packet {
            src: IpAddr::from([10, 0, 0, 1]),
            dst: IpAddr::from([10, 0, 0, 2]),
            proto: IpProto::UDP,
            payload: bytes,
            length: bytes.len(),
            piece: Some(piece),
        };
        fragments.join(&packet, piece, now)
    }

    #[test]
    fn joins_in_any_order_and_takes_repeats() {
        let parts = [(0, &b"01234567"[..], true), (8, b"abcdefgh", true), (16, b"end", false)];
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]] {
            let mut fragments = Fragments::new(8, 1 << 20);
            assert_eq!(join(&mut fragments, 1, parts[order[0]], NOW), Joined::Held);
            assert_eq!(join(&mut fragments, 1, parts[order[0]], NOW), Joined::Held);
            assert_eq!(join(&mut fragments, 1, parts[order[1]], NOW), Joined::Held);
            let whole = join(&mut fragments, 1, parts[order[2]], NOW);
            assert_eq!(whole, Joined::Whole(b"01234567abcdefghend".to_vec()));
            assert_eq!(fragments.held(), (0, 0));
        }
    }

    #[test]
    fn an_overlap_spoils_the_packet() {
        let mut fragments = Fragments::new(8, 1 << 20);
        join(&mut fragments, 1, (0, b"0123456789abcdef", true), NOW);
        assert_eq!(join(&mut fragments, 1, (8, b"XXXXXXXX", true), NOW), Joined::Overlap);
        assert_eq!(join(&mut fragments, 1, (16, b"end", false), NOW), Joined::Dropped);
    }

    #[test]
    fn fragments_agree_about_the_end() {
        let mut fragments = Fragments::new(8, 1 << 20);
        join(&mut fragments, 1, (8, b"end", false), NOW);
        let beyond = join(&mut fragments, 1, (16, b"01234567", true), NOW);
        assert!(matches!(beyond, Joined::Malformed(_)));
        let long = join(&mut fragments, 2, (65_528, b"01234567", true), NOW);
        assert_eq!(long, Joined::Malformed("fragments exceed 65535 bytes"));
        assert!(matches!(join(&mut fragments, 3, (0, b"odd", true), NOW), Joined::Malformed(_)));
    }

    #[test]
    fn fragments_of_one_packet_have_a_limit() {
        let mut parts = Parts {
            serial: 0,
            pieces: BTreeMap::new(),
            end: None,
            bytes: 0,
            cost: 0,
            deadline: NOW,
            spoilt: false,
        };
        for at in 0..MAX_PIECES {
            let piece = Piece { id: 1, offset: at * 2, more: true };
            assert_eq!(parts.add(piece, b"x", at * 2 + 1), Joined::Held);
        }
        let piece = Piece { id: 1, offset: MAX_PIECES * 2, more: true };
        let more = parts.add(piece, b"x", MAX_PIECES * 2 + 1);
        assert_eq!(more, Joined::Malformed("too many fragments"));
        let mut fragments = Fragments::new(8, 1 << 20);
        assert_eq!(join(&mut fragments, 1, (8, b"", true), NOW), Joined::Dropped);
    }

    #[test]
    fn what_does_not_come_is_forgotten() {
        let mut fragments = Fragments::new(8, 1 << 20);
        join(&mut fragments, 1, (0, b"01234567", true), NOW);
        let late = NOW + FRAGMENT_TIME;
        assert_eq!(join(&mut fragments, 1, (8, b"end", false), late), Joined::Held);
        assert_eq!((fragments.evicted, fragments.held()), (1, (1, 3 + PIECE_COST)));
    }

    #[test]
    fn packets_that_were_whole_do_not_pile_up_behind_one_that_is_not() {
        let mut fragments = Fragments::new(4, 1 << 20);
        join(&mut fragments, 0, (0, b"01234567", true), NOW);
        for id in 1..1_000 {
            join(&mut fragments, id, (0, b"01234567", true), NOW);
            let whole = join(&mut fragments, id, (8, b"end", false), NOW);
            assert!(matches!(whole, Joined::Whole(_)));
            assert!(fragments.order.len() <= 16);
        }
        let late = join(&mut fragments, 0, (8, b"end", false), NOW);
        assert!(matches!(late, Joined::Whole(_)), "and it is still awaited");
    }

    #[test]
    fn packets_and_bytes_have_limits() {
        let mut fragments = Fragments::new(4, 1 << 20);
        for id in 0..100 {
            join(&mut fragments, id, (0, b"01234567", true), NOW);
        }
        assert_eq!((fragments.held(), fragments.evicted), ((4, 4 * (8 + PIECE_COST)), 96));
        let mut fragments = Fragments::new(100, 8 * (8 + PIECE_COST));
        for id in 0..100 {
            join(&mut fragments, id, (0, b"01234567", true), NOW);
        }
        assert_eq!(fragments.held(), (8, 8 * (8 + PIECE_COST)));
    }
}
