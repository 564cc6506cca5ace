//! What proxies answer, as gRPC has it. Sums over proxies where the question is not about one.

use std::net::IpAddr;

use outrider_api::share::{
    ClusDatapathCounter, ClusMeter, ClusMetry, ClusSession, ClusSessionCounter, ClusStats,
    ClusWorkloadIntercept, ClusWorkloadInterceptPort,
};
use outrider_model::Mode;
use outrider_wire::{
    DeviceCounter, Meter, MeterFlags, PARSERS, Reply, Session, SessionFlags, Stats, StatsWindow,
};

use crate::mailbox::{load::Average, program::Desired};

/// Seconds of a window of statistics.
const INTERVAL: u32 = 5;
/// What the node agent says where it does not list open files.
const NO_LSOF: &[u8] = b"lsof disabled";

pub(super) fn session(found: &Session, uid: &str) -> ClusSession {
    let (client, server) = (found.client, found.server);
    ClusSession {
        id: found.id,
        workload: uid.to_owned(),
        ether_type: found.ether_type.0.into(),
        ip_proto: found.ip_proto.0.into(),
        client_mac: found.client_mac.0.to_vec(),
        server_mac: found.server_mac.0.to_vec(),
        client_ip: octets(found.client_addr()),
        server_ip: octets(found.server_addr()),
        client_port: found.client_port.into(),
        server_port: found.server_port.into(),
        icmp_code: found.icmp_code.into(),
        icmp_type: found.icmp_type.into(),
        client_state: client.state.0.into(),
        server_state: server.state.0.into(),
        client_pkts: client.packets,
        server_pkts: server.packets,
        client_bytes: client.bytes.into(),
        server_bytes: server.bytes.into(),
        application: found.application.0,
        age: found.age,
        idle: found.idle.into(),
        life: found.life.into(),
        ingress: found.flags.contains(SessionFlags::INGRESS),
        tap: found.flags.contains(SessionFlags::TAP),
        mid: found.flags.contains(SessionFlags::MID),
        policy_id: found.policy_id.0,
        policy_action: found.policy_action.0.into(),
        client_asm_pkts: client.held_packets,
        server_asm_pkts: server.held_packets,
        client_asm_bytes: client.held_bytes.into(),
        server_asm_bytes: server.held_bytes.into(),
        host_mode: false,
        // Always four bytes, as the node agent has it.
        xff_ip: found.xff_ip.v4().octets().to_vec(),
        xff_app: found.xff_app.0,
        xff_port: found.xff_port.into(),
    }
}

fn octets(ip: Option<IpAddr>) -> Vec<u8> {
    match ip {
        Some(IpAddr::V4(ip)) => ip.octets().to_vec(),
        Some(IpAddr::V6(ip)) => ip.octets().to_vec(),
        None => Vec::new(),
    }
}

pub(super) fn meter(found: &Meter, uid: &str) -> ClusMeter {
    ClusMeter {
        meter_id: found.meter_id.0.into(),
        workload: uid.to_owned(),
        peer_ip: octets(Some(found.peer())),
        count: found.count,
        last_count: found.last_count,
        idle: found.idle.into(),
        span: found.span.into(),
        upper_limit: found.upper_limit,
        lower_limit: found.lower_limit,
        tap: found.flags.contains(MeterFlags::TAP),
    }
}

pub(super) fn session_count(replies: &[Reply]) -> ClusSessionCounter {
    let mut sum = ClusSessionCounter::default();
    for reply in replies {
        let Reply::SessionCount(found) = reply else { continue };
        add32(&mut sum.cur_sessions, found.total);
        add32(&mut sum.cur_tcp_sessions, found.tcp);
        add32(&mut sum.cur_udp_sessions, found.udp);
        add32(&mut sum.cur_icmp_sessions, found.icmp);
        add32(&mut sum.cur_ip_sessions, found.other);
    }
    sum
}

/// `now` is Unix seconds. There is no cost in all, as little as the node agent knows one.
pub(super) fn stats(replies: &[Reply], cost: [Average; 3], now: i64) -> ClusStats {
    let mut total = ClusMetry::default();
    let costs =
        |one: Average| ClusMetry { cpu: one.cpu, memory: one.memory, ..ClusMetry::default() };
    let [mut last, mut minute, mut five_minutes] = cost.map(costs);
    for reply in replies {
        let found: &Stats = match reply {
            Reply::MacStats(found) => &found.0,
            Reply::DeviceStats(found) => &found.0,
            _ => continue,
        };
        add32(&mut total.session_cur_in, found.session_cur_in);
        add32(&mut total.session_cur_out, found.session_cur_out);
        add_window(&mut total, &found.total);
        add_window(&mut last, &found.last);
        add_window(&mut minute, &found.minute);
        add_window(&mut five_minutes, &found.five_minutes);
    }
    ClusStats {
        read_at: now,
        interval: INTERVAL,
        total: Some(total),
        span1: Some(last),
        span12: Some(minute),
        span60: Some(five_minutes),
    }
}

