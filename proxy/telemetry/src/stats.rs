//! Sessions, chunks and bytes, in and out, since the start and by time slot, as the statistics messages carry them.

use std::collections::VecDeque;

use outrider_model::Direction;

/// Seconds of a slot.
pub const SLOT_SECONDS: u64 = 5;
/// Slots kept: five minutes.
pub const SLOTS: usize = 60;

/// One sum, in (0) and out (1) relative to the workload.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Window {
    /// Sessions that started: inbound, outbound.
    pub sessions: [u64; 2],
    /// Chunks that came in, went out.
    pub chunks: [u64; 2],
    /// Bytes that came in, went out.
    pub bytes: [u64; 2],
}

impl Window {
    fn add(&mut self, other: &Self) {
        for side in 0..2 {
            self.sessions[side] = self.sessions[side].saturating_add(other.sessions[side]);
            self.chunks[side] = self.chunks[side].saturating_add(other.chunks[side]);
            self.bytes[side] = self.bytes[side].saturating_add(other.bytes[side]);
        }
    }
}

/// Everything one statistics message says.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct StatsSnapshot {
    /// Since the start.
    pub total: Window,
    /// Sessions that live: inbound, outbound.
    pub current: [u64; 2],
    /// The last complete slot.
    pub last: Window,
    /// The last 12 complete slots: a minute.
    pub minute: Window,
    /// The last 60 complete slots: five minutes.
    pub five_minutes: Window,
}

/// The running sums.
#[derive(Debug)]
pub struct Stats {
    total: Window,
    current: [u64; 2],
    filling: Window,
    slots: VecDeque<Window>,
    slot_started: u64,
}

fn wing(direction: Direction) -> usize {
    match direction {
        Direction::Inbound => 0,
        Direction::Outbound => 1,
    }
}

impl Stats {
    /// Starts at `now`, in seconds since the epoch.
    #[must_use]
    pub fn new(now: u64) -> Self {
        Self {
            total: Window::default(),
            current: [0; 2],
            filling: Window::default(),
            slots: VecDeque::with_capacity(SLOTS),
            slot_started: now,
        }
    }

    /// A session started.
    pub fn session_opened(&mut self, direction: Direction) {
        let side = wing(direction);
        self.current[side] += 1;
        self.filling.sessions[side] += 1;
        self.total.sessions[side] += 1;
    }

    /// A session ended.
    pub fn session_closed(&mut self, direction: Direction) {
        let side = wing(direction);
        self.current[side] = self.current[side].saturating_sub(1);
    }

    /// Traffic of a flow: chunks and bytes by side (client, server). What clients send comes in when the workload serves.
    pub fn add(&mut self, direction: Direction, chunks: [u64; 2], bytes: [u64; 2]) {
        let (into, out) = match direction {
            Direction::Inbound => (0, 1),
            Direction::Outbound => (1, 0),
        };
        let moved = Window {
            sessions: [0; 2],
            chunks: [chunks[into], chunks[out]],
            bytes: [bytes[into], bytes[out]],
        };
        self.filling.add(&moved);
        self.total.add(&moved);
    }

    /// Closes the slots that ended before `now`. A clock that jumped back starts the slot anew; one that jumped ahead
    /// leaves empty slots, at most as many as are kept.
    pub fn roll(&mut self, now: u64) {
        if now < self.slot_started {
            self.slot_started = now;
        }
        let passed = (now - self.slot_started) / SLOT_SECONDS;
        self.slot_started += passed * SLOT_SECONDS;
        for _ in 0..passed.min(SLOTS as u64) {
            if self.slots.len() == SLOTS {
                self.slots.pop_back();
            }
            self.slots.push_front(std::mem::take(&mut self.filling));
        }
    }

    /// Reads everything.
    #[must_use]
    pub fn snapshot(&self) -> StatsSnapshot {
        let sum = |count: usize| {
            self.slots
                .iter()
                .take(count)
                .fold(Window::default(), |mut sum, slot| {
                    sum.add(slot);
                    sum
                })
        };
        StatsSnapshot {
            total: self.total,
            current: self.current,
            last: sum(1),
            minute: sum(12),
            five_minutes: sum(SLOTS),
        }
    }
}
