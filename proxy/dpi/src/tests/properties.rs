//! What holds for any bytes: cuts don't matter, nothing panics, memory is bounded, interest that is
//! over stays over.

use std::sync::Arc;

use outrider_model::Side;
use proptest::{collection::vec, prelude::*, sample::Index};

use super::corpus;
use crate::{
    DpiConfig, Event, MAX_HELD, MAX_MESSAGE, MAX_NAME,
    replay::{Drawn, Even, Segment, replay},
    testing::all_on,
};

/// Bytes that protocols are made of, to get further than random ones do.
const WORDS: [&[u8]; 36] = [
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\0",
    b":",
    b",",
    b"GET ",
    b"HEAD ",
    b"CONNECT ",
    b"POST / HTTP/1.1\r\n",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 101 S\r\n",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Host: a.example\r\n",
    b"Upgrade: x\r\n",
    b"Server: nginx\r\n",
    b"5\r\nhello\r\n",
    b"0\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\0\0\0\x04\0\0\0\0\0",
    b"*2\r\n",
    b"$3\r\nGET\r\n",
    b"PING\r\n",
    b"SSH-",
    b"2.0-",
    b"1.5-",
    b"\x16\x03\x01\0\x05\x01\0\0\x01",
    b"\x18\x03\x01\0\x03\x01\xff\xff",
    b"\x14\x03\x03\0\x01\x01",
    b"\0\0\0\x08\x04\xd2\x16\x2f",
    b"\0\x03\0\0user\0a\0\0",
    b"\0\x1d\x12\x34\x01\x20\0\x01\0\0\0\0\0\0\x07example\x03com\0\0\x01\0\x01",
];

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Client), Just(Side::Server)]
}

fn piece() -> impl Strategy<Value = Vec<u8>> {
    let words = (0..WORDS.len()).prop_map(|at| WORDS[at].to_vec());
    prop_oneof![4 => words, 1 => vec(any::<u8>(), 0..40)]
}

fn made_up() -> impl Strategy<Value = Vec<Segment>> {
    let bytes = vec(piece(), 1..12).prop_map(|pieces| pieces.concat());
    vec((side(), bytes), 1..6)
}

/// One change to a recorded flow.
#[derive(Clone, Debug)]
enum Change {
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, u8),
    Repeat(Index, u8),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<Index>;
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, bits)| Change::Flip(at, bits)),
        (at(), piece()).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (at(), 1_u8..20).prop_map(|(at, count)| Change::Remove(at, count)),
        (at(), 1_u8..40).prop_map(|(at, count)| Change::Repeat(at, count)),
    ]
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    if bytes.is_empty() {
        return;
    }
    let range = |at: &Index, count: u8, len: usize| {
        let start = at.index(len);
        start..start.saturating_add(count.into()).min(len)
    };
    match change {
        Change::Flip(at, bits) => {
            let at = at.index(bytes.len());
            bytes[at] ^= bits;
        }
        Change::Insert(at, more) => {
            let at = at.index(bytes.len());
            bytes.splice(at..at, more.iter().copied());
        }
        Change::Remove(at, count) => drop(bytes.drain(range(at, *count, bytes.len()))),
        Change::Repeat(at, count) => {
            let range = range(at, *count, bytes.len());
            let again = bytes[range.clone()].to_vec();
            bytes.splice(range.start..range.start, again);
        }
    }
}

/// A recorded flow, changed in a few places.
fn recorded() -> impl Strategy<Value = Vec<Segment>> {
    let flows: Vec<_> = corpus::all().map(|(_, flow)| flow).collect();
    let changes = vec((any::<Index>(), change()), 0..4);
    (any::<Index>(), changes).prop_map(move |(which, changes)| {
        let mut flow = flows[which.index(flows.len())].clone();
        for (segment, change) in changes {
            let segment = segment.index(flow.len().min(6));
            apply(&mut flow[segment].1, &change);
        }
        flow
    })
}

fn check(config: &Arc<DpiConfig>, port: u16, flow: &[Segment], draws: &[u8]) {
    let whole = replay(config, port, flow, &mut Even { size: usize::MAX, skip: false }, true);
    let single = replay(config, port, flow, &mut Even { size: 1, skip: false }, true);
    let drawn = replay(config, port, flow, &mut Drawn::new(draws), true);
    assert_eq!(single.events, whole.events, "one byte at a time");
    assert_eq!(drawn.events, whole.events, "at random");
    assert_eq!(single.over, whole.over);
    assert!(single.held.max(whole.held).max(drawn.held) <= MAX_HELD);
    let is_final = |event: &&Event| matches!(event, Event::Application(_) | Event::Unidentified);
    assert_eq!(whole.events.iter().filter(is_final).count(), 1, "one identification");
    for event in &whole.events {
        match event {
            Event::Host(name) | Event::Sni(name) | Event::Alpn(name) => {
                assert!((1..=MAX_NAME).contains(&name.len()));
                assert!(name.bytes().all(|byte| byte.is_ascii_graphic()));
            }
            Event::Threat(finding) => assert!(finding.message.len() <= MAX_MESSAGE),
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn made_up_flows(flow in made_up(), draws in vec(any::<u8>(), 1..9), port in any::<bool>()) {
        check(&all_on(), if port { 53 } else { 1 }, &flow, &draws);
        check(&Arc::new(DpiConfig::default()), 1, &flow, &draws);
    }

    #[test]
    fn any_bytes(flow in vec((side(), vec(any::<u8>(), 0..200)), 0..5), draws in vec(any::<u8>(), 1..9)) {
        check(&all_on(), 53, &flow, &draws);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn recorded_flows(flow in recorded(), draws in vec(any::<u8>(), 1..9)) {
        check(&all_on(), 1, &flow, &draws);
    }
}
