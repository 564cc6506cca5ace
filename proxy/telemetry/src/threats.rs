//! Threat logs: the first hit at once, repeats counted, so that an attacker cannot fill anything.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
};

use outrider_model::{AppId, Direction, FlowKey, IpProto, Side, ThreatId};

/// Logs that wait to be taken; more are dropped, newest first.
pub const MAX_PENDING_THREATS: usize = 1024;
/// Bytes of evidence kept of a threat.
pub const MAX_EVIDENCE: usize = 1920;
/// Characters of a threat's message.
pub const MAX_MESSAGE: usize = 63;
/// A hit so many seconds after the last log is logged again, with the hits between.
const REPEAT_SECONDS: u64 = 10;
/// So many seconds after the last hit, the hits not yet logged are.
const EXPIRE_SECONDS: u64 = 5;
/// Kinds of threat tracked at once; there are fewer built in.
const MAX_TRACKED: usize = 256;

/// What hits are counted by.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct ThreatKey {
    /// Which threat.
    pub id: ThreatId,
    /// Relative to the workload.
    pub direction: Direction,
    /// Which side sent the bytes.
    pub side: Side,
    /// Whether the workload enforces.
    pub enforced: bool,
}

/// One hit, or what several of a kind come to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ThreatReport {
    /// Which threat.
    pub id: ThreatId,
    /// Relative to the workload.
    pub direction: Direction,
    /// Which side sent the bytes.
    pub side: Side,
    /// The flow's client.
    pub client: SocketAddr,
    /// The flow's server.
    pub server: SocketAddr,
    /// IP protocol.
    pub proto: IpProto,
    /// The application.
    pub app: AppId,
    /// Whether the workload enforces; else it only watches.
    pub enforced: bool,
    /// Whether the flow was stopped for it.
    pub stopped: bool,
    /// What was found, at most [`MAX_MESSAGE`] characters.
    pub message: String,
    /// The bytes it was found in, at most [`MAX_EVIDENCE`].
    pub evidence: Vec<u8>,
    /// They are an IP packet from its first header on, and not what a connection or datagram carried.
    pub is_packet: bool,
    /// Length of those bytes as they came.
    pub length: usize,
    /// Hits that this log stands for; 1 on entry.
    pub count: u32,
    /// Seconds since the epoch; set on entry.
    pub reported_at: u64,
}

impl ThreatReport {
    /// One hit in a flow, without evidence: nobody enforced anything.
    #[must_use]
    pub fn new(id: ThreatId, key: &FlowKey, side: Side) -> Self {
        Self {
            id,
            direction: key.direction,
            side,
            client: key.client,
            server: key.server,
            proto: key.proto,
            app: AppId::UNKNOWN,
            enforced: false,
            stopped: false,
            message: String::new(),
            evidence: Vec::new(),
            is_packet: false,
            length: 0,
            count: 1,
            reported_at: 0,
        }
    }

    /// Adds the bytes it was found in.
    #[must_use]
    pub fn with_evidence(mut self, bytes: &[u8], is_packet: bool) -> Self {
        self.evidence = bytes.iter().take(MAX_EVIDENCE).copied().collect();
        self.length = bytes.len();
        self.is_packet = is_packet;
        self
    }

    fn key(&self) -> ThreatKey {
        let Self { id, direction, side, enforced, .. } = *self;
        ThreatKey { id, direction, side, enforced }
    }

    fn clamp(&mut self, now: u64) {
        let end = self
            .message
            .char_indices()
            .nth(MAX_MESSAGE)
            .map(|(at, _)| at);
        self.message.truncate(end.unwrap_or(self.message.len()));
        self.evidence.truncate(MAX_EVIDENCE);
        self.reported_at = now;
    }
}

#[derive(Debug)]
struct Tracked {
    logged_at: u64,
    hit_at: u64,
    suppressed: u32,
    latest: Option<ThreatReport>,
}

/// Threats seen and not yet taken.
#[derive(Debug, Default)]
pub struct ThreatTable {
    tracked: HashMap<ThreatKey, Tracked>,
    pending: VecDeque<ThreatReport>,
}

impl ThreatTable {
    /// Enters a hit at `now` (seconds since the epoch); `false` if a log was due and had to be dropped.
    #[must_use]
    pub fn enter(&mut self, mut report: ThreatReport, now: u64) -> bool {
        report.clamp(now);
        let key = report.key();
        let Some(tracked) = self.tracked.get_mut(&key) else {
            if self.tracked.len() < MAX_TRACKED {
                let fresh = Tracked { logged_at: now, hit_at: now, suppressed: 0, latest: None };
                self.tracked.insert(key, fresh);
            }
            return self.push(report);
        };
        tracked.hit_at = now;
        if now.saturating_sub(tracked.logged_at) < REPEAT_SECONDS {
            tracked.suppressed = tracked.suppressed.saturating_add(report.count);
            tracked.latest = Some(report);
            return true;
        }
        report.count = report
            .count
            .saturating_add(std::mem::take(&mut tracked.suppressed));
        tracked.latest = None;
        tracked.logged_at = now;
        self.push(report)
    }

    /// Takes the logs that are due at `now`, oldest first, and how many had to be dropped on the way.
    #[must_use]
    pub fn take(&mut self, now: u64) -> (Vec<ThreatReport>, u64) {
        let mut due = Vec::new();
        self.tracked.retain(|_, tracked| {
            if now.saturating_sub(tracked.hit_at) < EXPIRE_SECONDS {
                return true;
            }
            if let Some(mut report) = tracked.latest.take() {
                report.count = tracked.suppressed;
                due.push(report);
            }
            false
        });
        let dropped = due
            .into_iter()
            .map(|report| self.push(report))
            .filter(|kept| !kept)
            .count();
        (self.pending.drain(..).collect(), dropped as u64)
    }

    fn push(&mut self, report: ThreatReport) -> bool {
        if self.pending.len() >= MAX_PENDING_THREATS {
            return false;
        }
        self.pending.push_back(report);
        true
    }
}
