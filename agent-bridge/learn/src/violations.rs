//! Traffic outside policy, summed and explained.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use outrider_model::{AppId, IpProto, Mode, PolicyAction, RuleId};
use serde::{Deserialize, Serialize};

use crate::{
    ConversationKey, Directory, Endpoint, Row, Tally,
    conversations::{Totals, Weight},
    kept::{Aged, Kept},
};

/// Kinds of violations that one workload's reports may begin; its own that were seen least recently
/// make room and are counted.
pub const MAX_WORKLOAD_VIOLATIONS: usize = 256;

/// Kinds of violations of all workloads; those of the workload that has most make room.
pub const MAX_VIOLATIONS: usize = 32_768;

/// The least recently seen go in lots of this part of a workload's bound.
const LOT: usize = 16;

/// What violations are summed by.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct ViolationKey {
    /// Who opened the flows.
    pub client: Endpoint,
    /// Where they went.
    pub server: Endpoint,
    /// From which address.
    pub client_ip: IpAddr,
    /// To which address.
    pub server_ip: IpAddr,
    /// By which protocol.
    pub proto: IpProto,
    /// To which port.
    pub port: u16,
    /// In which application.
    pub app: AppId,
}

/// Flows outside policy.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Violation {
    /// Which flows.
    pub key: ViolationKey,
    /// What people called the client then.
    pub client_name: String,
    /// What people called the server then.
    pub server_name: String,
    /// What was done: [`PolicyAction::Violate`] or [`PolicyAction::Deny`].
    pub action: PolicyAction,
    /// Which rule said so; 0 for the default.
    pub rule: RuleId,
    /// Why, for people.
    pub reason: String,
    /// How many.
    pub count: Tally,
    /// First sight, Unix seconds.
    pub first_seen: u64,
    /// Last sight, Unix seconds.
    pub last_seen: u64,
    /// The workload whose proxy reported it first, and in whose share it is kept.
    #[serde(default)]
    pub(crate) reporter: Arc<str>,
}

impl Aged for Violation {
    fn last_seen(&self) -> u64 {
        self.last_seen
    }

    fn reporter(&self) -> &str {
        &self.reporter
    }
}

/// All violations.
#[derive(Clone, Debug)]
pub(crate) struct Violations {
    pub(crate) kept: Kept<ViolationKey, Violation>,
    /// Keys by the workload in whose share they are.
    of: BTreeMap<Arc<str>, BTreeSet<ViolationKey>>,
    count: usize,
}

impl Default for Violations {
    fn default() -> Self {
        // Room is made here, so that it is made in the right place.
        Self { kept: Kept::new(usize::MAX), of: BTreeMap::new(), count: 0 }
    }
}

impl Violations {
    /// Sums up one row; one without violations is none.
    pub(crate) fn observe(
        &mut self,
        ends: &ConversationKey,
        row: &Row,
        (weight, mode, origin): (Weight, Mode, Option<&str>),
        directory: &Directory,
        totals: &mut Totals,
    ) {
        if row.violations == 0 || !row.action.violates() {
            return;
        }
        let key = ViolationKey {
            client: ends.client.clone(),
            server: ends.server.clone(),
            client_ip: row.client.to_canonical(),
            server_ip: row.server.to_canonical(),
            proto: row.proto,
            port: ends.port,
            app: row.app,
        };
        let reporter = match self.kept.get(&key) {
            Some(known) => Arc::clone(&known.reporter),
            None => self.enlist(&row.reporter, &key, totals),
        };
        let begin = || Violation {
            key: key.clone(),
            client_name: directory.name(&key.client),
            server_name: directory.name(&key.server),
            action: row.action,
            rule: row.rule,
            reason: String::new(),
            count: Tally::default(),
            first_seen: row.first_seen,
            last_seen: row.last_seen,
            reporter,
        };
        let known = self.kept.change_or_make(&key, begin, drop);
        known.count.add(weight.tally(row));
        known.first_seen = known.first_seen.min(row.first_seen);
        if row.last_seen >= known.last_seen || known.reason.is_empty() {
            known.action = row.action;
            known.rule = row.rule;
            known.reason = reason(ends, row, (mode, origin), directory);
        }
        known.last_seen = known.last_seen.max(row.last_seen);
    }

