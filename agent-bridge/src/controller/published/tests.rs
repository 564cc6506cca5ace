//! Step by step comes to the same as from scratch, and who is not touched has nothing to be told.

use outrider_api::cluster::Update;
use outrider_model::IpProto;
use proptest::prelude::*;

use super::*;
use crate::controller::{
    interest::Known,
    plan::{NamedPort, Objects, World},
    resolve::{
        Resolver,
        tests::{choice, labels, objects},
    },
};

impl Change {
    /// All there is.
    pub(in crate::controller) fn whole(world: &World, plan: &Plan) -> Self {
        let pods = world.pods.iter();
        Self {
            pods: pods
                .map(|(uid, pod)| (Arc::clone(uid), Some(Arc::clone(pod))))
                .collect(),
            plan: Changes {
                sets: plan.sets.keys().cloned().collect(),
                rules: plan.rules.keys().copied().collect(),
                modes: plan.modes.keys().cloned().collect(),
                verdicts: plan.verdicts.keys().cloned().collect(),
            },
            services: world
                .services
                .iter()
                .map(|one| (None, Some(Arc::clone(one))))
                .collect(),
            slices: world
                .slices
                .iter()
                .map(|one| (None, Some(Arc::clone(one))))
                .collect(),
            ..Self::default()
        }
    }
}

impl Published {
    /// Nothing is in force yet.
    pub(in crate::controller) fn after(revision: u64) -> Self {
        Self { revision, ..Self::default() }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Pod(u8, u8, u8, Vec<u8>),
    NoPod(u8),
    Object(u8, u8),
    NoObject(u8),
    Learned(u8, u8, u8),
    NotLearned(u8),
    Internal(u8),
    Front(Front),
    /// So long passes that nobody remembers who left.
    Long,
    /// The next of these are taken in together.
    Publish,
}

/// Of Services and EndpointSlices.
#[derive(Clone, Debug)]
enum Front {
    /// Name, cluster IP, whether it has an external one too.
    Service(u8, u8, bool),
    NoService(u8),
    /// Name, Service, port, addresses.
    Slice(u8, u8, u8, Vec<u8>),
    NoSlice(u8),
}

const NODES: [&str; 5] = ["n0", "n1", "n2", "n3", ""];
const APPS: [&str; 3] = ["web", "front", "tool"];

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u8..6, 0u8..5, 0u8..3, prop::collection::vec(0u8..6, 0..3)).prop_map(|(name, node, app, ips)| Step::Pod(name, node, app, ips)),
        2 => (0u8..6).prop_map(Step::NoPod),
        4 => (0u8..10, 0u8..9).prop_map(|(which, variant)| Step::Object(which, variant)),
        1 => (0u8..10).prop_map(Step::NoObject),
        2 => (0u8..4, 0u8..3, 0u8..3).prop_map(|(id, from, to)| Step::Learned(id, from, to)),
        1 => (0u8..4).prop_map(Step::NotLearned),
        1 => (0u8..3).prop_map(Step::Internal),
        7 => front().prop_map(Step::Front),
        1 => Just(Step::Long),
        8 => Just(Step::Publish),
    ]
}

fn front() -> impl Strategy<Value = Front> {
    prop_oneof![
        2 => (0u8..3, 0u8..3, prop::bool::weighted(0.1)).prop_map(|(name, ip, borrows)| Front::Service(name, ip, borrows)),
        1 => (0u8..3).prop_map(Front::NoService),
        3 => (0u8..4, 0u8..3, 0u8..2, prop::collection::vec(0u8..6, 0..3)).prop_map(|(name, service, port, ips)| Front::Slice(name, service, port, ips)),
        1 => (0u8..4).prop_map(Front::NoSlice),
    ]
}

/// Objects of the resolver's test, and some whose ends are addresses.
fn object(which: u8, variant: u8) -> Objects {
    let peer = |peer: serde_json::Value| serde_json::json!({"ingress": [{"name": "x", "action": "Deny", "peers": [peer]}]});
    match which {
        8 => {
            let width = [32, 30, 29][usize::from(variant % 3)];
            let cidr = serde_json::json!({"cidr": format!("10.0.0.{variant}/{width}")});
            objects(&[(
                "ClusterNetworkRule",
                "d",
                serde_json::json!({"target": {"clusterGroup": "wide"}, "egress": [{"name": "x", "action": "Deny", "peers": [cidr]}]}),
            )])
        }
        9 => {
            let cidrs = [format!("10.0.0.{variant}/31"), format!("10.0.0.{}/30", variant / 2)];
            let group = serde_json::json!({"podSelector": {"matchLabels": {"app": APPS[usize::from(variant % 3)]}}, "cidrs": cidrs});
            objects(&[("ClusterWorkloadGroup", "wide", group)])
        }
        7 => objects(&[(
            "ClusterNetworkRule",
            "e",
            peer(serde_json::json!({"clusterGroup": "wide"})),
        )]),
        _ => objects(&[choice(which, variant)]),
    }
}

