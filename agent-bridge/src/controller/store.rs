//! What the API server has, as far as it concerns us: filled by the watches, read when a plan is made.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use ipnet::IpNet;
use kube::{ResourceExt, runtime::watcher::Event};
use outrider_telemetry::Gauge;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    nodes::{self, ApiNode},
    plan::{Labels, Object, Pod, Service, Slice},
    pods::{ApiPod, Shared},
    slices::{self, ApiService, ApiSlice},
};
use crate::cluster::objects::{
    ClusterNetworkRule, ClusterWorkloadGroup, ClusterWorkloadMode, LearnedPolicy, NetworkRule,
    WorkloadGroup, WorkloadMode,
};

/// Objects that changed which are told one by one; of more it is said that all may have.
const MAX_NEWS: usize = 16_384;

/// Objects of one kind, and which of them the list that is under way has shown so far.
#[derive(Debug)]
pub(super) struct Table<V> {
    all: BTreeMap<Key, V>,
    /// What was there before of what changed since it was asked last; nothing, if all may have.
    news: Option<HashMap<Key, Option<V>>>,
    listed: Option<HashSet<Key>>,
    synced: bool,
}

/// Namespace and name.
pub(super) type Key = (String, String);

impl<V> Default for Table<V> {
    fn default() -> Self {
        Self { all: BTreeMap::new(), news: None, listed: None, synced: false }
    }
}

/// What is there of a kind: all, or what changed, as it was and as it is.
#[derive(Debug)]
pub(super) enum News<V> {
    All(Vec<(Key, V)>),
    Some(Vec<(Key, Option<V>, Option<V>)>),
}

impl<V: Clone> Table<V> {
    /// What changed since this was asked last.
    pub(super) fn news(&mut self, whole: bool) -> News<V> {
        let news = self.news.replace(HashMap::new()).filter(|_| !whole);
        let all = self
            .all
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()));
        let Some(news) = news else { return News::All(all.collect()) };
        let now = |key: Key, before| {
            let now = self.all.get(&key).cloned();
            (key, before, now)
        };
        News::Some(
            news.into_iter()
                .map(|(key, before)| now(key, before))
                .collect(),
        )
    }

    /// Whether all may have changed.
    fn is_new(&self) -> bool {
        self.news.is_none()
    }

    fn note(&mut self, key: &Key, before: Option<V>) {
        let Some(news) = &mut self.news else { return };
        if !news.contains_key(key) {
            news.insert(key.clone(), before);
        }
        if news.len() > MAX_NEWS {
            self.news = None;
        }
    }

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
                self.put(&key, make(object))
            }
            Event::InitDone => {
                let listed = self.listed.take();
                let gone = |key: &&Key| listed.as_ref().is_some_and(|all| !all.contains(*key));
                let gone: Vec<_> = self.all.keys().filter(gone).cloned().collect();
                for key in &gone {
                    self.remove(key);
                }
                self.synced = true;
                true
            }
            Event::Apply(object) => self.put(&key(&object), make(object)),
            Event::Delete(object) => self.remove(&key(&object)),
        }
    }

    fn put(&mut self, key: &Key, value: Option<V>) -> bool {
        match value {
            Some(value) => {
                let before = self.all.insert(key.clone(), value);
                self.note(key, before);
                true
            }
            None => self.remove(key),
        }
    }

    fn remove(&mut self, key: &Key) -> bool {
        let before = self.all.remove(key);
        let was = before.is_some();
        if was {
            self.note(key, before);
        }
        was
    }

    pub(super) fn get(&self, key: &Key) -> Option<&V> {
        self.all.get(key)
    }
}

impl<V: PartialEq> Table<Arc<V>> {
    /// The same, where most events are about what is not kept.
    fn renew<K: ResourceExt>(
        &mut self,
        event: Event<K>,
        make: impl FnOnce(K) -> Option<V>,
    ) -> bool {
        if let Event::Apply(object) = event {
            let (key, new) = (key(&object), make(object));
            if self.get(&key).map(|known| &**known) == new.as_ref() {
                return false;
            }
            return self.put(&key, new.map(Arc::new));
        }
        self.take(event, |object| make(object).map(Arc::new))
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
    services: Table<Arc<Service>>,
    slices: Table<Arc<Slice>>,
    pub(super) groups: Table<Arc<WorkloadGroup>>,
    pub(super) cluster_groups: Table<Arc<ClusterWorkloadGroup>>,
    pub(super) rules: Table<Arc<NetworkRule>>,
    pub(super) cluster_rules: Table<Arc<ClusterNetworkRule>>,
    pub(super) modes: Table<Arc<WorkloadMode>>,
    pub(super) cluster_modes: Table<Arc<ClusterWorkloadMode>>,
    pub(super) learned: Table<Arc<LearnedPolicy>>,
}

impl Tables {
    /// Labels of namespaces, by name.
    pub(super) fn labels_of_namespaces(&self) -> BTreeMap<String, Arc<Labels>> {
        let all = self.namespaces.all.iter();
        all.map(|((_, name), labels)| (name.clone(), Arc::clone(labels)))
            .collect()
    }

