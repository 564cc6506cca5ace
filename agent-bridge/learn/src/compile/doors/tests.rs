//! What a client's proxy is told about Services' addresses.

use outrider_model::{Mode, Verdict};
use outrider_policy::{AppKnowledge, Network, Query, Snapshot};
use proptest::prelude::*;

use super::*;
use crate::{
    Backends, ClusterChange, Ends, Learner, PolicyRule, SetChange,
    services::tests::{enter, manual, service},
    world::{group, inbound, ip, set_mode, world},
};

const AT: &str = "10.96.0.9";
const ALLOW: u32 = 200_001;
const OTHER: u32 = 200_002;

fn rule(id: u32, to: &str) -> PolicyRule {
    PolicyRule {
        id: RuleId(id),
        order: u64::from(id),
        from: group("shop"),
        to: Group::named(to),
        ends: Ends::Client,
        ports: vec![Ports { proto: Some(IpProto::TCP), low: 8080, high: 8080 }],
        apps: Vec::new(),
        deny: false,
        learned: false,
        origin: "NetworkRule/default/it/rule".into(),
    }
}

/// shop is in Protect and knows Service default/web; 10.96.0.0/24 is inside.
fn shop(service: Service, rules: impl IntoIterator<Item = PolicyRule>) -> Learner {
    let mut learner = world();
    let nets = ["10.0.0.0/24", "10.96.0.0/24", "fd00::/64", "fd00:96::/64"];
    learner
        .directory_mut()
        .set_internal(nets.map(|net| net.parse().unwrap()).to_vec());
    set_mode(&mut learner, "shop", Mode::Protect);
    enter(&mut learner, service);
    for rule in rules {
        learner.cluster(ClusterChange::Rule(rule)).unwrap();
    }
    learner.compile_changed();
    learner
}

fn networks(learner: &mut Learner, name: &str, networks: &[&str]) {
    let networks = networks.iter().map(|net| net.parse().unwrap()).collect();
    let set = SetChange { networks, ..SetChange::whole(name) };
    learner.cluster(ClusterChange::Set(set)).unwrap();
    learner.compile_changed();
}

/// The verdict for shop, and whose it is.
fn sent(learner: &Learner, to: &str, port: u16, app: AppKnowledge) -> (Verdict, u32) {
    let policy = learner.policy("uid-shop").unwrap();
    let internal = learner.directory().internal().to_vec();
    let network = Network { internal, ..Network::default() };
    let server = ip(to);
    let query = Query {
        client: ip(if server.is_ipv4() { "10.0.0.3" } else { "fd00::3" }),
        server,
        port,
        proto: IpProto::TCP,
        direction: Direction::Outbound,
        app,
        host: None,
        mode: policy.mode,
    };
    let snapshot = Snapshot::compile(Some(&policy.spec), &network).unwrap();
    let decision = snapshot.decide(&query);
    (decision.verdict(policy.mode), decision.rule.0)
}

fn http(learner: &Learner, to: &str, port: u16) -> (Verdict, u32) {
    sent(learner, to, port, AppKnowledge::Known(AppId::HTTP))
}

#[test]
fn a_rule_to_a_service_holds_for_the_address_in_front_of_it() {
    let learner = shop(service(&["web"]), [rule(ALLOW, "nv.web.default")]);
    for at in [AT, "fd00:96::9"] {
        assert_eq!(http(&learner, at, 80), (Verdict::Allow, ALLOW), "{at}");
        assert_eq!(http(&learner, at, 8080).0, Verdict::Deny, "that is no port of it: {at}");
    }
    assert_eq!(http(&learner, "10.0.0.4", 8080), (Verdict::Allow, ALLOW), "directly too");
    assert_eq!(http(&learner, "10.0.0.4", 80).0, Verdict::Deny);
    let other = shop(service(&["web"]), [rule(ALLOW, "nv.cache.default")]);
    assert_eq!(http(&other, AT, 80), (Verdict::Deny, 0));
}

#[test]
fn what_was_learned_holds_for_it_with_its_applications() {
    let mut learner = shop(service(&["web"]), []);
    set_mode(&mut learner, "web", Mode::Discover);
    for _ in 0..4 {
        learner.observe(&inbound("web", "10.0.0.3", 8080, AppId::HTTP));
    }
    learner.compile_changed();
    let id = learner.rules().next().unwrap().id.0;
    assert_eq!(http(&learner, AT, 80), (Verdict::Allow, id));
    let redis = sent(&learner, AT, 80, AppKnowledge::Known(AppId::REDIS));
    assert_eq!(redis, (Verdict::Deny, 0));
    let mut discover = learner;
    set_mode(&mut discover, "shop", Mode::Discover);
    discover.compile_changed();
    assert_eq!(http(&discover, AT, 80), (Verdict::Allow, id));
}

