//! What is decided, by example.

use super::*;
use crate::{AddrSpec, AppRule, MAX_APPS, MAX_NAMES, MAX_RULES, Name, RuleSpec};

const OWN: [&str; 2] = ["10.0.0.9", "fd00::9"];
const PEER: [&str; 2] = ["10.0.0.2", "fd00::2"];
const FAR: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn rule(id: u32, peer: AddrSpec, port: u16, action: PolicyAction) -> RuleSpec {
    RuleSpec {
        id: RuleId(id),
        client: peer,
        server: AddrSpec::Any,
        ports: (port, port),
        proto: Some(IpProto::TCP),
        action,
        direction: Direction::Inbound,
        fqdn: None,
        vhost: false,
        apps: Vec::new(),
    }
}

fn outbound(rule: RuleSpec) -> RuleSpec {
    RuleSpec { client: rule.server, server: rule.client, direction: Direction::Outbound, ..rule }
}

fn spec(rules: Vec<RuleSpec>) -> PolicySpec {
    PolicySpec {
        default_action: PolicyAction::Deny,
        inbound: true,
        outbound: true,
        rules,
        grace: false,
    }
}

fn network() -> Network {
    Network {
        internal: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
        ..Network::default()
    }
}

fn compile(rules: Vec<RuleSpec>) -> Snapshot {
    Snapshot::compile(Some(&spec(rules)), &network()).unwrap()
}

fn query(client: &str, server: &str, port: u16, app: AppKnowledge) -> Query<'static> {
    let is_own = OWN.contains(&server);
    Query {
        client: ip(client),
        server: ip(server),
        port,
        proto: IpProto::TCP,
        direction: if is_own { Direction::Inbound } else { Direction::Outbound },
        app,
        host: None,
        mode: Mode::Protect,
    }
}

fn said(snapshot: &Snapshot, query: &Query<'_>) -> (PolicyAction, u32) {
    let decision = snapshot.decide(query);
    (decision.action, decision.rule.0)
}

use AppKnowledge::{Known, Pending, Unidentified};
use PolicyAction::{Allow, CheckApp, CheckBoundary, CheckVhost, Deny, Open, Violate};

#[test]
fn without_policy_everything_is_open() {
    let snapshot = Snapshot::compile(None, &network()).unwrap();
    let decision = snapshot.decide(&query(PEER[0], OWN[0], 80, Pending));
    assert_eq!(decision, Decision::default());
    let disabled = Network { disabled: true, ..network() };
    let snapshot = Snapshot::compile(Some(&spec(Vec::new())), &disabled).unwrap();
    assert_eq!(snapshot.decide(&query(PEER[0], OWN[0], 80, Pending)), Decision::default());
}

#[test]
fn an_application_rule_waits_and_then_decides_or_passes_on() {
    let entry = |app, action, id| AppRule { app, action, rule: RuleId(id) };
    for family in 0..2 {
        let asks = RuleSpec {
            apps: vec![entry(AppId::REDIS, Allow, 7), entry(AppId::UNIDENTIFIED, Violate, 8)],
            ..rule(5, AddrSpec::one(ip(PEER[family])), 6379, CheckApp)
        };
        let later = rule(6, AddrSpec::Any, 6379, Allow);
        let snapshot = compile(vec![asks.clone(), later]);
        let flow = |app| query(PEER[family], OWN[family], 6379, app);
        assert_eq!(said(&snapshot, &flow(Pending)), (CheckApp, 5));
        assert_eq!(said(&snapshot, &flow(Known(AppId::REDIS))), (Allow, 7));
        assert_eq!(said(&snapshot, &flow(Known(AppId::HTTP))), (Allow, 6));
        assert_eq!(said(&snapshot, &flow(Unidentified)), (Violate, 8));
        assert!(!snapshot.may_deny(&flow(Pending)));
        assert_eq!(said(&compile(vec![asks.clone()]), &flow(Known(AppId::HTTP))), (Deny, 0));
        assert!(compile(vec![asks]).may_deny(&flow(Pending)));
    }
}

