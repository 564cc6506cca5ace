//! What one proxy tells without being asked: datagrams in, whole reports out.
//!
//! The socket is read by a task that does nothing else and never waits for the node, so that a
//! proxy's sends never meet a full queue for long; unless it sends more than any proxy has to say, and then it waits. What the node has no room for is dropped, before
//! it costs more than being read, and counted; if it was a batch, the proxy keeps it and sends it
//! again.

use std::{io, sync::Arc};

use outrider_model::MacAddr;
use outrider_wire::{
    Connections, Kind, Notification, WireError,
    ext::{BATCH, Batch, EVIDENCE},
};
use tokio::{
    net::UnixDatagram,
    time::{Instant, sleep},
};

use super::{
    activity::Activity,
    budget::Budget,
    channel::MAX_DATAGRAM,
    lines::{Account, Lines, Room},
    peer::{self, Gate},
};
use crate::counts::{Counts, Dropped, Received};

/// Datagrams of one batch. A proxy's largest has 16 384 rows, 1024 threats and 1024 sample flows,
/// which is 1239.
pub const MAX_BATCH: u16 = 2048;

/// What a datagram takes besides its length once it is read, however short it is.
pub const OVERHEAD: usize = 512;

/// One batch, or one notification outside of any.
#[derive(Debug)]
pub struct Report {
    /// The mailbox it came through: the only thing that says whose it is.
    pub uid: Arc<str>,
    /// Number of the batch, to be acknowledged once stored.
    pub batch: Option<BatchId>,
    /// What was told, in order.
    pub notes: Vec<Notification>,
    /// What it takes of the mailbox's share, given back when the report is done with.
    pub room: Option<Room>,
}

impl Report {
    /// Bytes of its datagrams.
    #[must_use]
    pub fn size(&self) -> usize {
        self.room.as_ref().map_or(0, Room::size)
    }
}

/// A batch's name.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct BatchId {
    /// The proxy's life.
    pub instance: u64,
    /// Counts within it.
    pub seq: u64,
}

impl BatchId {
    /// The form in which the store has it.
    #[must_use]
    pub fn to_bytes(self) -> Vec<u8> {
        [self.instance.to_be_bytes(), self.seq.to_be_bytes()].concat()
    }

    /// Reads that form.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (instance, seq) = bytes.split_first_chunk()?;
        let seq = seq.try_into().ok()?;
        Some(Self { instance: u64::from_be_bytes(*instance), seq: u64::from_be_bytes(seq) })
    }
}

/// Reads one mailbox's `ctrl_listen.sock` for as long as it is polled.
#[derive(Debug)]
pub struct Receiver {
    uid: Arc<str>,
    socket: UnixDatagram,
    activity: Arc<Activity>,
    gate: Gate,
    assembler: Assembler,
    lines: Lines,
    counts: Counts,
}

impl Receiver {
    /// A receiver for the mailbox `uid` of the workload with `mac`.
    #[must_use]
    pub fn new(
        (uid, mac): (Arc<str>, MacAddr),
        socket: UnixDatagram,
        (activity, gate): (Arc<Activity>, Gate),
        lines: Lines,
        counts: Counts,
    ) -> Self {
        let assembler = Assembler::new(mac, lines.account(), counts.clone());
        Self { uid, socket, activity, gate, assembler, lines, counts }
    }

    /// Reads until the socket fails, which it does not in practice.
    pub async fn run(mut self) -> io::Error {
        let mut buffer = vec![0; MAX_DATAGRAM + 1];
        let mut budget = Budget::new(Instant::now());
        loop {
            let (length, sender) = match peer::receive(&self.socket, &mut buffer).await {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return error,
            };
            self.counts.received(Received::Datagrams, 1);
            if let Some(pause) = budget.spend(length, Instant::now()) {
                // What is sent meanwhile fills the socket, and then whoever sends waits.
                self.counts.pauses.inc();
                sleep(pause).await;
            }
            if !self.gate.admits(sender) {
                continue;
            }
            self.activity.note();
            let datagram = buffer.get(..length).unwrap_or_default();
            if let Some(whole) = self.assembler.take(datagram) {
                self.hand_over(whole);
            }
        }
    }

    fn hand_over(&self, Whole { batch, notes, room }: Whole) {
        let report = Report { uid: Arc::clone(&self.uid), batch, notes, room: Some(room) };
        if let Err(why) = self.lines.put(report) {
            self.counts.dropped(why, 1);
        }
    }
}

/// Puts the datagrams of a batch together and refuses what is not this pod's to say.
#[derive(Debug)]
pub struct Assembler {
    mac: MacAddr,
    open: Option<Open>,
    account: Account,
    counts: Counts,
}

/// A batch of which datagrams are missing.
#[derive(Debug)]
struct Open {
    id: BatchId,
    missing: u16,
    notes: Vec<Notification>,
    /// `None` if the batch is refused: what is left of it is passed over.
    room: Option<Room>,
}

