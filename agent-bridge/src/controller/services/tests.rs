use std::collections::{HashMap, HashSet};

use outrider_model::IpProto;

use super::*;
use crate::controller::plan::{NamedPort, World};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn port(name: &str, port: u16) -> NamedPort {
    NamedPort { name: name.into(), proto: IpProto::TCP, port }
}

fn service(ports: Vec<NamedPort>) -> Arc<Service> {
    Arc::new(Service {
        namespace: "shop".into(),
        name: "web".into(),
        addresses: vec![ip("10.96.0.9")],
        borrowed: Vec::new(),
        ports,
    })
}

fn slice(service: &str, ports: Vec<NamedPort>, addresses: &[&str]) -> Arc<Slice> {
    Arc::new(Slice {
        namespace: "shop".into(),
        service: service.into(),
        name: format!("{service}-{}", addresses[0]).into(),
        ports,
        addresses: addresses.iter().map(|text| ip(text)).collect(),
    })
}

fn world(
    slices: Vec<Arc<Slice>>,
    services: Vec<Arc<Service>>,
) -> (World, HashMap<IpAddr, Arc<Pod>>) {
    let pod = |name: &str, service: &str, at: u8, managed| {
        let addresses = vec![IpAddr::from([10, 0, 0, at])];
        Arc::new(Pod {
            uid: format!("u-{name}").into(),
            namespace: "shop".into(),
            name: name.into(),
            service: service.into(),
            addresses,
            managed,
            ..Pod::default()
        })
    };
    let pods = [pod("a", "web", 1, true), pod("b", "web", 2, true), pod("c", "canary", 3, false)];
    let by_address = pods.iter().map(|pod| (pod.addresses[0], Arc::clone(pod)));
    let by_address = by_address.collect();
    let pods = pods.into_iter().map(|pod| (Arc::clone(&pod.uid), pod));
    (World { pods: pods.collect(), slices, services, ..World::default() }, by_address)
}

fn only(world: &World, by_address: &HashMap<IpAddr, Arc<Pod>>) -> Served {
    but(world, by_address, &HashSet::new())
}

fn but(world: &World, by_address: &HashMap<IpAddr, Arc<Pod>>, left: &HashSet<IpAddr>) -> Served {
    let whose = |address| by_address.get(&address);
    served(&world.services[0], world.slices.iter(), whose, |address| left.contains(&address))
}

#[test]
fn backends_are_whose_addresses_they_are_and_alike_ones_are_together() {
    let ports = vec![port("http", 80), port("admin", 90)];
    let slices = vec![
        slice("web", vec![port("http", 8080), port("admin", 9090)], &["10.0.0.1", "10.0.0.2"]),
        // A named port that another version of the pods has elsewhere.
        slice("web", vec![port("http", 8081)], &["10.0.0.3"]),
    ];
    let (world, by_address) = world(slices, vec![service(ports)]);
    let served = only(&world, &by_address);
    assert!(!served.chosen && !served.said.partial);
    let told: Vec<_> = served
        .said
        .backends
        .iter()
        .map(|one| (&*one.group, one.managed, one.targets.clone(), one.uids.clone()))
        .collect();
    let text = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        told,
        [
            ("nv.canary.shop", false, vec![8081, 0], text(&["u-c"])),
            ("nv.web.shop", true, vec![8080, 9090], text(&["u-a", "u-b"])),
        ]
    );
}

#[test]
fn an_address_that_is_no_pods_is_told_as_such_to_everybody() {
    let slices = vec![slice("web", vec![port("", 443)], &["10.0.0.1", "192.0.2.66"])];
    let (mut world, by_address) = world(slices, vec![service(vec![port("", 443)])]);
    let served = only(&world, &by_address);
    assert!(served.chosen);
    let foreign = &served.said.backends[0];
    assert_eq!((&*foreign.group, foreign.addresses.len(), foreign.uids.len()), ("", 1, 0));
    // Of a pod that has just ended the slice will say so in a moment.
    let served = but(&world, &by_address, &[ip("192.0.2.66")].into());
    assert_eq!((served.chosen, served.said.backends.len()), (false, 1));
    let mut borrows = Service::clone(&world.services[0]);
    borrows.borrowed.push(ip("192.0.2.7"));
    world.services = vec![Arc::new(borrows)];
    assert!(only(&world, &by_address).chosen);
}

#[test]
fn what_is_too_much_is_said_to_be_more() {
    let ports: Vec<_> = (0..=MAX_PORTS)
        .map(|at| port(&at.to_string(), 80))
        .collect();
    let (w, by_address) = world(Vec::new(), vec![service(ports.clone())]);
    let served = only(&w, &by_address);
    assert_eq!((served.said.partial, served.said.ports.len()), (true, MAX_PORTS));
    let (w, by_address) = world(Vec::new(), vec![service(ports[..MAX_PORTS].to_vec())]);
    assert!(!only(&w, &by_address).said.partial);
    let many = |count: usize| {
        let addresses = (0..u32::try_from(count).unwrap()).map(|at| IpAddr::from(at.to_be_bytes()));
        let slice = Slice {
            namespace: "shop".into(),
            service: "web".into(),
            name: "web-1".into(),
            ports: vec![port("", 80)],
            addresses: addresses.collect(),
        };
        let (world, by_address) = world(vec![Arc::new(slice)], vec![service(vec![port("", 80)])]);
        let served = only(&world, &by_address);
        let told: usize = served
            .said
            .backends
            .iter()
            .map(|one| one.addresses.len())
            .sum();
        (served.said.partial, told)
    };
    assert_eq!(many(MAX_BACKENDS), (false, MAX_BACKENDS));
    assert_eq!(many(MAX_BACKENDS + 1), (true, MAX_BACKENDS));
}

#[test]
fn networks_hold_the_cluster_ips_and_little_else() {
    let of = |texts: &[&str]| {
        let mut networks = Networks::default();
        for text in texts {
            networks.enter(ip(text));
        }
        networks.all().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(of(&["10.96.0.1"]), ["10.96.0.0/24"]);
    assert_eq!(of(&["10.96.0.1", "10.96.77.3"]), ["10.96.0.0/17"]);
    assert_eq!(of(&["10.96.0.1", "10.97.0.1"]), ["10.96.0.0/24", "10.97.0.0/24"]);
    assert_eq!(of(&["fd00:96::1", "fd00:96::a0"]), ["fd00:96::/120"]);
    assert!(of(&[]).is_empty());
    let mut networks = Networks::default();
    assert!(networks.enter(ip("10.96.0.1")) && !networks.enter(ip("10.96.0.1")));
    assert!(networks.enter(ip("10.96.77.3")) && !networks.enter(ip("10.96.9.9")));
    assert!(!networks.leave(ip("10.96.0.1")) && networks.leave(ip("10.96.77.3")));
    assert!(networks.leave(ip("10.96.9.9")) && networks.leave(ip("10.96.0.1")));
    assert_eq!(networks, Networks::default());
}
