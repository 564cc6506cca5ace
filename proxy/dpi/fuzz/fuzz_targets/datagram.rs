//! Any datagrams on any port: nothing panics, and a flow is one application at most.
//!
//! The input is a port, then datagrams: a byte for the side and the length, then its bytes. Every second
//! kind of datagram is the frames of a QUIC packet, which are put into one that opens.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use outrider_dpi::{DatagramInspector, DpiConfig, Event, MAX_MESSAGE, quic_initial};
use outrider_model::Side;

fuzz_target!(|input: &[u8]| {
    let Some(([high, low], mut rest)) = input.split_first_chunk() else { return };
    let port = u16::from_be_bytes([*high, *low]);
    let mut inspector = DatagramInspector::new(Arc::new(DpiConfig::default()), port);
    let mut events = Vec::new();
    let mut over = false;
    let mut number = 0;
    while let Some(([side, length], behind)) = rest.split_first_chunk() {
        let frames = side & 2 != 0;
        let side = if side & 1 == 0 { Side::Client } else { Side::Server };
        let length = usize::from(*length) << (rest[0] >> 5);
        let datagram = behind.get(..length).unwrap_or(behind);
        rest = &behind[datagram.len()..];
        number += 1;
        let sealed = frames.then(|| quic_initial(b"outrider", b"", number, datagram)).flatten();
        let datagram = sealed.as_deref().unwrap_or(datagram);
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
