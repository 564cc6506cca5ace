//! FQDN_UPDATE (11).

use std::net::Ipv4Addr;

use super::{Body, Kind, entries};
use crate::{
    FqdnFlags, Reader, Text, WireError, WireIp, Writer,
    error::within,
    limits::{MAX_FQDN_ADDRESSES, NAME_TEXT},
};

/// All addresses known for a wildcard name. IPv4 only: the field has no family.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct FqdnUpdate {
    /// The name.
    pub name: Text<NAME_TEXT>,
    /// The real data path leaves stale bits in it: trust it from our own proxy only.
    pub flags: FqdnFlags,
    /// The addresses, at most [`MAX_FQDN_ADDRESSES`].
    pub addresses: Vec<Ipv4Addr>,
}

impl FqdnUpdate {
    /// Splits addresses of any number. The real agent keeps the last datagram of a name only; the
    /// real data path cuts the list.
    pub fn split(self) -> impl Iterator<Item = Self> {
        let Self { name, flags, addresses } = self;
        let parts: Vec<_> = addresses
            .chunks(MAX_FQDN_ADDRESSES)
            .map(<[_]>::to_vec)
            .collect();
        parts
            .into_iter()
            .map(move |addresses| Self { name: name.clone(), flags, addresses })
    }
}

impl Body for FqdnUpdate {
    const KIND: Kind = Kind::FQDN_UPDATE;

    fn read(reader: &mut Reader<'_>, _more: bool) -> Result<Self, WireError> {
        let name = Text::read(reader)?;
        let count = usize::from(reader.u16()?);
        within("addresses", count, MAX_FQDN_ADDRESSES)?;
        reader.skip(2)?;
        let flags = FqdnFlags(reader.u8()?);
        reader.skip(1)?;
        Ok(Self { name, flags, addresses: entries(count, || Ok(reader.ip()?.v4()))? })
    }

    fn write(&self, writer: &mut Writer) -> Result<(), WireError> {
        self.name.write(writer);
        writer.count("addresses", self.addresses.len(), MAX_FQDN_ADDRESSES)?;
        writer.zeros(2);
        writer.u8(self.flags.0);
        writer.zeros(1);
        self.addresses
            .iter()
            .for_each(|ip| writer.bytes(&WireIp::from(*ip).0));
        Ok(())
    }
}
