//! Who is who, and for how long.

use super::*;
use crate::MAX_GONE;

fn workload(uid: &str, addresses: Vec<IpAddr>) -> Workload {
    Workload {
        uid: uid.into(),
        name: format!("default/{uid}"),
        namespace: "default".into(),
        service: uid.into(),
        addresses,
        mac: None,
        labels: BTreeMap::new(),
        managed: true,
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn an_address_is_a_workload_a_node_internal_or_external() {
    let mut directory = Directory::default();
    directory
        .enter(workload("web", vec![ip("10.0.0.2"), ip("fd00::2")]))
        .unwrap();
    directory.set_hosts([ip("10.0.0.1")]);
    directory.set_internal(vec!["10.0.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()]);
    let group = |text| {
        directory
            .group(&directory.endpoint(ip(text)))
            .map(|group| group.name().to_owned())
    };
    assert_eq!(group("::ffff:10.0.0.2").as_deref(), Some("nv.web.default"));
    assert_eq!(group("fd00::2").as_deref(), Some("nv.web.default"));
    assert_eq!(group("10.0.0.1").as_deref(), Some("nodes"));
    assert_eq!(group("10.0.0.7").as_deref(), Some("Workload:10.0.0.7"));
    assert_eq!(group("192.0.2.1").as_deref(), Some("external"));
    assert_eq!(directory.name(&directory.endpoint(ip("fd00::2"))), "default/web");
    assert_eq!(directory.name(&Endpoint::Workload("gone".into())), "gone");
}

#[test]
fn an_address_goes_back_to_who_else_has_it() {
    let mut directory = Directory::default();
    directory
        .enter(workload("a", vec![ip("10.0.0.2")]))
        .unwrap();
    directory
        .enter(workload("b", vec![ip("10.0.0.2")]))
        .unwrap();
    assert!(directory.remove("a", 5) && !directory.remove("a", 5));
    assert_eq!(directory.endpoint(ip("10.0.0.2")), Endpoint::Workload("b".into()));
}

#[test]
fn who_left_is_still_understood_for_flows_that_began_before() {
    let mut directory = Directory::default();
    directory
        .enter(workload("a", vec![ip("10.0.0.2")]))
        .unwrap();
    directory.remove("a", 100);
    assert!(directory.get("a").is_none());
    let a = Endpoint::Workload("a".into());
    assert_eq!(directory.endpoint_at(ip("10.0.0.2"), 100), a);
    assert_eq!(directory.endpoint_at(ip("10.0.0.2"), 101), directory.endpoint(ip("10.0.0.2")));
    assert_eq!(directory.group(&a).unwrap().name(), "nv.a.default");
    directory
        .enter(workload("b", vec![ip("10.0.0.2")]))
        .unwrap();
    assert_eq!(directory.endpoint_at(ip("10.0.0.2"), 1), Endpoint::Workload("b".into()));
    directory.remove("b", 1_000);
    assert_eq!(directory.group(&a), None, "it is forgotten in time");
}

#[test]
fn who_left_is_bounded() {
    let mut directory = Directory::default();
    for at in 0..=MAX_GONE {
        directory
            .enter(workload(&at.to_string(), Vec::new()))
            .unwrap();
        directory.remove(&at.to_string(), u64::try_from(at).unwrap() / 10);
    }
    assert!(directory.entry("0").is_none() && directory.entry("1").is_some());
}

#[test]
fn workloads_and_their_addresses_are_bounded() {
    let mut directory = Directory::default();
    let many = vec![ip("10.0.0.2"); MAX_ADDRESSES + 1];
    assert_eq!(directory.enter(workload("a", many)), Err(LearnError::TooManyAddresses));
    for at in 0..MAX_WORKLOADS {
        let entry = Entry { workload: workload("w", Vec::new()), group: Group::named("w") };
        directory.workloads.insert(at.to_string().into(), entry);
    }
    let refused = directory.enter(workload("late", Vec::new()));
    assert_eq!(refused, Err(LearnError::TooManyWorkloads));
    assert_eq!(directory.enter(workload("0", Vec::new())), Ok(()));
}

#[test]
fn every_class_of_section_has_its_place() {
    let mut directory = Directory::default();
    directory
        .enter(workload("web", vec![ip("10.0.0.2")]))
        .unwrap();
    directory.set_hosts([ip("10.0.0.1")]);
    directory.set_tunnels([ip("10.0.0.0"), ip("::ffff:10.0.1.0")]);
    let net = |text: &str| text.parse::<IpNet>().unwrap();
    directory.set_internal(vec![net("10.0.0.0/8")]);
    let groups = [("192.0.2.0/24", "office"), ("192.0.2.7/32", "printer"), ("10.9.0.0/16", "lab")];
    directory.set_address_groups(
        groups
            .map(|(text, name)| (net(text), Group::named(name)))
            .into_iter()
            .chain([(net("0.0.0.0/0"), Group::named("nv.web.default"))]),
    );
    let said = |address: &str| {
        let end = directory.endpoint(ip(address));
        (end.class(), directory.name(&end), directory.group(&end).unwrap().to_string())
    };
    let same = |class, name: &str| (class, name.to_owned(), name.to_owned());
    assert_eq!(said("10.0.1.0"), same("ingress", "Workload:ingress"));
    assert_eq!(said("10.0.0.1"), ("host", "Host:10.0.0.1".into(), "nodes".into()));
    assert_eq!(said("192.0.2.8"), same("address-group", "office"));
    assert_eq!(said("192.0.2.7"), same("address-group", "printer"));
    assert_eq!(said("10.9.0.1"), same("address-group", "lab"));
    assert_eq!(said("10.8.0.1"), ("unmanaged", "10.8.0.1".into(), "Workload:10.8.0.1".into()));
    assert_eq!(said("198.51.100.1"), same("external", "external"));
    assert_eq!(said("10.0.0.2"), ("workload", "default/web".into(), "nv.web.default".into()));
}

#[test]
fn an_outside_address_goes_by_the_name_its_client_was_given() {
    let mut directory = Directory::default();
    directory
        .enter(workload("web", vec![ip("10.0.0.2")]))
        .unwrap();
    directory.set_internal(vec!["10.0.0.0/8".parse().unwrap()]);
    directory
        .names_mut()
        .add("web", ip("192.0.2.1"), "api.example", 100);
    directory
        .names_mut()
        .add("web", ip("10.0.0.9"), "inside.example", 100);
    let server = |address, client| directory.server_at(ip(address), client, 200);
    assert_eq!(server("192.0.2.1", "web"), Endpoint::Named("api.example".into()));
    assert_eq!(server("192.0.2.1", "shop"), Endpoint::External, "nobody else's word counts");
    assert_eq!(server("10.0.0.9", "web"), Endpoint::Unmanaged(ip("10.0.0.9")));
    let named = server("192.0.2.1", "web");
    assert_eq!(directory.group(&named).unwrap().name(), Group::EXTERNAL);
    assert_eq!(directory.name(&named), "api.example");
}
