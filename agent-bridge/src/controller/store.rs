//! What the API server has, as far as it concerns us: filled by the watches, read when a plan is made.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::Hash,
    sync::Arc,
};

use ipnet::IpNet;
use kube::{ResourceExt, runtime::watcher::Event};
use outrider_telemetry::Gauge;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    nodes::{self, ApiNode},
    plan::{Labels, Objects, Pod, World},
    pods::{ApiPod, Shared},
};
use crate::cluster::objects::{
    ClusterNetworkRule, ClusterWorkloadGroup, ClusterWorkloadMode, LearnedPolicy, NetworkRule,
    WorkloadGroup, WorkloadMode,
};

/// Objects of one kind, and which of them the list that is under way has shown so far.
#[derive(Debug)]
pub(super) struct Table<V> {
    all: BTreeMap<Key, V>,
    listed: Option<HashSet<Key>>,
    synced: bool,
}

/// Namespace and name.
pub(super) type Key = (String, String);

impl<V> Default for Table<V> {
    fn default() -> Self {
        Self { all: BTreeMap::new(), listed: None, synced: false }
    }
}

impl<V> Table<V> {
    /// Takes in one event; `make` says what is kept. Says whether anything may have changed.
    pub(super) fn take<K: ResourceExt>(
        &mut self,
        event: Event<K>,
        make: impl FnOnce(K) -> Option<V>,
    ) -> bool {
        match event {
            Event::Init => {
                self.listed = Some(HashSet::new());
                false
            }
            Event::InitApply(object) => {
                let key = key(&object);
                if let Some(listed) = &mut self.listed {
                    listed.insert(key.clone());
                }
                self.put(key, make(object))
            }
            Event::InitDone => {
                if let Some(listed) = self.listed.take() {
                    self.all.retain(|key, _| listed.contains(key));
                }
                self.synced = true;
                true
            }
            Event::Apply(object) => self.put(key(&object), make(object)),
            Event::Delete(object) => self.all.remove(&key(&object)).is_some(),
        }
    }

    fn put(&mut self, key: Key, value: Option<V>) -> bool {
        match value {
            Some(value) => {
                self.all.insert(key, value);
                true
            }
            None => self.all.remove(&key).is_some(),
        }
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.all.values()
    }

    pub(super) fn get(&self, key: &Key) -> Option<&V> {
        self.all.get(key)
    }
}

pub(super) fn key<K: ResourceExt>(object: &K) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// Everything that is watched.
#[derive(Debug, Default)]
pub(super) struct Tables {
    shared: Shared,
    pub(super) pods: Table<Arc<Pod>>,
    pub(super) namespaces: Table<Arc<Labels>>,
    pub(super) nodes: Table<Vec<IpNet>>,
    pub(super) groups: Table<Arc<WorkloadGroup>>,
    pub(super) cluster_groups: Table<Arc<ClusterWorkloadGroup>>,
    pub(super) rules: Table<Arc<NetworkRule>>,
    pub(super) cluster_rules: Table<Arc<ClusterNetworkRule>>,
    pub(super) modes: Table<Arc<WorkloadMode>>,
    pub(super) cluster_modes: Table<Arc<ClusterWorkloadMode>>,
    pub(super) learned: Table<Arc<LearnedPolicy>>,
}

impl Tables {
    pub(super) fn pod(&mut self, event: Event<ApiPod>) -> bool {
        let shared = &mut self.shared;
        // Most of a pod's events are about what is not kept.
        if let Event::Apply(pod) = event {
            let key = key(&pod);
            let new = shared.pod(pod);
            if self.pods.get(&key).map(|known| &**known) == new.as_ref() {
                return false;
            }
            return self.pods.put(key, new.map(Arc::new));
        }
        self.pods.take(event, |pod| shared.pod(pod).map(Arc::new))
    }

    pub(super) fn node(&mut self, event: Event<ApiNode>) -> bool {
        if let Event::Apply(node) = event {
            let (key, new) = (key(&node), nodes::networks(&node));
            if self.nodes.get(&key) == Some(&new) {
                return false;
            }
            return self.nodes.put(key, Some(new));
        }
        self.nodes.take(event, |node| Some(nodes::networks(&node)))
    }

    /// What is not known yet.
    pub(super) fn missing(&self) -> Option<&'static str> {
        [
            (self.pods.synced, "pods"),
            (self.namespaces.synced, "namespaces"),
            (self.nodes.synced, "nodes"),
            (self.groups.synced, "workloadgroups"),
            (self.cluster_groups.synced, "clusterworkloadgroups"),
            (self.rules.synced, "networkrules"),
            (self.cluster_rules.synced, "clusternetworkrules"),
            (self.modes.synced, "workloadmodes"),
            (self.cluster_modes.synced, "clusterworkloadmodes"),
            (self.learned.synced, "learnedpolicies"),
        ]
        .into_iter()
        .find_map(|(synced, kind)| (!synced).then_some(kind))
    }

    pub(super) fn objects(&self) -> Objects {
        fn all<V>(table: &Table<Arc<V>>) -> Vec<Arc<V>> {
            table.values().map(Arc::clone).collect()
        }
        Objects {
            groups: all(&self.groups),
            cluster_groups: all(&self.cluster_groups),
            rules: all(&self.rules),
            cluster_rules: all(&self.cluster_rules),
            modes: all(&self.modes),
            cluster_modes: all(&self.cluster_modes),
        }
    }

    pub(super) fn world(&self) -> World {
        let pods = self
            .pods
            .values()
            .map(|pod| (Arc::clone(&pod.uid), Arc::clone(pod)));
        let namespaces = self.namespaces.all.iter();
        World {
            pods: pods.collect(),
            namespaces: namespaces
                .map(|((_, name), labels)| (name.clone(), Arc::clone(labels)))
                .collect(),
        }
    }

    /// Networks of pods, joined as far as they are neighbours.
    pub(super) fn internal(&self) -> Vec<IpNet> {
        let all: Vec<_> = self.nodes.values().flatten().copied().collect();
        let mut joined = IpNet::aggregate(&all);
        joined.truncate(MAX_INTERNAL);
        joined
    }
}

/// Networks of pods that bridges are told of.
const MAX_INTERNAL: usize = 4_096;

/// The tables, and who is told of changes.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) tables: Mutex<Tables>,
    /// Something has changed.
    pub(super) changed: Notify,
    /// Watches that fail, with what the API server says.
    failing: Mutex<HashMap<&'static str, String>>,
}

impl Store {
    /// A watch works, or fails.
    pub(super) fn watched(&self, kind: &'static str, failed: Option<String>, gauge: &Gauge) {
        let mut failing = self.failing.lock();
        match failed {
            Some(error) => failing.insert(kind, error),
            None => failing.remove(kind),
        };
        gauge.set(i64::try_from(failing.len()).unwrap_or(i64::MAX));
    }

    /// What is wrong with the API server, as the first failing watch says it.
    pub(super) fn failing(&self) -> Option<String> {
        let failing = self.failing.lock();
        failing
            .iter()
            .map(|(kind, error)| format!("{kind}: {error}"))
            .min()
    }
}

/// Kept from more than one kind by key.
pub(super) fn index<K: Eq + Hash, V>(all: impl Iterator<Item = (K, V)>) -> HashMap<K, Vec<V>> {
    let mut by_key: HashMap<K, Vec<V>> = HashMap::new();
    for (key, value) in all {
        by_key.entry(key).or_default().push(value);
    }
    by_key
}
