use outrider_learn::Ends;
use outrider_model::IpProto;

use super::*;
use crate::controller::{
    plan::{NamedPort, Plan, Service, Slice, World},
    published::Change,
};

fn pod(name: &str, node: &str, ip: u8) -> Arc<Pod> {
    Arc::new(Pod {
        uid: format!("u-{name}").into(),
        namespace: "shop".into(),
        name: name.into(),
        service: name.into(),
        node: node.into(),
        addresses: vec![IpAddr::from([10, 0, 0, ip])],
        managed: true,
        ..Pod::default()
    })
}

fn world() -> World {
    let pods = [pod("web", "n1", 1), pod("db", "n2", 2), pod("far", "n3", 3)];
    World {
        pods: pods
            .into_iter()
            .map(|pod| (Arc::clone(&pod.uid), pod))
            .collect(),
        ..World::default()
    }
}

fn set(members: &[&str]) -> Arc<Set> {
    let members = members.iter().map(|uid| (*uid).into()).collect();
    Arc::new(Set { members: Arc::new(members), ..Set::default() })
}

fn rule(id: u32, from: &str, to: &str, ends: Ends) -> Arc<Rule> {
    Arc::new(Rule { id, from: from.into(), to: to.into(), ends, ..Rule::default() })
}

fn plan(rules: Vec<Arc<Rule>>, sets: Vec<(&str, Arc<Set>)>) -> Plan {
    Plan {
        rules: rules.into_iter().map(|rule| (rule.id, rule)).collect(),
        sets: sets
            .into_iter()
            .map(|(name, set)| (name.into(), set))
            .collect(),
        ..Plan::default()
    }
}

fn published(revision: u64, plan: &Plan) -> Published {
    let mut now = Published::after(revision - 1);
    now.take(Change::whole(&world(), plan), plan);
    now
}

fn ingress() -> Plan {
    let sets = vec![("webs", set(&["u-web"])), ("dbs", set(&["u-db"]))];
    plan(vec![rule(200_000, "webs", "dbs", Ends::Server)], sets)
}

#[test]
fn a_node_is_told_what_concerns_its_pods_and_no_more() {
    let now = published(1, &ingress());
    let update = Known::default().update("n2", &now, &[]).unwrap();
    assert!(update.whole);
    assert_eq!((update.rules.len(), update.sets.len(), update.workloads.len()), (1, 2, 2));
    for far in ["n1", "n3", "nowhere"] {
        let update = Known::default().update(far, &now, &[]).unwrap();
        assert!(update.whole && update.rules.is_empty() && update.workloads.is_empty(), "{far}");
    }
}

#[test]
fn after_the_first_only_changes_are_told() {
    let mut known = Known::default();
    known.update("n2", &published(1, &ingress()), &[]).unwrap();
    assert_eq!(known.update("n2", &published(2, &ingress()), &[]), None);
    let mut more = ingress();
    more.sets.insert("webs".into(), set(&["u-far", "u-web"]));
    let update = known.update("n2", &published(3, &more), &[]).unwrap();
    let change = &update.sets[0];
    assert!(!update.whole && !change.whole && update.rules.is_empty());
    assert_eq!((&change.added[..], change.removed.len()), (&["u-far".to_owned()][..], 0));
    assert_eq!(known.rule_since(200_000), Some(3), "its proxies have to catch up");
    let update = known
        .update("n2", &published(4, &Plan::default()), &[])
        .unwrap();
    assert_eq!((update.rules_gone, update.sets_gone.len()), (vec![200_000], 2));
    assert_eq!((update.workloads_gone.len(), known.rule_since(200_000)), (3, None));
}

#[test]
fn networks_and_everything_reach_whom_they_cover() {
    let mut wide = Set::default();
    wide.networks.push("10.0.0.0/31".parse().unwrap());
    let one = Set { networks: vec!["10.0.0.2/32".parse().unwrap()], ..Set::default() };
    let any = Set { any: true, ..Set::default() };
    for (from, nodes) in [(wide, &["n1"][..]), (one, &["n2"]), (any, &["n1", "n2", "n3"])] {
        let sets = vec![("them", Arc::new(from)), ("out", Arc::new(Set::default()))];
        let now = published(1, &plan(vec![rule(1, "them", "out", Ends::Client)], sets));
        let told = |node: &&str| {
            Known::default()
                .update(node, &now, &[])
                .unwrap()
                .rules
                .len()
                == 1
        };
        let found: Vec<_> = ["n1", "n2", "n3"].into_iter().filter(told).collect();
        assert_eq!(found, nodes);
    }
}

#[test]
fn questions_are_answered_and_remembered_up_to_a_bound() {
    let (mut known, now) = (Known::default(), published(1, &Plan::default()));
    let (far, nobody) = (IpAddr::from([10, 0, 0, 3]), IpAddr::from([192, 0, 2, 1]));
    known.ask([far, nobody].into_iter());
    let update = known.update("n1", &now, &[far, nobody]).unwrap();
    assert_eq!((&*update.workloads[0].name, update.unknown.len()), ("far", 1));
    let many = (0..u32::try_from(MAX_ASKED).unwrap()).map(|at| IpAddr::from(at.to_be_bytes()));
    assert_eq!(known.ask(many).len(), 2);
    let update = known.update("n1", &now, &[]).unwrap();
    assert_eq!(update.workloads_gone, ["u-far"]);
}

