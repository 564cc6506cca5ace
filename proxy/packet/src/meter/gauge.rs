//! What one meter counts, and whether that is too much.

use std::time::Duration;

use super::{MAX_TARGETS, MeterKind, MeterLimit};

/// One meter's count.
#[derive(Debug)]
pub(super) enum Gauge {
    /// Events of a span.
    Rate(Rate),
    /// What is open at once.
    Level { count: u32, on: bool },
    /// Distinct targets of a span.
    Distinct(Distinct),
}

impl Gauge {
    pub(super) fn new(kind: MeterKind, now: Duration) -> Self {
        match kind {
            MeterKind::SynFlood | MeterKind::IcmpFlood | MeterKind::NoData => {
                Self::Rate(Rate { start: now, count: 0, last: 0, on: false })
            }
            MeterKind::SourceSessions => Self::Level { count: 0, on: false },
            MeterKind::PortScan => Self::Distinct(Distinct::default()),
        }
    }

    /// One more; whether the meter is on.
    pub(super) fn add(&mut self, limit: MeterLimit, now: Duration, target: u64) -> bool {
        match self {
            Self::Rate(rate) => rate.add(limit, now),
            Self::Level { count, on } => {
                *count = count.saturating_add(1);
                *on = switch(*on, *count, limit);
                *on
            }
            Self::Distinct(distinct) => distinct.add(limit, now, target),
        }
    }

    /// One less, of what is open at once.
    pub(super) fn remove(&mut self, limit: MeterLimit) {
        if let Self::Level { count, on } = self {
            *count = count.saturating_sub(1);
            *on = switch(*on, *count, limit);
        }
    }

    /// Something that it counts is still there.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self, Self::Level { count, .. } if *count > 0)
    }

    pub(super) fn count(&self) -> u32 {
        match self {
            Self::Rate(rate) => rate.count,
            Self::Level { count, .. } => *count,
            Self::Distinct(distinct) => distinct.count(),
        }
    }

    pub(super) fn last(&self) -> u32 {
        match self {
            Self::Rate(rate) => rate.last,
            Self::Level { count, .. } => *count,
            Self::Distinct(distinct) => distinct.count(),
        }
    }

    pub(super) fn is_on(&self) -> bool {
        match self {
            Self::Rate(rate) => rate.on,
            Self::Level { on, .. } => *on,
            Self::Distinct(distinct) => distinct.on,
        }
    }
}

/// On from the upper limit, off below the lower one.
fn switch(on: bool, count: u32, limit: MeterLimit) -> bool {
    count >= limit.upper || on && count >= limit.lower
}

/// A window that slides approximately: at the end of a span, and each second from then on, the count
/// is scaled to a span less one second.
///
/// NeuVector's meter divides what it counts before a span is over by the seconds gone, and cuts the
/// count at every event; under a steady flood that takes it below its limit after the first second,
/// for good. Here the limit is the limit from the first second on, and no more than twice the limit
/// is carried over, so that the largest flood is forgotten within a span or two.
#[derive(Debug)]
pub(super) struct Rate {
    start: Duration,
    count: u32,
    last: u32,
    on: bool,
}

impl Rate {
    fn add(&mut self, limit: MeterLimit, now: Duration) -> bool {
        let span = u64::from(limit.span).saturating_mul(1_000);
        let elapsed = millis(now.saturating_sub(self.start));
        if elapsed >= span {
            let kept = span.saturating_sub(1_000);
            self.last = scale(self.count, span, elapsed);
            self.count = scale(self.count.min(limit.upper.saturating_mul(2)), kept, elapsed);
            self.start = now.saturating_sub(Duration::from_millis(kept));
        }
        self.count = self.count.saturating_add(1);
        if self.count >= limit.upper {
            self.last = self.last.max(self.count);
        }
        self.on = switch(self.on, self.last, limit);
        self.on
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// `count * part / whole`, which is not more than `count`.
fn scale(count: u32, part: u64, whole: u64) -> u32 {
    let scaled = u64::from(count)
        .saturating_mul(part.min(whole))
        .checked_div(whole);
    u32::try_from(scaled.unwrap_or_default()).unwrap_or(u32::MAX)
}

/// Targets tried within a span, each once, with the time when it was tried last. As many as the limit
/// are remembered; beyond them the oldest goes.
#[derive(Debug, Default)]
pub(super) struct Distinct {
    targets: Vec<(u64, Duration)>,
    on: bool,
}

impl Distinct {
    fn add(&mut self, limit: MeterLimit, now: Duration, target: u64) -> bool {
        let span = Duration::from_secs(limit.span.into());
        self.targets
            .retain(|(known, at)| *known != target && now.saturating_sub(*at) < span);
        if self.targets.len() as u64 >= u64::from(limit.upper.min(MAX_TARGETS)) {
            self.targets.remove(0);
        }
        self.targets.push((target, now));
        self.on = switch(self.on, self.count(), limit);
        self.on
    }

    fn count(&self) -> u32 {
        u32::try_from(self.targets.len()).unwrap_or(u32::MAX)
    }
}