/// What was said and is not taken in yet, and what is in force.
#[derive(Default)]
struct Case {
    world: World,
    learned: BTreeMap<u32, Arc<Rule>>,
    internal: Vec<IpNet>,
    resolver: Resolver,
    change: Change,
    now: Published,
    told: BTreeMap<&'static str, Known>,
}

impl Case {
    fn take(&mut self, step: Step) {
        match step {
            Step::Pod(name, node, app, ips) => {
                let app = APPS[usize::from(app)];
                let pod = Arc::new(Pod {
                    uid: format!("p{name}").into(),
                    namespace: "shop".into(),
                    name: format!("p{name}").into(),
                    service: app.into(),
                    node: NODES[usize::from(node)].into(),
                    addresses: ips
                        .into_iter()
                        .map(|at| IpAddr::from([10, 0, 0, at]))
                        .collect(),
                    labels: labels(&[("app", app)]),
                    managed: true,
                });
                self.resolver.set_pod(&pod);
                self.change
                    .pods
                    .insert(Arc::clone(&pod.uid), Some(Arc::clone(&pod)));
                self.world.pods.insert(Arc::clone(&pod.uid), pod);
            }
            Step::NoPod(name) => {
                let uid: Arc<str> = format!("p{name}").into();
                self.resolver.remove_pod(&uid);
                self.world.pods.remove(&uid);
                self.change.pods.insert(uid, None);
            }
            Step::Object(which, variant) => {
                object(which, variant)
                    .each()
                    .for_each(|one| self.resolver.set_object(one));
            }
            Step::NoObject(which) => {
                object(which, 0)
                    .each()
                    .for_each(|one| self.resolver.remove_object(&one.key()));
            }
            Step::Learned(id, from, to) => {
                let group = |at: u8| format!("nv.{}.shop", APPS[usize::from(at)]).into();
                let id = 1_000_000 + u32::from(id);
                let rule =
                    Arc::new(Rule { id, from: group(from), to: group(to), ..Rule::default() });
                self.learned.insert(id, Arc::clone(&rule));
                self.change.learned.insert(id, Some(rule));
            }
            Step::NotLearned(id) => {
                let id = 1_000_000 + u32::from(id);
                self.learned.remove(&id);
                self.change.learned.insert(id, None);
            }
            Step::Internal(at) => {
                self.internal = vec![format!("10.{at}.0.0/16").parse().unwrap()];
                self.change.internal = Some(self.internal.clone());
            }
            Step::Front(front) => self.front(front),
            Step::Long => self.now.fronts.forget_who_left(),
            Step::Publish => self.publish(),
        }
    }

    fn front(&mut self, step: Front) {
        match step {
            Front::Service(name, ip, borrows) => {
                let name: Arc<str> = format!("s{name}").into();
                let borrowed = borrows.then(|| IpAddr::from([192, 0, 2, ip]));
                let service = Service {
                    namespace: "shop".into(),
                    name: Arc::clone(&name),
                    addresses: vec![IpAddr::from([10, 96, ip, 1])],
                    borrowed: borrowed.into_iter().collect(),
                    ports: vec![port(80)],
                };
                self.service(&name, Some(service));
            }
            Front::NoService(name) => self.service(&format!("s{name}").into(), None),
            Front::Slice(name, service, at, ips) => {
                let name: Arc<str> = format!("e{name}").into();
                let addresses = ips.into_iter().map(|at| IpAddr::from([10, 0, 0, at]));
                let slice = Slice {
                    namespace: "shop".into(),
                    service: format!("s{service}").into(),
                    name: Arc::clone(&name),
                    ports: vec![port(8080 + u16::from(at))],
                    addresses: addresses.collect(),
                };
                self.slice(&name, Some(slice));
            }
            Front::NoSlice(name) => self.slice(&format!("e{name}").into(), None),
        }
    }

    fn service(&mut self, name: &Arc<str>, now: Option<Service>) {
        let all = &mut self.world.services;
        let before = all.iter().position(|one| one.name == *name);
        let before = before.map(|at| all.remove(at));
        let now = now.map(Arc::new);
        all.extend(now.clone());
        self.change.services.push((before, now));
    }

