//! Flows summed per client, server, application and port.

use std::{collections::BTreeSet, sync::Arc};

use outrider_model::{AppId, IpProto, PolicyAction, RuleId, Severity, ThreatId};
use serde::{Deserialize, Serialize};

use crate::{
    Directory, Endpoint, FlowSample, MAX_SAMPLES, Row, Sample, Tally,
    kept::{Aged, Kept},
};

/// Conversations that are told apart; the oldest of the reporter that has most make room and are
/// counted.
pub const MAX_CONVERSATIONS: usize = 32_768;

/// Names kept per conversation.
pub const MAX_NAMES: usize = 8;

/// Bytes that the names of a conversation have.
pub const MAX_NAME_BYTES: usize = 512;

/// What flows are summed by.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct ConversationKey {
    /// Who opened them.
    pub client: Endpoint,
    /// Who answered.
    pub server: Endpoint,
    /// By which protocol.
    pub proto: IpProto,
    /// On which server port.
    pub port: u16,
    /// In which application.
    pub app: AppId,
}

/// Flows of one kind, as reported.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Conversation {
    /// Between whom, and what.
    pub key: ConversationKey,
    /// What people called the client then.
    pub client_name: String,
    /// What people called the server then.
    pub server_name: String,
    /// Sessions.
    pub sessions: u64,
    /// Bytes, both ways.
    pub bytes: u64,
    /// Violations.
    pub violations: Tally,
    /// Reports that carried a threat.
    pub threats: u64,
    /// The worst threat.
    pub threat: ThreatId,
    /// How bad it is.
    pub severity: Severity,
    /// What policy said last.
    pub action: PolicyAction,
    /// Which rule said it.
    pub rule: RuleId,
    /// First sight, Unix seconds.
    pub first_seen: u64,
    /// Last sight, Unix seconds.
    pub last_seen: u64,
    /// Names that clients asked for.
    pub names: Vec<Box<str>>,
    /// The newest examples, at most [`MAX_SAMPLES`].
    #[serde(default)]
    pub samples: Vec<FlowSample>,
    /// Of it, what the client's proxy told while the server's said nothing: it goes when that one tells its own.
    #[serde(default)]
    pub lent: Lent,
    /// The workload whose proxy reported it first, and in whose share it is kept.
    #[serde(default)]
    pub(crate) reporter: Arc<str>,
}

/// What counts until somebody else says it.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Lent {
    /// Sessions.
    pub sessions: u64,
    /// Bytes, both ways.
    pub bytes: u64,
}

impl Aged for Conversation {
    fn last_seen(&self) -> u64 {
        self.last_seen
    }

    fn reporter(&self) -> &str {
        &self.reporter
    }
}

/// Everything that ever was reported, and what became of it.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Totals {
    /// Rows.
    pub rows: u64,
    /// Rows of workloads that are not in the directory: not taken in.
    pub unknown_reporters: u64,
    /// Their sessions.
    pub unknown_sessions: u64,
    /// Their bytes.
    pub unknown_bytes: u64,
    /// Sessions that were counted.
    pub sessions: u64,
    /// Bytes that were counted.
    pub bytes: u64,
    /// Sessions that only the server's report counts.
    pub mirrored_sessions: u64,
    /// Bytes that only the server's report counts.
    pub mirrored_bytes: u64,
    /// Conversations that made room for others.
    pub evicted: u64,
    /// Their sessions.
    pub evicted_sessions: u64,
    /// Their bytes.
    pub evicted_bytes: u64,
    /// Their violations.
    pub evicted_violations: u64,
    /// Kinds of violations that made room for others.
    pub evicted_kinds: u64,
    /// Beginnings of rules that made room for others.
    pub evicted_candidates: u64,
    /// Rules that could not be made because there are as many as may be.
    pub refused_rules: u64,
    /// Rules that no workload here had any more and that made room for others.
    #[serde(default)]
    pub unused_rules: u64,
}

/// Whose word counts for a row.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Weight {
    /// The reporter's.
    Full,
    /// The server's, which reports the same flows itself.
    Mirror,
    /// The reporter's as long as the server's proxy, which is to report the same flows, says nothing.
    Lent,
}

impl Weight {
    /// The violations of a row, entered where they belong.
    pub(crate) fn tally(self, row: &Row) -> Tally {
        let (count, none) = (row.violations, Tally::default());
        match (self, row.action) {
            (Self::Full, _) => Tally { judged: count, ..none },
            (_, PolicyAction::Deny) => Tally { stopped: count, ..none },
            (_, _) => Tally { passed_on: count, ..none },
        }
    }
}

/// All conversations.
#[derive(Clone, Debug)]
pub(crate) struct Conversations(pub(crate) Kept<ConversationKey, Conversation>);

