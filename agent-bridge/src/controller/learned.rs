//! What all nodes saw, merged: conversations between the same groups become one rule of the cluster, by the same
//! thresholds by which a node learns. Both ends of a conversation may report it: what the server's end saw counts,
//! and what the client's end saw only while the server's has said nothing.

mod counted;
mod object;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use outrider_api::cluster::{Conversation, Side};
use outrider_learn::{Ends, Evidence, Group, LearnKey, Ports, Settings};
use outrider_model::{AppId, IpProto};

use self::counted::{Batch, Counted, UnderWay};
use super::{plan::Rule, store::Key};
use crate::cluster::objects::{LearnedPolicy, MAX_LEARNED};

/// The first number of a rule that the cluster learned.
pub(super) const FIRST_RULE: u32 = 1_000_000;
/// Beginnings of rules that are told apart, of one node and in all.
pub(super) const MAX_OF_NODE: usize = 4_096;
pub(super) const MAX_BEGUN: usize = 131_072;
/// After so long without news a beginning is forgotten, in seconds.
const BEGUN_LIFE: u64 = 24 * 3_600;
/// Rules that were learned, in all.
const MAX_RULES: usize = 262_144;
/// The longest name of a group.
const MAX_NAME: usize = 512;
/// Addresses of clients of one report that are looked at.
const MAX_CLIENTS: usize = 64;
/// Learned rules come after all that people wrote.
pub(super) const ORDER: u64 = 1 << 62;

/// What becomes of a report.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Taken {
    /// It counts.
    Counted,
    /// It made a rule.
    Learned,
    /// It cannot be read.
    Malformed,
    /// There is no room.
    Full,
    /// The service's policy is frozen.
    Frozen,
}

impl Taken {
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Counted => "counted",
            Self::Learned => "learned",
            Self::Malformed => "malformed",
            Self::Full => "full",
            Self::Frozen => "frozen",
        }
    }
}

/// What both ends saw.
#[derive(Debug, Default)]
struct Seen {
    by_server: Evidence,
    by_client: Evidence,
}

impl Seen {
    /// What counts.
    fn counted(&self) -> &Evidence {
        if self.by_server.last_seen > 0 { &self.by_server } else { &self.by_client }
    }

    /// Takes in so many of the sessions.
    fn take(&mut self, said: &Conversation, sessions: u64) {
        let is_server = said.side() == Side::Server;
        let evidence = if is_server { &mut self.by_server } else { &mut self.by_client };
        evidence.count(sessions, said.bytes);
        let clients = said
            .clients
            .iter()
            .take(MAX_CLIENTS)
            .filter_map(|bytes| address(bytes));
        evidence.see_all(clients, said.first_seen, said.last_seen.max(1));
    }
}

#[derive(Debug)]
struct Learned {
    id: u32,
    seen: Seen,
}

#[derive(Debug)]
struct Begun {
    node: Arc<str>,
    seen: Seen,
}

/// The policy of one service, as we hold it.
#[derive(Debug, Default)]
struct Service {
    rules: BTreeMap<LearnKey, Learned>,
    frozen: bool,
    excluded: BTreeSet<u32>,
    /// A watch has shown it, so that it is deleted when no watch shows it any more.
    shown: bool,
    /// Number of the first rule that it does not have.
    unwritten: Option<u64>,
    /// Number of its newest rule.
    last_made: u64,
    /// There is new evidence.
    news: bool,
    counted: Counted,
}

/// Everything that was learned in the cluster.
#[derive(Debug)]
pub(super) struct Merged {
    settings: Settings,
    services: BTreeMap<Key, Service>,
    begun: HashMap<LearnKey, Begun>,
    of_node: HashMap<Arc<str>, usize>,
    next: u32,
    rules: usize,
    /// How many rules were made; what is written is told by it.
    made: u64,
    /// Services with rules that are not written, by the number of the first.
    unwritten: BTreeSet<(u64, Key)>,
    /// Rules that are or are not in force, other than when this was asked last.
    changed: BTreeMap<u32, Option<Arc<Rule>>>,
    under_way: UnderWay,
}

impl Default for Merged {
    fn default() -> Self {
        Self {
            settings: Settings::default(),
            services: BTreeMap::new(),
            begun: HashMap::new(),
            of_node: HashMap::new(),
            next: FIRST_RULE,
            rules: 0,
            made: 0,
            unwritten: BTreeSet::new(),
            changed: BTreeMap::new(),
            under_way: UnderWay::default(),
        }
    }
}

impl Merged {
    /// A node begins to tell a batch: what is observed of it from now on is of this one.
    pub(super) fn begin_batch(&mut self, node: &Arc<str>, instance: &str, number: u64) {
        self.under_way
            .begin(node, Batch { instance: instance.into(), number });
    }

