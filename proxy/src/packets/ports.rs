//! Traffic that the agent wants taken from elsewhere than the pod's own interfaces: taps and queues of
//! other network namespaces, pairs of interfaces that the proxy joins.
//!
//! One thread opens and closes them; each runs as a task of its own there, with an engine of its own,
//! so that a pair forwards without waiting for anything else. A port that cannot be opened is tried
//! again for as long as it is wanted: its interface may come later.

mod metrics;
mod open;
mod refuse;
mod run;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use outrider_relay::Relay;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

pub(crate) use self::metrics::PortMetrics;
use self::{open::Opened, run::Worker};
use super::session::Scene;
use crate::{
    context::SharedContext,
    ctrl::{Port, PortUse},
};

/// What is wanted: the ports, and what each is for.
type Wanted = BTreeMap<Port, PortUse>;

/// Where the ctrl thread says which ports it wants, and what is counted of them.
#[derive(Debug)]
pub(crate) struct PortBoard {
    wanted: watch::Sender<Arc<Wanted>>,
    metrics: PortMetrics,
}

impl PortBoard {
    /// Nothing is wanted yet.
    pub(crate) fn new(metrics: PortMetrics) -> Self {
        Self { wanted: watch::Sender::default(), metrics }
    }

    /// These are wanted and no others.
    pub(crate) fn want(&self, ports: impl Iterator<Item = (Port, PortUse)>) {
        self.wanted.send_replace(Arc::new(ports.collect()));
    }
}

/// The thread's work.
#[derive(Debug)]
pub(crate) struct Ports {
    context: SharedContext,
    scene: Scene,
    wanted: watch::Receiver<Arc<Wanted>>,
    tasks: TaskTracker,
    open: HashMap<Port, Running>,
    /// Those that are wanted and not there, and why.
    missing: HashMap<Port, &'static str>,
}

/// A port that is open.
#[derive(Debug)]
struct Running {
    what: watch::Sender<PortUse>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Ports {
    /// Opens nothing yet.
    pub(crate) fn new(context: SharedContext, relay: &Relay) -> Self {
        Self {
            scene: Scene {
                telemetry: context.telemetry.clone(),
                law: relay.law().clone(),
                dpi: relay.dpi().clone(),
                metering: Arc::clone(&context.metering),
            },
            wanted: context.ports.wanted.subscribe(),
            context,
            tasks: TaskTracker::new(),
            open: HashMap::new(),
            missing: HashMap::new(),
        }
    }

    /// Has open what is wanted, until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut again = interval(AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.wanted.mark_changed();
        loop {
            let busy = !self.missing.is_empty() || !self.open.is_empty();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                changed = self.wanted.changed() => if changed.is_err() { break },
                _ = again.tick(), if busy => {}
            }
            self.reconcile().await;
        }
        self.close(|_, _| true).await;
    }

    async fn reconcile(&mut self) {
        let wanted = Arc::clone(&self.wanted.borrow_and_update());
        // A queue's number is part of where it is.
        let moved = |port: &Port, running: &Running| {
            let number = running.what.borrow().queue;
            wanted.get(port).is_none_or(|what| what.queue != number)
        };
        self.close(|port, running| running.task.is_finished() || moved(port, running))
            .await;
        self.missing.retain(|port, _| wanted.contains_key(port));
        for (port, what) in wanted.iter() {
            match self.open.get(port) {
                Some(running) => {
                    running.what.send_if_modified(|held| {
                        let changed = held != what;
                        *held = *what;
                        changed
                    });
                }
                None => self.start(port, *what),
            }
        }
        let missing = self.missing.len();
        self.context
            .ports
            .metrics
            .standing(self.open.keys(), missing);
    }

    fn start(&mut self, port: &Port, what: PortUse) {
        if self.open.len() >= MAX_OPEN {
            return self.failed(port, "full", &format_args!("{MAX_OPEN} ports are open"));
        }
        let opened = match open::open(port, what) {
            Ok(opened) => opened,
            Err(refusal) => return self.failed(port, refusal.reason(), &refusal),
        };
        self.missing.remove(port);
        info!(?port, "port opened");
        let (what, changes) = watch::channel(what);
        let stop = CancellationToken::new();
        let worker = Worker::new(self.context.clone(), self.scene.clone(), opened.pod());
        let task = self
            .tasks
            .spawn(run_port(opened, worker, changes, stop.clone()));
        self.open.insert(port.clone(), Running { what, stop, task });
    }

    /// Counted and said when the reason is new, not each time that it is tried again.
    fn failed(&mut self, port: &Port, reason: &'static str, why: &dyn std::fmt::Display) {
        if self.missing.insert(port.clone(), reason) != Some(reason) {
            self.context.ports.metrics.refused(port, reason);
            warn!(?port, reason, error = %why, "port not opened, tried again while it is wanted");
        }
    }

    /// Closes some, and waits until all they did is undone.
    async fn close(&mut self, which: impl Fn(&Port, &Running) -> bool) {
        let closing: Vec<_> = self
            .open
            .extract_if(|port, running| which(port, running))
            .collect();
        for (port, running) in closing {
            running.stop.cancel();
            if running.task.await.is_err() {
                warn!(?port, "a port's task has panicked");
            }
            info!(?port, "port closed");
        }
    }
}

async fn run_port(
    opened: Opened,
    worker: Worker,
    what: watch::Receiver<PortUse>,
    stop: CancellationToken,
) {
    match opened {
        Opened::Tap(tap, _) => run::tap(*tap, worker, stop).await,
        Opened::Queue(queue, packets, _) => run::queue(queue, packets, worker, stop).await,
        Opened::Pair(pair) => run::pair(*pair, worker, what, stop).await,
    }
}

/// Ports that may be open at once: each has memory that the kernel can't swap.
pub(crate) const MAX_OPEN: usize = 32;
/// How often what is missing is tried again, and what has ended is noticed.
const AGAIN: Duration = Duration::from_secs(2);