    /// Takes back a stored record; `false` if there is no room for it.
    pub(crate) fn restore(&mut self, mut known: Violation) -> bool {
        if known.reporter.is_empty() {
            // Stored before it was noted.
            known.reporter = judge(&known.key);
        }
        let own = self.of.entry(Arc::clone(&known.reporter)).or_default();
        let has_room = own.len() < MAX_WORKLOAD_VIOLATIONS && self.count < MAX_VIOLATIONS;
        if !has_room || !own.insert(known.key.clone()) {
            return false;
        }
        self.count = self.count.saturating_add(1);
        self.kept.restore(known.key.clone(), known)
    }

    /// Gives a new kind its place in the reporter's share.
    fn enlist(&mut self, reporter: &Arc<str>, key: &ViolationKey, totals: &mut Totals) -> Arc<str> {
        let reporter = Arc::clone(reporter);
        let own = self.of.get(&reporter).map_or(0, BTreeSet::len);
        if own >= MAX_WORKLOAD_VIOLATIONS {
            self.make_room(&Arc::clone(&reporter), totals);
        } else if self.count >= MAX_VIOLATIONS {
            let most = self.of.iter().max_by_key(|(_, keys)| keys.len());
            if let Some(most) = most.map(|(uid, _)| Arc::clone(uid)) {
                self.make_room(&most, totals);
            }
        }
        self.of
            .entry(Arc::clone(&reporter))
            .or_default()
            .insert(key.clone());
        self.count = self.count.saturating_add(1);
        reporter
    }

    fn make_room(&mut self, uid: &Arc<str>, totals: &mut Totals) {
        let Some(keys) = self.of.get_mut(uid) else { return };
        let lot = (keys.len() / LOT).max(1);
        let seen = |key: &ViolationKey| self.kept.get(key).map(|known| known.last_seen);
        let mut ages: Vec<_> = keys.iter().map(|key| (seen(key), key.clone())).collect();
        ages.sort_unstable();
        for (_, key) in ages.into_iter().take(lot) {
            keys.remove(&key);
            self.kept.remove(&key);
            self.count = self.count.saturating_sub(1);
            totals.evicted_kinds = totals.evicted_kinds.saturating_add(1);
        }
        if keys.is_empty() {
            self.of.remove(uid);
        }
    }
}

/// The workload whose word counts for a kind.
fn judge(key: &ViolationKey) -> Arc<str> {
    match (&key.server, &key.client) {
        (Endpoint::Workload(uid), _) | (_, Endpoint::Workload(uid)) => Arc::clone(uid),
        _ => "".into(),
    }
}

/// Who judged, what was done, and what is missing.
fn reason(
    ends: &ConversationKey,
    row: &Row,
    (mode, origin): (Mode, Option<&str>),
    directory: &Directory,
) -> String {
    let (judge, direction) =
        if row.inbound { (&ends.server, "inbound") } else { (&ends.client, "outbound") };
    let group = |endpoint| {
        directory
            .group(endpoint)
            .map_or_else(|| "?".into(), |g| g.to_string())
    };
    let done = if row.action == PolicyAction::Deny { "refused" } else { "let through" };
    let what = match row.app {
        AppId::NOT_CHECKED => format!("any application on {}/{}", row.proto, row.port),
        AppId::UNKNOWN => format!("an unidentified application on {}/{}", row.proto, row.port),
        app => format!("{app} on {}/{}", row.proto, row.port),
    };
    let why = match row.rule {
        RuleId::IMPLICIT => {
            format!("no rule allows {} to {}: {what}", group(&ends.client), group(&ends.server))
        }
        rule => match origin {
            Some(origin) => format!("{origin} (rule {rule}) forbids {what}"),
            None => format!("rule {rule} forbids it"),
        },
    };
    format!("{done} {direction} at {}, in {mode}: {why}", directory.name(judge))
}
