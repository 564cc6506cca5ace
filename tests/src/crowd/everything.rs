//! Notes beside rows that fill every other table of a bridge: threats, sample flows, names, listening ports.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use outrider_model::{AppId, IpProto, PolicyAction, RuleId, Severity, ThreatAction, ThreatId};
use outrider_wire::{
    AppPort, AppUpdate, Body as _, EtherType, FqdnUpdate, Text, ThreatFlags, ThreatLog, WireError,
    ext::{Evidence, SampleFlow},
};

use super::traffic;

/// Threats of one report.
const THREATS: u16 = 20;
/// Bytes of what was seen of each: as many as there may be.
const PACKET: usize = 2048;
/// Sample flows of one report.
const FLOWS: u16 = 40;
/// Length of their names.
const NAME: usize = 200;
/// Addresses that one report names.
const NAMED: u32 = 80;
/// Ports that a workload listens on.
const PORTS: u16 = 140;

/// What goes into the batch of report number `wave` of one proxy.
///
/// # Errors
/// Never, in fact.
pub fn batched(number: u32, wave: u64, now: u32) -> Result<Vec<Vec<u8>>, WireError> {
    let at = |row: u16, rows: u16| {
        let all = wave.wrapping_mul(rows.into()).wrapping_add(row.into());
        u16::try_from(all % 65_536).unwrap_or_default()
    };
    let threats = (0..THREATS).map(|row| threat(number, at(row, THREATS), now).encode());
    let flows: Vec<_> = (0..FLOWS)
        .map(|row| flow(number, at(row, FLOWS), now))
        .collect();
    let flows = Evidence::split(&flows)?;
    threats.chain(flows.iter().map(Evidence::encode)).collect()
}

/// What goes beside it.
///
/// # Errors
/// Never, in fact.
pub fn loose(number: u32, wave: u64) -> Result<Vec<Vec<u8>>, WireError> {
    // Addresses of the outside, other ones each time.
    let first = u32::try_from(wave % 1_000).unwrap_or_default() * NAMED;
    let addresses = (first..first + NAMED).map(|at| Ipv4Addr::from(0xc612_0000 + at));
    let name = format!("{number}-{wave}.{}", "n".repeat(NAME));
    let names = FqdnUpdate {
        name: Text::cut(&name),
        addresses: addresses.collect(),
        ..FqdnUpdate::default()
    };
    let port = |port| AppPort {
        port,
        proto: AppId::HTTP,
        server: AppId::UNKNOWN,
        application: AppId::UNKNOWN,
        ip_proto: IpProto::UDP,
    };
    let ports = AppUpdate { mac: traffic::mac(number), ports: (1..=PORTS).map(port).collect() };
    let names = names
        .split()
        .map(|part| part.encode())
        .collect::<Result<Vec<_>, _>>()?;
    Ok([names, vec![ports.encode()?]].concat())
}

fn threat(number: u32, port: u16, now: u32) -> ThreatLog {
    ThreatLog {
        threat_id: ThreatId::SMUGGLING,
        reported_at: now,
        count: 1,
        action: ThreatAction::Drop.into(),
        severity: Severity::High.into(),
        ip_proto: IpProto::TCP,
        flags: ThreatFlags::PKT_INGRESS.with(ThreatFlags::SESS_INGRESS, true),
        epmac: traffic::mac(number),
        ether_type: EtherType::IPV4,
        src_ip: v4(number + 1).into(),
        dst_ip: v4(number).into(),
        src_port: 40_000,
        dst_port: port,
        application: AppId::HTTP,
        message: Text::cut("two lengths"),
        packet: vec![b'x'; PACKET],
        ..ThreatLog::default()
    }
}

fn flow(number: u32, port: u16, now: u32) -> SampleFlow {
    SampleFlow {
        client: SocketAddr::new(v4(number + 1).into(), port),
        server: SocketAddr::new(v4(number).into(), 8080),
        proto: IpProto::TCP,
        inbound: true,
        app: AppId::HTTP,
        rule: RuleId(0),
        action: PolicyAction::Learn.into(),
        host: format!("{port}.{}", "h".repeat(NAME)),
        sni: format!("{port}.{}", "s".repeat(NAME)),
        bytes_client: 1,
        bytes_server: 1,
        at: now.into(),
    }
}

fn v4(number: u32) -> Ipv4Addr {
    match traffic::address(number) {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    }
}
