//! Findings leave the node as events: JSON lines, syslog, webhook.
//!
//! ```text
//!  node ─ changed records ─► Feed ─ limits ─► Spool ─ same transaction as the records ─► store
//!                                               │
//!                                               └─ what is stored ─► one task per sink
//! ```
//!
//! An event enters the spool in the transaction that stores the record it comes from, and a sink is
//! shown only what is stored: so a kill repeats events, under the same id, and loses none.

mod counts;
mod event;
mod feed;
mod file;
mod health;
mod limit;
mod rfc5424;
mod settings;
mod sink;
mod spool;
mod syslog;
mod webhook;

use std::sync::Arc;

use outrider_api::SinkStatus;
use outrider_learn::{Change as Learned, Record};
use outrider_telemetry::{MetricError, Registry};
use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use event::{End, Event, Kind};
pub use settings::{ExportSettings, HELP, Place, SyslogTarget, WebhookTarget};
pub use sink::Name;

pub(crate) use feed::host_name;
pub(crate) use settings::PREFIX;

use crate::store::{Change, Table};
use counts::ExportCounts;
use feed::Feed;
use health::Health;
use spool::Spool;

/// The node's part of the export, and each sink's.
#[derive(Clone, Debug)]
pub(crate) struct Export {
    feed: Arc<Mutex<Feed>>,
    shared: Shared,
}

/// What the sinks share with the node.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    spool: Arc<Mutex<Spool>>,
    counts: ExportCounts,
    health: Health,
    /// The number of the last event that is stored.
    stored: Arc<watch::Sender<u64>>,
}

impl Export {
    /// Registers the metrics; nothing is read and nothing sent yet.
    ///
    /// # Errors
    /// When a family's name is taken.
    pub(crate) fn new(settings: &ExportSettings, registry: &Registry) -> Result<Self, MetricError> {
        let counts = ExportCounts::register(registry)?;
        let spool = Spool::new(settings.spool, settings.sinks(), counts.clone());
        let shared = Shared {
            spool: Arc::new(Mutex::new(spool)),
            counts: counts.clone(),
            health: Health::default(),
            stored: Arc::new(watch::Sender::new(0)),
        };
        let feed = Feed::new(settings, counts);
        Ok(Self { feed: Arc::new(Mutex::new(feed)), shared })
    }

    /// Takes back a row of one of the export's tables; `false` if it makes no sense.
    pub(crate) fn take_back(&self, table: Table, key: &[u8], value: &[u8]) -> bool {
        match table {
            Table::Pending => self.feed.lock().take_back(key, value),
            Table::Events | Table::Cursors => self.shared.spool.lock().take_back(table, key, value),
            _ => false,
        }
    }

    /// Notes what a record of the learner stood for when it was stored.
    pub(crate) fn known_learned(&self, key: &[u8], record: &Record) {
        self.feed.lock().known_learned(key, record);
    }

    /// Notes what a threat stood for when it was stored.
    pub(crate) fn known_threat(&self, key: &[u8], value: &[u8]) {
        self.feed.lock().known_threat(key, value);
    }

    /// The store was read to its end.
    pub(crate) fn restored(&self) {
        let mut spool = self.shared.spool.lock();
        spool.restored();
        self.shared.stored.send_replace(spool.head());
    }

    /// What the changed records of a transaction say, as rows to be stored with them; and the
    /// number of the last event among them.
    pub(crate) fn take_changes(
        &self,
        learned: &[Learned],
        threats: &[Change],
    ) -> (Vec<Change>, u64) {
        let mut feed = self.feed.lock();
        let events = feed.read(learned, threats, Instant::now());
        let mut changes = feed.take_changes();
        drop(feed);
        let mut spool = self.shared.spool.lock();
        for event in events {
            spool.push(event);
        }
        changes.append(&mut spool.take_changes());
        (changes, spool.head())
    }

    /// Everything up to the event of this number is stored: sinks may have it.
    pub(crate) fn stored(&self, head: u64) {
        self.shared
            .stored
            .send_if_modified(|known| std::mem::replace(known, head) != head);
    }

    /// How each sink is; brings the gauges up to date with it.
    pub(crate) fn status(&self) -> Vec<SinkStatus> {
        let counts = &self.shared.counts;
        let spool = self.shared.spool.lock();
        let waiting: Vec<_> = spool.waiting(outrider_telemetry::unix_seconds()).collect();
        drop(spool);
        let status = |(sink, waiting, lag)| {
            let health = self.shared.health.of(sink);
            counts.measure(sink, (waiting, lag), &health);
            SinkStatus {
                sink: sink.label().into(),
                waiting,
                lag,
                sent: counts.all_sent(sink),
                retries: counts.all_retries(sink),
                dropped: counts.all_lost(sink),
                failures: health.failures.into(),
                last_error: health.last_error,
                last_error_at: health.last_error_at,
                last_sent_at: health.last_sent_at,
            }
        };
        waiting.into_iter().map(status).collect()
    }

    /// Starts a task for each sink.
    pub(crate) fn start(
        &self,
        settings: &ExportSettings,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) {
        for sink in sink::all(settings) {
            tasks.spawn(sink::run(sink, self.shared.clone(), stop.child_token()));
        }
    }
}

#[cfg(test)]
mod tests;
