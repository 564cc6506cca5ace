//! What workloads run of each object, kept: what a node says costs the objects that are about the workloads it speaks
//! of, and no more.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use outrider_api::cluster::WorkloadState;
use outrider_learn::MAX_CUT;

use super::{Count, Report, Said};
use crate::controller::{
    links::{Link, Links},
    plan::{Kind, ObjectKey, Pod, Verdict},
    published::Published,
};

/// Things to be looked at anew which are told one by one; of more it is said that all are.
pub(super) const MAX_STALE: usize = 16_384;

/// What is to be looked at anew.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(in crate::controller) enum Thing {
    /// What is said of an object may be other.
    Object(ObjectKey),
    /// A workload, or its state.
    Workload(Arc<str>),
    /// All workloads of a node.
    Node(Arc<str>),
    /// A rule is there, or there no more.
    Rule(u32),
    /// A node was told a rule, or another form of it.
    Told(Arc<str>, u32),
}

/// All that is to be looked at anew.
#[derive(Debug)]
pub(in crate::controller) struct Stale {
    all: bool,
    things: HashSet<Thing>,
}

impl Default for Stale {
    fn default() -> Self {
        Self { all: true, things: HashSet::new() }
    }
}

impl Stale {
    /// Everything is.
    pub(in crate::controller) fn note_all(&mut self) {
        *self = Self::default();
    }

    /// These are. To be called when they have changed: what is noted before may be looked at too early.
    pub(in crate::controller) fn note(&mut self, things: impl IntoIterator<Item = Thing>) {
        let mut things = things.into_iter();
        while !self.all
            && let Some(thing) = things.next()
        {
            self.things.insert(thing);
            if self.things.len() > MAX_STALE {
                self.note_all();
            }
        }
    }

    /// Whether everything is.
    #[cfg(test)]
    pub(super) fn is_all(&self) -> bool {
        self.all
    }

    /// Takes it; nothing is stale then.
    pub(in crate::controller) fn take(&mut self) -> Self {
        std::mem::replace(self, Self { all: false, things: HashSet::new() })
    }
}

/// The objects, counted.
#[derive(Debug, Default)]
pub(in crate::controller) struct Tally {
    objects: BTreeMap<Arc<ObjectKey>, (Arc<Verdict>, Count)>,
    /// What each workload runs of the objects with rules that are about it.
    said: HashMap<Arc<str>, HashMap<Arc<ObjectKey>, Option<Said>>>,
    /// Whose rule that is.
    rules: HashMap<u32, Arc<ObjectKey>>,
}

impl Tally {
    /// What is to be said of an object; `None` if there is no such.
    pub(in crate::controller) fn report(&self, key: &ObjectKey) -> Option<Report> {
        let (verdict, count) = self.objects.get(key)?;
        Some(Report { key: key.clone(), verdict: Arc::clone(verdict), count: *count })
    }

    /// Looks at what is stale; says of which objects something else may be to be said.
    pub(in crate::controller) fn renew(
        &mut self,
        stale: Stale,
        now: &Published,
        links: &Links,
    ) -> BTreeSet<Arc<ObjectKey>> {
        let mut step = Step { tally: self, now, links, changed: BTreeSet::new() };
        if stale.all {
            let before = std::mem::take(step.tally);
            step.changed.extend(before.objects.into_keys());
            now.plan.verdicts.keys().for_each(|key| step.define(key));
            let all: Vec<_> = step.tally.said.keys().cloned().collect();
            all.iter().for_each(|uid| step.judge(uid, None));
        }
        let (objects, others): (Vec<_>, Vec<_>) = stale
            .things
            .into_iter()
            .partition(|thing| matches!(thing, Thing::Object(_)));
        objects
            .into_iter()
            .chain(others)
            .for_each(|thing| step.look(thing));
        step.changed
    }
}

/// One time that what is stale is looked at.
struct Step<'a> {
    tally: &'a mut Tally,
    now: &'a Published,
    links: &'a Links,
    changed: BTreeSet<Arc<ObjectKey>>,
}

