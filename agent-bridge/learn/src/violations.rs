//! Traffic outside policy, summed and explained.

use std::net::IpAddr;

use outrider_model::{AppId, IpProto, Mode, PolicyAction, RuleId};
use serde::{Deserialize, Serialize};

use crate::{
    ConversationKey, Directory, Endpoint, Row, Tally,
    conversations::{Totals, Weight},
    kept::{Aged, Kept},
};

/// Kinds of violations that are told apart; the oldest make room and are counted.
pub const MAX_VIOLATIONS: usize = 4_096;

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
}

impl Aged for Violation {
    fn last_seen(&self) -> u64 {
        self.last_seen
    }
}

/// All violations.
#[derive(Clone, Debug)]
pub(crate) struct Violations(pub(crate) Kept<ViolationKey, Violation>);

impl Default for Violations {
    fn default() -> Self {
        Self(Kept::new(MAX_VIOLATIONS))
    }
}

impl Violations {
    /// Sums up one row; one without violations is none.
    pub(crate) fn observe(
        &mut self,
        ends: &ConversationKey,
        row: &Row,
        (weight, mode): (Weight, Mode),
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
            port: row.port,
            app: row.app,
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
        };
        let gone = |_| totals.evicted_kinds = totals.evicted_kinds.saturating_add(1);
        let known = self.0.change_or_make(&key, begin, gone);
        known.count.add(weight.tally(row));
        known.first_seen = known.first_seen.min(row.first_seen);
        if row.last_seen >= known.last_seen || known.reason.is_empty() {
            known.action = row.action;
            known.rule = row.rule;
            known.reason = reason(ends, row, mode, directory);
        }
        known.last_seen = known.last_seen.max(row.last_seen);
    }
}

/// Who judged, what was done, and what is missing.
fn reason(ends: &ConversationKey, row: &Row, mode: Mode, directory: &Directory) -> String {
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
        rule => format!("rule {rule} forbids it"),
    };
    format!("{done} {direction} at {}, in {mode}: {why}", directory.name(judge))
}
