//! Sets, rules and modes in, policy out.

use outrider_model::{PolicyAction, Verdict};
use outrider_policy::{AppKnowledge, Name};
use proptest::prelude::*;

use super::*;
use crate::{
    Learner, Place, Question,
    reach::Reaches,
    world::{against, group, inbound, ip, set_mode, world},
};

const WEB_ALLOW: u32 = 200_001;
const DENY: u32 = 200_002;

fn uid(name: &str) -> Arc<str> {
    format!("uid-{name}").into()
}

fn set(name: &str, members: &[&str]) -> SetChange {
    SetChange { added: members.iter().map(|name| uid(name)).collect(), ..SetChange::whole(name) }
}

fn rule(id: u32, order: u64, from: &str, to: &str) -> PolicyRule {
    PolicyRule {
        id: RuleId(id),
        order,
        from: Group::named(from),
        to: Group::named(to),
        ends: Ends::Both,
        ports: vec![Ports { proto: Some(IpProto::TCP), low: 6379, high: 6379 }],
        apps: Vec::new(),
        deny: false,
        learned: false,
        origin: format!("NetworkRule/default/it/rule-{id}").into(),
    }
}

fn take(learner: &mut Learner, changes: impl IntoIterator<Item = ClusterChange>) {
    for change in changes {
        learner.cluster(change).unwrap();
    }
    learner.compile_changed();
}

/// Set `front` is shop, set `back` is cache, and one allows the other Redis.
fn said() -> Learner {
    let mut learner = world();
    set_mode(&mut learner, "cache", Mode::Protect);
    let sets = [set("front", &["shop"]), set("back", &["cache"])].map(ClusterChange::Set);
    take(&mut learner, sets);
    take(&mut learner, [ClusterChange::Rule(rule(WEB_ALLOW, 10, "front", "back"))]);
    learner
}

fn ask(learner: &Learner, client: &str, server: &str, port: u16) -> (Verdict, u32, String) {
    let place = |name: &str| match name.parse() {
        Ok(address) => Place::Address(address),
        Err(_) => Place::Workload(format!("uid-{name}")),
    };
    let (client, server) = (place(client), place(server));
    let app = AppKnowledge::Known(AppId::REDIS);
    let question = Question { client, server, port, proto: IpProto::TCP, app };
    let found = learner.explain(&question).unwrap();
    let judged = found.judged.last().unwrap();
    (judged.verdict, judged.decision.rule.0, format!("{}; {}", judged.reason, found.to_allow))
}

#[test]
fn what_people_say_comes_before_what_was_learned_and_is_named() {
    let mut learner = said();
    assert_eq!(ask(&learner, "shop", "cache", 6379).0, Verdict::Allow);
    assert_eq!(ask(&learner, "web", "cache", 6379).0, Verdict::Deny);
    let deny = PolicyRule { deny: true, ..rule(DENY, 5, "front", "back") };
    take(&mut learner, [ClusterChange::Rule(deny.clone())]);
    let (verdict, rule, reason) = ask(&learner, "shop", "cache", 6379);
    assert_eq!((verdict, rule), (Verdict::Deny, DENY));
    assert_eq!(
        reason,
        "NetworkRule/default/it/rule-200002 (rule 200002) denies any application on tcp/6379 from front to \
         back; at default/cache: change NetworkRule/default/it/rule-200002, or allow it before, or in monitor \
         to let it pass and be reported"
    );
    // Its order changes, and then it is gone.
    take(&mut learner, [ClusterChange::Rule(PolicyRule { order: 11, ..deny })]);
    assert_eq!(ask(&learner, "shop", "cache", 6379).1, WEB_ALLOW);
    take(&mut learner, [ClusterChange::RuleGone(RuleId(WEB_ALLOW))]);
    assert_eq!(ask(&learner, "shop", "cache", 6379).1, DENY);
    take(&mut learner, [ClusterChange::Reset]);
    assert_eq!(ask(&learner, "shop", "cache", 6379).1, 0);
}

