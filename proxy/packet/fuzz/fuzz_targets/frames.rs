//! Any frames at any times: nothing panics, every flow opens and closes once, the limits hold. What is
//! forged of a packet, or of where a flow is, can be read back.
//!
//! The input is a list of frames: a byte for the link type and the time that passes, two for the
//! length, then the frame.
#![no_main]

use std::{collections::BTreeSet, time::Duration};

use libfuzzer_sys::fuzz_target;
use outrider_packet::{
    Engine, Event, Frame, Limits, LinkType,
    forge::{Glimpse, MAX_FORGED, probe, prohibited},
};

const LIMITS: Limits = Limits {
    flows: 8,
    held_by_side: 4_000,
    held: 10_000,
    fragmented: 4,
    fragment_bytes: 8_000,
    servers: 8,
};

const LINKS: [LinkType; 5] =
    [LinkType::Raw, LinkType::Ethernet, LinkType::Loopback, LinkType::Cooked, LinkType::Cooked2];

/// Everything that can be made of a packet.
fn forge(packet: &[u8]) {
    if let Some(error) = prohibited(packet) {
        assert!(error.len() <= MAX_FORGED && prohibited(&error).is_none());
    }
    if let Some(seen) = Glimpse::of(packet) {
        read_back(&seen);
    }
}

fn read_back(seen: &Glimpse) {
    let [to_sender, to_receiver] = seen.resets().map(|reset| Glimpse::of(&reset).unwrap());
    assert!(to_sender.rst && to_sender.forged && to_receiver.rst && to_receiver.forged);
    assert_eq!((to_sender.dst, to_sender.seq), (seen.src, seen.ack.unwrap_or(0)));
    assert_eq!((to_receiver.dst, to_receiver.seq), (seen.dst, seen.end));
    let probe = Glimpse::of(&probe(seen.src, seen.dst, seen.end, seen.seq)).unwrap();
    assert!(probe.forged && !probe.rst && probe.end == seen.end);
}

fuzz_target!(|input: &[u8]| {
    let mut engine = Engine::new(LIMITS);
    let mut open = BTreeSet::new();
    let mut hear = |event: Event<'_>| match event {
        Event::Opened { flow, .. } => assert!(open.insert(flow)),
        Event::Closed(record) => {
            assert!(open.remove(&record.flow));
            for side in [&record.client, &record.server] {
                assert!(side.lost <= side.bytes);
            }
        }
        Event::Data { flow, bytes, .. } => assert!(open.contains(&flow) && bytes.len() < 1 << 17),
        Event::Lost { flow, bytes, .. } => assert!(open.contains(&flow) && bytes > 0),
        Event::Ended { flow, .. } => assert!(open.contains(&flow)),
        Event::Packet(record, _) => assert!(open.contains(&record.flow)),
        Event::Finding { flow, .. } => assert!(flow.is_none_or(|flow| open.contains(&flow))),
    };
    let mut rest = input;
    let mut at = Duration::ZERO;
    while let Some(([head, high, low], behind)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([*high & 0x07, *low]));
        let bytes = behind.get(..length).unwrap_or(behind);
        rest = &behind[bytes.len()..];
        at += Duration::from_millis(u64::from(head >> 3) * 500);
        let link = LINKS[usize::from(head & 7) % LINKS.len()];
        // The highest bit of the length: the capture has not all of it.
        let wire = bytes.len() + usize::from(high >> 7) * 100;
        engine.feed(&Frame { link, at, bytes, wire }, &mut hear);
        forge(bytes);
        for record in engine.flows() {
            let place = engine.tcp(record.flow);
            let at = place.and_then(|at| Glimpse::at(record.ends.client, record.ends.server, at));
            at.iter().for_each(read_back);
        }
        assert!(engine.open() <= LIMITS.flows);
        assert!(engine.held() <= LIMITS.held + LIMITS.fragment_bytes);
    }
    engine.finish(&mut hear);
    assert_eq!(engine.held(), 0);
    assert!(open.is_empty());
});
