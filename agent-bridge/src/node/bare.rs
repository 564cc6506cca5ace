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
    store::Store,
};

pub(crate) fn bare(dir: &tempfile::TempDir) -> Arc<Node> {
    let settings = Settings::read(|_| None).unwrap();
    let registry = Registry::default();
    let counts = Counts::register(&registry).unwrap();
    let export = Export::new(&settings.export, &registry).unwrap();
    let store = Store::open(&dir.path().join("bridge.redb"), 1).unwrap();
    let outlets = (export, Controller::new(None, &[], &registry).unwrap());
    let node = Node::restore(&settings, &store, counts, outlets).unwrap();
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
