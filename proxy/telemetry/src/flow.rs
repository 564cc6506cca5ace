//! One live flow: what its task counts, what others read, how it is cut, which rows it owes.

mod guard;
mod outcome;
mod signal;

use std::{
    future::poll_fn,
    sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed},
    task::{Poll, Waker},
};

use outrider_model::{
    AppId, Decision, FlowId, FlowKey, IpProto, Mode, Severity, Side, ThreatId, Verdict,
};
use parking_lot::Mutex;

pub use guard::FlowGuard;
pub use outcome::{CutReason, Grip, Identification, MAX_NAME, Names, Outcome};

use signal::Signal;

use crate::{
    load,
    rows::{Row, RowFlags, RowKey},
    unix_millis,
};

/// A flow still unidentified after so many seconds is reported as unknown meanwhile.
const PENDING_SECONDS: u64 = 60;
/// A flow still unidentified after so many milliseconds is announced: with all that rows tell but its session, which is
/// told with its application. Whoever comes too late for one report is in the next within the report's own time.
const QUIET_MILLIS: u64 = 500;

/// What changes rarely, behind one lock.
#[derive(Debug, Default)]
struct Knowledge {
    identification: Identification,
    decision: Decision,
    verdict: Verdict,
    names: Names,
    threat: ThreatId,
    severity: Severity,
    seen: Seen,
}

/// What was reported of the flow, and when it last moved.
#[derive(Debug, Default)]
struct Seen {
    /// Bytes already moved into totals, by side.
    bytes: [u64; 2],
    /// Chunks already moved into totals, by side.
    chunks: [u64; 2],
    /// Bytes already reported in rows, by side.
    row_bytes: [u64; 2],
    /// A row said that the flow is there, without its application.
    announced: bool,
    /// The row that counted the session was written.
    started: bool,
    /// A violation was reported for the action in force.
    violation: Option<Decision>,
    /// Severity already reported.
    severity: Severity,
    /// Seconds since the epoch at which the counters last differed.
    moved_at: u64,
}

/// One live flow. Its task is the only one that counts bytes; anybody may read.
#[derive(Debug)]
pub struct FlowState {
    id: FlowId,
    key: FlowKey,
    grip: Grip,
    /// Milliseconds since the epoch.
    opened: u64,
    /// It counts as a session.
    established: AtomicBool,
    bytes: [AtomicU64; 2],
    chunks: [AtomicU64; 2],
    /// TCP states of the two wings as the session list shows them (Linux numbers); 0 before the other end is dialled,
    /// and for what is not TCP.
    wings: [AtomicU8; 2],
    signal: Signal,
    knowledge: Mutex<Knowledge>,
}

/// What one settlement yields.
pub(crate) struct Settled {
    pub(crate) bytes: [u64; 2],
    pub(crate) chunks: [u64; 2],
    pub(crate) row: Option<(RowKey, Row)>,
}

impl Settled {
    pub(crate) fn moved(&self) -> bool {
        self.chunks != [0, 0] || self.bytes != [0, 0]
    }
}

fn index(side: Side) -> usize {
    match side {
        Side::Client => 0,
        Side::Server => 1,
    }
}

/// `now - before`, and `before` moved up to `now`.
fn advance(before: &mut [u64; 2], now: [u64; 2]) -> [u64; 2] {
    let delta = [now[0].wrapping_sub(before[0]), now[1].wrapping_sub(before[1])];
    *before = now;
    delta
}

/// Linux's number for an established TCP connection.
const ESTABLISHED: u8 = 1;
/// Linux's number for a wing that sent its end (FIN-WAIT-1).
const FIN_WAIT: u8 = 4;