#[test]
fn of_several_groups_all_must_be_allowed_and_one_denied_is_enough() {
    let both = || service(&["web", "cache"]);
    let (web, cache) = (rule(ALLOW, "nv.web.default"), rule(OTHER, "nv.cache.default"));
    let learner = shop(both(), [web.clone()]);
    assert_eq!(http(&learner, AT, 80), (Verdict::Deny, 0));
    let learner = shop(both(), [web.clone(), cache.clone()]);
    assert_eq!(http(&learner, AT, 80), (Verdict::Allow, OTHER), "the one that made it whole");
    let deny = PolicyRule { deny: true, ..cache.clone() };
    let learner = shop(both(), [web.clone(), deny.clone()]);
    assert_eq!(http(&learner, AT, 80), (Verdict::Deny, OTHER));
    // Only what was allowed before it was denied stays allowed.
    let first = PolicyRule { order: 1, ..cache };
    let learner = shop(both(), [PolicyRule { id: RuleId(200_003), ..first }, web, deny]);
    assert_eq!(http(&learner, AT, 80), (Verdict::Allow, ALLOW));
}

#[test]
fn different_rules_may_allow_the_same_application_to_each() {
    let of = |id, to, apps| PolicyRule { apps, ..rule(id, to) };
    let learner = shop(
        service(&["web", "cache"]),
        [
            of(ALLOW, "nv.web.default", vec![AppId::HTTP, AppId::REDIS]),
            of(OTHER, "nv.cache.default", vec![AppId::HTTP, AppId::SSL]),
        ],
    );
    assert_eq!(http(&learner, AT, 80), (Verdict::Allow, OTHER));
    for app in [AppId::REDIS, AppId::SSL] {
        let (verdict, _) = sent(&learner, AT, 80, AppKnowledge::Known(app));
        assert_eq!(verdict, Verdict::Deny, "{app}");
    }
}

/// A namespace's owner lets a Service of his lead elsewhere.
#[test]
fn a_service_opens_no_way_to_what_its_clients_may_not_reach() {
    let external = PolicyRule { ports: Vec::new(), ..rule(ALLOW, "external") };
    let services = rule(OTHER, "services");
    // By hand to a pod, to a node's address, to an address outside that is denied.
    let foreign = ["10.0.0.2", "10.0.0.1"];
    for behind in foreign {
        let mut learner = shop(manual(behind), [external.clone(), services.clone()]);
        // Not even where a rule means the Service's own address.
        networks(&mut learner, "services", &["10.96.0.0/16"]);
        assert_eq!(http(&learner, AT, 80).0, Verdict::Deny, "{behind}");
        assert_eq!(http(&learner, AT, 81).0, Verdict::Deny, "{behind}");
    }
    let deny = PolicyRule { deny: true, order: 1, ports: Vec::new(), ..rule(OTHER, "bad") };
    let mut learner = shop(manual("169.254.169.254"), [external.clone(), deny]);
    networks(&mut learner, "bad", &["169.254.169.254/32"]);
    assert_eq!(http(&learner, AT, 80), (Verdict::Deny, OTHER));
    // What may be sent there anyway, may be sent through it.
    let learner = shop(manual("192.0.2.66"), [external]);
    assert_eq!(http(&learner, AT, 80), (Verdict::Allow, ALLOW));
    // The selector moves to other pods, or a slice is added to those that are there.
    let mut learner = shop(service(&["web"]), [rule(ALLOW, "nv.web.default")]);
    assert_eq!(http(&learner, AT, 80).0, Verdict::Allow);
    enter(&mut learner, service(&["intruder"]));
    learner.compile_changed();
    assert_eq!(http(&learner, AT, 80).0, Verdict::Deny);
    let mut added = service(&["web"]);
    added.backends.extend(manual("10.0.0.2").backends);
    enter(&mut learner, added);
    learner.compile_changed();
    assert_eq!(http(&learner, AT, 80).0, Verdict::Deny);
    // A pod that he names in the slice is not who has the address.
    let mut lie = service(&["web"]);
    lie.backends[0].group = None;
    lie.backends[0].members = vec![(ip("10.0.0.2"), Some("uid-web".into()))];
    enter(&mut learner, lie);
    learner.compile_changed();
    assert_eq!(http(&learner, AT, 80).0, Verdict::Deny);
}

