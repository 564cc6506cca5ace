//! Which groups' policy is to be compiled again, and what was compiled last.
//!
//! Workloads of a group have the same policy, so it is compiled and kept once for all of them. A rule
//! concerns the groups at its two ends; who is on the node concerns everybody.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use outrider_model::Mode;

use crate::{
    CompiledPolicy, Group, Learner,
    compile::{self, Peers},
};

/// What was compiled.
#[derive(Clone, Debug, Default)]
pub(crate) struct Policies {
    compiled: BTreeMap<Group, Arc<CompiledPolicy>>,
    /// Rules in all of them.
    size: usize,
    stale: BTreeSet<Group>,
    /// Groups that have workloads here, and every group's addresses, as of `epoch` of the directory.
    groups: BTreeSet<Group>,
    peers: Peers,
    epoch: Option<u64>,
    /// The directory's epoch at which no rule was without use.
    swept: Option<u64>,
}

impl Learner {
    /// Sets how far policy goes for a group's workloads.
    pub fn set_mode(&mut self, group: Group, mode: Mode) {
        self.policies.stale.insert(group.clone());
        self.modes.insert(group, mode);
    }

    /// Groups that have workloads here and whose policy is to be compiled again, in order.
    pub fn stale(&mut self) -> Vec<Group> {
        self.look_around();
        self.policies.stale.iter().cloned().collect()
    }

    /// Whether any group's policy is to be compiled again.
    pub fn is_stale(&mut self) -> bool {
        self.look_around();
        !self.policies.stale.is_empty()
    }

    /// Compiles a group's policy; says whether it differs from the last time.
    pub fn compile(&mut self, group: &Group) -> bool {
        self.look_around();
        self.policies.stale.remove(group);
        if !self.policies.groups.contains(group) {
            return false;
        }
        let fresh = self.policy_of(group, &self.policies.peers);
        let known = self.policies.compiled.get(group);
        if known.is_some_and(|known| **known == fresh) {
            return false;
        }
        let before = known.map_or(0, |known| known.spec.rules.len());
        let size = self.policies.size.saturating_sub(before);
        self.policies.size = size.saturating_add(fresh.spec.rules.len());
        self.policies
            .compiled
            .insert(group.clone(), Arc::new(fresh));
        true
    }

    /// Compiles what is to be compiled again; says which groups' policy differs from the last time.
    pub fn compile_changed(&mut self) -> Vec<Group> {
        let mut groups = self.stale();
        groups.retain(|group| self.compile(group));
        groups
    }

    /// What was compiled last for a workload.
    #[must_use]
    pub fn policy(&self, uid: &str) -> Option<&Arc<CompiledPolicy>> {
        self.policies
            .compiled
            .get(&self.directory.get(uid)?.group())
    }

    /// Makes room for rules if one was refused: some that no workload here can have go, those that were
    /// seen longest ago first.
    pub fn make_room(&mut self) {
        let epoch = Some(self.directory.epoch());
        if !self.rules.wants_room || self.policies.swept == epoch {
            return;
        }
        let here: BTreeSet<_> = self.directory.groups().collect();
        let gone = self.rules.forget_unused(|group| here.contains(group));
        if gone == 0 {
            self.policies.swept = epoch;
        }
        let totals = &mut self.totals;
        totals.unused_rules = totals.unused_rules.saturating_add(gone as u64);
    }

    /// What a group's rules and mode come to now. It has what it had even if there is less room for it by now.
    pub(crate) fn policy_of(&self, group: &Group, peers: &Peers) -> CompiledPolicy {
        let policies = &self.policies;
        let known = policies.compiled.get(group);
        let own = known.map_or(0, |known| known.spec.rules.len());
        let most = compile::allowance(policies.size.saturating_sub(own)).max(own);
        let rules = self.rules.of(group);
        compile::policy((group, self.mode(group)), rules, peers, most)
    }

    /// Takes in which rules came and went, and who is here.
    pub(crate) fn look_around(&mut self) {
        let touched = std::mem::take(&mut self.rules.touched);
        let policies = &mut self.policies;
        let epoch = Some(self.directory.epoch());
        if policies.epoch != epoch {
            policies.epoch = epoch;
            policies.peers = Peers::new(&self.directory);
            policies.groups = self.directory.groups().cloned().collect();
            let Policies { compiled, groups, .. } = policies;
            compiled.retain(|group, _| groups.contains(group));
            policies.size = compiled.values().map(|one| one.spec.rules.len()).sum();
            policies.stale.clone_from(&policies.groups);
        }
        policies.stale.extend(touched);
        let Policies { stale, groups, .. } = policies;
        stale.retain(|group| groups.contains(group));
    }
}