#[test]
fn a_deny_is_reported_and_not_enforced_but_in_protect() {
    let mut learner = said();
    let deny = PolicyRule { deny: true, ..rule(DENY, 5, "front", "back") };
    take(&mut learner, [ClusterChange::Rule(deny)]);
    let action = |learner: &Learner| {
        let rules = &learner.policy("uid-cache").unwrap().spec.rules;
        rules
            .iter()
            .find(|rule| rule.id == RuleId(DENY))
            .unwrap()
            .action
    };
    assert_eq!(action(&learner), PolicyAction::Deny);
    for mode in [Mode::Discover, Mode::Monitor] {
        take(&mut learner, [ClusterChange::Mode(uid("cache"), Some(mode))]);
        assert_eq!(action(&learner), PolicyAction::Violate, "{mode}");
        assert_eq!(learner.policy("uid-cache").unwrap().mode, mode);
    }
    take(&mut learner, [ClusterChange::Mode(uid("cache"), None)]);
    assert_eq!(action(&learner), PolicyAction::Deny, "that of the group holds again");
}

#[test]
fn a_violation_names_the_rule_and_what_is_allowed_is_not_learned() {
    let mut learner = said();
    take(
        &mut learner,
        [ClusterChange::Rule(PolicyRule { deny: true, ..rule(DENY, 5, "front", "back") })],
    );
    let row = inbound("cache", "10.0.0.3", 6379, AppId::REDIS);
    let denied = against(row.clone(), PolicyAction::Deny, 1);
    learner.observe(&crate::Row { rule: RuleId(DENY), ..denied });
    let reason = learner.violations().next().unwrap().reason.clone();
    let named = "NetworkRule/default/it/rule-200002 (rule 200002) forbids Redis on tcp/6379";
    assert!(reason.ends_with(named), "{reason}");
    set_mode(&mut learner, "cache", Mode::Discover);
    let (action, rule) = (PolicyAction::Allow, RuleId(WEB_ALLOW));
    let allowed = crate::Row { action, rule, ..row };
    for _ in 0..9 {
        assert!(!learner.observe(&allowed));
    }
    assert!(!learner.teaches(&allowed), "nor in the cluster");
    assert_eq!(learner.rules().count(), 0);
}

#[test]
fn a_rule_holds_at_the_ends_that_it_names() {
    let mut learner = said();
    let at = |learner: &Learner, name: &str| {
        learner
            .policy(&uid(name))
            .unwrap()
            .spec
            .rules
            .iter()
            .any(|rule| rule.id == RuleId(WEB_ALLOW))
    };
    for (ends, expected) in
        [(Ends::Both, [true, true]), (Ends::Server, [false, true]), (Ends::Client, [true, false])]
    {
        take(
            &mut learner,
            [ClusterChange::Rule(PolicyRule { ends, ..rule(WEB_ALLOW, 10, "front", "back") })],
        );
        assert_eq!([at(&learner, "shop"), at(&learner, "cache")], expected, "{ends:?}");
        assert!(!at(&learner, "web"));
    }
}

#[test]
fn a_set_is_addresses_networks_names_nodes_the_outside_or_everything() {
    let mut learner = said();
    let name = Name::new("*.example.com").unwrap();
    let mixed = SetChange {
        networks: vec!["192.0.2.0/24".parse().unwrap(), "10.0.0.2/31".parse().unwrap()],
        names: vec![name.clone()],
        external: true,
        nodes: true,
        ..set("back", &["intruder"])
    };
    take(&mut learner, [ClusterChange::Set(mixed)]);
    let specs = &learner.policy("uid-shop").unwrap().spec.rules;
    let peers: Vec<_> = specs
        .iter()
        .map(|rule| (rule.server, rule.fqdn.clone()))
        .collect();
    let range = |low: &str, high: &str| (outrider_policy::AddrSpec::Range(ip(low), ip(high)), None);
    let expected = [
        range("10.0.0.1", "10.0.0.3"),
        range("10.0.0.5", "10.0.0.5"),
        range("192.0.2.0", "192.0.2.255"),
        range("fd00::5", "fd00::5"),
        (outrider_policy::AddrSpec::External, None),
        (outrider_policy::AddrSpec::Any, Some(name)),
    ];
    assert_eq!(peers, expected);
    let any = SetChange { any: true, ..SetChange::whole("back") };
    take(&mut learner, [ClusterChange::Set(any)]);
    let of = |learner: &Learner, name: &str| learner.policy(&uid(name)).unwrap().spec.rules.clone();
    assert_eq!(of(&learner, "shop")[0].server, outrider_policy::AddrSpec::Any);
    assert_eq!(of(&learner, "web").len(), 2, "everybody is in it: shop's two addresses");
    take(&mut learner, [ClusterChange::SetGone(Group::named("back"))]);
    assert_eq!((of(&learner, "shop").len(), of(&learner, "web").len()), (0, 0));
}

