//! DEVICE_COUNTER (4).

use super::{Body, Kind};
use crate::{Reader, WireError, Writer};

/// Number of parsers in [`DeviceCounter`]: http, ssl, ssh, dns, dhcp, ntp, tftp, echo, mysql, redis,
/// zookeeper, cassandra, mongodb, postgresql, kafka, couchbase, spark, tns, tds, grpc.
pub const PARSERS: usize = 20;

/// Counters of the data path since its start.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DeviceCounter {
    /// Packets received.
    pub rx_packets: u64,
    /// Packets received and dropped.
    pub rx_drop_packets: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Packets that could not be sent.
    pub tx_drop_packets: u64,
    /// Malformed packets.
    pub error_packets: u64,
    /// Packets of no known workload.
    pub no_workload_packets: u64,
    /// IPv4 packets.
    pub ipv4_packets: u64,
    /// IPv6 packets.
    pub ipv6_packets: u64,
    /// TCP packets.
    pub tcp_packets: u64,
    /// TCP packets of no session.
    pub tcp_no_session_packets: u64,
    /// UDP packets.
    pub udp_packets: u64,
    /// ICMP packets.
    pub icmp_packets: u64,
    /// Packets of other protocols.
    pub other_packets: u64,
    /// Segments held for reassembly.
    pub assemblys: u64,
    /// Segments let go after reassembly.
    pub freed_assemblys: u64,
    /// IP fragments held.
    pub fragments: u64,
    /// IP fragments let go.
    pub freed_fragments: u64,
    /// IP fragments given up.
    pub timeout_fragments: u64,
    /// Sessions since the start.
    pub total_sessions: u64,
    /// TCP sessions since the start.
    pub tcp_sessions: u64,
    /// UDP sessions since the start.
    pub udp_sessions: u64,
    /// ICMP sessions since the start.
    pub icmp_sessions: u64,
    /// Other sessions since the start.
    pub ip_sessions: u64,
    /// Meters that could not be made.
    pub drop_meters: u64,
    /// Meters that act as a proxy.
    pub proxy_meters: u64,
    /// Current meters.
    pub cur_meters: u64,
    /// Current entries of the log cache.
    pub cur_log_caches: u64,
    /// Sessions that each parser had to do with, counted when they end.
    pub parser_sessions: [u64; PARSERS],
    /// Packets of each parser.
    pub parser_packets: [u64; PARSERS],
    /// Exact rules in force.
    pub policy_type1_rules: u32,
    /// Range rules in force.
    pub policy_type2_rules: u32,
    /// Names in force.
    pub policy_domains: u32,
    /// Addresses of those names.
    pub policy_domain_ips: u32,
    /// Connection rows dropped by the rate limit.
    pub limit_drop_conns: u64,
    /// Connection rows that passed the rate limit.
    pub limit_pass_conns: u64,
}

fn parsers(reader: &mut Reader<'_>) -> Result<[u64; PARSERS], WireError> {
    let mut counts = [0; PARSERS];
    for count in &mut counts {
        *count = reader.u64()?;
    }
    Ok(counts)
}

impl DeviceCounter {
    /// The 27 counters that come first.
    fn totals(&self) -> [u64; 27] {
        [
            self.rx_packets,
            self.rx_drop_packets,
            self.tx_packets,
            self.tx_drop_packets,
            self.error_packets,
            self.no_workload_packets,
            self.ipv4_packets,
            self.ipv6_packets,
            self.tcp_packets,
            self.tcp_no_session_packets,
            self.udp_packets,
            self.icmp_packets,
            self.other_packets,
            self.assemblys,
            self.freed_assemblys,
            self.fragments,
            self.freed_fragments,
            self.timeout_fragments,
            self.total_sessions,
            self.tcp_sessions,
            self.udp_sessions,
            self.icmp_sessions,
            self.ip_sessions,
            self.drop_meters,
            self.proxy_meters,
            self.cur_meters,
            self.cur_log_caches,
        ]
    }
}

impl Body for DeviceCounter {
    const KIND: Kind = Kind::DEVICE_COUNTER;

    fn read(reader: &mut Reader<'_>, _more: bool) -> Result<Self, WireError> {
        Ok(Self {
            rx_packets: reader.u64()?,
            rx_drop_packets: reader.u64()?,
            tx_packets: reader.u64()?,
            tx_drop_packets: reader.u64()?,
            error_packets: reader.u64()?,
            no_workload_packets: reader.u64()?,
            ipv4_packets: reader.u64()?,
            ipv6_packets: reader.u64()?,
            tcp_packets: reader.u64()?,
            tcp_no_session_packets: reader.u64()?,
            udp_packets: reader.u64()?,
            icmp_packets: reader.u64()?,
            other_packets: reader.u64()?,
            assemblys: reader.u64()?,
            freed_assemblys: reader.u64()?,
            fragments: reader.u64()?,
            freed_fragments: reader.u64()?,
            timeout_fragments: reader.u64()?,
            total_sessions: reader.u64()?,
            tcp_sessions: reader.u64()?,
            udp_sessions: reader.u64()?,
            icmp_sessions: reader.u64()?,
            ip_sessions: reader.u64()?,
            drop_meters: reader.u64()?,
            proxy_meters: reader.u64()?,
            cur_meters: reader.u64()?,
            cur_log_caches: reader.u64()?,
            parser_sessions: parsers(reader)?,
            parser_packets: parsers(reader)?,
            policy_type1_rules: reader.u32()?,
            policy_type2_rules: reader.u32()?,
            policy_domains: reader.u32()?,
            policy_domain_ips: reader.u32()?,
            limit_drop_conns: reader.u64()?,
            limit_pass_conns: reader.u64()?,
        })
    }

    fn write(&self, writer: &mut Writer) -> Result<(), WireError> {
        let totals = self.totals();
        for count in totals
            .iter()
            .chain(&self.parser_sessions)
            .chain(&self.parser_packets)
        {
            writer.u64(*count);
        }
        writer.u32(self.policy_type1_rules);
        writer.u32(self.policy_type2_rules);
        writer.u32(self.policy_domains);
        writer.u32(self.policy_domain_ips);
        writer.u64(self.limit_drop_conns);
        writer.u64(self.limit_pass_conns);
        Ok(())
    }
}