impl FlowState {
    pub(crate) fn new(id: FlowId, key: FlowKey, grip: Grip, decision: Decision) -> Self {
        let now = unix_millis();
        let knowledge = Knowledge {
            decision: grip.soften(decision),
            seen: Seen { moved_at: now / 1000, ..Seen::default() },
            ..Knowledge::default()
        };
        Self {
            id,
            key,
            grip,
            opened: now,
            established: AtomicBool::new(false),
            bytes: Default::default(),
            chunks: Default::default(),
            wings: Default::default(),
            signal: Signal::default(),
            knowledge: Mutex::new(knowledge),
        }
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> FlowId {
        self.id
    }

    /// Who talks to whom.
    #[must_use]
    pub fn key(&self) -> &FlowKey {
        &self.key
    }

    /// What the proxy can do about it.
    #[must_use]
    pub fn grip(&self) -> Grip {
        self.grip
    }

    /// Seconds since the epoch at which it was taken in.
    #[must_use]
    pub fn opened_at(&self) -> u64 {
        self.opened / 1000
    }

    /// Counts bytes that a side sent and that were passed on.
    pub fn count(&self, side: Side, bytes: u64) {
        let side = index(side);
        // Only the flow's task writes, so load and store are enough: no locked instruction on the hot path.
        self.bytes[side].store(load(&self.bytes[side]).wrapping_add(bytes), Relaxed);
        self.chunks[side].store(load(&self.chunks[side]).wrapping_add(1), Relaxed);
    }

    /// Counts several packets at once.
    pub fn count_packets(&self, side: Side, bytes: u64, packets: u64) {
        let side = index(side);
        self.bytes[side].store(load(&self.bytes[side]).wrapping_add(bytes), Relaxed);
        self.chunks[side].store(load(&self.chunks[side]).wrapping_add(packets), Relaxed);
    }

    /// Bytes by side: client, server.
    #[must_use]
    pub fn bytes(&self) -> [u64; 2] {
        [load(&self.bytes[0]), load(&self.bytes[1])]
    }

    /// Reads that brought bytes, by side; what stands for packets where TCP is terminated.
    #[must_use]
    pub fn chunks(&self) -> [u64; 2] {
        [load(&self.chunks[0]), load(&self.chunks[1])]
    }

    /// From now on the flow counts as a session: the other end was dialled, or as much was seen of it as its protocol
    /// takes.
    pub fn establish(&self) {
        self.established.store(true, Relaxed);
        if self.key.proto == IpProto::TCP {
            self.wings
                .iter()
                .for_each(|wing| wing.store(ESTABLISHED, Relaxed));
        }
    }

    /// Whether it counts as a session.
    #[must_use]
    pub fn is_established(&self) -> bool {
        self.established.load(Relaxed)
    }

    /// A side sent its end.
    pub fn half_close(&self, side: Side) {
        self.wings[index(side)].store(FIN_WAIT, Relaxed);
    }

    /// TCP states of client and server as Linux numbers them; 0 before the other end is dialled, and for what is not TCP.
    #[must_use]
    pub fn wings(&self) -> [u8; 2] {
        [self.wings[0].load(Relaxed), self.wings[1].load(Relaxed)]
    }

    /// How far identification got.
    #[must_use]
    pub fn identification(&self) -> Identification {
        self.knowledge.lock().identification
    }

    /// Identification is final.
    pub fn identify(&self, identification: Identification) {
        self.knowledge.lock().identification = identification;
    }

    /// What policy says now.
    #[must_use]
    pub fn decision(&self) -> Decision {
        self.knowledge.lock().decision
    }

    /// Sets what policy says, and what it comes to in the mode in force. A denial that nobody can carry out is a
    /// violation.
    pub fn decide(&self, decision: Decision, mode: Mode) {
        let decision = self.grip.soften(decision);
        let mut knowledge = self.knowledge.lock();
        knowledge.decision = decision;
        knowledge.verdict = decision.verdict(mode);
    }

    /// What happens to the bytes.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.knowledge.lock().verdict
    }

    /// The names it carried.
    #[must_use]
    pub fn names(&self) -> Names {
        self.knowledge.lock().names.clone()
    }

    /// Keeps the HTTP host, if it is no longer than [`MAX_NAME`]. A connection may carry requests for several: the
    /// latest is the one that policy judges.
    pub fn set_host(&self, host: Box<str>) {
        if host.len() <= MAX_NAME {
            self.knowledge.lock().names.host = Some(host);
        }
    }

    /// Keeps the TLS server name, if it is no longer than [`MAX_NAME`]; the first one stays.
    pub fn set_sni(&self, sni: Box<str>) {
        if sni.len() <= MAX_NAME {
            self.knowledge.lock().names.sni.get_or_insert(sni);
        }
    }

    /// The worst threat so far.
    #[must_use]
    pub fn threat(&self) -> (ThreatId, Severity) {
        let knowledge = self.knowledge.lock();
        (knowledge.threat, knowledge.severity)
    }

    /// A threat was found; the worst one is reported with the flow.
    pub fn raise(&self, threat: ThreatId) {
        let mut knowledge = self.knowledge.lock();
        if threat.severity() > knowledge.severity {
            knowledge.severity = threat.severity();
            knowledge.threat = threat;
        }
    }

    /// Seconds without a byte, as of the last settlement.
    #[must_use]
    pub fn idle_seconds(&self, now: u64) -> u64 {
        now.saturating_sub(self.knowledge.lock().seen.moved_at)
    }

