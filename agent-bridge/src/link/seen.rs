//! What was seen since the controller was told last, by the groups at both ends.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    time::Duration,
};

use outrider_api::cluster::{Conversation, Observed, Side};
use outrider_learn::{Directory, Endpoint, Group, LearnKey, Reached, Row};
use outrider_model::{AppId, IpProto};
use tokio::time::Instant;

/// Sums that wait; one more is dropped, and counted.
const MAX_PENDING: usize = 16_384;
/// Sums of one batch; the controller looks at no more.
const MAX_BATCH: usize = 4_096;
/// Clients of one sum whose addresses are told.
const MAX_CLIENTS: usize = 8;
/// Addresses that the controller was asked about, or is to be.
const MAX_ASKED: usize = 8_192;
/// Addresses of one question.
const MAX_QUESTION: usize = 512;
/// How long an address that is nobody's is not asked about again, and how long an answer may take.
const NOBODYS: Duration = Duration::from_secs(60);
/// How long a sum waits to hear whose address its peer is.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a sum is of.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Key {
    own: Group,
    peer: Peer,
    side: Side,
    proto: IpProto,
    port: u16,
    app: AppId,
}

/// The end that is not the reporter's.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Peer {
    Known(Group),
    /// Internal, and not known yet whose.
    Address(IpAddr),
}

#[derive(Clone, Debug)]
struct Sum {
    since: Instant,
    sessions: u64,
    bytes: u64,
    violations: u64,
    /// Of the others, those that make no rule.
    confirming: u64,
    threats: u64,
    first_seen: u64,
    last_seen: u64,
    clients: BTreeSet<IpAddr>,
}

/// Sums that wait, and the batch under way.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    on: bool,
    pending: HashMap<Key, Sum>,
    flight: Option<Observed>,
    batch: u64,
    /// Sums that did not fit.
    dropped: u64,
    asked: HashMap<IpAddr, Asked>,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    at: Instant,
    told: bool,
}

impl Seen {
    /// Nothing is noted before there is anybody to tell.
    pub(crate) fn switch_on(&mut self) {
        self.on = true;
    }

    /// Notes a row; `teaches` says whether a rule may be made of it, and is asked only of what is noted.
    pub(crate) fn note(
        &mut self,
        row: &Row,
        teaches: impl FnOnce() -> bool,
        directory: &Directory,
    ) {
        let says_nothing = row.violations == 0
            && (row.app == AppId::NOT_CHECKED || row.sessions == 0 && row.bytes == 0);
        let Some(own) = directory
            .get(&row.reporter)
            .filter(|_| self.on && !says_nothing)
        else {
            return;
        };
        let side = if row.inbound { Side::Server } else { Side::Client };
        let Reached { endpoint, port, .. } = directory.peer(row);
        let peer = match endpoint {
            Endpoint::Unmanaged(address) => {
                self.wonder(address);
                Peer::Address(address)
            }
            _ => match directory.group(&endpoint) {
                Some(group) => Peer::Known(group),
                None => return,
            },
        };
        let app = if row.app == AppId::UNKNOWN { AppId::UNIDENTIFIED } else { row.app };
        let key = Key { own: own.group(), peer, side, proto: row.proto, port, app };
        if self.pending.len() >= MAX_PENDING && !self.pending.contains_key(&key) {
            self.dropped += 1;
            return;
        }
        self.pending
            .entry(key)
            .or_insert_with(|| Sum::new(row))
            .add(row, teaches());
    }

    /// Addresses that the controller is to be asked about.
    pub(crate) fn questions(&mut self) -> Vec<IpAddr> {
        let fresh = self.asked.iter_mut().filter(|(_, asked)| !asked.told);
        let mut questions = Vec::new();
        for (address, asked) in fresh.take(MAX_QUESTION) {
            (asked.told, asked.at) = (true, Instant::now());
            questions.push(*address);
        }
        questions
    }

    /// The batch to be told now, the same again until it is acknowledged; none if there is nothing. `learned` says
    /// what the node made a rule of.
    pub(crate) fn batch(
        &mut self,
        directory: &Directory,
        learned: impl Fn(&LearnKey) -> bool,
    ) -> Option<Observed> {
        if let Some(flight) = &self.flight {
            return Some(flight.clone());
        }
        self.resolve(directory);
        let ready = |(key, sum): (&Key, &Sum)| {
            let is_known = matches!(key.peer, Peer::Known(_)) || sum.since.elapsed() >= PATIENCE;
            is_known.then(|| key.clone())
        };
        let keys: Vec<_> = self
            .pending
            .iter()
            .filter_map(ready)
            .take(MAX_BATCH)
            .collect();
        let told = keys
            .into_iter()
            .filter_map(|key| self.pending.remove_entry(&key));
        let conversations: Vec<_> = told
            .map(|(key, sum)| conversation(&key, sum, directory, &learned))
            .collect();
        if conversations.is_empty() {
            return None;
        }
        self.batch += 1;
        let flight = Observed { batch: self.batch, conversations };
        self.flight = Some(flight.clone());
        Some(flight)
    }

    /// A batch is safe with the controller; says whether it was the one under way.
    pub(crate) fn acknowledged(&mut self, batch: u64) -> bool {
        let is_ours = self
            .flight
            .as_ref()
            .is_some_and(|flight| flight.batch == batch);
        if is_ours {
            self.flight = None;
        }
        is_ours
    }