#[test]
fn a_chosen_address_opens_nothing_and_is_not_hijacked() {
    let borrowed =
        |at: &str, groups: &[&str]| Service { borrowed: vec![ip(at)], ..service(groups) };
    let web = rule(ALLOW, "nv.web.default");
    let far = PolicyRule { ports: Vec::new(), ..rule(OTHER, "far") };
    // His own pods may be reached, the address may not.
    let learner = shop(borrowed("192.0.2.7", &["web"]), [web.clone()]);
    assert_eq!(http(&learner, "192.0.2.7", 80).0, Verdict::Deny);
    // The address may be reached, his pods may not.
    let mut learner = shop(borrowed("192.0.2.7", &["intruder"]), [web.clone(), far.clone()]);
    networks(&mut learner, "far", &["192.0.2.0/24"]);
    assert_eq!(http(&learner, "192.0.2.7", 80).0, Verdict::Deny);
    assert_eq!(http(&learner, "192.0.2.7", 443), (Verdict::Allow, OTHER), "no port of it");
    assert_eq!(http(&learner, "192.0.2.8", 80), (Verdict::Allow, OTHER));
    // Both may.
    let mut learner = shop(borrowed("192.0.2.7", &["web"]), [web.clone(), far]);
    networks(&mut learner, "far", &["192.0.2.0/24"]);
    assert_eq!(http(&learner, "192.0.2.7", 80).0, Verdict::Allow);
    // Two Services that have the same address: what is behind either.
    let mut second = borrowed("192.0.2.7", &["intruder"]);
    (second.name, second.addresses) = ("other/web".into(), vec![ip("10.96.0.10")]);
    enter(&mut learner, second);
    learner.compile_changed();
    assert_eq!(http(&learner, "192.0.2.7", 80).0, Verdict::Deny);
    assert_eq!(http(&learner, AT, 80).0, Verdict::Allow);
}

#[test]
fn of_what_is_not_known_whole_nothing_is_open() {
    let any = || {
        let set = SetChange { any: true, ..SetChange::whole("any") };
        ClusterChange::Set(set)
    };
    let all = PolicyRule { ports: Vec::new(), ..rule(ALLOW, "any") };
    let partial = Service { partial: true, ..service(&["web"]) };
    for (known, verdict) in [
        (partial, Verdict::Deny),
        (service(&["web"]), Verdict::Allow),
        (service(&[]), Verdict::Deny),
    ] {
        let mut learner = shop(known, [all.clone()]);
        learner.cluster(any()).unwrap();
        learner.compile_changed();
        assert_eq!(http(&learner, AT, 80).0, verdict);
    }
    // Not by a rule about its address and one port either.
    let one = Ports { proto: Some(IpProto::TCP), low: 443, high: 443 };
    let near = PolicyRule { ports: vec![one], ..rule(ALLOW, "near") };
    let partial = Service { partial: true, ..service(&["web"]) };
    let mut learner = shop(partial, [near]);
    networks(&mut learner, "near", &["10.96.0.0/16"]);
    assert_eq!(http(&learner, AT, 443), (Verdict::Deny, 0));
    assert_eq!(http(&learner, "10.96.0.10", 443), (Verdict::Allow, ALLOW));
}

#[test]
fn a_rule_may_name_the_service() {
    let named =
        |name: &str| SetChange { names: vec![name.parse().unwrap()], ..SetChange::whole("named") };
    for (name, verdict) in [
        ("web.default.svc.cluster.local", Verdict::Allow),
        ("*.default.svc.cluster.local", Verdict::Allow),
        ("web.other.svc.cluster.local", Verdict::Deny),
        ("web.example", Verdict::Deny),
        ("*.svc.cluster.local", Verdict::Deny),
    ] {
        let mut learner = shop(manual("10.0.0.2"), [rule(ALLOW, "named")]);
        learner.cluster(ClusterChange::Set(named(name))).unwrap();
        learner.compile_changed();
        assert_eq!(http(&learner, AT, 80).0, verdict, "{name}");
    }
}

#[test]
fn what_does_not_fit_stays_closed_and_is_counted() {
    // Applications that alternate with denied ones, so that each makes a rule.
    let apps = |at: u32| {
        let apps = (0..64).map(|app| AppId(5_000 + at * 64 + app)).collect();
        PolicyRule { apps, ..rule(200_100 + at, "nv.web.default") }
    };
    let ports = (1..=64)
        .map(|port| (IpProto::TCP, port))
        .collect::<Vec<_>>();
    let addresses = (0..64u8).map(|last| IpAddr::from([10, 96, 0, last]));
    let mut wide = service(&["web"]);
    wide.backends[0].targets = vec![8080; 64];
    let wide = Service { addresses: addresses.collect(), ports, ..wide };
    let learner = shop(wide, (0..5).map(apps));
    let policy = learner.policy("uid-shop").unwrap();
    let doored = policy
        .spec
        .rules
        .iter()
        .filter(|rule| rule.direction == Direction::Outbound && rule.ports.1 <= 64);
    let count = doored.count();
    assert!(count <= MAX_DOORED && count > MAX_DOORED - 64, "{count}");
    assert!(policy.left_out > 0);
    let of = |address: &str, port| {
        let door = AddrSpec::one(ip(address));
        let rules = policy.spec.rules.iter();
        let own = rules.filter(|rule| rule.server == door && rule.ports.0 == port);
        own.map(|rule| rule.action).collect::<Vec<_>>()
    };
    assert_eq!(of("10.96.0.0", 1).len(), 6);
    assert_eq!(of("10.96.0.63", 64), [PolicyAction::Deny], "the default");
}

