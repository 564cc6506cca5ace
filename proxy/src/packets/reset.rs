//! TCP connections that must not be and that the proxy does not hold.
//!
//! A condemned connection is watched on a socket of its own. Each of its segments says what both ends
//! expect next, so each is answered with a reset for both; while no segment comes, a probe for each end
//! makes it send one. An end whose own kernel answers with a reset has not got the connection any more:
//! once both have said so it is done. One end that is gone helps with the other: its kernel resets
//! whatever the other one still sends.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use outrider_capture::{CaptureError, Injector, MAX_WATCHED, WATCHED_BYTES, Watch};
use outrider_packet::forge::{Glimpse, probe, prohibited};
use tokio::time::Instant;

/// Connections that are being reset at once. What is condemned beyond it is counted and lives on.
pub const MAX_CONDEMNED: usize = MAX_WATCHED;
/// How long a connection is tried.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// How long a connection may be silent before its first probe.
const FIRST_WAIT: Duration = Duration::from_millis(5);
/// From there to the second; each later wait is twice as long.
const NEXT_WAIT: Duration = Duration::from_millis(20);
/// Connections that are served before anything else is done.
const BATCH: usize = 16;
/// Segments that are read before one is answered.
const MAX_READ: usize = 256;

/// What became of the connections that were condemned, and what it took.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ResetCounters {
    /// Condemned; the sum of all that follow up to `alive`, and of those still being reset.
    pub condemned: u64,
    /// Too many at once.
    pub overflow: u64,
    /// Both ends have said that they have it no more.
    pub done: u64,
    /// Nothing more was heard of an end, so it may be gone.
    pub silent: u64,
    /// An end was still there when the time was over.
    pub alive: u64,
    /// Resets that were sent.
    pub resets: u64,
    /// Probes that were sent.
    pub probes: u64,
    /// Packets that could not be sent.
    pub unsent: u64,
}

impl ResetCounters {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            condemned: self.condemned + other.condemned,
            overflow: self.overflow + other.overflow,
            done: self.done + other.done,
            silent: self.silent + other.silent,
            alive: self.alive + other.alive,
            resets: self.resets + other.resets,
            probes: self.probes + other.probes,
            unsent: self.unsent + other.unsent,
        }
    }
}

/// Resets connections. Needs `NET_RAW`.
#[derive(Debug)]
pub struct Resets {
    watch: Watch,
    injector: Injector,
    condemned: HashMap<Pair, Condemned>,
    /// The last segment of each side that is not yet answered, the latest last.
    seen: Vec<Glimpse>,
    /// The watch does not yet watch what is condemned.
    changed: bool,
    counters: ResetCounters,
}

/// The two ends of a connection, the lower first.
type Pair = [SocketAddr; 2];

#[derive(Debug)]
struct Condemned {
    /// In the order of the pair.
    ends: [End; 2],
    near: SocketAddr,
    until: Instant,
    /// When a probe is due, and how long after it the next one.
    due: Instant,
    wait: Duration,
}

/// What is known of one end.
#[derive(Clone, Copy, Debug, Default)]
struct End {
    /// The number that it would send next.
    next: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum State {
    /// Nothing was heard since the last probe.
    #[default]
    Unheard,
    Alive,
    Gone,
}

impl Resets {
    /// Opens the sockets. What they send carries `mark`. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// There is no capability.
    pub fn open(mark: Option<u32>) -> Result<Self, CaptureError> {
        Ok(Self {
            watch: Watch::open()?,
            injector: Injector::open(mark)?,
            condemned: HashMap::new(),
            seen: Vec::new(),
            changed: false,
            counters: ResetCounters::default(),
        })
    }

    /// Begins to reset the connection of an end in this pod, `near`, with another one. `last` is what is
    /// known of it, if anything is. Link-local addresses cannot be sent to: counted as unsent.
    pub fn condemn(&mut self, near: SocketAddr, far: SocketAddr, last: Option<&Glimpse>) {
        let (pair, near) = (pair(near, far), plain(near));
        if self.condemned.contains_key(&pair) {
            return;
        }
        self.counters.condemned += 1;
        if self.condemned.len() >= MAX_CONDEMNED {
            self.counters.overflow += 1;
            return;
        }
        let now = Instant::now();
        let one = Condemned {
            ends: [End::default(); 2],
            near,
            until: now + PATIENCE,
            due: now + FIRST_WAIT,
            wait: NEXT_WAIT,
        };
        self.condemned.insert(pair, one);
        self.changed = true;
        if let Some(last) = last {
            self.answer(last, now);
        }
    }

    /// Waits until there is something to do and does it; forever while nothing is condemned. Dropping
    /// the future loses nothing.
    ///
    /// # Errors
    /// The runtime is going down, or the kernel refuses the filter.
    pub async fn work(&mut self) -> Result<(), CaptureError> {
        if self.changed {
            let ports = self.condemned.keys();
            let ports: Vec<_> = ports
                .map(|[one, other]| (one.port(), other.port()))
                .collect();
            self.watch.set(&ports)?;
            self.changed = false;
        }
        let Some(due) = self.condemned.values().map(|one| one.due).min() else {
            return std::future::pending().await;
        };
        if self.seen.is_empty() {
            tokio::select! {
                biased;
                ready = self.watch.ready() => ready?,
                () = tokio::time::sleep_until(due) => {}
            }
        }
        self.look();
        self.probe(Instant::now());
        Ok(())
    }

