//! Which pods are in which set, kept up to date pod by pod.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use ipnet::IpNet;

use crate::{
    cluster::objects::Selector,
    controller::plan::{Labels, Pod, Uids},
};

/// What a set is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Definition {
    /// Pods that any of these means.
    pub(super) selections: BTreeSet<Selection>,
    pub(super) networks: Vec<IpNet>,
    pub(super) names: Vec<Arc<str>>,
    pub(super) external: bool,
    pub(super) nodes: bool,
    pub(super) any: bool,
}

/// Pods by namespace and label.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Selection {
    pub(super) scope: Scope,
    /// All of them if empty.
    pub(super) pods: Selector,
}

/// Which namespaces.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Scope {
    One(Arc<str>),
    Labelled(Selector),
    All,
}

impl Selection {
    fn matches(&self, pod: &Pod, namespace: Option<&Labels>) -> bool {
        self.covers(&pod.namespace, namespace) && self.pods.matches(&pod.labels)
    }

    fn covers(&self, namespace: &str, labels: Option<&Labels>) -> bool {
        match &self.scope {
            Scope::One(name) => **name == *namespace,
            Scope::Labelled(selector) => labels.is_some_and(|labels| selector.matches(labels)),
            Scope::All => true,
        }
    }

    /// Under what a pod that matches is sure to look: its namespace, and one of its labels.
    fn place(&self) -> Place {
        let namespace = match &self.scope {
            Scope::One(name) => Some(Arc::clone(name)),
            Scope::Labelled(_) | Scope::All => None,
        };
        let label = self.pods.match_labels.first_key_value();
        (namespace, label.map(|(key, value)| (key.clone(), value.clone())))
    }
}

/// A namespace or all of them, and a label or none.
type Place = (Option<Arc<str>>, Option<(String, String)>);

/// Pods of a namespace by their labels.
type Kinds = HashMap<Arc<Labels>, HashSet<Arc<str>>>;

/// What changed since it was asked last.
#[derive(Debug, Default)]
pub(super) struct Touched {
    pub(super) sets: BTreeSet<Arc<str>>,
    pub(super) uids: BTreeSet<Arc<str>>,
}

/// All pods and sets.
#[derive(Debug, Default)]
pub(super) struct Members {
    pods: HashMap<Arc<str>, Arc<Pod>>,
    /// Uids by namespace, and by labels: pods of one template are looked at once.
    kinds: HashMap<Arc<str>, Kinds>,
    namespaces: HashMap<String, Arc<Labels>>,
    sets: BTreeMap<Arc<str>, BTreeSet<Selection>>,
    places: HashMap<Place, BTreeSet<Arc<str>>>,
    members: HashMap<Arc<str>, Uids>,
    of_pod: HashMap<Arc<str>, BTreeSet<Arc<str>>>,
    touched: Touched,
}

impl Members {
    pub(super) fn of(&self, set: &str) -> Uids {
        self.members.get(set).cloned().unwrap_or_default()
    }

    pub(super) fn sets_of(&self, uid: &str) -> impl Iterator<Item = &Arc<str>> {
        self.of_pod.get(uid).into_iter().flatten()
    }

    pub(super) fn take_touched(&mut self) -> Touched {
        std::mem::take(&mut self.touched)
    }

    pub(super) fn set_pod(&mut self, pod: &Arc<Pod>) {
        let before = self.pods.insert(Arc::clone(&pod.uid), Arc::clone(pod));
        if let Some(before) = before {
            if before == *pod {
                return;
            }
            self.leave_kind(&before);
        }
        let kinds = self.kinds.entry(Arc::clone(&pod.namespace)).or_default();
        let alike = kinds.entry(Arc::clone(&pod.labels)).or_default();
        alike.insert(Arc::clone(&pod.uid));
        self.place(pod);
    }

    pub(super) fn remove_pod(&mut self, uid: &str) {
        let Some(pod) = self.pods.remove(uid) else { return };
        self.leave_kind(&pod);
        for set in self.of_pod.remove(uid).unwrap_or_default() {
            if let Some(members) = self.members.get_mut(&set) {
                Arc::make_mut(members).remove(uid);
            }
            self.touched.sets.insert(set);
        }
        self.touched.uids.insert(Arc::clone(&pod.uid));
    }

    pub(super) fn set_namespace(&mut self, name: &str, labels: &Arc<Labels>) {
        let before = self.namespaces.insert(name.to_owned(), Arc::clone(labels));
        if before.as_ref() != Some(labels) {
            self.place_all(name);
        }
    }

    pub(super) fn remove_namespace(&mut self, name: &str) {
        if self.namespaces.remove(name).is_some() {
            self.place_all(name);
        }
    }

