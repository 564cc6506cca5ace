//! Which object says a pod's mode: the most specific that matches, and of those as specific the strictest.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use outrider_model::Mode;

use super::members::Members;

/// An object that says a mode.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Says {
    pub(super) mode: Mode,
    /// The larger, the more specific.
    pub(super) rank: u8,
    /// Its place among the objects.
    pub(super) at: usize,
    /// What people call it.
    pub(super) name: String,
}

/// All objects that say a mode, by the set of the pods that they mean.
#[derive(Debug, Default)]
pub(super) struct Modes {
    known: BTreeMap<Arc<str>, Says>,
    decided: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// Pods for which another, as specific, says something stricter, and which that is.
    lost: BTreeMap<Arc<str>, BTreeMap<Arc<str>, String>>,
    /// Sets that are in the two above for a pod.
    of_pod: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
}

impl Modes {
    pub(super) fn define(&mut self, known: &BTreeMap<Arc<str>, Says>) {
        *self = Self { known: known.clone(), ..Self::default() };
    }

    /// The pods that an object decides about, and what to say if another takes some from it.
    pub(super) fn of(&self, set: &str) -> (BTreeSet<Arc<str>>, Option<String>) {
        let lost = self.lost.get(set).filter(|lost| !lost.is_empty());
        let contest = lost.and_then(|lost| {
            let winner = lost.values().next()?;
            let count = lost.len();
            Some(format!("{winner}, as specific, says something stricter for {count} of its pods"))
        });
        (self.decided.get(set).cloned().unwrap_or_default(), contest)
    }

    /// Decides about pods anew; says for which objects that changes what is to be said.
    pub(super) fn judge(
        &mut self,
        uids: &BTreeSet<Arc<str>>,
        members: &Members,
        modes: &mut BTreeMap<Arc<str>, Mode>,
    ) -> BTreeSet<usize> {
        let mut changed = BTreeSet::new();
        for uid in uids {
            let before = self.withdraw(uid);
            let matching = members
                .sets_of(uid)
                .filter_map(|set| Some((set, self.known.get(set)?)));
            let mut found: Vec<_> = matching.collect();
            found.sort_by_key(|(_, says)| (Reverse(says.rank), Reverse(says.mode), says.at));
            let Some((set, first)) = found.first() else {
                modes.remove(uid);
                changed.extend(self.places(&before));
                continue;
            };
            modes.insert(Arc::clone(uid), first.mode);
            let mut now = BTreeSet::from([Arc::clone(set)]);
            self.decided
                .entry(Arc::clone(set))
                .or_default()
                .insert(Arc::clone(uid));
            for (set, says) in &found {
                if says.rank == first.rank && says.mode < first.mode {
                    let lost = self.lost.entry(Arc::clone(set)).or_default();
                    lost.insert(Arc::clone(uid), first.name.clone());
                    now.insert(Arc::clone(set));
                }
            }
            changed.extend(self.places(&before));
            changed.extend(self.places(&now));
            self.of_pod.insert(Arc::clone(uid), now);
        }
        changed
    }

    fn places(&self, sets: &BTreeSet<Arc<str>>) -> Vec<usize> {
        sets.iter()
            .filter_map(|set| Some(self.known.get(set)?.at))
            .collect()
    }

    /// Forgets what was decided about a pod; says which objects had to do with it.
    fn withdraw(&mut self, uid: &str) -> BTreeSet<Arc<str>> {
        let sets = self.of_pod.remove(uid).unwrap_or_default();
        for set in &sets {
            if let Some(decided) = self.decided.get_mut(set) {
                decided.remove(uid);
            }
            if let Some(lost) = self.lost.get_mut(set) {
                lost.remove(uid);
            }
        }
        sets
    }
}
