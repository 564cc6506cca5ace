use std::net::SocketAddr;

use outrider_model::{AppId, Decision, PolicyAction, RuleId, Severity, Side};
use outrider_telemetry::Names;
use outrider_wire::{ActionCode, Body as _, Connections};

use super::*;
use crate::testing::POD_MAC;

fn row(client: &str, server: &str, direction: Direction) -> (RowKey, Row) {
    let (sample, server): (SocketAddr, SocketAddr) =
        (client.parse().unwrap(), server.parse().unwrap());
    let key = RowKey {
        rule: RuleId(10_001),
        client: sample.ip(),
        server: server.ip(),
        port: server.port(),
        proto: IpProto::TCP,
        app: AppId::REDIS,
        direction,
    };
    let row = Row {
        bytes_client: 100,
        bytes_server: 23,
        sessions: 2,
        violations: 1,
        first_seen: 1_700_000_000,
        last_seen: 1_700_000_009,
        action: PolicyAction::Violate,
        severity: Severity::High,
        threat: ThreatId::SMUGGLING,
        flags: RowFlags::of(Decision::default()),
        sample,
        names: Names::default(),
    };
    (key, row)
}

fn network(nets: &[&str]) -> Network {
    let internal = nets.iter().map(|net| net.parse().unwrap()).collect();
    Network { internal, ..Network::default() }
}

fn connections(network: &Network, rows: &[(RowKey, Row)]) -> Vec<Connection> {
    let mut stats = StatsSnapshot { current: [4, 0], ..StatsSnapshot::default() };
    stats.minute.sessions = [5, 0];
    stats.minute.bytes = [6, 0];
    Rows { epmac: POD_MAC, stats: &stats, network }.connections(rows)
}

#[test]
fn a_row_becomes_a_connection_of_the_same_sums() {
    let rows = [row("10.0.0.9:4000", "10.77.1.5:6379", Direction::Inbound)];
    let connections = connections(&Network::default(), &rows);
    let [connection] = connections[..] else { panic!("{connections:?}") };
    assert_eq!(
        (connection.epmac, connection.server_port, connection.client_port),
        (POD_MAC, 6379, 0)
    );
    assert_eq!((connection.bytes, connection.sessions, connection.violates), (123, 2, 1));
    assert_eq!((connection.policy_action, connection.policy_id), (ActionCode(6), RuleId(10_001)));
    assert_eq!(connection.ether_type, EtherType::IPV4);
    assert_eq!((connection.ep_sess_cur_in, connection.ep_sess_in_12), (4, 5));
    assert_eq!(connection.ep_byte_in_12, 6);
    let flags = ConnectionFlags::INGRESS.with(ConnectionFlags::TMP_OPEN, true);
    assert_eq!(connection.flags, flags, "no policy yet");
    let datagram = Connections { rows: vec![connection] }.encode().unwrap();
    assert_eq!(Connections::decode_exact(&datagram).unwrap().rows, [connection]);
}

#[test]
fn more_bytes_than_a_row_holds_become_several_rows() {
    let (key, mut row) = row("10.0.0.9:4000", "10.77.1.5:6379", Direction::Inbound);
    row.bytes_client = 3 * u64::from(u32::MAX);
    row.bytes_server = 7;
    let total = row.bytes();
    let connections = connections(&Network::default(), &[(key, row)]);
    assert_eq!(connections.len(), 4);
    assert_eq!(
        connections
            .iter()
            .map(|row| u64::from(row.bytes))
            .sum::<u64>(),
        total
    );
    assert_eq!(connections.iter().map(|row| row.sessions).sum::<u32>(), 2);
    assert_eq!(connections.iter().map(|row| row.violates).sum::<u32>(), 1);
}

#[test]
fn v6_rows_carry_their_addresses_whole() {
    let rows = [row("[fd00::9]:4000", "[fd77:1::5]:80", Direction::Inbound)];
    let connection = connections(&Network::default(), &rows)[0];
    assert_eq!(connection.ether_type, EtherType::IPV6);
    assert_eq!(connection.server(), Some("fd77:1::5".parse().unwrap()));
}

