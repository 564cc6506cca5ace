//! What is counted of ports.

use outrider_capture::PairCounters;
use outrider_telemetry::{Counter, CounterFamily, GaugeFamily, MetricError, Registry};

use crate::ctrl::Port;

/// Counters and gauges of ports.
#[derive(Clone, Debug)]
pub(crate) struct PortMetrics {
    open: GaugeFamily,
    refused: CounterFamily,
    frames: CounterFamily,
    resets: Counter,
}

impl PortMetrics {
    /// Registers every family.
    ///
    /// # Errors
    /// When a name is taken.
    pub(crate) fn register(registry: &Registry) -> Result<Self, MetricError> {
        Ok(Self {
            open: registry.gauges(
                "outrider_ports",
                "Ports that are open, by kind, and those that are wanted and missing",
                &["kind"],
            )?,
            refused: registry.counters(
                "outrider_ports_refused_total",
                "Ports that could not be opened, by kind and reason",
                &["kind", "reason"],
            )?,
            frames: registry.counters(
                "outrider_pair_frames_total",
                "Frames of interface pairs: seen is the sum of all others but those still in the ring",
                &["outcome"],
            )?,
            resets: registry.counter(
                "outrider_pair_resets_total",
                "Resets sent for segments that a pair dropped",
            )?,
        })
    }

    /// These are open, and so many are missing.
    pub(super) fn standing<'a>(&self, open: impl Iterator<Item = &'a Port>, missing: usize) {
        let mut counts = [0_i64; 3];
        for port in open {
            if let Some(place) = KINDS.iter().position(|name| *name == kind(port))
                && let Some(count) = counts.get_mut(place)
            {
                *count += 1;
            }
        }
        for (name, count) in KINDS.iter().zip(counts) {
            self.open.with(&[name]).set(count);
        }
        let missing = i64::try_from(missing).unwrap_or(i64::MAX);
        self.open.with(&["missing"]).set(missing);
    }

    /// A port could not be opened.
    pub(super) fn refused(&self, port: &Port, reason: &'static str) {
        self.refused.with(&[kind(port), reason]).inc();
    }

    /// What came of a pair's frames between two looks, and how many resets were sent.
    pub(super) fn frames(&self, before: &PairCounters, now: &PairCounters, resets: u64) {
        self.resets.inc_by(resets);
        for (outcome, count) in OUTCOMES {
            let more = count(now).saturating_sub(count(before));
            self.frames.with(&[outcome]).inc_by(more);
        }
    }
}

fn kind(port: &Port) -> &'static str {
    match port {
        Port::Tap { .. } => "tap",
        Port::Queue { .. } => "queue",
        Port::Pair { .. } => "pair",
    }
}

const KINDS: [&str; 3] = ["tap", "queue", "pair"];
/// What is counted under a label.
type Outcome = (&'static str, fn(&PairCounters) -> u64);

const OUTCOMES: [Outcome; 9] = [
    ("seen", |counters| counters.seen),
    ("lost", |counters| counters.lost),
    ("forwarded", |counters| counters.forwarded),
    ("dropped", |counters| counters.dropped),
    ("closed", |counters| counters.closed),
    ("copied", |counters| counters.copies),
    ("cut", |counters| counters.cut),
    ("too-long", |counters| counters.too_long),
    ("unsent", |counters| counters.unsent),
];
