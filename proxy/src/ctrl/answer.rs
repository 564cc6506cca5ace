//! Answers to queries, from telemetry.

use std::net::IpAddr;

use outrider_model::{AppId, Direction, FlowKey, IpProto, MacAddr, Mode};
use outrider_policy::Network;
use outrider_telemetry::{
    FlowState, Grip, RowFlags, SLOT_SECONDS, StatsSnapshot, Telemetry, Window, unix_seconds,
};
use outrider_wire::{
    DeviceCounter, EtherType, Session, SessionCount, SessionFlags, SessionState, Stats,
    StatsWindow, limits::MAX_SESSIONS,
};

use super::report::{is_external, narrow};
use crate::packets::Totals;

#[cfg(test)]
mod tests;

/// What a session list says of every session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope<'a> {
    /// The workload.
    pub epmac: MacAddr,
    /// What is external.
    pub network: &'a Network,
    /// Whether the workload enforces.
    pub mode: Mode,
}

/// The live sessions, `most` at most, and how many more there are.
#[must_use]
pub(crate) fn sessions(
    telemetry: &Telemetry,
    scope: Scope<'_>,
    most: usize,
) -> (Vec<Session>, u64) {
    let now = unix_seconds();
    let (mut sessions, mut left_out) = (Vec::new(), 0_u64);
    telemetry.flows().for_each(|flow| {
        if sessions.len() < most {
            sessions.push(session(flow, scope, now));
        } else {
            left_out = left_out.saturating_add(1);
        }
    });
    sessions.sort_by_key(|session| (session.ether_type.0 != EtherType::IPV4.0, session.id));
    (sessions, left_out)
}

fn session(flow: &FlowState, scope: Scope<'_>, now: u64) -> Session {
    let (key, decision) = (flow.key(), flow.decision());
    let inbound = key.direction == Direction::Inbound;
    let peer = if inbound { key.client.ip() } else { key.server.ip() };
    let (threat_id, severity) = flow.threat();
    let app = flow.identification().app();
    let idle = flow.idle_seconds(now);
    let ([client_port, server_port], [icmp_code, icmp_type]) = ports(key);
    let mut session = Session {
        id: low_bits(flow.id().0),
        epmac: scope.epmac,
        ether_type: EtherType::of(key.server.ip()),
        client_ip: key.client.ip().into(),
        server_ip: key.server.ip().into(),
        client_port,
        server_port,
        icmp_code,
        icmp_type,
        ip_proto: key.proto,
        idle: u16::try_from(idle).unwrap_or(u16::MAX),
        age: narrow(now.saturating_sub(flow.opened_at())),
        life: life(flow, idle),
        application: app,
        threat_id,
        policy_id: decision.rule,
        policy_action: decision.action.into(),
        severity: severity.into(),
        flags: flags(flow, scope, peer),
        ..Session::default()
    };
    let own = if inbound { &mut session.server_mac } else { &mut session.client_mac };
    *own = scope.epmac;
    let (bytes, chunks, wings) = (flow.bytes(), flow.chunks(), flow.wings());
    for (side, at) in [(&mut session.client, 0), (&mut session.server, 1)] {
        side.bytes = low_bits(bytes[at]);
        side.packets = low_bits(chunks[at]);
        side.state = SessionState(wings[at]);
    }
    session
}

/// Ports of client and server, and code and type of ICMP, which has no ports.
pub(super) fn ports(key: &FlowKey) -> ([u16; 2], [u8; 2]) {
    if key.proto.is_icmp() {
        ([0, 0], key.server.port().to_be_bytes())
    } else {
        ([key.client.port(), key.server.port()], [0, 0])
    }
}

fn flags(flow: &FlowState, scope: Scope<'_>, peer: IpAddr) -> SessionFlags {
    let marks = RowFlags::of(flow.decision());
    let tapped = scope.mode != Mode::Protect || flow.grip() == Grip::Seen;
    SessionFlags::NONE
        .with(SessionFlags::INGRESS, flow.key().direction == Direction::Inbound)
        .with(SessionFlags::TAP, tapped)
        .with(SessionFlags::EXTERNAL, is_external(scope.network, peer))
        .with(SessionFlags::SVC_EXTIP, marks.service_external)
        .with(SessionFlags::LINK_LOCAL, marks.link_local)
        .with(SessionFlags::TMP_OPEN, marks.temporary)
        .with(SessionFlags::UWLIP, marks.unmanaged)
        .with(SessionFlags::CHK_NBE, marks.boundary)
}

