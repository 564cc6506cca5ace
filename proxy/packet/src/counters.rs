//! What an engine counts.

/// Totals since the engine was made.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Counters {
    /// Frames fed.
    pub frames: u64,
    /// Bytes of the frames on the wire.
    pub bytes: u64,
    /// IPv4 packets.
    pub ipv4: u64,
    /// IPv6 packets.
    pub ipv6: u64,
    /// TCP segments.
    pub tcp: u64,
    /// UDP datagrams.
    pub udp: u64,
    /// ICMP messages of both families.
    pub icmp: u64,
    /// Packets of other protocols.
    pub other: u64,
    /// Frames that carry no IP.
    pub not_ip: u64,
    /// Frames that contradict themselves.
    pub malformed: u64,
    /// Frames of which the capture has too little to say anything.
    pub cut: u64,
    /// TCP segments that belong to no flow and open none.
    pub no_flow: u64,
    /// TCP segments outside their flow's window.
    pub stray: u64,
    /// Fragments.
    pub fragments: u64,
    /// Packets put together from fragments.
    pub reassembled: u64,
    /// Packets whose fragments did not all come, or that there was no room for.
    pub fragments_given_up: u64,
    /// TCP segments, or parts of them, that were held because an earlier one was missing.
    pub segments_held: u64,
    /// Those of them that were let go.
    pub segments_freed: u64,
    /// Flows opened: TCP.
    pub tcp_flows: u64,
    /// Flows opened: UDP.
    pub udp_flows: u64,
    /// Flows opened: ICMP of both families.
    pub icmp_flows: u64,
    /// Flows opened: other protocols.
    pub other_flows: u64,
    /// Flows that went because the table was full.
    pub evicted: u64,
}