    /// Ends the flow from outside; the first reason stands.
    pub fn cut(&self, reason: CutReason) {
        self.signal.cut(reason);
    }

    /// Why the flow is to end, if it is.
    #[must_use]
    pub fn cut_reason(&self) -> Option<CutReason> {
        self.signal.reason()
    }

    /// Has the flow's task look at the policy again.
    pub fn nudge(&self) {
        self.signal.nudge();
    }

    /// Whether somebody nudged since the last call.
    #[must_use]
    pub fn take_nudge(&self) -> bool {
        self.signal.take_nudge()
    }

    /// From now on [`Self::cut`] and [`Self::nudge`] wake this waker, the one of the flow's task; look for both after
    /// the call.
    pub fn watch(&self, waker: &Waker) {
        self.signal.watch(waker);
    }

    /// Waits until [`Self::cut`] is called; cancel safe, for one waiter.
    pub async fn wait_cut(&self) -> CutReason {
        poll_fn(|context| {
            self.watch(context.waker());
            self.cut_reason().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// What is due at `millis` since the epoch.
    pub(crate) fn settle(&self, millis: u64, ended: bool) -> Settled {
        let now = millis / 1000;
        let established = self.is_established();
        let (bytes, chunks) = (self.bytes(), self.chunks());
        let mut knowledge = self.knowledge.lock();
        let moved = Settled {
            bytes: advance(&mut knowledge.seen.bytes, bytes),
            chunks: advance(&mut knowledge.seen.chunks, chunks),
            row: None,
        };
        if moved.moved() {
            knowledge.seen.moved_at = now;
        }
        let row = self
            .row(&mut knowledge, bytes, now, ended, established)
            .or_else(|| self.announcement(&mut knowledge, millis, established));
        Settled { row, ..moved }
    }

    /// The row that is due, if one is: session start when identification is final, then bytes and changes.
    fn row(
        &self,
        knowledge: &mut Knowledge,
        bytes: [u64; 2],
        now: u64,
        ended: bool,
        established: bool,
    ) -> Option<(RowKey, Row)> {
        let decision = knowledge.decision;
        let pending = knowledge.identification == Identification::Pending
            && now.saturating_sub(self.opened_at()) < PENDING_SECONDS;
        let violates = decision.action.violates() && knowledge.seen.violation != Some(decision);
        let due = established && (ended || !pending);
        if !(due || violates || (ended && knowledge.severity > knowledge.seen.severity)) {
            return None;
        }
        let delta = advance(&mut knowledge.seen.row_bytes, bytes);
        let starts = established && !knowledge.seen.started;
        let worse = knowledge.severity > knowledge.seen.severity;
        if delta == [0, 0] && !starts && !violates && !worse {
            return None;
        }
        knowledge.seen.started |= starts;
        knowledge.seen.severity = knowledge.severity;
        if decision.action.violates() {
            knowledge.seen.violation = Some(decision);
        }
        let app = match knowledge.identification {
            Identification::Pending if !established && knowledge.verdict == Verdict::Deny => {
                AppId::NOT_CHECKED
            }
            other => other.app(),
        };
        let key = RowKey::new(&self.key, decision.rule, app);
        let row = Row {
            bytes_client: delta[0],
            bytes_server: delta[1],
            sessions: starts.into(),
            violations: violates.into(),
            first_seen: if starts { self.opened_at() } else { now },
            ..self.bare_row(knowledge, now)
        };
        Some((key, row))
    }

    /// The row that says that a flow is there of which nothing else can be told yet.
    fn announcement(
        &self,
        knowledge: &mut Knowledge,
        millis: u64,
        established: bool,
    ) -> Option<(RowKey, Row)> {
        let is_quiet = millis.saturating_sub(self.opened) >= QUIET_MILLIS;
        let is_due = established
            && is_quiet
            && knowledge.identification == Identification::Pending
            && !knowledge.seen.started
            && !std::mem::replace(&mut knowledge.seen.announced, true);
        let key = || RowKey::new(&self.key, knowledge.decision.rule, AppId::UNKNOWN);
        is_due.then(|| (key(), self.bare_row(knowledge, millis / 1000)))
    }

    fn bare_row(&self, knowledge: &Knowledge, now: u64) -> Row {
        Row {
            bytes_client: 0,
            bytes_server: 0,
            sessions: 0,
            violations: 0,
            first_seen: self.opened_at(),
            last_seen: now,
            action: knowledge.decision.action,
            severity: knowledge.severity,
            threat: knowledge.threat,
            flags: RowFlags::of(knowledge.decision),
            sample: self.key.client,
            names: knowledge.names.clone(),
        }
    }
}
