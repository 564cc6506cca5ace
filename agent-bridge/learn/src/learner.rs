//! All of it together: rows in, conversations, violations, rules and policy out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    sync::Arc,
};

use outrider_model::{AppId, Mode, PolicyAction, RuleId};
use serde::{Deserialize, Serialize};

use crate::{
    Candidate, ClusterChange, Conversation, ConversationKey, Directory, Endpoint, Evidence,
    FlowSample, Group, LearnError, LearnKey, Policy, Reached, Row, Rule, Sample, Settings, Totals,
    Violation, Workload,
    conversations::{Conversations, Weight},
    directory::Entry,
    policies::Policies,
    rules::Rules,
    services::Services,
    violations::Violations,
    words::Words,
};

/// One thing that outlives a restart.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Record {
    /// Flows, summed.
    Conversation(Conversation),
    /// Flows outside policy, summed.
    Violation(Violation),
    /// A learned rule.
    Rule(Rule),
    /// The beginning of one.
    Candidate(Candidate),
    /// What was counted in all.
    Totals(Totals),
}

/// A record's new value, or its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Which record; stable, of no meaning to who stores it.
    pub key: String,
    /// `None` removes it.
    pub record: Option<Record>,
}

/// Sums up, learns, compiles and explains.
#[derive(Clone, Debug, Default)]
pub struct Learner {
    pub(crate) settings: Settings,
    pub(crate) directory: Directory,
    pub(crate) rules: Rules,
    pub(crate) policy: Policy,
    pub(crate) modes: BTreeMap<Group, Mode>,
    pub(crate) policies: Policies,
    pub(crate) conversations: Conversations,
    violations: Violations,
    pub(crate) words: Words,
    pub(crate) totals: Totals,
    stored_totals: Totals,
}

