//! What people said, without a cluster.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use outrider_learn::ClusterChange;

use super::Node;
use crate::{
    cluster::objects::RuleNumber,
    controller::plan::{Labels, Pod, World},
    store::{Change, Table},
};

/// First byte of a row's key, beside those of what a controller said.
const ROW: u8 = b'n';

/// Numbers of rules by their object, as they were given: they stay with the rules over a restart.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    of: BTreeMap<String, Vec<RuleNumber>>,
    unsaved: BTreeSet<String>,
}

impl Numbers {
    /// All that there are; says whether any is another.
    fn keep(&mut self, now: BTreeMap<String, Vec<RuleNumber>>) -> bool {
        let gone = self.of.keys().filter(|object| !now.contains_key(*object));
        let other = now
            .iter()
            .filter(|(object, numbers)| self.of.get(*object) != Some(*numbers));
        let changed: Vec<_> = gone
            .chain(other.map(|(object, _)| object))
            .cloned()
            .collect();
        let is_other = !changed.is_empty();
        self.unsaved.extend(changed);
        self.of = now;
        is_other
    }

    /// Rows that changed since the last call.
    pub(super) fn take_changes(&mut self, changes: &mut Vec<Change>) {
        for object in std::mem::take(&mut self.unsaved) {
            let value = self.of.get(&object);
            let value = value.and_then(|numbers| serde_json::to_vec(numbers).ok());
            let key = [&[ROW], object.as_bytes()].concat();
            changes.push(Change { table: Table::Cluster, key, value });
        }
    }

    /// Takes back a row of the store, if it is one of these: whether it makes sense.
    pub(super) fn take_back(&mut self, key: &[u8], value: &[u8]) -> Option<bool> {
        let object = key.strip_prefix(&[ROW])?;
        let read = std::str::from_utf8(object).ok();
        let read = read.zip(serde_json::from_slice(value).ok());
        Some(
            read.map(|(object, numbers)| self.of.insert(object.to_owned(), numbers))
                .is_some(),
        )
    }
}

impl Node {
    /// Numbers that the rules of an object had before.
    pub(crate) fn numbers(&self, object: &str) -> Vec<RuleNumber> {
        let state = self.state.lock();
        state.numbers.of.get(object).cloned().unwrap_or_default()
    }

    /// Keeps the numbers of all objects of the policy file.
    pub(crate) fn keep_numbers(&self, all: BTreeMap<String, Vec<RuleNumber>>) {
        let mut state = self.state.lock();
        if state.numbers.keep(all) {
            state.version += 1;
        }
    }

    /// Who is here, as rules of people mean them. Of a namespace no more is known than its name, which is its label
    /// `kubernetes.io/metadata.name`.
    pub(crate) fn world(&self) -> World {
        let state = self.state.lock();
        let mut world = World::default();
        for workload in state.roster.all() {
            let namespace = &workload.namespace;
            let name = workload.name.rsplit('/').next().unwrap_or_default();
            let pod = Pod {
                uid: workload.uid.as_str().into(),
                namespace: namespace.as_str().into(),
                name: name.into(),
                service: workload.service.as_str().into(),
                node: Arc::default(),
                addresses: workload.addresses.clone(),
                labels: Arc::new(workload.labels.clone()),
                managed: true,
            };
            world.pods.insert(Arc::clone(&pod.uid), Arc::new(pod));
            let label = ("kubernetes.io/metadata.name".to_owned(), namespace.clone());
            let labels = || Arc::new(Labels::from(BTreeMap::from([label])));
            world
                .namespaces
                .entry(namespace.clone())
                .or_insert_with(labels);
        }
        world
    }

    /// Takes in what people said; the proxies hear of it a moment later.
    pub(crate) fn say(&self, changes: Vec<ClusterChange>) {
        let mut state = self.state.lock();
        for change in changes {
            if let Err(error) = state.learner.cluster(change) {
                tracing::warn!(%error, reason = error.reason(), "policy is not taken in whole");
            }
        }
        state.policy_changed();
    }
}
