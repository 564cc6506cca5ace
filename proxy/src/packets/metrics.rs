//! What is counted of packets, for `/metrics`, the device counters and the status.

use outrider_capture::{QueueCounters, TapCounters};
use outrider_packet::Counters;
use outrider_telemetry::{Counter, CounterFamily, Gauge, GaugeFamily, MetricError, Registry};
use parking_lot::Mutex;
use serde::Serialize;

use super::{
    bypass::BypassMetrics, questions::Answer, reset::ResetCounters, sort::Ignored,
    stopper::ErrorCounters, tier::Tier,
};

/// Totals of the packet side, as of its last tick.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    /// What the engine counted.
    pub engine: Counters,
    /// What all taps saw and lost.
    pub tap: TapCounters,
    /// What the queue received, decided and lost.
    pub queue: QueueCounters,
    /// What became of connections that were to be reset.
    pub resets: ResetCounters,
    /// What became of errors for the workload.
    pub errors: ErrorCounters,
}

/// What people read of the totals.
#[derive(Debug, Serialize)]
pub(crate) struct Shown {
    frames_seen: u64,
    frames_lost: u64,
    queued: u64,
    queue_overflow: u64,
    queue_stalled: u64,
    queue_lost: u64,
    malformed: u64,
}

/// Counters and gauges of packets.
#[derive(Debug)]
pub(crate) struct PacketMetrics {
    tier: Mutex<Tier>,
    tiers: GaugeFamily,
    policy: Gauge,
    unread: Counter,
    ignored: CounterFamily,
    verdicts: CounterFamily,
    totals: Mutex<Totals>,
    tap: [Counter; 4],
    queue: [Counter; 9],
    seen: [Counter; 10],
    bypass: BypassMetrics,
    condemned: [Counter; 5],
    sent: [Counter; 5],
}

const TAP: [(&str, &str); 4] = [
    (
        "outrider_tap_frames_seen_total",
        "Frames that passed the tap's filter, by the kernel's count",
    ),
    ("outrider_tap_frames_lost_total", "Frames that found no room in the tap's ring"),
    ("outrider_tap_ring_full_total", "Times that the tap's ring was full"),
    ("outrider_tap_blocks_torn_total", "Blocks of the tap's ring that made no sense"),
];

const QUEUE: [&str; 9] = [
    "received",
    "decided",
    "undecided",
    "overflow",
    "stalled",
    "late",
    "lost",
    "refused",
    "malformed",
];

const SEEN: [&str; 10] = [
    "tcp",
    "udp",
    "icmp",
    "other",
    "not-ip",
    "malformed",
    "cut",
    "no-flow",
    "stray",
    "fragments-given-up",
];

const CONDEMNED: [&str; 5] = ["condemned", "overflow", "done", "silent", "alive"];

const SENT: [&str; 5] = ["reset", "probe", "error", "error-limited", "unsent"];

impl PacketMetrics {
    /// Registers every family.
    ///
    /// # Errors
    /// When a name is taken.
    pub(crate) fn register(registry: &Registry) -> Result<Self, MetricError> {
        let [a, b, c, d] = TAP;
        let tap = |(name, help): (&str, &str)| registry.counter(name, help);
        let queue = registry.counters(
            "outrider_queue_packets_total",
            "Packets of the queue by what became of them: received is the sum of decided, undecided, \
             overflow and stalled",
            &["outcome"],
        )?;
        let seen = registry.counters(
            "outrider_packets_total",
            "Packets that were looked at, by protocol, or by why nothing could be made of them",
            &["kind"],
        )?;
        let condemned = registry.counters(
            "outrider_resets_total",
            "Connections to be reset: condemned is the sum of overflow, done (both ends have said so), \
             silent (no end is heard any more), alive (given up) and those being reset",
            &["outcome"],
        )?;
        let sent = registry.counters(
            "outrider_packets_sent_total",
            "Packets of the proxy's own making, and those that were not sent",
            &["kind"],
        )?;
        Ok(Self {
            tier: Mutex::default(),
            tiers: registry.gauges(
                "outrider_tier",
                "1 for what the proxy sees and can stop, 0 for the others",
                &["tier"],
            )?,
            policy: registry.gauge(
                "outrider_packets_policy_version",
                "Number of the snapshot that no verdict on packets is older than",
            )?,
            unread: registry.counter(
                "outrider_packets_unread_total",
                "Sessions that were not read on, since what is held of all of them was too much",
            )?,
            ignored: registry.counters(
                "outrider_packets_ignored_total",
                "Packets and frames of no session, by reason",
                &["reason"],
            )?,
            verdicts: registry.counters(
                "outrider_queue_verdicts_total",
                "Verdicts on queued packets: allow settles the flow, pass asks again",
                &["verdict"],
            )?,
            totals: Mutex::default(),
            tap: [tap(a)?, tap(b)?, tap(c)?, tap(d)?],
            queue: QUEUE.map(|outcome| queue.with(&[outcome])),
            seen: SEEN.map(|kind| seen.with(&[kind])),
            bypass: BypassMetrics::register(registry)?,
            condemned: CONDEMNED.map(|outcome| condemned.with(&[outcome])),
            sent: SENT.map(|kind| sent.with(&[kind])),
        })
    }

