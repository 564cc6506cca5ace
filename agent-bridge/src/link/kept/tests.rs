use outrider_api::cluster::{Backends, ServicePort};
use outrider_learn::Settings;

use super::*;

fn learner() -> Learner {
    Learner::new(Settings::default())
}

fn whole() -> Update {
    let address = vec![10, 9, 0, 7];
    Update {
        epoch: "e".into(),
        revision: 4,
        whole: true,
        workloads: vec![Workload {
            uid: "far".into(),
            namespace: "shop".into(),
            name: "web-1".into(),
            service: "web".into(),
            addresses: vec![address],
            managed: true,
        }],
        sets: vec![SetChange {
            name: "clients".into(),
            whole: true,
            added: vec!["far".into()],
            networks: vec!["192.0.2.0/24".into()],
            ..SetChange::default()
        }],
        rules: vec![Rule {
            id: 200_000,
            from: "clients".into(),
            to: "nv.cache.shop".into(),
            origin: "NetworkRule/shop/a/b".into(),
            ..Rule::default()
        }],
        modes: vec![WireMode { uid: "near".into(), mode: "protect".into() }],
        internal: vec!["10.9.0.0/16".into()],
        services: vec![service()],
        ..Update::default()
    }
}

fn service() -> Service {
    let backends = Backends {
        group: "nv.web.shop".into(),
        managed: true,
        targets: vec![8080],
        addresses: vec![vec![10, 9, 0, 7]],
        uids: vec!["far".into()],
    };
    Service {
        namespace: "shop".into(),
        name: "web".into(),
        addresses: vec![vec![10, 96, 0, 9]],
        ports: vec![ServicePort { proto: 6, port: 80 }],
        backends: vec![backends],
        ..Service::default()
    }
}

/// What the store has after `changes`, over what it had.
fn store(rows: &mut BTreeMap<Vec<u8>, Vec<u8>>, kept: &mut Kept) {
    let mut changes = Vec::new();
    kept.take_changes(&mut changes);
    for change in changes {
        assert_eq!(change.table, Table::Cluster);
        match change.value {
            Some(value) => drop(rows.insert(change.key, value)),
            None => drop(rows.remove(&change.key)),
        }
    }
}

fn restored(rows: &BTreeMap<Vec<u8>, Vec<u8>>) -> (Kept, Learner) {
    let (mut kept, mut learner) = (Kept::default(), learner());
    for (key, value) in rows {
        assert!(kept.restore(key, value, &mut learner), "{key:?}");
    }
    (kept, learner)
}

#[test]
fn what_was_said_comes_back_from_the_store_change_by_change() {
    let (mut kept, mut learner, mut rows) = (Kept::default(), learner(), BTreeMap::new());
    kept.take(whole(), &mut learner, 0);
    store(&mut rows, &mut kept);
    let change = SetChange {
        name: "clients".into(),
        added: vec!["another".into()],
        removed: vec!["far".into()],
        ..SetChange::default()
    };
    let update = Update {
        epoch: "e".into(),
        revision: 5,
        sets: vec![change],
        workloads_gone: vec!["far".into()],
        ..Update::default()
    };
    kept.take(update, &mut learner, 0);
    store(&mut rows, &mut kept);
    let (kept, learner) = restored(&rows);
    assert_eq!(kept.revision(), ("e".into(), 5));
    assert_eq!(kept.internal(), ["10.9.0.0/16".parse().unwrap()].into());
    let set = &kept.sets["clients"];
    assert_eq!((set.uids.iter().next().unwrap().as_str(), set.uids.len()), ("another", 1));
    assert_eq!(set.said.networks, ["192.0.2.0/24"]);
    assert_eq!(learner.said().rules().count(), 1);
    assert_eq!(learner.said().mode("near"), Some(outrider_model::Mode::Protect));
    assert_eq!(learner.directory().remote().count(), 0);
    let reached = |learner: &Learner| {
        let proto = outrider_model::IpProto::TCP;
        learner
            .directory()
            .reached([10, 96, 0, 9].into(), proto, 80)
    };
    assert_eq!(reached(&learner).unwrap().port, 8080);
    let (mut kept, mut learner) = (kept, learner);
    let gone = Update { services_gone: vec!["shop/web".into()], ..Update::default() };
    kept.take(gone, &mut learner, 0);
    store(&mut rows, &mut kept);
    assert_eq!((reached(&learner), reached(&restored(&rows).1)), (None, None));
}

#[test]
fn the_whole_takes_the_place_of_what_was_said() {
    let (mut kept, mut learner, mut rows) = (Kept::default(), learner(), BTreeMap::new());
    kept.take(whole(), &mut learner, 0);
    store(&mut rows, &mut kept);
    let update = Update { epoch: "f".into(), revision: 1, whole: true, ..Update::default() };
    kept.take(update, &mut learner, 0);
    store(&mut rows, &mut kept);
    assert_eq!(rows.len(), 1, "no more than how far it is");
    assert_eq!(learner.said().rules().count(), 0);
    assert_eq!(learner.directory().remote().count(), 0);
    assert!(kept.internal().is_empty());
}

#[test]
fn what_cannot_be_read_is_counted_and_not_kept() {
    let (mut kept, mut learner) = (Kept::default(), learner());
    let mut odd = whole();
    odd.workloads[0].addresses[0].push(0);
    odd.sets[0].networks.push("somewhere".into());
    odd.rules[0].low_port = 1 << 16;
    odd.modes[0].mode = "quarantine".into();
    let of = |change: fn(&mut Service)| {
        let mut service = service();
        change(&mut service);
        service
    };
    odd.services = vec![
        of(|one| one.name = "../..".into()),
        of(|one| one.addresses[0].push(0)),
        of(|one| one.ports[0].port = 1 << 16),
        of(|one| one.ports = vec![ServicePort { proto: 6, port: 80 }; 65]),
        of(|one| one.backends[0].group = "external".into()),
        of(|one| one.backends[0].targets.clear()),
        of(|one| one.backends[0].addresses[0].clear()),
    ];
    let services = odd.services.len() as u64;
    kept.take(odd, &mut learner, 0);
    assert_eq!(kept.refused(), 4 + services);
    assert!(kept.services.is_empty());
    assert!(kept.workloads.is_empty() && kept.sets.is_empty());
    assert!(kept.rules.is_empty() && kept.modes.is_empty());
    assert!(!kept.restore(b"x?", b"", &mut learner), "no such row");
}
