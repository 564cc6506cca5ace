//! Addresses.

use std::{
    fmt,
    net::{SocketAddr, SocketAddrV6},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

/// Where the client meant to go, read before the redirect rule's rewrite is lost.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct OriginalDst(SocketAddr);

impl OriginalDst {
    /// Stores the canonical form, so that `::ffff:10.0.0.1` and `10.0.0.1` are one key. A
    /// link-local address keeps its scope: without it nobody can dial it.
    #[must_use]
    pub fn new(addr: SocketAddr) -> Self {
        Self(match addr {
            SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_none() => {
                SocketAddrV6::new(*v6.ip(), v6.port(), 0, v6.scope_id()).into()
            }
            other => SocketAddr::new(other.ip().to_canonical(), other.port()),
        })
    }

    /// The address itself, canonical.
    #[must_use]
    pub fn addr(self) -> SocketAddr {
        self.0
    }
}

impl fmt::Display for OriginalDst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A 48-bit Ethernet address; on the ctrl wire the identity of a workload.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct MacAddr(pub [u8; 6]);

/// The text is not six hexadecimal octets joined by colons.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ParseMacError;

impl fmt::Display for ParseMacError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a MAC address is six hexadecimal octets joined by colons")
    }
}

impl std::error::Error for ParseMacError {}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddr {
    type Err = ParseMacError;

    /// Takes one or two hexadecimal digits an octet, as the C library's ether parser does.
    fn from_str(text: &str) -> Result<Self, ParseMacError> {
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().ok_or(ParseMacError)?;
            if part.is_empty() || part.len() > 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(ParseMacError);
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_digits_checked| ParseMacError)?;
        }
        if parts.next().is_some() { Err(ParseMacError) } else { Ok(Self(octets)) }
    }
}

/// IP protocol number (IANA "Assigned Internet Protocol Numbers"): an open set.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct IpProto(pub u8);

impl IpProto {
    /// ICMP.
    pub const ICMP: Self = Self(1);
    /// IGMP.
    pub const IGMP: Self = Self(2);
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// ICMP for IPv6.
    pub const ICMPV6: Self = Self(58);
    /// SCTP.
    pub const SCTP: Self = Self(132);

    /// Whether it is ICMP of either family.
    #[must_use]
    pub fn is_icmp(self) -> bool {
        matches!(self, Self::ICMP | Self::ICMPV6)
    }

    /// The closed label of logs and metrics: both families of ICMP are one, and so are all that have
    /// no name here.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::TCP => "tcp",
            Self::UDP => "udp",
            Self::ICMP | Self::ICMPV6 => "icmp",
            Self::SCTP => "sctp",
            _ => "other",
        }
    }
}

impl fmt::Display for IpProto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ICMP => f.write_str("icmp"),
            Self::TCP => f.write_str("tcp"),
            Self::UDP => f.write_str("udp"),
            Self::ICMPV6 => f.write_str("icmpv6"),
            Self::SCTP => f.write_str("sctp"),
            Self(other) => write!(f, "ip/{other}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_v4_in_v6_to_one_key() {
        let mapped = OriginalDst::new("[::ffff:10.0.0.1]:80".parse().unwrap());
        assert_eq!(mapped, OriginalDst::new("10.0.0.1:80".parse().unwrap()));
    }

    #[test]
    fn keeps_the_scope_of_a_link_local_address() {
        let local: SocketAddr = SocketAddrV6::new("fe80::1".parse().unwrap(), 80, 7, 3).into();
        let kept = OriginalDst::new(local).addr();
        assert_eq!(kept, SocketAddrV6::new("fe80::1".parse().unwrap(), 80, 0, 3).into());
    }

    #[test]
    fn reads_and_writes_mac_addresses() {
        let mac: MacAddr = "0a:58:A:4d:01:05".parse().unwrap();
        assert_eq!(mac.to_string(), "0a:58:0a:4d:01:05");
    }

    #[test]
    fn refuses_malformed_mac_addresses() {
        for bad in [
            "",
            "0a:58:0a:4d:01",
            "0a:58:0a:4d:01:05:06",
            "0a:58:0a:4d:01:g5",
            "0a:58:0a:4d:01:+5",
            "::::::",
        ] {
            assert_eq!(bad.parse::<MacAddr>(), Err(ParseMacError), "{bad}");
        }
    }
}
