//! What happens, for whoever listens: one bounded ring per kind, read by position.
//!
//! Whoever publishes never waits: a full ring loses its oldest event. A listener has a position in
//! every ring instead of a queue, so a slow one costs nothing but its place; once the ring has
//! overtaken it, it is dropped and counted. A kind that comes in floods pushes out only its own.

use std::{
    collections::VecDeque,
    fmt,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use outrider_api::{EventKind, Flow, Gap, ModeChange, PolicyChange, Threat, Violation};
use outrider_telemetry::unix_seconds;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    api::lists::Whom,
    counts::{Counts, SentAway},
};

/// Events kept per kind, for listeners that come back.
const MAX_KEPT: usize = 2048;
/// Listeners at a time.
const MAX_LISTENERS: usize = 64;
/// Kinds.
const KINDS: usize = EventKind::ALL.len();
/// Kinds of the first bridge.
const FEWEST: usize = 4;

/// What an event says.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Body {
    Flow(Arc<Flow>),
    Violation(Violation),
    Threat(Threat),
    Mode(ModeChange),
    Policy(PolicyChange),
}

impl Body {
    fn kind(&self) -> EventKind {
        match self {
            Self::Flow(_) => EventKind::Flow,
            Self::Violation(_) => EventKind::Violation,
            Self::Threat(_) => EventKind::Threat,
            Self::Mode(_) => EventKind::Mode,
            Self::Policy(_) => EventKind::Policy,
        }
    }
}

/// All events of one life of the bridge.
#[derive(Debug)]
pub struct Events {
    life: u64,
    rings: Mutex<Rings>,
    /// How many there were in all.
    latest: watch::Sender<u64>,
    listeners: AtomicUsize,
    counts: Counts,
    closed: CancellationToken,
}

#[derive(Debug, Default)]
struct Rings {
    published: u64,
    kinds: [Ring; KINDS],
}

#[derive(Debug, Default)]
struct Ring {
    /// Number of the oldest one kept; as many were there before it.
    first: u64,
    kept: VecDeque<(u64, Arc<Body>)>,
}

impl Ring {
    fn end(&self) -> u64 {
        self.first + self.kept.len() as u64
    }

    fn get(&self, number: u64) -> Option<&(u64, Arc<Body>)> {
        let at = number.checked_sub(self.first)?;
        self.kept.get(usize::try_from(at).ok()?)
    }
}

/// What a listener has had: of which life, and how many of each kind.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Position {
    life: u64,
    next: [u64; KINDS],
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.life)?;
        let mut before = '-';
        for next in self.next {
            write!(f, "{before}{next}")?;
            before = '.';
        }
        Ok(())
    }
}

impl FromStr for Position {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (life, rest) = text.split_once('-').ok_or(())?;
        // A bridge that had fewer kinds gave out fewer numbers; its life is another one.
        let mut next = [0; KINDS];
        if !(FEWEST..=KINDS).contains(&rest.split('.').count()) {
            return Err(());
        }
        for (next, number) in next.iter_mut().zip(rest.split('.')) {
            *next = number.parse().map_err(|_not_one| ())?;
        }
        Ok(Self { life: u64::from_str_radix(life, 16).map_err(|_not_one| ())?, next })
    }
}

/// What a listener gets.
#[derive(Clone, Debug)]
pub(crate) enum Heard {
    /// It happened.
    Event(EventKind, Arc<Body>),
    /// It is not kept any more.
    Gap(Gap),
}

impl Heard {
    /// Whether it is about those; a gap may be.
    pub(crate) fn concerns(&self, whom: &Whom) -> bool {
        let Self::Event(_, body) = self else { return true };
        match &**body {
            Body::Flow(flow) => whom.includes(&**flow),
            Body::Violation(violation) => whom.includes(violation),
            Body::Threat(threat) => whom.includes(threat),
            Body::Mode(change) => whom.includes(change),
            Body::Policy(change) => whom.includes(change),
        }
    }
}

impl Events {
    /// None yet.
    #[must_use]
    pub fn new(counts: Counts) -> Self {
        Self {
            life: unix_seconds(),
            rings: Mutex::default(),
            latest: watch::Sender::new(0),
            listeners: AtomicUsize::new(0),
            counts,
            closed: CancellationToken::new(),
        }
    }

