//! Any bytes from a pod as a capture: checking never panics, cut points change nothing, and what goes
//! through are blocks that encode to the same bytes. The same bytes as a filter: reading it never panics
//! and stays within its caps.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outrider_model::PacketFilter;
use outrider_wire::pcapng::{Block, Checker};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let again = text
            .parse::<PacketFilter>()
            .map(|filter| filter.text().parse::<PacketFilter>() == Ok(filter));
        assert_ne!(again, Ok(false));
    }
    if let Ok(block) = Block::read(bytes) {
        let mut again = Vec::new();
        block.write(&mut again);
        assert_eq!(again, bytes);
    }
    let (mut whole, mut parts) = (Vec::new(), Vec::new());
    let mut checker = Checker::default();
    let good = checker.feed(bytes, &mut whole).is_ok();
    assert!(bytes.starts_with(&whole));
    let mut by_byte = Checker::default();
    let also = bytes
        .chunks(1)
        .try_for_each(|byte| by_byte.feed(byte, &mut parts));
    assert_eq!((good, checker.packets(), checker.totals()), (
        also.is_ok(),
        by_byte.packets(),
        by_byte.totals()
    ));
    assert_eq!(whole, parts);
});
