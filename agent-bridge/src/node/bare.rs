//! A node with one workload and nobody who writes to its store: for tests of what is asked of it.

use std::{net::Ipv4Addr, sync::Arc};

use outrider_model::MacAddr;
use outrider_telemetry::Registry;

use super::{Controller, Node};
use crate::{
    counts::Counts,
    export::Export,
    mailbox::watch::{Change, Workload},
    settings::Settings,
    store::{Change as Row, Store},
};

/// A node with what is in a store.
pub(crate) fn restored(store: &Store) -> Node {
    let settings = Settings::read(|_| None).unwrap();
    let registry = Registry::default();
    let counts = Counts::register(&registry).unwrap();
    let export = Export::new(&settings.export, &registry).unwrap();
    let outlets = (export, Controller::new(None, &[], &registry).unwrap());
    Node::restore(&settings, store, counts, outlets).unwrap()
}

/// Workload `pod-<at>`, the only one of its group, at 10.0.0.`at`.
pub(crate) fn workload(at: u8) -> Workload {
    Workload {
        uid: format!("pod-{at}"),
        name: format!("default/pod-{at}"),
        namespace: "default".into(),
        service: format!("pod-{at}"),
        addresses: vec![[10, 0, 0, at].into()],
        mac: Default::default(),
        labels: Default::default(),
    }
}

impl Node {
    /// Rows of the policy file that are to be stored.
    pub(crate) fn unsaved_numbers(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        self.state.lock().numbers.take_changes(&mut rows);
        rows
    }
}

pub(crate) fn bare(dir: &tempfile::TempDir) -> Arc<Node> {
    let node = restored(&Store::open(&dir.path().join("bridge.redb"), 1).unwrap());
    let workload = Workload {
        uid: "cache".into(),
        name: "default/cache".into(),
        namespace: "default".into(),
        service: "cache".into(),
        addresses: vec![Ipv4Addr::new(10, 0, 0, 2).into()],
        mac: MacAddr([2, 0, 0, 0, 0, 2]),
        labels: Default::default(),
    };
    node.update_roster(&[Change::Present(workload)], Vec::new());
    Arc::new(node)
}
