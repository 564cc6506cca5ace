//! What is kept comes to the same as counting from nothing.

use std::{collections::BTreeMap, net::IpAddr};

use outrider_api::cluster::{Applied, WorkloadState};
use outrider_learn::{Ends, MAX_CUT};
use outrider_telemetry::Registry;
use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;
use crate::{
    cluster::objects::RuleNumber,
    controller::{
        counts::Counts,
        links::{Link, Links},
        plan::{Plan, Pod, Rule, Set, Uids, World},
        published::{Change, Published},
        resolve::{
            Resolver,
            tests::{choice, labels, objects},
        },
    },
};

const ID: u32 = 200_000;

/// A rule at one pod.
fn plan() -> Plan {
    let members: Uids = Arc::new(["u".into()].into());
    let set = Set { members: Arc::clone(&members), ..Set::default() };
    let (from, to) = ("external".into(), "them".into());
    let rule = Rule { id: ID, from, to, ends: Ends::Server, ..Rule::default() };
    let verdict = Verdict {
        kind: Kind::Rule,
        namespace: "shop".into(),
        name: "web".into(),
        generation: 1,
        accepted: true,
        reason: "Accepted",
        message: String::new(),
        field: None,
        rules: vec![RuleNumber { name: "a".into(), id: ID }],
        count: 1,
        workloads: members,
    };
    let key = (Kind::Rule, "shop".to_owned(), "web".to_owned());
    Plan {
        sets: [("them".into(), Arc::new(set))].into(),
        rules: [(ID, Arc::new(rule))].into(),
        verdicts: [(key, Arc::new(verdict))].into(),
        ..Plan::default()
    }
}

/// What is to be said of the only object.
fn only(links: &Links) -> Report {
    let mut tally = Tally::default();
    let keys = tally.renew(Stale::default(), &links.published.read(), links);
    tally.report(keys.first().unwrap()).unwrap()
}

#[test]
fn a_rule_for_which_a_policy_has_no_room_is_not_enforced() {
    let links = Links::new(Counts::register(&Registry::default()).unwrap());
    let (node, uid): (Arc<str>, Arc<str>) = ("n1".into(), "u".into());
    let link = links.enter(&node, "1");
    let pod =
        Pod { uid: Arc::clone(&uid), node: Arc::clone(&node), managed: true, ..Pod::default() };
    let world = World { pods: [(uid, Arc::new(pod))].into(), ..World::default() };
    links.publish(true, Change::whole(&world, &plan()), &plan());
    links.update(&node, &link).unwrap();
    let most = u32::try_from(MAX_CUT).unwrap();
    let cases = [
        (Vec::new(), "True", "Enforced"),
        (vec![ID], "False", "DoesNotFit"),
        (vec![ID + 1], "True", "Enforced"),
        // Others may be cut too, which are not named.
        ((ID + 1..=ID + most).collect(), "False", "DoesNotFit"),
    ];
    for (cut, status, reason) in cases {
        let state = WorkloadState {
            uid: "u".into(),
            revision: 1,
            connected: true,
            cut,
            ..WorkloadState::default()
        };
        link.lock().states.insert("u".into(), state);
        let said = only(&links).enforced();
        assert_eq!((&*said.status, &*said.reason), (status, reason), "{}", said.message);
    }
}

#[test]
fn rules_that_an_object_has_no_more_are_not_waited_for() {
    let links = Links::new(Counts::register(&Registry::default()).unwrap());
    let node: Arc<str> = "n1".into();
    let link = links.enter(&node, "1");
    let uid: Arc<str> = "u".into();
    let pod =
        Pod { uid: Arc::clone(&uid), node: Arc::clone(&node), managed: true, ..Pod::default() };
    let world = World { pods: [(uid, Arc::new(pod))].into(), ..World::default() };
    let mut plan = plan();
    for verdict in plan.verdicts.values_mut() {
        Arc::make_mut(verdict)
            .rules
            .push(RuleNumber { name: "gone".into(), id: ID + 1 });
    }
    links.publish(true, Change::whole(&world, &plan), &plan);
    links.update(&node, &link).unwrap();
    let state =
        WorkloadState { uid: "u".into(), revision: 1, connected: true, ..WorkloadState::default() };
    link.lock().states.insert("u".into(), state);
    assert_eq!(only(&links).enforced().reason, "Enforced");
}

