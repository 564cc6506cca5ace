//! The meters of one kind: found by peer, bounded, forgotten when idle.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    net::IpAddr,
    time::Duration,
};

use super::{MAX_METERS, MeterLimit, MeterLog, gauge::Gauge};

/// Meters that are looked at to find one that is idle, when one has to go.
const MAX_LOOKS: usize = 64;

/// One meter.
#[derive(Debug)]
pub(super) struct Meter {
    pub(super) gauge: Gauge,
    pub(super) touched: Duration,
    /// It was touched since it was queued.
    again: bool,
    logged: Option<Duration>,
    hits: u32,
}

impl Meter {
    fn new(gauge: Gauge, now: Duration) -> Self {
        Self { gauge, touched: now, again: false, logged: None, hits: 0 }
    }

    fn is_idle(&self, patience: Duration, now: Duration) -> bool {
        !self.gauge.is_busy() && now.saturating_sub(self.touched) >= patience
    }

    /// It fires: what to log, if that is due.
    pub(super) fn log(&mut self, every: Duration, now: Duration) -> Option<MeterLog> {
        self.hits = self.hits.saturating_add(1);
        let due = self
            .logged
            .is_none_or(|logged| now.saturating_sub(logged) >= every);
        due.then(|| {
            self.logged = Some(now);
            MeterLog { hits: std::mem::take(&mut self.hits), count: self.gauge.last() }
        })
    }
}

/// All meters of a kind.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    meters: HashMap<Option<IpAddr>, Meter>,
    /// Each meter once, with a time at which it had been touched: about the longest idle first.
    queue: VecDeque<(Option<IpAddr>, Duration)>,
    evicted: u64,
}

impl Shelf {
    /// The meter of a peer, a fresh one if there is none or it was idle for too long.
    pub(super) fn meter(
        &mut self,
        peer: Option<IpAddr>,
        patience: Duration,
        now: Duration,
        fresh: impl Fn() -> Gauge,
    ) -> &mut Meter {
        if self.meters.len() >= MAX_METERS && !self.meters.contains_key(&peer) {
            self.evict();
        }
        let queue = &mut self.queue;
        let meter = match self.meters.entry(peer) {
            Entry::Occupied(known) => {
                let meter = known.into_mut();
                meter.again = true;
                meter
            }
            Entry::Vacant(room) => {
                queue.push_back((peer, now));
                room.insert(Meter::new(fresh(), now))
            }
        };
        if meter.is_idle(patience, now) {
            *meter = Meter { again: meter.again, logged: meter.logged, ..Meter::new(fresh(), now) };
        }
        meter.touched = meter.touched.max(now);
        meter
    }

    /// The meter of a peer, if there is one.
    pub(super) fn peek(&self, peer: Option<IpAddr>) -> Option<&Meter> {
        self.meters.get(&peer)
    }

    /// One less of what a peer has open.
    pub(super) fn leave(&mut self, peer: Option<IpAddr>, limit: MeterLimit, now: Duration) {
        if let Some(meter) = self.meters.get_mut(&peer) {
            meter.touched = meter.touched.max(now);
            meter.gauge.remove(limit);
        }
    }

    /// Takes out what is idle.
    pub(super) fn expire(&mut self, patience: Duration, now: Duration) {
        while let Some((peer, stamp)) = self.queue.front().copied()
            && now.saturating_sub(stamp) >= patience
        {
            self.queue.pop_front();
            let Some(meter) = self.meters.get(&peer) else { continue };
            if meter.is_idle(patience, now) {
                self.meters.remove(&peer);
            } else {
                let stamp = if meter.gauge.is_busy() { now } else { meter.touched };
                self.queue.push_back((peer, stamp));
            }
        }
    }

    /// Takes out one that was not touched for about the longest time.
    fn evict(&mut self) {
        for look in 1..=MAX_LOOKS {
            let Some((peer, _)) = self.queue.pop_front() else { return };
            let Some(meter) = self.meters.get_mut(&peer) else { continue };
            if look < MAX_LOOKS && (std::mem::take(&mut meter.again) || meter.gauge.is_busy()) {
                self.queue.push_back((peer, meter.touched));
                continue;
            }
            self.meters.remove(&peer);
            self.evicted = self.evicted.saturating_add(1);
            return;
        }
    }

    pub(super) fn meters(&self) -> impl Iterator<Item = (&Option<IpAddr>, &Meter)> {
        self.meters.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.meters.len()
    }

    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }
}
