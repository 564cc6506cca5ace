//! Built-in threats: NeuVector's numbers, names, severities and default actions.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Identifier of a threat: an open set (signature rules have numbers from 20000).
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
pub struct ThreatId(pub u32);

/// How bad, least first; the wire's numbers.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Severity {
    /// No threat.
    #[default]
    None = 0,
    /// Information.
    Info = 1,
    /// Low.
    Low = 2,
    /// Medium.
    Medium = 3,
    /// High.
    High = 4,
    /// Critical.
    Critical = 5,
}

impl Severity {
    /// Reads the wire's number; anything above critical is critical.
    #[must_use]
    pub fn from_wire(value: u8) -> Self {
        match value {
            0 => Self::None,
            1 => Self::Info,
            2 => Self::Low,
            3 => Self::Medium,
            4 => Self::High,
            _ => Self::Critical,
        }
    }

    /// The name people read.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Info => "info",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// What a detector asks for; only an enforcing workload does it.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum ThreatAction {
    /// Nothing.
    #[default]
    None = 0,
    /// Report only.
    Allow = 1,
    /// Stop the flow.
    Drop = 2,
    /// Reset the flow.
    Reset = 3,
    /// Stop inspecting.
    Bypass = 4,
    /// Block what follows.
    Block = 5,
}

impl ThreatAction {
    /// Whether the flow ends where the workload enforces.
    #[must_use]
    pub fn stops(self) -> bool {
        matches!(self, Self::Drop | Self::Reset | Self::Block)
    }
}

/// One row of the table of built-in threats.
struct Row {
    id: u32,
    name: &'static str,
    severity: Severity,
    action: ThreatAction,
    on: bool,
}

const fn row(id: u32, name: &'static str, severity: Severity, action: ThreatAction) -> Row {
    Row { id, name, severity, action, on: true }
}

const fn off(id: u32, name: &'static str, severity: Severity, action: ThreatAction) -> Row {
    Row { id, name, severity, action, on: false }
}

use Severity::{Critical, High, Info, Low, Medium};
use ThreatAction::{Allow, Drop, Reset};

/// `docs/threats.md` says when each fires.
const TABLE: [Row; 41] = [
    row(1001, "TCP.SYN.Flood", Critical, Drop),
    row(1002, "ICMP.Flood", Critical, Drop),
    off(1003, "Source.IP.Session.Limit", High, Drop),
    row(2001, "Invalid.Packet.Format", Medium, Drop),
    row(2002, "IP.Fragment.Teardrop", Critical, Drop),
    off(2003, "TCP.SYN.With.Data", Medium, Drop),
    row(2004, "TCP.Split.Handshake", Medium, Allow),
    off(2005, "TCP.No.Client.Data", Medium, Reset),
    row(2006, "Ping.Death", Critical, Drop),
    row(2007, "DNS.Loop.Pointer", Critical, Drop),
    row(2008, "SSH.Version.1", Low, Allow),
    row(2009, "SSL.Heartbleed", Critical, Drop),
    row(2010, "SSL.Cipher.Overflow", Critical, Drop),
    row(2011, "SSL.Version.2or3", Medium, Drop),
    off(2012, "SSL.TLS1.0", Info, Allow),
    row(2013, "HTTP.Negative.Body.Length", High, Drop),
    row(2014, "HTTP.Request.Smuggling", High, Drop),
    off(2015, "HTTP.Request.Slowloris", Critical, Reset),
    off(2016, "TCP.Small.Window", High, Reset),
    row(2017, "DNS.Stack.Overflow", Critical, Allow),
    row(2018, "MySQL.Access.Deny", Info, Allow),
    row(2019, "DNS.Zone.Transfer", Critical, Drop),
    row(2020, "ICMP.Tunneling", Critical, Allow),
    off(2021, "DNS.Type.Null", Critical, Allow),
    row(2022, "SQL.Injection", Critical, Drop),
    row(2023, "Apache.Struts.Remote.Code.Execution", Critical, Drop),
    row(2024, "DNS.Tunneling", Critical, Allow),
    row(2025, "TCP.SACK.DDoS.With.Small.MSS", High, Drop),
    row(2026, "K8S.externalIPs.MitM", Critical, Drop),
    off(2027, "SSL.TLS1.1", Info, Allow),
    // From here on our own, up to 3999: NeuVector has nothing between its detectors and signatures.
    row(3001, "Network.Scan", Medium, Allow),
    row(3101, "Sidecar.Bypass.Identity", Critical, Reset),
    row(3102, "Sidecar.Bypass.Connection", Critical, Reset),
    row(3103, "Sidecar.Bypass.Older", High, Reset),
    row(3104, "Sidecar.Bypass.Forged", Critical, Reset),
    row(3105, "Sidecar.Bypass.Flags", High, Allow),
    row(3106, "Sidecar.Bypass.Packet.Socket", Critical, Allow),
    row(3107, "Sidecar.Bypass.Raw.Socket", High, Allow),
    row(3108, "Sidecar.Bypass.Family", High, Allow),
    row(3109, "Sidecar.Bypass.Interface", Medium, Allow),
    row(3110, "Sidecar.Uncaptured", Info, Allow),
];