/// Seconds until the data path's timer for a session in this state would end it.
fn life(flow: &FlowState, idle: u64) -> u16 {
    let timer: u64 = match (flow.key().proto, flow.wings()) {
        (IpProto::TCP, [0, _]) => 20,
        (IpProto::TCP, [1, 1]) => 1200,
        (IpProto::TCP, [1, _] | [_, 1]) => 90,
        (IpProto::UDP, _) => 30,
        (IpProto::ICMP | IpProto::ICMPV6, _) => 5,
        _ => 15,
    };
    u16::try_from(timer.saturating_sub(idle)).unwrap_or(u16::MAX)
}

/// Current sessions.
#[must_use]
pub(crate) fn session_count(telemetry: &Telemetry) -> SessionCount {
    let live = telemetry.flows().by_proto();
    SessionCount {
        total: narrow(live.total()),
        tcp: narrow(live.tcp),
        udp: narrow(live.udp),
        icmp: narrow(live.icmp),
        other: narrow(live.other),
    }
}

/// Statistics of the workload, which are those of the device too.
#[must_use]
pub(crate) fn stats(snapshot: &StatsSnapshot) -> Stats {
    Stats {
        interval: narrow(SLOT_SECONDS),
        session_cur_in: narrow(snapshot.current[0]),
        session_cur_out: narrow(snapshot.current[1]),
        total: window(&snapshot.total),
        last: window(&snapshot.last),
        minute: window(&snapshot.minute),
        five_minutes: window(&snapshot.five_minutes),
    }
}

fn window(window: &Window) -> StatsWindow {
    StatsWindow {
        session_in: narrow(window.sessions[0]),
        session_out: narrow(window.sessions[1]),
        packet_in: window.chunks[0],
        packet_out: window.chunks[1],
        byte_in: window.bytes[0],
        byte_out: window.bytes[1],
    }
}

/// Counters of the data path. A relay has no packets: reads that brought data stand for them, beside the
/// packets that were seen.
#[must_use]
pub(crate) fn device_counter(
    telemetry: &Telemetry,
    packets: &Totals,
    network: &Network,
    rules: (u32, u32),
) -> DeviceCounter {
    let relayed = telemetry.relayed_reads();
    let opened = telemetry.flows().opened_by_proto();
    let (passed, dropped) = telemetry.rows().lock().limits();
    let addresses: usize = network
        .names
        .iter()
        .map(|(_, addresses)| addresses.count())
        .sum();
    let Totals { engine, tap, queue, .. } = packets;
    let mut counter = DeviceCounter {
        rx_packets: relayed.saturating_add(engine.frames),
        rx_drop_packets: tap.lost.saturating_add(queue.lost),
        tx_packets: relayed,
        error_packets: engine.malformed,
        ipv4_packets: engine.ipv4,
        ipv6_packets: engine.ipv6,
        tcp_packets: relayed.saturating_add(engine.tcp),
        tcp_no_session_packets: engine.no_flow,
        udp_packets: engine.udp,
        icmp_packets: engine.icmp,
        other_packets: engine.other,
        assemblys: engine.segments_held,
        freed_assemblys: engine.segments_freed,
        fragments: engine.fragments,
        freed_fragments: engine.reassembled,
        timeout_fragments: engine.fragments_given_up,
        total_sessions: opened.total(),
        tcp_sessions: opened.tcp,
        udp_sessions: opened.udp,
        icmp_sessions: opened.icmp,
        ip_sessions: opened.other,
        policy_type1_rules: rules.0,
        policy_type2_rules: rules.1,
        policy_domains: narrow(network.names.len() as u64),
        policy_domain_ips: narrow(addresses as u64),
        limit_drop_conns: dropped,
        limit_pass_conns: passed,
        ..DeviceCounter::default()
    };
    for (parser, app) in PARSERS {
        let identified = |direction| telemetry.metrics().identified(direction, app).get();
        let sessions =
            identified(Direction::Inbound).saturating_add(identified(Direction::Outbound));
        if let Some(counted) = counter.parser_sessions.get_mut(parser) {
            *counted = sessions;
        }
    }
    counter
}

/// The low 32 bits: these numbers wrap on the wire.
fn low_bits(number: u64) -> u32 {
    u32::try_from(number & u64::from(u32::MAX)).unwrap_or(u32::MAX)
}

/// The data path's parsers that this proxy has, by their numbers there.
const PARSERS: [(usize, AppId); 11] = [
    (0, AppId::HTTP),
    (1, AppId::SSL),
    (2, AppId::SSH),
    (3, AppId::DNS),
    (4, AppId::DHCP),
    (5, AppId::NTP),
    (6, AppId::TFTP),
    (8, AppId::MYSQL),
    (9, AppId::REDIS),
    (13, AppId::POSTGRESQL),
    (19, AppId::GRPC),
];

/// Sessions in one list: so many full datagrams.
pub(crate) const MAX_LISTED: usize = 2048 * MAX_SESSIONS;
