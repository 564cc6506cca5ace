//! Opening a client's Initial packets (RFC 9001, section 5; RFC 9369 for version 2).

use aws_lc_rs::{
    aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey, quic},
    hkdf::{HKDF_SHA256, KeyType, Prk, Salt},
};

use super::header::{Long, Version};

const SALT_1: [u8; 20] = [
    0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad,
    0xcc, 0xbb, 0x7f, 0x0a,
];
const SALT_2: [u8; 20] = [
    0x0d, 0xed, 0xe3, 0xde, 0xf7, 0x00, 0xa6, 0xdb, 0x81, 0x93, 0x81, 0xbe, 0x6e, 0x26, 0x9d, 0xcb,
    0xf9, 0xbd, 0x2e, 0xd9,
];

/// From the packet number on to the bytes that its protection is made from.
const SAMPLE: std::ops::Range<usize> = 4..20;
/// Longest packet number.
const MAX_NUMBER: usize = 4;

/// What opens the Initial packets of one client.
pub(super) struct Keys {
    payload: LessSafeKey,
    nonce: [u8; 12],
    header: quic::HeaderProtectionKey,
}

impl Keys {
    /// The keys that follow from the id to which a client's first packet is addressed.
    pub(super) fn of_client(version: Version, destination: &[u8]) -> Option<Self> {
        let (salt, labels) = match version {
            Version::One => (&SALT_1, [&b"quic key"[..], b"quic iv", b"quic hp"]),
            Version::Two => (&SALT_2, [&b"quicv2 key"[..], b"quicv2 iv", b"quicv2 hp"]),
            Version::Draft => return None,
        };
        let shared = Salt::new(HKDF_SHA256, salt).extract(destination);
        let mut secret = [0; 32];
        expand(&shared, b"client in", &mut secret)?;
        let secret = Prk::new_less_safe(HKDF_SHA256, &secret);
        let (mut key, mut nonce, mut header) = ([0; 16], [0; 12], [0; 16]);
        expand(&secret, labels[0], &mut key)?;
        expand(&secret, labels[1], &mut nonce)?;
        expand(&secret, labels[2], &mut header)?;
        Some(Self {
            payload: LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key).ok()?),
            nonce,
            header: quic::HeaderProtectionKey::new(&quic::AES_128, &header).ok()?,
        })
    }

    /// The frames of a packet, if these keys open it.
    pub(super) fn open(&self, long: &Long<'_>) -> Option<Vec<u8>> {
        let (header, protected) = long.packet.split_at_checked(long.number_at)?;
        let mask = self.header.new_mask(protected.get(SAMPLE)?).ok()?;
        let (first_mask, number_mask) = mask.split_first()?;
        let mut header = header.to_vec();
        let first = header.first_mut()?;
        *first ^= first_mask & 0x0f;
        let length = usize::from(*first & 3).saturating_add(1).min(MAX_NUMBER);
        let (number, payload) = protected.split_at_checked(length)?;
        let mut nonce = self.nonce;
        let places = nonce.last_chunk_mut::<MAX_NUMBER>()?;
        let places = places.get_mut(MAX_NUMBER.checked_sub(length)?..)?;
        // A client's first packets have small numbers: all of the number is there.
        for ((place, byte), mask) in places.iter_mut().zip(number).zip(number_mask) {
            header.push(byte ^ mask);
            *place ^= byte ^ mask;
        }
        let mut payload = payload.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = self
            .payload
            .open_in_place(nonce, Aad::from(&header), &mut payload)
            .ok()?
            .len();
        payload.truncate(opened);
        Some(payload)
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys")
    }
}

/// HKDF-Expand-Label of TLS 1.3, without context.
fn expand(secret: &Prk, label: &[u8], out: &mut [u8]) -> Option<()> {
    let length = u16::try_from(out.len()).ok()?.to_be_bytes();
    let label_length = [u8::try_from(label.len()).ok()?.checked_add(6)?];
    let info = [&length[..], &label_length, b"tls13 ", label, &[0]];
    secret.expand(&info, Length(out.len())).ok()?.fill(out).ok()
}

/// So many bytes.
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

#[cfg(any(test, feature = "test-util"))]
impl Keys {
    /// A packet with a number of four bytes: what [`Keys::open`] undoes. The header ends with the
    /// length, which must fit.
    pub(super) fn seal(&self, header: &[u8], number: u32, frames: &[u8]) -> Option<Vec<u8>> {
        let number = number.to_be_bytes();
        let mut packet = [header, &number].concat();
        *packet.first_mut()? |= 3;
        let mut nonce = self.nonce;
        for (place, byte) in nonce.last_chunk_mut::<MAX_NUMBER>()?.iter_mut().zip(number) {
            *place ^= byte;
        }
        let mut sealed = frames.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.payload
            .seal_in_place_append_tag(nonce, Aad::from(&packet), &mut sealed)
            .ok()?;
        packet.extend(sealed);
        let protected = packet.get_mut(header.len()..)?;
        let mask = self.header.new_mask(protected.get(SAMPLE)?).ok()?;
        let (first_mask, number_mask) = mask.split_first()?;
        for (byte, mask) in protected.iter_mut().zip(number_mask) {
            *byte ^= mask;
        }
        *packet.first_mut()? ^= first_mask & 0x0f;
        Some(packet)
    }
}
