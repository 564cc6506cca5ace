//! The promises of the whole room: each flow once, sums agree, bounds hold.

use outrider_model::{
    AppId, Decision, DecisionCause, Direction, IpProto, Mode, PolicyAction, RuleId, Severity, Side,
    ThreatId, Verdict,
};

use super::*;

fn key(client: &str, direction: Direction) -> FlowKey {
    let server = "10.0.0.2:6379".parse().unwrap();
    FlowKey { client: client.parse().unwrap(), server, proto: IpProto::TCP, direction }
}

fn telemetry() -> (Registry, Telemetry) {
    let registry = Registry::default();
    let telemetry = Telemetry::new(&registry).unwrap();
    (registry, telemetry)
}

fn learn() -> Decision {
    Decision { action: PolicyAction::Learn, rule: RuleId::IMPLICIT, cause: DecisionCause::Default }
}

fn deny() -> Decision {
    Decision { action: PolicyAction::Deny, ..learn() }
}

#[test]
fn reports_a_session_once_and_every_byte_once() {
    let (_registry, telemetry) = telemetry();
    let flow = telemetry.open(key("10.0.0.3:4000", Direction::Inbound), learn());
    flow.establish();
    flow.count(Side::Client, 100);
    telemetry.settle();
    assert!(telemetry.rows().lock().is_empty(), "not before identification");
    flow.identify(Identification::Known(AppId::REDIS));
    telemetry.settle();
    flow.count(Side::Server, 50);
    telemetry.settle();
    flow.count(Side::Server, 7);
    flow.finish(Outcome::Done);
    let rows = telemetry.rows().lock().take();
    assert_eq!(rows.len(), 1);
    let (row_key, row) = &rows[0];
    assert_eq!(row_key.app, AppId::REDIS);
    assert_eq!((row.sessions, row.bytes_client, row.bytes_server), (1, 100, 57));
    let totals = telemetry.totals();
    assert_eq!((totals.opened, totals.open, totals.bytes_client), (1, 0, 100));
}

#[test]
fn a_flow_that_says_nothing_is_announced_once_and_counted_with_its_application() {
    let (_registry, telemetry) = telemetry();
    let flow = telemetry.open(key("10.0.0.3:4000", Direction::Inbound), learn());
    flow.establish();
    let opened = unix_millis();
    let rows = |later: u64| {
        telemetry.settle_flow(&flow, opened + later, false);
        telemetry.rows().lock().take()
    };
    assert!(rows(0).is_empty(), "it may be about to say something");
    let announced = rows(600);
    assert!(announced[0].1.is_announcement() && announced[0].0.app == AppId::UNKNOWN);
    assert!(rows(2_000).is_empty());
    flow.identify(Identification::Known(AppId::REDIS));
    let told = rows(4_000);
    assert_eq!((told[0].0.app, told[0].1.sessions), (AppId::REDIS, 1));
    assert!(!told[0].1.is_announcement());
}