    /// Tells everybody; never waits.
    pub(crate) fn publish(&self, body: Body) {
        let mut rings = self.rings.lock();
        rings.published += 1;
        let published = rings.published;
        if let Some(ring) = rings.kinds.get_mut(body.kind() as usize) {
            if ring.kept.len() == MAX_KEPT {
                ring.kept.pop_front();
                ring.first += 1;
            }
            ring.kept.push_back((published, Arc::new(body)));
        }
        drop(rings);
        self.latest.send_replace(published);
    }

    /// Starts listening, from now on or from where the listener was; `None` if too many listen.
    pub(crate) fn listen(
        self: &Arc<Self>,
        kinds: &[EventKind],
        after: Option<Position>,
    ) -> Option<Listener> {
        let admitted = |count| (count < MAX_LISTENERS).then_some(count + 1);
        let taken = self
            .listeners
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, admitted);
        if taken.is_err() {
            self.counts.sent_away(SentAway::TooManyListeners);
            return None;
        }
        let ends = self.rings.lock().kinds.each_ref().map(Ring::end);
        let (next, gap) = match after {
            None => (ends, None),
            Some(known) if known.life == self.life => (known.next, None),
            Some(_) => {
                let reason = "the bridge was restarted".into();
                ([0; KINDS], Some(Gap { missed: None, reason }))
            }
        };
        let mut wanted = [false; KINDS];
        for kind in kinds {
            if let Some(wanted) = wanted.get_mut(*kind as usize) {
                *wanted = true;
            }
        }
        Some(Listener {
            latest: self.latest.subscribe(),
            events: Arc::clone(self),
            position: Position { life: self.life, next },
            wanted,
            gap,
            is_live: false,
        })
    }

    /// Listeners now.
    #[must_use]
    pub fn listeners(&self) -> usize {
        self.listeners.load(Ordering::Relaxed)
    }

    /// Sends every listener away.
    pub fn close(&self) {
        self.closed.cancel();
    }
}

/// Somebody who listens.
#[derive(Debug)]
pub(crate) struct Listener {
    events: Arc<Events>,
    latest: watch::Receiver<u64>,
    position: Position,
    wanted: [bool; KINDS],
    gap: Option<Gap>,
    /// It has had what was there when it came: what it misses now, it is too slow for.
    is_live: bool,
}

impl Listener {
    /// What it has had, what came last included.
    pub(crate) fn position(&self) -> Position {
        self.position
    }

    /// Waits for what comes next; `None` when the bridge stops or the listener is too slow.
    pub(crate) async fn next(&mut self) -> Option<Heard> {
        loop {
            self.latest.borrow_and_update();
            if let Some(gap) = self.gap.take() {
                return Some(Heard::Gap(gap));
            }
            let missed = self.skip_lost();
            if missed > 0 && self.is_live {
                self.events.counts.sent_away(SentAway::SlowListener);
                return None;
            }
            if missed > 0 {
                let reason = format!("only the last {MAX_KEPT} events of a kind are kept");
                return Some(Heard::Gap(Gap { missed: Some(missed), reason }));
            }
            if let Some((kind, body)) = self.take() {
                return Some(Heard::Event(kind, body));
            }
            self.is_live = true;
            tokio::select! {
                biased;
                () = self.events.closed.cancelled() => return None,
                changed = self.latest.changed() => changed.ok()?,
            }
        }
    }

    /// Moves on to what is still kept; says how many events were passed over. Positions from the
    /// future, which nobody was given, become the present.
    fn skip_lost(&mut self) -> u64 {
        let rings = self.events.rings.lock();
        let mut missed = 0;
        for ((next, ring), wanted) in self
            .position
            .next
            .iter_mut()
            .zip(&rings.kinds)
            .zip(self.wanted)
        {
            if wanted {
                missed += ring.first.saturating_sub(*next);
                *next = (*next).clamp(ring.first, ring.end());
            }
        }
        missed
    }

    /// The oldest event of the wanted kinds that it has not had.
    fn take(&mut self) -> Option<(EventKind, Arc<Body>)> {
        let rings = self.events.rings.lock();
        let places = self
            .position
            .next
            .iter_mut()
            .zip(&rings.kinds)
            .zip(self.wanted);
        let waiting = places
            .filter(|(_, wanted)| *wanted)
            .filter_map(|((next, ring), _)| ring.get(*next).map(|found| (next, found)));
        let (next, (_, body)) = waiting.min_by_key(|(_, (published, _))| *published)?;
        *next += 1;
        Some((body.kind(), Arc::clone(body)))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.events.listeners.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
