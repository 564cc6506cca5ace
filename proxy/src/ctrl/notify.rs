//! What goes to the bridge without being asked for: on every tick what is due, never waiting.

use std::{path::PathBuf, time::Duration};

use outrider_telemetry::{Row, RowKey, Telemetry, unix_seconds};
use outrider_wire::{
    Body as _, Connections, Notification, WireError,
    ext::{Batch, Evidence, Hello, Instance, SampleFlow},
};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::{
    CtrlMetrics,
    link::{Link, Sent},
    metrics::Loss,
    outbox::{Datagram, Outbox},
    report::{self, Rows},
    state::State,
};
use crate::dns::Names;

/// Everything that is on its way, and when more is due.
#[derive(Debug)]
pub(crate) struct Notifier {
    telemetry: Telemetry,
    metrics: CtrlMetrics,
    outbox: Outbox,
    link: Link,
    acks: bool,
    /// Since when a hello is waited for.
    held: Option<Instant>,
    ticks: u64,
    rows_due: bool,
}

impl Notifier {
    /// A notifier towards the socket at `path`.
    #[must_use]
    pub(crate) fn new(
        path: PathBuf,
        instance: Instance,
        telemetry: Telemetry,
        metrics: CtrlMetrics,
    ) -> Self {
        Self {
            telemetry,
            metrics,
            outbox: Outbox::new(instance.0, announce),
            link: Link::new(path),
            acks: false,
            held: None,
            ticks: 0,
            rows_due: false,
        }
    }

    /// Hands in what is due: threats and changed applications each time, rows each third time.
    pub(crate) fn tick(&mut self, state: &State, now: Instant) {
        self.rows_due |= self.ticks.is_multiple_of(TICKS_A_ROW_REPORT);
        self.ticks = self.ticks.wrapping_add(1);
        if self
            .held
            .is_some_and(|since| now.duration_since(since) >= HELLO_PATIENCE)
        {
            info!("nobody says hello: reports go out plainly");
            self.takeover();
        }
        if self.outbox.repeat_overdue(now) {
            warn!("no acknowledgement came, the batch goes out again");
            self.metrics.batch_repeated();
        }
        if state.reports() && self.link.connect() {
            if self.telemetry.apps().lock().take_changed() {
                self.put_apps(state);
            }
            self.put_wave(state);
        }
        self.pump(now);
    }

    /// Nobody is waited for any more.
    pub(crate) fn end_hold(&mut self) {
        if self.held.take().is_some() {
            self.outbox.hello(self.acks);
        }
    }

    /// Hands in the rows as well, due or not.
    pub(crate) fn report_now(&mut self, state: &State, now: Instant) {
        self.rows_due = true;
        if self.link.connect() {
            self.put_wave(state);
        }
        self.pump(now);
    }

    /// Hands in the table of listening ports, changed or not; an empty one is not sent.
    pub(crate) fn put_apps(&mut self, state: &State) {
        let update = report::app_update(state.epmac(), self.telemetry.apps().lock().iter());
        if update.ports.is_empty() {
            return;
        }
        self.put_notice(update.encode());
    }

    /// Hands in what became of names, as much as there is room for; the rest stays where it is.
    pub(crate) fn put_names(&mut self, names: &Names, state: &State) {
        if !state.reports() || !self.link.connect() {
            return;
        }
        let network = state.network();
        let room = self.outbox.notice_room();
        for notice in names.take_notices(room, |peer| report::is_external(network, peer)) {
            for notification in report::name_notices(notice) {
                self.put_notice(notification.encode());
            }
        }
    }

    fn put_notice(&mut self, encoded: Result<Datagram, WireError>) {
        match encoded.map(|datagram| self.outbox.put_notice(datagram)) {
            Ok(true) => {}
            Ok(false) => self.metrics.lost(Loss::NoticeOverflow, 1),
            Err(error) => self.unwritable(&error),
        }
    }

    /// Hands in threats and, if they are due, rows; not while an earlier wave is under way.
    fn put_wave(&mut self, state: &State) {
        if !self.outbox.takes_wave() {
            return;
        }
        let mut wave = Vec::new();
        let (threats, dropped) = self.telemetry.threats().lock().take(unix_seconds());
        self.telemetry.metrics().threats_dropped().inc_by(dropped);
        for threat in &threats {
            self.push(&mut wave, &report::threat_log(threat, state.epmac()).into());
        }
        if self.rows_due {
            let mut rows = self.take_rows();
            // Others learn from each row that application and session are sure.
            rows.retain(|(_, row)| self.acks || !row.is_announcement());
            self.push_rows(&mut wave, state, &rows);
        }
        self.outbox.put_wave(wave);
    }

    /// Takes rows for one wave, the weightiest first; the others go back to their table.
    fn take_rows(&mut self) -> Vec<(RowKey, Row)> {
        let mut rows = self.telemetry.rows().lock().take();
        self.rows_due = rows.len() > MAX_WAVE_ROWS;
        if self.rows_due {
            report::sort_by_weight(&mut rows);
            let mut table = self.telemetry.rows().lock();
            for (key, row) in rows.drain(MAX_WAVE_ROWS..) {
                let sessions = row.sessions.into();
                if !table.merge(key, row) {
                    self.telemetry.metrics().rows_dropped().inc();
                    self.telemetry.metrics().sessions_dropped().inc_by(sessions);
                }
            }
        }
        rows
    }