/// One batch, or one notification outside of any, and the room that it takes.
#[derive(Debug)]
pub struct Whole {
    batch: Option<BatchId>,
    notes: Vec<Notification>,
    room: Room,
}

impl Assembler {
    /// An assembler for the workload with `mac`, which may hold what `account` allows.
    #[must_use]
    pub fn new(mac: MacAddr, account: Account, counts: Counts) -> Self {
        Self { mac, open: None, account, counts }
    }

    /// Takes one datagram; gives a report when one is whole.
    pub fn take(&mut self, datagram: &[u8]) -> Option<Whole> {
        let kind = kind_of(datagram);
        let belongs = self.open.is_some() && is_batched(kind);
        if belongs && self.open.as_ref().is_some_and(|open| open.room.is_none()) {
            return self.count_down(None);
        }
        let (mut room, size) = (self.account.room(), datagram.len() + OVERHEAD);
        let grown = match self.open.as_mut().and_then(|open| open.room.as_mut()) {
            Some(held) if belongs => held.grow(size),
            _ => room.grow(size),
        };
        if let Err(why) = grown {
            self.counts.dropped(why, 1);
            if belongs {
                return self.refuse_batch();
            }
            // What is announced must be known for all of it to be passed over.
            if kind != BATCH {
                return None;
            }
        }
        let note = match Notification::decode_exact(datagram) {
            Ok(Notification::Batch(batch)) => {
                return self.begin(&batch, grown.is_ok().then_some(room));
            }
            Ok(note) => self.own(note),
            Err(error) => {
                self.refuse(&error);
                None
            }
        };
        if belongs {
            return self.count_down(note);
        }
        note.map(|note| Whole { batch: None, notes: vec![note], room })
    }

    fn begin(&mut self, batch: &Batch, room: Option<Room>) -> Option<Whole> {
        // One that was refused is counted as that.
        if self.open.take().is_some_and(|open| open.room.is_some()) {
            self.counts.dropped(Dropped::IncompleteBatch, 1);
        }
        let id = BatchId { instance: batch.instance.0, seq: batch.seq };
        let (missing, notes) = (batch.datagrams, Vec::new());
        if missing == 0 {
            return Some(Whole { batch: Some(id), notes, room: room? });
        }
        let fits = missing <= MAX_BATCH;
        if !fits {
            self.counts.dropped(Dropped::OversizeBatch, 1);
        }
        self.open = Some(Open { id, missing, notes, room: room.filter(|_| fits) });
        None
    }

    /// The node has no room for the open batch: it is dropped whole, since in part it could not be
    /// acknowledged, and comes again.
    fn refuse_batch(&mut self) -> Option<Whole> {
        if let Some(open) = &mut self.open {
            open.room = None;
            open.notes = Vec::new();
        }
        self.count_down(None)
    }

    /// One datagram of the open batch is here. One that cannot be used is counted and passed over:
    /// the batch is stored without it, since sent again it would be no better.
    fn count_down(&mut self, note: Option<Notification>) -> Option<Whole> {
        let open = self.open.as_mut()?;
        open.notes.extend(note);
        open.missing = open.missing.saturating_sub(1);
        if open.missing > 0 {
            return None;
        }
        let Open { id, notes, room, .. } = self.open.take()?;
        Some(Whole { batch: Some(id), notes, room: room? })
    }

    /// Leaves what concerns this pod, if anything.
    fn own(&self, note: Notification) -> Option<Notification> {
        match note {
            Notification::Connections(Connections { mut rows }) => {
                let all = rows.len();
                rows.retain(|row| row.epmac == self.mac);
                self.counts
                    .dropped(Dropped::ForeignMac, all.saturating_sub(rows.len()) as u64);
                Some(Notification::Connections(Connections { rows }))
            }
            Notification::ThreatLog(log) if log.epmac != self.mac => self.foreign(),
            Notification::AppUpdate(update) if update.mac != self.mac => self.foreign(),
            other => Some(other),
        }
    }

    fn foreign(&self) -> Option<Notification> {
        self.counts.dropped(Dropped::ForeignMac, 1);
        None
    }

    fn refuse(&self, error: &WireError) {
        self.counts.dropped(
            match error {
                WireError::UnknownKind(_) => Dropped::UnknownKind,
                WireError::WrongKind(_) => Dropped::WrongKind,
                _ => Dropped::Malformed,
            },
            1,
        );
        tracing::debug!(%error, reason = error.reason(), "a notification cannot be used");
    }
}

/// Kinds that a batch is made of.
fn is_batched(kind: Kind) -> bool {
    matches!(kind, Kind::THREAT_LOG | Kind::CONNECTION | EVIDENCE)
}

fn kind_of(datagram: &[u8]) -> Kind {
    Kind(datagram.first().copied().unwrap_or_default())
}

#[cfg(test)]
mod tests;