impl Step<'_> {
    fn look(&mut self, thing: Thing) {
        match thing {
            Thing::Object(key) => {
                self.define(&key);
                self.object(&key);
            }
            Thing::Rule(id) => {
                let key = self.tally.rules.get(&id).map(Arc::clone);
                key.into_iter().for_each(|key| self.object(&key));
            }
            Thing::Workload(uid) => self.judge(&uid, None),
            Thing::Node(node) => {
                let now = self.now;
                now.on(&node).for_each(|pod| self.judge(&pod.uid, None));
            }
            Thing::Told(node, id) => {
                let now = self.now;
                let Some(key) = self.tally.rules.get(&id).map(Arc::clone) else { return };
                now.on(&node)
                    .for_each(|pod| self.judge(&pod.uid, Some(&key)));
            }
        }
    }

    /// Counts anew what all its workloads run of an object.
    fn object(&mut self, key: &ObjectKey) {
        let Some((verdict, _)) = self.tally.objects.get(key) else { return };
        let verdict = Arc::clone(verdict);
        verdict
            .workloads
            .iter()
            .for_each(|uid| self.judge(uid, Some(key)));
    }

    /// Puts an object in place of what it was; its workloads are still to be looked at.
    fn define(&mut self, key: &ObjectKey) {
        let Tally { objects, said, rules } = &mut *self.tally;
        let key = Arc::new(key.clone());
        if let Some((before, _)) = objects.remove(&key) {
            for uid in before.workloads.iter() {
                if let Some(own) = said.get_mut(uid) {
                    own.remove(&key);
                    if own.is_empty() {
                        said.remove(uid);
                    }
                }
            }
            for rule in &before.rules {
                if rules.get(&rule.id) == Some(&key) {
                    rules.remove(&rule.id);
                }
            }
        }
        self.changed.insert(Arc::clone(&key));
        let Some(verdict) = self.now.plan.verdicts.get(&*key) else { return };
        if matches!(verdict.kind, Kind::Rule | Kind::ClusterRule) {
            for uid in verdict.workloads.iter() {
                let own = said.entry(Arc::clone(uid)).or_default();
                own.insert(Arc::clone(&key), None);
            }
            let own = verdict.rules.iter();
            rules.extend(own.map(|rule| (rule.id, Arc::clone(&key))));
        }
        objects.insert(key, (Arc::clone(verdict), Count::default()));
    }

    /// Counts anew what a workload runs of the objects that are about it, or of one of them.
    fn judge(&mut self, uid: &Arc<str>, only: Option<&ObjectKey>) {
        let Some(own) = self.tally.said.get_mut(uid) else { return };
        let pod = self.now.pods.get(uid);
        let link = pod.and_then(|pod| self.links.of(&pod.node));
        let link = link.as_ref().map(|link| link.lock());
        let mut judge = |key: &Arc<ObjectKey>, said: &mut Option<Said>| {
            let Some((verdict, count)) = self.tally.objects.get_mut(key) else { return };
            let new = pod.map(|pod| judge(self.now, pod, link.as_deref(), verdict));
            if *said != new {
                count.change(*said, new);
                *said = new;
                self.changed.insert(Arc::clone(key));
            }
        };
        match only {
            None => own.iter_mut().for_each(|(key, said)| judge(key, said)),
            Some(key) => {
                if let Some((key, _)) = own.get_key_value(key) {
                    let key = Arc::clone(key);
                    own.get_mut(&*key)
                        .into_iter()
                        .for_each(|said| judge(&key, said));
                }
            }
        }
    }
}

/// What a workload runs of an object.
fn judge(now: &Published, pod: &Pod, link: Option<&Link>, verdict: &Verdict) -> Said {
    if !pod.managed {
        return Said::Bare;
    }
    let Some(link) = link else { return Said::Pending };
    match link.states.get(&*pod.uid) {
        Some(state) if is_cut(state, verdict) => Said::Cut,
        Some(state) if runs(now, link, state, verdict) => Said::Enforced,
        Some(state) if !state.refused.is_empty() => Said::Refused,
        _ => Said::Pending,
    }
}

/// Whether a workload's policy has no room for all that an object says. If it names as many rules as it may, any may be
/// among the others.
fn is_cut(state: &WorkloadState, verdict: &Verdict) -> bool {
    let is_named = |id: u32| state.cut.len() >= MAX_CUT || state.cut.contains(&id);
    !state.cut.is_empty() && verdict.rules.iter().any(|rule| is_named(rule.id))
}

/// Whether a workload's proxy has confirmed all of what an object says, in its newest form. Rules that the object has no
/// more keep their numbers, and nobody runs them.
fn runs(now: &Published, link: &Link, state: &WorkloadState, verdict: &Verdict) -> bool {
    let has = |id: u32| {
        link.known
            .rule_since(id)
            .map_or(!now.plan.rules.contains_key(&id), |since| since <= state.revision)
    };
    let has_mode = link.known.mode_since(&state.uid) <= state.revision;
    state.connected && has_mode && verdict.rules.iter().all(|rule| has(rule.id))
}
