use std::path::Path;

use outrider_wire::{Connection, ConnectionFlags, Connections, Notification};

use super::*;
use crate::{
    mailbox::{receive::Report, watch::Change},
    node::{
        LinkParts,
        bare::{restored, workload},
    },
    store::Store,
};

fn node(path: &Path) -> Node {
    let node = restored(&Store::open(path, 1).unwrap());
    let all: Vec<_> = (1..=3).map(|at| Change::Present(workload(at))).collect();
    node.update_roster(&all, Vec::new());
    node
}

/// A proxy that has what it was to have.
fn connect(node: &Node, at: u8) -> LinkParts {
    let link = node.attach(&format!("pod-{at}")).unwrap();
    link.state.send_modify(|state| state.connected = true);
    confirm(&link);
    link
}

fn confirm(link: &LinkParts) {
    let wanted = link.desired.borrow().generation;
    link.state.send_modify(|state| state.applied = wanted);
}

fn rules(link: &LinkParts) -> usize {
    link.desired.borrow().policy.spec.rules.len()
}

/// One of the outside talks to a pod on a port of its own, often enough for a rule.
fn learn(node: &Node, at: u8, port: u16) {
    let row = Connection {
        flags: ConnectionFlags::NONE.with(ConnectionFlags::INGRESS, true),
        client_ip: std::net::Ipv4Addr::new(192, 0, 2, 1).into(),
        server_ip: std::net::Ipv4Addr::new(10, 0, 0, at).into(),
        server_port: port,
        sessions: 9,
        bytes: 900,
        policy_action: outrider_model::PolicyAction::Learn.into(),
        ..Connection::default()
    };
    let notes = vec![Notification::from(Connections { rows: vec![row] })];
    node.enter(&Report { uid: format!("pod-{at}").into(), batch: None, notes, room: None });
}

#[test]
fn learned_policy_waits_for_who_has_the_last_one_to_confirm_and_a_mode_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let node = node(&dir.path().join("bridge.redb"));
    let (slow, quick) = (connect(&node, 1), connect(&node, 2));
    // On a busy machine one group may be all that a portion has time for.
    let publish = || (0..50).for_each(|_| node.state.lock().publish_some(PORTION));
    learn(&node, 1, 80);
    learn(&node, 2, 80);
    publish();
    assert_eq!((rules(&slow), rules(&quick)), (1, 1));
    confirm(&quick);
    learn(&node, 1, 81);
    learn(&node, 2, 81);
    publish();
    assert_eq!((rules(&slow), rules(&quick)), (1, 2), "one has its last policy to confirm");
    assert!(node.state.lock().policy_due.is_some(), "it is not forgotten");
    let (_, group, _) = node
        .state
        .lock()
        .set_mode("default/pod-1", Mode::Protect)
        .unwrap();
    node.state.lock().push(&group);
    assert_eq!((rules(&slow), slow.desired.borrow().policy.mode), (2, Mode::Protect));
    learn(&node, 2, 82);
    confirm(&slow);
    confirm(&quick);
    publish();
    assert_eq!(rules(&quick), 3);
    let mut state = node.state.lock();
    assert!(state.policy_due.is_none() && !state.learner.is_stale());
}
