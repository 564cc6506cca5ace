use outrider_model::{AppId, PolicyAction};

use super::*;
use crate::{
    ClusterChange, Learner,
    world::{against, group, inbound, ip, outbound, world},
};

const AT: &str = "10.96.0.9";

/// Service default/web at 10.96.0.9 and fd00:96::9, port 80 to 8080 of these workloads of the small node.
pub(crate) fn service(groups: &[&str]) -> Service {
    let one = |name: &&str| {
        let own = crate::world::workload(
            name,
            match *name {
                "cache" => 2,
                "shop" => 3,
                "web" => 4,
                _ => 5,
            },
        );
        Backends {
            group: Some(own.group()),
            managed: own.managed,
            targets: vec![8080],
            members: own
                .addresses
                .iter()
                .map(|ip| (*ip, Some(Arc::clone(&own.uid))))
                .collect(),
        }
    };
    Service {
        name: "default/web".into(),
        addresses: vec![ip(AT), ip("fd00:96::9")],
        borrowed: Vec::new(),
        ports: vec![(IpProto::TCP, 80)],
        backends: groups.iter().map(one).collect(),
        partial: false,
    }
}

/// The same, to one address that is no pod's.
pub(crate) fn manual(address: &str) -> Service {
    let members = vec![(ip(address), None)];
    let backends = Backends { group: None, managed: false, targets: vec![8080], members };
    Service { backends: vec![backends], ..service(&[]) }
}

pub(crate) fn enter(learner: &mut Learner, service: Service) {
    learner.cluster(ClusterChange::Service(service)).unwrap();
}

fn with(service: Service) -> Learner {
    let mut learner = world();
    enter(&mut learner, service);
    learner
}

/// Two pods of web.
fn replicas(learner: &mut Learner) -> Service {
    let mut more = crate::world::workload("web", 9);
    more.uid = "uid-web-2".into();
    more.name = "default/web-2".into();
    learner.directory_mut().enter(more.clone()).unwrap();
    let mut service = service(&["web"]);
    let members = more
        .addresses
        .iter()
        .map(|ip| (*ip, Some(Arc::clone(&more.uid))));
    service.backends[0].members.extend(members);
    service
}

#[test]
fn a_flow_to_a_service_is_one_to_what_is_behind_it() {
    let learner = with(service(&["web"]));
    for at in [AT, "fd00:96::9"] {
        let reached = learner
            .directory()
            .peer(&outbound("shop", at, 80, AppId::HTTP));
        let web = Endpoint::Workload("uid-web".into());
        assert_eq!(reached, Reached { endpoint: web, port: 8080, managed: true }, "{at}");
    }
    let mut learner = world();
    let both = replicas(&mut learner);
    enter(&mut learner, both);
    let reached = learner
        .directory()
        .peer(&outbound("shop", AT, 80, AppId::HTTP));
    assert_eq!(reached.endpoint, Endpoint::Service("nv.web.default".into()));
    assert_eq!(learner.directory().name(&reached.endpoint), "default/web");
    assert_eq!(learner.directory().group(&reached.endpoint), Some(group("web")));
    assert_eq!((reached.port, reached.managed), (8080, true));
}

#[test]
fn both_ends_of_a_flow_through_a_service_count_once() {
    let mut learner = world();
    let both = replicas(&mut learner);
    enter(&mut learner, both);
    for _ in 0..4 {
        learner.observe(&outbound("shop", AT, 80, AppId::HTTP));
        learner.observe(&inbound("web", "10.0.0.3", 8080, AppId::HTTP));
    }
    let all: Vec<_> = learner.conversations().collect();
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!((all[0].sessions, all[0].key.port), (4, 8080));
    assert_eq!((learner.totals().sessions, learner.totals().mirrored_sessions), (4, 4));
    let rules: Vec<_> = learner.rules().map(|rule| rule.key.clone()).collect();
    assert_eq!(rules.len(), 1);
    assert_eq!((&rules[0].to, rules[0].port), (&group("web"), 8080));
}

#[test]
fn of_what_has_no_proxy_the_client_teaches_the_port_behind() {
    let mut unmanaged = service(&["web"]);
    unmanaged.backends[0].managed = false;
    let mut learner = with(unmanaged);
    for _ in 0..4 {
        learner.observe(&outbound("shop", AT, 80, AppId::HTTP));
    }
    let rules: Vec<_> = learner.rules().map(|rule| rule.key.clone()).collect();
    assert_eq!((rules.len(), &rules[0].to, rules[0].port), (1, &group("web"), 8080));
}

#[test]
fn what_is_behind_of_several_groups_or_ports_teaches_nothing_by_the_clients_word() {
    let mut two_ports = service(&["web", "web"]);
    two_ports.backends[1].targets = vec![8081];
    let mut unmanaged = service(&["web", "cache"]);
    for one in &mut unmanaged.backends {
        one.managed = false;
    }
    let partial = Service { partial: true, ..service(&["web"]) };
    for odd in [two_ports, unmanaged, partial, service(&[])] {
        let mut learner = with(odd);
        for _ in 0..4 {
            learner.observe(&outbound("shop", AT, 80, AppId::HTTP));
        }
        assert_eq!(learner.rules().count() + learner.candidates().count(), 0);
        for known in learner.conversations() {
            assert_eq!(known.key.server, Endpoint::Service("default/web".into()));
        }
    }
}