#[test]
fn a_dropped_task_reports_its_flow_as_cut() {
    let (registry, telemetry) = telemetry();
    let flow = telemetry.open(key("10.0.0.3:4000", Direction::Inbound), learn());
    flow.establish();
    flow.count(Side::Client, 9);
    drop(flow);
    let rows = telemetry.rows().lock().take();
    assert_eq!((rows[0].1.sessions, rows[0].1.bytes()), (1, 9));
    let text = telemetry.expose(&registry).unwrap();
    assert!(
        text.contains(r#"outrider_flows_closed_total{direction="inbound",outcome="cut"} 1"#),
        "{text}"
    );
    assert!(text.contains(r#"outrider_flows_open{direction="inbound"} 0"#), "{text}");
}

#[test]
fn a_flow_that_was_never_dialled_is_no_session() {
    let (_registry, telemetry) = telemetry();
    telemetry
        .open(key("10.0.0.3:4000", Direction::Outbound), learn())
        .finish(Outcome::DialFailed);
    assert!(telemetry.rows().lock().is_empty());
}

#[test]
fn a_refused_flow_is_a_violation_and_no_session() {
    let (registry, telemetry) = telemetry();
    let refused = key("10.0.0.9:4000", Direction::Inbound);
    for _ in 0..3 {
        telemetry.refuse(&refused, Refusal::Policy, Some(deny()));
    }
    telemetry.refuse(&refused, Refusal::OwnPort, None);
    let rows = telemetry.rows().lock().take();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].0.app, AppId::NOT_CHECKED);
    assert_eq!((rows[0].1.sessions, rows[0].1.violations), (0, 3));
    let text = telemetry.expose(&registry).unwrap();
    assert!(text.contains(r#"reason="own-port"} 1"#) && text.contains(r#"reason="policy"} 3"#));
}

#[test]
fn a_changed_decision_is_reported_as_one_violation() {
    let (_registry, telemetry) = telemetry();
    let flow = telemetry.open(key("10.0.0.3:4000", Direction::Inbound), learn());
    flow.establish();
    flow.identify(Identification::Unidentified);
    telemetry.settle();
    flow.decide(deny(), Mode::Monitor);
    telemetry.settle();
    telemetry.settle();
    flow.finish(Outcome::Done);
    let violations: u32 = telemetry
        .rows()
        .lock()
        .take()
        .iter()
        .map(|(_, row)| row.violations)
        .sum();
    assert_eq!(violations, 1);
}

#[tokio::test]
async fn a_cut_reaches_the_flow_whenever_it_looks() {
    let (_registry, telemetry) = telemetry();
    let flow = telemetry.open(key("10.0.0.3:4000", Direction::Inbound), learn());
    telemetry
        .flows()
        .for_each(|flow| flow.cut(CutReason::Policy));
    telemetry
        .flows()
        .for_each(|flow| flow.cut(CutReason::Clear));
    assert_eq!(flow.wait_cut().await, CutReason::Policy);
    assert_eq!(flow.wait_cut().await, CutReason::Policy);
}

#[tokio::test]
async fn a_signal_wakes_the_task_that_waits_for_it() {
    let (_registry, telemetry) = telemetry();
    let flow = telemetry.open(key("10.0.0.3:4000", Direction::Inbound), learn());
    let state = std::sync::Arc::clone(flow.state());
    let cut = async { state.wait_cut().await };
    let signal = async {
        assert!(!flow.take_nudge());
        flow.nudge();
        flow.cut(CutReason::Clear);
    };
    let (reason, ()) = tokio::join!(cut, signal);
    assert_eq!(reason, CutReason::Clear);
    assert!(flow.take_nudge());
    assert!(!flow.take_nudge(), "a nudge is taken once");
}

#[test]
fn a_full_row_table_keeps_what_matters_and_counts_what_it_drops() {
    let mut table = RowTable::default();
    let open = Decision::default();
    let row = |decision| Row::refused(&key("10.0.0.3:1", Direction::Inbound), decision, 1);
    for port in 0..=u16::MAX {
        let mut row_key = RowKey::refused(&key("10.0.0.3:1", Direction::Inbound), RuleId(1));
        row_key.port = port;
        let kept = table.merge(row_key, row(open));
        assert_eq!(kept, usize::from(port) < MAX_ROWS);
    }
    let mut accusing = RowKey::refused(&key("10.0.0.4:1", Direction::Inbound), RuleId(2));
    for port in 0..=u16::MAX {
        accusing.port = port;
        let _kept = table.merge(accusing, row(deny()));
    }
    assert_eq!(table.len(), HARD_MAX_ROWS);
    let (accepted, dropped) = table.limits();
    assert_eq!(accepted + dropped, 2 * 65_536);
}

fn threat(message: &str) -> ThreatReport {
    ThreatReport {
        id: ThreatId::SMUGGLING,
        direction: Direction::Inbound,
        side: Side::Client,
        client: "10.0.0.3:4000".parse().unwrap(),
        server: "10.0.0.2:80".parse().unwrap(),
        proto: IpProto::TCP,
        app: AppId::HTTP,
        enforced: false,
        stopped: false,
        message: message.to_owned(),
        evidence: vec![b'x'; 4096],
        is_packet: false,
        length: 4096,
        count: 1,
        reported_at: 0,
    }
}

#[test]
fn repeated_threats_are_counted_and_logged_with_their_count() {
    let mut table = ThreatTable::default();
    assert!(table.enter(threat("first"), 100));
    assert!(table.enter(threat("second"), 101));
    assert!(table.enter(threat("third"), 104));
    let (now, _) = table.take(104);
    assert_eq!(now.iter().map(|log| log.count).collect::<Vec<_>>(), [1]);
    assert_eq!(now[0].evidence.len(), MAX_EVIDENCE);
    let (later, _) = table.take(109);
    assert_eq!((later[0].count, later[0].message.as_str()), (2, "third"));
    assert!(table.take(200).0.is_empty());
}

#[test]
fn a_steady_threat_is_logged_every_ten_seconds_and_no_hit_is_lost() {
    let mut table = ThreatTable::default();
    let mut counted = 0;
    for now in 0..100 {
        assert!(table.enter(threat("again"), now));
        counted += table.take(now).0.iter().map(|log| log.count).sum::<u32>();
    }
    counted += table.take(200).0.iter().map(|log| log.count).sum::<u32>();
    assert_eq!(counted, 100);
}

#[test]
fn pending_threats_are_bounded() {
    let mut table = ThreatTable::default();
    let mut kept = 0;
    for round in 0..2000 {
        kept += u32::from(table.enter(threat("flood"), round * 20));
    }
    assert_eq!(kept as usize, MAX_PENDING_THREATS);
}

#[test]
fn messages_are_cut_at_characters() {
    let mut table = ThreatTable::default();
    assert!(table.enter(threat(&"ä".repeat(100)), 1));
    assert_eq!(table.take(1).0[0].message.chars().count(), MAX_MESSAGE);
}

#[test]
fn listed_ports_go_with_the_list_and_learned_ones_stay() {
    let mut apps = AppTable::default();
    apps.list([((IpProto::TCP, 80), AppPort::default()), ((IpProto::TCP, 81), AppPort::default())]);
    apps.learn(IpProto::TCP, 6379, AppId::REDIS);
    apps.learn_server(IpProto::TCP, 80, AppId::NGINX);
    assert!(apps.take_changed() && !apps.take_changed());
    apps.list([((IpProto::TCP, 80), AppPort::default())]);
    let ports: Vec<_> = apps
        .iter()
        .map(|((_, port), app)| (port, app.server, app.app))
        .collect();
    assert_eq!(ports, [(80, AppId::NGINX, AppId::UNKNOWN), (6379, AppId::UNKNOWN, AppId::REDIS)]);
}

#[test]
fn the_application_table_is_bounded() {
    let mut apps = AppTable::default();
    (0..2000).for_each(|port| apps.learn(IpProto::TCP, port, AppId::HTTP));
    assert_eq!(apps.iter().count(), MAX_APP_PORTS);
    assert_eq!(apps.refused(), 2000 - MAX_APP_PORTS as u64);
}

#[test]
fn slots_add_up_and_survive_clock_jumps() {
    let mut stats = Stats::new(1000);
    stats.session_opened(Direction::Inbound);
    stats.add(Direction::Inbound, [1, 2], [10, 20]);
    stats.add(Direction::Outbound, [1, 0], [5, 0]);
    stats.roll(1005);
    let now = stats.snapshot();
    assert_eq!(now.last.bytes, [10, 25]);
    assert_eq!(now.total.bytes, [10, 25]);
    stats.roll(900);
    stats.roll(1_000_000_000);
    let later = stats.snapshot();
    assert_eq!((later.five_minutes.bytes, later.total.bytes), ([0, 0], [10, 25]));
    assert_eq!(later.current, [1, 0]);
}

#[test]
fn the_worst_threat_stays_with_the_flow() {
    let (_registry, telemetry) = telemetry();
    let flow = telemetry.open(key("10.0.0.3:4000", Direction::Inbound), learn());
    flow.raise(ThreatId::SMUGGLING);
    flow.raise(ThreatId::MYSQL_DENIED);
    assert_eq!(flow.threat(), (ThreatId::SMUGGLING, Severity::High));
}

#[test]
fn flows_are_counted_by_protocol() {
    let (_registry, telemetry) = telemetry();
    let protos = [IpProto::TCP, IpProto::UDP, IpProto::ICMP, IpProto::ICMPV6, IpProto::SCTP];
    let flows: Vec<_> = protos
        .into_iter()
        .map(|proto| {
            let key = FlowKey { proto, ..key("10.0.0.3:8", Direction::Inbound) };
            telemetry.open_with(key, Grip::Seen, learn())
        })
        .collect();
    let each = ByProto { tcp: 1, udp: 1, icmp: 2, other: 1 };
    assert_eq!((telemetry.flows().by_proto(), each.total()), (each, 5));
    drop(flows);
    assert_eq!(telemetry.flows().by_proto(), ByProto::default());
    assert_eq!(telemetry.flows().opened_by_proto(), each);
}

#[test]
fn only_what_can_be_stopped_is_denied() {
    for (grip, action, verdict) in [
        (Grip::Held, PolicyAction::Deny, Verdict::Deny),
        (Grip::Gated, PolicyAction::Deny, Verdict::Deny),
        (Grip::Seen, PolicyAction::Violate, Verdict::Alert),
    ] {
        let (_registry, telemetry) = telemetry();
        let key = FlowKey { proto: IpProto::UDP, ..key("10.0.0.3:8", Direction::Inbound) };
        let flow = telemetry.open_with(key, grip, learn());
        flow.decide(deny(), Mode::Protect);
        assert_eq!((flow.decision().action, flow.verdict()), (action, verdict), "{grip:?}");
        flow.count_packets(Side::Client, 30, 3);
        assert_eq!((flow.bytes(), flow.chunks(), flow.wings()), ([30, 0], [3, 0], [0, 0]));
    }
}
