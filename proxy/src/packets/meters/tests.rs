use std::net::SocketAddr;

use outrider_model::ThreatId;
use outrider_relay::PolicyView;

use super::*;
use crate::testing::{POD_MAC, assemble, flow, inbound, settings};

const CLIENT: &str = "10.77.1.9:4000";

/// Meters with small limits, and the threats that were logged.
struct Rig {
    metering: Arc<Metering>,
    telemetry: Telemetry,
}

impl Rig {
    fn new(mode: Mode) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(
            dir.path(),
            &[
                ("OUTRIDER_PROXY_METER_SYN_FLOOD", "5"),
                ("OUTRIDER_PROXY_METER_ICMP_FLOOD", "5"),
                ("OUTRIDER_PROXY_METER_IP_SRC_SESSION", "3"),
                ("OUTRIDER_PROXY_METER_TCP_NODATA", "2"),
                ("OUTRIDER_PROXY_METER_PORT_SCAN", "4"),
            ],
        );
        let (context, _relay, _state) = assemble(settings);
        let view = context.policy.load();
        context
            .policy
            .store(Arc::new(PolicyView { mode, ..PolicyView::clone(&view) }));
        Self { metering: Arc::clone(&context.metering), telemetry: context.telemetry.clone() }
    }

    fn threats(&self) -> Vec<(ThreatId, bool, u32)> {
        let (reports, _) = self.telemetry.threats().lock().take(unix_seconds());
        reports
            .iter()
            .map(|report| (report.id, report.stopped, report.count))
            .collect()
    }
}

fn ping() -> FlowKey {
    let server = SocketAddr::new(inbound(CLIENT, 0).server.ip(), 0x0800);
    FlowKey { proto: IpProto::ICMP, server, ..inbound(CLIENT, 0) }
}

#[test]
fn floods_of_connections_are_refused_only_in_protect() {
    for (mode, stopped) in [(Mode::Discover, false), (Mode::Monitor, false), (Mode::Protect, true)]
    {
        let rig = Rig::new(mode);
        let taken: Vec<_> = (0..7)
            .map(|_| rig.metering.open(&inbound(CLIENT, 80), true).map(drop))
            .collect();
        let refused = taken.iter().filter(|taken| taken.is_err()).count();
        assert_eq!(refused, if stopped { 3 } else { 0 }, "{mode:?}");
        assert_eq!(rig.threats(), [(ThreatId::SYN_FLOOD, stopped, 1)], "once in 30 seconds");
        let other = inbound("10.77.1.8:4000", 80);
        assert!(rig.metering.open(&other, true).is_ok(), "another source");
        let out = FlowKey { direction: Direction::Outbound, ..inbound(CLIENT, 80) };
        assert!(rig.metering.open(&out, true).is_ok(), "the workload's own");
    }
}

#[test]
fn flows_of_a_source_count_while_they_are_open() {
    let rig = Rig::new(Mode::Protect);
    let udp = FlowKey { proto: IpProto::UDP, ..inbound(CLIENT, 53) };
    let first = rig.metering.open(&udp, true).unwrap();
    let second = rig.metering.open(&udp, true).unwrap();
    assert!(!rig.metering.stops(&udp, Side::Client));
    assert_eq!(rig.metering.open(&udp, true).unwrap_err(), Refusal::SessionLimit);
    assert!(!rig.metering.stops(&udp, Side::Client), "what is refused is not open");
    let seen = rig.metering.open(&udp, false).unwrap();
    assert!(rig.metering.stops(&udp, Side::Client), "what cannot be refused is");
    drop((first, second, seen));
    assert!(rig.metering.open(&udp, true).is_ok());
}

#[test]
fn icmp_is_dropped_while_it_floods() {
    let rig = Rig::new(Mode::Protect);
    assert!(rig.metering.watches(&ping()) && !rig.metering.watches(&inbound(CLIENT, 80)));
    for _ in 0..4 {
        rig.metering.packet(&ping(), Side::Client, true);
        rig.metering.packet(&ping(), Side::Server, true);
    }
    assert!(!rig.metering.stops(&ping(), Side::Client), "answers do not count");
    rig.metering.packet(&ping(), Side::Client, true);
    assert!(rig.metering.stops(&ping(), Side::Client));
    assert!(!rig.metering.stops(&ping(), Side::Server));
    assert_eq!(rig.threats(), [(ThreatId::ICMP_FLOOD, true, 1)]);
}

#[test]
fn a_scan_is_reported_and_not_stopped() {
    let rig = Rig::new(Mode::Protect);
    for port in 1..=5 {
        rig.metering.failed(&inbound(CLIENT, port));
        rig.metering.failed(&inbound(CLIENT, port));
    }
    assert_eq!(rig.threats(), [(ThreatId::PORT_SCAN, false, 1)]);
    assert!(rig.metering.open(&inbound(CLIENT, 80), true).is_ok());
    assert!(
        rig.metering
            .list(POD_MAC)
            .iter()
            .all(|meter| meter.meter_id.0 < 4)
    );
}

#[test]
fn clients_that_say_nothing_are_counted_once_and_cut_in_protect() {
    for (mode, cut) in [(Mode::Monitor, 0), (Mode::Protect, 2)] {
        let rig = Rig::new(mode);
        let key = |port| FlowKey { client: ([10, 77, 1, 9], port).into(), ..inbound(CLIENT, 80) };
        let flows: Vec<_> = (1..=4)
            .map(|port| flow(&rig.telemetry, key(port), AppId::HTTP, u64::from(port == 1)))
            .collect();
        rig.metering.look_for_silence(unix_seconds());
        assert!(rig.threats().is_empty(), "too early");
        for later in [31, 33] {
            rig.metering.look_for_silence(unix_seconds() + later);
        }
        assert_eq!(rig.threats(), [(ThreatId::NO_CLIENT_DATA, cut > 0, 1)], "{mode:?}");
        let reasons: Vec<_> = flows.iter().filter_map(|flow| flow.cut_reason()).collect();
        assert_eq!(reasons, vec![CutReason::Threat; cut], "{mode:?}");
    }
}

#[test]
fn the_list_is_what_the_wire_asks_for() {
    let rig = Rig::new(Mode::Monitor);
    let pass = rig.metering.open(&inbound(CLIENT, 80), true).unwrap();
    rig.metering.packet(&ping(), Side::Client, true);
    let mut listed = rig.metering.list(POD_MAC);
    listed.sort_by_key(|meter| meter.meter_id.0);
    let rows: Vec<_> = listed
        .iter()
        .map(|meter| {
            (meter.meter_id, meter.count, meter.span, meter.upper_limit, meter.lower_limit)
        })
        .collect();
    assert_eq!(
        rows,
        [
            (MeterId::SYN_FLOOD, 1, 5, 5, 3),
            (MeterId::ICMP_FLOOD, 1, 1, 5, 5),
            (MeterId::SESSIONS_PER_SOURCE, 1, 1, 3, 3),
        ]
    );
    assert_eq!(listed[0].peer(), "10.77.1.9".parse::<IpAddr>().unwrap());
    assert_eq!((listed[0].epmac, listed[1].peer_ip), (POD_MAC, outrider_wire::WireIp::default()));
    assert!(listed[0].flags.contains(MeterFlags::TAP));
    rig.metering.tick();
    assert_eq!(rig.metering.totals().0, 3);
    drop(pass);
}
