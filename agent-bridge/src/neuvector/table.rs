//! What is to be reported: rows summed by key, so many at most.
//!
//! When there is no room, ordinary rows are refused, and one that says of a rule to be learned or of
//! a violation takes the place of an ordinary one.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use outrider_model::{AppId, IpProto, PolicyAction, RuleId, ThreatId};

/// Keys that are held at most, those that were sent and are not answered included.
pub(super) const MAX_KEYS: usize = 32_768;

/// What rows are summed by. The workload is part of it: what one pod's proxy says changes nothing
/// that another one's said.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Key {
    /// The workload whose proxy reports, by uid.
    pub(super) uid: Arc<str>,
    pub(super) client: IpAddr,
    pub(super) server: IpAddr,
    /// The server's.
    pub(super) port: u16,
    pub(super) proto: IpProto,
    pub(super) rule: RuleId,
    pub(super) app: AppId,
    /// Direction and circumstances, as on the wire.
    pub(super) flags: u16,
}

/// What rows of a key come to.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sum {
    /// Of one of the flows, or 0.
    pub(super) client_port: u16,
    pub(super) bytes: u64,
    pub(super) sessions: u64,
    pub(super) violations: u64,
    /// Unix seconds.
    pub(super) first_seen: u64,
    /// Unix seconds.
    pub(super) last_seen: u64,
    /// The worst one.
    pub(super) threat: ThreatId,
    /// Its severity, as on the wire.
    pub(super) severity: u8,
    pub(super) action: PolicyAction,
    /// The peer is one of the node's own addresses.
    pub(super) local_peer: bool,
    /// The workload's own address is one that others know.
    pub(super) is_global: bool,
    /// What the workload was given the server's address for.
    pub(super) name: Option<Arc<str>>,
    /// The workload's open sessions from outside, those of the last minute, and their bytes.
    pub(super) gauges: (u32, u32, u64),
}

impl Sum {
    /// Whether it must not be lost for the sake of others.
    fn is_urgent(&self) -> bool {
        self.action == PolicyAction::Learn || self.action.violates()
    }

    fn add(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.sessions = self.sessions.saturating_add(other.sessions);
        self.violations = self.violations.saturating_add(other.violations);
        self.first_seen = self.first_seen.min(other.first_seen);
        if self.last_seen <= other.last_seen {
            self.last_seen = other.last_seen;
            self.action = other.action;
            self.gauges = other.gauges;
        }
        if self.severity < other.severity {
            (self.severity, self.threat) = (other.severity, other.threat);
        }
        if self.client_port == 0 {
            self.client_port = other.client_port;
        }
        self.name = self.name.take().or(other.name);
    }
}

/// Why a row was lost.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Lost {
    /// An ordinary row, and no room.
    Full,
    /// An ordinary row that made room.
    Displaced,
    /// A row that matters, and no room that an ordinary one takes.
    FullUrgent,
    /// The bridge stopped before it was sent.
    Stopped,
}

impl Lost {
    pub(super) const ALL: [Self; 4] =
        [Self::Full, Self::Displaced, Self::FullUrgent, Self::Stopped];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Displaced => "displaced",
            Self::FullUrgent => "full-urgent",
            Self::Stopped => "stopped",
        }
    }
}

/// Rows that wait, in order of the first one of their key.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: HashMap<Key, Held>,
    /// Keys in order, ordinary ones and urgent ones.
    ordinary: BTreeMap<u64, Key>,
    urgent: BTreeMap<u64, Key>,
    next: u64,
    /// Rows that were taken and may come back.
    out: usize,
}

#[derive(Debug)]
struct Held {
    at: u64,
    is_urgent: bool,
    sum: Sum,
}

impl Table {
    /// Adds a row to those of its key. If that costs one, says which and why.
    pub(super) fn enter(&mut self, key: Key, sum: Sum) -> Option<(Lost, Sum)> {
        let is_urgent = sum.is_urgent();
        if let Some(held) = self.rows.get_mut(&key) {
            held.sum.add(sum);
            if is_urgent && !held.is_urgent {
                held.is_urgent = true;
                self.ordinary.remove(&held.at);
                self.urgent.insert(held.at, key);
            }
            return None;
        }
        let mut lost = None;
        if self.held() >= MAX_KEYS {
            let displaced = if is_urgent { self.ordinary.pop_last() } else { None };
            let Some((_, displaced)) = displaced else {
                return Some((if is_urgent { Lost::FullUrgent } else { Lost::Full }, sum));
            };
            lost = self
                .rows
                .remove(&displaced)
                .map(|held| (Lost::Displaced, held.sum));
        }
        let at = self.next;
        self.next = self.next.saturating_add(1);
        let queue = if is_urgent { &mut self.urgent } else { &mut self.ordinary };
        queue.insert(at, key.clone());
        self.rows.insert(key, Held { at, is_urgent, sum });
        lost
    }

    /// Takes the oldest rows out, `most` of them; they keep their room.
    pub(super) fn take(&mut self, most: usize) -> Vec<(Key, Sum)> {
        let mut taken = Vec::new();
        while taken.len() < most {
            let first = |queue: &BTreeMap<u64, Key>| queue.first_key_value().map(|(at, _)| *at);
            let queue = match (first(&self.urgent), first(&self.ordinary)) {
                (None, None) => break,
                (Some(urgent), Some(ordinary)) if ordinary < urgent => &mut self.ordinary,
                (None, Some(_)) => &mut self.ordinary,
                (Some(_), _) => &mut self.urgent,
            };
            let key = queue.pop_first().map(|(_, key)| key);
            taken.extend(key.and_then(|key| self.rows.remove_entry(&key)));
        }
        self.out = self.out.saturating_add(taken.len());
        taken
            .into_iter()
            .map(|(key, held)| (key, held.sum))
            .collect()
    }

    /// Rows that were taken are with the controller: their room is free.
    pub(super) fn done_with(&mut self, rows: usize) {
        self.out = self.out.saturating_sub(rows);
    }

    /// Takes rows back and adds them to what came meanwhile. There is room for them.
    pub(super) fn take_back(&mut self, rows: Vec<(Key, Sum)>) {
        self.done_with(rows.len());
        for (key, sum) in rows {
            self.enter(key, sum);
        }
    }

    /// Keys that are held, those under way included.
    pub(super) fn held(&self) -> usize {
        self.rows.len().saturating_add(self.out)
    }
}

#[cfg(test)]
mod tests;
