//! Meters: what happens too often, from one peer or to the whole workload.
//!
//! [`Meters`] keeps a bounded number of them; time is an argument. A meter of a rate goes on
//! when a span sees its upper limit and off when a span sees less than the lower one; a meter of a
//! level does so with what is open at once, and the one for scans with the distinct targets that a
//! peer tried in vain within a span.

mod gauge;
mod shelf;
#[cfg(test)]
mod tests;

use std::{
    hash::{BuildHasher as _, RandomState},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use outrider_model::ThreatId;

use gauge::Gauge;
use shelf::Shelf;

/// Meters of one kind at once. Beyond it the one that was idle longest goes, counted: a peer is still
/// caught if it reaches its limit before so many others were seen since its last packet.
pub const MAX_METERS: usize = 4_096;
/// Targets that a limit on scans may be about: they are remembered one by one.
pub const MAX_TARGETS: u32 = 256;

/// What a meter counts.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum MeterKind {
    /// Attempts to open TCP connections to the workload, by peer.
    SynFlood,
    /// ICMP messages that ask, of all peers.
    IcmpFlood,
    /// Flows that a peer has open with the workload at once.
    SourceSessions,
    /// TCP connections whose client says nothing, of all peers.
    NoData,
    /// Targets that refused or never answered a peer.
    PortScan,
}

/// When a meter goes on and off.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MeterLimit {
    upper: u32,
    span: u8,
    lower: u32,
}

/// What a meter says to one more event.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[must_use]
pub struct Reading {
    /// The meter is on: the event is one too many.
    pub fires: bool,
    /// It is time to log.
    pub log: Option<MeterLog>,
}

/// What there is to log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MeterLog {
    /// Events since the last log that found the meter on.
    pub hits: u32,
    /// What the meter shows.
    pub count: u32,
}

/// A meter as it stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MeterState {
    /// What it counts.
    pub kind: MeterKind,
    /// Whom; `None` for all.
    pub peer: Option<IpAddr>,
    /// For how long it was not touched.
    pub idle: Duration,
    /// In the running span, or at once.
    pub count: u32,
    /// In the last span.
    pub last: u32,
    /// When it goes on and off.
    pub limit: MeterLimit,
    /// It is on.
    pub fires: bool,
}

/// All meters of a workload.
#[derive(Debug)]
pub struct Meters {
    shelves: [(MeterKind, Option<MeterLimit>, Shelf); 5],
    hasher: RandomState,
}

impl MeterLimit {
    /// A limit: on from `upper` events within `span` seconds, off below `lower`.
    ///
    /// # Errors
    ///
    /// Says what is wrong if a number is zero or `lower` is above `upper`.
    pub fn new(upper: u32, span: u8, lower: u32) -> Result<Self, &'static str> {
        match (upper, span) {
            (0, _) => Err("the upper limit must be 1 at least"),
            (_, 0) => Err("the span must be 1 to 255 seconds"),
            _ if lower > upper => Err("the lower limit must not be above the upper one"),
            _ => Ok(Self { upper, span, lower }),
        }
    }

    /// Events at which the meter goes on.
    #[must_use]
    pub fn upper(self) -> u32 {
        self.upper
    }

    /// Seconds within which they are counted.
    #[must_use]
    pub fn span(self) -> u8 {
        self.span
    }

    /// Events below which it goes off.
    #[must_use]
    pub fn lower(self) -> u32 {
        self.lower
    }
}

impl MeterKind {
    /// All kinds.
    pub const ALL: [Self; 5] =
        [Self::SynFlood, Self::IcmpFlood, Self::SourceSessions, Self::NoData, Self::PortScan];

    /// The limit where nobody sets another one; whether it is on then is [`ThreatId::on_by_default`].
    ///
    /// The numbers of scans are our own. Only what refuses or never answers counts, and each target
    /// once: a scraper that tries 20 ports of a pod stays below half of 50 however often it comes,
    /// and a scan of the usual thousand ports is there within its first second.
    #[must_use]
    pub fn default_limit(self) -> MeterLimit {
        let (upper, span, lower) = match self {
            Self::SynFlood => (800, 5, 600),
            Self::IcmpFlood => (100, 1, 100),
            Self::SourceSessions => (2_000, 1, 2_000),
            Self::NoData => (10, 10, 10),
            Self::PortScan => (50, 60, 25),
        };
        MeterLimit { upper, span, lower }
    }

    /// The threat that an event is which finds the meter on.
    #[must_use]
    pub fn threat(self) -> ThreatId {
        match self {
            Self::SynFlood => ThreatId::SYN_FLOOD,
            Self::IcmpFlood => ThreatId::ICMP_FLOOD,
            Self::SourceSessions => ThreatId::SOURCE_SESSIONS,
            Self::NoData => ThreatId::NO_CLIENT_DATA,
            Self::PortScan => ThreatId::PORT_SCAN,
        }
    }

