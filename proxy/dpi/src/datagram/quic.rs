//! QUIC, by its first packet. The server name is inside, encrypted with keys that anybody can derive;
//! without a cipher in the tree it stays there.

use outrider_model::Side;

use super::Datagram;
use crate::bytes::Reader;

/// A client's first datagram is padded to this (RFC 9000, section 14.1).
const LEAST_FIRST: usize = 1200;
/// Longest connection id.
const MAX_ID: u8 = 20;
const VERSION_1: u32 = 1;
const VERSION_2: u32 = 0x6b33_43cf;

/// An Initial packet of a version whose layout is known.
pub(super) fn is_quic(datagram: Datagram<'_>) -> bool {
    let first_fits = datagram.side == Side::Server || datagram.bytes.len() >= LEAST_FIRST;
    first_fits && read_initial(datagram.bytes).unwrap_or(false)
}

fn read_initial(bytes: &[u8]) -> Option<bool> {
    let mut reader = Reader::new(bytes);
    let first = reader.u8()?;
    let version = reader.be32()?;
    let kind = first >> 4 & 3;
    let initial = match version {
        VERSION_1 | 0xff00_001d..=0xff00_0022 => kind == 0,
        VERSION_2 => kind == 1,
        _ => false,
    };
    if first & 0xc0 != 0xc0 || !initial {
        return Some(false);
    }
    for _ in 0..2 {
        let length = reader.u8().filter(|length| *length <= MAX_ID)?;
        reader.take(length.into())?;
    }
    let token = variable(&mut reader)?;
    reader.take(usize::try_from(token).ok()?)?;
    let length = variable(&mut reader)?;
    // A packet number, and a tag of 16 bytes.
    Some(length >= 17 && length <= reader.rest().len() as u64)
}

/// An integer whose first two bits say how long it is.
fn variable(reader: &mut Reader<'_>) -> Option<u64> {
    let first = reader.u8()?;
    let mut value = u64::from(first & 0x3f);
    let more = 1_u32.wrapping_shl(u32::from(first >> 6)).saturating_sub(1);
    for _ in 0..more {
        value = value.rotate_left(8) | u64::from(reader.u8()?);
    }
    Some(value)
}