impl ThreatId {
    /// A peer that opens too many TCP connections.
    pub const SYN_FLOOD: Self = Self(1001);
    /// Too many ICMP requests.
    pub const ICMP_FLOOD: Self = Self(1002);
    /// A peer that has too many flows open.
    pub const SOURCE_SESSIONS: Self = Self(1003);
    /// A packet that contradicts itself.
    pub const INVALID_PACKET: Self = Self(2001);
    /// Fragments that overlap.
    pub const TEARDROP: Self = Self(2002);
    /// A SYN that carries data.
    pub const SYN_WITH_DATA: Self = Self(2003);
    /// A TCP handshake in an order that no server uses.
    pub const SPLIT_HANDSHAKE: Self = Self(2004);
    /// Clients that connect and say nothing.
    pub const NO_CLIENT_DATA: Self = Self(2005);
    /// An ICMP request of a size that no program sends.
    pub const PING_DEATH: Self = Self(2006);
    /// A DNS name whose pointers lead nowhere.
    pub const DNS_LOOP: Self = Self(2007);
    /// SSH protocol version 1.
    pub const SSH_VERSION_1: Self = Self(2008);
    /// TLS heartbeat that asks for more than it sent.
    pub const HEARTBLEED: Self = Self(2009);
    /// SSL 2 hello whose ciphers exceed it.
    pub const CIPHER_OVERFLOW: Self = Self(2010);
    /// SSL version 2 or 3.
    pub const SSL_VERSION: Self = Self(2011);
    /// TLS 1.0.
    pub const TLS_1_0: Self = Self(2012);
    /// Negative HTTP body length.
    pub const NEGATIVE_LENGTH: Self = Self(2013);
    /// HTTP framing that two readers may understand differently.
    pub const SMUGGLING: Self = Self(2014);
    /// A huge DNS message that cannot be read.
    pub const DNS_OVERFLOW: Self = Self(2017);
    /// MySQL login refused.
    pub const MYSQL_DENIED: Self = Self(2018);
    /// A DNS zone is asked for.
    pub const ZONE_TRANSFER: Self = Self(2019);
    /// Echo replies that differ from their requests.
    pub const ICMP_TUNNEL: Self = Self(2020);
    /// A DNS question of type NULL.
    pub const DNS_NULL: Self = Self(2021);
    /// A TCP MSS that makes its peer waste memory.
    pub const SMALL_MSS: Self = Self(2025);
    /// Egress to a service's external address.
    pub const EXTERNAL_IP: Self = Self(2026);
    /// TLS 1.1.
    pub const TLS_1_1: Self = Self(2027);
    /// Another process runs as the proxy's user, and is left alone for it.
    pub const BYPASS_IDENTITY: Self = Self(3101);
    /// A TCP connection of the workload that never crossed the proxy.
    pub const BYPASS_CONNECTION: Self = Self(3102);
    /// One that is older than the proxy.
    pub const BYPASS_OLDER: Self = Self(3103);
    /// A TCP segment that no socket of the pod can have sent.
    pub const BYPASS_FORGED: Self = Self(3104);
    /// TCP flags that no system sends, leaving the pod.
    pub const BYPASS_FLAGS: Self = Self(3105);
    /// Somebody else's packet socket.
    pub const BYPASS_PACKET_SOCKET: Self = Self(3106);
    /// Somebody else's raw socket.
    pub const BYPASS_RAW_SOCKET: Self = Self(3107);
    /// Sockets of a family that no rule and no tap sees.
    pub const BYPASS_FAMILY: Self = Self(3108);
    /// An interface or address came or went.
    pub const BYPASS_INTERFACE: Self = Self(3109);
    /// A port or network that is left out on purpose was used.
    pub const UNCAPTURED: Self = Self(3110);
    /// A peer that tries many ports or hosts in vain.
    pub const PORT_SCAN: Self = Self(3001);

    fn row(self) -> Option<&'static Row> {
        let found = TABLE.binary_search_by_key(&self.0, |row| row.id).ok()?;
        TABLE.get(found)
    }

    /// All built-in threats, in order of number.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| Self(row.id))
    }

    /// The public name, if the number has one.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        self.row().map(|row| row.name)
    }

    /// The fixed severity; `None` for a number that is not built in.
    #[must_use]
    pub fn severity(self) -> Severity {
        self.row().map_or(Severity::None, |row| row.severity)
    }

    /// The default action.
    #[must_use]
    pub fn action(self) -> ThreatAction {
        self.row().map_or(ThreatAction::None, |row| row.action)
    }

    /// Whether it is looked for by default.
    #[must_use]
    pub fn on_by_default(self) -> bool {
        self.row().is_some_and(|row| row.on)
    }
}

impl fmt::Display for ThreatId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "threat/{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_so_that_search_finds_every_row() {
        assert!(TABLE.is_sorted_by_key(|row| row.id));
        assert_eq!(ThreatId::all().filter(|id| id.name().is_some()).count(), TABLE.len());
        assert_eq!(ThreatId::SMUGGLING.action(), ThreatAction::Drop);
        assert!(!ThreatId::TLS_1_0.on_by_default());
    }
}
