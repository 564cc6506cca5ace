//! Rules that traffic made, and those it is about to make.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    sync::Arc,
};

use outrider_model::{AppId, IpProto, RuleId};
use serde::{Deserialize, Serialize};

use crate::{
    Evidence, FlowSample, Group, Settings,
    conversations::Totals,
    kept::{Aged, Kept},
};

/// The first number of a learned rule.
pub const FIRST_RULE: u32 = 10_001;

/// The last number of a learned rule.
pub const LAST_RULE: u32 = 99_999;

/// Beginnings of rules that are told apart; the oldest of the reporter that has most make room and
/// are counted.
pub const MAX_CANDIDATES: usize = 8_192;

/// Rules that one group of workloads has by its own proxies' word, and as many again that others
/// told of it as their client. More are refused and counted: a rule that is in force never makes room.
pub const MAX_GROUP_RULES: usize = 4_096;

/// Rules that all groups have. What is free is shared: a group may have a quarter of it, so the more
/// there are, the less any gets.
pub const MAX_RULES: usize = 49_152;

/// Rules that a group may have however many the others have, as long as there are fewer than [`MAX_RULES`].
pub const MIN_GROUP_RULES: usize = 16;

/// Of all rules, those that are for groups with few: [`MIN_GROUP_RULES`] of 1024 groups.
const KEPT_FREE: usize = 16_384;

/// A group may have this part of what is free.
const SHARE: usize = 4;

/// Rules that are forgotten at a time, of groups that have no workload here any more.
const LOT: usize = MAX_RULES / 16;

/// What a rule is about.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct LearnKey {
    /// Group of the client.
    pub from: Group,
    /// Group of the server.
    pub to: Group,
    /// By which protocol.
    pub proto: IpProto,
    /// To which port.
    pub port: u16,
    /// The application, or [`AppId::UNIDENTIFIED`]: the port of which no application is known.
    pub app: AppId,
}

impl LearnKey {
    fn same_port(&self) -> RangeInclusive<Self> {
        let lowest = Self { app: AppId(0), ..self.clone() };
        let highest = Self { app: AppId(u32::MAX), ..self.clone() };
        lowest..=highest
    }
}

/// A rule that traffic made.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Rule {
    /// From [`FIRST_RULE`] up; it never changes.
    pub id: RuleId,
    /// What it is about.
    pub key: LearnKey,
    /// Why it was made, and how it is used since.
    pub evidence: Evidence,
}

/// The beginning of a rule.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Candidate {
    /// What it is about.
    pub key: LearnKey,
    /// What speaks for it so far.
    pub evidence: Evidence,
    /// The workload whose proxy reported it first, and in whose share it is kept.
    #[serde(default)]
    pub(crate) reporter: Arc<str>,
}

impl Aged for Candidate {
    fn last_seen(&self) -> u64 {
        self.evidence.last_seen
    }

    fn reporter(&self) -> &str {
        &self.reporter
    }
}

impl Aged for Rule {
    fn last_seen(&self) -> u64 {
        self.evidence.last_seen
    }

    /// Room is not made by age.
    fn reporter(&self) -> &str {
        ""
    }
}

/// All rules and candidates.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) rules: Kept<LearnKey, Rule>,
    pub(crate) candidates: Kept<LearnKey, Candidate>,
    by_id: BTreeMap<RuleId, LearnKey>,
    of_group: BTreeMap<Group, Held>,
    /// Groups whose rules came or went since somebody looked.
    pub(crate) touched: BTreeSet<Group>,
    /// One was refused since room was made last.
    pub(crate) wants_room: bool,
    /// Every number below it is taken.
    taken_below: u32,
}

/// The rules of one group.
#[derive(Clone, Debug, Default)]
struct Held {
    /// By its own proxies' word.
    own: BTreeSet<RuleId>,
    /// That others told of it as their client.
    others: BTreeSet<RuleId>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            rules: Kept::new((LAST_RULE - FIRST_RULE + 1) as usize),
            candidates: Kept::new(MAX_CANDIDATES),
            by_id: BTreeMap::new(),
            of_group: BTreeMap::new(),
            touched: BTreeSet::new(),
            wants_room: false,
            taken_below: FIRST_RULE,
        }
    }
}

