//! Messages without a list.

use outrider_model::{AppId, IpProto, MacAddr, ThreatId};

use super::{field, five, hex};
use crate::{
    DeviceCounter, DeviceStats, EtherType, FqdnFlags, FqdnUpdate, IpFqdnRelease, IpFqdnUpdate,
    KeepAlive, MacStats, SessionCount, SeverityCode, Stats, StatsWindow, Text, ThreatActionCode,
    ThreatFlags, ThreatLog, WireIp,
};

five!(keep_alive: KeepAlive, KeepAlive { seq_num: 700 }, hex("0a00 0008 000002bc"), [4, 7]);

five!(
    session_count: SessionCount,
    SessionCount { total: 10, tcp: 6, udp: 2, icmp: 1, other: 258 },
    hex("0300 0018 0000000a 00000006 00000002 00000001 00000102"),
    [4, 23]
);

five!(
    ip_fqdn_release: IpFqdnRelease,
    IpFqdnRelease { ip: [203, 0, 113, 10].into() },
    hex("0d00 0014 cb00710a 00000000 00000000 00000000"),
    [4]
);

fn ip_fqdn_update() -> Vec<u8> {
    [hex("0c00 0114 cb00710a 00000000 00000000 00000000"), field("www.example.test", 256)].concat()
}

five!(
    ip_fqdn: IpFqdnUpdate,
    IpFqdnUpdate {
        ip: [203, 0, 113, 10].into(),
        name: Text::exact("www.example.test").expect("short"),
    },
    ip_fqdn_update(),
    [4, 20]
);

fn fqdn_update() -> Vec<u8> {
    let addresses = hex("cb00710a 00000000 00000000 00000000 cb00710b 00000000 00000000 00000000");
    let head = hex("0b00 012a");
    [head, field("*.example.test", 256), hex("0002 0000 01 00"), addresses].concat()
}

five!(
    fqdn: FqdnUpdate,
    FqdnUpdate {
        name: Text::exact("*.example.test").expect("short"),
        flags: FqdnFlags::VHOST,
        addresses: vec![[203, 0, 113, 10].into(), [203, 0, 113, 11].into()],
    },
    fqdn_update(),
    [264]
);

fn threat_log() -> ThreatLog {
    ThreatLog {
        threat_id: ThreatId(2014),
        reported_at: 0x6b04_1bc9,
        count: 3,
        action: ThreatActionCode(2),
        severity: SeverityCode(4),
        ip_proto: IpProto::TCP,
        flags: ThreatFlags(7),
        epmac: MacAddr([10, 88, 10, 77, 1, 5]),
        ether_type: EtherType::IPV6,
        src_ip: WireIp([0xfd, 0x77, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        dst_ip: WireIp([0xfd, 0x77, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5]),
        src_port: 47020,
        dst_port: 8080,
        icmp_code: 1,
        icmp_type: 8,
        application: AppId::HTTP,
        cap_len: 137,
        message: Text::cut("Two lengths"),
        packet: b"POST /".to_vec(),
        dlp_name_hash: 0x0102_0304,
    }
}

fn threat_bytes() -> Vec<u8> {
    let head = hex("0600 088c 000007de 6b041bc9 00000003 02 04 06 07 0a580a4d0105 86dd
        fd770001000000000000000000000001 fd770001000000000000000000000005
        b7ac 1f90 01 08 03e9 0006 0089");
    [head, field("Two lengths", 64), field("POST /", 2048), hex("04030201")].concat()
}

five!(
    threat: ThreatLog,
    threat_log(),
    threat_bytes(),
    [4, 16, 17, 18, 19, 26, 27, 66, 67, 70]
);

fn counter() -> DeviceCounter {
    DeviceCounter {
        rx_packets: 1,
        cur_log_caches: 27,
        parser_sessions: std::array::from_fn(|parser| parser as u64),
        parser_packets: [9; 20],
        policy_type1_rules: 4,
        policy_type2_rules: 7,
        policy_domains: 1,
        policy_domain_ips: 2,
        limit_drop_conns: 5,
        limit_pass_conns: 6,
        ..DeviceCounter::default()
    }
}

fn counter_bytes() -> Vec<u8> {
    let numbers = |all: &[u64]| all.iter().flat_map(|n| n.to_be_bytes()).collect::<Vec<_>>();
    let mut totals = [0; 27];
    (totals[0], totals[26]) = (1, 27);
    let parsers: Vec<_> = (0..20).collect();
    [
        hex("0400 023c"),
        numbers(&totals),
        numbers(&parsers),
        numbers(&[9; 20]),
        hex("00000004 00000007 00000001 00000002"),
        numbers(&[5, 6]),
    ]
    .concat()
}

five!(device_counter: DeviceCounter, counter(), counter_bytes(), [4, 100, 571]);

fn stats() -> Stats {
    let window = |n: u32| StatsWindow {
        session_in: n,
        session_out: n + 1,
        packet_in: u64::from(n + 2),
        packet_out: u64::from(n + 3),
        byte_in: u64::from(n + 4),
        byte_out: u64::from(n + 5),
    };
    Stats {
        interval: 5,
        session_cur_in: 7,
        session_cur_out: 8,
        total: window(0x10),
        last: window(0x20),
        minute: window(0x30),
        five_minutes: window(0x40),
    }
}

fn stats_bytes(kind: u8) -> Vec<u8> {
    let mut bytes = hex("0000 00b4 00000005 00000000 00000010 00000011 00000007 00000008
        0000000000000012 0000000000000013 0000000000000014 0000000000000015
        00000020 00000021 0000000000000022 0000000000000023 0000000000000024 0000000000000025
        00000030 00000031 0000000000000032 0000000000000033 0000000000000034 0000000000000035
        00000040 00000041 0000000000000042 0000000000000043 0000000000000044 0000000000000045");
    bytes[0] = kind;
    bytes
}

five!(mac_stats: MacStats, MacStats(stats()), stats_bytes(8), [12, 179]);
five!(device_stats: DeviceStats, DeviceStats(stats()), stats_bytes(9), [12, 179]);

#[test]
fn the_interval_is_read_in_either_order() {
    let mut host_order = stats_bytes(8);
    host_order[4..8].reverse();
    super::decodes(MacStats(stats()), &host_order);
}

#[test]
fn a_log_is_kept_whatever_bytes_its_text_has() {
    let mut odd = threat_bytes();
    odd[72] = 0xff;
    let log = <ThreatLog as crate::Body>::decode_exact(&odd).expect("a log");
    assert_eq!(log.message.as_str(), "\u{fffd}wo lengths");
    super::encodes(&log, &odd);
}
