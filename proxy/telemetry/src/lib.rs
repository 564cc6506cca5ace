//! What the sidecar remembers of its traffic until somebody asks: live flows, connection rows, threats, the workload's
//! applications, statistics, metric families. Everything is bounded and pulled; nothing here ever waits.
//!
//! A flow's task opens a [`FlowGuard`], counts into its [`FlowState`] without locks, and drops the guard at its end. The ctrl
//! thread calls [`Telemetry::settle`] on its ticks and takes rows, threats and changed applications from their tables.
#![forbid(unsafe_code)]

mod apps;
mod flow;
mod log;
mod metric;
mod metrics;
mod rows;
mod stats;
mod table;
mod threats;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use outrider_model::{Decision, FlowKey};
use parking_lot::Mutex;

pub use apps::{AppPort, AppTable, MAX_APP_PORTS};
pub use flow::{CutReason, FlowGuard, FlowState, Grip, Identification, MAX_NAME, Names, Outcome};
pub use log::{LogFormat, LogHandle, init_log};
pub use metric::{Counter, CounterFamily, Durations, Gauge, GaugeFamily, MetricError, Registry};
pub use metrics::{Metrics, Refusal};
pub use rows::{HARD_MAX_ROWS, MAX_ROWS, Row, RowFlags, RowKey, RowTable};
pub use stats::{SLOT_SECONDS, SLOTS, Stats, StatsSnapshot, Window};
pub use table::{ByProto, FlowTable};
pub use threats::{
    MAX_EVIDENCE, MAX_MESSAGE, MAX_PENDING_THREATS, ThreatKey, ThreatReport, ThreatTable,
};

/// Everything that the flows of one proxy share; clones are handles to the same tables.
#[derive(Clone, Debug)]
pub struct Telemetry(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    flows: FlowTable,
    rows: Mutex<RowTable>,
    threats: Mutex<ThreatTable>,
    apps: Mutex<AppTable>,
    stats: Mutex<Stats>,
    /// Reads that brought data, of flows that are relayed.
    relayed: AtomicU64,
    metrics: Metrics,
}

/// Seconds since the Unix epoch, as connection rows and threat logs carry it; 0 if the clock stands before it.
#[must_use]
pub fn unix_seconds() -> u64 {
    unix_millis() / 1000
}

/// Milliseconds since the Unix epoch; 0 if the clock stands before it.
fn unix_millis() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

impl Telemetry {
    /// Registers the metric families and starts with empty tables.
    ///
    /// # Errors
    /// When a family of the same name is registered already.
    pub fn new(registry: &Registry) -> Result<Self, MetricError> {
        Self::with_rows(registry, HARD_MAX_ROWS)
    }

    /// The same with room for so many rows, half of them for what neither teaches nor accuses.
    ///
    /// # Errors
    /// When a family of the same name is registered already.
    pub fn with_rows(registry: &Registry, rows: usize) -> Result<Self, MetricError> {
        Ok(Self(Arc::new(Inner {
            flows: FlowTable::default(),
            rows: Mutex::new(RowTable::with_room(rows)),
            threats: Mutex::default(),
            apps: Mutex::default(),
            stats: Mutex::new(Stats::new(unix_seconds())),
            relayed: AtomicU64::new(0),
            metrics: Metrics::register(registry)?,
        })))
    }

    /// The live flows.
    #[must_use]
    pub fn flows(&self) -> &FlowTable {
        &self.0.flows
    }

    /// The connection rows collected since they were last taken.
    #[must_use]
    pub fn rows(&self) -> &Mutex<RowTable> {
        &self.0.rows
    }

    /// The threats seen and not yet taken.
    #[must_use]
    pub fn threats(&self) -> &Mutex<ThreatTable> {
        &self.0.threats
    }

    /// What the workload's own ports speak.
    #[must_use]
    pub fn apps(&self) -> &Mutex<AppTable> {
        &self.0.apps
    }

    /// Sessions, chunks and bytes by time slot.
    #[must_use]
    pub fn stats(&self) -> &Mutex<Stats> {
        &self.0.stats
    }

    /// Reads that brought data of relayed flows, after [`Self::settle`]: what stands for packets where TCP is
    /// terminated.
    #[must_use]
    pub fn relayed_reads(&self) -> u64 {
        load(&self.0.relayed)
    }

    /// The metric families.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Enters a flow into the table of live flows; the guard takes it out again, however its task ends.
    #[must_use]
    pub fn open(&self, key: FlowKey, decision: Decision) -> FlowGuard {
        self.open_with(key, Grip::Held, decision)
    }

