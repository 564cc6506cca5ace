use std::{net::Ipv4Addr, sync::Arc};

use outrider_api::EventKind;
use outrider_model::{MacAddr, ThreatAction, ThreatId};
use outrider_telemetry::Registry;
use outrider_wire::{Text, ThreatActionCode, ThreatFlags};
use tokio::time::{advance, timeout};

use super::*;
use crate::{
    export::Export,
    mailbox::watch::Change,
    neuvector::Controller,
    node::{Heard, LinkParts, Listener, Node},
    settings::Settings,
    store::Store,
};

/// A client, a server, and who listens.
struct World {
    node: Arc<Node>,
    counts: Counts,
    server: LinkParts,
    listener: Listener,
    dir: tempfile::TempDir,
}

fn workload(name: &str, last: u8) -> Workload {
    Workload {
        uid: name.into(),
        name: format!("default/{name}"),
        namespace: "default".into(),
        service: name.into(),
        addresses: vec![Ipv4Addr::new(10, 0, 0, last).into()],
        mac: MacAddr([2, 0, 0, 0, 0, last]),
        labels: Default::default(),
    }
}

fn open(dir: &tempfile::TempDir) -> (Arc<Node>, Counts, Store) {
    let settings = Settings::read(|_| None).unwrap();
    let registry = Registry::default();
    let counts = Counts::register(&registry).unwrap();
    let export = Export::new(&settings.export, &registry).unwrap();
    let store = Store::open(&dir.path().join("bridge.redb"), 1).unwrap();
    let outlets = (export, Controller::new(None, &[], &registry).unwrap());
    let node = Node::restore(&settings, &store, counts.clone(), outlets).unwrap();
    (Arc::new(node), counts, store)
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (node, counts, _store) = open(&dir);
        Self::with(node, counts, dir)
    }

    fn with(node: Arc<Node>, counts: Counts, dir: tempfile::TempDir) -> Self {
        let both = [workload("client", 9), workload("server", 2)];
        node.update_roster(&both.map(Change::Present), Vec::new());
        let server = node.attach("server").unwrap();
        server.state.send_modify(|state| state.connected = true);
        let listener = node.events().listen(&[EventKind::Threat], None).unwrap();
        Self { node, counts, server, listener, dir }
    }

    /// One end's proxy reports a threat, and how often.
    fn says(&self, end: &str, count: u16, action: ThreatAction) {
        let inbound = end == "server";
        let flags = if inbound {
            ThreatFlags::PKT_INGRESS.with(ThreatFlags::SESS_INGRESS, true)
        } else {
            ThreatFlags::NONE
        };
        let log = ThreatLog {
            threat_id: ThreatId::SMUGGLING,
            reported_at: 9,
            count: count.into(),
            action: ThreatActionCode::from(action),
            flags,
            src_ip: Ipv4Addr::new(10, 0, 0, 9).into(),
            dst_ip: Ipv4Addr::new(10, 0, 0, 2).into(),
            src_port: 4000,
            dst_port: 80,
            message: Text::cut("two lengths"),
            ..ThreatLog::default()
        };
        let last = if inbound { 2 } else { 9 };
        let mut state = self.node.state.lock();
        state.enter_threat(&workload(end, last), &log, &self.counts);
    }

    async fn later(&self) {
        advance(HOLD).await;
        let mut state = self.node.state.lock();
        state.tell_held(Instant::now(), &self.counts);
    }

    /// Everything that was told: by whom, and how many findings.
    async fn told(&mut self) -> Vec<(String, u64)> {
        let mut all = Vec::new();
        while let Ok(Some(Heard::Event(_, body))) =
            timeout(Duration::from_millis(1), self.listener.next()).await
        {
            let Body::Threat(threat) = &*body else { continue };
            all.push((threat.workload.replace("default/", ""), threat.count));
        }
        all
    }
}

fn by(who: &str, count: u64) -> (String, u64) {
    (who.into(), count)
}

#[tokio::test(start_paused = true)]
async fn what_both_ends_report_is_told_once_whoever_is_first() {
    let mut world = World::new();
    world.says("client", 1, ThreatAction::Allow);
    world.says("server", 1, ThreatAction::Allow);
    world.says("server", 2, ThreatAction::Allow);
    world.says("client", 2, ThreatAction::Allow);
    assert_eq!(world.told().await, [by("server", 1), by("server", 2)]);
    world.later().await;
    assert_eq!(world.told().await, []);
}

#[tokio::test(start_paused = true)]
async fn what_only_the_client_saw_is_told_when_the_server_had_its_time() {
    let mut world = World::new();
    world.says("server", 1, ThreatAction::Allow);
    world.says("client", 3, ThreatAction::Allow);
    assert_eq!(world.told().await, [by("server", 1)]);
    world.later().await;
    assert_eq!(world.told().await, [by("client", 2)]);
    world.says("client", 1, ThreatAction::Allow);
    world.later().await;
    assert_eq!(world.told().await, [by("client", 1)], "the server's word stood for one already");
}

#[tokio::test(start_paused = true)]
async fn what_the_client_stopped_and_a_server_without_a_proxy_wait_for_nobody() {
    let mut world = World::new();
    world.says("client", 1, ThreatAction::Drop);
    assert_eq!(world.told().await, [by("client", 1)]);
    world
        .server
        .state
        .send_modify(|state| state.connected = false);
    world.says("client", 1, ThreatAction::Allow);
    assert_eq!(world.told().await, [by("client", 1)]);
}

#[tokio::test(start_paused = true)]
async fn nobody_keeps_the_servers_word_back() {
    let mut world = World::new();
    for _ in 0..5 {
        world.says("client", 200, ThreatAction::Allow);
    }
    world.later().await;
    assert_eq!(world.told().await, vec![by("client", 200); 5]);
    world.says("server", 1, ThreatAction::Allow);
    assert_eq!(world.told().await, [by("server", 1)]);
}

#[tokio::test(start_paused = true)]
async fn so_many_are_held_back_and_more_are_told_at_once() {
    let mut world = World::new();
    for _ in 0..=MAX_HELD {
        world.says("client", 1, ThreatAction::Allow);
    }
    assert_eq!(world.told().await, [by("client", 1)]);
    assert_eq!(world.node.state.lock().held.0.len(), MAX_HELD);
}

#[tokio::test(start_paused = true)]
async fn what_was_held_back_survives_a_restart_and_what_was_told_is_not_told_again() {
    let mut world = World::new();
    world.says("client", 1, ThreatAction::Allow);
    world.later().await;
    world.says("client", 2, ThreatAction::Allow);
    assert_eq!(world.told().await, [by("client", 1)]);
    let changes = world.node.state.lock().threats.take_changes();
    let World { dir, node, .. } = world;
    drop(node);
    let mut store = Store::open(&dir.path().join("bridge.redb"), 1).unwrap();
    store.commit(&changes).unwrap();
    drop(store);
    let (node, counts, _store) = open(&dir);
    let mut world = World::with(node, counts, dir);
    assert_eq!(world.told().await, []);
    world.later().await;
    assert_eq!(world.told().await, [by("client", 2)]);
}