impl Learner {
    /// Knows nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, ..Self::default() }
    }

    /// Who is who.
    #[must_use]
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Who is who, to be changed.
    pub fn directory_mut(&mut self) -> &mut Directory {
        &mut self.directory
    }

    /// Takes in a change of what the cluster, or a file, says. What it does to policy shows when that is compiled
    /// next ([`Learner::compile_changed`]), so that changes that belong together are in force together.
    ///
    /// # Errors
    ///
    /// When it would exceed a bound, or makes no sense: it is counted by reason ([`Policy::refused`]), and what was
    /// said before of the same workload, set or rule holds on.
    pub fn cluster(&mut self, change: ClusterChange) -> Result<(), LearnError> {
        let done = match change {
            ClusterChange::Remote(workload) => self.directory.enter_remote(workload),
            ClusterChange::RemoteGone { uid, now } => {
                self.directory.remove_remote(&uid, now);
                Ok(())
            }
            ClusterChange::Reset => {
                self.directory.forget_remote();
                self.directory.services = Services::default();
                self.policy.apply(change, &mut self.directory.touched)
            }
            ClusterChange::Service(service) => self.enter_service(service),
            ClusterChange::ServiceGone(name) => {
                self.directory.touched.services |= self.directory.services.remove(&name);
                Ok(())
            }
            said => self.policy.apply(said, &mut self.directory.touched),
        };
        done.inspect_err(|error| self.policy.refuse(*error))
    }

    /// What the cluster, or a file, says.
    #[must_use]
    pub fn said(&self) -> &Policy {
        &self.policy
    }

    /// How far policy goes for a workload: what is said for itself, else what holds for its group.
    #[must_use]
    pub fn mode_of(&self, workload: &Workload) -> Mode {
        self.policy
            .mode(&workload.uid)
            .unwrap_or_else(|| self.mode(&workload.group()))
    }

    /// How far policy goes for a group's workloads.
    #[must_use]
    pub fn mode(&self, group: &Group) -> Mode {
        self.modes
            .get(group)
            .copied()
            .unwrap_or(self.settings.default_mode)
    }

    /// Takes in one row; says whether a rule came of it, so that policy must be compiled.
    pub fn observe(&mut self, row: &Row) -> bool {
        let Reached { endpoint: peer, port, managed } = self.directory.peer(row);
        let totals = &mut self.totals;
        totals.rows = totals.rows.saturating_add(1);
        let Some(reporter) = self.directory.entry(&row.reporter) else {
            totals.unknown_reporters = totals.unknown_reporters.saturating_add(1);
            totals.unknown_sessions = totals.unknown_sessions.saturating_add(row.sessions);
            totals.unknown_bytes = totals.unknown_bytes.saturating_add(row.bytes);
            return false;
        };
        let mode = self.mode_of(&reporter.workload);
        let (client, server) = ends(reporter, row.inbound, peer);
        let weight = self.weight(row, managed, &server);
        let mut key = ConversationKey { client, server, proto: row.proto, port, app: row.app };
        let renamed = weight == Weight::Mirror && self.hear(&key, row);
        // Of what is outside policy nobody's word is taken.
        if weight == Weight::Full && !row.action.violates() {
            key.app = self.words.app(&key).unwrap_or(key.app);
        }
        self.conversations
            .observe(&key, row, weight, &self.directory, &mut self.totals);
        let origin = self.policy.rule(row.rule).map(|rule| &*rule.origin);
        self.violations.observe(
            &key,
            row,
            (weight, mode, origin),
            &self.directory,
            &mut self.totals,
        );
        renamed | (weight == Weight::Full && self.learn(&key, row, mode))
    }

    /// Whether a rule may be made of a row: in Discover, of what no policy of people allows, and by the word of the
    /// server's proxy if there is one.
    #[must_use]
    pub fn teaches(&self, row: &Row) -> bool {
        let Some(reporter) = self.directory.entry(&row.reporter) else { return false };
        let Reached { endpoint, managed, .. } = self.directory.peer(row);
        let mode = self.mode_of(&reporter.workload);
        self.weight(row, managed, &endpoint) == Weight::Full
            && self.is_lesson(row, mode)
            && !self.is_said(row)
    }

    /// How much a row counts, of which `peer` is the other end.
    fn weight(&self, row: &Row, managed: bool, peer: &Endpoint) -> Weight {
        match peer {
            _ if row.inbound => Weight::Full,
            _ if managed => Weight::Mirror,
            server if self.directory.is_silent(server) => Weight::Lent,
            _ => Weight::Full,
        }
    }

    /// Whether that is how flows are treated that policy says nothing of.
    fn is_lesson(&self, row: &Row, mode: Mode) -> bool {
        mode == Mode::Discover && row.action != PolicyAction::Open && !row.action.violates()
    }

    /// Whether people decided about it.
    fn is_said(&self, row: &Row) -> bool {
        self.policy.rule(row.rule).is_some_and(|rule| !rule.learned)
    }

    /// The proxy of a workload of this node says nothing: what its clients' proxies tell counts until it does. Rules
    /// are not made of it: which ones it takes in is its own word.
    pub fn falls_silent(&mut self, uid: &str) {
        self.directory.set_managed(uid, false);
    }

    /// They speak. What counted by their clients' word meanwhile goes: they tell all of that themselves.
    pub fn speak<'a>(&mut self, uids: impl IntoIterator<Item = &'a str>) {
        let mut servers = BTreeSet::new();
        for uid in uids {
            self.directory.set_managed(uid, true);
            servers.insert(Endpoint::Workload(uid.into()));
        }
        self.conversations.take_back(&servers, &mut self.totals);
    }

    /// Takes in one flow as an example; it is not counted.
    pub fn sample(&mut self, sample: &Sample) {
        let Some(reporter) = self.directory.entry(&sample.reporter) else { return };
        let Reached { endpoint: peer, port, .. } = self.directory.peer_of_sample(sample);
        let (client, server) = self::ends(reporter, sample.inbound, peer);
        let mut key =
            ConversationKey { client, server, proto: sample.proto, port, app: sample.app };
        key.app = self.words.app(&key).unwrap_or(key.app);
        self.conversations.show(&key, sample);
        let flow = FlowSample { client: sample.client, server: sample.server };
        if let Some(key) = self.learn_key(&key) {
            self.rules.show(&key, flow);
        }
    }

    /// Every conversation.
    pub fn conversations(&self) -> impl Iterator<Item = &Conversation> {
        self.conversations
            .0
            .iter()
            .map(|(_, conversation)| conversation)
    }

    /// Every kind of violation.
    pub fn violations(&self) -> impl Iterator<Item = &Violation> {
        self.violations.kept.iter().map(|(_, violation)| violation)
    }

    /// Every rule, in order of number.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter()
    }

    /// Whether traffic has made a rule of that.
    #[must_use]
    pub fn has_rule(&self, key: &LearnKey) -> bool {
        self.rules.has(key)
    }

    /// Every beginning of a rule.
    pub fn candidates(&self) -> impl Iterator<Item = &Candidate> {
        self.rules.candidates.iter().map(|(_, candidate)| candidate)
    }

    /// Whether a group has as many rules as it may have, so that no more are learned.
    #[must_use]
    pub fn is_full(&self, group: &Group) -> bool {
        self.rules.is_full(group)
    }

    /// Forgets a rule; says whether it was there.
    pub fn forget_rule(&mut self, id: RuleId) -> bool {
        self.rules.remove(id)
    }

    /// What was counted in all.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Hands out the records that changed since the last call.
    pub fn take_changes(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut push = |key: String, record| changes.push(Change { key, record });
        self.conversations.0.take_changes(|key, value| {
            push(conversation_text(key), value.cloned().map(Record::Conversation));
        });
        self.violations.kept.take_changes(|key, value| {
            let (client, server) = (EndText(&key.client), EndText(&key.server));
            let (from, to) = (key.client_ip, key.server_ip);
            let what = format_args!("{}/{}/{}", key.proto, key.port, key.app.0);
            let text =
                format!("violation{SEP}{client}{SEP}{server}{SEP}{from}{SEP}{to}{SEP}{what}");
            push(text, value.cloned().map(Record::Violation));
        });
        self.rules.rules.take_changes(|key, value| {
            push(rule_text("rule", key), value.cloned().map(Record::Rule))
        });
        self.rules.candidates.take_changes(|key, value| {
            push(rule_text("candidate", key), value.cloned().map(Record::Candidate));
        });
        if self.totals != self.stored_totals {
            self.stored_totals = self.totals;
            push("totals".into(), Some(Record::Totals(self.totals)));
        }
        changes
    }

    /// Takes back a stored record; `false` if there is no room for it or it contradicts another.
    pub fn restore(&mut self, record: Record) -> bool {
        match record {
            Record::Conversation(known) => self.conversations.0.restore(known.key.clone(), known),
            Record::Violation(known) => self.violations.restore(known),
            Record::Rule(rule) => self.rules.restore_rule(rule),
            Record::Candidate(known) => self.rules.candidates.restore(known.key.clone(), known),
            Record::Totals(totals) => {
                self.totals = totals;
                self.stored_totals = totals;
                true
            }
        }
    }

    /// Brings what was restored in line with how it is learned now: call it after the last record.
    pub fn settle(&mut self) {
        self.rules.settle();
    }

    fn learn(&mut self, key: &ConversationKey, row: &Row, mode: Mode) -> bool {
        let says_nothing = row.sessions == 0 && row.bytes == 0;
        if row.action.violates() || row.app == AppId::NOT_CHECKED || says_nothing {
            return false;
        }
        let Some(mut learned) = self.learn_key(key) else { return false };
        let by_client = key.app != row.app;
        let note = |evidence: &mut Evidence| {
            evidence.count(row.sessions, row.bytes);
            evidence.see(row.client.to_canonical(), row.first_seen, row.last_seen);
            if let Some(port) = row.client_port {
                let client = SocketAddr::new(row.client, port);
                evidence.show(FlowSample { client, server: SocketAddr::new(row.server, row.port) });
            }
        };
        // What people allowed needs no rule.
        if self.is_said(row) {
            self.rules.confirm(&learned, note);
            return false;
        }
        if self.is_lesson(row, mode) {
            let mut narrowed = false;
            let note = |evidence: &mut Evidence| {
                narrowed = evidence.named(by_client);
                note(evidence);
            };
            let whose = (&learned, &row.reporter);
            let is_new = self
                .rules
                .learn(whose, &self.settings, &mut self.totals, note);
            if narrowed {
                self.rules.touch(&learned);
            }
            return is_new | narrowed;
        }
        if by_client && !self.rules.has(&learned) {
            learned.app = AppId::UNIDENTIFIED;
        }
        self.rules.confirm(&learned, note);
        false
    }

    /// The rule that a conversation makes or meets; `None` if an end is gone.
    pub(crate) fn learn_key(&self, key: &ConversationKey) -> Option<LearnKey> {
        let app = if key.app == AppId::UNKNOWN { AppId::UNIDENTIFIED } else { key.app };
        Some(LearnKey {
            from: self.directory.group(&key.client)?,
            to: self.directory.group(&key.server)?,
            proto: key.proto,
            port: key.port,
            app,
        })
    }
}