#[test]
fn what_is_no_pod_goes_by_the_services_name_or_by_what_it_is() {
    for (behind, class, name) in [
        ("192.0.2.66", "external-name", "web.default.svc"),
        ("10.0.0.1", "host", "Host:10.0.0.1"),
        ("10.0.0.77", "unmanaged", "10.0.0.77"),
    ] {
        let learner = with(manual(behind));
        let reached = learner
            .directory()
            .peer(&outbound("shop", AT, 80, AppId::HTTP));
        let found = learner.directory().name(&reached.endpoint);
        assert_eq!((reached.endpoint.class(), &*found), (class, name));
        assert_eq!((reached.port, reached.managed), (8080, false));
    }
}

#[test]
fn a_chosen_address_stays_what_it_is() {
    let mut borrows = service(&["web"]);
    borrows.borrowed = vec![ip("192.0.2.7"), ip("10.0.0.5")];
    let learner = with(borrows);
    let end = |at: &str| {
        learner
            .directory()
            .peer(&outbound("shop", at, 80, AppId::HTTP))
            .endpoint
    };
    assert_eq!(end("192.0.2.7"), Endpoint::External);
    assert_eq!(end("10.0.0.5"), Endpoint::Workload("uid-intruder".into()));
}

#[test]
fn what_was_counted_before_a_service_was_known_moves_to_what_is_behind() {
    let mut learner = world();
    let nets = ["10.0.0.0/24", "10.96.0.0/24", "fd00::/64"];
    learner
        .directory_mut()
        .set_internal(nets.map(|net| net.parse().unwrap()).to_vec());
    for _ in 0..4 {
        learner.observe(&outbound("shop", AT, 80, AppId::HTTP));
    }
    learner.observe(&against(outbound("shop", AT, 80, AppId::REDIS), PolicyAction::Violate, 1));
    assert_eq!(learner.rules().next().unwrap().key.to.name(), "Workload:10.96.0.9");
    let mut managed = learner.clone();
    enter(&mut managed, service(&["web"]));
    let totals = managed.totals();
    assert_eq!((totals.sessions, totals.mirrored_sessions), (1, 4));
    assert_eq!(managed.conversations().count(), 1, "what violated stays where it was seen");
    let mut unmanaged = service(&["web"]);
    unmanaged.backends[0].managed = false;
    enter(&mut learner, unmanaged);
    let moved = learner
        .conversations()
        .find(|known| known.key.app == AppId::HTTP)
        .unwrap();
    assert_eq!((&*moved.server_name, moved.sessions, moved.key.port), ("default/web", 4, 8080));
    for learner in [learner, managed] {
        let rules: Vec<_> = learner.rules().map(|rule| &rule.key).collect();
        assert_eq!((rules.len(), &rules[0].to, rules[0].port), (1, &group("web"), 8080));
    }
}

#[test]
fn a_service_that_is_gone_is_forgotten() {
    let mut learner = with(service(&["web"]));
    learner
        .cluster(ClusterChange::ServiceGone("default/web".into()))
        .unwrap();
    let reached = learner
        .directory()
        .peer(&outbound("shop", AT, 80, AppId::HTTP));
    assert_eq!(reached.endpoint, Endpoint::External);
    enter(&mut learner, service(&["web"]));
    learner.cluster(ClusterChange::Reset).unwrap();
    assert!(learner.directory().services.is_empty());
}

#[test]
fn an_unchanged_service_makes_nothing_stale() {
    let mut learner = with(service(&["web"]));
    learner.compile_changed();
    enter(&mut learner, service(&["web"]));
    assert!(!learner.is_stale());
    enter(&mut learner, service(&["cache"]));
    assert!(learner.is_stale());
}

#[test]
fn services_are_bounded_and_what_is_too_much_is_counted() {
    let mut learner = world();
    let named = |at: usize| Service { name: format!("n/{at}").into(), ..Service::default() };
    for at in 0..MAX_SERVICES {
        enter(&mut learner, named(at));
    }
    let refused = learner.cluster(ClusterChange::Service(named(MAX_SERVICES)));
    assert_eq!(refused, Err(LearnError::TooManyServices));
    // One that is there may change.
    let parts = vec![(IpProto::TCP, 1); MAX_SERVICE_PARTS + 1];
    let refused = learner.cluster(ClusterChange::Service(Service { ports: parts, ..named(0) }));
    assert_eq!(refused, Err(LearnError::TooManyServiceParts));
    let members = |count: usize| vec![(ip("10.0.0.9"), None); count];
    let big = |count| Backends { members: members(count), ..Backends::default() };
    let whole = Service { backends: vec![big(MAX_BACKENDS)], ..named(0) };
    enter(&mut learner, whole);
    let refused =
        learner.cluster(ClusterChange::Service(Service { backends: vec![big(1)], ..named(1) }));
    assert_eq!(refused, Err(LearnError::TooManyBackends));
    enter(&mut learner, named(0));
    let wide = |at: usize| {
        let address = |last: u8| IpAddr::from([10, 97, u8::try_from(at).unwrap(), last]);
        let ports = (0..64).map(|port| (IpProto::TCP, port)).collect();
        Service { addresses: (0..64).map(address).collect(), ports, ..named(at) }
    };
    let fit = MAX_DOORS / 64 / 64;
    (0..fit).for_each(|at| enter(&mut learner, wide(at)));
    let refused = learner.cluster(ClusterChange::Service(wide(fit)));
    assert_eq!(refused, Err(LearnError::TooManyServices));
    let odd = Service {
        backends: vec![Backends { targets: vec![1], ..Backends::default() }],
        ..named(fit + 1)
    };
    assert_eq!(learner.cluster(ClusterChange::Service(odd)), Err(LearnError::Senseless));
    assert_eq!(learner.said().refused()["too-many-services"], 2);
}