impl Default for Conversations {
    fn default() -> Self {
        Self(Kept::new(MAX_CONVERSATIONS))
    }
}

impl Conversations {
    /// Sums up one row.
    pub(crate) fn observe(
        &mut self,
        key: &ConversationKey,
        row: &Row,
        weight: Weight,
        directory: &Directory,
        totals: &mut Totals,
    ) {
        if weight == Weight::Mirror {
            totals.mirrored_sessions = totals.mirrored_sessions.saturating_add(row.sessions);
            totals.mirrored_bytes = totals.mirrored_bytes.saturating_add(row.bytes);
            if row.violations == 0 {
                return;
            }
        } else {
            totals.sessions = totals.sessions.saturating_add(row.sessions);
            totals.bytes = totals.bytes.saturating_add(row.bytes);
        }
        let before = self.nameless_before(key, row);
        let known =
            self.0
                .change_or_make(key, || begin(key, row, directory), |gone| totals.evict(&gone));
        known.add(row, weight);
        if let Some(before) = before {
            known.violations.add(before.violations);
            known.first_seen = known.first_seen.min(before.first_seen);
        }
    }

    /// Gives what was counted under one key to another one, as far as all of it was within policy;
    /// says what policy said of it last, and who reported it.
    pub(crate) fn rename(
        &mut self,
        from: &ConversationKey,
        to: &ConversationKey,
        totals: &mut Totals,
    ) -> Option<(PolicyAction, Arc<str>)> {
        let known = self.0.get(from)?;
        if known.action.violates() || known.violations.total() > 0 {
            return None;
        }
        let mut moved = self.0.remove(from)?;
        moved.key = to.clone();
        let said = (moved.action, Arc::clone(&moved.reporter));
        if let Some(known) = self.0.change(to) {
            known.absorb(moved);
        } else {
            self.0
                .change_or_make(to, || moved, |gone| totals.evict(&gone));
        }
        Some(said)
    }

    /// Forgets what was counted under a key since the server's word counts for it, as far as it was within policy.
    pub(crate) fn mirror(&mut self, key: &ConversationKey, totals: &mut Totals) {
        let is_bare = |known: &Conversation| known.violations.total() == 0;
        if !self.0.get(key).is_some_and(is_bare) {
            return;
        }
        let Some(gone) = self.0.remove(key) else { return };
        for (from, to, count) in [
            (&mut totals.sessions, &mut totals.mirrored_sessions, gone.sessions),
            (&mut totals.bytes, &mut totals.mirrored_bytes, gone.bytes),
        ] {
            *from = from.saturating_sub(count);
            *to = to.saturating_add(count);
        }
    }

    /// Takes back what was lent for servers: their own proxies tell.
    pub(crate) fn take_back(&mut self, servers: &BTreeSet<Endpoint>, totals: &mut Totals) {
        let is_lent = |known: &Conversation| known.lent != Lent::default();
        let lent = self.0.iter();
        let lent: Vec<_> = lent
            .filter(|(key, known)| is_lent(known) && servers.contains(&key.server))
            .map(|(key, _)| key.clone())
            .collect();
        for key in lent {
            let Some(known) = self.0.change(&key) else { continue };
            let Lent { sessions, bytes } = std::mem::take(&mut known.lent);
            known.sessions = known.sessions.saturating_sub(sessions);
            known.bytes = known.bytes.saturating_sub(bytes);
            totals.sessions = totals.sessions.saturating_sub(sessions);
            totals.bytes = totals.bytes.saturating_sub(bytes);
            totals.mirrored_sessions = totals.mirrored_sessions.saturating_add(sessions);
            totals.mirrored_bytes = totals.mirrored_bytes.saturating_add(bytes);
            if (known.sessions, known.bytes, known.violations.total()) == (0, 0, 0) {
                self.0.remove(&key);
            }
        }
    }

    /// Adds an example, and the names that its client asked for, if the conversation is known.
    pub(crate) fn show(&mut self, key: &ConversationKey, sample: &Sample) {
        let flow = FlowSample { client: sample.client, server: sample.server };
        let is_news = |known: &Conversation| {
            !known.samples.contains(&flow) || sample.names.iter().any(|name| known.lacks(name))
        };
        if !self.0.get(key).is_some_and(is_news) {
            return;
        }
        let Some(known) = self.0.change(key) else { return };
        if !known.samples.contains(&flow) {
            known
                .samples
                .drain(..known.samples.len().saturating_sub(MAX_SAMPLES - 1));
            known.samples.push(flow);
        }
        for name in &sample.names {
            if known.lacks(name) {
                known.names.push(name.clone());
            }
        }
    }

