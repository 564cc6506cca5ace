//! Any bytes as a DNS message: the reader survives them and stays within its caps.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outrider_dpi::dns_message::{DNS_HEADER, DnsHeader, DnsName, DnsQuestion, MAX_GIVEN, given};

fuzz_target!(|message: &[u8]| {
    assert!(given(message).len() <= MAX_GIVEN);
    assert_eq!(DnsHeader::read(message).is_some(), message.len() >= DNS_HEADER);
    if let Some((question, end)) = DnsQuestion::read(message) {
        assert!(end <= message.len());
        // A name with bytes that no text holds has none; the other claims are about text.
        if let Some(text) = question.name.text() {
            assert!(text.len() < 255 && text == text.to_ascii_lowercase());
            assert!(question.name.without_service() == question.name || text.starts_with('_'));
        }
    }
    for at in 0..message.len().min(64) {
        assert!(DnsName::read(message, at).is_none_or(|(_, end)| end <= message.len()));
    }
});