#[test]
fn external_means_outside_the_internal_subnets() {
    let snapshot = compile(vec![
        rule(1, AddrSpec::External, 443, Allow),
        outbound(rule(2, AddrSpec::External, 443, Allow)),
    ]);
    for family in 0..2 {
        let inbound = |client| said(&snapshot, &query(client, OWN[family], 443, Pending));
        assert_eq!(inbound(FAR[family]), (Allow, 1));
        assert_eq!(inbound(PEER[family]), (Deny, 0));
        let outbound = |server| said(&snapshot, &query(OWN[family], server, 443, Pending));
        assert_eq!(outbound(FAR[family]), (Allow, 2));
        assert_eq!(outbound(PEER[family]), (Deny, 0));
    }
}

#[test]
fn an_address_mapped_into_v6_is_the_v4_address() {
    let snapshot = compile(vec![rule(1, AddrSpec::one(ip("::ffff:10.0.0.2")), 80, Allow)]);
    assert_eq!(said(&snapshot, &query(PEER[0], OWN[0], 80, Pending)), (Allow, 1));
    let mapped = Query { server: ip("::ffff:10.0.0.9"), ..query(PEER[0], OWN[0], 80, Pending) };
    assert_eq!(said(&snapshot, &mapped), (Allow, 1));
}

#[test]
fn a_virtual_host_needs_address_and_name() {
    let name = Name::new("*.example.com").unwrap();
    let by_name = RuleSpec {
        fqdn: Some(name),
        vhost: true,
        ..outbound(rule(3, AddrSpec::External, 443, Allow))
    };
    let mut network = network();
    network
        .names
        .add(&Name::new("api.example.com").unwrap(), ip(FAR[1]))
        .unwrap();
    let snapshot = Snapshot::compile(Some(&spec(vec![by_name])), &network).unwrap();
    let flow = |app, host| Query { host, ..query(OWN[1], FAR[1], 443, app) };
    assert_eq!(said(&snapshot, &flow(Pending, None)), (CheckVhost, 3));
    assert!(snapshot.may_deny(&flow(Pending, None)));
    assert_eq!(said(&snapshot, &flow(Known(AppId::SSL), Some("API.example.com"))), (Allow, 3));
    assert_eq!(said(&snapshot, &flow(Known(AppId::SSL), Some("evil.org"))), (Deny, 0));
    assert_eq!(said(&snapshot, &flow(Unidentified, None)), (Deny, 0));
    let elsewhere = Query { host: Some("api.example.com"), ..query(OWN[0], FAR[0], 443, Pending) };
    assert_eq!(said(&snapshot, &elsewhere), (Deny, 0), "the name alone is not enough");
}

#[test]
fn a_boundary_turns_what_would_pass_into_a_violation() {
    let rules = vec![rule(4, AddrSpec::Any, 80, CheckBoundary)];
    let flow = query(PEER[0], OWN[0], 80, Pending);
    assert_eq!(said(&compile(rules.clone()), &flow), (Allow, 4));
    let network = Network { boundary: true, ..network() };
    let snapshot = Snapshot::compile(Some(&spec(rules)), &network).unwrap();
    assert_eq!(said(&snapshot, &flow), (Deny, 0));
    assert_eq!(said(&snapshot, &Query { mode: Mode::Monitor, ..flow }), (Violate, 0));
    assert_eq!(snapshot.decide(&flow).cause, DecisionCause::Boundary);
}

#[test]
fn judges_one_direction_only_where_told_so() {
    let spec = PolicySpec { outbound: false, ..spec(Vec::new()) };
    let snapshot = Snapshot::compile(Some(&spec), &network()).unwrap();
    let flow = query(OWN[0], PEER[0], 80, Pending);
    assert_eq!(snapshot.decide(&flow).cause, DecisionCause::OtherEnd);
    assert_eq!(said(&snapshot, &query(OWN[0], FAR[0], 80, Pending)), (Deny, 0));
    let strict = Network { strict: true, ..network() };
    let snapshot = Snapshot::compile(Some(&spec), &strict).unwrap();
    assert_eq!(said(&snapshot, &flow), (Deny, 0));
    assert_eq!(said(&snapshot, &Query { mode: Mode::Monitor, ..flow }), (Open, 0));
}

#[test]
fn counts_exact_and_range_rules() {
    let exact = RuleSpec {
        server: AddrSpec::one(ip(OWN[0])),
        ..rule(1, AddrSpec::one(ip(PEER[0])), 80, Allow)
    };
    let snapshot = compile(vec![exact.clone(), exact, rule(2, AddrSpec::Any, 80, Allow)]);
    assert_eq!(snapshot.rule_counts(), (2, 1));
}

