//! A store that was begun from nothing, perhaps because an earlier one was lost: what proxies still
//! enforce is then the only copy of modes and rules. Each is asked once, before it is told anything.
//! Its mode becomes the group's, if that has none, and its rules stay until somebody sets a mode.

use std::collections::{BTreeMap, BTreeSet};

use outrider_api::{ModeChange, PolicyChange};
use outrider_learn::Group;
use outrider_model::Mode;
use outrider_wire::ext::{Refusal, Status};

use super::{Node, State, events::Body, kept::MAX_WORKLOADS};
use crate::{
    mailbox::link::Refused,
    store::{Change, Table},
};

/// Greetings until a proxy whose policy a lost store had counts as one that does not say.
const MAX_GREETINGS: usize = 5;
/// What a proxy calls a policy that a bridge gave it.
const RULES: &str = "rules";
/// Value of a workload whose proxy keeps its rules; another's is empty.
const KEEPS: &[u8] = b"keeps";

/// What proxies said when they met this store first.
#[derive(Debug, Default)]
pub(super) struct Rebuilt {
    knows_beginning: bool,
    /// By uid: whether its proxy keeps its rules.
    asked: BTreeMap<String, bool>,
    unsaved: BTreeSet<String>,
}

impl Rebuilt {
    pub(super) fn new(knows_beginning: bool) -> Self {
        Self { knows_beginning, ..Self::default() }
    }

    /// Whether a proxy's own word is wanted when it connects.
    fn asks(&self, uid: &str) -> bool {
        let asked = self.asked.get(uid).copied();
        self.knows_beginning && asked.unwrap_or(true)
    }

    /// Whether a proxy goes on with the rules that it has.
    pub(super) fn keeps(&self, uid: &str) -> bool {
        self.asked.get(uid).copied().unwrap_or_default()
    }

    fn decide(&mut self, uid: &str, keeps: bool) {
        if self.asked.insert(uid.to_owned(), keeps) != Some(keeps) {
            self.unsaved.insert(uid.to_owned());
        }
    }

    pub(super) fn forget(&mut self, uid: &str) {
        if self.asked.remove(uid).is_some() {
            self.unsaved.insert(uid.to_owned());
        }
    }

    /// What is to be stored since the last call.
    pub(super) fn take_changes(&mut self) -> Vec<Change> {
        let unsaved = std::mem::take(&mut self.unsaved);
        let row = |uid: String| {
            let word = |keeps: &bool| if *keeps { KEEPS.to_vec() } else { Vec::new() };
            let value = self.asked.get(&uid).map(word);
            Change { table: Table::Asked, key: uid.into_bytes(), value }
        };
        unsaved.into_iter().map(row).collect()
    }

    /// Takes back a row of the store; `false` if it makes no sense.
    pub(super) fn take_back(&mut self, key: &[u8], value: &[u8]) -> bool {
        let Ok(uid) = std::str::from_utf8(key) else { return false };
        self.asked.insert(uid.to_owned(), value == KEEPS);
        true
    }
}

impl Node {
    /// A proxy refuses its policy, or no longer.
    pub(crate) fn judged(
        &self,
        workload: &str,
        generation: u64,
        refused: Option<&Refused>,
        mode: Option<String>,
    ) {
        let (state, why) = match refused {
            Some(refused) => ("refused", refused.why.clone()),
            None => ("in-force", Refusal::default()),
        };
        let Refusal { reason, detail } = why;
        if refused.is_some() {
            tracing::error!(
                workload,
                generation,
                reason,
                detail,
                "the proxy refuses its policy: the one before it stays in force"
            );
        } else {
            tracing::info!(workload, generation, "the proxy takes its policy again");
        }
        let (workload, state) = (workload.to_owned(), state.to_owned());
        let mode = mode.unwrap_or_default();
        let change = PolicyChange { workload, generation, state, mode, reason, detail };
        self.events.publish(Body::Policy(change));
    }

    /// Whether a proxy is to say what it enforces before it is told anything: how often it is greeted
    /// once more for that, if it was too busy to answer at once. Only where a store was set aside; else a
    /// data path that never answers would be kept waiting.
    pub(crate) fn asks(&self, uid: &str) -> Option<usize> {
        let asks = self.state.lock().rebuilt.asks(uid);
        let is_lost = self.store.lock().set_aside.is_some();
        asks.then_some(if is_lost { MAX_GREETINGS } else { 0 })
    }

