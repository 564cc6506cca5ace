//! The first header block of a connection (RFC 7541), as far as a few headers need it.
//!
//! Before the first block the dynamic table is empty, so the static table is enough, but for fields
//! that repeat one of the same block; those are passed over.

use super::huffman;
use crate::{MAX_NAME, bytes::Reader};

/// Headers of interest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Known {
    Authority,
    Host,
    Server,
}

/// Longest encoded integer: more continuation bytes say more than any length here can be.
const MAX_CONTINUATIONS: u32 = 4;

/// Calls `found` for every header of interest, up to the end or the first error.
pub(super) fn fields(block: &[u8], mut found: impl FnMut(Known, &[u8])) {
    let mut reader = Reader::new(block);
    while !reader.is_empty() {
        match field(&mut reader) {
            Some(Some((known, value))) => found(known, &value),
            Some(None) => {}
            None => return,
        }
    }
}

/// One representation: `None` on an error, `Some(None)` if it is of no interest.
fn field(reader: &mut Reader<'_>) -> Option<Option<(Known, Vec<u8>)>> {
    let first = reader.u8()?;
    let prefix = match first {
        0x80.. => return integer(first, 7, reader).map(|_indexed| None),
        0x40..=0x7f => 6,
        0x20..=0x3f => return integer(first, 5, reader).map(|_table_size| None),
        _ => 4,
    };
    let known = match integer(first, prefix, reader)? {
        0 => of_name(&string(reader)?),
        1 => Some(Known::Authority),
        38 => Some(Known::Host),
        54 => Some(Known::Server),
        _ => None,
    };
    let value = string(reader)?;
    Some(known.map(|known| (known, value)))
}

fn of_name(name: &[u8]) -> Option<Known> {
    match name {
        b":authority" => Some(Known::Authority),
        b"host" => Some(Known::Host),
        b"server" => Some(Known::Server),
        _ => None,
    }
}

/// An integer whose first byte has `bits` bits of it.
fn integer(first: u8, bits: u32, reader: &mut Reader<'_>) -> Option<usize> {
    let mask = u8::MAX.checked_shr(u8::BITS.saturating_sub(bits))?;
    let mut value = usize::from(first & mask);
    if value < usize::from(mask) {
        return Some(value);
    }
    for position in 0..MAX_CONTINUATIONS {
        let byte = reader.u8()?;
        let part = usize::from(byte & 0x7f).checked_shl(position.saturating_mul(7))?;
        value = value.checked_add(part)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// A string; of one longer than a name can be, only the beginning.
fn string(reader: &mut Reader<'_>) -> Option<Vec<u8>> {
    let first = reader.u8()?;
    let length = integer(first, 7, reader)?;
    let bytes = reader.take(length)?;
    let limit = MAX_NAME.saturating_add(16);
    if first & 0x80 == 0 {
        return Some(bytes.get(..limit).unwrap_or(bytes).to_vec());
    }
    huffman::decode(bytes, limit)
}
