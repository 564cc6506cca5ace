//! Objects and pods in, a plan out.

use kube::ResourceExt;
use outrider_learn::{Ends, Ports};
use outrider_model::Mode;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    cluster::objects::{
        ClusterNetworkRule, ClusterWorkloadGroup, ClusterWorkloadMode, NetworkRule, RuleStatus,
        WorkloadGroup, WorkloadMode,
    },
    controller::plan::Rule,
};

fn object<T: serde::de::DeserializeOwned>(kind: &str, name: &str, spec: &Value) -> Arc<T> {
    let mut metadata = json!({"name": name, "generation": 1});
    if !kind.starts_with("Cluster") {
        metadata["namespace"] = "shop".into();
    }
    let whole = json!({"apiVersion": "outrider.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec});
    Arc::new(serde_json::from_value(whole).unwrap())
}

/// Adds objects of any kind.
pub(in crate::controller) fn objects(list: &[(&str, &str, Value)]) -> Objects {
    let mut all = Objects::default();
    for (kind, name, spec) in list {
        match *kind {
            "WorkloadGroup" => all.groups.push(object::<WorkloadGroup>(kind, name, spec)),
            "ClusterWorkloadGroup" => {
                all.cluster_groups
                    .push(object::<ClusterWorkloadGroup>(kind, name, spec));
            }
            "NetworkRule" => all.rules.push(object::<NetworkRule>(kind, name, spec)),
            "ClusterNetworkRule" => {
                all.cluster_rules
                    .push(object::<ClusterNetworkRule>(kind, name, spec));
            }
            "WorkloadMode" => all.modes.push(object::<WorkloadMode>(kind, name, spec)),
            _ => all
                .cluster_modes
                .push(object::<ClusterWorkloadMode>(kind, name, spec)),
        }
    }
    all
}

pub(in crate::controller) fn labels(list: &[(&str, &str)]) -> Arc<Labels> {
    Arc::new(
        list.iter()
            .map(|(key, value)| ((*key).into(), (*value).into()))
            .collect(),
    )
}

fn pod(name: &str, namespace: &str, app: &str) -> Arc<Pod> {
    Arc::new(Pod {
        uid: name.into(),
        namespace: namespace.into(),
        name: name.into(),
        service: app.into(),
        node: "n".into(),
        addresses: Vec::new(),
        labels: labels(&[("app", app)]),
        managed: true,
    })
}

/// Pods web and front in shop, pod tool in ops, whose team is ops.
fn world() -> World {
    let pods = [
        pod("web-1", "shop", "web"),
        pod("front-1", "shop", "front"),
        pod("tool-1", "ops", "tool"),
    ];
    World {
        pods: pods
            .into_iter()
            .map(|pod| (Arc::clone(&pod.uid), pod))
            .collect(),
        namespaces: [
            ("shop".to_owned(), labels(&[("team", "shop")])),
            ("ops".to_owned(), labels(&[("team", "ops")])),
        ]
        .into(),
        ..World::default()
    }
}

fn app(name: &str) -> Value {
    json!({"matchLabels": {"app": name}})
}

fn members(plan: &Plan, set: &str) -> Vec<String> {
    plan.sets[set]
        .members
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn verdict(plan: &Plan, kind: Kind, name: &str) -> Arc<Verdict> {
    let found = plan
        .verdicts
        .iter()
        .find(|(key, _)| key.0 == kind && key.2 == name);
    Arc::clone(found.unwrap().1)
}

fn rule<'a>(plan: &'a Plan, origin: &str) -> &'a Rule {
    plan.rules
        .values()
        .find(|rule| &*rule.origin == origin)
        .unwrap()
}

#[test]
fn a_rule_becomes_sets_a_number_and_ports() {
    let web = json!({
        "priority": 60,
        "target": {"podSelector": app("web")},
        "ingress": [
            {"name": "front", "action": "Allow", "peers": [{"podSelector": app("front")}], "ports": ["tcp/80", "udp/1-2"], "applications": ["HTTP"]},
            {"name": "mixed", "action": "Deny", "peers": [{"namespaceSelector": {"matchLabels": {"team": "ops"}}}, {"cidr": "10.1.2.3/8"}, {"external": true}]},
        ],
        "egress": [{"name": "dns", "action": "Allow", "peers": [{"name": "*.Example.com"}]}, {"name": "any", "action": "Deny"}],
    });
    let plan = resolve(&objects(&[("NetworkRule", "web", web)]), &world());
    let front = rule(&plan, "NetworkRule/shop/web/front");
    assert_eq!(
        (members(&plan, &front.from), members(&plan, &front.to)),
        (vec!["front-1".into()], vec!["web-1".into()])
    );
    assert_eq!((front.ends, front.deny, front.apps.as_slice()), (Ends::Server, false, &[1001][..]));
    let tcp = Ports { proto: Some(outrider_model::IpProto::TCP), low: 80, high: 80 };
    assert_eq!((front.ports.len(), front.ports[0]), (2, tcp));
    let mixed = rule(&plan, "NetworkRule/shop/web/mixed");
    let set = &plan.sets[&mixed.from];
    assert_eq!((members(&plan, &mixed.from), set.external), (vec!["tool-1".into()], true));
    assert_eq!(set.networks, ["10.0.0.0/8".parse().unwrap()]);
    assert!(mixed.order < front.order, "Deny comes before Allow");
    let dns = rule(&plan, "NetworkRule/shop/web/dns");
    assert_eq!((&*plan.sets[&dns.to].names[0], dns.ends), ("*.example.com", Ends::Client));
    assert!(plan.sets[&rule(&plan, "NetworkRule/shop/web/any").to].any);
    let said = verdict(&plan, Kind::Rule, "web");
    assert_eq!((said.accepted, said.reason), (true, "Accepted"));
    assert_eq!(
        said.rules
            .iter()
            .map(|rule| rule.id)
            .collect::<BTreeSet<_>>(),
        (200_000..200_004).collect()
    );
    assert_eq!(said.workloads.iter().map(AsRef::as_ref).collect::<Vec<_>>(), ["web-1"]);
}

#[test]
fn cluster_rules_come_first_and_hold_at_both_ends_of_pods() {
    let entry =
        |peers: Value| json!({"ingress": [{"name": "r", "action": "Allow", "peers": peers}]});
    let plan = resolve(
        &objects(&[
            (
                "NetworkRule",
                "high",
                json!({"priority": 100, "ingress": [{"name": "r", "action": "Deny"}]}),
            ),
            (
                "ClusterNetworkRule",
                "low",
                json!({"priority": 0, "ingress": [{"name": "r", "action": "Allow", "peers": [{"clusterGroup": "all"}]}]}),
            ),
            ("ClusterNetworkRule", "outside", entry(json!([{"external": true}]))),
            ("ClusterWorkloadGroup", "all", json!({"podSelector": {}})),
        ]),
        &world(),
    );
    let low = rule(&plan, "ClusterNetworkRule/low/r");
    assert!(low.order < rule(&plan, "NetworkRule/shop/high/r").order);
    assert_eq!((low.ends, members(&plan, &low.from).len(), &*low.to), (Ends::Both, 3, ANY));
    assert_eq!(verdict(&plan, Kind::ClusterRule, "low").workloads.len(), 3);
    let outside = rule(&plan, "ClusterNetworkRule/outside/r");
    assert_eq!((outside.ends, &*outside.from), (Ends::Server, "external"));
}

#[test]
fn what_is_wrong_is_said_with_reason_and_field() {
    let peer = |peer: Value| json!({"ingress": [{"name": "r", "action": "Deny", "peers": [peer]}]});
    let cases = [
        (peer(json!({"group": "gone"})), "UnknownGroup", "spec.ingress[0].peers[0].group", 1),
        (
            peer(json!({"clusterGroup": "gone"})),
            "UnknownGroup",
            "spec.ingress[0].peers[0].clusterGroup",
            1,
        ),
        (peer(json!({"cidr": "10.0.0.0/99"})), "Invalid", "spec.ingress[0].peers[0].cidr", 0),
        (peer(json!({"name": "example.com"})), "Invalid", "spec.ingress[0].peers[0].name", 0),
        (peer(json!({})), "Invalid", "spec.ingress[0].peers[0]", 0),
        (peer(json!({"nodes": true, "external": true})), "Invalid", "spec.ingress[0].peers[0]", 0),
        (
            json!({"target": {"group": "gone"}, "ingress": [{"name": "r", "action": "Deny"}]}),
            "UnknownGroup",
            "spec.target.group",
            0,
        ),
        (
            json!({"target": {"group": "nets"}, "ingress": [{"name": "r", "action": "Deny"}]}),
            "NoPodsInGroup",
            "spec.target.group",
            0,
        ),
        (
            json!({"egress": [{"name": "r", "action": "Deny", "ports": ["tcp/9-1"]}]}),
            "Invalid",
            "spec.egress[0].ports[0]",
            0,
        ),
        (
            json!({"egress": [{"name": "r", "action": "Deny", "applications": ["Nope"]}]}),
            "Invalid",
            "spec.egress[0].applications[0]",
            0,
        ),
        (
            json!({"ingress": [{"name": "r", "action": "Deny"}], "egress": [{"name": "r", "action": "Allow"}]}),
            "Invalid",
            "spec.egress[0].name",
            1,
        ),
    ];
    for (spec, reason, field, rules) in cases {
        let all = [
            ("NetworkRule", "bad", spec.clone()),
            ("WorkloadGroup", "nets", json!({"cidrs": ["10.0.0.0/8"]})),
        ];
        let plan = resolve(&objects(&all), &world());
        let said = verdict(&plan, Kind::Rule, "bad");
        assert_eq!(
            (said.accepted, said.reason, said.field.as_deref()),
            (false, reason, Some(field)),
            "{spec}"
        );
        assert_eq!(plan.rules.len(), rules, "{spec}");
    }
}

#[test]
fn a_group_that_is_not_there_is_nobody_and_a_target_without_pods_is_worth_a_word() {
    let gone = json!({"ingress": [{"name": "r", "action": "Deny", "peers": [{"group": "gone"}]}]});
    let plan = resolve(&objects(&[("NetworkRule", "bad", gone)]), &world());
    let from = &plan.sets[&plan.rules.values().next().unwrap().from];
    assert_eq!(**from, Set::default());
    let nobody = json!({"target": {"podSelector": app("nobody")}, "ingress": [{"name": "r", "action": "Deny"}]});
    let plan = resolve(&objects(&[("NetworkRule", "early", nobody)]), &world());
    assert_eq!(
        (verdict(&plan, Kind::Rule, "early").accepted, verdict(&plan, Kind::Rule, "early").reason),
        (true, "NoWorkloads")
    );
}

#[test]
fn the_most_specific_mode_holds_and_among_equals_the_strictest() {
    let all = [
        ("ClusterWorkloadMode", "all", json!({"mode": "Protect"})),
        (
            "ClusterWorkloadMode",
            "ops",
            json!({"namespaceSelector": {"matchLabels": {"team": "ops"}}, "mode": "Monitor"}),
        ),
        ("WorkloadMode", "shop", json!({"mode": "Discover"})),
        ("WorkloadMode", "web", json!({"podSelector": app("web"), "mode": "Monitor"})),
        ("WorkloadMode", "web-strict", json!({"podSelector": app("web"), "mode": "Protect"})),
    ];
    let plan = resolve(&objects(&all), &world());
    let modes: Vec<_> = plan
        .modes
        .iter()
        .map(|(uid, mode)| (&**uid, *mode))
        .collect();
    assert_eq!(
        modes,
        [("front-1", Mode::Discover), ("tool-1", Mode::Monitor), ("web-1", Mode::Protect)]
    );
    let said = verdict(&plan, Kind::Mode, "web");
    assert_eq!((said.accepted, said.reason, said.count), (true, "Contested", 0));
    assert!(said.message.starts_with("WorkloadMode/shop/web-strict"), "{}", said.message);
    let strict = verdict(&plan, Kind::Mode, "web-strict");
    assert_eq!((strict.reason, strict.count), ("Accepted", 1));
    assert_eq!(verdict(&plan, Kind::ClusterMode, "all").reason, "NoWorkloads");
}

/// Objects as the API server has them after the plan's numbers were written into their status.
fn written(objects: &Objects, plan: &Plan) -> Objects {
    let numbers = |kind, namespace: Option<String>, name: String| {
        let said = &plan.verdicts[&(kind, namespace.unwrap_or_default(), name)];
        Some(RuleStatus { rules: said.rules.clone(), ..RuleStatus::default() })
    };
    let mut fresh = objects.clone();
    for rule in &mut fresh.rules {
        let status = numbers(Kind::Rule, rule.namespace(), rule.name_any());
        *rule = Arc::new(NetworkRule { status, ..(**rule).clone() });
    }
    for rule in &mut fresh.cluster_rules {
        let status = numbers(Kind::ClusterRule, None, rule.name_any());
        *rule = Arc::new(ClusterNetworkRule { status, ..(**rule).clone() });
    }
    fresh
}

#[test]
fn a_rule_keeps_its_number_and_no_other_gets_it() {
    let spec = |names: &[&str]| {
        let entries: Vec<_> = names
            .iter()
            .map(|name| json!({"name": name, "action": "Allow"}))
            .collect();
        json!({"ingress": entries})
    };
    let id = |plan: &Plan, name: &str| {
        let said = verdict(plan, Kind::Rule, "web");
        said.rules.iter().find(|rule| rule.name == name).unwrap().id
    };
    let mut resolver = Resolver::default();
    let first = objects(&[("NetworkRule", "web", spec(&["b", "a"]))]);
    resolver.set_objects(&first);
    let before = resolver.plan().clone();
    assert_eq!((id(&before, "b"), id(&before, "a")), (200_000, 200_001));
    // Another leader reads them in the status, of a rule that is gone too.
    let second = Objects {
        rules: objects(&[("NetworkRule", "web", spec(&["c", "a"]))]).rules,
        ..Objects::default()
    };
    let mut second = written(&second, &before);
    second
        .rules
        .extend(objects(&[("NetworkRule", "aaa", spec(&["z"]))]).rules);
    let plan = resolve(&second, &World::default());
    assert_eq!((id(&plan, "a"), id(&plan, "b"), id(&plan, "c")), (200_001, 200_000, 200_003));
    assert_eq!(verdict(&plan, Kind::Rule, "aaa").rules[0].id, 200_002);
    assert!(!plan.rules.contains_key(&200_000), "it is kept, not in force");
}

#[test]
fn a_pod_that_comes_changes_what_it_matches_and_nothing_else() {
    let spec = |name: &str| json!({"target": {"podSelector": app(name)}, "ingress": [{"name": "r", "action": "Allow", "peers": [{"podSelector": app("front")}]}]});
    let names: Vec<String> = (0..200).map(|at| format!("a{at}")).collect();
    let list: Vec<_> = names
        .iter()
        .map(|name| ("NetworkRule", name.as_str(), spec(name)))
        .collect();
    let mut resolver = Resolver::default();
    resolver.set_objects(&objects(&list));
    let before = resolver.plan().clone();
    resolver.set_pod(&pod("x", "shop", "a7"));
    let after = resolver.plan().clone();
    let changed: Vec<_> = after
        .sets
        .iter()
        .filter(|(name, set)| !Arc::ptr_eq(set, &before.sets[*name]))
        .collect();
    assert_eq!(changed.len(), 1);
    let said = |plan: &Plan| plan.verdicts.values().cloned().collect::<Vec<_>>();
    let (was, is) = (said(&before), said(&after));
    assert_eq!(
        was.iter()
            .zip(&is)
            .filter(|(was, is)| !Arc::ptr_eq(was, is))
            .count(),
        1
    );
    assert!(
        after
            .rules
            .iter()
            .all(|(id, rule)| Arc::ptr_eq(rule, &before.rules[id]))
    );
}

#[derive(Clone, Debug)]
enum Step {
    Pod(u8, u8, u8),
    NoPod(u8),
    Namespace(u8, u8),
    NoNamespace(u8),
    Objects(Vec<(u8, u8)>),
}

const SPACES: [&str; 3] = ["shop", "ops", "lab"];
const APPS: [&str; 3] = ["web", "front", "tool"];

/// One of the objects that steps choose from.
pub(in crate::controller) fn choice(which: u8, variant: u8) -> (&'static str, &'static str, Value) {
    let (one, other) = (APPS[usize::from(variant % 3)], APPS[usize::from(variant / 3 % 3)]);
    let team = json!({"matchLabels": {"team": SPACES[usize::from(variant % 3)]}});
    match which {
        0 => ("WorkloadGroup", "g", json!({"podSelector": app(one), "cidrs": ["192.0.2.0/24"]})),
        1 => ("ClusterWorkloadGroup", "cg", json!({"namespaceSelector": team})),
        2 => (
            "NetworkRule",
            "r",
            json!({"target": {"podSelector": app(one)}, "ingress": [
            {"name": "x", "action": "Allow", "peers": [{"podSelector": app(other)}, {"group": "g"}]},
            {"name": if variant > 4 { "y" } else { "z" }, "action": "Deny", "peers": [{"clusterGroup": "cg"}]}]}),
        ),
        3 => (
            "NetworkRule",
            "s",
            json!({"target": {"group": "g"}, "egress": [{"name": "x", "action": "Allow"}]}),
        ),
        4 => (
            "ClusterNetworkRule",
            "c",
            json!({"target": {"namespaceSelector": team}, "ingress": [{"name": "x", "action": "Deny", "peers": [{"podSelector": app(other)}]}]}),
        ),
        5 => ("WorkloadMode", "m", json!({"podSelector": app(one), "mode": "Monitor"})),
        6 => ("WorkloadMode", "n", json!({"podSelector": app(other), "mode": "Protect"})),
        _ => ("ClusterWorkloadMode", "o", json!({"namespaceSelector": team, "mode": "Protect"})),
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..6, 0u8..3, 0u8..3).prop_map(|(name, space, app)| Step::Pod(name, space, app)),
        2 => (0u8..6).prop_map(Step::NoPod),
        1 => (0u8..3, 0u8..3).prop_map(|(name, team)| Step::Namespace(name, team)),
        1 => (0u8..3).prop_map(Step::NoNamespace),
        2 => prop::collection::btree_map(0u8..8, 0u8..9, 0..8).prop_map(|all| Step::Objects(all.into_iter().collect())),
    ]
}

