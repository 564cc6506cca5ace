//! All objects, each compiled, and what they define together. Another form of one object touches its own sets and
//! rules; another form of a group also the objects that ask for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    compile::{Noted, Part, compile, said},
    members::Definition,
    modes::Says,
    numbers::Numbers,
};
use crate::controller::plan::{Kind, Object, ObjectKey, Rule};

/// A set, and how many objects say so.
#[derive(Debug, Default)]
pub(super) struct Defined {
    pub(super) definition: Definition,
    by: usize,
}

/// An object, and what it takes part in.
#[derive(Debug)]
struct Held {
    object: Object,
    noted: Noted,
    /// Sets that it defines, that its rules name, of groups that it asks for.
    sets: BTreeSet<Arc<str>>,
    named: BTreeSet<Arc<str>>,
    groups: BTreeSet<Arc<str>>,
    rules: Vec<u32>,
}

/// Everything that people wrote.
#[derive(Debug, Default)]
pub(super) struct Objects {
    held: BTreeMap<ObjectKey, Held>,
    sets: BTreeMap<Arc<str>, Defined>,
    /// How many objects' rules name a set.
    named: BTreeMap<Arc<str>, usize>,
    /// Objects by the groups that they ask for.
    askers: BTreeMap<Arc<str>, BTreeSet<ObjectKey>>,
    /// Objects by the set whose members they are about.
    about: BTreeMap<Arc<str>, BTreeSet<ObjectKey>>,
    numbers: Numbers,
}

/// What is other than before, once objects changed.
#[derive(Debug, Default)]
pub(super) struct Stirred {
    pub(super) objects: BTreeSet<ObjectKey>,
    pub(super) sets: BTreeSet<Arc<str>>,
    /// Rules that are there no more, unless they are among the next too.
    pub(super) gone: BTreeSet<u32>,
    pub(super) rules: BTreeMap<u32, Rule>,
    /// What the object of a set says about modes now.
    pub(super) says: BTreeMap<Arc<str>, Option<Says>>,
}

impl Objects {
    pub(super) fn keys(&self) -> impl Iterator<Item = &ObjectKey> {
        self.held.keys()
    }

    pub(super) fn noted(&self, key: &ObjectKey) -> Option<&Noted> {
        Some(&self.held.get(key)?.noted)
    }

    pub(super) fn definition(&self, set: &str) -> Option<&Definition> {
        Some(&self.sets.get(set)?.definition)
    }

    /// Whether it goes to the nodes.
    pub(super) fn is_named(&self, set: &str) -> bool {
        self.named.contains_key(set)
    }

    pub(super) fn about(&self, set: &str) -> impl Iterator<Item = &ObjectKey> {
        self.about.get(set).into_iter().flatten()
    }

    /// Takes objects that came or changed, and those that went. Numbers that a status says are read before any is
    /// given, and given in the order of kind, namespace and name.
    pub(super) fn take(&mut self, pending: BTreeMap<ObjectKey, Option<Object>>) -> Stirred {
        let mut stirred = Stirred::default();
        for (key, object) in &pending {
            match object {
                Some(object) => self.numbers.read(key, said(object)),
                None => self.numbers.forget(key),
            }
        }
        let is_group = |key: &ObjectKey| matches!(key.0, Kind::Group | Kind::ClusterGroup);
        let (groups, mut others): (BTreeMap<_, _>, BTreeMap<_, _>) =
            pending.into_iter().partition(|(key, _)| is_group(key));
        for (key, object) in groups {
            for set in self.replace(&key, object, &mut stirred) {
                for asker in self.askers.get(&set).into_iter().flatten() {
                    let asks = self.held.get(asker).map(|held| held.object.clone());
                    others.entry(asker.clone()).or_insert(asks);
                }
            }
        }
        for (key, object) in others {
            self.replace(&key, object, &mut stirred);
        }
        stirred
    }

    /// Puts an object in place of what it was; says which sets either form defines.
    fn replace(
        &mut self,
        key: &ObjectKey,
        object: Option<Object>,
        stirred: &mut Stirred,
    ) -> BTreeSet<Arc<str>> {
        let mut sets = BTreeSet::new();
        if let Some(held) = self.held.remove(key) {
            sets.extend(held.sets.iter().cloned());
            self.withdraw(key, held, stirred);
        }
        if let Some(object) = object {
            let part = compile(&object, &self.sets, &mut self.numbers);
            sets.extend(part.sets.keys().cloned());
            self.enter(key, object, part, stirred);
        }
        stirred.objects.insert(key.clone());
        stirred.sets.extend(sets.iter().cloned());
        sets
    }

    fn enter(&mut self, key: &ObjectKey, object: Object, part: Part, stirred: &mut Stirred) {
        let Part { noted, sets, named, groups, rules, says } = part;
        let held = Held {
            object,
            sets: sets.keys().cloned().collect(),
            rules: rules.iter().map(|rule| rule.id).collect(),
            noted,
            named,
            groups,
        };
        for (name, definition) in sets {
            let defined = self.sets.entry(name).or_default();
            defined.by += 1;
            defined.definition = definition;
        }
        for name in &held.named {
            *self.named.entry(Arc::clone(name)).or_default() += 1;
            stirred.sets.insert(Arc::clone(name));
        }
        for group in &held.groups {
            let askers = self.askers.entry(Arc::clone(group)).or_default();
            askers.insert(key.clone());
        }
        if let Some(set) = &held.noted.about {
            let about = self.about.entry(Arc::clone(set)).or_default();
            about.insert(key.clone());
            if says.is_some() {
                stirred.says.insert(Arc::clone(set), says);
            }
        }
        let rules = rules.into_iter().map(|rule| (rule.id, rule));
        stirred.rules.extend(rules);
        self.held.insert(key.clone(), held);
    }

    fn withdraw(&mut self, key: &ObjectKey, held: Held, stirred: &mut Stirred) {
        for name in held.sets {
            if let Some(defined) = self.sets.get_mut(&name) {
                defined.by -= 1;
                if defined.by == 0 {
                    self.sets.remove(&name);
                }
            }
        }
        for name in held.named {
            if let Some(count) = self.named.get_mut(&name) {
                *count -= 1;
                if *count == 0 {
                    self.named.remove(&name);
                }
            }
            stirred.sets.insert(name);
        }
        for group in held.groups {
            drop_from(&mut self.askers, &group, key);
        }
        if let Some(set) = &held.noted.about {
            drop_from(&mut self.about, set, key);
            if matches!(key.0, Kind::Mode | Kind::ClusterMode) {
                stirred.says.insert(Arc::clone(set), None);
            }
        }
        stirred.gone.extend(held.rules);
    }
}

fn drop_from(all: &mut BTreeMap<Arc<str>, BTreeSet<ObjectKey>>, set: &Arc<str>, key: &ObjectKey) {
    if let Some(keys) = all.get_mut(set) {
        keys.remove(key);
        if keys.is_empty() {
            all.remove(set);
        }
    }
}