#[test]
fn of_too_much_it_is_said_that_it_is_everything() {
    let mut stale = Stale::default();
    assert!(stale.take().is_all() && !stale.take().is_all());
    let most = u32::try_from(MAX_STALE).unwrap();
    stale.note((0..most).map(Thing::Rule));
    assert!(!stale.is_all());
    stale.note([Thing::Rule(most)]);
    assert!(stale.take().is_all());
}

#[derive(Clone, Debug)]
enum Step {
    /// Name, node, application, whether it has a proxy.
    Pod(u8, u8, u8, bool),
    NoPod(u8),
    Object(u8, u8),
    NoObject(u8),
    /// The next of these are taken in together.
    Publish,
    Enter(u8),
    Leave(u8),
    /// A node is told what is new.
    Tell(u8),
    /// A node says of a workload: how old what it runs is, and what is with it.
    Applied(u8, u8, u8, u8),
    Gone(u8, u8),
    /// What is stale is looked at.
    Look,
}

const NODES: [&str; 4] = ["n0", "n1", "n2", ""];
const APPS: [&str; 3] = ["web", "front", "tool"];

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0u8..6, 0u8..4, 0u8..3, prop::bool::weighted(0.8)).prop_map(|(name, node, app, managed)| Step::Pod(name, node, app, managed)),
        1 => (0u8..6).prop_map(Step::NoPod),
        4 => (0u8..8, 0u8..9).prop_map(|(which, variant)| Step::Object(which, variant)),
        1 => (0u8..8).prop_map(Step::NoObject),
        6 => Just(Step::Publish),
        3 => (0u8..3).prop_map(Step::Enter),
        1 => (0u8..3).prop_map(Step::Leave),
        6 => (0u8..3).prop_map(Step::Tell),
        8 => (0u8..3, 0u8..6, 0u8..3, 0u8..8).prop_map(|(node, name, old, what)| Step::Applied(node, name, old, what)),
        1 => (0u8..3, 0u8..6).prop_map(|(node, name)| Step::Gone(node, name)),
        6 => Just(Step::Look),
    ]
}

struct Case {
    resolver: Resolver,
    change: Change,
    links: Links,
    linked: BTreeMap<u8, Arc<Mutex<Link>>>,
    tally: Tally,
    /// What was to be said of each object when it was looked at last.
    reports: BTreeMap<ObjectKey, Report>,
}

impl Case {
    fn new() -> Self {
        Self {
            resolver: Resolver::default(),
            change: Change::default(),
            links: Links::new(Counts::register(&Registry::default()).unwrap()),
            linked: BTreeMap::new(),
            tally: Tally::default(),
            reports: BTreeMap::new(),
        }
    }

    fn take(&mut self, step: &Step) {
        let uid = |name: u8| -> Arc<str> { format!("p{name}").into() };
        let node = |at: u8| -> Arc<str> { NODES[usize::from(at)].into() };
        match *step {
            Step::Pod(name, at, app, managed) => {
                let app = APPS[usize::from(app)];
                let pod = Arc::new(Pod {
                    uid: uid(name),
                    namespace: "shop".into(),
                    name: uid(name),
                    service: app.into(),
                    node: node(at),
                    addresses: vec![IpAddr::from([10, 0, 0, name])],
                    labels: labels(&[("app", app)]),
                    managed,
                });
                self.resolver.set_pod(&pod);
                self.change.pods.insert(uid(name), Some(pod));
            }
            Step::NoPod(name) => {
                self.resolver.remove_pod(&uid(name));
                self.change.pods.insert(uid(name), None);
            }
            Step::Object(which, variant) => objects(&[choice(which, variant)])
                .each()
                .for_each(|one| self.resolver.set_object(one)),
            Step::NoObject(which) => objects(&[choice(which, 0)])
                .each()
                .for_each(|one| self.resolver.remove_object(&one.key())),
            Step::Publish => {
                let mut change = std::mem::take(&mut self.change);
                change.plan = self.resolver.step();
                self.links.publish(false, change, self.resolver.made());
            }
            Step::Enter(at) => {
                self.linked.insert(at, self.links.enter(&node(at), "1"));
            }
            Step::Leave(at) => {
                let link = self.linked.remove(&at);
                link.iter()
                    .for_each(|link| self.links.leave(&node(at), link));
            }
            Step::Tell(at) => {
                let link = self.linked.get(&at);
                link.map(|link| self.links.update(&node(at), link));
            }
            Step::Applied(at, name, old, what) => self.applied(at, &uid(name), old, what),
            Step::Gone(at, name) => {
                let Some(link) = self.linked.get(&at) else { return };
                let said = Applied { gone: vec![uid(name).to_string()], ..Applied::default() };
                self.links.applied(&node(at), link, said);
            }
            Step::Look => self.look(),
        }
    }

