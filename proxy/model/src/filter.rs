//! Which packets somebody wants to see, in a part of tcpdump's language: `tcp port 80 and not host
//! 10.0.0.7`. `and` and `or` bind equally and from the left, as there.

mod parse;
#[cfg(test)]
mod tests;

use std::{fmt, net::IpAddr, str::FromStr};

use crate::IpProto;

/// Longest text of a filter, in bytes.
pub const MAX_FILTER_TEXT: usize = 1024;
/// Tests in a filter at most: so many that the kernel takes the program that is made of it.
pub const MAX_FILTER_TESTS: usize = 32;
/// Deepest nesting of brackets and `not`.
pub const MAX_FILTER_NESTING: usize = 16;

/// A filter, with the text that it was read from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PacketFilter {
    text: String,
    wanted: Option<Wanted>,
}

/// What a packet must be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Wanted {
    /// Both.
    And(Box<Self>, Box<Self>),
    /// One or both.
    Or(Box<Self>, Box<Self>),
    /// Anything else.
    Not(Box<Self>),
    /// What the test says.
    Test(Test),
}

/// One question about a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Test {
    /// `ip`.
    Ipv4,
    /// `ip6`.
    Ipv6,
    /// `arp`.
    Arp,
    /// `proto 89`, `tcp`: the protocol stands in the header of IP itself, or behind that of a fragment
    /// of IPv6. ICMP's two are of one version each.
    Proto(IpProto),
    /// `host`, `net`: IP, and ARP about IPv4.
    Net {
        /// Whose address.
        end: End,
        /// The address, its other bits zero.
        address: IpAddr,
        /// So many bits of it count.
        bits: u8,
    },
    /// `port`, `portrange`: TCP, UDP or SCTP, and no later fragment, which has no ports.
    Ports {
        /// Whose port.
        end: End,
        /// One protocol only.
        proto: Option<IpProto>,
        /// The lowest.
        first: u16,
        /// The highest.
        last: u16,
    },
}

/// Which end of a packet a test is about.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum End {
    /// One or both.
    #[default]
    Either,
    /// Who sent it.
    Source,
    /// Whom it is for.
    Destination,
}

impl End {
    /// Whether the test is about the sender, and whether about the receiver.
    #[must_use]
    pub fn sides(self) -> [bool; 2] {
        [self != Self::Destination, self != Self::Source]
    }
}

impl PacketFilter {
    /// The filter that wants everything.
    #[must_use]
    pub fn everything() -> Self {
        Self { text: String::new(), wanted: None }
    }

    /// The text that it was read from.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What a packet must be; nothing: anything.
    #[must_use]
    pub fn wanted(&self) -> Option<&Wanted> {
        self.wanted.as_ref()
    }
}

impl FromStr for PacketFilter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        Ok(Self { text: text.trim().to_owned(), wanted: parse::parse(text)? })
    }
}

/// Why a text is no filter.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FilterError {
    /// The word that is wrong; empty at the end of the text.
    near: String,
    what: &'static str,
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.near.is_empty() {
            write!(f, "the filter {}", self.what)
        } else {
            write!(f, "the filter near {:?} {}", self.near, self.what)
        }
    }
}

impl std::error::Error for FilterError {}