    /// How many sums wait, those under way too, and how many were dropped.
    pub(crate) fn waiting(&self) -> (u64, u64) {
        let flight = self
            .flight
            .as_ref()
            .map_or(0, |flight| flight.conversations.len());
        ((self.pending.len() + flight) as u64, self.dropped)
    }

    /// Has an address asked about, if it was not of late.
    fn wonder(&mut self, address: IpAddr) {
        let now = Instant::now();
        if let Some(known) = self.asked.get_mut(&address) {
            if known.told && known.at + NOBODYS <= now {
                known.told = false;
            }
            return;
        }
        if self.asked.len() >= MAX_ASKED {
            self.asked.retain(|_, asked| asked.at + NOBODYS > now);
        }
        if self.asked.len() < MAX_ASKED {
            self.asked.insert(address, Asked { at: now, told: false });
        }
    }

    /// Gives the sums of addresses that are somebody's by now to whom they belong. Of what is behind a Service of
    /// several groups the servers' proxies tell.
    fn resolve(&mut self, directory: &Directory) {
        let whose = |key: &Key| {
            let Peer::Address(address) = key.peer else { return None };
            let reached = match key.side {
                Side::Server => None,
                _ => directory.reached(address, key.proto, key.port),
            };
            let is_service = reached.is_some();
            let Reached { endpoint, port, managed } = reached.unwrap_or_else(|| {
                let endpoint = directory.endpoint(address);
                let managed = directory.is_managed(&endpoint);
                Reached { endpoint, port: key.port, managed }
            });
            let is_known = is_service || !matches!(endpoint, Endpoint::Unmanaged(_));
            let is_mirror = key.side == Side::Client && managed;
            is_known.then(|| (key.clone(), directory.group(&endpoint), port, is_mirror))
        };
        let addresses: Vec<_> = self.pending.keys().filter_map(whose).collect();
        for (key, group, port, is_mirror) in addresses {
            let Some(mut sum) = self.pending.remove(&key) else { continue };
            let Some(group) = group else { continue };
            if is_mirror {
                sum.confirming = sum.sessions.saturating_sub(sum.violations);
            }
            let key = Key { peer: Peer::Known(group), port, ..key };
            match self.pending.get_mut(&key) {
                Some(known) => known.absorb(sum),
                None => drop(self.pending.insert(key, sum)),
            }
        }
    }
}

impl Sum {
    fn new(row: &Row) -> Self {
        Self {
            since: Instant::now(),
            sessions: 0,
            bytes: 0,
            violations: 0,
            confirming: 0,
            threats: 0,
            first_seen: row.first_seen,
            last_seen: row.last_seen,
            clients: BTreeSet::new(),
        }
    }

    fn add(&mut self, row: &Row, teaches: bool) {
        if !teaches {
            let confirming = row.sessions.saturating_sub(row.violations);
            self.confirming = self.confirming.saturating_add(confirming);
        }
        self.sessions = self.sessions.saturating_add(row.sessions);
        self.bytes = self.bytes.saturating_add(row.bytes);
        self.violations = self.violations.saturating_add(row.violations);
        self.threats = self
            .threats
            .saturating_add((row.threat != Default::default()).into());
        self.first_seen = self.first_seen.min(row.first_seen);
        self.last_seen = self.last_seen.max(row.last_seen);
        if self.clients.len() < MAX_CLIENTS {
            self.clients.insert(row.client.to_canonical());
        }
    }

    fn absorb(&mut self, other: Self) {
        self.sessions = self.sessions.saturating_add(other.sessions);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.violations = self.violations.saturating_add(other.violations);
        self.confirming = self.confirming.saturating_add(other.confirming);
        self.threats = self.threats.saturating_add(other.threats);
        self.first_seen = self.first_seen.min(other.first_seen);
        self.last_seen = self.last_seen.max(other.last_seen);
        let room = MAX_CLIENTS.saturating_sub(self.clients.len());
        self.clients.extend(other.clients.into_iter().take(room));
    }
}

fn conversation(
    key: &Key,
    sum: Sum,
    directory: &Directory,
    learned: impl Fn(&LearnKey) -> bool,
) -> Conversation {
    let peer = match &key.peer {
        Peer::Known(group) => Some(group.clone()),
        Peer::Address(address) => directory.group(&Endpoint::Unmanaged(*address)),
    };
    let peer = peer.unwrap_or_else(|| Group::named(Group::EXTERNAL));
    let (from, to) = match key.side {
        Side::Server => (peer, key.own.clone()),
        _ => (key.own.clone(), peer),
    };
    let rule = LearnKey { from, to, proto: key.proto, port: key.port, app: key.app };
    let learned = learned(&rule);
    Conversation {
        from: rule.from.to_string(),
        to: rule.to.to_string(),
        proto: key.proto.0.into(),
        port: key.port.into(),
        app: key.app.0,
        side: key.side.into(),
        sessions: sum.sessions,
        bytes: sum.bytes,
        violations: sum.violations,
        threats: sum.threats,
        first_seen: sum.first_seen,
        last_seen: sum.last_seen,
        clients: sum.clients.into_iter().map(super::read::bytes).collect(),
        learned,
        confirming: sum.confirming,
    }
}

#[cfg(test)]
mod tests;