#[test]
fn a_service_with_too_much_behind_it_closes_itself_alone() {
    let members = (0..100_000u32).map(|at| (IpAddr::from((0x0b00_0000 + at).to_be_bytes()), None));
    let huge = Backends { targets: vec![8080], members: members.collect(), ..Backends::default() };
    let huge = Service {
        name: "evil/huge".into(),
        addresses: vec![ip("10.96.0.66")],
        backends: vec![huge],
        ..service(&[])
    };
    let all = |at: u32| PolicyRule { ports: Vec::new(), ..rule(200_100 + at, "wide") };
    let web = rule(ALLOW, "nv.web.default");
    let mut learner = shop(service(&["web"]), (0..60).map(all).chain([web]));
    networks(&mut learner, "wide", &["172.16.0.0/12"]);
    enter(&mut learner, huge);
    learner.compile_changed();
    assert_eq!(http(&learner, AT, 80), (Verdict::Allow, ALLOW));
    assert_eq!(http(&learner, "10.96.0.66", 80), (Verdict::Deny, 0));
    assert_eq!(learner.policy("uid-shop").unwrap().left_out, 1);
}

const NAMES: [&str; 4] = ["cache", "shop", "web", "intruder"];

fn rules() -> impl Strategy<Value = Vec<PolicyRule>> {
    let apps = prop::collection::vec(prop::sample::select(vec![AppId::HTTP, AppId::REDIS]), 0..2);
    let ports = prop::sample::select(vec![vec![], vec![8080], vec![9090], vec![8080, 9090]]);
    let one = (0..NAMES.len(), apps, ports, any::<bool>());
    prop::collection::vec(one, 0..8).prop_map(|all| {
        let one = |(at, (to, apps, ports, deny)): (usize, (usize, Vec<_>, Vec<u16>, bool))| {
            let port = |port| Ports { proto: Some(IpProto::TCP), low: port, high: port };
            let ports = ports.into_iter().map(port).collect();
            let id = 200_000 + u32::try_from(at).unwrap();
            PolicyRule { apps, ports, deny, ..rule(id, group(NAMES[to]).name()) }
        };
        all.into_iter().enumerate().map(one).collect()
    })
}

fn apps() -> [AppKnowledge; 3] {
    [AppId::HTTP, AppId::REDIS, AppId::SSH].map(AppKnowledge::Known)
}

proptest! {
    /// One backend: the same decision by the same rule.
    #[test]
    fn what_is_said_of_the_backend_is_said_of_the_service(
        rules in rules(), behind in 0..NAMES.len(),
    ) {
        let known = service(&[NAMES[behind]]);
        let (v4, v6) = (known.backends[0].members[0].0, known.backends[0].members[1].0);
        let learner = shop(known, rules);
        for app in apps() {
            for (front, backend) in [(AT, v4), ("fd00:96::9", v6)] {
                let direct = sent(&learner, &backend.to_string(), 8080, app);
                prop_assert_eq!(sent(&learner, front, 80, app), direct, "{:?}", app);
            }
        }
    }

    /// Several: never more than to each of them, and all that may be sent to each by rules that deny nothing.
    #[test]
    fn no_more_may_be_sent_to_a_service_than_to_each_backend(
        rules in rules(), behind in prop::collection::btree_set(0..NAMES.len(), 2..4),
        ports in prop::collection::vec(prop::sample::select(vec![8080_u16, 9090]), 4),
    ) {
        let names: Vec<_> = behind.iter().map(|at| NAMES[*at]).collect();
        let mut known = service(&names);
        for (one, port) in known.backends.iter_mut().zip(ports) {
            one.targets = vec![port];
        }
        let behind: Vec<_> = known
            .backends
            .iter()
            .map(|one| (one.members[0].0.to_string(), one.targets[0]))
            .collect();
        let denies = rules.iter().any(|rule| rule.deny);
        let learner = shop(known, rules);
        for app in apps() {
            let mut each = behind.iter().map(|(ip, port)| sent(&learner, ip, *port, app).0);
            let all = each.all(|verdict| verdict == Verdict::Allow);
            let (front, _) = sent(&learner, AT, 80, app);
            if all && !denies {
                prop_assert_eq!(front, Verdict::Allow, "{:?}", app);
            }
            prop_assert!(all || front == Verdict::Deny, "{:?}", app);
        }
    }
}
