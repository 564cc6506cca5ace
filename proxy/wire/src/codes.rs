//! Numbers of the protocol: open sets, so that a number newer than this build still round-trips.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use outrider_model::{PolicyAction, Severity, ThreatAction};
use serde::{Deserialize, Serialize};

/// A set of bits, unknown ones kept.
macro_rules! flags {
    ($(#[$doc:meta])* $name:ident($int:ty) { $($(#[$bit_doc:meta])* $bit:ident = $value:expr,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq, Serialize)]
        pub struct $name(pub $int);

        impl $name {
            /// No bit.
            pub const NONE: Self = Self(0);
            $($(#[$bit_doc])* pub const $bit: Self = Self($value);)*

            /// Whether every bit of `bits` is set.
            #[must_use]
            pub const fn contains(self, bits: Self) -> bool {
                self.0 & bits.0 == bits.0
            }

            /// Sets `bits` as well if `on`.
            #[must_use]
            pub const fn with(self, bits: Self, on: bool) -> Self {
                if on { Self(self.0 | bits.0) } else { self }
            }
        }
    };
}

/// A number with some known values.
macro_rules! numbers {
    ($(#[$doc:meta])* $name:ident($int:ty) { $($(#[$item_doc:meta])* $item:ident = $value:expr,)* }) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
        )]
        pub struct $name(pub $int);

        impl $name {
            $($(#[$item_doc])* pub const $item: Self = Self($value);)*
        }
    };
}

flags! {
    /// Flags of a [`Session`](crate::Session).
    SessionFlags(u16) {
        /// The workload is the server.
        INGRESS = 0x0001,
        /// Observed only.
        TAP = 0x0002,
        /// Seen first in mid-stream.
        MID = 0x0004,
        /// The peer is outside the internal subnets.
        EXTERNAL = 0x0008,
        /// Virtual, from X-Forwarded-For.
        XFF = 0x0010,
        /// Egress to a service's external address.
        SVC_EXTIP = 0x0020,
        /// From the application to its sidecar, the real server learnt.
        MESH_TO_SVR = 0x0040,
        /// An address is link-local.
        LINK_LOCAL = 0x0080,
        /// Let through because policy may not be there yet.
        TMP_OPEN = 0x0100,
        /// The peer is unmanaged.
        UWLIP = 0x0200,
        /// Crossed a namespace boundary.
        CHK_NBE = 0x0400,
        /// Same namespace, boundary on.
        NBE_SNS = 0x0800,
    }
}

flags! {
    /// Flags of a [`Connection`](crate::Connection).
    ConnectionFlags(u16) {
        /// The workload is the server.
        INGRESS = 0x0001,
        /// The peer is outside the internal subnets.
        EXTERNAL = 0x0002,
        /// Virtual row from X-Forwarded-For.
        XFF = 0x0004,
        /// Egress to a service's external address.
        SVC_EXTIP = 0x0008,
        /// From the application to its sidecar, the real server learnt.
        MESH_TO_SVR = 0x0010,
        /// An address is link-local.
        LINK_LOCAL = 0x0020,
        /// Let through because policy may not be there yet.
        TMP_OPEN = 0x0040,
        /// The peer is unmanaged.
        UWLIP = 0x0080,
        /// Crossed a namespace boundary.
        CHK_NBE = 0x0100,
        /// Same namespace, boundary on.
        NBE_SNS = 0x0200,
    }
}

flags! {
    /// Flags of a [`ThreatLog`](crate::ThreatLog).
    ThreatFlags(u8) {
        /// The packet came to the workload.
        PKT_INGRESS = 1,
        /// The workload is the server.
        SESS_INGRESS = 2,
        /// Observed only: nothing was stopped.
        TAP = 4,
    }
}

flags! {
    /// Flags of a [`Meter`](crate::Meter).
    MeterFlags(u8) {
        /// The peer's address is IPv4.
        IPV4 = 1,
        /// Observed only.
        TAP = 2,
    }
}

flags! {
    /// Flags of a [`FqdnUpdate`](crate::FqdnUpdate). The real data path leaves stale bits in them.
    FqdnFlags(u8) {
        /// The name must also be the virtual host.
        VHOST = 1,
    }
}

flags! {
    /// Which chunk of a long request this is; no bit for one in the middle.
    ChunkFlags(u32) {
        /// The first.
        START = 1,
        /// The last.
        END = 2,
        /// The only one.
        WHOLE = 3,
    }
}

flags! {
    /// The directions in which policy applies.
    Directions(u32) {
        /// What the workload opens.
        EGRESS = 1,
        /// What the workload is asked for.
        INGRESS = 2,
        /// Both.
        BOTH = 3,
    }
}

numbers! {
    /// What is to become of a policy.
    PolicyCommand(u32) {
        /// Put in place.
        ADD = 1,
        /// Replace; the same as [`Self::ADD`].
        MODIFY = 2,
        /// Remove.
        DELETE = 3,
    }
}

numbers! {
    /// A policy action.
    ActionCode(u8) {}
}

impl ActionCode {
    /// The action, unless newer than this build.
    #[must_use]
    pub fn known(self) -> Option<PolicyAction> {
        PolicyAction::from_wire(self.0)
    }
}

impl From<PolicyAction> for ActionCode {
    fn from(action: PolicyAction) -> Self {
        Self(action.to_wire())
    }
}

numbers! {
    /// How bad a threat is.
    SeverityCode(u8) {}
}

impl SeverityCode {
    /// The severity; anything above critical is critical.
    #[must_use]
    pub fn severity(self) -> Severity {
        Severity::from_wire(self.0)
    }
}

impl From<Severity> for SeverityCode {
    fn from(severity: Severity) -> Self {
        Self(severity as u8)
    }
}

numbers! {
    /// What a detector asks for.
    ThreatActionCode(u8) {}
}

impl From<ThreatAction> for ThreatActionCode {
    fn from(action: ThreatAction) -> Self {
        Self(action as u8)
    }
}

numbers! {
    /// State of one side of a session: Linux's numbers of TCP states.
    SessionState(u8) {
        /// Not TCP, or nothing seen.
        NONE = 0,
        /// Established.
        ESTABLISHED = 1,
        /// SYN sent.
        SYN_SENT = 2,
        /// SYN received.
        SYN_RECEIVED = 3,
        /// FIN sent.
        FIN_WAIT_1 = 4,
        /// FIN sent and acknowledged.
        FIN_WAIT_2 = 5,
        /// Waiting for late packets.
        TIME_WAIT = 6,
        /// Closed.
        CLOSE = 7,
        /// FIN received.
        CLOSE_WAIT = 8,
        /// FIN received and sent.
        LAST_ACK = 9,
        /// Listening.
        LISTEN = 10,
        /// Both sides sent FIN at once.
        CLOSING = 11,
    }
}

numbers! {
    /// What a [`Meter`](crate::Meter) counts.
    MeterId(u8) {
        /// SYN without a session, per workload and client.
        SYN_FLOOD = 0,
        /// ICMP packets, per workload.
        ICMP_FLOOD = 1,
        /// Concurrent sessions, per workload and client.
        SESSIONS_PER_SOURCE = 2,
        /// Sessions without data, per workload.
        TCP_NO_DATA = 3,
    }
}

numbers! {
    /// Which address family a message's address fields hold.
    EtherType(u16) {
        /// IPv4.
        IPV4 = 0x0800,
        /// IPv6.
        IPV6 = 0x86dd,
    }
}

impl EtherType {
    /// The family of an address.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        if ip.to_canonical().is_ipv4() { Self::IPV4 } else { Self::IPV6 }
    }
}

/// A 16-byte address field: IPv4 in the first four bytes and zeros, or IPv6. Which one, the
/// message's [`EtherType`] or flag says.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct WireIp(pub [u8; 16]);

impl WireIp {
    /// The address under `family`; `None` if the family is neither IPv4 nor IPv6.
    #[must_use]
    pub fn ip(self, family: EtherType) -> Option<IpAddr> {
        match family {
            EtherType::IPV4 => Some(self.v4().into()),
            EtherType::IPV6 => Some(Ipv6Addr::from(self.0).into()),
            _ => None,
        }
    }

    /// The first four bytes.
    #[must_use]
    pub fn v4(self) -> Ipv4Addr {
        let [a, b, c, d, ..] = self.0;
        Ipv4Addr::new(a, b, c, d)
    }
}

impl From<Ipv4Addr> for WireIp {
    fn from(ip: Ipv4Addr) -> Self {
        let [a, b, c, d] = ip.octets();
        Self([a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    }
}

impl From<IpAddr> for WireIp {
    fn from(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(v4) => v4.into(),
            IpAddr::V6(v6) => Self(v6.octets()),
        }
    }
}
