//! From what people wrote to what nodes need: objects, namespaces and pods in; sets, rules in order, modes and what is
//! to be said of each object out. Pure, and incremental: a pod that comes costs the objects that match it.

mod compile;
mod defined;
mod members;
mod modes;
mod numbers;
mod words;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::plan::{
    Changes, Kind, Labels, Object, ObjectKey, Objects, Plan, Pod, Set, Uids, Verdict, World,
};
use members::Members;
use modes::Modes;

/// The set that everything is in.
pub const ANY: &str = "any";

/// Keeps a [`Plan`] in line with what it is told.
#[derive(Debug, Default)]
pub struct Resolver {
    members: Members,
    modes: Modes,
    objects: defined::Objects,
    /// Objects that came, changed or went since the plan was made last.
    pending: BTreeMap<ObjectKey, Option<Object>>,
    plan: Plan,
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

    /// An object is there, or changed.
    pub fn set_object(&mut self, object: Object) {
        self.pending.insert(object.key(), Some(object));
    }

    /// An object is gone.
    pub fn remove_object(&mut self, key: &ObjectKey) {
        self.pending.insert(key.clone(), None);
    }

    /// Takes all objects: others are gone.
    pub fn set_objects(&mut self, objects: &Objects) {
        let gone = self.objects.keys().map(|key| (key.clone(), None));
        self.pending = gone.collect();
        objects.each().for_each(|object| self.set_object(object));
    }

    /// What all that comes to now. What did not change is the same `Arc` as before.
    pub fn plan(&mut self) -> &Plan {
        self.step();
        &self.plan
    }

    /// Brings the plan in line; says what of it may be other than before. Costs what the changes touch: an object its
    /// own sets and their members, a group also the objects that ask for it, a pod the sets that it is in.
    pub fn step(&mut self) -> Changes {
        let mut changes = Changes::default();
        let stirred = self.objects.take(std::mem::take(&mut self.pending));
        let mut judged = BTreeSet::new();
        for (set, says) in stirred.says {
            judged.extend(self.members.of(&set).iter().cloned());
            self.modes.define(&set, says);
            self.define(&set);
            judged.extend(self.members.of(&set).iter().cloned());
        }
        for set in &stirred.sets {
            self.define(set);
        }
        let touched = self.members.take_touched();
        for uid in &touched.uids {
            changes.sets.extend(self.members.sets_of(uid).cloned());
        }
        judged.extend(touched.uids);
        changes.sets.extend(touched.sets);
        changes.sets.extend(stirred.sets);
        self.modes
            .judge(&judged, &self.members, &mut self.plan.modes, &mut changes);
        for name in &changes.sets {
            self.gather(name);
            changes.verdicts.extend(self.objects.about(name).cloned());
        }
        for id in stirred.gone {
            if !stirred.rules.contains_key(&id) {
                self.plan.rules.remove(&id);
                changes.rules.insert(id);
            }
        }
        for (id, rule) in stirred.rules {
            let rule = kept(self.plan.rules.get(&id), rule);
            self.plan.rules.insert(id, rule);
            changes.rules.insert(id);
        }
        changes.verdicts.extend(stirred.objects);
        for key in &changes.verdicts {
            self.pronounce(key);
        }
        changes
    }

    /// The plan as it was made last.
    #[must_use]
    pub fn made(&self) -> &Plan {
        &self.plan
    }

    fn define(&mut self, set: &Arc<str>) {
        let definition = self.objects.definition(set);
        self.members
            .define(set, definition.map(|definition| &definition.selections));
    }

    /// Makes a set anew, if it is one that rules name.
    fn gather(&mut self, name: &Arc<str>) {
        let definition = self.objects.definition(name);
        let Some(definition) = definition.filter(|_| self.objects.is_named(name)) else {
            self.plan.sets.remove(name);
            return;
        };
        let fresh = Set {
            members: if definition.any { Uids::default() } else { self.members.of(name) },
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
    fn pronounce(&mut self, key: &ObjectKey) {
        let Some(noted) = self.objects.noted(key) else {
            self.plan.verdicts.remove(key);
            return;
        };
        let (mut workloads, mut count, mut contest) = (Uids::default(), 0, None);
        if let Some(set) = &noted.about {
            if matches!(noted.kind, Kind::Mode | Kind::ClusterMode) {
                (count, contest) = self.modes.of(set);
            } else {
                workloads = self.members.of(set);
                count = workloads.len();
            }
        }
        let is_empty = noted.empties && count == 0;
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
            count,
            workloads,
        };
        let verdict = kept(self.plan.verdicts.get(key), fresh);
        self.plan.verdicts.insert(key.clone(), verdict);
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
pub(super) mod tests;
