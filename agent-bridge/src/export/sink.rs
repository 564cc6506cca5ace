//! One task per sink: takes what is stored, delivers it, tries again with growing pauses.

use std::{io, time::Duration};

use thiserror::Error;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    ExportSettings, Shared, counts::Lost, file::File, spool::Entry, syslog::Syslog,
    webhook::Webhook,
};
use crate::{
    connect::ConnectError,
    pause::{LONGEST, pause, random},
};

/// Most events of one delivery.
pub(super) const MAX_BATCH: usize = 500;
/// About the most bytes of one delivery.
const MAX_BATCH_BYTES: usize = 1 << 20;
/// Longest time that one delivery may take; a receiver that stalls is left then.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// A sink that goes on failing is logged about this often.
const LOG_EVERY: Duration = Duration::from_secs(300);

/// A kind of sink; there is at most one of each.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Name {
    /// JSON lines.
    File,
    /// RFC 5424.
    Syslog,
    /// HTTP POST.
    Webhook,
}

impl Name {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::File, Self::Syslog, Self::Webhook];

    /// The closed label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Syslog => "syslog",
            Self::Webhook => "webhook",
        }
    }
}

/// Why a batch was not delivered.
#[derive(Debug, Error)]
pub(super) enum Failure {
    /// The system says so.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The receiver closed the connection before it was known to have everything.
    #[error("the receiver closed the connection")]
    Closed,
    /// The receiver took too long.
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Stalled,
    /// A file that a setting names cannot be used.
    #[error("{file}: {reason}")]
    Setting {
        /// Which.
        file: String,
        /// Why.
        reason: String,
    },
    /// Not HTTP.
    #[error(transparent)]
    Http(#[from] hyper::Error),
    /// An answer that is no success.
    #[error("the receiver answered {0}")]
    Status(u16),
    /// The receiver will not take this batch, however often it is sent.
    #[error("the receiver refuses the batch: {0}")]
    Refused(u16),
}

/// Where events go.
#[derive(Debug)]
pub(super) enum Sink {
    /// A file or standard output.
    File(File),
    /// A syslog receiver.
    Syslog(Syslog),
    /// An HTTP receiver.
    Webhook(Webhook),
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Io(error) => Self::Io(error),
            ConnectError::Setting { file, reason } => Self::Setting { file, reason },
        }
    }
}

impl Sink {
    fn name(&self) -> Name {
        match self {
            Self::File(_) => Name::File,
            Self::Syslog(_) => Name::Syslog,
            Self::Webhook(_) => Name::Webhook,
        }
    }

    /// Delivers all of a batch; after a failure nothing is known of any of it.
    ///
    /// Dropped while it waits, it may have delivered some; the batch comes again then.
    async fn deliver(&mut self, batch: Vec<Entry>) -> Result<(), Failure> {
        match self {
            Self::File(file) => file.deliver(batch).await,
            Self::Syslog(syslog) => syslog.deliver(&batch).await,
            Self::Webhook(webhook) => webhook.deliver(&batch).await,
        }
    }
}

/// The sinks that the settings ask for.
pub(super) fn all(settings: &ExportSettings) -> Vec<Sink> {
    let mut sinks = Vec::new();
    if let Some(place) = &settings.file {
        sinks.push(Sink::File(File::new(place.clone(), settings.file_size)));
    }
    if let Some(target) = &settings.syslog {
        sinks.push(Sink::Syslog(Syslog::new(target.clone(), settings.ca.clone())));
    }
    if let Some(target) = &settings.webhook {
        let secret = settings.webhook_secret.clone();
        sinks.push(Sink::Webhook(Webhook::new(target.clone(), secret, settings.ca.clone())));
    }
    sinks
}

/// Delivers until `stop`; what is not delivered then waits in the store.
pub(super) async fn run(sink: Sink, shared: Shared, stop: CancellationToken) {
    let name = sink.name();
    let courier = Courier { sink, shared, most: MAX_BATCH, failures: 0, logged: None };
    tracing::info!(sink = name.label(), "events are exported");
    stop.run_until_cancelled_owned(Box::pin(courier.run()))
        .await;
}

struct Courier {
    sink: Sink,
    shared: Shared,
    /// Events per delivery: less after a refusal, to find the one that is refused.
    most: usize,
    failures: u32,
    logged: Option<Instant>,
}

impl Courier {
    async fn run(mut self) {
        let mut stored = self.shared.stored.subscribe();
        loop {
            let head = *stored.borrow_and_update();
            let batch = self.next(head);
            let Some(last) = batch.last().map(|entry| entry.number) else {
                if stored.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let events = batch.len();
            let delivered = timeout(PATIENCE, self.sink.deliver(batch)).await;
            match delivered.unwrap_or(Err(Failure::Stalled)) {
                Ok(()) => self.succeeded(last),
                Err(Failure::Refused(status)) => self.refused(events, last, status).await,
                Err(failure) => self.failed(&failure).await,
            }
        }
    }

    fn next(&self, head: u64) -> Vec<Entry> {
        let spool = self.shared.spool.lock();
        spool.next(self.sink.name(), head, self.most, MAX_BATCH_BYTES)
    }

    fn succeeded(&mut self, last: u64) {
        let name = self.sink.name();
        let sent = self.shared.spool.lock().done_with(name, last);
        self.shared.counts.sent(name, sent);
        self.shared.health.works(name);
        self.most = self.most.saturating_mul(2).min(MAX_BATCH);
        if self.failures > 0 {
            tracing::info!(sink = name.label(), failures = self.failures, "the sink works again");
        }
        (self.failures, self.logged) = (0, None);
    }

    /// Halves the batch until it is known which event is refused; that one is dropped.
    async fn refused(&mut self, events: usize, last: u64, status: u16) {
        let name = self.sink.name();
        if events > 1 {
            self.most = events / 2;
            self.shared.counts.retry(name);
            return sleep(pause(1, LONGEST, random())).await;
        }
        let lost = self.shared.spool.lock().done_with(name, last);
        self.shared.counts.lost(name, Lost::Refused, lost);
        self.shared.health.fails(name, &Failure::Refused(status));
        tracing::warn!(sink = name.label(), status, "an event is refused and dropped");
    }

    async fn failed(&mut self, failure: &Failure) {
        let name = self.sink.name();
        self.shared.counts.retry(name);
        self.shared.health.fails(name, failure);
        self.failures = self.failures.saturating_add(1);
        let now = Instant::now();
        if self
            .logged
            .is_none_or(|at| now.duration_since(at) >= LOG_EVERY)
        {
            self.logged = Some(now);
            tracing::warn!(
                sink = name.label(), error = %failure, failures = self.failures,
                "events cannot be delivered; they wait and are tried again"
            );
        }
        sleep(pause(self.failures, LONGEST, random())).await;
    }
}