    fn applied(&self, at: u8, uid: &str, old: u8, what: u8) {
        let Some(link) = self.linked.get(&at) else { return };
        let now = self.links.published.read().revision;
        let cut = match what {
            0 => vec![ID],
            1 => (1..=u32::try_from(MAX_CUT).unwrap()).collect(),
            _ => Vec::new(),
        };
        let state = WorkloadState {
            uid: uid.to_owned(),
            revision: now.saturating_sub(old.into()),
            connected: what != 2,
            refused: if what == 3 { "too long".into() } else { String::new() },
            cut,
            ..WorkloadState::default()
        };
        let said = Applied { workloads: vec![state], ..Applied::default() };
        self.links
            .applied(&NODES[usize::from(at)].into(), link, said);
    }

    fn look(&mut self) {
        let now = self.links.published.read();
        let stale = self.links.stale.lock().take();
        for key in self.tally.renew(stale, &now, &self.links) {
            match self.tally.report(&key) {
                Some(report) => drop(self.reports.insert(ObjectKey::clone(&key), report)),
                None => drop(self.reports.remove(&*key)),
            }
        }
        let verdicts = now.plan.verdicts.iter();
        let expected: BTreeMap<_, _> = verdicts
            .map(|(key, verdict)| {
                let count = count(&now, verdict, &self.links);
                (key.clone(), Report { key: key.clone(), verdict: Arc::clone(verdict), count })
            })
            .collect();
        assert_eq!(self.reports, expected);
    }
}

/// How many workloads of an object with rules run them, one by one.
fn count(now: &Published, verdict: &Verdict, links: &Links) -> Count {
    let mut count = Count::default();
    if !matches!(verdict.kind, Kind::Rule | Kind::ClusterRule) {
        return count;
    }
    for pod in verdict.workloads.iter().filter_map(|uid| now.pods.get(uid)) {
        let link = links.of(&pod.node);
        let link = link.as_ref().map(|link| link.lock());
        let state = link.as_ref().and_then(|link| link.states.get(&*pod.uid));
        let own = || verdict.rules.iter().map(|rule| rule.id);
        let said = match (state, &link) {
            _ if !pod.managed => Said::Bare,
            (Some(state), _)
                if own().any(|id| state.cut.contains(&id))
                    || (own().next().is_some() && state.cut.len() >= MAX_CUT) =>
            {
                Said::Cut
            }
            (Some(state), Some(link))
                if state.connected
                    && link.known.mode_since(&pod.uid) <= state.revision
                    && own()
                        .filter(|id| now.plan.rules.contains_key(id))
                        .all(|id| {
                            link.known
                                .rule_since(id)
                                .is_some_and(|since| since <= state.revision)
                        }) =>
            {
                Said::Enforced
            }
            (Some(state), _) if !state.refused.is_empty() => Said::Refused,
            _ => Said::Pending,
        };
        count.change(None, Some(said));
    }
    count
}

proptest! {
    #[test]
    fn what_is_kept_is_what_counting_from_nothing_gives(steps in prop::collection::vec(step(), 1..80)) {
        let mut case = Case::new();
        steps.iter().for_each(|step| case.take(step));
        case.look();
    }
}
