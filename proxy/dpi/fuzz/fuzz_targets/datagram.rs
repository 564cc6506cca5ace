//! Any datagrams on any port: nothing panics, and a flow is one application at most.
//!
//! The input is a port, then datagrams: a byte for the side and the length, then its bytes.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use outrider_dpi::{DatagramInspector, DpiConfig, Event, MAX_MESSAGE};
use outrider_model::Side;

fuzz_target!(|input: &[u8]| {
    let Some(([high, low], mut rest)) = input.split_first_chunk() else { return };
    let port = u16::from_be_bytes([*high, *low]);
    let mut inspector = DatagramInspector::new(Arc::new(DpiConfig::default()), port);
    let mut events = Vec::new();
    let mut over = false;
    while let Some(([side, length], behind)) = rest.split_first_chunk() {
        let side = if side & 1 == 0 { Side::Client } else { Side::Server };
        let length = usize::from(*length) << (rest[0] >> 5);
        let datagram = behind.get(..length).unwrap_or(behind);
        rest = &behind[datagram.len()..];
        let before = events.len();
        let wants = inspector.feed(side, datagram, &mut events);
        assert!(!over || (!wants && events.len() == before));
        over = !wants;
    }
    inspector.end(&mut events);
    let settled = |event: &&Event| matches!(event, Event::Application(_) | Event::Unidentified);
    assert!(events.iter().filter(settled).count() <= 1);
    for event in &events {
        if let Event::Threat(finding) = event {
            assert!(finding.message.len() <= MAX_MESSAGE);
        }
    }
});
