use outrider_telemetry::Registry;
use outrider_wire::{ActionCode, SessionList, limits::MAX_SESSIONS};

use super::*;
use crate::testing::{POD_MAC, flow, inbound};

fn telemetry() -> Telemetry {
    Telemetry::new(&Registry::default()).unwrap()
}

fn scope(network: &Network, mode: Mode) -> Scope<'_> {
    Scope { epmac: POD_MAC, network, mode }
}

#[test]
fn a_live_flow_is_a_session() {
    let telemetry = telemetry();
    let _flow = flow(&telemetry, inbound("10.0.0.9:4000", 6379), AppId::REDIS, 30);
    let network = Network::default();
    let (sessions, left_out) = sessions(&telemetry, scope(&network, Mode::Discover), MAX_LISTED);
    let [session] = sessions[..] else { panic!("{sessions:?}") };
    assert_eq!(left_out, 0);
    assert_eq!((session.client_port, session.server_port), (4000, 6379));
    assert_eq!((session.client_mac, session.server_mac), (MacAddr::default(), POD_MAC));
    assert_eq!((session.client.bytes, session.client.packets), (30, 1));
    assert_eq!(session.client.state, SessionState::ESTABLISHED);
    assert_eq!((session.application, session.policy_action), (AppId::REDIS, ActionCode(1)));
    assert_eq!((session.life, session.xff_app, session.xff_port), (1200, AppId(0), 0));
    let flags = SessionFlags::INGRESS
        .with(SessionFlags::TAP, true)
        .with(SessionFlags::TMP_OPEN, true);
    assert_eq!(session.flags, flags);
}

#[test]
fn an_enforcing_workload_has_no_tap_flag() {
    let telemetry = telemetry();
    let _flow = flow(&telemetry, inbound("10.0.0.9:4000", 80), AppId::HTTP, 1);
    let network = Network::default();
    let (sessions, _) = sessions(&telemetry, scope(&network, Mode::Protect), MAX_LISTED);
    assert!(!sessions[0].flags.contains(SessionFlags::TAP));
}

#[test]
fn a_list_of_many_sessions_is_full_datagrams_and_an_empty_one() {
    let telemetry = telemetry();
    let flows: Vec<_> = (0..u16::try_from(2 * MAX_SESSIONS + 1).unwrap())
        .map(|n| flow(&telemetry, inbound("10.0.0.9:4000", n + 1), AppId::HTTP, 1))
        .collect();
    let network = Network::default();
    let (sessions, _) = sessions(&telemetry, scope(&network, Mode::Discover), MAX_LISTED);
    let (some, left_out) = super::sessions(&telemetry, scope(&network, Mode::Discover), 100);
    assert_eq!((some.len(), left_out), (100, 17));
    let lists: Vec<_> = SessionList::split(&sessions).collect();
    let sizes: Vec<_> = lists
        .iter()
        .map(|list| (list.more, list.sessions.len()))
        .collect();
    assert_eq!(sizes, [(true, 58), (true, 58), (true, 1), (false, 0)]);
    assert!(sessions.is_sorted_by_key(|session| session.id));
    assert_eq!(session_count(&telemetry).tcp, 117);
    drop(flows);
    assert_eq!(session_count(&telemetry).total, 0);
}

#[test]
fn counters_and_statistics_add_up() {
    let telemetry = telemetry();
    drop(flow(&telemetry, inbound("10.0.0.9:4000", 80), AppId::HTTP, 30));
    let _live = flow(&telemetry, inbound("10.0.0.9:4001", 80), AppId::HTTP, 12);
    telemetry
        .metrics()
        .identified(Direction::Inbound, AppId::HTTP)
        .inc();
    telemetry.settle();
    let counter = device_counter(&telemetry, &Totals::default(), &Network::default(), (3, 4));
    assert_eq!((counter.total_sessions, counter.tcp_sessions, counter.tcp_packets), (2, 2, 2));
    assert_eq!((counter.policy_type1_rules, counter.policy_type2_rules), (3, 4));
    assert_eq!(counter.parser_sessions[0], 1);
    let stats = stats(&telemetry.stats().lock().snapshot());
    assert_eq!((stats.interval, stats.session_cur_in), (5, 1));
    assert_eq!((stats.total.session_in, stats.total.byte_in, stats.total.byte_out), (2, 42, 0));
}