    /// Its name in settings and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SynFlood => "syn_flood",
            Self::IcmpFlood => "icmp_flood",
            Self::SourceSessions => "ip_src_session",
            Self::NoData => "tcp_nodata",
            Self::PortScan => "port_scan",
        }
    }

    /// How long a meter is kept that nothing touches.
    fn patience(self, limit: MeterLimit) -> Duration {
        Duration::from_secs(match self {
            Self::SynFlood => 8,
            Self::IcmpFlood | Self::SourceSessions => 3,
            Self::NoData => 10,
            Self::PortScan => 0,
        })
        .max(Duration::from_secs(limit.span.into()))
    }

    /// Time between two logs of a meter at least.
    fn log_every(self) -> Duration {
        Duration::from_secs(if self == Self::NoData { 0 } else { 30 })
    }

    fn by_peer(self) -> bool {
        !matches!(self, Self::IcmpFlood | Self::NoData)
    }
}

impl Meters {
    /// Meters with the limits that `limit` tells; `None` leaves a kind out.
    #[must_use]
    pub fn new(limit: impl Fn(MeterKind) -> Option<MeterLimit>) -> Self {
        let shelves = MeterKind::ALL.map(|kind| (kind, limit(kind), Shelf::default()));
        Self { shelves, hasher: RandomState::new() }
    }

    /// Whether a kind is counted at all.
    #[must_use]
    pub fn is_on(&self, kind: MeterKind) -> bool {
        self.shelves
            .iter()
            .any(|(known, limit, _)| *known == kind && limit.is_some())
    }

    /// Something happened once more. A flow that is refused because its reading fires must
    /// [leave](Self::leave) like one that was open.
    pub fn enter(&mut self, kind: MeterKind, peer: IpAddr, now: Duration) -> Reading {
        self.add(kind, peer, now, 0)
    }

    /// A peer tried a target in vain.
    pub fn tried(&mut self, peer: IpAddr, target: SocketAddr, now: Duration) -> Reading {
        let target = self.hasher.hash_one(target);
        self.add(MeterKind::PortScan, peer, now, target)
    }

    /// A flow that entered [`MeterKind::SourceSessions`] is over.
    pub fn leave(&mut self, peer: IpAddr, now: Duration) {
        for (kind, limit, shelf) in &mut self.shelves {
            if *kind == MeterKind::SourceSessions
                && let Some(limit) = limit
            {
                shelf.leave(Some(peer.to_canonical()), *limit, now);
            }
        }
    }

    /// Whether the meter of a peer is on, as of the last event. Counts nothing.
    #[must_use]
    pub fn fires(&self, kind: MeterKind, peer: IpAddr) -> bool {
        let peer = kind.by_peer().then_some(peer.to_canonical());
        let on = |shelf: &Shelf| shelf.peek(peer).is_some_and(|meter| meter.gauge.is_on());
        self.shelves
            .iter()
            .any(|(known, _, shelf)| *known == kind && on(shelf))
    }

    /// Lets time pass: meters that were idle for too long go.
    pub fn advance(&mut self, now: Duration) {
        for (kind, limit, shelf) in &mut self.shelves {
            if let Some(limit) = limit {
                shelf.expire(kind.patience(*limit), now);
            }
        }
    }

    /// Every meter, one kind after the other.
    pub fn states(&self, now: Duration) -> impl Iterator<Item = MeterState> {
        self.shelves.iter().flat_map(move |(kind, limit, shelf)| {
            limit.iter().flat_map(move |limit| {
                shelf.meters().map(move |(peer, meter)| MeterState {
                    kind: *kind,
                    peer: *peer,
                    idle: now.saturating_sub(meter.touched),
                    count: meter.gauge.count(),
                    last: meter.gauge.last(),
                    limit: *limit,
                    fires: meter.gauge.is_on(),
                })
            })
        })
    }

    /// How many meters there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shelves
            .iter()
            .map(|(_, _, shelf)| shelf.len())
            .fold(0, usize::saturating_add)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Meters that went before their time because [`MAX_METERS`] were there.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.shelves
            .iter()
            .map(|(_, _, shelf)| shelf.evicted())
            .fold(0, u64::saturating_add)
    }

    fn add(&mut self, kind: MeterKind, peer: IpAddr, now: Duration, target: u64) -> Reading {
        let found = self.shelves.iter_mut().find(|(known, _, _)| *known == kind);
        let Some((_, Some(limit), shelf)) = found else { return Reading::default() };
        let peer = kind.by_peer().then_some(peer.to_canonical());
        let meter = shelf.meter(peer, kind.patience(*limit), now, || Gauge::new(kind, now));
        let fires = meter.gauge.add(*limit, now, target);
        let log = if fires { meter.log(kind.log_every(), now) } else { None };
        Reading { fires, log }
    }
}
