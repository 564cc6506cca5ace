//! Long headers: what of a packet is not encrypted.

use super::variable;
use crate::bytes::Reader;

/// Longest connection id.
const MAX_ID: u8 = 20;
/// A packet number, and a tag of 16 bytes.
const LEAST_LENGTH: usize = 17;

const VERSION_1: u32 = 1;
const VERSION_2: u32 = 0x6b33_43cf;

/// A version of which more than the layout is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Version {
    One,
    Two,
    /// Drafts with the layout of version 1.
    Draft,
}

/// What a packet with a long header is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Initial,
    /// 0-RTT or Handshake.
    Other,
}

/// One packet with a long header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Long<'a> {
    pub(super) version: Version,
    pub(super) kind: Kind,
    /// Whom it is for: the keys of a client's first packet come from it.
    pub(super) destination: &'a [u8],
    /// The packet, without those behind it in the datagram.
    pub(super) packet: &'a [u8],
    /// Where its number begins.
    pub(super) number_at: usize,
}

impl<'a> Long<'a> {
    /// Reads the first packet of what is left of a datagram. Nothing if it has no length (Retry, version
    /// negotiation, short headers) or is longer than what is there.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let first = reader.u8()?;
        if first & 0xc0 != 0xc0 {
            return None;
        }
        let version = match reader.be32()? {
            VERSION_1 => Version::One,
            VERSION_2 => Version::Two,
            0xff00_001d..=0xff00_0022 => Version::Draft,
            _ => return None,
        };
        let initial = if version == Version::Two { 1 } else { 0 };
        let retry = if version == Version::Two { 0 } else { 3 };
        let bits = first >> 4 & 3;
        if bits == retry {
            return None;
        }
        let kind = if bits == initial { Kind::Initial } else { Kind::Other };
        let destination = id(&mut reader)?;
        id(&mut reader)?;
        if kind == Kind::Initial {
            let token = variable(&mut reader)?;
            reader.take(usize::try_from(token).ok()?)?;
        }
        let length = usize::try_from(variable(&mut reader)?).ok()?;
        let number_at = bytes.len().checked_sub(reader.rest().len())?;
        let packet = bytes.get(..number_at.checked_add(length)?)?;
        Some(Self { version, kind, destination, packet, number_at })
    }

    /// Whether it has a number, something encrypted, and its tag.
    pub(super) fn holds_something(&self) -> bool {
        self.packet.len().saturating_sub(self.number_at) >= LEAST_LENGTH
    }
}

fn id<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    let length = reader.u8().filter(|length| *length <= MAX_ID)?;
    reader.take(length.into())
}
