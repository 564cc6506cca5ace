//! What one proxy tells without being asked: datagrams in, whole reports out.
//!
//! The socket is read by a task that does nothing else and never waits for the node, so that a
//! proxy's sends never meet a full queue for long. A report that the node has no room for is
//! dropped and counted; if it was a batch, the proxy keeps it and sends it again.

use std::{io, sync::Arc};

use outrider_model::MacAddr;
use outrider_wire::{
    Connections, Kind, Notification, WireError,
    ext::{Batch, EVIDENCE},
};
use tokio::{
    net::UnixDatagram,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, mpsc::error::TrySendError},
};

use super::{
    activity::Activity,
    channel::MAX_DATAGRAM,
    peer::{self, Gate},
};
use crate::counts::{Counts, Dropped, Received};

/// Reports of one mailbox that may wait for the node: one pod can't take the others' room.
pub const MAX_WAITING: usize = 8;
/// Datagrams of one batch. A proxy's largest is a few hundred.
pub const MAX_BATCH: u16 = 1024;

/// One batch, or one notification outside of any.
#[derive(Debug)]
pub struct Report {
    /// The mailbox it came through: the only thing that says whose it is.
    pub uid: Arc<str>,
    /// Number of the batch, to be acknowledged once stored.
    pub batch: Option<BatchId>,
    /// What was told, in order.
    pub notes: Vec<Notification>,
    /// The mailbox's share of the node's queue, given back when the report is done with.
    pub room: Option<OwnedSemaphorePermit>,
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
    room: Arc<Semaphore>,
    node: mpsc::Sender<Report>,
    counts: Counts,
}

impl Receiver {
    /// A receiver for the mailbox `uid` of the workload with `mac`.
    #[must_use]
    pub fn new(
        (uid, mac): (Arc<str>, MacAddr),
        socket: UnixDatagram,
        (activity, gate): (Arc<Activity>, Gate),
        node: mpsc::Sender<Report>,
        counts: Counts,
    ) -> Self {
        let assembler = Assembler::new(mac, counts.clone());
        let room = Arc::new(Semaphore::new(MAX_WAITING));
        Self { uid, socket, activity, gate, assembler, room, node, counts }
    }

    /// Reads until the socket fails, which it does not in practice.
    pub async fn run(mut self) -> io::Error {
        let mut buffer = vec![0; MAX_DATAGRAM + 1];
        loop {
            let (length, sender) = match peer::receive(&self.socket, &mut buffer).await {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return error,
            };
            self.counts.received(Received::Datagrams, 1);
            if !self.gate.admits(sender) {
                continue;
            }
            self.activity.note();
            let datagram = buffer.get(..length).unwrap_or_default();
            if let Some((batch, notes)) = self.assembler.take(datagram) {
                self.hand_over(batch, notes);
            }
        }
    }

    fn hand_over(&self, batch: Option<BatchId>, notes: Vec<Notification>) {
        let Ok(room) = Arc::clone(&self.room).try_acquire_owned() else {
            self.counts.dropped(Dropped::MailboxFull, 1);
            return;
        };
        let report = Report { uid: Arc::clone(&self.uid), batch, notes, room: Some(room) };
        match self.node.try_send(report) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => self.counts.dropped(Dropped::NodeFull, 1),
            Err(TrySendError::Closed(_)) => self.counts.dropped(Dropped::Stopping, 1),
        }
    }
}

/// Puts the datagrams of a batch together and refuses what is not this pod's to say.
#[derive(Debug)]
pub struct Assembler {
    mac: MacAddr,
    open: Option<Open>,
    counts: Counts,
}

/// A batch of which datagrams are missing.
#[derive(Debug)]
struct Open {
    id: BatchId,
    missing: u16,
    notes: Vec<Notification>,
}

type Whole = (Option<BatchId>, Vec<Notification>);

impl Assembler {
    /// An assembler for the workload with `mac`.
    #[must_use]
    pub fn new(mac: MacAddr, counts: Counts) -> Self {
        Self { mac, open: None, counts }
    }

    /// Takes one datagram; gives a report when one is whole.
    pub fn take(&mut self, datagram: &[u8]) -> Option<Whole> {
        let note = match Notification::decode_exact(datagram) {
            Ok(note) => note,
            Err(error) => {
                self.refuse(&error);
                return self.count_down(kind_of(datagram), None);
            }
        };
        if let Notification::Batch(batch) = note {
            return self.begin(&batch);
        }
        let kind = note.kind();
        let note = self.own(note);
        if self.open.is_some() && is_batched(kind) {
            self.count_down(kind, note)
        } else {
            note.map(|note| (None, vec![note]))
        }
    }

    fn begin(&mut self, batch: &Batch) -> Option<Whole> {
        if self.open.take().is_some() {
            self.counts.dropped(Dropped::IncompleteBatch, 1);
        }
        let id = BatchId { instance: batch.instance.0, seq: batch.seq };
        match batch.datagrams {
            0 => Some((Some(id), Vec::new())),
            missing @ 1..=MAX_BATCH => {
                self.open = Some(Open { id, missing, notes: Vec::new() });
                None
            }
            _ => {
                self.counts.dropped(Dropped::OversizeBatch, 1);
                None
            }
        }
    }

    /// One datagram of the open batch is here. One that cannot be used is counted and passed over:
    /// the batch is stored without it, since sent again it would be no better.
    fn count_down(&mut self, kind: Kind, note: Option<Notification>) -> Option<Whole> {
        let open = self.open.as_mut().filter(|_| is_batched(kind))?;
        open.notes.extend(note);
        open.missing = open.missing.saturating_sub(1);
        if open.missing > 0 {
            return None;
        }
        let done = self.open.take()?;
        Some((Some(done.id), done.notes))
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
