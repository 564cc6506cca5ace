//! From what people wrote to what nodes need: objects, namespaces and pods in; sets, rules in order, modes and what is
//! to be said of each object out. Pure, and incremental: a pod that comes costs the objects that match it.

mod compile;
mod members;
mod modes;
mod numbers;
mod words;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::plan::{Kind, Labels, Objects, Plan, Pod, Set, Verdict, World};
use compile::{Compiled, Noted, compile};
use members::Members;
use modes::Modes;
use numbers::Numbers;

/// The set that everything is in.
pub const ANY: &str = "any";

/// Keeps a [`Plan`] in line with what it is told.
#[derive(Debug, Default)]
pub struct Resolver {
    members: Members,
    modes: Modes,
    numbers: Numbers,
    compiled: Compiled,
    /// Verdicts by the set whose members they are about.
    about: BTreeMap<Arc<str>, Vec<usize>>,
    plan: Plan,
    /// The objects changed: everything but the members must be looked at again.
    fresh: bool,
}

impl Resolver {
    /// A pod is there, or changed.
    pub fn set_pod(&mut self, pod: &Arc<Pod>) {
        self.members.set_pod(pod);
    }

    /// A pod is gone.
    pub fn remove_pod(&mut self, uid: &str) {
        self.members.remove_pod(uid);
    }

    /// A namespace is there, or has other labels.
    pub fn set_namespace(&mut self, name: &str, labels: &Arc<Labels>) {
        self.members.set_namespace(name, labels);
    }

    /// A namespace is gone.
    pub fn remove_namespace(&mut self, name: &str) {
        self.members.remove_namespace(name);
    }

    /// Takes all objects, those that changed with those that did not. Costs as much as there are objects, and the
    /// members of what is new.
    pub fn set_objects(&mut self, objects: &Objects) {
        self.compiled = compile(objects, &mut self.numbers);
        self.members.define(&self.compiled.sets);
        self.modes.define(&self.compiled.modes);
        self.about = BTreeMap::new();
        for (at, noted) in self.compiled.noted.iter().enumerate() {
            if let Some(set) = &noted.about {
                self.about.entry(Arc::clone(set)).or_default().push(at);
            }
        }
        self.fresh = true;
    }

    /// What all that comes to now. What did not change is the same `Arc` as before.
    pub fn plan(&mut self) -> &Plan {
        let touched = self.members.take_touched();
        let fresh = std::mem::take(&mut self.fresh);
        let judged: BTreeSet<_> = match fresh {
            true => self.members.uids().cloned().chain(touched.uids).collect(),
            false => touched.uids,
        };
        let changed_modes = self
            .modes
            .judge(&judged, &self.members, &mut self.plan.modes);
        if fresh {
            self.refresh();
        } else {
            for name in &touched.sets {
                self.gather(name);
            }
            let about = touched
                .sets
                .iter()
                .filter_map(|name| self.about.get(name))
                .flatten();
            let mut again: BTreeSet<usize> = about.copied().collect();
            again.extend(changed_modes);
            for at in again {
                self.pronounce(at);
            }
        }
        &self.plan
    }

    /// Everything, after the objects changed.
    fn refresh(&mut self) {
        let sets = &self.compiled.sets;
        self.plan
            .sets
            .retain(|name, _| sets.get(name).is_some_and(|set| set.named));
        let names: Vec<_> = sets.keys().cloned().collect();
        names.iter().for_each(|name| self.gather(name));
        let rules = std::mem::take(&mut self.compiled.rules);
        let before = std::mem::take(&mut self.plan.rules);
        self.plan.rules = rules
            .into_iter()
            .map(|rule| (rule.id, kept(before.get(&rule.id), rule)))
            .collect();
        let keys: BTreeSet<_> = self.compiled.noted.iter().map(Noted::key).collect();
        self.plan.verdicts.retain(|key, _| keys.contains(key));
        for at in 0..self.compiled.noted.len() {
            self.pronounce(at);
        }
    }

    /// Makes a set anew, if it is one that rules name.
    fn gather(&mut self, name: &Arc<str>) {
        let Some(definition) = self.compiled.sets.get(name).filter(|set| set.named) else {
            return;
        };
        let members = match definition.any {
            true => BTreeSet::new(),
            false => self.members.of(name).cloned().unwrap_or_default(),
        };
        let fresh = Set {
            members,
            networks: definition.networks.clone(),
            names: definition.names.clone(),
            external: definition.external,
            nodes: definition.nodes,
            any: definition.any,
        };
        let set = kept(self.plan.sets.get(name), fresh);
        self.plan.sets.insert(Arc::clone(name), set);
    }

    /// Says what is to be said of an object.
    fn pronounce(&mut self, at: usize) {
        let Some(noted) = self.compiled.noted.get(at) else { return };
        let (mut workloads, mut contest) = (BTreeSet::new(), None);
        if let Some(set) = &noted.about {
            if matches!(noted.kind, Kind::Mode | Kind::ClusterMode) {
                (workloads, contest) = self.modes.of(set);
            } else {
                workloads = self.members.of(set).cloned().unwrap_or_default();
            }
        }
        let is_empty = noted.empties && workloads.is_empty();
        let (accepted, reason, message, field) = match (&noted.problem, contest) {
            (Some(problem), _) => {
                (false, problem.reason, problem.message.clone(), Some(problem.field.clone()))
            }
            (None, Some(contest)) => (true, "Contested", contest, None),
            (None, None) if is_empty => {
                (true, "NoWorkloads", "no pod matches now".to_owned(), None)
            }
            (None, None) => (true, "Accepted", "taken in".to_owned(), None),
        };
        let fresh = Verdict {
            kind: noted.kind,
            namespace: noted.namespace.clone(),
            name: noted.name.clone(),
            generation: noted.generation,
            accepted,
            reason,
            message,
            field,
            rules: noted.rules.clone(),
            workloads,
        };
        let key = noted.key();
        let verdict = kept(self.plan.verdicts.get(&key), fresh);
        self.plan.verdicts.insert(key, verdict);
    }
}

/// What was before, if it is the same.
fn kept<T: PartialEq>(before: Option<&Arc<T>>, fresh: T) -> Arc<T> {
    match before {
        Some(before) if **before == fresh => Arc::clone(before),
        _ => Arc::new(fresh),
    }
}

/// The same from scratch.
#[must_use]
pub fn resolve(objects: &Objects, world: &World) -> Plan {
    let mut resolver = Resolver::default();
    for (name, labels) in &world.namespaces {
        resolver.set_namespace(name, labels);
    }
    world.pods.values().for_each(|pod| resolver.set_pod(pod));
    resolver.set_objects(objects);
    resolver.plan().clone()
}

#[cfg(test)]
mod tests;
