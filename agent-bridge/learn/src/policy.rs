//! What people say, in the cluster or in a file: sets, rules in order, modes. And what was learned in the cluster.

mod sets;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use outrider_model::{AppId, Direction, IpProto, Mode, RuleId};

use crate::{Group, LearnError, Service, Workload, touched::Touched};
pub(crate) use sets::Set;
use sets::Sets;
pub use sets::{MAX_MEMBERS, MAX_SET_PARTS, MAX_SETS, SetChange};

/// The first number of a rule that people made.
pub const FIRST_POLICY: u32 = 200_000;

/// The first number of a rule that was learned in the cluster.
pub const FIRST_LEARNED: u32 = 1_000_000;

/// Rules of policy that one node may know.
pub const MAX_POLICY_RULES: usize = 131_072;

/// Ports, and applications, that one rule may have.
pub const MAX_RULE_PARTS: usize = 64;

/// Bytes of the name of a set, a rule's origin, or a uid.
pub const MAX_TEXT: usize = 1_024;

/// One change of what the cluster or a file says. They are taken in one by one; policy changes when it is compiled
/// next, so that changes that belong together must be taken in before.
#[derive(Clone, Debug, PartialEq)]
pub enum ClusterChange {
    /// Forget everything that was said: what follows is all there is.
    Reset,
    /// A workload of another node is there, or changed.
    Remote(Workload),
    /// A workload of another node is gone.
    RemoteGone {
        /// Which.
        uid: Arc<str>,
        /// Unix seconds.
        now: u64,
    },
    /// A set came or changed.
    Set(SetChange),
    /// A set is gone: rules that name it match nothing there.
    SetGone(Group),
    /// A rule came or changed.
    Rule(PolicyRule),
    /// A rule is gone.
    RuleGone(RuleId),
    /// A Service came or changed.
    Service(Service),
    /// A Service is gone, by `<namespace>/<name>`.
    ServiceGone(Arc<str>),
    /// Mode of a workload; `None`: nobody says, that of its group holds.
    Mode(Arc<str>, Option<Mode>),
}

/// A rule of policy, or one that was learned in the cluster. The first that matches decides, in the order of `order`,
/// then of `id`; those of policy before all that were learned.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PolicyRule {
    /// From [`FIRST_POLICY`] up; another rule never has it.
    pub id: RuleId,
    /// The smaller, the earlier.
    pub order: u64,
    /// Name of the set or group that opens flows.
    pub from: Group,
    /// Name of the set or group that receives them.
    pub to: Group,
    /// Where it holds.
    pub ends: Ends,
    /// Server ports; none: any.
    pub ports: Vec<Ports>,
    /// Applications; none: any.
    pub apps: Vec<AppId>,
    /// What matches is refused in Protect and reported in every mode.
    pub deny: bool,
    /// It was learned in the cluster.
    pub learned: bool,
    /// What people call it: `<kind>/<namespace>/<object>/<rule>`.
    pub origin: Arc<str>,
}

/// Server ports of a rule.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Ports {
    /// By which protocol; `None`: any that is judged.
    pub proto: Option<IpProto>,
    /// The first.
    pub low: u16,
    /// The last.
    pub high: u16,
}

impl Ports {
    /// Any port of any protocol.
    pub const ANY: Self = Self { proto: None, low: 0, high: u16::MAX };
}

/// At which ends of a flow a rule holds, where there are members of its sets.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Ends {
    /// At both.
    #[default]
    Both,
    /// At members of `to`.
    Server,
    /// At members of `from`.
    Client,
}

/// All that is said.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    sets: Sets,
    rules: BTreeMap<Place, PolicyRule>,
    order: BTreeMap<RuleId, u64>,
    by_from: HashMap<Group, BTreeSet<Place>>,
    by_to: HashMap<Group, BTreeSet<Place>>,
    modes: BTreeMap<Arc<str>, Mode>,
    refused: BTreeMap<&'static str, u64>,
}

/// Where a rule stands.
type Place = (u64, RuleId);

impl Policy {
    /// Every rule, in order.
    pub fn rules(&self) -> impl Iterator<Item = &PolicyRule> {
        self.rules.values()
    }

    /// A rule by number.
    #[must_use]
    pub fn rule(&self, id: RuleId) -> Option<&PolicyRule> {
        self.rules.get(&(*self.order.get(&id)?, id))
    }

    /// The mode that is said for a workload.
    #[must_use]
    pub fn mode(&self, uid: &str) -> Option<Mode> {
        self.modes.get(uid).copied()
    }