    /// What is counted of ways past the proxy.
    pub(super) fn bypass(&self) -> &BypassMetrics {
        &self.bypass
    }

    /// What works from now on.
    pub(crate) fn set_tier(&self, tier: Tier) {
        *self.tier.lock() = tier;
        for label in Tier::LABELS {
            self.tiers
                .with(&[label])
                .set(i64::from(label == tier.label()));
        }
    }

    /// What works.
    #[must_use]
    pub(crate) fn tier(&self) -> Tier {
        *self.tier.lock()
    }

    /// Packets are decided by this snapshot, those of old flows too.
    pub(crate) fn follow_policy(&self, version: u64) {
        self.policy.set(i64::try_from(version).unwrap_or(i64::MAX));
    }

    /// A session is not read on: too much was held.
    pub(crate) fn unread(&self) {
        self.unread.inc();
    }

    /// A packet or frame of no session.
    pub(crate) fn ignored(&self, reason: Ignored) {
        self.ignored.with(&[reason.label()]).inc();
    }

    /// A queued packet got its verdict.
    pub(crate) fn answered(&self, answer: Answer) {
        self.verdicts.with(&[answer.label()]).inc();
    }

    /// The totals of the last tick.
    #[must_use]
    pub(crate) fn totals(&self) -> Totals {
        *self.totals.lock()
    }

    /// The totals as people read them.
    #[must_use]
    pub(crate) fn shown(&self) -> Shown {
        let Totals { engine, tap, queue, .. } = self.totals();
        Shown {
            frames_seen: tap.seen,
            frames_lost: tap.lost,
            queued: queue.received,
            queue_overflow: queue.overflow,
            queue_stalled: queue.stalled,
            queue_lost: queue.lost,
            malformed: engine.malformed,
        }
    }

    /// What went unseen or undecided, by reason; only what there is of it.
    pub(crate) fn dropped(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let Totals { tap, queue, .. } = self.totals();
        [
            ("frames", tap.lost),
            ("queue-lost", queue.lost),
            ("queue-overflow", queue.overflow),
            ("queue-stalled", queue.stalled),
        ]
        .into_iter()
        .filter(|(_, count)| *count > 0)
    }

    /// Takes new totals; none of them is ever less than before.
    pub(crate) fn follow(&self, totals: Totals) {
        *self.totals.lock() = totals;
        let Totals { engine, tap, queue, resets, errors } = totals;
        follow(
            &self.condemned,
            [resets.condemned, resets.overflow, resets.done, resets.silent, resets.alive],
        );
        follow(
            &self.sent,
            [resets.resets, resets.probes, errors.sent, errors.limited, resets.unsent],
        );
        follow(&self.tap, [tap.seen, tap.lost, tap.full, tap.torn]);
        follow(
            &self.queue,
            [
                queue.received,
                queue.decided,
                queue.undecided,
                queue.overflow,
                queue.stalled,
                queue.late,
                queue.lost,
                queue.refused,
                queue.malformed,
            ],
        );
        follow(
            &self.seen,
            [
                engine.tcp,
                engine.udp,
                engine.icmp,
                engine.other,
                engine.not_ip,
                engine.malformed,
                engine.cut,
                engine.no_flow,
                engine.stray,
                engine.fragments_given_up,
            ],
        );
    }
}

/// Brings counters up to values that somebody else counts.
fn follow<const N: usize>(counters: &[Counter; N], values: [u64; N]) {
    for (counter, value) in counters.iter().zip(values) {
        counter.inc_by(value.saturating_sub(counter.get()));
    }
}