fn take(step: &Step, world: &mut World, all: &mut Objects, resolver: &mut Resolver) {
    let space = |at: u8| SPACES[usize::from(at)].to_owned();
    match step {
        Step::Pod(name, at, app) => {
            let fresh = pod(&format!("p{name}"), &space(*at), APPS[usize::from(*app)]);
            world
                .pods
                .insert(Arc::clone(&fresh.uid), Arc::clone(&fresh));
            resolver.set_pod(&fresh);
        }
        Step::NoPod(name) => {
            world.pods.remove(format!("p{name}").as_str());
            resolver.remove_pod(&format!("p{name}"));
        }
        Step::Namespace(name, team) => {
            let labels = labels(&[("team", SPACES[usize::from(*team)])]);
            world.namespaces.insert(space(*name), Arc::clone(&labels));
            resolver.set_namespace(&space(*name), &labels);
        }
        Step::NoNamespace(name) => {
            world.namespaces.remove(&space(*name));
            resolver.remove_namespace(&space(*name));
        }
        Step::Objects(list) => {
            let list: Vec<_> = list
                .iter()
                .map(|(which, variant)| choice(*which, *variant))
                .collect();
            *all = objects(&list);
            resolver.set_objects(all);
        }
    }
}

proptest! {
    #[test]
    fn step_by_step_comes_to_the_same_as_from_scratch(steps in prop::collection::vec(step(), 1..40)) {
        let (mut world, mut all, mut resolver) = (World::default(), Objects::default(), Resolver::default());
        for step in steps {
            take(&step, &mut world, &mut all, &mut resolver);
            let plan = resolver.plan().clone();
            let scratch = resolve(&written(&all, &plan), &world);
            prop_assert_eq!(&plan.sets, &scratch.sets);
            prop_assert_eq!(&plan.rules, &scratch.rules);
            prop_assert_eq!(&plan.modes, &scratch.modes);
            prop_assert_eq!(&plan.verdicts, &scratch.verdicts);
        }
    }
}