    /// Takes in what a proxy enforces that has not been told anything; nothing, if it did not say.
    pub(crate) fn met(&self, uid: &str, said: Option<&Status>) {
        let mut state = self.state.lock();
        let Some(found) = state.meet(uid, said) else { return };
        state.version += 1;
        let Met { mode, keeps_anew, changed } = found;
        let workload = state.roster.get(uid).cloned();
        if let Some(workload) = workload.as_ref().filter(|_| changed) {
            state.publish_group(&workload.group());
        }
        let generation = state.generation;
        drop(state);
        self.wake.notify_one();
        let Some(workload) = workload else { return };
        let (name, group) = (workload.name.clone(), workload.group().to_string());
        if let Some(mode) = mode {
            tracing::warn!(workload = name, group, %mode, "the store is new: the mode is the proxy's");
            let (workload, mode) = (name.clone(), mode.name().to_owned());
            self.events
                .publish(Body::Mode(ModeChange { workload, group, mode }));
        }
        if keeps_anew {
            let detail = "the store is new: the proxy goes on with its rules until a mode is set";
            tracing::warn!(workload = name, "{detail}");
            self.events.publish(Body::Policy(PolicyChange {
                workload: name,
                generation,
                state: "kept".into(),
                mode: said.map(|said| said.mode.clone()).unwrap_or_default(),
                reason: "new-store".into(),
                detail: detail.into(),
            }));
        }
    }
}

/// What came of meeting a proxy.
struct Met {
    /// Its group's, from now on.
    mode: Option<Mode>,
    /// It keeps its rules, and did not before.
    keeps_anew: bool,
    /// What it is to have is not what it was.
    changed: bool,
}

impl State {
    fn meet(&mut self, uid: &str, said: Option<&Status>) -> Option<Met> {
        let group = self.roster.get(uid)?.group();
        let said = said.filter(|said| said.policy == RULES);
        let said: Option<Mode> = said.and_then(|said| said.mode.parse().ok());
        let set = self.modes.get(&group).copied();
        let before = self.rebuilt.keeps(uid);
        // What somebody has set since counts more than what was.
        let is_open = set.is_none() || before || self.is_kept(&group);
        let keeps = is_open && said.is_some_and(|mode| mode != Mode::Discover);
        let by_default = self.learner.mode(&group);
        let is_news = |mode: &Mode| set.map_or(*mode != by_default, |set| *mode > set);
        let mode = said.filter(is_news).filter(|_| is_open);
        if let Some(mode) = mode {
            self.modes.insert(group.clone(), mode);
            self.unsaved_modes.insert(group.clone());
            self.learner.set_mode(group, mode);
        }
        self.make_room();
        self.rebuilt.decide(uid, keeps);
        let changed = keeps != before || mode.is_some();
        Some(Met { mode, keeps_anew: keeps && !before, changed })
    }

    /// Whether a workload's proxy goes on with the rules that it has: nobody has set its mode yet, here
    /// or in the cluster.
    pub(super) fn keeps_rules(&self, uid: &str) -> bool {
        self.rebuilt.keeps(uid) && self.learner.said().mode(uid).is_none()
    }

    /// Whether the proxy of one of a group's workloads keeps its rules: nobody has set its mode yet.
    fn is_kept(&self, group: &Group) -> bool {
        let mut all = self.roster.all();
        all.any(|workload| self.rebuilt.keeps(&workload.uid) && workload.group() == *group)
    }

    /// Somebody set a group's mode: its rules are ours from now on.
    pub(super) fn take_over(&mut self, group: &Group) {
        let of_group = self
            .roster
            .all()
            .filter(|workload| workload.group() == *group);
        for workload in of_group {
            if self.rebuilt.keeps(&workload.uid) {
                self.rebuilt.decide(&workload.uid, false);
            }
        }
    }

    /// Workloads that went while nobody looked.
    fn make_room(&mut self) {
        if self.rebuilt.asked.len() < MAX_WORKLOADS {
            return;
        }
        let gone: Vec<String> = self
            .rebuilt
            .asked
            .keys()
            .filter(|uid| self.roster.get(uid).is_none())
            .cloned()
            .collect();
        gone.iter().for_each(|uid| self.rebuilt.forget(uid));
    }
}