#[test]
fn applications_are_checked_and_others_meet_the_next_rule() {
    let mut learner = said();
    let deny = PolicyRule { deny: true, apps: vec![AppId::HTTP], ..rule(DENY, 5, "front", "back") };
    take(&mut learner, [ClusterChange::Rule(deny)]);
    assert_eq!(ask(&learner, "shop", "cache", 6379).1, WEB_ALLOW);
    let specs = &learner.policy("uid-cache").unwrap().spec.rules;
    assert_eq!(
        (specs[0].action, specs[0].apps[0].action),
        (PolicyAction::CheckApp, PolicyAction::Deny)
    );
}

#[test]
fn workloads_of_other_nodes_are_known_by_address() {
    let mut learner = said();
    let far = |address: &str| Workload {
        addresses: vec![ip(address)],
        managed: true,
        ..crate::world::workload("far", 0)
    };
    take(
        &mut learner,
        [ClusterChange::Remote(far("10.9.0.1")), ClusterChange::Set(set("front", &["far"]))],
    );
    assert_eq!(ask(&learner, "10.9.0.1", "cache", 6379).1, WEB_ALLOW);
    assert_eq!(
        learner
            .directory()
            .name(&learner.directory().endpoint(ip("10.9.0.1"))),
        "default/far"
    );
    assert!(learner.policy("uid-far").is_none(), "its own node compiles its policy");
    take(&mut learner, [ClusterChange::Remote(far("10.9.0.7"))]);
    assert_eq!(ask(&learner, "10.9.0.1", "cache", 6379).1, 0);
    assert_eq!(ask(&learner, "10.9.0.7", "cache", 6379).1, WEB_ALLOW);
    take(&mut learner, [ClusterChange::RemoteGone { uid: uid("far"), now: 5 }]);
    assert_eq!(ask(&learner, "10.9.0.7", "cache", 6379).1, 0);
}

#[test]
fn what_the_cluster_learned_takes_the_place_of_what_the_node_learned_the_same() {
    let mut learner = world();
    for _ in 0..3 {
        learner.observe(&inbound("cache", "10.0.0.3", 6379, AppId::REDIS));
    }
    let learned = PolicyRule {
        learned: true,
        apps: vec![AppId::REDIS],
        ..rule(FIRST_LEARNED, 0, "nv.shop.default", "nv.cache.default")
    };
    take(&mut learner, [ClusterChange::Rule(learned)]);
    let policy = learner.policy("uid-cache").unwrap();
    let ids: Vec<_> = policy
        .spec
        .rules
        .iter()
        .flat_map(|rule| &rule.apps)
        .map(|app| app.rule.0)
        .collect();
    assert_eq!(ids, [FIRST_LEARNED, FIRST_LEARNED], "one for each family");
    assert_eq!(policy.spec.rules[0].apps[0].action, PolicyAction::Learn);
}

#[test]
fn refuses_what_exceeds_a_bound_and_counts_it() {
    let mut learner = said();
    let many = |count: usize| {
        (0..count)
            .map(|at| format!("u{at}").into())
            .collect::<Vec<Arc<str>>>()
    };
    let long = "x".repeat(MAX_TEXT + 1);
    let ports = |low, high| vec![Ports { proto: None, low, high }];
    let good = || rule(DENY, 5, "front", "back");
    for (change, error) in [
        (
            ClusterChange::Rule(PolicyRule { id: RuleId(FIRST_POLICY - 1), ..good() }),
            LearnError::Senseless,
        ),
        (ClusterChange::Rule(PolicyRule { ports: ports(9, 8), ..good() }), LearnError::Senseless),
        (
            ClusterChange::Rule(PolicyRule { origin: long.as_str().into(), ..good() }),
            LearnError::Senseless,
        ),
        (
            ClusterChange::Rule(PolicyRule {
                apps: vec![AppId::HTTP; MAX_RULE_PARTS + 1],
                ..good()
            }),
            LearnError::TooManyRuleParts,
        ),
        (ClusterChange::Set(set(&long, &[])), LearnError::Senseless),
        (ClusterChange::Set(set("nv.web.default", &[])), LearnError::Senseless),
        (ClusterChange::Set(set("external", &[])), LearnError::Senseless),
        (
            ClusterChange::Set(SetChange { added: many(MAX_MEMBERS), ..SetChange::whole("big") }),
            LearnError::TooManyMembers,
        ),
        (
            ClusterChange::Set(SetChange {
                networks: vec!["10.0.0.0/8".parse().unwrap(); MAX_SET_PARTS + 1],
                ..SetChange::whole("front")
            }),
            LearnError::TooManyParts,
        ),
    ] {
        assert_eq!(learner.cluster(change), Err(error));
    }
    learner.compile_changed();
    assert_eq!(learner.said().refused()["senseless"], 6);
    assert_eq!(ask(&learner, "shop", "cache", 6379).1, WEB_ALLOW, "what was said before holds on");
}

