//! The bridge as a client of a NeuVector controller: what proxies report is summed by key and told
//! to `share.ControllerAgentService`, over mutual TLS.
//!
//! ```text
//!  node ─ rows ─► Table ─ at most 8192, once they are stored ─► ReportConnections
//!                   ▲                                                │
//!                   └── refused or asked for again ◄────────────────┤
//!                        the same rows again, unchanged ◄── no answer ┘
//! ```

mod counts;
mod courier;
mod host;
mod row;
mod settings;
mod table;

use std::{net::IpAddr, sync::Arc};

use outrider_api::ControllerStatus;
use outrider_learn::{Directory, Row};
use outrider_telemetry::{MetricError, Registry};
use outrider_wire::Connection;
use parking_lot::Mutex;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use settings::{ControllerSettings, HELP};

use crate::{grpc::tls::Certificates, mailbox::watch::Workload, node::Node};
use counts::ControllerCounts;
use courier::Courier;
use table::Table;

/// The node's part, and that of the task that reports. Does nothing if there is no controller.
#[derive(Clone, Debug)]
pub(crate) struct Controller(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    settings: ControllerSettings,
    /// Addresses of this node.
    own: Vec<IpAddr>,
    table: Mutex<Table>,
    told: Mutex<Told>,
    counts: ControllerCounts,
}

/// What people are told.
#[derive(Clone, Debug)]
struct Told {
    state: State,
    /// Why it is not admitted.
    reason: Option<String>,
    /// Seconds between two reports.
    interval: u64,
    /// Unix seconds.
    last_report: Option<u64>,
}

/// How it stands with the controller.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Connecting,
    Admitted,
    Refused,
    Failing,
}

impl State {
    fn label(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Admitted => "admitted",
            Self::Refused => "refused",
            Self::Failing => "failing",
        }
    }
}

impl Controller {
    /// Registers the metrics, if there is a controller; nothing is sent yet. `hosts` are addresses
    /// of nodes.
    ///
    /// # Errors
    /// When a family's name is taken.
    pub(crate) fn new(
        settings: Option<&ControllerSettings>,
        hosts: &[IpAddr],
        registry: &Registry,
    ) -> Result<Self, MetricError> {
        let Some(settings) = settings else { return Ok(Self(None)) };
        Ok(Self(Some(Arc::new(Shared {
            settings: settings.clone(),
            own: host::own(hosts),
            table: Mutex::default(),
            told: Mutex::new(Told {
                state: State::Connecting,
                reason: None,
                interval: courier::INTERVAL.as_secs(),
                last_report: None,
            }),
            counts: ControllerCounts::register(registry)?,
        }))))
    }

    /// Takes in a row of a workload's proxy; never waits.
    pub(crate) fn enter(
        &self,
        row: (&Row, &Connection),
        workload: &Workload,
        directory: &Directory,
    ) {
        let Some(shared) = &self.0 else { return };
        let (key, sum) = row::read(row, workload, directory, &shared.own);
        shared.counts.taken.inc_by(sum.sessions);
        let lost = shared.table.lock().enter(key, sum);
        if let Some((why, sum)) = lost {
            shared.counts.lost(why, &sum);
        }
    }

    /// How it stands; `None` if there is no controller. Brings the gauges up to date.
    pub(crate) fn status(&self) -> Option<ControllerStatus> {
        let shared = self.0.as_ref()?;
        let told = shared.told.lock().clone();
        let waiting = shared.table.lock().held();
        let gauge = i64::try_from(waiting).unwrap_or(i64::MAX);
        shared.counts.waiting.set(gauge);
        let is_admitted = told.state == State::Admitted;
        shared.counts.admitted.set(is_admitted.into());
        Some(ControllerStatus {
            target: shared.settings.target.clone(),
            state: told.state.label().into(),
            reason: told.reason,
            interval: told.interval,
            last_report: told.last_report,
            waiting: waiting as u64,
            sent: shared.counts.sent.get(),
            repeated: shared.counts.repeated.get(),
            lost: shared.counts.all_lost(),
        })
    }

    /// Starts the task that reports, if there is a controller.
    pub(crate) fn start(
        self,
        node: &Arc<Node>,
        certificates: Option<Arc<Certificates>>,
    ) -> Reporting {
        let (stop, task) = (CancellationToken::new(), TaskTracker::new());
        if let Some((shared, certificates)) = self.0.zip(certificates) {
            let courier = Courier::new(shared, Arc::clone(node), certificates, stop.clone());
            task.spawn(courier.run());
        }
        task.close();
        Reporting { stop, task }
    }
}

/// The task that reports.
#[derive(Debug)]
pub(crate) struct Reporting {
    stop: CancellationToken,
    task: TaskTracker,
}

impl Reporting {
    /// Has the last reports made, now that nothing more comes in.
    pub(crate) async fn finish(self) {
        self.stop.cancel();
        self.task.wait().await;
    }
}

impl Shared {
    fn tell(&self, state: State, reason: Option<String>) {
        let mut told = self.told.lock();
        (told.state, told.reason) = (state, reason);
    }
}
