//! The line before each chunk of a chunked body.
//!
//! Findings: a size that is no hexadecimal number, or greater than 32 bits hold; a line that does not
//! end in CR LF or has a carriage return inside ([`ThreatId::SMUGGLING`]); a size whose bit 31 is set
//! ([`ThreatId::NEGATIVE_LENGTH`]).

use outrider_model::ThreatId;

use super::wing::Fault;
use crate::bytes::Line;

/// Most digits of a size: those of 64 bits.
const MAX_DIGITS: usize = 16;

/// The size that a chunk's line gives; what follows it must be an extension.
pub(super) fn size(line: &Line<'_>) -> Result<u64, Fault> {
    let malformed = Err(Fault::smuggling("malformed chunk size"));
    if !line.crlf || line.bare_cr || line.overlong {
        return malformed;
    }
    let text: &[u8] = &line.text;
    let end = text
        .iter()
        .position(|byte| !byte.is_ascii_hexdigit())
        .unwrap_or(text.len());
    let (digits, rest) = text.split_at_checked(end).unwrap_or_default();
    if digits.is_empty() || digits.len() > MAX_DIGITS {
        return malformed;
    }
    if !matches!(rest.trim_ascii_start().first(), None | Some(b';')) {
        return malformed;
    }
    let size = digits.iter().fold(0_u64, |size, digit| {
        let value = char::from(*digit).to_digit(16).unwrap_or_default();
        size.wrapping_shl(4) | u64::from(value)
    });
    if size & 0x8000_0000 != 0 {
        return Err(Fault { id: ThreatId::NEGATIVE_LENGTH, message: "chunk size with bit 31 set" });
    }
    if size > u64::from(u32::MAX) {
        return Err(Fault::smuggling("chunk size beyond 32 bits"));
    }
    Ok(size)
}
