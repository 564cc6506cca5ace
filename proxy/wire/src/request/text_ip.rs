//! Addresses as text.

use std::net::{IpAddr, Ipv4Addr};

use serde::{Serialize, Serializer};

/// An address as requests carry it. `None` stands for the empty text, which the agent writes for an
/// address it does not have: it matches nothing.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct TextIp(pub Option<IpAddr>);

impl TextIp {
    /// "Any peer outside the internal subnets", in a rule.
    pub const EXTERNAL: Self = Self(Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));

    /// `None` for a text that is neither empty nor an address: what it was to match cannot be
    /// guessed.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self(None));
        }
        let ip: IpAddr = text.parse().ok()?;
        Some(Self(Some(ip.to_canonical())))
    }

    /// What the real data path takes it for: whatever is not IPv4 becomes 255.255.255.255.
    #[must_use]
    pub fn as_data_path(self) -> Ipv4Addr {
        match self.0 {
            Some(IpAddr::V4(v4)) => v4,
            _ => Ipv4Addr::BROADCAST,
        }
    }
}

impl<T: Into<IpAddr>> From<T> for TextIp {
    fn from(ip: T) -> Self {
        Self(Some(ip.into().to_canonical()))
    }
}

impl Serialize for TextIp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(ip) => serializer.collect_str(&ip.to_canonical()),
            None => serializer.serialize_str(""),
        }
    }
}
