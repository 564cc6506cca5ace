//! What the threads of one proxy share.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
};

use arc_swap::ArcSwap;
use outrider_relay::{Legs, PolicyHandle};
use outrider_telemetry::{CounterFamily, LogHandle, MetricError, Registry, Telemetry};
use outrider_wire::ext::Instance;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    ctrl::CtrlMetrics,
    dns::{DnsMetrics, Names},
    identity::Identity,
    packets::{Metering, PacketMetrics, PortBoard},
    readiness::Readiness,
    rights::Rights,
    settings::{Secret, Settings},
};

/// Handles to everything that more than one thread reads.
#[derive(Debug)]
pub(crate) struct Context {
    /// Settings in force.
    pub settings: Settings,
    /// What the process may do.
    pub rights: Rights,
    /// Number of this process's life.
    pub instance: Instance,
    /// The pod's MACs and addresses.
    pub identity: ArcSwap<Identity>,
    /// The policy in force.
    pub policy: PolicyHandle,
    /// What names mean; swaps the policy in force.
    pub names: Arc<Names>,
    /// What is remembered of the traffic.
    pub telemetry: Telemetry,
    /// Metric families.
    pub registry: Registry,
    /// Counters of the ctrl sockets.
    pub ctrl: CtrlMetrics,
    /// Counters of the DNS listener.
    pub dns: DnsMetrics,
    /// The proxy's own connections on the wire.
    pub legs: Arc<Legs>,
    /// What works of the packet side, and its counters.
    pub packets: PacketMetrics,
    /// What happens too often.
    pub metering: Arc<Metering>,
    /// Where traffic is to be taken from besides.
    pub ports: PortBoard,
    /// Who is not ready.
    pub readiness: Readiness,
    /// Our bridge has said that everything else in the pod has ended: finish, and end.
    pub alone: CancellationToken,
    /// Side threads that began again, by name.
    pub restarts: CounterFamily,
    /// Changes the log filter, if this process has a log.
    pub log: Option<LogHandle>,
    /// When the process started.
    pub started: Instant,
}

impl Context {
    /// The mark of our own sockets: the pod's secret, if it has one and we may set marks.
    #[must_use]
    pub(crate) fn own_mark(&self) -> Option<Secret> {
        self.settings.mark.filter(|_| self.rights.raw_sockets())
    }
}

/// The family of [`Context::restarts`].
///
/// # Errors
/// When its name is taken.
pub(crate) fn restarts(registry: &Registry) -> Result<CounterFamily, MetricError> {
    registry.counters(
        "outrider_thread_restarts_total",
        "Side threads that broke off and began again",
        &["thread"],
    )
}

/// Shared by all threads.
pub(crate) type SharedContext = Arc<Context>;

/// Draws the number of this life: random, so that two lives never share it.
#[must_use]
pub(crate) fn draw_instance() -> Instance {
    Instance(RandomState::new().hash_one(std::process::id()))
}
