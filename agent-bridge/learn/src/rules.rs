//! Rules that traffic made, and those it is about to make.

use std::{collections::BTreeMap, ops::RangeInclusive, sync::Arc};

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

/// Rules that one group of workloads has as a client, and as many again as a server: one noisy
/// pod's can't fill everybody's policy. More are refused and counted.
pub const MAX_GROUP_RULES: usize = 4_096;

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

    /// There are as many as there are numbers, and groups have bounds: none makes room.
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
    /// How many each group has, as a client and as a server.
    of_group: BTreeMap<Group, [usize; 2]>,
    /// Every number below it is taken.
    taken_below: u32,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            rules: Kept::new((LAST_RULE - FIRST_RULE + 1) as usize),
            candidates: Kept::new(MAX_CANDIDATES),
            by_id: BTreeMap::new(),
            of_group: BTreeMap::new(),
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
            self.count(&key, true);
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
        self.count(&key, false);
        self.rules.remove(&key).is_some()
    }

    /// Whether a group has as many rules, as a client or as a server, as it may have.
    pub(crate) fn is_full(&self, group: &Group) -> bool {
        self.of_group
            .get(group)
            .is_some_and(|known| known.iter().any(|count| *count >= MAX_GROUP_RULES))
    }

    /// Whether one more rule fits both its groups.
    fn has_room(&self, key: &LearnKey) -> bool {
        let room = |group: &Group, side: usize| {
            let known = self.of_group.get(group).and_then(|known| known.get(side));
            !group.is_of_workloads() || known.is_none_or(|count| *count < MAX_GROUP_RULES)
        };
        room(&key.from, 0) && room(&key.to, 1)
    }

    fn count(&mut self, key: &LearnKey, is_new: bool) {
        for (side, group) in [&key.from, &key.to].into_iter().enumerate() {
            if !group.is_of_workloads() {
                continue;
            }
            let known = self.of_group.entry(group.clone()).or_default();
            if let Some(count) = known.get_mut(side) {
                *count = if is_new { *count + 1 } else { count.saturating_sub(1) };
            }
            if *known == [0, 0] {
                self.of_group.remove(group);
            }
        }
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
        let evidence = match self.rules.get(bare) {
            // A rule never goes before another takes its place.
            Some(rule) if rule.evidence.data_sessions < needed(named.app, settings) => {
                return false;
            }
            Some(_) => self.absorb_bare_port(named),
            None => self.candidates.remove(bare).map(|known| known.evidence),
        };
        let Some(evidence) = evidence else { return false };
        self.learn((named, reporter), settings, totals, |known| {
            known.named(true);
            known.absorb(evidence);
        })
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

    fn promote(&mut self, key: &LearnKey, totals: &mut Totals) -> bool {
        let bare = self.absorb_bare_port(key);
        let Some(id) = self.next_id().filter(|_| self.has_room(key)) else {
            totals.refused_rules = totals.refused_rules.saturating_add(1);
            return false;
        };
        let Some(mut candidate) = self.candidates.remove(key) else { return false };
        bare.into_iter()
            .for_each(|bare| candidate.evidence.absorb(bare));
        let make = || Rule { id, key: key.clone(), evidence: candidate.evidence };
        self.rules.change_or_make(key, make, drop);
        self.count(key, true);
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

/// Sessions with data that make a rule.
pub(crate) fn needed(app: AppId, settings: &Settings) -> u64 {
    match app {
        AppId::UNIDENTIFIED => settings.unidentified_sessions,
        _ => settings.identified_sessions,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(port: u16, app: AppId) -> LearnKey {
        LearnKey {
            from: Group::named("nv.a.default"),
            to: Group::named("nv.b.default"),
            proto: IpProto::TCP,
            port,
            app,
        }
    }

    /// With a reporter, which none of these is about.
    fn by(key: &LearnKey) -> (&LearnKey, &'static Arc<str>) {
        static REPORTER: std::sync::LazyLock<Arc<str>> = std::sync::LazyLock::new(|| "a".into());
        (key, &REPORTER)
    }

    fn feed(rules: &mut Rules, key: &LearnKey, times: usize) -> bool {
        let (settings, mut totals) = (Settings::default(), Totals::default());
        (0..times).fold(false, |made, _| {
            made | rules.learn(by(key), &settings, &mut totals, |evidence| evidence.count(1, 10))
        })
    }

    #[test]
    fn several_sessions_with_data_make_a_rule() {
        let mut rules = Rules::default();
        let redis = key(6379, AppId::REDIS);
        assert!(!feed(&mut rules, &redis, 2));
        assert!(feed(&mut rules, &redis, 1));
        assert!(!feed(&mut rules, &redis, 1), "it is made once");
        assert_eq!(rules.by_id(RuleId(10_001)).unwrap().evidence.sessions, 4);
        assert_eq!(rules.candidates.len(), 0);
    }

    #[test]
    fn a_bare_port_needs_more_and_that_nothing_was_identified() {
        let mut rules = Rules::default();
        assert!(!feed(&mut rules, &key(7000, AppId::UNIDENTIFIED), 4));
        assert!(feed(&mut rules, &key(7000, AppId::UNIDENTIFIED), 1));
        assert!(!feed(&mut rules, &key(7001, AppId::HTTP), 1));
        assert!(!feed(&mut rules, &key(7001, AppId::UNIDENTIFIED), 50));
    }

    #[test]
    fn a_bare_port_gives_way_to_the_application_with_its_evidence() {
        let mut rules = Rules::default();
        assert!(feed(&mut rules, &key(7000, AppId::UNIDENTIFIED), 6));
        assert!(!feed(&mut rules, &key(7000, AppId::HTTP), 2));
        assert_eq!(rules.iter().count(), 1, "not for a few sessions");
        assert!(feed(&mut rules, &key(7000, AppId::HTTP), 1));
        let known: Vec<_> = rules.iter().collect();
        assert_eq!((known.len(), known[0].key.app), (1, AppId::HTTP));
        assert_eq!((known[0].evidence.sessions, known[0].evidence.bytes), (9, 90));
        assert!(feed(&mut rules, &key(7000, AppId::REDIS), 3), "a second application adds a rule");
        assert!(!feed(&mut rules, &key(7000, AppId::UNIDENTIFIED), 50), "it never comes back");
        assert_eq!(rules.iter().count(), 2);
        assert_eq!(rules.of_group[&Group::named("nv.a.default")], [2, 0]);
    }

    #[test]
    fn a_bare_port_restored_beside_an_application_gives_way() {
        let mut rules = Rules::default();
        let stored = |id: u32, port: u16, app: AppId| {
            let mut evidence = Evidence::default();
            evidence.count(u64::from(id), 10);
            Rule { id: RuleId(FIRST_RULE + id), key: key(port, app), evidence }
        };
        for rule in [
            stored(1, 80, AppId::UNIDENTIFIED),
            stored(2, 80, AppId::HTTP),
            stored(3, 80, AppId::REDIS),
            stored(4, 81, AppId::UNIDENTIFIED),
        ] {
            assert!(rules.restore_rule(rule));
        }
        rules.settle();
        let kept: Vec<_> = rules
            .iter()
            .map(|rule| (rule.key.port, rule.key.app, rule.evidence.sessions))
            .collect();
        let left = [(80, AppId::HTTP, 3), (80, AppId::REDIS, 3), (81, AppId::UNIDENTIFIED, 4)];
        assert_eq!(kept, left);
        let mut changes = Vec::new();
        rules
            .rules
            .take_changes(|key, rule| changes.push((key.app, rule.is_some())));
        assert_eq!(changes, [(AppId::UNIDENTIFIED, false), (AppId::HTTP, true)]);
    }

    #[test]
    fn a_group_has_its_own_bound() {
        let (settings, mut totals) = (Settings::default(), Totals::default());
        let mut rules = Rules::default();
        let count = |evidence: &mut Evidence| evidence.count(9, 10);
        let cap = u16::try_from(MAX_GROUP_RULES).unwrap();
        for port in 0..cap {
            assert!(rules.learn(by(&key(port, AppId::HTTP)), &settings, &mut totals, count));
        }
        assert!(!rules.learn(by(&key(cap, AppId::HTTP)), &settings, &mut totals, count));
        assert_eq!(totals.refused_rules, 1);
        assert!(rules.is_full(&Group::named("nv.a.default")));
        let other = Group::named("nv.c.default");
        let to_other = LearnKey { from: other.clone(), to: other.clone(), ..key(1, AppId::HTTP) };
        assert!(rules.learn(by(&to_other), &settings, &mut totals, count), "others have their own");
        let from_outside = LearnKey { from: Group::named(Group::EXTERNAL), ..to_other };
        assert!(rules.learn(by(&from_outside), &settings, &mut totals, count));
        assert!(rules.remove(RuleId(FIRST_RULE)));
        assert!(rules.learn(by(&key(cap, AppId::HTTP)), &settings, &mut totals, count));
    }

    #[test]
    fn numbers_go_up_and_then_fill_gaps() {
        let mut rules = Rules::default();
        let restored = |id: u32| Rule {
            id: RuleId(id),
            key: key(u16::try_from(id % 60_000).unwrap(), AppId(id)),
            evidence: Evidence::default(),
        };
        for id in [FIRST_RULE, FIRST_RULE + 1, FIRST_RULE + 3, LAST_RULE] {
            assert!(rules.restore_rule(restored(id)));
            assert!(!rules.restore_rule(restored(id)));
        }
        assert_eq!(rules.next_id(), Some(RuleId(FIRST_RULE + 2)));
        assert!(rules.remove(RuleId(FIRST_RULE)) && !rules.remove(RuleId(FIRST_RULE)));
        assert_eq!(rules.next_id(), Some(RuleId(FIRST_RULE)));
        assert!(rules.remove(RuleId(LAST_RULE)));
        assert_eq!(rules.next_id(), Some(RuleId(FIRST_RULE + 4)));
    }

    #[test]
    fn refuses_when_all_numbers_are_taken() {
        let (settings, mut totals) = (Settings::default(), Totals::default());
        let mut rules = Rules::default();
        for id in FIRST_RULE..=LAST_RULE {
            rules.by_id.insert(RuleId(id), key(1, AppId(id)));
        }
        let count = |evidence: &mut Evidence| evidence.count(9, 10);
        assert!(!rules.learn(by(&key(80, AppId::HTTP)), &settings, &mut totals, count));
        assert_eq!(totals.refused_rules, 1);
    }
}
