//! What holds for any bytes.

use proptest::prelude::*;

use super::with_length;
use crate::{Message, WireError};

/// Bytes that get past the header: a known kind, and the length they have.
fn framed() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![1..=13_u8, 64..=66_u8];
    (kind, any::<u8>(), prop::collection::vec(any::<u8>(), 0..700))
        .prop_map(|(kind, more, body)| with_length([vec![kind, more, 0, 0], body].concat()))
}

/// Lists whose count and size agree, filled with any bytes.
fn lists() -> impl Strategy<Value = Vec<u8>> {
    let shape = prop_oneof![Just((2_u8, 140_usize)), Just((5, 44)), Just((7, 96))];
    (shape, 0..4_usize, any::<[u8; 2]>()).prop_flat_map(|((kind, size), count, reserved)| {
        let entries = prop::collection::vec(any::<u8>(), size * count);
        let count = u8::try_from(count).expect("few");
        entries.prop_map(move |entries| {
            let head = vec![kind, 1, 0, 0, 0, count, reserved[0], reserved[1]];
            with_length([head, entries].concat())
        })
    })
}

/// Fixed-size messages of any bytes.
fn fixed() -> impl Strategy<Value = Vec<u8>> {
    let shape = prop_oneof![
        Just((3_u8, 20_usize)),
        Just((4, 568)),
        Just((8, 176)),
        Just((9, 176)),
        Just((10, 4)),
        Just((13, 16)),
        Just((64, 24)),
    ];
    shape.prop_flat_map(|(kind, size)| {
        prop::collection::vec(any::<u8>(), size)
            .prop_map(move |body| with_length([vec![kind, 0, 0, 0], body].concat()))
    })
}

fn round_trip(bytes: &[u8]) -> Result<Message, WireError> {
    let message = Message::decode_exact(bytes)?;
    let again = message.encode().expect("what decodes encodes");
    let decoded = Message::decode_exact(&again).expect("what encodes decodes");
    assert_eq!(decoded, message);
    assert_eq!(decoded.encode().as_ref(), Ok(&again), "one form only");
    Ok(message)
}

proptest! {
    #[test]
    fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..700)) {
        let _outcome = round_trip(&bytes);
    }

    #[test]
    fn any_body_never_panics_and_what_decodes_round_trips(bytes in framed()) {
        let _outcome = round_trip(&bytes);
    }

    #[test]
    fn any_entries_decode_and_round_trip(bytes in lists()) {
        round_trip(&bytes).expect("every entry is valid");
    }

    #[test]
    fn any_fields_decode_and_round_trip(bytes in fixed()) {
        round_trip(&bytes).expect("every field is valid");
    }
}
