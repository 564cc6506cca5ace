//! Our structs, in the words of the corpus.

use std::fmt::Write;

use outrider_wire::{
    AppUpdate, Connection, DeviceCounter, FqdnFlags, FqdnUpdate, Message, Meter, Notification,
    Reply, Session, Stats, StatsWindow, ThreatLog,
};
use serde_json::{Map, Value, json};

pub(crate) fn message(message: &Message) -> Value {
    match message {
        Message::Notification(told) => notification(told),
        Message::Reply(answer) => reply(answer),
    }
}

fn notification(told: &Notification) -> Value {
    match told {
        Notification::AppUpdate(update) => apps(update),
        Notification::ThreatLog(log) => threat(log),
        Notification::Connections(list) => json!({
            "connects": list.rows.len(),
            "list": list.rows.iter().map(connection).collect::<Vec<_>>(),
        }),
        Notification::FqdnUpdate(update) => fqdn(update),
        Notification::IpFqdnUpdate(update) => {
            json!({"ip": update.ip, "name": update.name.as_str()})
        }
        Notification::IpFqdnRelease(release) => json!({"ip": release.ip}),
        Notification::Batch(_) | Notification::Evidence(_) => Value::Null,
    }
}

fn reply(answer: &Reply) -> Value {
    match answer {
        Reply::SessionList(list) => json!({
            "sessions": list.sessions.len(),
            "list": list.sessions.iter().map(session).collect::<Vec<_>>(),
        }),
        Reply::SessionCount(count) => json!({
            "cur_sess": count.total,
            "cur_tcp": count.tcp,
            "cur_udp": count.udp,
            "cur_icmp": count.icmp,
            "cur_ip": count.other,
        }),
        Reply::DeviceCounter(counter) => device(counter),
        Reply::MeterList(list) => json!({
            "meters": list.meters.len(),
            "list": list.meters.iter().map(meter).collect::<Vec<_>>(),
        }),
        Reply::MacStats(stats) => show_stats(&stats.0),
        Reply::DeviceStats(stats) => show_stats(&stats.0),
        Reply::KeepAlive(alive) => json!({"seq_num": alive.seq_num}),
        Reply::Status(_) | Reply::Capture(_) => Value::Null,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes everything");
        text
    })
}

fn ether_type(value: u16) -> String {
    format!("{value:#06x}")
}

fn apps(update: &AppUpdate) -> Value {
    let ports = update.ports.iter().map(|port| {
        json!({
            "port": port.port,
            "proto": port.proto.0,
            "server": port.server.0,
            "application": port.application.0,
            "ip_proto": port.ip_proto.0,
        })
    });
    json!({
        "mac": update.mac.to_string(),
        "ports": update.ports.len(),
        "apps": ports.collect::<Vec<_>>(),
    })
}

fn threat(log: &ThreatLog) -> Value {
    json!({
        "threat_id": log.threat_id.0,
        "reported_at": log.reported_at,
        "count": log.count,
        "action": log.action,
        "severity": log.severity,
        "ip_proto": log.ip_proto.0,
        "flags": log.flags,
        "epmac": log.epmac.to_string(),
        "ether_type": ether_type(log.ether_type.0),
        "src_ip": log.source(),
        "dst_ip": log.destination(),
        "src_port": log.src_port,
        "dst_port": log.dst_port,
        "icmp_code": log.icmp_code,
        "icmp_type": log.icmp_type,
        "application": log.application.0,
        "pkt_len": log.packet.len(),
        "cap_len": log.cap_len,
        "msg": log.message.as_str(),
        "packet_hex": hex(&log.packet),
        "dlp_name_hash_as_le": log.dlp_name_hash,
    })
}

fn connection(row: &Connection) -> Value {
    json!({
        "epmac": row.epmac.to_string(),
        "ip_proto": row.ip_proto.0,
        "server_port": row.server_port,
        "client_port": row.client_port,
        "client_ip": row.client(),
        "server_ip": row.server(),
        "ether_type": ether_type(row.ether_type.0),
        "flags": row.flags,
        "bytes": row.bytes,
        "sessions": row.sessions,
        "first_seen_at": row.first_seen_at,
        "last_seen_at": row.last_seen_at,
        "application": row.application.0,
        "policy_action": row.policy_action,
        "severity": row.severity,
        "policy_id": row.policy_id.0,
        "violates": row.violates,
        "threat_id": row.threat_id.0,
        "ep_sess_cur_in": row.ep_sess_cur_in,
        "ep_sess_in_12": row.ep_sess_in_12,
        "ep_byte_in_12": row.ep_byte_in_12,
    })
}