#[test]
fn the_peer_outside_the_internal_subnets_is_external() {
    let network = network(&["10.0.0.0/8"]);
    for (client, server, direction, external) in [
        ("10.0.0.9:1", "10.77.1.5:80", Direction::Inbound, false),
        ("203.0.113.9:1", "10.77.1.5:80", Direction::Inbound, true),
        ("10.77.1.5:1", "203.0.113.9:80", Direction::Outbound, true),
        ("127.0.0.1:1", "10.77.1.5:80", Direction::Inbound, false),
        ("[2001:db8::9]:1", "[fd77:1::5]:80", Direction::Inbound, false),
    ] {
        let connection = connections(&network, &[row(client, server, direction)])[0];
        let is = connection.flags.contains(ConnectionFlags::EXTERNAL);
        assert_eq!(is, external, "{client} > {server}");
    }
}

#[test]
fn every_mark_has_its_bit() {
    let marks = RowFlags {
        service_external: true,
        link_local: true,
        temporary: true,
        unmanaged: true,
        boundary: true,
    };
    let all = flags(Direction::Outbound, marks, true);
    assert_eq!(all.0, 0x0002 | 0x0008 | 0x0020 | 0x0040 | 0x0080 | 0x0100);
}

fn threat() -> ThreatReport {
    ThreatReport {
        id: ThreatId::SMUGGLING,
        direction: Direction::Inbound,
        side: Side::Client,
        client: "10.0.0.9:4000".parse().unwrap(),
        server: "10.77.1.5:80".parse().unwrap(),
        proto: IpProto::TCP,
        app: AppId::HTTP,
        enforced: false,
        stopped: false,
        message: "two lengths".to_owned(),
        evidence: b"POST / HTTP/1.1\r\n".to_vec(),
        is_packet: false,
        length: 70_000,
        count: 3,
        reported_at: 1_700_000_000,
    }
}

#[test]
fn a_threat_becomes_a_log_with_its_evidence_in_a_packet() {
    let log = threat_log(&threat(), POD_MAC);
    assert_eq!(
        (log.threat_id, log.count, log.src_port, log.dst_port),
        (ThreatId(2014), 3, 4000, 80)
    );
    assert_eq!((log.action.0, log.severity.0), (2, 4));
    assert_eq!(log.flags, ThreatFlags(7), "to the workload, which serves, and only watches");
    assert!(log.packet.ends_with(b"POST / HTTP/1.1\r\n"));
    assert_eq!(log.cap_len, low_bits(70_054));
    assert_eq!(log.message.as_str(), "two lengths");
    let datagram = log.encode().unwrap();
    assert_eq!(datagram.len(), 2188);
    assert_eq!(ThreatLog::decode_exact(&datagram).unwrap(), log);
}

#[test]
fn the_longest_evidence_fits_the_log() {
    let evidence = vec![7; outrider_telemetry::MAX_EVIDENCE];
    let report = ThreatReport {
        client: "[fd00::9]:4000".parse().unwrap(),
        server: "[fd77:1::5]:80".parse().unwrap(),
        message: "ü".repeat(63),
        evidence,
        ..threat()
    };
    assert!(threat_log(&report, POD_MAC).encode().is_ok());
}

#[test]
fn violations_and_threats_come_before_the_rest() {
    let (key, accused) = row("10.0.0.9:1", "10.77.1.5:80", Direction::Inbound);
    let plain = Row { action: PolicyAction::Allow, threat: ThreatId(0), ..accused.clone() };
    let threat = Row { action: PolicyAction::Allow, ..accused.clone() };
    let mut rows = vec![(key, plain.clone()), (key, threat.clone()), (key, accused.clone())];
    sort_by_weight(&mut rows);
    let order: Vec<_> = rows.into_iter().map(|(_, row)| row).collect();
    assert_eq!(order, [accused, threat, plain]);
}

#[test]
fn names_become_notices_of_three_kinds() {
    let name = |text: &str| outrider_policy::Name::new(text).unwrap();
    let ip = |last: u16| std::net::Ipv4Addr::from(0x0b00_0000 + u32::from(last));
    let addresses: Vec<_> = (0..500).map(ip).collect();
    let wildcard = Notice::Wildcard { name: name("*.example.com"), vhost: true, addresses };
    let notices = [wildcard, Notice::Named(ip(1), name("a.example")), Notice::Released(ip(1))];
    let sent: Vec<_> = notices.into_iter().flat_map(name_notices).collect();
    let kinds: Vec<u8> = sent.iter().map(|sent| sent.encode().unwrap()[0]).collect();
    assert_eq!(kinds, [11, 11, 12, 13], "a long list goes in parts");
    let Notification::FqdnUpdate(first) = &sent[0] else { panic!("{sent:?}") };
    assert!(first.flags.contains(FqdnFlags::VHOST) && first.addresses.len() == 495);
    assert_eq!(first.name.as_str(), "*.example.com");
}
