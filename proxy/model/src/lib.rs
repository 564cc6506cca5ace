//! The vocabulary of every room: addresses, identifiers, decisions, reports, and how bytes are
//! read. Plain data, no I/O.
#![forbid(unsafe_code)]

mod addr;
mod app;
pub mod bytes;
mod decision;
pub mod filter;
mod flow;
mod threat;

pub use addr::{IpProto, MacAddr, OriginalDst, ParseMacError};
pub use app::AppId;
pub use decision::{Decision, DecisionCause, Mode, ParseModeError, PolicyAction, RuleId, Verdict};
pub use filter::PacketFilter;
pub use flow::{Direction, FlowId, FlowKey, Side};
pub use threat::{Severity, ThreatAction, ThreatId};

/// The proxy's own uid and gid, and the ports and marks that init, proxy and bridge agree on.
pub mod names {
    /// uid and gid of the proxy; its own connections are recognised by it.
    pub const PROXY_UID: u32 = 1771;
    /// Listener for connections the workload opens.
    pub const OUTBOUND_PORT: u16 = 15101;
    /// Listener for connections that arrive at the workload.
    pub const INBOUND_PORT: u16 = 15106;
    /// The proxy's DNS listener, loopback only.
    pub const DNS_PORT: u16 = 15153;
    /// The proxy's admin surface, loopback only.
    pub const ADMIN_PORT: u16 = 15100;
    /// The proxy's `/metrics` and `/healthz`.
    pub const HEALTH_PORT: u16 = 15120;
    /// The bridge's REST API and UI.
    pub const API_PORT: u16 = 15180;
    /// The bridge's `/metrics` and `/healthz`.
    pub const BRIDGE_HEALTH_PORT: u16 = 15190;
    /// The bridge's gRPC service.
    pub const GRPC_PORT: u16 = 18401;
    /// fwmark of packets that TPROXY took.
    pub const FWMARK: u32 = 0x6eb;
    /// Route table behind [`FWMARK`].
    pub const ROUTE_TABLE: u32 = 171;
    /// Number of the packet queue that init's rules fill and the proxy reads.
    pub const QUEUE: u16 = 171;
    /// Bit of a flow's conntrack mark: the proxy has allowed the flow, so that its packets pass without
    /// being queued. Set and tested with itself as the mask; other bits belong to others.
    pub const VERDICT_MARK: u32 = 0x0100_0000;
    /// Bit of a flow's conntrack mark: the flow is the proxy's own. Used as [`VERDICT_MARK`] is.
    pub const OWN_MARK: u32 = 0x0200_0000;
    /// Default directory of the two ctrl sockets inside a pod.
    pub const CTRL_DIR: &str = "/run/outrider/ctrl";
    /// Default root of the mailboxes on a node, one directory a pod.
    pub const PODS_DIR: &str = "/run/outrider/pods";
    /// Bound by the proxy: requests in, replies out.
    pub const DP_LISTEN: &str = "dp_listen.sock";
    /// Bound by the bridge: notifications in.
    pub const CTRL_LISTEN: &str = "ctrl_listen.sock";
    /// Every port of the proxy that redirected traffic must never be relayed to.
    pub const OWN_PORTS: [u16; 5] =
        [OUTBOUND_PORT, INBOUND_PORT, DNS_PORT, ADMIN_PORT, HEALTH_PORT];
}