impl Rules {
    pub(crate) fn restore_rule(&mut self, rule: Rule) -> bool {
        let (id, key) = (rule.id, rule.key.clone());
        if self.by_id.contains_key(&id) || self.rules.get(&key).is_some() {
            return false;
        }
        let restored = self.rules.restore(key.clone(), rule);
        if restored {
            self.enlist(id, &key, true);
            self.by_id.insert(id, key);
        }
        restored
    }

    pub(crate) fn by_id(&self, id: RuleId) -> Option<&Rule> {
        self.rules.get(self.by_id.get(&id)?)
    }

    /// Every rule, in order of number.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.by_id.values().filter_map(|key| self.rules.get(key))
    }

    /// Forgets a rule; says whether it was there.
    pub(crate) fn remove(&mut self, id: RuleId) -> bool {
        let Some(key) = self.by_id.remove(&id) else { return false };
        self.taken_below = self.taken_below.min(id.0);
        self.enlist(id, &key, false);
        self.rules.remove(&key).is_some()
    }

    /// The rules of a group at either end, in order of number.
    pub(crate) fn of(&self, group: &Group) -> impl Iterator<Item = &Rule> {
        let held = self.of_group.get(group).into_iter();
        held.flat_map(|held| held.own.union(&held.others))
            .filter_map(|id| self.by_id(*id))
    }

    /// Groups at the other end of a group's rules.
    pub(crate) fn facing<'a>(&'a self, group: &'a Group) -> impl Iterator<Item = &'a Group> {
        self.of(group)
            .flat_map(|rule| [&rule.key.from, &rule.key.to])
            .filter(move |other| *other != group)
    }

    /// Whether a group has as many rules as it may have.
    pub(crate) fn is_full(&self, group: &Group) -> bool {
        let held = self.of_group.get(group);
        let (own, others) = held.map_or((0, 0), |held| (held.own.len(), held.others.len()));
        self.rules.len() >= MAX_RULES || own >= self.share() || others >= MAX_GROUP_RULES
    }

    /// Rules that a group may have by its own word.
    fn share(&self) -> usize {
        let free = (MAX_RULES - KEPT_FREE).saturating_sub(self.rules.len());
        (free / SHARE).clamp(MIN_GROUP_RULES, MAX_GROUP_RULES)
    }

    /// Whether one more rule fits the shares of who tells it and of whom it is about.
    fn has_room(&self, key: &LearnKey) -> bool {
        let held = |group: &Group| self.of_group.get(group);
        let (teller, other) = parties(key);
        let own = held(teller).map_or(0, |held| held.own.len());
        let others = other.and_then(held).map_or(0, |held| held.others.len());
        self.rules.len() < MAX_RULES && own < self.share() && others < MAX_GROUP_RULES
    }

    /// The policies of a rule's groups are to be compiled again.
    pub(crate) fn touch(&mut self, key: &LearnKey) {
        let groups = [&key.from, &key.to].into_iter();
        self.touched
            .extend(groups.filter(|group| group.is_of_workloads()).cloned());
    }

    fn enlist(&mut self, id: RuleId, key: &LearnKey, is_new: bool) {
        self.touch(key);
        let (teller, other) = parties(key);
        for (group, is_teller) in [(Some(teller), true), (other, false)] {
            let Some(group) = group.filter(|group| group.is_of_workloads()) else { continue };
            let held = self.of_group.entry(group.clone()).or_default();
            let ids = if is_teller { &mut held.own } else { &mut held.others };
            if is_new {
                ids.insert(id);
            } else {
                ids.remove(&id);
            }
            if held.own.is_empty() && held.others.is_empty() {
                self.of_group.remove(group);
            }
        }
    }

    /// Forgets some rules that no workload here can have, those that were seen longest ago first. Says how many.
    pub(crate) fn forget_unused(&mut self, is_here: impl Fn(&Group) -> bool) -> usize {
        self.wants_room = false;
        let unused = |rule: &&Rule| !is_here(&rule.key.from) && !is_here(&rule.key.to);
        let mut ages: Vec<_> = self
            .iter()
            .filter(unused)
            .map(|rule| (rule.evidence.last_seen, rule.id))
            .collect();
        ages.sort_unstable();
        ages.truncate(LOT);
        for (_, id) in &ages {
            self.remove(*id);
        }
        ages.len()
    }

    /// Lets bare ports give way that were restored beside the rule of an application.
    pub(crate) fn settle(&mut self) {
        let bare = self
            .by_id
            .values()
            .filter(|key| key.app == AppId::UNIDENTIFIED);
        let beside = |key: &&LearnKey| {
            let mut rules = self.rules.range(key.same_port());
            rules.any(|rule| rule.key.app != AppId::UNIDENTIFIED)
        };
        let bare: Vec<LearnKey> = bare.filter(beside).cloned().collect();
        for key in bare {
            let rules = self.rules.range(key.same_port());
            let first = rules
                .filter(|rule| rule.key != key)
                .min_by_key(|rule| rule.id)
                .map(|rule| rule.key.clone());
            let Some(first) = first else { continue };
            let evidence = self.absorb_bare_port(&first);
            if let (Some(rule), Some(evidence)) = (self.rules.change(&first), evidence) {
                rule.evidence.absorb(evidence);
            }
        }
    }

    /// The bare port gives way to the first application that makes a rule on it, with its evidence.
    fn absorb_bare_port(&mut self, key: &LearnKey) -> Option<Evidence> {
        let bare = LearnKey { app: AppId::UNIDENTIFIED, ..key.clone() };
        let id = self.rules.get(&bare).filter(|_| bare != *key)?.id;
        let evidence = self.rules.get(&bare)?.evidence.clone();
        self.remove(id).then_some(evidence)
    }

    /// Takes in what `note` adds to the evidence for a key; says whether a new rule came of it.
    pub(crate) fn learn(
        &mut self,
        (key, reporter): (&LearnKey, &Arc<str>),
        settings: &Settings,
        totals: &mut Totals,
        note: impl FnOnce(&mut Evidence),
    ) -> bool {
        if let Some(rule) = self.rules.change(key) {
            note(&mut rule.evidence);
            return false;
        }
        let begin = || Candidate {
            key: key.clone(),
            evidence: Evidence::default(),
            reporter: Arc::clone(reporter),
        };
        let gone = |_| totals.evicted_candidates = totals.evicted_candidates.saturating_add(1);
        let candidate = self.candidates.change_or_make(key, begin, gone);
        note(&mut candidate.evidence);
        let sessions = candidate.evidence.data_sessions;
        let needed = needed(key.app, settings);
        if sessions < needed || (key.app == AppId::UNIDENTIFIED && self.is_identified(key)) {
            return false;
        }
        self.promote(key, totals)
    }

    /// Adds to the evidence of a rule that exists.
    pub(crate) fn confirm(&mut self, key: &LearnKey, note: impl FnOnce(&mut Evidence)) {
        if let Some(rule) = self.rules.change(key) {
            note(&mut rule.evidence);
        }
    }

    /// Whether there is a rule for that key.
    pub(crate) fn has(&self, key: &LearnKey) -> bool {
        self.rules.get(key).is_some()
    }

    /// Gives what was learned about a bare port to the application that its clients say it is; says
    /// whether a new rule came of it.
    pub(crate) fn rename(
        &mut self,
        bare: &LearnKey,
        (named, reporter): (&LearnKey, &Arc<str>),
        settings: &Settings,
        totals: &mut Totals,
    ) -> bool {
        let is_rule = match self.rules.get(bare) {
            // A rule never goes before another takes its place.
            Some(rule) if rule.evidence.data_sessions < needed(named.app, settings) => {
                return false;
            }
            known => known.is_some(),
        };
        if is_rule {
            return self.replace(named);
        }
        let Some(known) = self.candidates.remove(bare) else { return false };
        self.learn((named, reporter), settings, totals, |evidence| {
            evidence.named(true);
            evidence.absorb(known.evidence);
        })
    }

    /// Puts the application that its clients name in the place of the bare port, whatever room there is; says
    /// whether a new rule came of it.
    fn replace(&mut self, named: &LearnKey) -> bool {
        let Some(bare) = self.absorb_bare_port(named) else { return false };
        let take = |evidence: &mut Evidence| {
            evidence.named(true);
            evidence.absorb(bare);
        };
        if let Some(rule) = self.rules.change(named) {
            take(&mut rule.evidence);
            return false;
        }
        let candidate = self.candidates.remove(named);
        let mut evidence = candidate.map_or_else(Evidence::default, |known| known.evidence);
        take(&mut evidence);
        self.make(named, evidence)
    }

    /// Adds an example to a rule or the beginning of one.
    pub(crate) fn show(&mut self, key: &LearnKey, flow: FlowSample) {
        let known = self.rules.get(key).map(|rule| &rule.evidence);
        let known = known.or(self
            .candidates
            .get(key)
            .map(|candidate| &candidate.evidence));
        if known.is_none_or(|evidence| evidence.samples.contains(&flow)) {
            return;
        }
        if let Some(rule) = self.rules.change(key) {
            rule.evidence.show(flow);
        } else if let Some(candidate) = self.candidates.change(key) {
            candidate.evidence.show(flow);
        }
    }

    /// Whether an application was ever identified between the same groups on the same port.
    pub(crate) fn is_identified(&self, key: &LearnKey) -> bool {
        let rules = self.rules.range(key.same_port()).map(|rule| rule.key.app);
        let candidates = self
            .candidates
            .range(key.same_port())
            .map(|candidate| candidate.key.app);
        rules
            .chain(candidates)
            .any(|app| app != AppId::UNIDENTIFIED)
    }

    /// Has what was learned about an address be about what is behind it. What does not fit there is forgotten.
    pub(crate) fn move_to(&mut self, from: &LearnKey, to: &LearnKey) {
        if let Some(candidate) = self.candidates.remove(from)
            && let Some(known) = self.candidates.change(to)
        {
            known.evidence.absorb(candidate.evidence);
        }
        let Some((id, evidence)) = self
            .rules
            .get(from)
            .map(|rule| (rule.id, rule.evidence.clone()))
        else {
            return;
        };
        self.remove(id);
        if let Some(known) = self.rules.change(to) {
            known.evidence.absorb(evidence);
        } else if self.has_room(to) {
            self.candidates.remove(to);
            self.make(to, evidence);
        }
    }

    fn promote(&mut self, key: &LearnKey, totals: &mut Totals) -> bool {
        let bare = LearnKey { app: AppId::UNIDENTIFIED, ..key.clone() };
        // What takes another's place needs no room.
        let has_room = self.rules.get(&bare).is_some() || self.has_room(key);
        if !has_room || self.next_id().is_none() {
            self.wants_room = true;
            totals.refused_rules = totals.refused_rules.saturating_add(1);
            return false;
        }
        let Some(mut candidate) = self.candidates.remove(key) else { return false };
        if let Some(bare) = self.absorb_bare_port(key) {
            candidate.evidence.absorb(bare);
        }
        self.make(key, candidate.evidence)
    }

    fn make(&mut self, key: &LearnKey, evidence: Evidence) -> bool {
        let Some(id) = self.next_id() else { return false };
        self.rules
            .change_or_make(key, || Rule { id, key: key.clone(), evidence }, drop);
        self.enlist(id, key, true);
        self.by_id.insert(id, key.clone());
        true
    }

    /// The next above the highest, or the lowest that is free.
    fn next_id(&mut self) -> Option<RuleId> {
        let highest = self
            .by_id
            .last_key_value()
            .map_or(FIRST_RULE - 1, |(id, _)| id.0);
        if highest < LAST_RULE {
            return Some(RuleId(highest + 1));
        }
        while self.by_id.contains_key(&RuleId(self.taken_below)) {
            self.taken_below += 1;
        }
        (self.taken_below <= LAST_RULE).then_some(RuleId(self.taken_below))
    }
}

/// In whose share a rule is, and whom it is about besides: the server's proxy tells it, or the client's if
/// the server has none.
fn parties(key: &LearnKey) -> (&Group, Option<&Group>) {
    match key.to.is_of_workloads() {
        true => (&key.to, Some(&key.from)),
        false => (&key.from, None),
    }
}

/// Sessions with data that make a rule.
pub(crate) fn needed(app: AppId, settings: &Settings) -> u64 {
    match app {
        AppId::UNIDENTIFIED => settings.unidentified_sessions,
        _ => settings.identified_sessions,
    }
}

#[cfg(test)]
mod tests;