    /// The record of flows between the same ends of which no application was known: once such a flow is
    /// allowed and identified, they are one conversation. Of flows that were refused before a byte was seen only
    /// violations are known, of those that have said nothing yet only when they began.
    fn nameless_before(&mut self, key: &ConversationKey, row: &Row) -> Option<Conversation> {
        let is_identified = !matches!(key.app, AppId::UNKNOWN | AppId::NOT_CHECKED);
        if !is_identified || row.action.violates() {
            return None;
        }
        let mut before: Option<Conversation> = None;
        let mut nameless = key.clone();
        for app in [AppId::NOT_CHECKED, AppId::UNKNOWN] {
            nameless.app = app;
            let is_bare = |known: &Conversation| {
                known.sessions == 0
                    && known.bytes == 0
                    && (app == AppId::NOT_CHECKED || known.violations.total() == 0)
            };
            if !self.0.get(&nameless).is_some_and(is_bare) {
                continue;
            }
            let Some(found) = self.0.remove(&nameless) else { continue };
            match &mut before {
                Some(before) => {
                    before.violations.add(found.violations);
                    before.first_seen = before.first_seen.min(found.first_seen);
                }
                None => before = Some(found),
            }
        }
        before
    }
}

impl Totals {
    fn evict(&mut self, gone: &Conversation) {
        self.evicted = self.evicted.saturating_add(1);
        self.evicted_sessions = self.evicted_sessions.saturating_add(gone.sessions);
        self.evicted_bytes = self.evicted_bytes.saturating_add(gone.bytes);
        self.evicted_violations = self
            .evicted_violations
            .saturating_add(gone.violations.total());
    }
}

impl Conversation {
    fn add(&mut self, row: &Row, weight: Weight) {
        self.violations.add(weight.tally(row));
        self.first_seen = self.first_seen.min(row.first_seen);
        let is_news = row.last_seen >= self.last_seen;
        self.last_seen = self.last_seen.max(row.last_seen);
        if is_news && (weight != Weight::Mirror || row.action.violates()) {
            self.action = row.action;
            self.rule = row.rule;
        }
        if weight == Weight::Mirror {
            return;
        }
        self.sessions = self.sessions.saturating_add(row.sessions);
        self.bytes = self.bytes.saturating_add(row.bytes);
        if weight == Weight::Lent {
            self.lent.sessions = self.lent.sessions.saturating_add(row.sessions);
            self.lent.bytes = self.lent.bytes.saturating_add(row.bytes);
            return;
        }
        if row.severity > Severity::None {
            self.threats = self.threats.saturating_add(1);
        }
        if row.severity > self.severity {
            self.severity = row.severity;
            self.threat = row.threat;
        }
    }
}

impl Conversation {
    /// Whether a name is new and there is room for it.
    fn lacks(&self, name: &str) -> bool {
        let bytes: usize = self.names.iter().map(|known| known.len()).sum();
        self.names.len() < MAX_NAMES
            && bytes.saturating_add(name.len()) <= MAX_NAME_BYTES
            && self.names.iter().all(|known| **known != *name)
    }

    /// Takes over what was counted under another key.
    fn absorb(&mut self, other: Self) {
        let add = |own: &mut u64, more: u64| *own = own.saturating_add(more);
        add(&mut self.sessions, other.sessions);
        add(&mut self.bytes, other.bytes);
        add(&mut self.lent.sessions, other.lent.sessions);
        add(&mut self.lent.bytes, other.lent.bytes);
        add(&mut self.threats, other.threats);
        self.violations.add(other.violations);
        if other.severity > self.severity {
            (self.severity, self.threat) = (other.severity, other.threat);
        }
        if other.last_seen > self.last_seen {
            (self.action, self.rule) = (other.action, other.rule);
        }
        self.first_seen = self.first_seen.min(other.first_seen);
        self.last_seen = self.last_seen.max(other.last_seen);
        for name in other.names {
            if self.lacks(&name) {
                self.names.push(name);
            }
        }
        let room = MAX_SAMPLES.saturating_sub(self.samples.len());
        let new = |flow: &FlowSample| !self.samples.contains(flow);
        let samples: Vec<_> = other.samples.into_iter().filter(new).take(room).collect();
        self.samples.splice(0..0, samples);
    }
}

fn begin(key: &ConversationKey, row: &Row, directory: &Directory) -> Conversation {
    Conversation {
        key: key.clone(),
        client_name: directory.name(&key.client),
        server_name: directory.name(&key.server),
        sessions: 0,
        bytes: 0,
        violations: Tally::default(),
        threats: 0,
        threat: ThreatId::default(),
        severity: Severity::None,
        action: row.action,
        rule: row.rule,
        first_seen: row.first_seen,
        last_seen: row.last_seen,
        names: Vec::new(),
        samples: Vec::new(),
        lent: Lent::default(),
        reporter: Arc::clone(&row.reporter),
    }
}
