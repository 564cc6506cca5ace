//! What waits to be sent to the bridge: one wave of reports at a time, repeated until it is safe.

use std::{collections::VecDeque, time::Duration};

use outrider_wire::ext;
use tokio::time::Instant;

#[cfg(test)]
mod tests;

/// One datagram.
pub(crate) type Datagram = Vec<u8>;

/// Writes the datagram that announces batch `seq` of so many datagrams.
pub(crate) type Announce = fn(instance: u64, seq: u64, datagrams: u16) -> Datagram;

/// Rows, threats and evidence that go out together. To a bridge that acknowledges, a wave is a
/// batch: announced, kept until it is stored, sent again if it may have been lost.
#[derive(Debug)]
struct Wave {
    datagrams: Vec<Datagram>,
    /// Number and announcement, if it is a batch.
    batch: Option<(u64, Datagram)>,
    /// Datagrams sent, the announcement included.
    sent: usize,
    /// When the last one went out.
    complete: Option<Instant>,
}

impl Wave {
    fn front(&self) -> Option<&Datagram> {
        match &self.batch {
            Some((_, announcement)) if self.sent == 0 => Some(announcement),
            Some(_) => self.datagrams.get(self.sent.saturating_sub(1)),
            None => self.datagrams.get(self.sent),
        }
    }

    fn restart(&mut self) {
        self.sent = 0;
        self.complete = None;
    }
}

/// The queue towards `ctrl_listen.sock`. Its front may be sent whenever the socket takes it.
#[derive(Debug)]
pub(crate) struct Outbox {
    instance: u64,
    announce: Announce,
    acks: bool,
    /// Whether it is not known yet how the receiver is to be told.
    held: bool,
    last_seq: u64,
    wave: Option<Wave>,
    /// Notices that replace each other: application tables, names.
    notices: VecDeque<Datagram>,
}

impl Outbox {
    /// An empty outbox of one life of the process.
    #[must_use]
    pub(crate) fn new(instance: u64, announce: Announce) -> Self {
        let notices = VecDeque::new();
        Self { instance, announce, acks: false, held: false, last_seq: 0, wave: None, notices }
    }

    /// The next datagram to send.
    #[must_use]
    pub(crate) fn front(&self) -> Option<&Datagram> {
        let begun = self
            .wave
            .as_ref()
            .filter(|wave| wave.sent > 0)
            .and_then(Wave::front);
        let next = || self.wave.as_ref().filter(|_| !self.held)?.front();
        begun.or_else(|| self.notices.front()).or_else(next)
    }

    /// The front was sent.
    pub(crate) fn sent(&mut self, now: Instant) {
        let in_wave = self
            .wave
            .as_mut()
            .filter(|wave| wave.front().is_some() && (wave.sent > 0 || self.notices.is_empty()));
        let Some(wave) = in_wave else {
            self.notices.pop_front();
            return;
        };
        wave.sent = wave.sent.saturating_add(1);
        if wave.front().is_some() {
            return;
        }
        match wave.batch {
            Some(_) => wave.complete = Some(now),
            None => self.wave = None,
        }
    }

    /// Whether a new wave may be handed in.
    #[must_use]
    pub(crate) fn takes_wave(&self) -> bool {
        self.wave.is_none()
    }

    /// Hands in a wave. The caller asked [`Self::takes_wave`]; an empty wave is none.
    pub(crate) fn put_wave(&mut self, datagrams: Vec<Datagram>) {
        if datagrams.is_empty() {
            return;
        }
        self.wave = Some(Wave { datagrams, batch: None, sent: 0, complete: None });
        if self.acks {
            self.make_batch();
        }
    }

    /// How many notices may be handed in before one has to go.
    #[must_use]
    pub(crate) fn notice_room(&self) -> usize {
        MAX_NOTICES.saturating_sub(self.notices.len())
    }

    /// Hands in a notice; `false` if the oldest had to go for it.
    #[must_use]
    pub(crate) fn put_notice(&mut self, datagram: Datagram) -> bool {
        let full = self.notices.len() >= MAX_NOTICES;
        if full {
            self.notices.pop_front();
        }
        self.notices.push_back(datagram);
        !full
    }

    /// Sends nothing more of a wave until somebody says whether he acknowledges: a batch that is sent plainly
    /// would count twice where it is stored already, and what is sent plainly is not sent again.
    pub(crate) fn hold(&mut self) {
        self.held = true;
        self.receiver_lost();
    }

    /// A bridge said whether it acknowledges. A wave that is not safe with it starts again.
    pub(crate) fn hello(&mut self, acks: bool) {
        self.held = false;
        self.acks = acks;
        let Some(wave) = &mut self.wave else { return };
        match (&wave.batch, acks) {
            (Some(_), true) => wave.restart(),
            (Some(_), false) => {
                wave.batch = None;
                wave.datagrams
                    .retain(|datagram| datagram.first() != Some(&ext::EVIDENCE.0));
                wave.restart();
            }
            // What a receiver without acknowledgements already has is not sent twice.
            (None, true) if wave.sent == 0 => self.make_batch(),
            (None, _) => {}
        }
    }

    /// The bridge has stored a batch; `false` if it is not the one in flight.
    #[must_use]
    pub(crate) fn acknowledge(&mut self, instance: u64, seq: u64) -> bool {
        let in_flight = self.wave.as_ref().and_then(|wave| wave.batch.as_ref());
        let found = instance == self.instance && in_flight.is_some_and(|(held, _)| *held == seq);
        if found {
            self.wave = None;
        }
        found
    }

    /// The receiver went away: what it may not have read of a batch is sent again.
    pub(crate) fn receiver_lost(&mut self) {
        if let Some(wave) = self.wave.as_mut().filter(|wave| wave.batch.is_some()) {
            wave.restart();
        }
    }

    /// Starts a batch again whose acknowledgement is overdue; says whether it did.
    #[must_use]
    pub(crate) fn repeat_overdue(&mut self, now: Instant) -> bool {
        let Some(wave) = &mut self.wave else { return false };
        let overdue = wave
            .complete
            .is_some_and(|at| now.duration_since(at) >= ACK_PATIENCE);
        if overdue {
            wave.restart();
        }
        overdue
    }

    /// Whether nothing waits, neither to be sent nor to be acknowledged.
    #[must_use]
    pub(crate) fn is_settled(&self) -> bool {
        self.wave.is_none() && self.notices.is_empty()
    }

    fn make_batch(&mut self) {
        let Some(wave) = &mut self.wave else { return };
        let count = u16::try_from(wave.datagrams.len()).unwrap_or(u16::MAX);
        self.last_seq = self.last_seq.saturating_add(1);
        let announcement = (self.announce)(self.instance, self.last_seq, count);
        wave.batch = Some((self.last_seq, announcement));
    }
}

/// How long a batch may stay unacknowledged before it is sent again.
pub(crate) const ACK_PATIENCE: Duration = Duration::from_secs(10);
/// Notices that may wait.
pub(crate) const MAX_NOTICES: usize = 64;
