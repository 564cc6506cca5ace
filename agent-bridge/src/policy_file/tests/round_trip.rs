//! What was learned, exported and read again by a fresh node decides as what was learned.

use std::net::IpAddr;

use outrider_api::code::{self, Form};
use outrider_learn::{Learner, Place, Question, Row, Settings, Workload};
use outrider_model::{IpProto, Mode, PolicyAction, Severity, ThreatId};
use outrider_policy::AppKnowledge;
use proptest::prelude::*;

use super::*;
use crate::{
    controller::plan::{Labels, Pod},
    node::shown,
};

const PODS: [(&str, &str); 4] =
    [("web", "shop"), ("cache", "shop"), ("web", "ops"), ("prom", "ops")];
const APPS: [AppId; 4] = [AppId::UNKNOWN, AppId::HTTP, AppId::SSL, AppId::SSH];
const PORTS: [u16; 3] = [80, 443, 6379];
/// Addresses that are no pod of ours: one inside, one outside.
const OTHERS: [&str; 2] = ["10.0.0.77", "198.51.100.7"];

fn address(at: usize) -> IpAddr {
    match at.checked_sub(PODS.len()) {
        None => format!("10.0.0.{}", 2 + at).parse().unwrap(),
        Some(other) => OTHERS[other].parse().unwrap(),
    }
}

/// A node with the four pods, all in Protect from now on unless `mode` says otherwise.
fn node() -> Learner {
    let mut learner = Learner::new(Settings::default());
    for (at, (service, namespace)) in PODS.iter().enumerate() {
        let workload = Workload {
            uid: format!("uid-{at}").into(),
            name: format!("{namespace}/{service}-0"),
            namespace: (*namespace).into(),
            service: (*service).into(),
            addresses: vec![address(at)],
            mac: None,
            labels: BTreeMap::from([("app".to_owned(), (*service).to_owned())]),
            managed: true,
        };
        learner.directory_mut().enter(workload).unwrap();
    }
    learner
        .directory_mut()
        .set_internal(vec!["10.0.0.0/24".parse().unwrap()]);
    learner
}

fn world() -> World {
    let mut world = World::default();
    for (at, (service, namespace)) in PODS.iter().enumerate() {
        let pod = Pod {
            uid: format!("uid-{at}").into(),
            namespace: (*namespace).into(),
            name: format!("{service}-0").into(),
            service: (*service).into(),
            labels: Arc::new(Labels::from([("app".to_owned(), (*service).to_owned())])),
            addresses: vec![address(at)],
            managed: true,
            ..Pod::default()
        };
        world.pods.insert(Arc::clone(&pod.uid), Arc::new(pod));
        let label = ("kubernetes.io/metadata.name".to_owned(), (*namespace).to_owned());
        world
            .namespaces
            .insert((*namespace).to_owned(), Arc::new(Labels::from([label])));
    }
    world
}

fn shown_workloads() -> Vec<outrider_api::Workload> {
    let all = PODS
        .iter()
        .map(|(service, namespace)| outrider_api::Workload {
            name: format!("{namespace}/{service}-0"),
            group: format!("nv.{service}.{namespace}"),
            mode: "protect".into(),
            labels: BTreeMap::from([("app".to_owned(), (*service).to_owned())]),
            ..outrider_api::Workload::default()
        });
    all.collect()
}

/// Who, to whom, on which port, in which application, and whether the client's proxy says it.
type Seen = (usize, usize, usize, usize, bool);

fn row((client, server, port, app, by_client): Seen) -> Row {
    Row {
        reporter: format!("uid-{}", if by_client { client } else { server }).into(),
        inbound: !by_client,
        client: address(client),
        client_port: None,
        server: address(server),
        port: PORTS[port],
        proto: IpProto::TCP,
        app: APPS[app],
        action: PolicyAction::Learn,
        rule: RuleId::IMPLICIT,
        bytes: 100,
        sessions: 9,
        violations: 0,
        first_seen: 1,
        last_seen: 2,
        threat: ThreatId::default(),
        severity: Severity::None,
    }
}

/// The verdict of every flow that there may be.
fn verdicts(learner: &Learner) -> Vec<(usize, usize, u16, AppId, outrider_model::Verdict)> {
    let mut all = Vec::new();
    for client in 0..PODS.len() + OTHERS.len() {
        for server in 0..PODS.len() + OTHERS.len() {
            for port in PORTS {
                for app in APPS {
                    let question = Question {
                        client: Place::Address(address(client)),
                        server: Place::Address(address(server)),
                        port,
                        proto: IpProto::TCP,
                        app: match app {
                            AppId::UNKNOWN => AppKnowledge::Unidentified,
                            app => AppKnowledge::Known(app),
                        },
                    };
                    let answer = learner.explain(&question).unwrap();
                    all.push((client, server, port, app, answer.verdict));
                }
            }
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_was_learned_comes_back_the_same(
        seen in prop::collection::vec((0usize..6, 0usize..6, 0usize..3, 0usize..4, any::<bool>()), 0..24),
    ) {
        let mut learned = node();
        let is_pod = |end: usize| end < PODS.len();
        for seen in seen.into_iter().filter(|seen| is_pod(if seen.4 { seen.0 } else { seen.1 })) {
            learned.observe(&row(seen));
        }
        for (service, namespace) in PODS {
            learned.set_mode(Group::of_service(service, namespace), Mode::Protect);
        }
        let rules: Vec<_> = learned.rules().map(shown::rule).collect();
        let made = code::export(&rules, &shown_workloads(), Form::Outrider, None);
        prop_assert_eq!(&made.left_out, &Vec::<String>::new());
        let mut resolver = Resolver::default();
        for (name, labels) in &world().namespaces {
            resolver.set_namespace(name, labels);
        }
        world().pods.values().for_each(|pod| resolver.set_pod(pod));
        resolver.set_objects(&objects(&code::write(&made.objects)));
        let mut fresh = node();
        for change in changes(&Plan::default(), resolver.plan()) {
            fresh.cluster(change).unwrap();
        }
        prop_assert_eq!(verdicts(&learned), verdicts(&fresh));
    }
}