fn add_window(sum: &mut ClusMetry, found: &StatsWindow) {
    add32(&mut sum.session_in, found.session_in);
    add32(&mut sum.session_out, found.session_out);
    add64(&mut sum.packet_in, found.packet_in);
    add64(&mut sum.packet_out, found.packet_out);
    add64(&mut sum.byte_in, found.byte_in);
    add64(&mut sum.byte_out, found.byte_out);
}

pub(super) fn counters(replies: &[Reply]) -> ClusDatapathCounter {
    let mut sum = ClusDatapathCounter {
        lsof: NO_LSOF.to_vec(),
        parser_sessions: vec![0; PARSERS],
        parser_packets: vec![0; PARSERS],
        ..ClusDatapathCounter::default()
    };
    for reply in replies {
        let Reply::DeviceCounter(found) = reply else { continue };
        add_packets(&mut sum, found);
        add_sessions(&mut sum, found);
        let parsers = sum.parser_sessions.iter_mut().zip(found.parser_sessions);
        parsers.for_each(|(sum, found)| add64(sum, found));
        let parsers = sum.parser_packets.iter_mut().zip(found.parser_packets);
        parsers.for_each(|(sum, found)| add64(sum, found));
    }
    sum
}

fn add_packets(sum: &mut ClusDatapathCounter, found: &DeviceCounter) {
    for (sum, found) in [
        (&mut sum.rx_packets, found.rx_packets),
        (&mut sum.rx_drop_packets, found.rx_drop_packets),
        (&mut sum.tx_packets, found.tx_packets),
        (&mut sum.tx_drop_packets, found.tx_drop_packets),
        (&mut sum.error_packets, found.error_packets),
        (&mut sum.no_workload_packets, found.no_workload_packets),
        (&mut sum.i_pv4_packets, found.ipv4_packets),
        (&mut sum.i_pv6_packets, found.ipv6_packets),
        (&mut sum.tcp_packets, found.tcp_packets),
        (&mut sum.tcp_no_session_packets, found.tcp_no_session_packets),
        (&mut sum.udp_packets, found.udp_packets),
        (&mut sum.icmp_packets, found.icmp_packets),
        (&mut sum.other_packets, found.other_packets),
        (&mut sum.assemblys, found.assemblys),
        (&mut sum.freed_assemblys, found.freed_assemblys),
        (&mut sum.fragments, found.fragments),
        (&mut sum.freed_fragments, found.freed_fragments),
        (&mut sum.timeout_fragments, found.timeout_fragments),
    ] {
        add64(sum, found);
    }
}

fn add_sessions(sum: &mut ClusDatapathCounter, found: &DeviceCounter) {
    for (sum, found) in [
        (&mut sum.total_sessions, found.total_sessions),
        (&mut sum.tcp_sessions, found.tcp_sessions),
        (&mut sum.udp_sessions, found.udp_sessions),
        (&mut sum.icmp_sessions, found.icmp_sessions),
        (&mut sum.ip_sessions, found.ip_sessions),
        (&mut sum.drop_meters, found.drop_meters),
        (&mut sum.proxy_meters, found.proxy_meters),
        (&mut sum.cur_meters, found.cur_meters),
        (&mut sum.cur_log_caches, found.cur_log_caches),
        (&mut sum.limit_drop_conns, found.limit_drop_conns),
        (&mut sum.limit_pass_conns, found.limit_pass_conns),
    ] {
        add64(sum, found);
    }
    add32(&mut sum.policy_type1_rules, found.policy_type1_rules);
    add32(&mut sum.policy_type2_rules, found.policy_type2_rules);
    add32(&mut sum.policy_domains, found.policy_domains);
    add32(&mut sum.policy_domain_i_ps, found.policy_domain_ips);
}

pub(super) fn intercept(desired: &Desired) -> ClusWorkloadIntercept {
    ClusWorkloadIntercept {
        id: desired.workload.uid.clone(),
        inline: desired.policy.mode == Mode::Protect,
        quarantine: false,
        ports: vec![ClusWorkloadInterceptPort {
            port: crate::mailbox::program::INTERFACE.into(),
            mac: desired.workload.mac.0.to_vec(),
            ..ClusWorkloadInterceptPort::default()
        }],
    }
}

/// Proxies may say what they like: a sum stays at its highest value.
fn add32(sum: &mut u32, found: u32) {
    *sum = sum.saturating_add(found);
}

fn add64(sum: &mut u64, found: u64) {
    *sum = sum.saturating_add(found);
}