    pub(super) fn pod(&mut self, event: Event<ApiPod>) -> bool {
        let shared = &mut self.shared;
        self.pods.renew(event, |pod| shared.pod(pod))
    }

    pub(super) fn node(&mut self, event: Event<ApiNode>) -> bool {
        if let Event::Apply(node) = event {
            let (key, new) = (key(&node), nodes::networks(&node));
            if self.nodes.get(&key) == Some(&new) {
                return false;
            }
            return self.nodes.put(&key, Some(new));
        }
        self.nodes.take(event, |node| Some(nodes::networks(&node)))
    }

    pub(super) fn service(&mut self, event: Event<ApiService>) -> bool {
        self.services.renew(event, slices::service)
    }

    pub(super) fn slice(&mut self, event: Event<ApiSlice>) -> bool {
        self.slices.renew(event, slices::slice)
    }

    /// What is not known yet.
    pub(super) fn missing(&self) -> Option<&'static str> {
        [
            (self.pods.synced, "pods"),
            (self.namespaces.synced, "namespaces"),
            (self.nodes.synced, "nodes"),
            (self.services.synced, "services"),
            (self.slices.synced, "endpointslices"),
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

    /// What changed since this was asked last, or all there is.
    pub(super) fn news(&mut self, whole: bool) -> Changed {
        let whole = whole || self.is_new();
        let (mut objects, mut nodes) = (Vec::new(), whole);
        enter(&mut objects, self.groups.news(whole), Object::Group);
        enter(&mut objects, self.cluster_groups.news(whole), Object::ClusterGroup);
        enter(&mut objects, self.rules.news(whole), Object::Rule);
        enter(&mut objects, self.cluster_rules.news(whole), Object::ClusterRule);
        enter(&mut objects, self.modes.news(whole), Object::Mode);
        enter(&mut objects, self.cluster_modes.news(whole), Object::ClusterMode);
        if let News::Some(changed) = self.nodes.news(whole) {
            nodes = !changed.is_empty();
        }
        Changed {
            whole,
            services: self.services.news(whole),
            slices: self.slices.news(whole),
            pods: self.pods.news(whole),
            namespaces: self.namespaces.news(whole),
            learned: self.learned.news(whole),
            internal: nodes.then(|| self.internal()),
            objects,
        }
    }

    /// Whether of any kind all may have changed.
    fn is_new(&self) -> bool {
        self.pods.is_new()
            || self.namespaces.is_new()
            || self.nodes.is_new()
            || self.services.is_new()
            || self.slices.is_new()
            || self.groups.is_new()
            || self.cluster_groups.is_new()
            || self.rules.is_new()
            || self.cluster_rules.is_new()
            || self.modes.is_new()
            || self.cluster_modes.is_new()
            || self.learned.is_new()
    }

    /// Networks of pods, joined as far as they are neighbours.
    fn internal(&self) -> Vec<IpNet> {
        let all: Vec<_> = self.nodes.all.values().flatten().copied().collect();
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

/// What is other than before, of everything that is watched.
#[derive(Debug)]
pub(super) struct Changed {
    /// It is all there is: what is not in it is not there.
    pub(super) whole: bool,
    pub(super) pods: News<Arc<Pod>>,
    pub(super) namespaces: News<Arc<Labels>>,
    pub(super) learned: News<Arc<LearnedPolicy>>,
    pub(super) objects: Vec<(Option<Object>, Option<Object>)>,
    /// Networks of pods, if a node changed.
    pub(super) internal: Option<Vec<IpNet>>,
    pub(super) services: News<Arc<Service>>,
    pub(super) slices: News<Arc<Slice>>,
}

/// Adds objects of one kind, of which what people wrote changed: what became of it may have all the time.
fn enter<K: ResourceExt>(
    objects: &mut Vec<(Option<Object>, Option<Object>)>,
    news: News<Arc<K>>,
    make: fn(Arc<K>) -> Object,
) {
    let is_same = |before: &Arc<K>, now: &Arc<K>| {
        let (before, now) = (before.meta(), now.meta());
        before.uid == now.uid && before.generation == now.generation
    };
    match news {
        News::All(all) => {
            objects.extend(all.into_iter().map(|(_, now)| (None, Some(make(now)))));
        }
        News::Some(changed) => objects.extend(
            changed
                .into_iter()
                .filter(|(_, before, now)| match (before, now) {
                    (Some(before), Some(now)) => !is_same(before, now),
                    _ => true,
                })
                .map(|(_, before, now)| (before.map(make), now.map(make))),
        ),
    }
}
