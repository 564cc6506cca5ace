//! Numbers of rules: one for each name in an object, as long as the object lives.

use std::collections::{BTreeMap, BTreeSet};

use crate::{cluster::objects::RuleNumber, controller::plan::ObjectKey};

/// The first number of a rule of policy.
pub(super) const FIRST: u32 = 200_000;
/// The last.
pub(super) const LAST: u32 = 899_999;
/// Numbers that one object keeps for rules that it has no more.
const MAX_RETIRED: usize = 128;

/// Who has which number.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    of: BTreeMap<ObjectKey, BTreeMap<String, u32>>,
    taken: BTreeSet<u32>,
    /// The highest that was ever given.
    highest: u32,
}

impl Numbers {
    /// Forgets an object that is gone.
    pub(super) fn forget(&mut self, key: &ObjectKey) {
        for id in self.of.remove(key).unwrap_or_default().into_values() {
            self.taken.remove(&id);
        }
    }

    /// Takes over what an object's status says, of names that are not known here; a number that another has is not.
    pub(super) fn read(&mut self, key: &ObjectKey, said: &[RuleNumber]) {
        for RuleNumber { name, id } in said {
            let own = self.of.entry(key.clone()).or_default();
            let is_ours = (FIRST..=LAST).contains(id) && !own.contains_key(name);
            if is_ours && self.taken.insert(*id) {
                own.insert(name.clone(), *id);
                self.highest = self.highest.max(*id);
            }
        }
    }

    /// The number of a rule; `None` when all are taken.
    pub(super) fn number(&mut self, key: &ObjectKey, name: &str) -> Option<u32> {
        let own = self.of.get(key).and_then(|own| own.get(name));
        if let Some(id) = own {
            return Some(*id);
        }
        let next = self.highest.max(FIRST - 1).saturating_add(1);
        let id =
            if next <= LAST { next } else { (FIRST..=LAST).find(|id| !self.taken.contains(id))? };
        self.highest = self.highest.max(id);
        self.taken.insert(id);
        self.of
            .entry(key.clone())
            .or_default()
            .insert(name.to_owned(), id);
        Some(id)
    }

    /// The numbers of an object, those of rules that it has no more too.
    pub(super) fn of(&mut self, key: &ObjectKey, names: &BTreeSet<&str>) -> Vec<RuleNumber> {
        let Some(own) = self.of.get_mut(key) else { return Vec::new() };
        let retired = own.keys().filter(|name| !names.contains(name.as_str()));
        let surplus: Vec<_> = retired.skip(MAX_RETIRED).cloned().collect();
        for id in surplus.iter().filter_map(|name| own.remove(name)) {
            self.taken.remove(&id);
        }
        own.iter()
            .map(|(name, id)| RuleNumber { name: name.clone(), id: *id })
            .collect()
    }
}
