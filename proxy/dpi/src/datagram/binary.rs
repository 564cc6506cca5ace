//! DHCP, NTP, TFTP, RADIUS.

use outrider_model::Side;

use super::Datagram;
use crate::bytes::Reader;

/// BOOTP's fixed part, then the cookie that no other protocol has.
pub(super) fn is_dhcp(datagram: Datagram<'_>) -> bool {
    read_dhcp(datagram.bytes).unwrap_or(false)
}

fn read_dhcp(bytes: &[u8]) -> Option<bool> {
    let mut reader = Reader::new(bytes);
    let [op, _kind, hardware, _hops] = reader.array()?;
    reader.take(232)?;
    let cookie: [u8; 4] = reader.array()?;
    reader.array::<4>()?;
    Some(matches!(op, 1 | 2) && hardware <= 16 && cookie == [0x63, 0x82, 0x53, 0x63])
}

/// A packet of time: its first four bytes have few sensible values, its times an order.
pub(super) fn is_ntp(datagram: Datagram<'_>) -> bool {
    read_ntp(datagram).unwrap_or(false)
}

fn read_ntp(datagram: Datagram<'_>) -> Option<bool> {
    let length = datagram.bytes.len();
    let mut reader = Reader::new(datagram.bytes);
    let [first, stratum, poll, precision] = reader.array()?;
    let (version, mode) = (first >> 3 & 7, first & 7);
    let delay = reader.be32()?;
    let dispersion = reader.be32()?;
    let reference: [u8; 4] = reader.array()?;
    let mut time = || reader.array::<8>().map(u64::from_be_bytes);
    let (referred, _origin, _received, sent) = (time()?, time()?, time()?, time()?);
    let own_port = datagram.port == NTP_PORT;
    // A key or extensions may follow, in words.
    if !(1..=4).contains(&version) || stratum > 16 || !length.is_multiple_of(4) {
        return Some(false);
    }
    let mode_fits = match datagram.side {
        Side::Client => matches!(mode, 1 | 3) || (own_port && matches!(mode, 2 | 5)),
        Side::Server => matches!(mode, 2 | 4) || (own_port && mode == 5),
    };
    let named = stratum != 1 || clock_name(reference);
    let ordered = referred == 0 || sent == 0 || referred >> 32 <= sent >> 32;
    let sensible = poll <= 17 && (precision == 0 || precision > 0xd0);
    let small = delay >> 16 < 64 && dispersion >> 16 < 64;
    let convincing = own_port || (length == 48 && version >= 3 && sent != 0 && sensible && small);
    Some(mode_fits && named && ordered && convincing)
}

/// Who has no server above him names his clock, in letters padded with zeros.
fn clock_name(reference: [u8; 4]) -> bool {
    let text = reference
        .split(|byte| *byte == 0)
        .next()
        .unwrap_or_default();
    let rest = reference.get(text.len()..).unwrap_or_default();
    text.iter().all(u8::is_ascii_graphic) && rest.iter().all(|byte| *byte == 0)
}

/// A request for a file, or the answer that agrees on options.
pub(super) fn is_tftp(datagram: Datagram<'_>) -> bool {
    let mut reader = Reader::new(datagram.bytes);
    match (reader.be16(), datagram.side) {
        (Some(1 | 2), Side::Client) => {
            let name = reader.until_nul().unwrap_or_default();
            let mode = reader.until_nul().unwrap_or_default();
            (1..=MAX_FILE_NAME).contains(&name.len())
                && name.iter().all(|byte| matches!(byte, 0x20..=0x7e))
                && [&b"octet"[..], b"netascii", b"mail"]
                    .iter()
                    .any(|known| mode.eq_ignore_ascii_case(known))
        }
        (Some(6), Side::Server) => {
            let option = reader.until_nul().unwrap_or_default();
            let value = reader.until_nul().unwrap_or_default();
            let named = option.len() >= 4 && option.iter().all(u8::is_ascii_alphabetic);
            named && !value.is_empty() && value.iter().all(u8::is_ascii_digit)
        }
        _ => false,
    }
}

/// A code of the right side, a length that is right, attributes that fill it exactly.
pub(super) fn is_radius(datagram: Datagram<'_>) -> bool {
    read_radius(datagram).unwrap_or(false)
}

fn read_radius(datagram: Datagram<'_>) -> Option<bool> {
    let mut reader = Reader::new(datagram.bytes);
    let [code, _id] = reader.array()?;
    let length = usize::from(reader.be16()?);
    reader.take(16)?;
    let code_fits = match datagram.side {
        Side::Client => matches!(code, 1 | 4 | 12 | 40 | 43),
        Side::Server => matches!(code, 2 | 3 | 5 | 11 | 41 | 42 | 44 | 45),
    };
    // Without an attribute there is little that could be wrong: the port must agree then.
    let bare = reader.is_empty() && !RADIUS_PORTS.contains(&datagram.port);
    if !code_fits || bare || length != datagram.bytes.len() || length > MAX_RADIUS {
        return Some(false);
    }
    while !reader.is_empty() {
        let [kind, length] = reader.array()?;
        reader.take(usize::from(length).checked_sub(2)?)?;
        if kind == 0 {
            return Some(false);
        }
    }
    Some(true)
}

const NTP_PORT: u16 = 123;
const RADIUS_PORTS: [u16; 5] = [1645, 1646, 1812, 1813, 3799];
/// Longest packet of RADIUS (RFC 2865, section 3).
const MAX_RADIUS: usize = 4096;
/// Longest file name that is one.
const MAX_FILE_NAME: usize = 128;