    /// The same for a flow that the proxy may have less of a grip on.
    #[must_use]
    pub fn open_with(&self, key: FlowKey, grip: Grip, decision: Decision) -> FlowGuard {
        let state = self.0.flows.insert(key, grip, decision);
        if grip != Grip::Held {
            self.0
                .metrics
                .packet_sessions(key.direction, key.proto)
                .inc();
        }
        self.0.metrics.opened(key.direction).inc();
        self.0.metrics.open_flows(key.direction).add(1);
        self.0.stats.lock().session_opened(key.direction);
        FlowGuard::new(self.clone(), state)
    }

    /// Records a flow that was refused before the other end was dialled: counted by reason, and a violation row if policy
    /// refused it.
    pub fn refuse(&self, key: &FlowKey, reason: Refusal, decision: Option<Decision>) {
        self.0.metrics.refused(key.direction, reason).inc();
        let Some(decision) = decision.filter(|decision| decision.action.violates()) else { return };
        self.0
            .metrics
            .violations(key.direction, decision.action)
            .inc();
        let row = Row::refused(key, decision, unix_seconds());
        self.merge(RowKey::refused(key, decision.rule), row);
    }

    /// Moves what every live flow did since the last call into rows, statistics and byte counters.
    pub fn settle(&self) {
        let now = unix_millis();
        self.0
            .flows
            .for_each(|flow| self.settle_flow(flow, now, false));
        self.0.stats.lock().roll(now / 1000);
    }

    pub(crate) fn close(&self, flow: &FlowState, outcome: Outcome) {
        self.settle_flow(flow, unix_millis(), true);
        self.0.flows.remove(flow.id());
        let direction = flow.key().direction;
        self.0.metrics.closed(direction, outcome).inc();
        self.0.metrics.open_flows(direction).sub(1);
        self.0.stats.lock().session_closed(direction);
    }

    fn settle_flow(&self, flow: &FlowState, millis: u64, ended: bool) {
        let settled = flow.settle(millis, ended);
        if settled.moved() {
            let direction = flow.key().direction;
            self.0.metrics.bytes(direction, settled.bytes);
            if flow.grip() == Grip::Held {
                let [client, server] = settled.chunks;
                let reads = client.saturating_add(server);
                self.0.relayed.fetch_add(reads, Ordering::Relaxed);
            }
            self.0
                .stats
                .lock()
                .add(direction, settled.chunks, settled.bytes);
        }
        if let Some((key, row)) = settled.row {
            if row.violations > 0 {
                self.0
                    .metrics
                    .violations(key.direction, row.action)
                    .inc_by(row.violations.into());
            }
            self.merge(key, row);
        }
    }

    fn merge(&self, key: RowKey, row: Row) {
        let sessions = row.sessions;
        if !self.0.rows.lock().merge(key, row) {
            self.0.metrics.rows_dropped().inc();
            self.0.metrics.sessions_dropped().inc_by(sessions.into());
        }
    }

    /// Enters a threat: logged at once, or counted into the log that is due later.
    pub fn threat(&self, report: ThreatReport) {
        self.0.metrics.threat(report.id, report.stopped).inc();
        if !self.0.threats.lock().enter(report, unix_seconds()) {
            self.0.metrics.threats_dropped().inc();
        }
    }

    /// Flows opened, flows closed and bytes by side since the start, after [`Self::settle`].
    #[must_use]
    pub fn totals(&self) -> Totals {
        let opened = self.0.flows.opened();
        let open = self.0.flows.len() as u64;
        let bytes = self.0.metrics.total_bytes();
        Totals {
            opened,
            closed: opened.saturating_sub(open),
            open,
            bytes_client: bytes[0],
            bytes_server: bytes[1],
            rows_dropped: self.0.metrics.rows_dropped().get(),
            sessions_dropped: self.0.metrics.sessions_dropped().get(),
            threats_dropped: self.0.metrics.threats_dropped().get(),
        }
    }

    /// The text of `/metrics` for a registry, with the live flows settled first.
    ///
    /// # Errors
    /// When a family cannot be written as text.
    pub fn expose(&self, registry: &Registry) -> Result<String, MetricError> {
        self.settle();
        registry.expose()
    }
}

/// Sums since the start, for the status message.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Totals {
    /// Flows taken in and dialled.
    pub opened: u64,
    /// Those of them that ended.
    pub closed: u64,
    /// Those that live.
    pub open: u64,
    /// Bytes that clients sent.
    pub bytes_client: u64,
    /// Bytes that servers sent.
    pub bytes_server: u64,
    /// Connection rows dropped because the table was full.
    pub rows_dropped: u64,
    /// Sessions that those rows stood for.
    pub sessions_dropped: u64,
    /// Threat logs dropped because too many were pending.
    pub threats_dropped: u64,
}

/// Loads a counter that only says how much; order with other memory does not matter.
pub(crate) fn load(counter: &std::sync::atomic::AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests;
