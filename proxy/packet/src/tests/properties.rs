use std::time::Duration;

use outrider_model::Side;
use proptest::prelude::*;

use super::{client, run, server};
use crate::{
    Engine, Event, Frame, Limits, LinkType,
    build::{Talk, echo, ethernet, fragments, udp},
};

/// A little of everything.
fn mixture() -> Vec<Vec<u8>> {
    let mut packets = Talk::new(client(), server())
        .open()
        .client(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .server(&[b'y'; 4000])
        .close()
        .packets;
    packets.extend(fragments(&udp(client(), server(), &[1; 500]), 128));
    packets.push(echo(client().ip(), server().ip(), false, (1, 2), b"data"));
    packets
}

const SMALL: Limits = Limits {
    flows: 4,
    held_by_side: 2_000,
    held: 3_000,
    fragmented: 2,
    fragment_bytes: 600,
    servers: 2,
};

/// Feeds frames to a small engine; each flow opens and closes once, and the limits hold.
fn survive(link: LinkType, frames: &[Vec<u8>]) {
    let mut engine = Engine::new(SMALL);
    let mut open = std::collections::BTreeSet::new();
    let mut hear = |event: Event<'_>| match event {
        Event::Opened { flow, .. } => assert!(open.insert(flow)),
        Event::Packet(record, _) => assert!(open.contains(&record.flow)),
        Event::Closed(record) => assert!(open.remove(&record.flow)),
        Event::Data { flow, .. } | Event::Lost { flow, .. } | Event::Ended { flow, .. } => {
            assert!(open.contains(&flow));
        }
        Event::Finding { flow, .. } => assert!(flow.is_none_or(|flow| open.contains(&flow))),
    };
    for (at, bytes) in frames.iter().enumerate() {
        let at = Duration::from_millis(at as u64 * 700);
        let frame = Frame { link, at, bytes, wire: bytes.len() };
        engine.advance(at, &mut hear);
        let peek = engine.peek(&frame);
        let mut taken = None;
        engine.feed(&frame, &mut |event| {
            if let Event::Packet(record, side) = event {
                taken = Some((record.flow, record.ends, side));
            }
            hear(event);
        });
        // TCP segments may belong to no flow, and replace one.
        if let (Some(peek), Some((flow, ends, side))) = (peek, taken)
            && ends.proto != outrider_model::IpProto::TCP
        {
            assert_eq!((peek.ends, peek.side), (ends, side));
            assert!(peek.flow.is_none_or(|known| known == flow));
        }
        assert!(engine.open() <= SMALL.flows);
        assert!(engine.held() <= SMALL.held + SMALL.fragment_bytes, "{}", engine.held());
    }
    engine.finish(&mut hear);
    assert!(open.is_empty());
}

proptest! {
    #[test]
    fn any_bytes_are_survived(frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 0..40)) {
        for link in [LinkType::Ethernet, LinkType::Loopback, LinkType::Raw, LinkType::Cooked, LinkType::Cooked2] {
            survive(link, &frames);
        }
    }

    #[test]
    fn corrupted_packets_are_survived(
        order in prop::collection::vec(any::<prop::sample::Index>(), 1..60),
        damage in prop::collection::vec((any::<prop::sample::Index>(), 0..60_usize, any::<u8>()), 0..20),
        cut in prop::collection::vec((any::<prop::sample::Index>(), 0..80_usize), 0..5),
    ) {
        let whole = mixture();
        let mut frames: Vec<_> = order.iter().map(|at| ethernet(&whole[at.index(whole.len())])).collect();
        for (index, at, value) in damage {
            let len = frames.len();
            if let Some(byte) = frames[index.index(len)].get_mut(at) {
                *byte = value;
            }
        }
        for (index, to) in cut {
            let len = frames.len();
            frames[index.index(len)].truncate(to);
        }
        survive(LinkType::Ethernet, &frames);
    }

    /// Frames that are captured a little out of order give the same streams.
    #[test]
    fn small_disorder_changes_nothing(swaps in prop::collection::vec(any::<prop::sample::Index>(), 0..12)) {
        let mut packets = Talk::new(client(), server()).open().client(&[b'a'; 3000]).server(&[b'b'; 9000]).packets;
        for swap in swaps {
            // Never the first two: without a SYN the beginning cannot be known.
            let at = 2 + swap.index(packets.len() - 3);
            packets.swap(at, at + 1);
        }
        let (heard, _) = run(&packets);
        prop_assert_eq!(heard.text(Side::Client), vec![b'a'; 3000]);
        prop_assert_eq!(heard.text(Side::Server), vec![b'b'; 9000]);
        prop_assert_eq!(heard.records[0].server.lost, 0);
    }
}