    /// A batch of a node's, and those before it, are acknowledged: they don't come again.
    pub(super) fn acknowledged(&mut self, node: &str, number: u64) {
        self.under_way.acknowledged(node, number);
    }

    /// Takes in what a node says. That it may speak for the groups is checked before. Without `sure` no rule is made:
    /// a beginning waits for its next report.
    pub(super) fn observe(&mut self, node: &Arc<str>, said: &Conversation, sure: bool) -> Taken {
        let Some((key, owner)) = key(said) else { return Taken::Malformed };
        // What was against policy speaks for nothing.
        let sessions = said.sessions.saturating_sub(said.violations);
        if let Some(service) = self.services.get_mut(&owner)
            && let Some(learned) = service.rules.get_mut(&key)
        {
            if !service.counted.had(node, &self.under_way) {
                learned.seen.take(said, sessions);
                service.counted.note(node, &self.under_way);
                service.news = true;
            }
            return Taken::Counted;
        }
        if self
            .services
            .get(&owner)
            .is_some_and(|service| service.frozen)
        {
            return Taken::Frozen;
        }
        let enough = match key.app {
            AppId::UNIDENTIFIED => self.settings.unidentified_sessions,
            _ => self.settings.identified_sessions,
        };
        let lessons = sessions.saturating_sub(said.confirming);
        if !self.begun.contains_key(&key) {
            if lessons == 0 && !said.learned {
                return Taken::Counted;
            }
            if !self.begin(node, key.clone()) {
                return Taken::Full;
            }
        }
        let Some(begun) = self.begun.get_mut(&key) else { return Taken::Full };
        begun.seen.take(said, lessons);
        if !sure || (begun.seen.counted().data_sessions < enough && !said.learned) {
            return Taken::Counted;
        }
        self.make(node, key, &owner)
    }

    fn begin(&mut self, node: &Arc<str>, key: LearnKey) -> bool {
        let own = self.of_node.entry(Arc::clone(node)).or_default();
        if *own >= MAX_OF_NODE || self.begun.len() >= MAX_BEGUN {
            return false;
        }
        *own += 1;
        self.begun
            .insert(key, Begun { node: Arc::clone(node), seen: Seen::default() });
        true
    }

    fn end(&mut self, key: &LearnKey) -> Option<Seen> {
        let begun = self.begun.remove(key)?;
        if let Some(own) = self.of_node.get_mut(&begun.node) {
            *own = own.saturating_sub(1);
        }
        Some(begun.seen)
    }

    fn make(&mut self, node: &Arc<str>, key: LearnKey, owner: &Key) -> Taken {
        let service = self.services.entry(owner.clone()).or_default();
        if service.rules.len() >= MAX_LEARNED || self.rules >= MAX_RULES || self.next == u32::MAX {
            return Taken::Full;
        }
        self.made += 1;
        if service.unwritten.is_none() {
            service.unwritten = Some(self.made);
            self.unwritten.insert((self.made, owner.clone()));
        }
        service.last_made = self.made;
        let id = self.next;
        self.next += 1;
        self.rules += 1;
        let seen = self.end(&key).unwrap_or_default();
        let rule = rule(&owner.0, &owner.1, &key, id);
        self.changed.insert(id, Some(Arc::new(rule)));
        if let Some(service) = self.services.get_mut(owner) {
            service.rules.insert(key, Learned { id, seen });
            service.counted.note(node, &self.under_way);
        }
        Taken::Learned
    }

    /// Forgets beginnings that led to nothing.
    pub(super) fn sweep(&mut self, now: u64) {
        let old: Vec<_> = self
            .begun
            .iter()
            .filter(|(_, begun)| begun.seen.counted().last_seen.saturating_add(BEGUN_LIFE) < now)
            .map(|(key, _)| key.clone())
            .collect();
        for key in old {
            self.end(&key);
        }
    }

    /// Rules that are in force or not, other than when this was asked last; all that are, if `whole`.
    pub(super) fn changed(&mut self, whole: bool) -> BTreeMap<u32, Option<Arc<Rule>>> {
        let changed = std::mem::take(&mut self.changed);
        if whole { self.plan() } else { changed }
    }

    fn plan(&self) -> BTreeMap<u32, Option<Arc<Rule>>> {
        let mut rules = BTreeMap::new();
        for ((namespace, name), service) in &self.services {
            for (key, learned) in &service.rules {
                if !service.excluded.contains(&learned.id) {
                    let rule = rule(namespace, name, key, learned.id);
                    rules.insert(learned.id, Some(Arc::new(rule)));
                }
            }
        }
        rules
    }