fn session(session: &Session) -> Value {
    let mut shown = json!({
        "id": session.id,
        "epmac": session.epmac.to_string(),
        "ether_type": ether_type(session.ether_type.0),
        "client_mac": session.client_mac.to_string(),
        "server_mac": session.server_mac.to_string(),
        "client_ip": session.client_addr(),
        "server_ip": session.server_addr(),
        "client_port": session.client_port,
        "server_port": session.server_port,
        "icmp_code": session.icmp_code,
        "icmp_type": session.icmp_type,
        "ip_proto": session.ip_proto.0,
        "idle": session.idle,
        "age": session.age,
        "life": session.life,
        "application": session.application.0,
        "threat_id": session.threat_id.0,
        "policy_id": session.policy_id.0,
        "policy_action": session.policy_action,
        "severity": session.severity,
        "flags": session.flags,
        "xff_ip": hex(&session.xff_ip.0),
        "xff_app": session.xff_app.0,
        "xff_port": session.xff_port,
    });
    for (name, side) in [("client", session.client), ("server", session.server)] {
        shown[format!("{name}_pkts")] = json!(side.packets);
        shown[format!("{name}_bytes")] = json!(side.bytes);
        shown[format!("{name}_asm_pkts")] = json!(side.held_packets);
        shown[format!("{name}_asm_bytes")] = json!(side.held_bytes);
        shown[format!("{name}_state")] = json!(side.state);
    }
    shown
}

fn meter(meter: &Meter) -> Value {
    json!({
        "epmac": meter.epmac.to_string(),
        "idle": meter.idle,
        "count": meter.count,
        "last_count": meter.last_count,
        "peer_ip": meter.peer(),
        "meter_id": meter.meter_id,
        "flags": meter.flags,
        "span": meter.span,
        "upper_limit": meter.upper_limit,
        "lower_limit": meter.lower_limit,
    })
}

fn fqdn(update: &FqdnUpdate) -> Value {
    json!({
        "name": update.name.as_str(),
        "ip_cnt": update.addresses.len(),
        "flags": update.flags,
        "vhost": update.flags.contains(FqdnFlags::VHOST),
        "ips": update.addresses,
    })
}

fn show_stats(stats: &Stats) -> Value {
    let mut shown = Map::new();
    shown.insert("interval".into(), json!(stats.interval));
    shown.insert("session_cur_in".into(), json!(stats.session_cur_in));
    shown.insert("session_cur_out".into(), json!(stats.session_cur_out));
    let spans =
        [("", stats.total), ("1", stats.last), ("12", stats.minute), ("60", stats.five_minutes)];
    for (suffix, span) in spans {
        window(&mut shown, suffix, &span);
    }
    Value::Object(shown)
}

fn window(shown: &mut Map<String, Value>, suffix: &str, span: &StatsWindow) {
    for (name, value) in [
        ("session_in", u64::from(span.session_in)),
        ("session_out", u64::from(span.session_out)),
        ("packet_in", span.packet_in),
        ("packet_out", span.packet_out),
        ("byte_in", span.byte_in),
        ("byte_out", span.byte_out),
    ] {
        shown.insert(format!("{name}{suffix}"), json!(value));
    }
}

const PARSERS: [&str; outrider_wire::PARSERS] = [
    "http",
    "ssl",
    "ssh",
    "dns",
    "dhcp",
    "ntp",
    "tftp",
    "echo",
    "mysql",
    "redis",
    "zookeeper",
    "cassandra",
    "mongodb",
    "postgresql",
    "kafka",
    "couchbase",
    "spark",
    "tns",
    "tds",
    "grpc",
];

fn by_parser(counts: &[u64]) -> Value {
    PARSERS
        .iter()
        .zip(counts)
        .map(|(name, count)| ((*name).to_owned(), json!(count)))
        .collect()
}

macro_rules! members {
    ($value:ident: $($name:ident)*) => {
        Value::Object([$((stringify!($name).to_owned(), json!($value.$name)),)*].into_iter().collect())
    };
}

fn device(counter: &DeviceCounter) -> Value {
    let mut shown = members!(counter:
        rx_packets rx_drop_packets tx_packets tx_drop_packets error_packets no_workload_packets
        ipv4_packets ipv6_packets tcp_packets tcp_no_session_packets udp_packets icmp_packets
        other_packets assemblys freed_assemblys fragments freed_fragments timeout_fragments
        total_sessions tcp_sessions udp_sessions icmp_sessions ip_sessions drop_meters proxy_meters
        cur_meters cur_log_caches policy_type1_rules policy_type2_rules policy_domains
        policy_domain_ips limit_drop_conns limit_pass_conns);
    shown["parser_sessions"] = by_parser(&counter.parser_sessions);
    shown["parser_packets"] = by_parser(&counter.parser_packets);
    shown
}