    fn push_rows(&self, wave: &mut Vec<Datagram>, state: &State, rows: &[(RowKey, Row)]) {
        let stats = self.telemetry.stats().lock().snapshot();
        let network = state.network();
        let context = Rows { epmac: state.epmac(), stats: &stats, network };
        for datagram in Connections::split(&context.connections(rows)) {
            self.push(wave, &datagram.into());
        }
        if !self.acks {
            return;
        }
        let samples = rows
            .iter()
            .filter(|(_, row)| row.sessions > 0 || row.violations > 0);
        let flows: Vec<_> = samples.take(MAX_WAVE_EVIDENCE).map(sample).collect();
        match Evidence::split(&flows) {
            Ok(parts) => parts
                .into_iter()
                .for_each(|part| self.push(wave, &part.into())),
            Err(error) => self.unwritable(&error),
        }
    }

    fn push(&self, wave: &mut Vec<Datagram>, notification: &Notification) {
        match notification.encode() {
            Ok(datagram) => wave.push(datagram),
            Err(error) => self.unwritable(&error),
        }
    }

    fn unwritable(&self, error: &WireError) {
        warn!(%error, "a notification cannot be written");
        self.metrics.lost(Loss::Encoding, 1);
    }

    /// Sends what the receiver takes now.
    pub(crate) fn pump(&mut self, now: Instant) {
        for _ in 0..SENDS_A_TURN {
            let Some(front) = self.outbox.front() else { return };
            match self.link.try_send(front) {
                Sent::Yes => {
                    self.metrics.notified();
                    self.outbox.sent(now);
                }
                Sent::Full => return,
                Sent::NoReceiver => return self.outbox.receiver_lost(),
            }
        }
    }

    /// Waits until there is something to send and somebody to take it. Cancel safe.
    pub(crate) async fn writable(&self) {
        if self.outbox.front().is_none() {
            std::future::pending::<()>().await;
        }
        self.link.writable().await;
    }

    /// Our bridge is there, perhaps a new one: its socket is looked up anew, rows are due.
    pub(crate) fn hello(&mut self, hello: Hello) {
        debug!(version = hello.version, acks = hello.acks, "bridge says hello");
        self.acks = hello.acks;
        self.held = None;
        self.link.disconnect();
        self.outbox.hello(hello.acks);
        self.rows_due = true;
    }

    /// Somebody else than before is there, or may be: a bridge that is back, or an agent that acknowledges
    /// nothing. What it is told waits for its hello, for a while.
    pub(crate) fn hold(&mut self, now: Instant) {
        self.held = Some(now);
        self.outbox.hold();
    }

    /// An agent that acknowledges nothing is there.
    pub(crate) fn takeover(&mut self) {
        self.acks = false;
        self.held = None;
        self.outbox.hello(false);
    }

    /// A batch is stored.
    pub(crate) fn acknowledge(&mut self, instance: Instance, seq: u64) {
        if self.outbox.acknowledge(instance.0, seq) {
            self.metrics.batch_acknowledged();
        } else {
            debug!(%instance, seq, "acknowledged a batch that is not in flight");
        }
    }

    /// Whether somebody receives, as far as is known.
    #[must_use]
    pub(crate) fn is_connected(&self) -> bool {
        self.link.is_connected()
    }

    /// Whether everything handed in is safe.
    #[must_use]
    pub(crate) fn is_settled(&self) -> bool {
        self.outbox.is_settled()
    }
}

fn sample((key, row): &(RowKey, Row)) -> SampleFlow {
    SampleFlow {
        client: row.sample,
        server: (key.server, key.port).into(),
        proto: key.proto,
        inbound: key.direction == outrider_model::Direction::Inbound,
        app: key.app,
        rule: key.rule,
        action: row.action.into(),
        host: row.names.host.as_deref().unwrap_or_default().to_owned(),
        sni: row.names.sni.as_deref().unwrap_or_default().to_owned(),
        bytes_client: row.bytes_client,
        bytes_server: row.bytes_server,
        at: row.first_seen,
    }
}

fn announce(instance: u64, seq: u64, datagrams: u16) -> Datagram {
    let batch = Batch { instance: Instance(instance), seq, datagrams };
    batch.encode().unwrap_or_default()
}

/// How long a hello is waited for before reports go out plainly.
const HELLO_PATIENCE: Duration = Duration::from_secs(10);
/// Rows go out on the first tick and every third one after it.
const TICKS_A_ROW_REPORT: u64 = 3;
/// Rows of one wave: 1.6 MB of datagrams.
pub(crate) const MAX_WAVE_ROWS: usize = 16_384;
/// Sample flows of one wave.
pub(crate) const MAX_WAVE_EVIDENCE: usize = 1024;
/// Datagrams sent before requests are looked at again.
const SENDS_A_TURN: usize = 256;
