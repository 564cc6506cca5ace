use proptest::prelude::*;

use super::*;

/// What came out of a stream: its bytes, with a `?` for each one that was lost.
#[derive(Debug, Default)]
struct Rig {
    stream: Stream,
    record: SideRecord,
    used: usize,
    text: Vec<u8>,
    ended: bool,
    packets: u64,
}

const ROOM: usize = 1 << 19;

impl Rig {
    fn with(
        &mut self,
        act: impl FnOnce(&mut Stream, &mut SideRecord, &mut Room<'_>, &mut dyn FnMut(Chunk<'_>)),
    ) {
        let mut tally = Tally::default();
        let mut room =
            Room { by_side: ROOM, used: &mut self.used, total: 4 * ROOM, tally: &mut tally };
        let (text, ended) = (&mut self.text, &mut self.ended);
        act(&mut self.stream, &mut self.record, &mut room, &mut |chunk| match chunk {
            Chunk::Bytes(bytes) => text.extend_from_slice(bytes),
            Chunk::Lost(count) => text.extend(std::iter::repeat_n(b'?', count.try_into().unwrap())),
            Chunk::End => {
                assert!(!*ended, "one end");
                *ended = true;
            }
        });
    }

    fn send_cut(&mut self, seq: u32, payload: &[u8], length: usize, fin: bool) -> bool {
        self.packets += 1;
        let packets = self.packets;
        let sent = Sent { seq, payload, length, fin, window: 1 << 20 };
        let mut taken = false;
        self.with(|stream, record, room, out| {
            taken = stream.take(&sent, record, room, out);
            stream.settle(packets, record, room, out);
        });
        taken
    }

    fn send(&mut self, seq: u32, payload: &[u8]) -> bool {
        self.send_cut(seq, payload, payload.len(), false)
    }

    fn flush(&mut self) {
        self.with(|stream, record, room, out| stream.flush(record, room, out));
        assert_eq!((self.used, self.stream.held_bytes()), (0, 0), "nothing is held any more");
    }
}

#[test]
fn early_segments_wait_for_earlier_ones() {
    let mut rig = Rig::default();
    rig.stream.start(u32::MAX - 2);
    rig.send(u32::MAX - 2, b"abc");
    rig.send(6, b"ghi");
    rig.send(3, b"def");
    rig.send(0, b"ABC");
    assert_eq!(rig.text, b"abcABCdefghi");
    assert_eq!((rig.record.early, rig.record.bytes, rig.used), (2, 12, 0));
}

#[test]
fn the_first_copy_counts_and_differences_are_counted() {
    let mut rig = Rig::default();
    rig.stream.start(0);
    rig.send(4, b"efgh");
    rig.send(2, b"cdXfghij");
    rig.send(0, b"ab");
    assert_eq!(rig.text, b"abcdefghij");
    assert_eq!((rig.record.conflicting, rig.record.repeated), (1, 4));
    rig.send(0, b"abcd");
    assert_eq!((rig.text.len(), rig.record.repeated), (10, 8));
}

#[test]
fn acknowledged_bytes_that_do_not_come_are_lost() {
    let mut rig = Rig::default();
    rig.stream.start(0);
    rig.send(3, b"def");
    rig.stream.acknowledge(6);
    for _ in 0..=PATIENCE {
        assert_eq!(rig.text, b"", "the bytes may still come");
        rig.send(3, b"");
    }
    assert_eq!(rig.text, b"???def");
    assert_eq!(rig.record.lost, 3);
}

#[test]
fn an_acknowledged_end_is_no_lost_byte() {
    let mut rig = Rig::default();
    rig.stream.start(0);
    rig.send(0, b"abc");
    rig.stream.acknowledge(4);
    rig.flush();
    assert_eq!((&rig.text[..], rig.record.lost), (&b"abc"[..], 0));
}

#[test]
fn an_end_comes_once_and_last() {
    let mut rig = Rig::default();
    rig.stream.start(0);
    rig.send_cut(3, b"def", 3, true);
    assert!(!rig.ended);
    rig.send(0, b"abc");
    assert!(rig.ended);
    rig.send_cut(3, b"def", 3, true);
    assert_eq!(rig.text, b"abcdef");
}

#[test]
fn what_was_not_captured_is_lost_in_its_place() {
    let mut rig = Rig::default();
    rig.stream.start(0);
    rig.send_cut(0, b"ab", 4, false);
    rig.send_cut(8, b"ij", 4, false);
    rig.send_cut(4, b"ef", 4, true);
    assert_eq!(rig.text, b"ab??ef??ij??");
    assert_eq!((rig.record.bytes, rig.record.lost), (12, 6));
}

#[test]
fn holding_has_a_limit_in_bytes_and_in_segments() {
    let mut rig = Rig::default();
    rig.stream.start(0);
    for at in 0..1000_u32 {
        rig.send(1 + at * 1000, &[b'x'; 1000]);
        assert!(rig.used <= ROOM);
    }
    assert_eq!(rig.text[0], b'?');
    assert_eq!(rig.text.len(), 1_000_001);
    let mut rig = Rig::default();
    rig.stream.start(0);
    for at in 0..=u32::try_from(MAX_HELD_SEGMENTS).unwrap() {
        rig.send(1 + at * 2, b"x");
        assert!(rig.stream.held.len() <= MAX_HELD_SEGMENTS);
    }
    assert_eq!(&rig.text[..2], b"?x");
}

#[test]
fn what_is_far_away_is_refused() {
    let mut rig = Rig::default();
    rig.stream.start(1000);
    assert!(rig.send(1000, b"abc"));
    assert!(!rig.send(1000 + (1 << 21), b"far"));
    assert!(!rig.send(1000_u32.wrapping_sub(1 << 30), b"old"));
    assert_eq!(rig.text, b"abc");
}

proptest! {
    /// Whatever the order and the overlaps, what comes out is the stream.
    #[test]
    fn order_and_overlap_never_change_the_stream(
        stream in prop::collection::vec(any::<u8>(), 1..600),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 1..80_usize), 0..40),
        start: u32,
    ) {
        let mut rig = Rig::default();
        rig.stream.start(start);
        let whole = (0..stream.len()).step_by(50).map(|at| (at, 50));
        let extra = cuts.iter().map(|(index, len)| (index.index(stream.len()), *len));
        let mut pieces: Vec<_> = extra.chain(whole).collect();
        let len = pieces.len();
        for (at, (index, _)) in cuts.iter().enumerate() {
            pieces.swap(at, index.index(len));
        }
        for (at, len) in pieces {
            let bytes = &stream[at..(at + len).min(stream.len())];
            rig.send(start.wrapping_add(u32::try_from(at).unwrap()), bytes);
        }
        prop_assert_eq!(&rig.text, &stream);
        prop_assert_eq!((rig.record.conflicting, rig.record.lost, rig.used), (0, 0, 0));
    }

    /// Bytes on the wire are given out or lost, each once.
    #[test]
    fn nothing_is_given_out_twice(
        segments in prop::collection::vec((0..3000_u32, prop::collection::vec(any::<u8>(), 0..50), any::<bool>()), 0..80),
    ) {
        let mut rig = Rig::default();
        rig.stream.start(0);
        for (seq, bytes, ack) in &segments {
            rig.send(*seq, bytes);
            if *ack {
                rig.stream.acknowledge(seq.wrapping_add(7));
            }
        }
        rig.flush();
        prop_assert_eq!(rig.text.len() as u64, rig.record.bytes);
    }
}
