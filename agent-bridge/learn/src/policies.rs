//! Which groups' policy is to be compiled again, and what was compiled last.
//!
//! Workloads of a group that are in the same sets, and in the same mode, have the same policy, so it is compiled and
//! kept once for all of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use outrider_model::Mode;

use crate::{
    CompiledPolicy, Group, Learner, Workload,
    compile::{self, Compiler},
    reach::Reaches,
};

/// What was compiled.
#[derive(Clone, Debug, Default)]
pub(crate) struct Policies {
    /// By workload.
    of: BTreeMap<Arc<str>, Arc<CompiledPolicy>>,
    /// Those of each group, once each.
    compiled: BTreeMap<Group, Vec<(Kin, Arc<CompiledPolicy>)>>,
    /// Rules that were learned in all of them.
    size: usize,
    stale: BTreeSet<Group>,
    /// What groups and sets stand for, as far as it is asked for.
    reaches: Reaches,
    /// The directory's epoch at which no rule was without use.
    swept: Option<u64>,
}

/// What tells policies of a group apart: the mode, and the sets that the workload is in.
pub(crate) type Kin = (Mode, Vec<Group>);

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
        let mut reaches = std::mem::take(&mut self.policies.reaches);
        let mut fresh: Vec<(Kin, Arc<CompiledPolicy>)> = Vec::new();
        let mut of = Vec::new();
        for workload in self.directory.locals(group) {
            let kin = self.kin(workload);
            let policy = match fresh.iter().find(|(known, _)| *known == kin) {
                Some((_, known)) => Arc::clone(known),
                None => {
                    let policy = self.policy_of(workload, &mut reaches);
                    let last = self
                        .compiled_for(group, &kin)
                        .filter(|last| ***last == policy);
                    let policy = last.map_or_else(|| Arc::new(policy), Arc::clone);
                    fresh.push((kin, Arc::clone(&policy)));
                    policy
                }
            };
            of.push((Arc::clone(&workload.uid), policy));
        }
        let policies = &mut self.policies;
        policies.reaches = reaches;
        policies.replace(group, fresh);
        let mut differs = false;
        for (uid, policy) in of {
            let last = policies.of.insert(uid, Arc::clone(&policy));
            differs |= last.is_none_or(|last| *last != *policy);
        }
        differs
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
        self.policies.of.get(uid)
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

    /// What a workload's rules and mode come to now. It has what it had even if there is less room for it by now.
    pub(crate) fn policy_of(&self, workload: &Workload, reaches: &mut Reaches) -> CompiledPolicy {
        let known = self.compiled_for(&workload.group(), &self.kin(workload));
        let own = known.map_or(0, |known| known.learned());
        let most = compile::allowance(self.policies.size.saturating_sub(own)).max(own);
        let (directory, rules, policy) = (&self.directory, &self.rules, &self.policy);
        let mut compiler = Compiler { directory, rules, policy, reaches };
        compiler.policy(workload, self.mode_of(workload), most)
    }

    fn compiled_for(&self, group: &Group, kin: &Kin) -> Option<&Arc<CompiledPolicy>> {
        let known = self.policies.compiled.get(group)?;
        known
            .iter()
            .find(|(known, _)| known == kin)
            .map(|(_, policy)| policy)
    }

    /// What tells its policy from those of others of its group.
    pub(crate) fn kin(&self, workload: &Workload) -> Kin {
        (self.mode_of(workload), self.policy.sets_of(&workload.uid).cloned().collect())
    }

    /// Takes in which rules, sets and modes came and went, and who is here.
    pub(crate) fn look_around(&mut self) {
        let mut touched = std::mem::take(&mut self.directory.touched);
        touched.ruled.append(&mut self.rules.touched);
        if touched.is_empty() {
            return;
        }
        let gone = touched.stale(&self.policy);
        let policies = &mut self.policies;
        if touched.all {
            policies.reaches.clear();
        } else {
            gone.iter()
                .for_each(|group| drop(policies.reaches.remove(group)));
        }
        let concerned = touched.concerned(&gone, (&self.directory, &self.rules, &self.policy));
        policies.stale.extend(concerned);
        for uid in touched
            .uids
            .iter()
            .filter(|uid| self.directory.get(uid).is_none())
        {
            policies.of.remove(uid);
        }
        let is_empty = |group: &Group| self.directory.locals(group).next().is_none();
        for group in touched.groups.iter().filter(|group| is_empty(group)) {
            policies.replace(group, Vec::new());
        }
        policies.stale.retain(|group| !is_empty(group));
    }
}

impl Policies {
    fn replace(&mut self, group: &Group, fresh: Vec<(Kin, Arc<CompiledPolicy>)>) {
        let size = |known: &[(Kin, Arc<CompiledPolicy>)]| -> usize {
            known.iter().map(|(_, policy)| policy.learned()).sum()
        };
        let added = size(&fresh);
        let before = match fresh.is_empty() {
            true => self.compiled.remove(group),
            false => self.compiled.insert(group.clone(), fresh),
        };
        let removed = before.map_or(0, |before| size(&before));
        self.size = self.size.saturating_sub(removed).saturating_add(added);
    }
}
