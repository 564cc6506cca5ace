//! IP_FQDN_STORAGE_UPDATE (12) and IP_FQDN_STORAGE_RELEASE (13).

use std::net::Ipv4Addr;

use super::{Body, Kind};
use crate::{Reader, Text, WireError, WireIp, Writer, limits::NAME_TEXT};

/// An external address has a name. IPv4 only: the field has no family.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IpFqdnUpdate {
    /// The address.
    pub ip: Ipv4Addr,
    /// The name that was asked for.
    pub name: Text<NAME_TEXT>,
}

/// An external address lost its name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct IpFqdnRelease {
    /// The address.
    pub ip: Ipv4Addr,
}

impl Body for IpFqdnUpdate {
    const KIND: Kind = Kind::IP_FQDN_UPDATE;

    fn read(reader: &mut Reader<'_>, _more: bool) -> Result<Self, WireError> {
        Ok(Self { ip: reader.ip()?.v4(), name: Text::read(reader)? })
    }

    fn write(&self, writer: &mut Writer) -> Result<(), WireError> {
        writer.bytes(&WireIp::from(self.ip).0);
        self.name.write(writer);
        Ok(())
    }
}

impl Body for IpFqdnRelease {
    const KIND: Kind = Kind::IP_FQDN_RELEASE;

    fn read(reader: &mut Reader<'_>, _more: bool) -> Result<Self, WireError> {
        Ok(Self { ip: reader.ip()?.v4() })
    }

    fn write(&self, writer: &mut Writer) -> Result<(), WireError> {
        writer.bytes(&WireIp::from(self.ip).0);
        Ok(())
    }
}
