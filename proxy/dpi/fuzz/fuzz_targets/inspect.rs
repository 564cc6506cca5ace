//! Any flow, cut at will: nothing panics, cuts don't change the events, memory is bounded.
//!
//! The input is a byte of switches, a byte that says how many bytes decide the cuts, those bytes, and
//! segments: two bytes of side (highest bit) and length, then the segment. `seeds/` holds the recorded
//! flows of `../corpus` in this form.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use outrider_dpi::{
    DpiConfig, Event, MAX_HELD,
    replay::{Drawn, Even, Segment, replay},
};
use outrider_model::{Side, ThreatId};

/// What the input says.
struct Input<'a> {
    config: Arc<DpiConfig>,
    port: u16,
    draws: &'a [u8],
    flow: Vec<Segment>,
}

fn parse(data: &[u8]) -> Option<Input<'_>> {
    let (&[switches, draws], rest) = data.split_first_chunk()?;
    let (draws, mut rest) = rest.split_at_checked(usize::from(draws % 8) + 1)?;
    let mut flow = Vec::new();
    while let Some((head, tail)) = rest.split_first_chunk() {
        let head = u16::from_be_bytes(*head);
        let side = if head & 0x8000 == 0 { Side::Client } else { Side::Server };
        let length = usize::from(head & 0x7fff).min(tail.len());
        let (segment, tail) = tail.split_at(length);
        flow.push((side, segment.to_vec()));
        rest = tail;
    }
    let config = DpiConfig::default();
    let config = match switches & 1 {
        0 => config,
        _ => ThreatId::all().fold(config, |config, threat| config.with_threat(threat, true)),
    };
    let port = if switches & 2 == 0 { 80 } else { 53 };
    Some(Input { config: Arc::new(config), port, draws, flow })
}

fuzz_target!(|data: &[u8]| {
    let Some(Input { config, port, draws, flow }) = parse(data) else { return };
    let whole = replay(&config, port, &flow, &mut Even { size: usize::MAX, skip: false }, true);
    let single = replay(&config, port, &flow, &mut Even { size: 1, skip: false }, true);
    let drawn = replay(&config, port, &flow, &mut Drawn::new(draws), true);
    assert_eq!(single, outcome(&whole, single.held), "one byte at a time");
    assert_eq!(drawn, outcome(&whole, drawn.held), "at random");
    assert!(single.held.max(whole.held).max(drawn.held) <= MAX_HELD);
    let is_final = |event: &&Event| matches!(event, Event::Application(_) | Event::Unidentified);
    assert_eq!(whole.events.iter().filter(is_final).count(), 1, "one identification");
});

/// What another replay must have seen; only the bytes held may differ.
fn outcome(seen: &outrider_dpi::replay::Seen, held: usize) -> outrider_dpi::replay::Seen {
    outrider_dpi::replay::Seen { held, ..seen.clone() }
}
