//! DNS messages as they are on the wire: header, question, and the addresses an answer gives.
//!
//! Reads what a forwarder must know and nothing else. A message that cannot be read is no reason to
//! stop it; it only teaches nothing.

mod given;
mod name;
#[cfg(test)]
mod tests;

pub use given::{DnsAddress, MAX_CHAIN, MAX_GIVEN, MAX_RECORDS, given};
pub use name::DnsName;

use crate::bytes::Reader;

/// Bytes of a message before its question.
pub const DNS_HEADER: usize = 12;

/// Longest message, over TCP as over UDP.
pub const MAX_DNS_MESSAGE: usize = 65_535;

/// The fixed part of a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DnsHeader {
    /// Chosen by who asks, repeated in the answer.
    pub id: u16,
    /// Everything between id and counts.
    pub flags: u16,
    /// Questions.
    pub questions: u16,
    /// Records that answer.
    pub answers: u16,
    /// Records about authority.
    pub authorities: u16,
    /// Records beside the point, EDNS among them.
    pub extras: u16,
}

impl DnsHeader {
    /// Reads the header of a message.
    #[must_use]
    pub fn read(message: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(message);
        Some(Self {
            id: reader.be16()?,
            flags: reader.be16()?,
            questions: reader.be16()?,
            answers: reader.be16()?,
            authorities: reader.be16()?,
            extras: reader.be16()?,
        })
    }

    /// Whether it answers.
    #[must_use]
    pub fn is_answer(self) -> bool {
        self.flags & 0x8000 != 0
    }

    /// Whether it was cut to fit a datagram.
    #[must_use]
    pub fn is_cut(self) -> bool {
        self.flags & 0x0200 != 0
    }

    /// The low four bits of the result; 0 means no error.
    #[must_use]
    pub fn rcode(self) -> u8 {
        self.flags.to_be_bytes()[1] & 0x0f
    }
}

/// What a message asks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DnsQuestion {
    /// About which name.
    pub name: DnsName,
    /// For records of which type.
    pub kind: u16,
    /// Of which class; 1 is the Internet.
    pub class: u16,
}

impl DnsQuestion {
    /// Reads the question of a message that has exactly one, with the place where it ends.
    #[must_use]
    pub fn read(message: &[u8]) -> Option<(Self, usize)> {
        if DnsHeader::read(message)?.questions != 1 {
            return None;
        }
        let (name, end) = DnsName::read(message, DNS_HEADER)?;
        let mut reader = Reader::new(message.get(end..)?);
        let (kind, class) = (reader.be16()?, reader.be16()?);
        Some((Self { name, kind, class }, end.checked_add(4)?))
    }
}
