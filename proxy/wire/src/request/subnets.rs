//! `ctrl_cfg_internal_net`, `ctrl_cfg_policy_addr`, `ctrl_cfg_specip_net`.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Serialize, Serializer};

use super::{TextIp, fields::Fields};
use crate::{ChunkFlags, List, WireError};

/// A list of subnets, or a chunk of it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Subnets<S> {
    /// Which chunk this is.
    #[serde(rename = "flag")]
    pub chunk: ChunkFlags,
    /// The subnets, in any order.
    #[serde(rename = "subnet_addr")]
    pub subnets: List<S>,
    /// Ours: IPv6 subnets ([`crate::ext`]).
    #[serde(rename = "subnet_addr6", skip_serializing_if = "Vec::is_empty")]
    pub subnets6: Vec<S>,
}

impl<S> Default for Subnets<S> {
    fn default() -> Self {
        Self { chunk: ChunkFlags::NONE, subnets: List::nil(), subnets6: Vec::new() }
    }
}

/// A subnet.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Subnet {
    /// Its address, host bits zero.
    pub ip: TextIp,
    /// Its mask.
    pub mask: TextIp,
}

/// A subnet with a meaning.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct SpecialSubnet {
    /// Its address, host bits zero.
    pub ip: TextIp,
    /// Its mask.
    pub mask: TextIp,
    /// What it is.
    pub iptype: SpecialIp,
}

/// What a special subnet is.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum SpecialIp {
    /// Tunnel addresses of hosts.
    Tunnel,
    /// Addresses of services.
    Service,
    /// Addresses of hosts.
    Host,
    /// Addresses of network devices.
    Device,
    /// Addresses of unmanaged workloads.
    Unmanaged,
    /// External addresses of services.
    ServiceExternal,
    /// Nothing this build knows.
    Other(Box<str>),
}

impl SpecialIp {
    const NAMES: [(&str, Self); 6] = [
        ("tunnelip", Self::Tunnel),
        ("svcip", Self::Service),
        ("hostip", Self::Host),
        ("devip", Self::Device),
        ("uwlip", Self::Unmanaged),
        ("extip", Self::ServiceExternal),
    ];

    fn parse(text: &str) -> Self {
        let known = Self::NAMES
            .into_iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(text));
        known.map_or_else(|| Self::Other(text.into()), |(_, kind)| kind)
    }

    /// The word on the wire.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Tunnel => "tunnelip",
            Self::Service => "svcip",
            Self::Host => "hostip",
            Self::Device => "devip",
            Self::Unmanaged => "uwlip",
            Self::ServiceExternal => "extip",
            Self::Other(name) => name,
        }
    }
}

impl Default for SpecialIp {
    fn default() -> Self {
        Self::Other("".into())
    }
}

impl Serialize for SpecialIp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl From<IpNet> for Subnet {
    fn from(net: IpNet) -> Self {
        Self { ip: net.network().into(), mask: net.netmask().into() }
    }
}

impl Subnet {
    /// The subnet, if address and mask are of one family and the mask is a prefix.
    #[must_use]
    pub fn net(&self) -> Option<IpNet> {
        net(self.ip, self.mask)
    }

    fn parse(fields: Fields<'_>) -> Result<Self, WireError> {
        Ok(Self { ip: fields.ip("ip")?, mask: fields.ip("mask")? })
    }
}

impl SpecialSubnet {
    /// A subnet with a meaning.
    #[must_use]
    pub fn new(net: IpNet, iptype: SpecialIp) -> Self {
        let Subnet { ip, mask } = net.into();
        Self { ip, mask, iptype }
    }

    /// The subnet, if address and mask are of one family and the mask is a prefix.
    #[must_use]
    pub fn net(&self) -> Option<IpNet> {
        net(self.ip, self.mask)
    }

    fn parse(fields: Fields<'_>) -> Result<Self, WireError> {
        let Subnet { ip, mask } = Subnet::parse(fields)?;
        Ok(Self { ip, mask, iptype: SpecialIp::parse(fields.text("iptype")?) })
    }
}

fn net(ip: TextIp, mask: TextIp) -> Option<IpNet> {
    let (ip, mask): (IpAddr, IpAddr) = (ip.0?, mask.0?);
    let prefix = ipnet::ip_mask_to_prefix(mask).ok()?;
    if ip.is_ipv4() == mask.is_ipv4() { IpNet::new(ip, prefix).ok() } else { None }
}

impl<S: Clone> Subnets<S> {
    fn parse_with<'a>(
        fields: Fields<'a>,
        entry: impl Fn(Fields<'a>) -> Result<S, WireError>,
    ) -> Result<Self, WireError> {
        Ok(Self {
            chunk: ChunkFlags(fields.u32("flag")),
            subnets: fields.list("subnet_addr", |value| entry(Fields::of(value)))?,
            subnets6: fields
                .list("subnet_addr6", |value| entry(Fields::of(value)))?
                .to_vec(),
        })
    }
}

impl Subnets<Subnet> {
    pub(super) fn parse(fields: Fields<'_>) -> Result<Self, WireError> {
        Self::parse_with(fields, Subnet::parse)
    }
}

impl Subnets<SpecialSubnet> {
    pub(super) fn parse(fields: Fields<'_>) -> Result<Self, WireError> {
        Self::parse_with(fields, SpecialSubnet::parse)
    }
}