#[test]
fn refuses_a_policy_with_one_mistake_whole() {
    let good = rule(1, AddrSpec::one(ip(PEER[0])), 80, Allow);
    let range = |low, high| AddrSpec::Range(ip(low), ip(high));
    let name = Some(Name::new("a.example").unwrap());
    let pending = AppRule { app: AppId::HTTP, action: CheckApp, rule: RuleId(1) };
    let bad = [
        ("address-range", RuleSpec { client: range("10.0.0.2", "10.0.0.1"), ..good.clone() }),
        ("address-range", RuleSpec { client: range("10.0.0.2", "fd00::1"), ..good.clone() }),
        ("mixed-families", RuleSpec { server: AddrSpec::one(ip(OWN[1])), ..good.clone() }),
        ("port-range", RuleSpec { ports: (2, 1), ..good.clone() }),
        ("external-workload", RuleSpec { server: AddrSpec::External, ..good.clone() }),
        (
            "name-and-range",
            RuleSpec { fqdn: name, client: range("10.0.0.1", "10.0.0.2"), ..good.clone() },
        ),
        ("action", RuleSpec { action: CheckVhost, ..good.clone() }),
        ("action", RuleSpec { action: CheckApp, apps: vec![pending], ..good.clone() }),
        (
            "too-many-apps",
            RuleSpec { action: CheckApp, apps: vec![pending; MAX_APPS + 1], ..good.clone() },
        ),
    ];
    for (reason, bad) in bad {
        let refused = Snapshot::compile(Some(&spec(vec![good.clone(), bad])), &network());
        assert_eq!(refused.unwrap_err().reason(), reason);
    }
    let undecided = PolicySpec { default_action: CheckApp, ..spec(vec![good]) };
    assert_eq!(
        Snapshot::compile(Some(&undecided), &network())
            .unwrap_err()
            .reason(),
        "action"
    );
}

#[test]
fn refuses_more_rules_or_names_than_it_may_hold() {
    let one = rule(1, AddrSpec::Any, 80, Allow);
    let refused = Snapshot::compile(Some(&spec(vec![one.clone(); MAX_RULES + 1])), &network());
    assert_eq!(refused.unwrap_err(), PolicyError::TooManyRules(MAX_RULES + 1));
    let named = |at| {
        let fqdn = Some(Name::new(&format!("n{at}.example")).unwrap());
        RuleSpec { fqdn, client: AddrSpec::Any, ..one.clone() }
    };
    assert!(
        Snapshot::compile(Some(&spec((0..MAX_NAMES).map(named).collect())), &network()).is_ok()
    );
    let refused = Snapshot::compile(Some(&spec((0..=MAX_NAMES).map(named).collect())), &network());
    assert_eq!(refused.unwrap_err(), PolicyError::TooManyNames);
}

#[test]
fn what_is_neither_tcp_nor_udp_is_judged_where_that_is_asked_for() {
    let gre = IpProto(47);
    let known = RuleSpec { proto: Some(gre), ..rule(7, AddrSpec::one(ip("10.0.0.1")), 0, Allow) };
    let any = RuleSpec { proto: None, ..rule(8, AddrSpec::one(ip("10.0.0.2")), 0, Allow) };
    let asked = |client: &str, proto| Query { proto, ..query(client, OWN[0], 0, Unidentified) };
    let cases = [
        (false, false, [(Open, 0), (Allow, 0), (Open, 0), (Allow, 7)]),
        (true, false, [(Open, 0), (Deny, 0), (Open, 0), (Allow, 7)]),
        (false, true, [(Deny, 0), (Deny, 0), (Allow, 8), (Allow, 7)]),
    ];
    for (icmp_policy, ip_policy, want) in cases {
        let network = Network { icmp_policy, ip_policy, ..network() };
        let rules = spec(vec![known.clone(), any.clone()]);
        let snapshot = Snapshot::compile(Some(&rules), &network).unwrap();
        let found = [
            said(&snapshot, &asked("10.0.0.9", gre)),
            said(&snapshot, &asked("10.0.0.9", IpProto::ICMP)),
            said(&snapshot, &asked("10.0.0.2", gre)),
            said(&snapshot, &asked("10.0.0.1", gre)),
        ];
        assert_eq!(found, want, "icmp {icmp_policy}, all {ip_policy}");
    }
}