    fn slice(&mut self, name: &Arc<str>, now: Option<Slice>) {
        let all = &mut self.world.slices;
        let before = all.iter().position(|one| one.name == *name);
        let before = before.map(|at| all.remove(at));
        let now = now.map(Arc::new);
        all.extend(now.clone());
        self.change.slices.push((before, now));
    }

    fn publish(&mut self) {
        let mut change = std::mem::take(&mut self.change);
        change.plan = self.resolver.step();
        let touched = self.now.take(change, self.resolver.made());
        assert_eq!(self.now, self.scratch());
        for node in &NODES[..4] {
            self.near(node);
            let known = self.told.entry(node).or_default();
            known.serves = *node != "n2";
            let asks = touched.addresses.iter().any(|address| known.asks(address));
            let is_touched = touched.all || touched.nodes.contains(*node) || asks;
            let update = known.update(node, &self.now, &[]);
            assert!(is_touched || says_nothing(update.as_ref()), "{node}: {update:?}");
        }
    }

    fn scratch(&self) -> Published {
        let plan = self.resolver.made();
        let mut change = Change::whole(&self.world, plan);
        let learned = self.learned.iter();
        change.learned = learned
            .map(|(id, rule)| (*id, Some(Arc::clone(rule))))
            .collect();
        change.internal = Some(self.internal.clone());
        let mut scratch = Published::after(self.now.revision - 1);
        // What was, which nothing made from scratch knows.
        scratch.fronts.left_as(&self.now.fronts);
        scratch.take(change, plan);
        scratch.fronts.left_as(&self.now.fronts);
        scratch
    }

    /// A node has the rules that hold at one of its pods, looked at one by one.
    fn near(&self, node: &str) {
        let own: Vec<_> = self
            .world
            .pods
            .values()
            .filter(|pod| &*pod.node == node)
            .collect();
        let is_in = |name: &Arc<str>| match self.now.plan.sets.get(name) {
            Some(set) => {
                let inside = |ip: &IpAddr| set.networks.iter().any(|net| net.contains(ip));
                let has = |pod: &&Arc<Pod>| {
                    set.members.contains(&pod.uid) || pod.addresses.iter().any(inside)
                };
                set.any || own.iter().any(has)
            }
            None => own.iter().any(|pod| *pod.group() == **name),
        };
        let all = self.now.plan.rules.values().chain(self.learned.values());
        let expected: BTreeSet<_> = all
            .filter(|rule| near(rule).any(is_in))
            .map(|rule| rule.id)
            .collect();
        let found: BTreeSet<_> = self.now.rules_of(node).map(|rule| rule.id).collect();
        assert_eq!(found, expected);
    }
}

fn port(port: u16) -> NamedPort {
    NamedPort { name: "http".into(), proto: IpProto::TCP, port }
}

fn says_nothing(update: Option<&Update>) -> bool {
    update.is_none_or(|update| {
        *update == Update { revision: update.revision, whole: update.whole, ..Update::default() }
    })
}

proptest! {
    #[test]
    fn step_by_step_comes_to_the_same_as_from_scratch(steps in prop::collection::vec(step(), 1..60)) {
        let mut case = Case::default();
        case.publish();
        for node in ["n0", "n1"] {
            case.told.entry(node).or_default().ask([IpAddr::from([10, 0, 0, 3])].into_iter());
        }
        case.told.entry("n3").or_default().ask([IpAddr::from([10, 96, 1, 1])].into_iter());
        steps.into_iter().for_each(|step| case.take(step));
        case.publish();
    }
}

/// A Service of which a slice names an address that a pod takes over from another in the same moment.
#[test]
fn an_address_that_somebody_has_is_nobodys_that_left() {
    let mut case = Case::default();
    case.front(Front::Service(0, 0, false));
    case.front(Front::Slice(0, 0, 0, vec![1]));
    case.take(Step::Pod(0, 0, 0, vec![1]));
    case.take(Step::Pod(1, 1, 1, vec![1]));
    case.publish();
    case.take(Step::NoPod(1));
    case.publish();
    let uids = |case: &Case| -> Vec<_> {
        let served = &case.now.fronts.served["shop/s0"];
        served.uids().map(str::to_owned).collect()
    };
    assert_eq!(uids(&case), ["p0"]);
    case.take(Step::NoPod(0));
    case.publish();
    let served = &case.now.fronts.served["shop/s0"];
    assert!(uids(&case).is_empty() && !served.chosen, "its slice follows in a moment");
    case.take(Step::Long);
    case.publish();
    assert!(case.now.fronts.served["shop/s0"].chosen, "somebody wrote it by hand");
}
