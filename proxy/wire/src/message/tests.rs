//! Five tests for each message, caps, and what holds for any bytes.
#![expect(clippy::arithmetic_side_effects, reason = "an overflow in a test fails the test")]

mod caps;
mod entries;
mod properties;
mod singles;

use std::fmt::Debug;

use super::{Body, Message};
use crate::WireError;

/// Bytes from hexadecimal digits; white space is for the reader.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.chars().filter(|c| !c.is_whitespace()).collect();
    let byte = |pair: &[char]| u8::from_str_radix(&String::from_iter(pair), 16).expect("hex");
    digits.chunks(2).map(byte).collect()
}

/// Text and zeros, `size` bytes together.
pub(crate) fn field(text: &str, size: usize) -> Vec<u8> {
    let mut field = text.as_bytes().to_vec();
    field.resize(size, 0);
    field
}

/// The same bytes with the length they really have.
pub(crate) fn with_length(mut bytes: Vec<u8>) -> Vec<u8> {
    let length = u16::try_from(bytes.len())
        .expect("a datagram")
        .to_be_bytes();
    bytes[2..4].copy_from_slice(&length);
    bytes
}

pub(crate) fn encodes<B: Body>(value: &B, golden: &[u8]) {
    assert_eq!(value.encode().expect("within its caps"), golden);
}

pub(crate) fn decodes<B: Body + Debug + PartialEq>(value: B, golden: &[u8]) {
    assert_eq!(B::decode_exact(golden), Ok(value));
}

pub(crate) fn refuses_truncation<B: Body + Debug + PartialEq>(golden: &[u8]) {
    for cut in 0..golden.len() {
        let short = &golden[..cut];
        assert_eq!(B::decode_exact(short), Err(WireError::Truncated), "cut at {cut}");
        if cut >= 4 {
            let refused = B::decode_exact(&with_length(short.to_vec()));
            let known = [WireError::Truncated, WireError::Json]
                .map(Err)
                .contains(&refused);
            assert!(known, "cut at {cut}, and its length says so: {refused:?}");
        }
    }
}

pub(crate) fn refuses_a_tail<B: Body + Debug + PartialEq>(golden: &[u8]) {
    let mut long = golden.to_vec();
    long.push(b'?');
    assert_eq!(B::decode_exact(&long), Err(WireError::Trailing));
    let refused = B::decode_exact(&with_length(long));
    assert!(
        [WireError::Trailing, WireError::Json]
            .map(Err)
            .contains(&refused),
        "{refused:?}"
    );
}

/// Any number at the given offsets is kept.
pub(crate) fn keeps_unknown<B: Body + Debug>(golden: &[u8], offsets: &[usize]) {
    for offset in offsets {
        let mut odd = golden.to_vec();
        odd[*offset] = 0xee;
        let value = B::decode_exact(&odd).expect("numbers are open sets");
        assert_eq!(value.encode().expect("what decodes encodes"), odd, "at {offset}");
    }
}

/// The five tests of one message.
macro_rules! five {
    ($name:ident: $type:ty, $value:expr, $golden:expr, $numbers:expr) => {
        mod $name {
            #[allow(
                clippy::allow_attributes,
                unused_imports,
                reason = "not every message needs all of them"
            )]
            use super::*;

            #[test]
            fn encodes_to_its_bytes() {
                crate::message::tests::encodes::<$type>(&$value, &$golden);
            }

            #[test]
            fn decodes_from_its_bytes() {
                crate::message::tests::decodes::<$type>($value, &$golden);
            }

            #[test]
            fn refuses_every_truncation() {
                crate::message::tests::refuses_truncation::<$type>(&$golden);
            }

            #[test]
            fn refuses_trailing_bytes() {
                crate::message::tests::refuses_a_tail::<$type>(&$golden);
            }

            #[test]
            fn keeps_unknown_numbers() {
                crate::message::tests::keeps_unknown::<$type>(&$golden, &$numbers);
            }
        }
    };
}
pub(crate) use five;

#[test]
fn an_unknown_kind_is_told_apart_from_a_bad_message() {
    for kind in (0..=u8::MAX).filter(|kind| !matches!(kind, 1..=13 | 64..=67)) {
        let error = Message::decode_exact(&[kind, 0, 0, 4]).expect_err("unknown");
        assert_eq!(error, WireError::UnknownKind(kind));
        assert!(error.is_unknown());
    }
}
