//! Group commit: what all mailboxes changed goes to the store in one transaction, at most every
//! 200 ms, and only then are their batches acknowledged.
//!
//! A transaction that fails loses nothing: its changes are kept and tried again, and newer ones wait
//! where they were made, where everything has a bound. Until it succeeds no proxy is told that anything is safe.

use std::{borrow::Cow, sync::Arc, time::Duration};

use outrider_learn::{Change as Learned, Group, Record};
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{Node, State, Unacked, events::Body, learned, policy::PORTION};
use crate::{
    counts::Dropped,
    export::Export,
    mailbox::{
        lines::Lines,
        link::Command,
        receive::{BatchId, Report},
    },
    store::{Change, Store, StoreError, Table},
};

/// Least time between the ends of two transactions. One that took longer is given as long again: the
/// busier the node, the more goes into one, and half of the time is left to others.
const COMMIT_EVERY: Duration = Duration::from_millis(200);
/// Longest time between the end of a transaction and the next, well below a proxy's patience.
const MAX_PAUSE: Duration = Duration::from_secs(2);
/// Bytes of reports taken between two looks at the clock: about 10 000 rows.
const MAX_BURST: usize = 1 << 20;

/// Takes reports in, writes changes out.
#[derive(Debug)]
pub struct Committer {
    node: Arc<Node>,
    store: Option<Store>,
    lines: Lines,
    /// To be stored next. As long as that fails nothing is added: what changes meanwhile stays where it is.
    pending: Pending,
    unacked: Unacked,
    version: u64,
    stored_version: u64,
    /// The last event among what was collected.
    head: u64,
    in_flight: Option<JoinHandle<Written>>,
    /// When the last transaction began, and how long the next one has to wait.
    began: Instant,
    due: Instant,
    /// Somebody waits for the next one.
    urgent: bool,
}

/// What comes back from the writing thread.
type Written = (Store, Pending, Result<(), StoreError>);

/// What one transaction is to write.
#[derive(Debug, Default)]
struct Pending {
    changes: Vec<Change>,
    /// Written out one by one: all of it at once takes as much memory again.
    learned: Vec<Learned>,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.learned.is_empty()
    }

    fn write(&mut self, store: &mut Store) -> Result<(), StoreError> {
        // Neighbours in the file are written together.
        self.learned
            .sort_unstable_by(|one, other| one.key.cmp(&other.key));
        let changes = self.changes.iter().map(Cow::Borrowed);
        let learned = self.learned.iter().map(|change| Cow::Owned(row(change)));
        store.commit(changes.chain(learned))
    }
}

impl Committer {
    /// Writes to `store` what `node` makes of the reports in `lines`.
    #[must_use]
    pub fn new(node: Arc<Node>, store: Store, lines: Lines) -> Self {
        let now = Instant::now();
        Self {
            node,
            store: Some(store),
            lines,
            pending: Pending::default(),
            unacked: Unacked::new(),
            version: 0,
            stored_version: 0,
            head: 0,
            in_flight: None,
            began: now,
            due: now,
            urgent: false,
        }
    }

    /// Runs until `stop`, then writes what is left.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut ticker = interval(COMMIT_EVERY);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (node, lines) = (Arc::clone(&self.node), self.lines.clone());
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                written = finished(&mut self.in_flight) => self.after(written),
                _ = ticker.tick() => self.tick(),
                () = node.wake.notified() => {
                    self.urgent = true;
                    self.begin();
                }
                report = lines.take() => match report {
                    Some(first) => enter(&node, &lines, first),
                    None => break,
                },
            }
        }
        self.finish().await;
    }

    fn tick(&mut self) {
        let now = Instant::now();
        let mut state = self.node.state.lock();
        state.learner.make_room();
        if state.policy_due.is_some_and(|due| due <= now) {
            state.publish_some(PORTION);
        }
        state.tell_held(now, &self.node.counts);
        drop(state);
        if self.urgent || now >= self.due {
            self.begin();
        }
    }

    /// Starts a transaction, if there is something to write and none under way.
    fn begin(&mut self) {
        if self.in_flight.is_some() {
            return;
        }
        self.began = Instant::now();
        self.urgent = false;
        if self.pending.is_empty() {
            self.collect();
        }
        let Some(mut store) = self.store.take() else { return };
        if self.pending.is_empty() {
            self.store = Some(store);
            self.stored();
            return;
        }
        let mut pending = std::mem::take(&mut self.pending);
        let took = self.node.counts.commit_time.clone();
        self.in_flight = Some(spawn_blocking(move || {
            let began = Instant::now();
            let result = pending.write(&mut store);
            took.observe(began.elapsed());
            (store, pending, result)
        }));
    }

    /// Takes over what changed in the state since the last look; what was learned is not yet written
    /// out, which takes longer than anybody should have to wait for the state.
    fn collect(&mut self) {
        let mut state = self.node.state.lock();
        self.version = state.version;
        for (uid, batches) in std::mem::take(&mut state.unacked) {
            self.unacked.entry(uid).or_default().extend(batches);
        }
        let (learned, changes, head) = state.take_changes(&self.node.export);
        drop(state);
        self.head = head;
        self.pending = Pending { changes, learned };
    }

    fn after(&mut self, (store, pending, result): Written) {
        self.store = Some(store);
        let now = Instant::now();
        self.due = now + (now - self.began).min(MAX_PAUSE);
        match result {
            Ok(()) => {
                self.node.counts.commits.inc();
                self.stored();
            }
            Err(error) => {
                self.node.counts.commit_failures.inc();
                tracing::error!(%error, "the store cannot be written; nothing is acknowledged");
                self.node.store.lock().failing = Some(error.to_string());
                self.pending = pending;
            }
        }
    }

    /// Everything collected is on disk.
    fn stored(&mut self) {
        if self.stored_version != self.version {
            self.stored_version = self.version;
            self.node.committed.send_replace(self.version);
        }
        self.node.export.stored(self.head);
        let mut status = self.node.store.lock();
        status.failing = None;
        status.commits = self.node.counts.commits.get();
        drop(status);
        if self.unacked.is_empty() {
            return;
        }
        let state = self.node.state.lock();
        for (uid, batches) in std::mem::take(&mut self.unacked) {
            let link = state.links.get(&uid);
            for batch in batches {
                let sent = link.map(|link| link.commands.try_send(Command::Ack(batch)));
                if !matches!(sent, Some(Ok(()))) {
                    self.node.counts.dropped(Dropped::AckNotSent, 1);
                }
            }
        }
    }

    /// Takes in what waits and writes it.
    async fn finish(mut self) {
        self.lines.close();
        while let Some(report) = self.lines.try_take() {
            self.node.enter(&report);
        }
        if let Some(under_way) = self.in_flight.take() {
            match under_way.await {
                Ok(written) => self.after(written),
                Err(error) => return tracing::error!(%error, "the last transaction was lost"),
            }
        }
        self.begin();
        if let Some(last) = self.in_flight.take()
            && let Ok(written) = last.await
        {
            self.after(written);
        }
    }
}

