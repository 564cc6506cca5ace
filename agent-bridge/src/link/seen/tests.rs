use std::sync::Arc;

use outrider_learn::Workload;
use outrider_model::{PolicyAction, RuleId, Severity, ThreatId};

use super::*;

fn directory() -> Directory {
    let mut directory = Directory::default();
    for (name, last) in [("cache", 2), ("web", 4)] {
        directory.enter(workload(name, last)).unwrap();
    }
    directory.set_internal(vec!["10.0.0.0/8".parse().unwrap()]);
    directory
}

fn workload(name: &str, last: u8) -> Workload {
    Workload {
        uid: name.into(),
        name: format!("default/{name}"),
        namespace: "default".into(),
        service: name.into(),
        addresses: vec![IpAddr::from([10, 0, 0, last])],
        mac: None,
        labels: Default::default(),
        managed: true,
    }
}

/// Sessions that `cache` took from that client.
fn row(client: [u8; 4]) -> Row {
    Row {
        reporter: Arc::from("cache"),
        inbound: true,
        client: client.into(),
        client_port: None,
        server: IpAddr::from([10, 0, 0, 2]),
        port: 6379,
        proto: IpProto::TCP,
        app: AppId::REDIS,
        action: PolicyAction::Learn,
        rule: RuleId::IMPLICIT,
        bytes: 100,
        sessions: 1,
        violations: 0,
        first_seen: 1_000,
        last_seen: 1_001,
        threat: ThreatId::default(),
        severity: Severity::None,
    }
}

fn on() -> Seen {
    let mut seen = Seen::default();
    seen.switch_on();
    seen
}

#[tokio::test(start_paused = true)]
async fn sums_are_told_again_until_they_are_safe_and_once_only() {
    let (directory, mut seen) = (directory(), on());
    for _ in 0..3 {
        seen.note(&row([10, 0, 0, 4]), || true, &directory);
    }
    let first = seen.batch(&directory, |_| true).unwrap();
    assert_eq!((first.batch, first.conversations.len()), (1, 1));
    let told = &first.conversations[0];
    assert_eq!((told.sessions, told.bytes, told.learned), (3, 300, true));
    seen.note(&row([10, 0, 0, 4]), || true, &directory);
    assert_eq!(seen.batch(&directory, |_| false).unwrap(), first, "until it is acknowledged");
    assert!(!seen.acknowledged(7), "some other one");
    assert!(seen.acknowledged(1));
    let second = seen.batch(&directory, |_| false).unwrap();
    assert_eq!((second.batch, second.conversations[0].sessions), (2, 1));
    assert!(seen.acknowledged(2) && seen.batch(&directory, |_| false).is_none());
}