fn served(count: usize) -> World {
    let service = |at: usize| {
        let address = IpAddr::from((0x0a60_0000 + u32::try_from(at).unwrap()).to_be_bytes());
        Arc::new(Service {
            namespace: "shop".into(),
            name: format!("s{at:05}").into(),
            addresses: vec![address],
            borrowed: Vec::new(),
            ports: vec![NamedPort { name: "".into(), proto: IpProto::TCP, port: 80 }],
        })
    };
    let slice = |service: &Arc<Service>| {
        Arc::new(Slice {
            namespace: "shop".into(),
            service: Arc::clone(&service.name),
            name: Arc::clone(&service.name),
            ports: vec![NamedPort { name: "".into(), proto: IpProto::TCP, port: 8080 }],
            addresses: vec![IpAddr::from([10, 0, 0, 2])],
        })
    };
    let services: Vec<_> = (0..count).map(service).collect();
    World { slices: services.iter().map(slice).collect(), services, ..world() }
}

fn published_with(revision: u64, plan: &Plan, world: &World) -> Published {
    let mut now = Published::after(revision - 1);
    now.take(Change::whole(world, plan), plan);
    now
}

#[test]
fn services_of_peers_and_those_asked_for_are_told_changed_and_forgotten() {
    let mut world = served(1);
    let plan = || {
        let sets = vec![("webs", set(&["u-web"])), ("dbs", set(&["u-db"]))];
        plan(vec![rule(200_000, "webs", "dbs", Ends::Client)], sets)
    };
    let (mut near, mut far) = (Known::serving(), Known::serving());
    let now = published_with(1, &plan(), &world);
    let update = Known::default().update("n1", &now, &[]).unwrap();
    assert!(update.services.is_empty() && update.internal.is_empty(), "it knows of none");
    let update = near.update("n1", &now, &[]).unwrap();
    assert_eq!(update.services[0].backends[0].group, "nv.db.shop");
    assert_eq!(update.internal, ["10.96.0.0/24"]);
    assert_eq!(update.services[0].backends[0].targets, [8080]);
    assert!(far.update("n3", &now, &[]).unwrap().services.is_empty());
    let address = IpAddr::from([10, 96, 0, 0]);
    far.ask([address].into_iter());
    let update = far.update("n3", &now, &[address]).unwrap();
    assert_eq!((update.services.len(), update.unknown.len()), (1, 0));
    let again = published_with(2, &plan(), &world);
    assert_eq!(near.update("n1", &again, &[]), None, "nothing changed");
    let mut moved = Slice::clone(&world.slices[0]);
    moved.addresses = vec![IpAddr::from([10, 0, 0, 3])];
    world.slices = vec![Arc::new(moved)];
    let now = published_with(3, &plan(), &world);
    let update = far.update("n3", &now, &[]).unwrap();
    assert_eq!(update.services[0].backends[0].group, "nv.far.shop");
    let update = near.update("n1", &now, &[]).unwrap();
    assert_eq!(update.services_gone, ["shop/s00000"], "it is no peer's any more");
    world.services.clear();
    let update = far.update("n3", &published_with(4, &plan(), &world), &[]);
    assert_eq!(update.unwrap().services_gone, ["shop/s00000"]);
}

#[test]
fn a_node_is_told_of_so_many_services_and_those_it_asked_for_come_first() {
    let world = served(MAX_SERVICES + 2);
    let with = plan(
        vec![rule(200_000, "webs", "dbs", Ends::Client)],
        vec![("webs", set(&["u-web"])), ("dbs", set(&["u-db"]))],
    );
    let now = published_with(1, &with, &world);
    let mut known = Known::serving();
    let last = world.services.last().unwrap();
    known.ask(last.addresses.iter().copied());
    let update = known.update("n1", &now, &[]).unwrap();
    assert_eq!((update.services.len(), known.left_out), (MAX_SERVICES, 2));
    assert!(update.services.iter().any(|one| *one.name == *last.name));
}

#[test]
fn modes_are_of_own_pods_and_are_taken_back() {
    let mut with = Plan::default();
    with.modes.insert("u-web".into(), Mode::Protect);
    with.modes.insert("u-db".into(), Mode::Protect);
    let mut known = Known::default();
    let update = known.update("n1", &published(1, &with), &[]).unwrap();
    assert_eq!((update.modes.len(), &*update.modes[0].mode), (1, "protect"));
    assert_eq!(known.mode_since("u-web"), 1);
    let update = known
        .update("n1", &published(2, &Plan::default()), &[])
        .unwrap();
    assert_eq!((update.modes.len(), &*update.modes[0].mode), (1, ""));
}
