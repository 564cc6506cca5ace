//! SESSION_COUNT (3).

use super::{Body, Kind};
use crate::{Reader, WireError, Writer};

/// Current sessions.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SessionCount {
    /// All.
    pub total: u32,
    /// TCP.
    pub tcp: u32,
    /// UDP.
    pub udp: u32,
    /// ICMP and ICMPv6.
    pub icmp: u32,
    /// Other protocols.
    pub other: u32,
}

impl Body for SessionCount {
    const KIND: Kind = Kind::SESSION_COUNT;

    fn read(reader: &mut Reader<'_>, _more: bool) -> Result<Self, WireError> {
        Ok(Self {
            total: reader.u32()?,
            tcp: reader.u32()?,
            udp: reader.u32()?,
            icmp: reader.u32()?,
            other: reader.u32()?,
        })
    }

    fn write(&self, writer: &mut Writer) -> Result<(), WireError> {
        for count in [self.total, self.tcp, self.udp, self.icmp, self.other] {
            writer.u32(count);
        }
        Ok(())
    }
}
