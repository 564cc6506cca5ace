//! What telemetry collected, as notifications.

use std::{collections::HashMap, net::IpAddr};

use outrider_model::{Direction, IpProto, MacAddr, ThreatId};
use outrider_policy::Network;
use outrider_telemetry::{AppPort, Row, RowFlags, RowKey, StatsSnapshot, ThreatReport};
use outrider_wire::{
    self as wire, AppUpdate, Connection, ConnectionFlags, EtherType, FqdnFlags, FqdnUpdate,
    IpFqdnRelease, IpFqdnUpdate, Notification, Text, ThreatFlags, ThreatLog,
};

use super::frame;
use crate::dns::Notice;

#[cfg(test)]
mod tests;

/// Rows with everything that their messages say about the workload.
#[derive(Debug)]
pub(crate) struct Rows<'a> {
    /// The workload.
    pub epmac: MacAddr,
    /// Its statistics.
    pub stats: &'a StatsSnapshot,
    /// What is external.
    pub network: &'a Network,
}

impl Rows<'_> {
    /// Turns rows into the wire's. A row of more bytes than its field holds becomes several, so that
    /// the sum stays true.
    #[must_use]
    pub(crate) fn connections(&self, rows: &[(RowKey, Row)]) -> Vec<Connection> {
        let mut peers = HashMap::new();
        let mut connections = Vec::with_capacity(rows.len());
        for (key, row) in rows {
            let peer = if key.direction == Direction::Inbound { key.client } else { key.server };
            let external = *peers
                .entry(peer)
                .or_insert_with(|| is_external(self.network, peer));
            let whole = self.connection(key, row, external);
            let mut bytes = row.bytes();
            connections.push(Connection { bytes: take(&mut bytes), ..whole });
            while bytes > 0 {
                let rest = Connection { sessions: 0, violates: 0, ..whole };
                connections.push(Connection { bytes: take(&mut bytes), ..rest });
            }
        }
        connections
    }

    fn connection(&self, key: &RowKey, row: &Row, external: bool) -> Connection {
        Connection {
            epmac: self.epmac,
            ip_proto: key.proto,
            server_port: key.port,
            client_port: 0,
            client_ip: key.client.into(),
            server_ip: key.server.into(),
            ether_type: EtherType::of(key.server),
            flags: flags(key.direction, row.flags, external),
            bytes: 0,
            sessions: row.sessions,
            first_seen_at: seconds(row.first_seen),
            last_seen_at: seconds(row.last_seen),
            application: key.app,
            policy_action: row.action.into(),
            severity: row.severity.into(),
            policy_id: key.rule,
            violates: row.violations,
            threat_id: row.threat,
            ep_sess_cur_in: narrow(self.stats.current[0]),
            ep_sess_in_12: narrow(self.stats.minute.sessions[0]),
            ep_byte_in_12: self.stats.minute.bytes[0],
        }
    }
}

/// As much of `bytes` as one row holds, taken away from it.
fn take(bytes: &mut u64) -> u32 {
    let part = narrow(*bytes);
    *bytes = bytes.saturating_sub(part.into());
    part
}

fn flags(direction: Direction, flags: RowFlags, external: bool) -> ConnectionFlags {
    ConnectionFlags::NONE
        .with(ConnectionFlags::INGRESS, direction == Direction::Inbound)
        .with(ConnectionFlags::EXTERNAL, external)
        .with(ConnectionFlags::SVC_EXTIP, flags.service_external)
        .with(ConnectionFlags::LINK_LOCAL, flags.link_local)
        .with(ConnectionFlags::TMP_OPEN, flags.temporary)
        .with(ConnectionFlags::UWLIP, flags.unmanaged)
        .with(ConnectionFlags::CHK_NBE, flags.boundary)
}

/// Whether a peer is outside the internal subnets. A family without subnets is internal as a whole.
#[must_use]
pub(crate) fn is_external(network: &Network, peer: IpAddr) -> bool {
    let peer = peer.to_canonical();
    let mut family = network
        .internal
        .iter()
        .filter(|net| net.addr().is_ipv4() == peer.is_ipv4())
        .peekable();
    !peer.is_loopback() && family.peek().is_some() && !family.any(|net| net.contains(&peer))
}

/// One threat log, with a made-up packet around the bytes that fired.
#[must_use]
pub(crate) fn threat_log(report: &ThreatReport, epmac: MacAddr) -> ThreatLog {
    let (source, target) = frame::ends(report);
    let length = report.length.max(report.evidence.len());
    let packet = frame::frame(report, epmac);
    let inbound = report.direction == Direction::Inbound;
    let icmp = report.proto.is_icmp();
    let [icmp_code, icmp_type] = if icmp { report.server.port().to_be_bytes() } else { [0, 0] };
    ThreatLog {
        threat_id: report.id,
        reported_at: seconds(report.reported_at),
        count: report.count,
        action: report.id.action().into(),
        severity: report.id.severity().into(),
        ip_proto: report.proto,
        flags: ThreatFlags::NONE
            .with(ThreatFlags::PKT_INGRESS, frame::towards_workload(report))
            .with(ThreatFlags::SESS_INGRESS, inbound)
            .with(ThreatFlags::TAP, !report.enforced),
        epmac,
        ether_type: EtherType::of(source.ip()),
        src_ip: source.ip().into(),
        dst_ip: target.ip().into(),
        src_port: if icmp { 0 } else { source.port() },
        dst_port: if icmp { 0 } else { target.port() },
        icmp_code,
        icmp_type,
        application: report.app,
        cap_len: low_bits(frame::headers(report).saturating_add(length)),
        message: Text::cut(&report.message),
        packet,
        ..ThreatLog::default()
    }
}

/// The table of the workload's listening ports.
#[must_use]
pub(crate) fn app_update(
    mac: MacAddr,
    ports: impl Iterator<Item = ((IpProto, u16), AppPort)>,
) -> AppUpdate {
    let ports = ports
        .map(|((ip_proto, port), app)| wire::AppPort {
            port,
            proto: app.proto,
            server: app.server,
            application: app.app,
            ip_proto,
        })
        .take(wire::limits::MAX_APP_PORTS)
        .collect();
    AppUpdate { mac, ports }
}

/// What the agent is told about names.
#[must_use]
pub(crate) fn name_notices(notice: Notice) -> Vec<Notification> {
    match notice {
        Notice::Wildcard { name, vhost, addresses } => {
            let flags = FqdnFlags::NONE.with(FqdnFlags::VHOST, vhost);
            let name = Text::cut(name.as_str());
            let update = FqdnUpdate { name, flags, addresses };
            update.split().map(Into::into).collect()
        }
        Notice::Named(ip, name) => {
            vec![IpFqdnUpdate { ip, name: Text::cut(name.as_str()) }.into()]
        }
        Notice::Released(ip) => vec![IpFqdnRelease { ip }.into()],
    }
}

/// Seconds since the epoch in 32 bits; ends in 2106.
fn seconds(time: u64) -> u32 {
    narrow(time)
}

/// A number in 32 bits, at most their largest.
pub(super) fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn low_bits(length: usize) -> u16 {
    u16::try_from(length & 0xffff).unwrap_or(u16::MAX)
}

/// Rows that accuse or teach first, so that a cap takes the others.
pub(crate) fn sort_by_weight(rows: &mut [(RowKey, Row)]) {
    rows.sort_by_key(|(_, row)| {
        (!row.action.violates(), row.threat == ThreatId::default(), row.first_seen)
    });
}
