//! What changed since policy was compiled last, and whom it concerns.

use std::{collections::BTreeSet, sync::Arc};

use crate::{Directory, Group, Policy, Workload, rules::Rules};

/// What changed since policy was compiled last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Touched {
    /// Workloads that came, went or changed.
    pub(crate) uids: BTreeSet<Arc<str>>,
    /// Workloads whose rules or mode changed.
    pub(crate) judged: BTreeSet<Arc<str>>,
    /// Groups and sets whose members or addresses changed.
    pub(crate) groups: BTreeSet<Group>,
    /// Groups and sets at an end of rules that came, went or changed.
    pub(crate) ruled: BTreeSet<Group>,
    /// Services, or which networks are internal, on which the way out depends.
    pub(crate) services: bool,
    /// Everything.
    pub(crate) all: bool,
}

impl Touched {
    pub(crate) fn is_empty(&self) -> bool {
        let groups = self.groups.is_empty() && self.ruled.is_empty();
        let workloads = self.uids.is_empty() && self.judged.is_empty();
        groups && workloads && !self.services && !self.all
    }

    /// Groups and sets whose addresses must be gathered again.
    pub(crate) fn stale(&self, policy: &Policy) -> BTreeSet<Group> {
        let of_members = self.uids.iter().flat_map(|uid| policy.sets_of(uid));
        self.groups.iter().chain(of_members).cloned().collect()
    }

    /// Groups of workloads whose policy must be compiled again; there may be some that have none here.
    pub(crate) fn concerned(
        &self,
        stale: &BTreeSet<Group>,
        (directory, rules, policy): (&Directory, &Rules, &Policy),
    ) -> BTreeSet<Group> {
        if self.all || self.services {
            return directory.groups().cloned().collect();
        }
        let mut ruled: BTreeSet<_> = self.ruled.union(&self.groups).cloned().collect();
        for group in stale {
            ruled.extend(policy.facing(group).cloned());
            ruled.extend(rules.facing(group).cloned());
        }
        let judged = self
            .uids
            .union(&self.judged)
            .filter_map(|uid| directory.get(uid));
        let mut concerned: BTreeSet<_> = judged.map(Workload::group).collect();
        for group in ruled {
            match policy.set(&group) {
                None => drop(concerned.insert(group)),
                Some(set) => {
                    let members = directory.workloads().filter(|one| set.has(&one.uid));
                    concerned.extend(members.map(Workload::group));
                }
            }
        }
        concerned
    }
}
