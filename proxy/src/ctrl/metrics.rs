//! Counters of the ctrl sockets, of policy and of the listeners.

use std::{collections::BTreeMap, sync::Arc};

use outrider_model::Direction;
use outrider_telemetry::{
    Counter, CounterFamily, Gauge, GaugeFamily, MetricError, Registry, Totals,
};
use outrider_wire::ext::Refusal;
use parking_lot::Mutex;

use super::state::SensorTotals;

/// Why something meant for the bridge was lost.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Loss {
    /// The client has no address: an unbound socket.
    ReplyUnbound,
    /// The client went away.
    ReplyGone,
    /// The client did not read for too long.
    ReplyUnread,
    /// Too many replies waited.
    ReplyOverflow,
    /// More sessions than a list may have.
    ListOverflow,
    /// A newer notice took the place of an older one.
    NoticeOverflow,
    /// A message could not be written.
    Encoding,
}

impl Loss {
    /// All, for the closed label set.
    pub(crate) const ALL: [Self; 7] = [
        Self::ReplyUnbound,
        Self::ReplyGone,
        Self::ReplyUnread,
        Self::ReplyOverflow,
        Self::ListOverflow,
        Self::NoticeOverflow,
        Self::Encoding,
    ];

    /// The closed label of logs and metrics.
    #[must_use]
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::ReplyUnbound => "reply-unbound",
            Self::ReplyGone => "reply-gone",
            Self::ReplyUnread => "reply-unread",
            Self::ReplyOverflow => "reply-overflow",
            Self::ListOverflow => "list-overflow",
            Self::NoticeOverflow => "notice-overflow",
            Self::Encoding => "encoding",
        }
    }
}

/// Handles of the families.
#[derive(Clone, Debug)]
pub(crate) struct CtrlMetrics {
    requests: CounterFamily,
    invalid: CounterFamily,
    sent: CounterFamily,
    lost: CounterFamily,
    repeated: Counter,
    acknowledged: Counter,
    accept_failed: CounterFamily,
    policy_refused: CounterFamily,
    policy_swaps: Counter,
    policy_cut: Counter,
    save_failed: Counter,
    version: Gauge,
    rules: GaugeFamily,
    sensor_rules: GaugeFamily,
    sensors: Arc<Mutex<SensorTotals>>,
    judged: Arc<Mutex<Judged>>,
}

/// What became of the policies that were delivered.
#[derive(Debug, Default)]
struct Judged {
    /// What is in force.
    kind: &'static str,
    /// Why the last one is not.
    refused: Option<Refusal>,
}

impl CtrlMetrics {
    /// Registers every family.
    ///
    /// # Errors
    /// When a family of the same name is registered already.
    pub(crate) fn register(registry: &Registry) -> Result<Self, MetricError> {
        let by_kind = |name, help| registry.gauges(name, help, &["kind"]);
        Ok(Self {
            requests: registry.counters(
                "outrider_ctrl_requests_total",
                "Requests carried out, by key",
                &["key"],
            )?,
            invalid: registry.counters(
                "outrider_ctrl_errors_total",
                "Requests that changed nothing, by what was wrong with them",
                &["reason"],
            )?,
            sent: registry.counters(
                "outrider_ctrl_sent_total",
                "Datagrams sent to the bridge",
                &["socket"],
            )?,
            lost: registry.counters(
                "outrider_ctrl_lost_total",
                "Datagrams and entries meant for the bridge and lost, by reason",
                &["reason"],
            )?,
            repeated: registry.counter(
                "outrider_ctrl_batches_repeated_total",
                "Batches sent again because no acknowledgement came",
            )?,
            acknowledged: registry.counter(
                "outrider_ctrl_batches_acknowledged_total",
                "Batches that the bridge has stored",
            )?,
            accept_failed: registry.counters(
                "outrider_accept_failures_total",
                "Connections that could not be taken, by reason",
                &["direction", "reason"],
            )?,
            policy_refused: registry.counters(
                "outrider_policy_refused_total",
                "Policies refused whole, by what was wrong with them",
                &["reason"],
            )?,
            policy_swaps: registry
                .counter("outrider_policy_swaps_total", "Policy snapshots that came into force")?,
            policy_cut: registry.counter(
                "outrider_policy_cut_flows_total",
                "Live flows cut because a new policy denies them",
            )?,
            save_failed: registry.counter(
                "outrider_policy_save_failures_total",
                "Times that the last policy could not be kept on disk",
            )?,
            version: registry
                .gauge("outrider_policy_version", "Number of the snapshot in force")?,
            rules: by_kind("outrider_policy_rules", "Rules of the snapshot in force")?,
            sensor_rules: by_kind(
                "outrider_sensor_rules",
                "Sensors that were configured, by kind; nothing looks for them yet",
            )?,
            sensors: Arc::default(),
            judged: Arc::default(),
        })
    }