    /// Takes what a set is now; pods are looked at only if it is new or other than before.
    pub(super) fn define(&mut self, name: &Arc<str>, selections: Option<&BTreeSet<Selection>>) {
        let selections = selections.filter(|selections| !selections.is_empty());
        if self.sets.get(name) == selections {
            return;
        }
        self.forget(name);
        if let Some(selections) = selections {
            self.enter(name, selections);
        }
    }

    fn forget(&mut self, name: &Arc<str>) {
        for selection in self.sets.remove(name).unwrap_or_default() {
            let place = selection.place();
            if let Some(sets) = self.places.get_mut(&place) {
                sets.remove(name);
                if sets.is_empty() {
                    self.places.remove(&place);
                }
            }
        }
        for uid in self.members.remove(name).iter().flat_map(|all| &**all) {
            if let Some(sets) = self.of_pod.get_mut(uid) {
                sets.remove(name);
            }
        }
        self.touched.sets.insert(Arc::clone(name));
    }

    fn enter(&mut self, name: &Arc<str>, selections: &BTreeSet<Selection>) {
        let mut members = BTreeSet::new();
        for selection in selections {
            let only = match &selection.scope {
                Scope::One(namespace) => self.kinds.get_key_value(namespace),
                Scope::Labelled(_) | Scope::All => None,
            };
            let all = self.kinds.iter().filter(|_| only.is_none());
            let covered = only.into_iter().chain(all).filter(|(namespace, _)| {
                let labels = self.namespaces.get(&***namespace);
                selection.covers(namespace, labels.map(AsRef::as_ref))
            });
            let alike = covered.flat_map(|(_, kinds)| kinds);
            let meant = alike.filter(|(labels, _)| selection.pods.matches(labels));
            members.extend(meant.flat_map(|(_, uids)| uids).cloned());
            self.places
                .entry(selection.place())
                .or_default()
                .insert(Arc::clone(name));
        }
        for uid in &members {
            self.of_pod
                .entry(Arc::clone(uid))
                .or_default()
                .insert(Arc::clone(name));
        }
        self.members.insert(Arc::clone(name), Arc::new(members));
        self.sets.insert(Arc::clone(name), selections.clone());
        self.touched.sets.insert(Arc::clone(name));
    }

    fn leave_kind(&mut self, pod: &Pod) {
        let Some(kinds) = self.kinds.get_mut(&pod.namespace) else { return };
        if let Some(alike) = kinds.get_mut(&pod.labels) {
            alike.remove(&pod.uid);
            if alike.is_empty() {
                kinds.remove(&pod.labels);
            }
        }
        if kinds.is_empty() {
            self.kinds.remove(&pod.namespace);
        }
    }

    fn place_all(&mut self, namespace: &str) {
        let kinds = self.kinds.get(namespace).into_iter().flatten();
        let uids = kinds.flat_map(|(_, uids)| uids);
        let pods: Vec<_> = uids.filter_map(|uid| self.pods.get(uid)).cloned().collect();
        pods.iter().for_each(|pod| self.place(pod));
    }

    /// Puts a pod into the sets that mean it, and takes it out of the others.
    fn place(&mut self, pod: &Arc<Pod>) {
        let fresh = self.meant(pod);
        let before = self.of_pod.remove(&pod.uid).unwrap_or_default();
        for set in before.difference(&fresh) {
            if let Some(members) = self.members.get_mut(set) {
                Arc::make_mut(members).remove(&pod.uid);
            }
            self.touched.sets.insert(Arc::clone(set));
        }
        for set in fresh.difference(&before) {
            let members = self.members.entry(Arc::clone(set)).or_default();
            Arc::make_mut(members).insert(Arc::clone(&pod.uid));
            self.touched.sets.insert(Arc::clone(set));
        }
        if !fresh.is_empty() {
            self.of_pod.insert(Arc::clone(&pod.uid), fresh);
        }
        self.touched.uids.insert(Arc::clone(&pod.uid));
    }

    /// The sets that mean a pod: only those that ask for its namespace or none, and one of its labels or none, are
    /// looked at.
    fn meant(&self, pod: &Pod) -> BTreeSet<Arc<str>> {
        let namespace = self.namespaces.get(&*pod.namespace).map(AsRef::as_ref);
        let mut found = BTreeSet::new();
        let labels = pod
            .labels
            .iter()
            .map(|(key, value)| Some((key.clone(), value.clone())));
        for label in labels.chain([None]) {
            for scope in [Some(Arc::clone(&pod.namespace)), None] {
                let sets = self
                    .places
                    .get(&(scope, label.clone()))
                    .into_iter()
                    .flatten();
                let meant = sets.filter(|name| {
                    let selections = self.sets.get(*name).into_iter().flatten();
                    selections
                        .into_iter()
                        .any(|selection| selection.matches(pod, namespace))
                });
                found.extend(meant.cloned());
            }
        }
        found
    }
}
