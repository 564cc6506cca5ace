//! Named sets of endpoints.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use outrider_policy::{IpNet, Name};

use super::MAX_TEXT;
use crate::{Group, LearnError, touched::Touched};

/// Sets that one node may know.
pub const MAX_SETS: usize = 16_384;

/// Members that all sets together may have.
pub const MAX_MEMBERS: usize = 1_048_576;

/// Networks and names that one set may have.
pub const MAX_SET_PARTS: usize = 1_024;

/// What a set is now, or what changed in it.
#[derive(Clone, Debug, PartialEq)]
pub struct SetChange {
    /// Its name; groups of services and the reserved groups are sets without being said.
    pub name: Group,
    /// Its members are those of `added` and no others, and the next fields count.
    pub whole: bool,
    /// Uids of new members.
    pub added: Vec<Arc<str>>,
    /// Uids of who is no member any more.
    pub removed: Vec<Arc<str>>,
    /// Networks in it.
    pub networks: Vec<IpNet>,
    /// DNS names in it.
    pub names: Vec<Name>,
    /// Everything outside the internal networks is in it.
    pub external: bool,
    /// The nodes are in it.
    pub nodes: bool,
    /// Every address is in it, and every workload a member.
    pub any: bool,
}

impl SetChange {
    /// An empty set of that name.
    #[must_use]
    pub fn whole(name: &str) -> Self {
        Self {
            name: Group::named(name),
            whole: true,
            added: Vec::new(),
            removed: Vec::new(),
            networks: Vec::new(),
            names: Vec::new(),
            external: false,
            nodes: false,
            any: false,
        }
    }
}

/// A set of endpoints.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Set {
    pub(crate) members: BTreeSet<Arc<str>>,
    pub(crate) networks: Vec<IpNet>,
    pub(crate) names: Vec<Name>,
    pub(crate) external: bool,
    pub(crate) nodes: bool,
    pub(crate) any: bool,
}

impl Set {
    /// Whether a workload is a member.
    pub(crate) fn has(&self, uid: &str) -> bool {
        self.any || self.members.contains(uid)
    }
}

/// All sets.
#[derive(Clone, Debug, Default)]
pub(super) struct Sets {
    known: BTreeMap<Group, Set>,
    of: HashMap<Arc<str>, BTreeSet<Group>>,
    any: BTreeSet<Group>,
    members: usize,
}

impl Sets {
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) fn get(&self, name: &Group) -> Option<&Set> {
        self.known.get(name)
    }

    /// The sets that name a workload as a member.
    pub(super) fn of(&self, uid: &str) -> impl Iterator<Item = &Group> {
        self.of.get(uid).into_iter().flatten()
    }

    /// The sets that everything is in.
    pub(super) fn any(&self) -> impl Iterator<Item = &Group> {
        self.any.iter()
    }

    pub(super) fn change(
        &mut self,
        change: SetChange,
        touched: &mut Touched,
    ) -> Result<(), LearnError> {
        self.check(&change)?;
        let name = change.name;
        let set = self.known.entry(name.clone()).or_default();
        let added: BTreeSet<_> = change.added.into_iter().collect();
        let gone: Vec<_> = match change.whole {
            true => set.members.difference(&added).cloned().collect(),
            false => change.removed,
        };
        for uid in gone {
            if set.members.remove(&uid) {
                self.members = self.members.saturating_sub(1);
                leave(&mut self.of, &uid, &name);
                touched.judged.insert(uid);
            }
        }
        for uid in added {
            if set.members.insert(Arc::clone(&uid)) {
                self.members = self.members.saturating_add(1);
                self.of
                    .entry(Arc::clone(&uid))
                    .or_default()
                    .insert(name.clone());
                touched.judged.insert(uid);
            }
        }
        if change.whole {
            touched.all |= set.any != change.any;
            set.networks = change.networks;
            set.names = change.names;
            (set.external, set.nodes, set.any) = (change.external, change.nodes, change.any);
        }
        match set.any {
            true => self.any.insert(name.clone()),
            false => self.any.remove(&name),
        };
        touched.groups.insert(name);
        Ok(())
    }

    pub(super) fn remove(&mut self, name: &Group, touched: &mut Touched) {
        let Some(set) = self.known.remove(name) else { return };
        touched.all |= set.any;
        self.any.remove(name);
        self.members = self.members.saturating_sub(set.members.len());
        for uid in set.members {
            leave(&mut self.of, &uid, name);
            touched.judged.insert(uid);
        }
        touched.groups.insert(name.clone());
    }

    fn check(&self, change: &SetChange) -> Result<(), LearnError> {
        let known = self.known.get(&change.name);
        if known.is_none() && self.known.len() >= MAX_SETS {
            return Err(LearnError::TooManySets);
        }
        let before = if change.whole { known.map_or(0, |set| set.members.len()) } else { 0 };
        let members = self.members.saturating_sub(before);
        if members.saturating_add(change.added.len()) > MAX_MEMBERS {
            return Err(LearnError::TooManyMembers);
        }
        if change.networks.len().saturating_add(change.names.len()) > MAX_SET_PARTS {
            return Err(LearnError::TooManyParts);
        }
        let mut texts = change
            .added
            .iter()
            .map(AsRef::as_ref)
            .chain([change.name.name()]);
        if change.name.is_reserved() || texts.any(|text: &str| text.len() > MAX_TEXT) {
            return Err(LearnError::Senseless);
        }
        Ok(())
    }
}

fn leave(of: &mut HashMap<Arc<str>, BTreeSet<Group>>, uid: &str, name: &Group) {
    if let Some(sets) = of.get_mut(uid) {
        sets.remove(name);
        if sets.is_empty() {
            of.remove(uid);
        }
    }
}