    /// Answers a packet with "administratively prohibited"; whether its sender was told.
    pub fn prohibit(&mut self, packet: &[u8]) -> bool {
        let Some(error) = prohibited(packet) else { return false };
        let unsent = self.counters.unsent;
        self.send(&error);
        self.counters.unsent == unsent
    }

    /// Totals so far.
    #[must_use]
    pub fn counters(&self) -> ResetCounters {
        self.counters
    }

    /// Connections that are being reset.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.condemned.len()
    }

    /// Answers what has passed: only the last segment of each side counts, and the latest first, since
    /// the numbers of a busy connection soon mean nothing any more.
    fn look(&mut self) {
        for _ in 0..BATCH {
            self.read();
            let Some(last) = self.seen.pop() else { return };
            self.answer(&last, Instant::now());
        }
    }

    fn read(&mut self) {
        let mut buffer = [0; WATCHED_BYTES];
        for _ in 0..MAX_READ {
            let Some(packet) = self.watch.next(&mut buffer) else { return };
            let Some(segment) = Glimpse::of(packet).filter(|segment| !segment.forged) else {
                continue;
            };
            if segment.rst {
                self.gone(&segment);
            } else if self.condemned.contains_key(&pair(segment.src, segment.dst)) {
                self.seen
                    .retain(|earlier| (earlier.src, earlier.dst) != (segment.src, segment.dst));
                self.seen.push(segment);
            }
        }
    }

    /// The sender's kernel has not got the connection any more.
    fn gone(&mut self, reset: &Glimpse) {
        let pair = pair(reset.src, reset.dst);
        let Some(one) = self.condemned.get_mut(&pair) else { return };
        let (sender, receiver) = one.ends(&pair, reset.src);
        sender.state = State::Gone;
        if receiver.state == State::Gone {
            self.counters.done += 1;
            self.forget(&pair);
        }
    }

    fn forget(&mut self, pair: &Pair) {
        self.condemned.remove(pair);
        // Otherwise the filter may wait: to change it costs more than a few packets for nothing.
        self.changed |= self.condemned.is_empty();
    }

    /// Resets both ends, by what a segment of one of them says.
    fn answer(&mut self, segment: &Glimpse, now: Instant) {
        let pair = pair(segment.src, segment.dst);
        let Some(one) = self.condemned.get_mut(&pair) else { return };
        one.due = one.due.max(now + NEXT_WAIT).min(one.until);
        let (sender, receiver) = one.ends(&pair, segment.src);
        *sender = End { next: segment.end, state: State::Alive };
        receiver.next = segment.ack.unwrap_or(receiver.next);
        let to_both = receiver.state != State::Gone;
        let [to_sender, to_receiver] = segment.resets();
        self.counters.resets += 1 + u64::from(to_both);
        self.send(&to_sender);
        if to_both {
            self.send(&to_receiver);
        }
    }

    /// Makes silent ends speak, and gives up connections whose time is over.
    fn probe(&mut self, now: Instant) {
        let late = self.condemned.iter_mut().filter(|(_, one)| one.due <= now);
        let late = late.take(BATCH);
        let mut over = Vec::new();
        let mut probes = Vec::new();
        for (pair, one) in late {
            if one.until <= now {
                over.push(*pair);
            } else {
                one.probes(pair, now, &mut probes);
            }
        }
        for probe in probes {
            self.counters.probes += 1;
            self.send(&probe);
        }
        for pair in over {
            let ends = self.condemned.get(&pair).map(|one| one.ends);
            let is_alive = |end: &End| end.state == State::Alive;
            let alive = u64::from(ends.is_some_and(|ends| ends.iter().any(is_alive)));
            self.counters.alive += alive;
            self.counters.silent += 1 - alive;
            self.forget(&pair);
        }
    }

    fn send(&mut self, packet: &[u8]) {
        if self.injector.send(packet, 0).is_err() {
            self.counters.unsent += 1;
        }
    }
}

impl Condemned {
    /// The end with that address, and the other one.
    fn ends(&mut self, pair: &Pair, first: SocketAddr) -> (&mut End, &mut End) {
        let [low, high] = &mut self.ends;
        if pair[0] == first { (low, high) } else { (high, low) }
    }

    /// What is to be sent now to hear from each end. The near end comes alone at first: it answers at
    /// once, and its answer is enough for both.
    fn probes(&mut self, pair: &Pair, now: Instant, out: &mut Vec<Vec<u8>>) {
        let first = self.wait == NEXT_WAIT;
        self.due = (now + self.wait).min(self.until);
        self.wait *= 2;
        let near = self.near;
        for (to, from) in [(pair[0], pair[1]), (pair[1], pair[0])] {
            let (end, other) = self.ends(pair, to);
            if end.state != State::Gone && (to == near || !first) {
                end.state = State::Unheard;
                out.push(probe(from, to, other.next, end.next));
            }
        }
    }
}

fn pair(one: SocketAddr, other: SocketAddr) -> Pair {
    let (one, other) = (plain(one), plain(other));
    [one.min(other), one.max(other)]
}

/// An address as packets have it, without what only a socket's has.
fn plain(end: SocketAddr) -> SocketAddr {
    SocketAddr::new(end.ip(), end.port())
}
