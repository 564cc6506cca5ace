//! Which object says a pod's mode: the most specific that matches, and of those as specific the strictest.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use outrider_model::Mode;

use super::members::Members;
use crate::controller::plan::{Changes, ObjectKey};

/// An object that says a mode.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Says {
    pub(super) mode: Mode,
    /// The larger, the more specific.
    pub(super) rank: u8,
    /// Which object it is.
    pub(super) key: ObjectKey,
    /// What people call it.
    pub(super) name: String,
}

/// All objects that say a mode, by the set of the pods that they mean.
#[derive(Debug, Default)]
pub(super) struct Modes {
    known: BTreeMap<Arc<str>, Says>,
    /// How many pods have their mode from a set's object.
    decided: BTreeMap<Arc<str>, usize>,
    /// Pods for which another, as specific, says something stricter, and which that is.
    lost: BTreeMap<Arc<str>, BTreeMap<Arc<str>, String>>,
    of_pod: BTreeMap<Arc<str>, Decision>,
}

impl Modes {
    /// What the object of a set says now; its pods are to be judged.
    pub(super) fn define(&mut self, set: &Arc<str>, says: Option<Says>) {
        if let Some(says) = says {
            self.known.insert(Arc::clone(set), says);
        } else {
            self.known.remove(set);
            self.decided.remove(set);
            self.lost.remove(set);
        }
    }

    /// How many pods an object decides about, and what to say if another takes some from it.
    pub(super) fn of(&self, set: &str) -> (usize, Option<String>) {
        let lost = self.lost.get(set).filter(|lost| !lost.is_empty());
        let contest = lost.and_then(|lost| {
            let winner = lost.values().next()?;
            let count = lost.len();
            Some(format!("{winner}, as specific, says something stricter for {count} of its pods"))
        });
        (self.decided.get(set).copied().unwrap_or_default(), contest)
    }

    /// Decides about pods anew; notes whose mode that changes, and for which objects something else is to be said.
    pub(super) fn judge(
        &mut self,
        uids: &BTreeSet<Arc<str>>,
        members: &Members,
        modes: &mut BTreeMap<Arc<str>, Mode>,
        changes: &mut Changes,
    ) {
        for uid in uids {
            let matching = members
                .sets_of(uid)
                .filter_map(|set| Some((set, self.known.get(set)?)));
            let mut found: Vec<_> = matching.collect();
            found.sort_by_key(|(_, says)| (Reverse(says.rank), Reverse(says.mode), &says.key));
            let decision = found.first().map(|(set, first)| {
                let lose = |says: &Says| says.rank == first.rank && says.mode < first.mode;
                let lost = found.iter().filter(|(_, says)| lose(says));
                Decision {
                    mode: first.mode,
                    by: Arc::clone(set),
                    name: first.name.clone(),
                    lost: lost.map(|(set, _)| Arc::clone(set)).collect(),
                }
            });
            if self.of_pod.get(uid) == decision.as_ref() {
                continue;
            }
            changes.modes.insert(Arc::clone(uid));
            changes.verdicts.extend(self.withdraw(uid));
            match decision {
                Some(decision) => {
                    modes.insert(Arc::clone(uid), decision.mode);
                    changes.verdicts.extend(self.enter(uid, decision));
                }
                None => drop(modes.remove(uid)),
            }
        }
    }

    /// Notes a decision; says which objects have to do with it.
    fn enter(&mut self, uid: &Arc<str>, decision: Decision) -> Vec<ObjectKey> {
        *self.decided.entry(Arc::clone(&decision.by)).or_default() += 1;
        for set in &decision.lost {
            let lost = self.lost.entry(Arc::clone(set)).or_default();
            lost.insert(Arc::clone(uid), decision.name.clone());
        }
        let objects = self.objects(&decision);
        self.of_pod.insert(Arc::clone(uid), decision);
        objects
    }

    fn objects(&self, decision: &Decision) -> Vec<ObjectKey> {
        let sets = decision.lost.iter().chain([&decision.by]);
        sets.filter_map(|set| Some(self.known.get(set)?.key.clone()))
            .collect()
    }

    /// Forgets what was decided about a pod; says which objects had to do with it.
    fn withdraw(&mut self, uid: &str) -> Vec<ObjectKey> {
        let Some(decision) = self.of_pod.remove(uid) else { return Vec::new() };
        if let Some(decided) = self.decided.get_mut(&decision.by) {
            *decided = decided.saturating_sub(1);
        }
        for set in &decision.lost {
            if let Some(lost) = self.lost.get_mut(set) {
                lost.remove(uid);
            }
        }
        self.objects(&decision)
    }
}

/// What holds for a pod.
#[derive(Debug, Eq, PartialEq)]
struct Decision {
    mode: Mode,
    /// The set of the object that says so, and what people call it.
    by: Arc<str>,
    name: String,
    /// Sets of objects that are as specific and less strict.
    lost: Vec<Arc<str>>,
}
