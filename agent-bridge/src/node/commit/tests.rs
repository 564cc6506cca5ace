use std::path::Path;

use outrider_model::Mode;
use outrider_telemetry::Registry;
use outrider_wire::{Connection, Connections, Notification};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::*;
use crate::{
    counts::Counts,
    mailbox::watch::{self, Workload},
    neuvector::Controller,
    node::{LinkParts, Refusal},
    settings::Settings,
};

/// A node with one workload, its store and its end of the queue.
struct World {
    dir: tempfile::TempDir,
    node: Arc<Node>,
    link: LinkParts,
    reports: Lines,
    stop: CancellationToken,
    tasks: TaskTracker,
}

fn open(path: &Path) -> (Arc<Node>, Store) {
    let settings = Settings::read(|_| None).unwrap();
    let store = Store::open(path, 1).unwrap();
    let registry = Registry::default();
    let counts = Counts::register(&registry).unwrap();
    let export = Export::new(&settings.export, &registry).unwrap();
    let outlets = (export, Controller::new(None, &[], &registry).unwrap());
    (Arc::new(Node::restore(&settings, &store, counts, outlets).unwrap()), store)
}

fn workload() -> Workload {
    Workload {
        uid: "cache".into(),
        name: "default/cache".into(),
        namespace: "default".into(),
        service: "cache".into(),
        addresses: vec!["10.0.0.2".parse().unwrap()],
        mac: Default::default(),
        labels: Default::default(),
    }
}

/// The sessions of the only conversation.
fn sessions(node: &Node) -> u64 {
    let state = node.state.lock();
    let mut all = state.learner.conversations();
    all.next().map_or(0, |found| found.sessions)
}

impl World {
    /// `prepare` is handed the store and its path before anything is written.
    fn new(prepare: impl FnOnce(&mut Store, &Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bridge.redb");
        let (node, mut store) = open(&path);
        prepare(&mut store, &path);
        node.update_roster(&[watch::Change::Present(workload())], Vec::new());
        let link = node.attach("cache").unwrap();
        let reports = Lines::default();
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        tasks.spawn(Committer::new(Arc::clone(&node), store, reports.clone()).run(stop.clone()));
        Self { dir, node, link, reports, stop, tasks }
    }

    async fn report(&self, seq: u64) {
        let row = Connection { sessions: 1, bytes: 10, ..Connection::default() };
        let report = Report {
            uid: "cache".into(),
            batch: Some(BatchId { instance: 7, seq }),
            notes: vec![Notification::from(Connections { rows: vec![row] })],
            room: None,
        };
        self.reports.put(report).unwrap();
    }

    /// The next batch that is acknowledged.
    async fn acked(&mut self) -> u64 {
        match timeout(Duration::from_secs(10), self.link.commands.recv()).await {
            Ok(Some(Command::Ack(batch))) => batch.seq,
            other => panic!("{other:?}"),
        }
    }

    async fn until(&self, right: impl Fn(&Node) -> bool) {
        while !right(&self.node) {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn nothing_is_acknowledged_before_it_is_stored() {
    let mut world = World::new(|store, path| {
        store.let_go();
        std::fs::remove_file(path).unwrap();
        std::fs::create_dir(path).unwrap();
    });
    world.report(1).await;
    world.until(|node| node.not_ready().is_some()).await;
    assert!(world.link.commands.try_recv().is_err());
    assert!(world.node.status().store.failing.is_some());
    world.report(2).await;
    std::fs::remove_dir(world.dir.path().join("bridge.redb")).unwrap();
    assert_eq!((world.acked().await, world.acked().await), (1, 2));
    assert_eq!(world.node.not_ready(), None);
    assert_eq!(sessions(&world.node), 2, "nothing was lost or counted twice");
}

#[tokio::test]
async fn many_reports_share_a_transaction() {
    let mut world = World::new(|_, _| {});
    for seq in 1..=500 {
        world.report(seq).await;
    }
    for seq in 1..=64 {
        assert_eq!(world.acked().await, seq, "in order");
    }
    world.until(|node| sessions(node) == 500).await;
    let commits = world.node.status().store.commits;
    assert!(commits < 20, "{commits} transactions for 500 reports");
}

#[tokio::test]
async fn what_waits_when_it_stops_is_stored() {
    let world = World::new(|_, _| {});
    world.report(1).await;
    world.stop.cancel();
    world.tasks.close();
    world.tasks.wait().await;
    let (node, _store) = open(&world.dir.path().join("bridge.redb"));
    assert_eq!(sessions(&node), 1);
    assert!(
        !node
            .state
            .lock()
            .begin_batch("cache", BatchId { instance: 7, seq: 1 }, &node.counts)
    );
}

#[tokio::test(start_paused = true)]
async fn a_mode_that_cannot_be_stored_is_said_and_in_force() {
    let mut world = World::new(|store, path| {
        store.let_go();
        std::fs::remove_file(path).unwrap();
        std::fs::create_dir(path).unwrap();
    });
    let refused = world.node.set_mode("cache", Mode::Protect).await;
    assert!(matches!(refused, Err(Refusal::NotStored(_))), "{refused:?}");
    world.link.desired.changed().await.unwrap();
    assert_eq!(world.link.desired.borrow().policy.mode, Mode::Protect);
    std::fs::remove_dir(world.dir.path().join("bridge.redb")).unwrap();
    world.until(|node| node.not_ready().is_none()).await;
    world.stop.cancel();
    world.tasks.close();
    world.tasks.wait().await;
    let (node, _store) = open(&world.dir.path().join("bridge.redb"));
    node.update_roster(&[watch::Change::Present(workload())], Vec::new());
    let group = workload().group();
    assert_eq!(node.state.lock().learner.mode(&group), Mode::Protect);
}