    /// A request was carried out.
    pub(crate) fn request(&self, key: &'static str) {
        self.requests.with(&[key]).inc();
    }

    /// A request changed nothing.
    pub(crate) fn invalid(&self, reason: &'static str) {
        self.invalid.with(&[reason]).inc();
    }

    /// A reply was sent.
    pub(crate) fn replied(&self) {
        self.sent.with(&["reply"]).inc();
    }

    /// A notification was sent.
    pub(crate) fn notified(&self) {
        self.sent.with(&["notification"]).inc();
    }

    /// Something was lost.
    pub(crate) fn lost(&self, loss: Loss, count: u64) {
        self.lost.with(&[loss.label()]).inc_by(count);
    }

    /// A batch goes out again.
    pub(crate) fn batch_repeated(&self) {
        self.repeated.inc();
    }

    /// A batch is safe.
    pub(crate) fn batch_acknowledged(&self) {
        self.acknowledged.inc();
    }

    /// A connection could not be taken.
    pub(crate) fn accept_failed(&self, direction: Direction, reason: &'static str) {
        self.accept_failed.with(&[direction.label(), reason]).inc();
    }

    /// A policy was refused whole, or in part, which is the same: what was wrong with it first is
    /// kept until another one comes.
    pub(crate) fn policy_refused(&self, reason: &'static str, error: &dyn std::error::Error) {
        self.policy_refused.with(&[reason]).inc();
        let refusal = || Refusal::new(reason, error.to_string());
        self.judged.lock().refused.get_or_insert_with(refusal);
    }

    /// Another policy comes.
    pub(crate) fn policy_begins(&self) {
        self.judged.lock().refused = None;
    }

    /// What kind of policy is in force.
    pub(crate) fn policy_in_force(&self, kind: &'static str) {
        self.judged.lock().kind = kind;
    }

    /// The same.
    #[must_use]
    pub(crate) fn policy_kind(&self) -> &'static str {
        self.judged.lock().kind
    }

    /// Why the last policy that came is not in force.
    #[must_use]
    pub(crate) fn policy_refusal(&self) -> Option<Refusal> {
        self.judged.lock().refused.clone()
    }

    /// A snapshot came into force and cut so many flows.
    pub(crate) fn policy_swapped(&self, version: u64, (exact, range): (u32, u32), cut: usize) {
        self.policy_swaps.inc();
        self.policy_cut.inc_by(cut as u64);
        self.version.set(i64::try_from(version).unwrap_or(i64::MAX));
        self.rules.with(&["exact"]).set(exact.into());
        self.rules.with(&["range"]).set(range.into());
    }

    /// Other sensors are configured than before.
    pub(crate) fn sensors(&self, now: SensorTotals) {
        let SensorTotals { dlp, waf, rules, refused, .. } = now;
        for (kind, count) in [("dlp", dlp), ("waf", waf), ("detector", rules), ("refused", refused)]
        {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.sensor_rules.with(&[kind]).set(count);
        }
        *self.sensors.lock() = now;
    }

    /// The sensors that are configured.
    #[must_use]
    pub(crate) fn sensor_totals(&self) -> SensorTotals {
        *self.sensors.lock()
    }

    /// The last policy could not be kept on disk.
    pub(crate) fn save_failed(&self) {
        self.save_failed.inc();
    }

    /// Everything that was lost since the start, by reason; what was never lost is left out.
    #[must_use]
    pub(crate) fn dropped(&self, totals: &Totals) -> BTreeMap<&'static str, u64> {
        let tables = [
            ("rows", totals.rows_dropped),
            ("sessions", totals.sessions_dropped),
            ("threats", totals.threats_dropped),
        ];
        let losses = Loss::ALL.map(|loss| (loss.label(), self.lost.with(&[loss.label()]).get()));
        tables
            .into_iter()
            .chain(losses)
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}