/// Who talks to whom. The reporter's own end is itself, whatever the address.
fn ends(reporter: &Entry, inbound: bool, peer: Endpoint) -> (Endpoint, Endpoint) {
    let own = Endpoint::Workload(Arc::clone(&reporter.workload.uid));
    if inbound { (peer, own) } else { (own, peer) }
}

/// Between the parts of a record's key: none of them holds it.
const SEP: char = '\u{1f}';

/// An end in a record's key.
struct EndText<'a>(&'a Endpoint);

impl fmt::Display for EndText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Endpoint::Workload(uid) => write!(f, "workload {uid}"),
            Endpoint::Host(address) => write!(f, "host {address}"),
            Endpoint::Unmanaged(address) => address.fmt(f),
            Endpoint::Ingress => f.write_str(Group::INGRESS),
            Endpoint::Addresses(name) => write!(f, "addresses {name}"),
            Endpoint::Named(name) => write!(f, "name {name}"),
            Endpoint::External => f.write_str(Group::EXTERNAL),
            Endpoint::Service(name) => write!(f, "service {name}"),
        }
    }
}

fn conversation_text(key: &ConversationKey) -> String {
    let (client, server) = (EndText(&key.client), EndText(&key.server));
    let what = format_args!("{}/{}/{}", key.proto, key.port, key.app.0);
    format!("conversation{SEP}{client}{SEP}{server}{SEP}{what}")
}

fn rule_text(kind: &str, key: &LearnKey) -> String {
    let what = format_args!("{}/{}/{}", key.proto, key.port, key.app.0);
    format!("{kind}{SEP}{}{SEP}{}{SEP}{what}", key.from, key.to)
}

#[cfg(test)]
mod sums;
#[cfg(test)]
mod tests;