/// Enters a report and what waits behind it, up to a burst.
fn enter(node: &Node, lines: &Lines, first: Report) {
    let mut size = 0_usize;
    let mut next = Some(first);
    while let Some(report) = next {
        node.enter(&report);
        size = size.saturating_add(report.size());
        next = if size < MAX_BURST { lines.try_take() } else { None };
    }
}

/// The end of the transaction under way; never, if there is none.
async fn finished(in_flight: &mut Option<JoinHandle<Written>>) -> Written {
    let Some(under_way) = in_flight.as_mut() else { return std::future::pending().await };
    let written = under_way.await;
    *in_flight = None;
    match written {
        Ok(written) => written,
        Err(error) => std::panic::resume_unwind(Box::new(error)),
    }
}

impl State {
    /// What changed since the last call: what was learned, the rest as rows of the store, and the
    /// last event among them.
    fn take_changes(&mut self, export: &Export) -> (Vec<Learned>, Vec<Change>, u64) {
        let learned = self.learner.take_changes();
        for change in &learned {
            if let Some(Record::Violation(known)) = &change.record {
                self.events
                    .publish(Body::Violation(learned::violation(known)));
            }
        }
        let mut changes = self.threats.take_changes();
        let (mut events, head) = export.take_changes(&learned, &changes);
        changes.append(&mut events);
        for group in std::mem::take(&mut self.unsaved_modes) {
            let value = self
                .modes
                .get(&group)
                .map(|mode| mode.name().as_bytes().to_vec());
            let key = group.name().as_bytes().to_vec();
            changes.push(Change { table: Table::Modes, key, value });
        }
        for uid in std::mem::take(&mut self.unsaved_batches) {
            let value = self.batches.get(&uid).map(|batch| batch.to_bytes());
            changes.push(Change { table: Table::Batches, key: uid.into_bytes(), value });
        }
        self.take_pods(&mut changes);
        self.cluster.kept.take_changes(&mut changes);
        self.numbers.take_changes(&mut changes);
        changes.append(&mut self.rebuilt.take_changes());
        (learned, changes, head)
    }

    /// Takes back a row of the store; `false` if it makes no sense.
    pub(super) fn take_back(
        &mut self,
        table: Table,
        key: &[u8],
        value: &[u8],
        export: &Export,
    ) -> bool {
        match table {
            Table::Meta => true,
            Table::Learned => serde_json::from_slice(value).is_ok_and(|record: Record| {
                export.known_learned(key, &record);
                self.learner.restore(record)
            }),
            Table::Threats => {
                export.known_threat(key, value);
                self.threats.restore(key, value)
            }
            Table::Events | Table::Cursors | Table::Pending => export.take_back(table, key, value),
            Table::Modes => {
                let read = |bytes| std::str::from_utf8(bytes).ok();
                let mode = read(value).and_then(|mode| mode.parse().ok());
                let Some((group, mode)) = read(key).zip(mode) else { return false };
                let group = Group::named(group);
                self.learner.set_mode(group.clone(), mode);
                self.modes.insert(group, mode);
                true
            }
            Table::Cluster => match self.numbers.take_back(key, value) {
                Some(is_known) => is_known,
                None => self.cluster.take_back(key, value, &mut self.learner),
            },
            Table::Pods => self.take_back_pod(key, value),
            Table::Asked => self.rebuilt.take_back(key, value),
            Table::Batches => {
                let uid = std::str::from_utf8(key).ok();
                let found = uid.zip(BatchId::from_bytes(value));
                found
                    .map(|(uid, batch)| self.batches.insert(uid.to_owned(), batch))
                    .is_some()
            }
        }
    }
}

/// A record of the learner as a row of the store.
fn row(change: &Learned) -> Change {
    let value = change
        .record
        .as_ref()
        .and_then(|record| serde_json::to_vec(record).ok());
    Change { table: Table::Learned, key: change.key.clone().into_bytes(), value }
}

#[cfg(test)]
mod tests;
