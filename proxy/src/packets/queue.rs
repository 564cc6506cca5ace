//! The packet queue of the pod, and the kernel's memory of what was decided.

use outrider_capture::{
    CaptureError, Conntrack, Held, Queue, QueueCounters, QueueSettings, QueueVerdict,
};
use outrider_model::{Mode, names};
use outrider_relay::PolicyView;
use tokio::sync::mpsc::Receiver;
use tracing::{info, warn};

use super::questions::Answer;
use crate::settings::QueueRule;

/// The queue while it can be had, and tried for again while it can't.
#[derive(Debug)]
pub(crate) struct Gate {
    wanted: bool,
    rule: Option<QueueRule>,
    reader: Option<Reader>,
    /// Of the readers that are gone, and of the one that is there.
    counters: QueueCounters,
    before: QueueCounters,
    /// Verdicts that the kernel keeps are older than the policy.
    stale: bool,
    warned: bool,
}

#[derive(Debug)]
struct Reader {
    queue: Queue,
    held: Receiver<Held>,
    conntrack: Conntrack,
}

impl Gate {
    /// A gate that is opened if it is wanted.
    pub(crate) fn new(wanted: bool, rule: Option<QueueRule>) -> Self {
        Self {
            wanted,
            rule,
            reader: None,
            counters: QueueCounters::default(),
            before: QueueCounters::default(),
            stale: true,
            warned: false,
        }
    }

    /// Whether packets are decided about.
    pub(crate) fn is_there(&self) -> bool {
        self.reader.is_some()
    }

    /// Whether the pod's rules hold packets for us that we don't get.
    pub(crate) fn is_missed(&self) -> bool {
        self.wanted && self.rule == Some(QueueRule::Closed) && self.reader.is_none()
    }

    /// Takes the queue over if it is wanted and not ours. Verdicts of an earlier life are taken back.
    pub(crate) fn open(&mut self, view: &PolicyView) {
        if !self.wanted || self.reader.is_some() {
            return;
        }
        let settings =
            QueueSettings { number: names::QUEUE, open: is_open(view), ..QueueSettings::default() };
        let opened = Conntrack::open().and_then(|conntrack| {
            let (queue, held) = Queue::open(&settings)?;
            Ok(Reader { queue, held, conntrack })
        });
        match opened {
            Ok(reader) => {
                info!(queue = names::QUEUE, open = settings.open, "packets are decided about");
                self.reader = Some(reader);
                self.stale = true;
                self.warned = false;
                self.doubt(view);
                self.refresh();
            }
            Err(error) => self.failed(&error),
        }
    }

    /// What enforces must not be open when nobody is there.
    fn doubt(&self, view: &PolicyView) {
        if view.mode == Mode::Protect && self.rule == Some(QueueRule::Open) {
            warn!("in Protect, but the pod's queue rules let packets pass while no proxy runs");
        }
    }

    /// Waits for packets and takes those that wait; never ends without a queue. The kernel decides by its
    /// rule while nobody reads.
    pub(crate) async fn wait(&mut self, into: &mut Vec<Held>) {
        let Some(reader) = &mut self.reader else { return std::future::pending().await };
        if reader.held.recv_many(into, BATCH).await == 0 {
            warn!("the packet queue's reader is gone, it is opened again");
            self.before = self.counters();
            self.reader = None;
        }
    }

    /// The policy in force is another: what nobody decides about gets what its mode says, and verdicts
    /// that the kernel remembers are taken back.
    pub(crate) fn swap(&mut self, view: &PolicyView) {
        self.stale = true;
        self.doubt(view);
        if let Some(reader) = &self.reader
            && let Err(error) = reader.queue.set_open(is_open(view))
        {
            warn!(%error, "the packet queue keeps what it does with packets that nobody decides about");
        }
        self.refresh();
    }

    /// Takes back verdicts that are older than the policy; tried again until the kernel has done it.
    pub(crate) fn refresh(&mut self) {
        let Some(reader) = self.reader.as_ref().filter(|_| self.stale) else { return };
        match reader.conntrack.forget(names::VERDICT_MARK) {
            Ok(()) => self.stale = false,
            Err(error) => warn!(%error, "verdicts on packets are not taken back, trying again"),
        }
    }

    /// Whether the kernel remembers no verdict that is older than the policy.
    pub(crate) fn is_fresh(&self) -> bool {
        self.reader.is_none() || !self.stale
    }

    /// What became of packets, over all readers.
    pub(crate) fn counters(&mut self) -> QueueCounters {
        if let Some(reader) = &self.reader {
            self.counters = sum(self.before, reader.queue.counters());
        }
        self.counters
    }

    /// Said once; what goes on failing is tried again every second.
    fn failed(&mut self, error: &CaptureError) {
        if !std::mem::replace(&mut self.warned, true) {
            warn!(%error, reason = error.reason(), "packets are not decided about");
        }
    }
}

/// Tells the kernel. An allowed packet goes through the rules again with the mark that they keep for its
/// flow.
pub(crate) fn decide(held: Held, answer: Answer) {
    let mark = held.packet().mark;
    match answer {
        Answer::Allow => held.decide(QueueVerdict::Repeat, Some(mark | names::VERDICT_MARK)),
        Answer::Pass => held.decide(QueueVerdict::Accept, None),
        Answer::Drop => held.decide(QueueVerdict::Drop, None),
    }
}

/// Whether packets that nobody decides about pass: everywhere but in Protect, and not in quarantine.
fn is_open(view: &PolicyView) -> bool {
    view.mode != Mode::Protect && !view.quarantined
}

fn sum(before: QueueCounters, now: QueueCounters) -> QueueCounters {
    QueueCounters {
        received: before.received.saturating_add(now.received),
        decided: before.decided.saturating_add(now.decided),
        undecided: before.undecided.saturating_add(now.undecided),
        overflow: before.overflow.saturating_add(now.overflow),
        stalled: before.stalled.saturating_add(now.stalled),
        late: before.late.saturating_add(now.late),
        lost: before.lost.saturating_add(now.lost),
        refused: before.refused.saturating_add(now.refused),
        malformed: before.malformed.saturating_add(now.malformed),
        kernel: now.kernel,
    }
}

/// Packets that are decided about before frames are looked at again.
const BATCH: usize = 64;
