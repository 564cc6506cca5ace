//! Messages with a list.

use outrider_model::{AppId, IpProto, MacAddr, RuleId, ThreatId};

use super::{decodes, five, hex};
use crate::{
    ActionCode, AppPort, AppUpdate, Connection, ConnectionFlags, Connections, EtherType, Meter,
    MeterFlags, MeterId, MeterList, Session, SessionFlags, SessionList, SessionSide, SessionState,
    SeverityCode, WireIp,
};

const POD: MacAddr = MacAddr([10, 88, 10, 77, 1, 5]);
const PEER: MacAddr = MacAddr([10, 88, 10, 77, 1, 1]);

fn v4(last: u8) -> WireIp {
    std::net::Ipv4Addr::new(10, 77, 1, last).into()
}

five!(
    app_update: AppUpdate,
    AppUpdate {
        mac: POD,
        ports: vec![
            AppPort {
                port: 8080,
                proto: AppId::HTTP,
                server: AppId::NGINX,
                application: AppId(2012),
                ip_proto: IpProto::TCP,
            },
            AppPort {
                port: 53,
                proto: AppId::DNS,
                server: AppId::UNKNOWN,
                application: AppId::UNKNOWN,
                ip_proto: IpProto::UDP,
            },
        ],
    },
    hex("0100 0020 0a580a4d0105 0002 1f90 03e9 07e6 07dc 06 00 0035 03ec 0000 0000 11 00"),
    [14, 16, 18, 20]
);

five!(
    connections: Connections,
    Connections {
        rows: vec![Connection {
            epmac: POD,
            ip_proto: IpProto::TCP,
            server_port: 8080,
            client_port: 257,
            client_ip: v4(2),
            server_ip: v4(5),
            ether_type: EtherType::IPV4,
            flags: ConnectionFlags::INGRESS.with(ConnectionFlags::UWLIP, true),
            bytes: 358,
            sessions: 1,
            first_seen_at: 0x6b04_1bc9,
            last_seen_at: 0x6b04_1bca,
            application: AppId::HTTP,
            policy_action: ActionCode(6),
            severity: SeverityCode(5),
            policy_id: RuleId(10001),
            violates: 2,
            threat_id: ThreatId(2014),
            ep_sess_cur_in: 3,
            ep_sess_in_12: 4,
            ep_byte_in_12: 680,
        }],
    },
    hex("0700 0068 0001 0000 0a580a4d0105 06 00 1f90 0101
        0a4d0102000000000000000000000000 0a4d0105000000000000000000000000 0800 0081
        00000166 00000001 6b041bc9 6b041bca 03e9 06 05 00002711 00000002 000007de
        00000003 00000004 00000000000002a8"),
    [14, 52, 54, 72, 74, 75, 76, 84]
);

fn session() -> Session {
    Session {
        id: 4,
        epmac: POD,
        ether_type: EtherType::IPV4,
        client_mac: PEER,
        server_mac: POD,
        client_ip: v4(1),
        server_ip: v4(5),
        client_port: 47042,
        server_port: 6379,
        icmp_code: 1,
        icmp_type: 2,
        ip_proto: IpProto::TCP,
        client: SessionSide {
            packets: 6,
            bytes: 426,
            held_packets: 1,
            held_bytes: 3,
            state: SessionState::FIN_WAIT_2,
        },
        server: SessionSide {
            packets: 4,
            bytes: 291,
            held_packets: 2,
            held_bytes: 5,
            state: SessionState::CLOSE,
        },
        idle: 2,
        age: 3,
        life: 13,
        application: AppId::REDIS,
        threat_id: ThreatId(2014),
        policy_id: RuleId(10002),
        policy_action: ActionCode(6),
        severity: SeverityCode(4),
        flags: SessionFlags::INGRESS.with(SessionFlags::TAP, true),
        xff_ip: v4(9),
        xff_app: AppId(0xffff),
        xff_port: 443,
    }
}

fn session_bytes() -> Vec<u8> {
    hex("0201 0094 0001 0000 00000004 0a580a4d0105 0800 0a580a4d0101 0a580a4d0105
        0a4d0101000000000000000000000000 0a4d0105000000000000000000000000 b7c2 18eb 01 02 06 00
        00000006 00000004 000001aa 00000123 00000001 00000002 00000003 00000005 05 07 0002
        00000003 000d 07d2 000007de 00002712 06 04 0003 0a4d0109000000000000000000000000 ffff 01bb")
}

five!(
    sessions: SessionList,
    SessionList { more: true, sessions: vec![session()] },
    session_bytes(),
    [18, 70, 104, 105, 115, 119, 124, 125, 126, 144]
);

five!(
    closing_sessions: SessionList,
    SessionList::default(),
    hex("0200 0008 0000 0000"),
    []
);

/// The real data path's IPv6 sessions, written by hand from its layout.
#[test]
fn a_session_in_host_order_is_turned_around() {
    let bytes = hex(
        "0201 0094 0001 0000 04000000 0a580a4d0105 dd86 0a580a4d0101 0a580a4d0105
        fd770001000000000000000000000001 fd770001000000000000000000000005 c2b7 eb18 01 02 06 00
        06000000 04000000 aa010000 23010000 01000000 02000000 03000000 05000000 05 07 0200
        03000000 0d00 d207 de070000 12270000 06 04 0300 0a4d0109000000000000000000000000 ffff bb01",
    );
    let v6 = |last| WireIp([0xfd, 0x77, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    let turned =
        Session { ether_type: EtherType::IPV6, client_ip: v6(1), server_ip: v6(5), ..session() };
    assert_eq!(turned.client_addr(), Some("fd77:1::1".parse().expect("an address")));
    decodes(SessionList { more: true, sessions: vec![turned] }, &bytes);
}

five!(
    meters: MeterList,
    MeterList {
        more: true,
        meters: vec![Meter {
            epmac: POD,
            idle: 6,
            count: 199,
            last_count: 160,
            peer_ip: v4(1),
            meter_id: MeterId::SYN_FLOOD,
            flags: MeterFlags::IPV4.with(MeterFlags::TAP, true),
            span: 5,
            upper_limit: 800,
            lower_limit: 600,
        }],
    },
    hex("0501 0034 0001 0000 0a580a4d0105 0006 000000c7 000000a0
        0a4d0101000000000000000000000000 00 03 05 00 00000320 00000258"),
    [40]
);

five!(closing_meters: MeterList, MeterList::default(), hex("0500 0008 0000 0000"), []);