#[tokio::test(start_paused = true)]
async fn what_makes_no_rule_is_told_as_such() {
    let (mut directory, mut seen) = (directory(), on());
    seen.note(&row([10, 0, 0, 4]), || true, &directory);
    seen.note(&Row { sessions: 5, violations: 2, ..row([10, 0, 0, 4]) }, || false, &directory);
    // What its client tells of a server, that has a proxy of its own as turns out.
    let far = IpAddr::from([10, 9, 9, 9]);
    let opened = Row { inbound: false, server: far, ..row([10, 0, 0, 2]) };
    seen.note(&opened, || true, &directory);
    directory
        .enter_remote(Workload { addresses: vec![far], ..workload("far", 9) })
        .unwrap();
    let told = seen.batch(&directory, |_| false).unwrap().conversations;
    let one = |to: &str| {
        let one = told.iter().find(|one| one.to == to).unwrap();
        (one.sessions, one.violations, one.confirming)
    };
    assert_eq!((one("nv.cache.default"), one("nv.far.default")), ((6, 2, 3), (1, 0, 1)));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_not_known_is_asked_about_once_and_waited_for() {
    let (mut directory, mut seen) = (directory(), on());
    seen.note(&row([10, 9, 9, 9]), || true, &directory);
    assert_eq!(seen.questions(), [IpAddr::from([10, 9, 9, 9])]);
    assert!(seen.batch(&directory, |_| false).is_none(), "the answer may be on its way");
    seen.note(&row([10, 9, 9, 9]), || true, &directory);
    assert!(seen.questions().is_empty());
    let mut far = workload("far", 9);
    far.addresses = vec![IpAddr::from([10, 9, 9, 9])];
    directory.enter_remote(far).unwrap();
    let told = seen.batch(&directory, |_| false).unwrap();
    assert_eq!(
        (told.conversations[0].from.as_str(), told.conversations[0].sessions),
        ("nv.far.default", 2)
    );
}

#[tokio::test(start_paused = true)]
async fn an_address_that_is_nobodys_is_told_as_itself_after_a_while() {
    let (directory, mut seen) = (directory(), on());
    seen.note(&row([10, 9, 9, 9]), || true, &directory);
    assert_eq!(seen.questions().len(), 1);
    tokio::time::advance(PATIENCE).await;
    let told = seen.batch(&directory, |_| false).unwrap();
    assert_eq!(told.conversations[0].from, "Workload:10.9.9.9");
    tokio::time::advance(NOBODYS).await;
    seen.note(&row([10, 9, 9, 9]), || true, &directory);
    assert_eq!(seen.questions().len(), 1, "somebody may have it by now");
}

#[tokio::test(start_paused = true)]
async fn what_finds_no_room_is_counted() {
    let (directory, mut seen) = (directory(), on());
    for port in 0..=u16::try_from(MAX_PENDING).unwrap() {
        seen.note(&Row { port, ..row([10, 0, 0, 4]) }, || true, &directory);
    }
    assert_eq!(seen.waiting(), (MAX_PENDING as u64, 1));
    assert_eq!(
        seen.batch(&directory, |_| false)
            .unwrap()
            .conversations
            .len(),
        MAX_BATCH
    );
    for address in 0..20_000_u32 {
        seen.wonder(IpAddr::from(address.to_be_bytes()));
    }
    assert_eq!(seen.asked.len(), MAX_ASKED);
}

/// Sessions that `web` opened to a Service, and that Service in front of pods of these groups.
fn through(groups: &[&str]) -> (Row, outrider_learn::ClusterChange) {
    let row = Row {
        reporter: Arc::from("web"),
        inbound: false,
        server: [10, 96, 0, 10].into(),
        port: 53,
        proto: IpProto::UDP,
        ..row([10, 0, 0, 4])
    };
    let backends = |(at, name): (usize, &&str)| outrider_learn::Backends {
        group: Some(Group::of_service(name, "kube-system")),
        managed: false,
        targets: vec![10_053],
        members: vec![(IpAddr::from([10, 1, 0, u8::try_from(at).unwrap()]), None)],
    };
    let service = outrider_learn::Service {
        name: "kube-system/kube-dns".into(),
        addresses: vec![[10, 96, 0, 10].into()],
        ports: vec![(IpProto::UDP, 53)],
        backends: groups.iter().enumerate().map(backends).collect(),
        ..outrider_learn::Service::default()
    };
    (row, outrider_learn::ClusterChange::Service(service))
}

#[tokio::test(start_paused = true)]
async fn a_services_address_is_asked_about_and_told_as_what_is_behind_it() {
    for (groups, told) in [(&["coredns"][..], true), (&["coredns", "other"], false)] {
        let mut learner = outrider_learn::Learner::default();
        *learner.directory_mut() = directory();
        let mut seen = on();
        let (row, service) = through(groups);
        seen.note(&row, || true, learner.directory());
        assert_eq!(seen.questions(), [IpAddr::from([10, 96, 0, 10])]);
        learner.cluster(service).unwrap();
        seen.note(&row, || true, learner.directory());
        let batch = seen.batch(learner.directory(), |_| false);
        // Of several groups the servers tell.
        assert_eq!(batch.is_some(), told, "{groups:?}");
        let Some(batch) = batch else { continue };
        assert_eq!(batch.conversations.len(), 1);
        let one = &batch.conversations[0];
        assert_eq!((&*one.to, one.port, one.sessions), ("nv.coredns.kube-system", 10_053, 2));
    }
}

#[test]
fn without_a_controller_nothing_is_kept() {
    let (directory, mut seen) = (directory(), Seen::default());
    seen.note(&row([10, 0, 0, 4]), || true, &directory);
    assert_eq!(seen.waiting(), (0, 0));
}
