//! What the export did, by sink.

use outrider_telemetry::{CounterFamily, GaugeFamily, MetricError, Registry};

use super::{event::Kind, health::SinkHealth, sink::Name};

/// Why a sink never got an event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Lost {
    /// The spool was full.
    Overflow,
    /// The receiver refuses this event and no other.
    Refused,
}

impl Lost {
    const ALL: [Self; 2] = [Self::Overflow, Self::Refused];

    fn label(self) -> &'static str {
        match self {
            Self::Overflow => "overflow",
            Self::Refused => "refused",
        }
    }
}

/// Handles to the families.
#[derive(Clone, Debug)]
pub(crate) struct ExportCounts {
    events: CounterFamily,
    suppressed: CounterFamily,
    sent: CounterFamily,
    retries: CounterFamily,
    dropped: CounterFamily,
    spooled: GaugeFamily,
    lag: GaugeFamily,
    failing: GaugeFamily,
    last_error: GaugeFamily,
    last_sent: GaugeFamily,
}

impl ExportCounts {
    /// Registers the families; every label set is there from the start.
    ///
    /// # Errors
    /// When a name is taken.
    pub(crate) fn register(registry: &Registry) -> Result<Self, MetricError> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            registry.counters(&format!("outrider_export_{name}_total"), help, labels)
        };
        let gauges = |name: &str, help: &str| {
            registry.gauges(&format!("outrider_export_{name}"), help, &["sink"])
        };
        let counts = Self {
            events: counters("events", "Events made for the sinks, by kind.", &["kind"])?,
            suppressed: counters(
                "suppressed",
                "Findings left out by de-duplication or rate limit, by kind.",
                &["kind"],
            )?,
            sent: counters("sent", "Events that a sink took.", &["sink"])?,
            retries: counters("retries", "Deliveries that failed and are tried again.", &["sink"])?,
            dropped: counters(
                "dropped",
                "Events that a sink never got, by reason.",
                &["sink", "reason"],
            )?,
            spooled: gauges("spooled", "Events that wait for a sink.")?,
            lag: gauges("lag_seconds", "Age of the oldest event that waits for a sink.")?,
            failing: gauges("failing", "Deliveries that failed since the last that did not.")?,
            last_error: gauges(
                "last_error_timestamp_seconds",
                "When a delivery failed last, 0 if none did.",
            )?,
            last_sent: gauges(
                "last_sent_timestamp_seconds",
                "When a delivery succeeded last, 0 if none did.",
            )?,
        };
        for sink in Name::ALL {
            counts.sent(sink, 0);
            counts.retries.with(&[sink.label()]).inc_by(0);
            Lost::ALL.iter().for_each(|why| counts.lost(sink, *why, 0));
        }
        for kind in Kind::ALL {
            counts.event(kind, 0);
            counts.suppressed(kind, 0);
        }
        Ok(counts)
    }

    pub(crate) fn event(&self, kind: Kind, count: u64) {
        self.events.with(&[kind.label()]).inc_by(count);
    }

    pub(crate) fn suppressed(&self, kind: Kind, count: u64) {
        self.suppressed.with(&[kind.label()]).inc_by(count);
    }

    pub(crate) fn sent(&self, sink: Name, count: u64) {
        self.sent.with(&[sink.label()]).inc_by(count);
    }

    pub(crate) fn retry(&self, sink: Name) {
        self.retries.with(&[sink.label()]).inc();
    }

    pub(crate) fn lost(&self, sink: Name, why: Lost, count: u64) {
        self.dropped
            .with(&[sink.label(), why.label()])
            .inc_by(count);
    }

    /// Sets the gauges: events that wait with the age of the oldest, and how the sink is.
    pub(super) fn measure(&self, sink: Name, (events, lag): (u64, u64), health: &SinkHealth) {
        let set = |family: &GaugeFamily, value: u64| {
            let gauge = family.with(&[sink.label()]);
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&self.spooled, events);
        set(&self.lag, lag);
        set(&self.failing, health.failures.into());
        set(&self.last_error, health.last_error_at);
        set(&self.last_sent, health.last_sent_at);
    }

    pub(super) fn all_sent(&self, sink: Name) -> u64 {
        self.sent.with(&[sink.label()]).get()
    }

    pub(super) fn all_retries(&self, sink: Name) -> u64 {
        self.retries.with(&[sink.label()]).get()
    }

    /// Events that a sink never got, for whatever reason.
    pub(super) fn all_lost(&self, sink: Name) -> u64 {
        Lost::ALL.iter().map(|why| self.lost_by(sink, *why)).sum()
    }

    pub(super) fn lost_by(&self, sink: Name, why: Lost) -> u64 {
        self.dropped.with(&[sink.label(), why.label()]).get()
    }
}
