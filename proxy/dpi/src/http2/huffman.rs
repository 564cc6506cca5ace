//! The Huffman code of RFC 7541, appendix B. It is canonical, so the lengths of its codes say it all.

/// Bits of each byte's code.
#[rustfmt::skip]
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

/// Longest code.
const MAX_BITS: u8 = 30;

/// Decodes; `None` on what is no code. At most `limit` bytes are returned, more are passed over.
pub(super) fn decode(bytes: &[u8], limit: usize) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let (mut code, mut bits) = (0_u32, 0_u8);
    for bit in bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |at| byte.rotate_right(at) & 1))
    {
        code = code.wrapping_shl(1) | u32::from(bit);
        bits = bits.saturating_add(1);
        if bits > MAX_BITS {
            return None;
        }
        if let Some(byte) = symbol(code, bits) {
            if text.len() < limit {
                text.push(byte);
            }
            (code, bits) = (0, 0);
        }
    }
    let padding = 1_u32.wrapping_shl(bits.into()).wrapping_sub(1);
    (bits < 8 && code == padding).then_some(text)
}

/// The byte with a code, if the code has so many bits. Codes of one length are consecutive, in the
/// order of their bytes, and follow those of the length before.
fn symbol(code: u32, bits: u8) -> Option<u8> {
    let first = FIRST.get(usize::from(bits)).copied()?;
    let nth = usize::try_from(code.checked_sub(first)?).ok()?;
    (0..=u8::MAX)
        .zip(LENGTHS)
        .filter(|(_, length)| *length == bits)
        .map(|(byte, _)| byte)
        .nth(nth)
}

/// The first code of each length.
static FIRST: [u32; 31] = first_codes();

#[expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "evaluated by the compiler, over constants"
)]
const fn first_codes() -> [u32; 31] {
    let mut first = [0; 31];
    let (mut bits, mut code) = (1, 0);
    while bits < first.len() {
        code <<= 1;
        first[bits] = code;
        let mut byte = 0;
        while byte < LENGTHS.len() {
            if LENGTHS[byte] as usize == bits {
                code += 1;
            }
            byte += 1;
        }
        bits += 1;
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_the_examples_of_the_rfc() {
        let coded = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(decode(&coded, 64).as_deref(), Some(&b"www.example.com"[..]));
        assert_eq!(decode(&coded, 3).as_deref(), Some(&b"www"[..]));
        let coded = [0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf];
        assert_eq!(decode(&coded, 64).as_deref(), Some(&b"no-cache"[..]));
    }

    #[test]
    fn refuses_bad_padding_and_the_end_symbol() {
        assert_eq!(decode(&[0xff, 0xff, 0xff, 0xff], 64), None);
        assert_eq!(decode(&[0x00], 64), None, "zero bits as padding");
        assert_eq!(decode(&[], 64).as_deref(), Some(&b""[..]));
    }
}