    /// Changes that were refused, by reason ([`LearnError::reason`]).
    #[must_use]
    pub fn refused(&self) -> &BTreeMap<&'static str, u64> {
        &self.refused
    }

    /// Sets that are known.
    #[must_use]
    pub fn sets(&self) -> usize {
        self.sets.len()
    }

    pub(crate) fn set(&self, name: &Group) -> Option<&Set> {
        self.sets.get(name)
    }

    /// The sets that a workload is a member of.
    pub(crate) fn sets_of(&self, uid: &str) -> impl Iterator<Item = &Group> {
        self.sets.of(uid)
    }

    /// Groups and sets at the other end of rules that name this one.
    pub(crate) fn facing(&self, group: &Group) -> impl Iterator<Item = &Group> {
        let rules = |places: Option<&'_ BTreeSet<Place>>| {
            places.into_iter().flatten().copied().collect::<Vec<_>>()
        };
        let (from, to) = (rules(self.by_from.get(group)), rules(self.by_to.get(group)));
        let servers = from
            .into_iter()
            .filter_map(|at| self.rules.get(&at))
            .map(|rule| &rule.to);
        let clients = to
            .into_iter()
            .filter_map(|at| self.rules.get(&at))
            .map(|rule| &rule.from);
        servers.chain(clients)
    }

    /// The rules that hold for a workload in that direction, in order.
    pub(crate) fn rules_for(
        &self,
        uid: &str,
        group: &Group,
        direction: Direction,
    ) -> Vec<&PolicyRule> {
        let (index, elsewhere) = match direction {
            Direction::Inbound => (&self.by_to, Ends::Client),
            Direction::Outbound => (&self.by_from, Ends::Server),
        };
        let names = std::iter::once(group)
            .chain(self.sets.of(uid))
            .chain(self.sets.any());
        let mut places: Vec<Place> = names
            .filter_map(|name| index.get(name))
            .flatten()
            .copied()
            .collect();
        places.sort_unstable();
        places.dedup();
        let rules = places.iter().filter_map(|at| self.rules.get(at));
        rules.filter(|rule| rule.ends != elsewhere).collect()
    }

    /// The rules that hold for a workload, in order, each once.
    #[must_use]
    pub fn rules_of(&self, workload: &Workload) -> Vec<&PolicyRule> {
        let both = [Direction::Inbound, Direction::Outbound].into_iter();
        let rules = both.flat_map(|way| self.rules_for(&workload.uid, &workload.group(), way));
        let rules: BTreeMap<Place, _> = rules.map(|rule| ((rule.order, rule.id), rule)).collect();
        rules.into_values().collect()
    }

    /// Takes in a change; one that is refused is counted, and what was said before holds on.
    pub(crate) fn apply(
        &mut self,
        change: ClusterChange,
        touched: &mut Touched,
    ) -> Result<(), LearnError> {
        match change {
            ClusterChange::Reset => {
                *self = Self { refused: std::mem::take(&mut self.refused), ..Self::default() };
                touched.all = true;
                Ok(())
            }
            ClusterChange::Set(change) => self.sets.change(change, touched),
            ClusterChange::SetGone(name) => {
                self.sets.remove(&name, touched);
                Ok(())
            }
            ClusterChange::Rule(rule) => self.put(rule, touched),
            ClusterChange::RuleGone(id) => {
                self.remove(id, touched);
                Ok(())
            }
            ClusterChange::Mode(uid, mode) => self.set_mode(uid, mode, touched),
            ClusterChange::Remote(_)
            | ClusterChange::RemoteGone { .. }
            | ClusterChange::Service(_)
            | ClusterChange::ServiceGone(_) => Ok(()),
        }
    }

    pub(crate) fn refuse(&mut self, error: LearnError) {
        let count = self.refused.entry(error.reason()).or_default();
        *count = count.saturating_add(1);
    }

    fn set_mode(
        &mut self,
        uid: Arc<str>,
        mode: Option<Mode>,
        touched: &mut Touched,
    ) -> Result<(), LearnError> {
        let has_room = self.modes.len() < crate::MAX_WORKLOADS || self.modes.contains_key(&uid);
        if mode.is_some() && !has_room {
            return Err(LearnError::TooManyWorkloads);
        }
        if uid.len() > MAX_TEXT {
            return Err(LearnError::Senseless);
        }
        touched.judged.insert(Arc::clone(&uid));
        match mode {
            Some(mode) => self.modes.insert(uid, mode),
            None => self.modes.remove(&uid),
        };
        Ok(())
    }

    fn put(&mut self, rule: PolicyRule, touched: &mut Touched) -> Result<(), LearnError> {
        check(&rule)?;
        if self.rule(rule.id) == Some(&rule) {
            return Ok(());
        }
        if self.rules.len() >= MAX_POLICY_RULES && !self.order.contains_key(&rule.id) {
            return Err(LearnError::TooManyRules);
        }
        self.remove(rule.id, touched);
        let place = (rule.order, rule.id);
        self.order.insert(rule.id, rule.order);
        self.by_from
            .entry(rule.from.clone())
            .or_default()
            .insert(place);
        self.by_to.entry(rule.to.clone()).or_default().insert(place);
        touched.ruled.extend([rule.from.clone(), rule.to.clone()]);
        self.rules.insert(place, rule);
        Ok(())
    }

    fn remove(&mut self, id: RuleId, touched: &mut Touched) {
        let Some(order) = self.order.remove(&id) else { return };
        let Some(rule) = self.rules.remove(&(order, id)) else { return };
        for (index, name) in [(&mut self.by_from, &rule.from), (&mut self.by_to, &rule.to)] {
            if let Some(places) = index.get_mut(name) {
                places.remove(&(order, id));
                if places.is_empty() {
                    index.remove(name);
                }
            }
        }
        touched.ruled.extend([rule.from, rule.to]);
    }
}

fn check(rule: &PolicyRule) -> Result<(), LearnError> {
    if rule.ports.len() > MAX_RULE_PARTS || rule.apps.len() > MAX_RULE_PARTS {
        return Err(LearnError::TooManyRuleParts);
    }
    let texts = [rule.from.name(), rule.to.name(), &rule.origin];
    let is_sound = rule.id.0 >= FIRST_POLICY
        && rule.ports.iter().all(|ports| ports.low <= ports.high)
        && texts.iter().all(|text| text.len() <= MAX_TEXT);
    if is_sound { Ok(()) } else { Err(LearnError::Senseless) }
}

#[cfg(test)]
mod tests;