#[test]
fn refuses_what_there_is_no_room_for() {
    let mut full = Learner::default();
    for at in 0..MAX_SETS {
        full.cluster(ClusterChange::Set(set(&format!("s{at}"), &[])))
            .unwrap();
    }
    assert_eq!(full.cluster(ClusterChange::Set(set("more", &[]))), Err(LearnError::TooManySets));
    for at in 0..MAX_POLICY_RULES {
        let id = FIRST_POLICY + u32::try_from(at).unwrap();
        full.cluster(ClusterChange::Rule(rule(id, 1, "a", "b")))
            .unwrap();
    }
    let more = rule(FIRST_POLICY - 1 + 900_000, 1, "a", "b");
    assert_eq!(full.cluster(ClusterChange::Rule(more)), Err(LearnError::TooManyRules));
    for at in 0..crate::MAX_WORKLOADS {
        full.cluster(ClusterChange::Mode(format!("u{at}").into(), Some(Mode::Monitor)))
            .unwrap();
    }
    let more = ClusterChange::Mode("more".into(), Some(Mode::Monitor));
    assert_eq!(full.cluster(more), Err(LearnError::TooManyWorkloads));
}

#[test]
fn what_people_say_leaves_room_for_what_was_learned() {
    let mut learner = said();
    let few = 64 * 2_000;
    for at in 0..2_000 {
        let ports = (0..64)
            .map(|low| Ports { proto: Some(IpProto::TCP), low, high: low })
            .collect();
        let rule = PolicyRule { ports, ..rule(300_000 + at, 20, "external", "back") };
        learner.cluster(ClusterChange::Rule(rule)).unwrap();
    }
    learner.compile_changed();
    let policy = learner.policy("uid-cache").unwrap();
    // Two that are there before, and one for all of the outside is in the lists of both families.
    assert_eq!(policy.spec.rules.len(), 2 + (crate::MAX_SAID - 2) / 2);
    assert_eq!(policy.left_out, few + 2 - policy.spec.rules.len());
    // Rules are named that are not there in whole, and no other is.
    assert_eq!(policy.cut.len(), crate::MAX_CUT);
    let first_cut = 300_000 + u32::try_from((crate::MAX_SAID - 2) / 2 / 64).unwrap();
    assert_eq!(policy.cut.first(), Some(&RuleId(first_cut)));
    let names: Vec<_> = (0..MAX_SET_PARTS)
        .map(|at| Name::new(&format!("n{at}.example.com")).unwrap())
        .collect();
    for (at, name) in ["one", "two", "three"].into_iter().enumerate() {
        let names = names
            .iter()
            .map(|host| Name::new(&format!("{name}.{}", host.as_str())).unwrap());
        let change = SetChange { names: names.collect(), ..SetChange::whole(name) };
        learner.cluster(ClusterChange::Set(change)).unwrap();
        let rule = rule(400_000 + u32::try_from(at).unwrap(), 1, "back", name);
        learner.cluster(ClusterChange::Rule(rule)).unwrap();
    }
    learner.compile_changed();
    let named = &learner.policy("uid-cache").unwrap().spec.rules;
    assert_eq!(named.iter().filter(|rule| rule.fqdn.is_some()).count(), outrider_policy::MAX_NAMES);
}

