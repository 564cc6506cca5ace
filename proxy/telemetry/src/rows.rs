//! Connection rows: flows summed by who, whom, what and under which rule, until they are taken.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::{IpAddr, SocketAddr},
};

use outrider_model::{
    AppId, Decision, DecisionCause, Direction, FlowKey, IpProto, PolicyAction, RuleId, Severity,
    ThreatId,
};

use crate::flow::Names;

/// Rows held; more are taken only if they teach or accuse.
pub const MAX_ROWS: usize = 32_768;
/// Rows held whatever they say.
pub const HARD_MAX_ROWS: usize = 2 * MAX_ROWS;

/// What rows are summed by.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct RowKey {
    /// The rule that decided.
    pub rule: RuleId,
    /// The client's address.
    pub client: IpAddr,
    /// The server's address.
    pub server: IpAddr,
    /// The server's port; 0 for ICMP, which has none.
    pub port: u16,
    /// IP protocol.
    pub proto: IpProto,
    /// The application; unknown if it was not identified, not checked if the flow was refused unseen.
    pub app: AppId,
    /// Relative to the workload.
    pub direction: Direction,
}

impl RowKey {
    /// The key of a flow under a rule.
    #[must_use]
    pub fn new(key: &FlowKey, rule: RuleId, app: AppId) -> Self {
        Self {
            rule,
            client: key.client.ip(),
            server: key.server.ip(),
            port: if key.proto.is_icmp() { 0 } else { key.server.port() },
            proto: key.proto,
            app,
            direction: key.direction,
        }
    }

    /// The key of a flow that was refused before a byte was seen.
    #[must_use]
    pub fn refused(key: &FlowKey, rule: RuleId) -> Self {
        Self::new(key, rule, AppId::NOT_CHECKED)
    }
}

/// Marks of a row beyond its direction; the ctrl wire has a bit for each.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct RowFlags {
    /// The server is a service's external address.
    pub service_external: bool,
    /// An address is link-local.
    pub link_local: bool,
    /// Let through because policy may not be there yet.
    pub temporary: bool,
    /// The peer is an unmanaged workload.
    pub unmanaged: bool,
    /// The flow crosses an enforced namespace boundary.
    pub boundary: bool,
}

impl RowFlags {
    /// What a decision implies.
    #[must_use]
    pub fn of(decision: Decision) -> Self {
        let cause = decision.cause;
        Self {
            service_external: cause == DecisionCause::ServiceExternalIp,
            link_local: cause == DecisionCause::LinkLocal,
            temporary: matches!(cause, DecisionCause::NoPolicy | DecisionCause::Grace),
            unmanaged: cause == DecisionCause::Unmanaged,
            boundary: cause == DecisionCause::Boundary,
        }
    }
}

/// One sum.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Row {
    /// Bytes that clients sent.
    pub bytes_client: u64,
    /// Bytes that servers sent.
    pub bytes_server: u64,
    /// Sessions that started.
    pub sessions: u32,
    /// Violating events.
    pub violations: u32,
    /// Seconds since the epoch: the first flow's start.
    pub first_seen: u64,
    /// Seconds since the epoch: the last change.
    pub last_seen: u64,
    /// What policy said last.
    pub action: PolicyAction,
    /// The worst threat's severity.
    pub severity: Severity,
    /// The worst threat.
    pub threat: ThreatId,
    /// Marks.
    pub flags: RowFlags,
    /// One client, with its port, as evidence.
    pub sample: SocketAddr,
    /// Names that one of the flows carried.
    pub names: Names,
}

impl Row {
    /// A flow that policy refused before a byte was seen.
    #[must_use]
    pub fn refused(key: &FlowKey, decision: Decision, now: u64) -> Self {
        Self {
            bytes_client: 0,
            bytes_server: 0,
            sessions: 0,
            violations: 1,
            first_seen: now,
            last_seen: now,
            action: decision.action,
            severity: Severity::None,
            threat: ThreatId::default(),
            flags: RowFlags::of(decision),
            sample: key.client,
            names: Names::default(),
        }
    }

    /// Bytes of both sides.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes_client.saturating_add(self.bytes_server)
    }

    /// Whether it says no more than that flows are there, which will be told with their application.
    #[must_use]
    pub fn is_announcement(&self) -> bool {
        self.sessions == 0
            && self.violations == 0
            && self.bytes() == 0
            && self.severity == Severity::None
    }

    fn absorb(&mut self, other: Self) {
        self.bytes_client = self.bytes_client.saturating_add(other.bytes_client);
        self.bytes_server = self.bytes_server.saturating_add(other.bytes_server);
        self.sessions = self.sessions.saturating_add(other.sessions);
        self.violations = self.violations.saturating_add(other.violations);
        self.first_seen = self.first_seen.min(other.first_seen);
        if other.last_seen >= self.last_seen {
            self.last_seen = other.last_seen;
            self.action = other.action;
        }
        if other.severity > self.severity {
            self.severity = other.severity;
            self.threat = other.threat;
        }
        if self.names == Names::default() {
            self.names = other.names;
        }
    }

    /// Whether the row must not be lost to a soft limit: it teaches, or it accuses.
    fn matters(&self) -> bool {
        self.action == PolicyAction::Learn || self.action.violates()
    }
}

/// Rows since they were last taken.
#[derive(Debug)]
pub struct RowTable {
    room: usize,
    rows: HashMap<RowKey, Row>,
    accepted: u64,
    dropped: u64,
}

impl Default for RowTable {
    fn default() -> Self {
        Self::with_room(HARD_MAX_ROWS)
    }
}

impl RowTable {
    /// A table of so many rows, half of them for what neither teaches nor accuses.
    #[must_use]
    pub fn with_room(room: usize) -> Self {
        Self { room, rows: HashMap::new(), accepted: 0, dropped: 0 }
    }

    /// Adds to a row; `false` if the table was full and the row is lost (the caller counts it).
    #[must_use]
    pub fn merge(&mut self, key: RowKey, row: Row) -> bool {
        let len = self.rows.len();
        match self.rows.entry(key) {
            Entry::Occupied(mut held) => held.get_mut().absorb(row),
            Entry::Vacant(free) => {
                if len >= self.room || (len >= self.room / 2 && !row.matters()) {
                    self.dropped += 1;
                    return false;
                }
                free.insert(row);
                self.accepted += 1;
            }
        }
        true
    }

    /// Takes all rows, leaving none.
    #[must_use]
    pub fn take(&mut self) -> Vec<(RowKey, Row)> {
        std::mem::take(&mut self.rows).into_iter().collect()
    }

    /// Rows held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether none is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Rows taken in and rows dropped since the start: the device counters' limit pair.
    #[must_use]
    pub fn limits(&self) -> (u64, u64) {
        (self.accepted, self.dropped)
    }
}