    /// How many rules were made so far.
    pub(super) fn made(&self) -> u64 {
        self.made
    }

    /// Of them, up to which one the API server has all.
    pub(super) fn written(&self) -> u64 {
        let first = self.unwritten.first();
        first.map_or(self.made, |(first, _)| first - 1)
    }

    /// Rules and beginnings that are held.
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.rules, self.begun.len())
    }

    /// Takes in what the API server has: all of it.
    pub(super) fn take<'a>(&mut self, objects: impl Iterator<Item = &'a Arc<LearnedPolicy>>) {
        let mut there = BTreeSet::new();
        for object in objects {
            self.take_one(object);
            there.extend(object::key(object));
        }
        let gone = |key: &&Key| !there.contains(*key);
        let gone: Vec<_> = self.services.keys().filter(gone).cloned().collect();
        gone.iter().for_each(|key| self.forget(key));
    }

    /// A policy is there no more, if it ever was: it is learned anew.
    pub(super) fn forget(&mut self, owner: &Key) {
        if !self
            .services
            .get(owner)
            .is_some_and(|service| service.shown)
        {
            return;
        }
        let Some(service) = self.services.remove(owner) else { return };
        self.rules = self.rules.saturating_sub(service.rules.len());
        if let Some(first) = service.unwritten {
            self.unwritten.remove(&(first, owner.clone()));
        }
        let ids = service.rules.values().map(|learned| learned.id);
        self.changed.extend(ids.map(|id| (id, None)));
    }

    /// Takes in one policy: its rules when it is new here, else what people may change.
    pub(super) fn take_one(&mut self, object: &LearnedPolicy) {
        let Some(owner) = object::key(object) else { return };
        let is_new = !self.services.contains_key(&owner);
        let service = self.services.entry(owner.clone()).or_default();
        service.shown = true;
        service.frozen = object.spec.frozen;
        let excluded: BTreeSet<_> = object.spec.excluded.iter().copied().collect();
        let before = std::mem::replace(&mut service.excluded, excluded);
        if is_new {
            service.counted = Counted::restored(object::counted(object));
            for (key, id, evidence) in object::rules(&owner, object) {
                if service.rules.len() >= MAX_LEARNED || owner_of(&key) != owner {
                    continue;
                }
                self.next = self.next.max(id.saturating_add(1));
                let mut seen = Seen::default();
                let is_served = object::owner(key.to.name()).is_some();
                *(if is_served { &mut seen.by_server } else { &mut seen.by_client }) = evidence;
                if service.rules.insert(key, Learned { id, seen }).is_none() {
                    self.rules += 1;
                }
            }
        }
        let is_other = |id: &u32| is_new || before.contains(id) != service.excluded.contains(id);
        for (key, learned) in &service.rules {
            if is_other(&learned.id) {
                let holds = !service.excluded.contains(&learned.id);
                let rule = holds.then(|| Arc::new(rule(&owner.0, &owner.1, key, learned.id)));
                self.changed.insert(learned.id, rule);
            }
        }
    }
}

fn rule(namespace: &str, name: &str, key: &LearnKey, id: u32) -> Rule {
    Rule {
        id,
        order: ORDER,
        from: key.from.name().into(),
        to: key.to.name().into(),
        ends: Ends::Both,
        ports: vec![Ports { proto: Some(key.proto), low: key.port, high: key.port }],
        apps: vec![key.app.0],
        deny: false,
        origin: format!("LearnedPolicy/{namespace}/{name}/{id}").into(),
    }
}

/// What a report is about, and whose policy holds it.
fn key(said: &Conversation) -> Option<(LearnKey, Key)> {
    let is_name = |name: &str| {
        !name.is_empty() && name.len() <= MAX_NAME && !name.contains(|c: char| c.is_control())
    };
    if !is_name(&said.from) || !is_name(&said.to) || said.side() == Side::Unknown {
        return None;
    }
    let key = LearnKey {
        from: Group::named(&said.from),
        to: Group::named(&said.to),
        proto: IpProto(u8::try_from(said.proto).ok()?),
        port: u16::try_from(said.port).ok()?,
        app: AppId(said.app),
    };
    let owner = object::owner(&said.to).or_else(|| object::owner(&said.from))?;
    Some((key, owner))
}

/// The service whose policy holds a rule: the server's, or the client's if the server is none.
fn owner_of(key: &LearnKey) -> Key {
    object::owner(key.to.name())
        .or_else(|| object::owner(key.from.name()))
        .unwrap_or_default()
}

/// An address of 4 or 16 bytes.
pub(super) fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
        .map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests;