const PODS: [&str; 5] = ["cache", "shop", "web", "intruder", "far"];
const SETS: [&str; 4] = ["a", "b", "c", "nv.shop.default"];

fn changes() -> impl Strategy<Value = ClusterChange> {
    let pods = || prop::collection::vec(prop::sample::select(PODS.to_vec()), 0..3);
    let sets = || prop::sample::select(SETS.to_vec());
    let change = (sets(), pods(), pods(), any::<bool>(), 0u8..8).prop_map(
        |(name, added, removed, whole, flags)| {
            ClusterChange::Set(SetChange {
                whole,
                removed: removed.iter().map(|name| uid(name)).collect(),
                any: flags == 7,
                external: flags == 6,
                networks: (flags == 5)
                    .then(|| "192.0.2.0/24".parse().unwrap())
                    .into_iter()
                    .collect(),
                ..set(name, &added)
            })
        },
    );
    let rule = (0u32..6, 0u64..3, sets(), sets(), any::<(bool, bool)>(), 0u8..3).prop_map(
        |(id, order, from, to, (deny, learned), ends)| {
            let ends = [Ends::Both, Ends::Server, Ends::Client][usize::from(ends)];
            ClusterChange::Rule(PolicyRule {
                deny: deny && !learned,
                learned,
                ends,
                ..rule(FIRST_POLICY + id, order, from, to)
            })
        },
    );
    let remote = (0u8..4).prop_map(|at| {
        let addresses = vec![ip(&format!("10.9.0.{at}"))];
        ClusterChange::Remote(Workload { addresses, ..crate::world::workload("far", 0) })
    });
    let mode =
        (prop::sample::select(PODS.to_vec()), prop::option::of(0u8..3)).prop_map(|(pod, mode)| {
            let mode =
                mode.map(|mode| [Mode::Discover, Mode::Monitor, Mode::Protect][usize::from(mode)]);
            ClusterChange::Mode(uid(pod), mode)
        });
    prop_oneof![
        4 => change,
        4 => rule,
        2 => remote,
        2 => mode,
        1 => Just(ClusterChange::RemoteGone { uid: uid("far"), now: 1 }),
        1 => sets().prop_map(|name| ClusterChange::SetGone(Group::named(name))),
        1 => (0u32..6).prop_map(|id| ClusterChange::RuleGone(RuleId(FIRST_POLICY + id))),
        1 => Just(ClusterChange::Reset),
    ]
}

proptest! {
    #[test]
    fn compiling_what_changed_equals_compiling_everything(
        steps in prop::collection::vec((prop::collection::vec(changes(), 1..4), 0u8..6), 1..24),
    ) {
        let mut learner = world();
        for (changes, beside) in steps {
            for change in changes {
                let _refused = learner.cluster(change);
            }
            match beside {
                0 => drop(learner.directory_mut().remove("uid-web", 1)),
                1 => learner.directory_mut().enter(crate::world::workload("web", 77)).unwrap(),
                2 => for _ in 0..3 {
                    learner.observe(&inbound("cache", "10.0.0.3", 80, AppId::HTTP));
                },
                3 => set_mode(&mut learner, "shop", Mode::Monitor),
                4 => drop(learner.forget_rule(RuleId(crate::FIRST_RULE))),
                _ => learner.set_mode(group("cache"), Mode::Protect),
            }
            learner.compile_changed();
            let uids: Vec<_> = learner.directory().workloads().map(|one| Arc::clone(&one.uid)).collect();
            for uid in uids {
                let workload = learner.directory().get(&uid).unwrap();
                let fresh = learner.policy_of(workload, &mut Reaches::new());
                prop_assert_eq!(&**learner.policy(&uid).unwrap(), &fresh, "{}", uid);
            }
        }
    }
}

#[test]
fn a_change_of_one_set_costs_what_it_concerns() {
    let mut learner = said();
    let before = Arc::clone(learner.policy("uid-web").unwrap());
    learner
        .cluster(ClusterChange::Set(set("front", &["shop", "intruder"])))
        .unwrap();
    assert_eq!(learner.compile_changed(), [group("cache"), group("intruder")]);
    assert!(Arc::ptr_eq(&before, learner.policy("uid-web").unwrap()));
    assert!(learner.compile_changed().is_empty());
}
