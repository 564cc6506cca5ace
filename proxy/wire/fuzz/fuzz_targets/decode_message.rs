//! Any bytes from a data path: decoding never panics, and what decodes encodes to one form that
//! decodes to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outrider_wire::Message;

fuzz_target!(|datagram: &[u8]| {
    round_trip(datagram);
    // The same bytes behind an honest length, so that bodies are reached.
    let mut framed = datagram.to_vec();
    if let (Ok(length), Some(slot)) = (u16::try_from(datagram.len()), framed.get_mut(2..4)) {
        slot.copy_from_slice(&length.to_be_bytes());
        round_trip(&framed);
    }
});

fn round_trip(datagram: &[u8]) {
    let Ok(message) = Message::decode_exact(datagram) else { return };
    let bytes = match message.encode() {
        Ok(bytes) => bytes,
        // Only JSON bodies have forms that are shorter than ours.
        Err(error) => return assert_eq!((error.reason(), datagram[0] > 64), ("too-long", true)),
    };
    let again = Message::decode_exact(&bytes).expect("what encodes decodes");
    assert_eq!(again, message);
    assert_eq!(again.encode().expect("it did before"), bytes);
}
