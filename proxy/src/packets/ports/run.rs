//! What runs for as long as a port is open.

use std::time::Duration;

use outrider_capture::{
    CaptureError, Frame, Held, Pair, PairCounters, PairPath, PairVerdict, Queue, QueueVerdict, Tap,
};
use outrider_model::Mode;
use outrider_packet::Limits;
use outrider_relay::PolicyView;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, Interval, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::refuse::Refusals;
use crate::{
    context::SharedContext,
    ctrl::PortUse,
    packets::{
        session::Scene,
        watch::{Gates, Pod, Watch},
    },
};

/// Looks at the traffic of one port.
#[derive(Debug)]
pub(super) struct Worker {
    context: SharedContext,
    watch: Watch,
    started: Instant,
    version: u64,
    ticks: u64,
}

impl Worker {
    pub(super) fn new(context: SharedContext, scene: Scene, pod: Pod) -> Self {
        let version = context.policy.load().version;
        let watch = Watch::new(context.clone(), scene, Limits::default()).of(pod);
        Self { context, watch, started: Instant::now(), version, ticks: 0 }
    }

    /// Lets time pass, and judges again after a policy swap.
    fn tick(&mut self) {
        let version = self.context.policy.load().version;
        if version != self.version {
            self.version = version;
            self.watch.rule();
        }
        // What may not go on does not get past us: nobody has to reset it.
        drop(self.watch.take_condemned());
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(TICKS_A_SECOND) {
            self.watch.advance(self.started.elapsed());
        }
    }

    fn enforces(&self) -> bool {
        enforces(&self.context.policy.load())
    }
}

fn enforces(view: &PolicyView) -> bool {
    view.quarantined || (view.managed && view.mode == Mode::Protect)
}

/// Shows what a tap sees.
pub(super) async fn tap(mut tap: Tap, mut worker: Worker, stop: CancellationToken) {
    let mut ticker = ticker();
    loop {
        let Worker { watch, started, .. } = &mut worker;
        let now = started.elapsed();
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            _ = ticker.tick() => worker.tick(),
            waited = tap.wait(|frame| watch.frame(now, &frame)) => {
                if let Err(error) = waited {
                    ended(&error);
                    break;
                }
            }
        }
    }
    worker.watch.finish();
}

/// Decides about what waits in a queue.
pub(super) async fn queue(
    queue: Queue,
    mut packets: mpsc::Receiver<Held>,
    mut worker: Worker,
    stop: CancellationToken,
) {
    worker.watch.set_gates(Gates { tcp: true, other: true });
    let mut ticker = ticker();
    let mut open = true;
    loop {
        let held = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            _ = ticker.tick() => {
                worker.tick();
                let is_open = !worker.enforces();
                if open != is_open {
                    open = is_open;
                    queue.set_open(open).unwrap_or_else(|error| warn!(%error, "queue's mode"));
                }
                continue;
            }
            held = packets.recv() => held,
        };
        let Some(held) = held else { break };
        let packet = held.packet();
        let now = worker.started.elapsed();
        let passes = worker
            .watch
            .packet_passes(now, &packet.bytes, packet.length);
        let verdict =
            if passes || !worker.enforces() { QueueVerdict::Accept } else { QueueVerdict::Drop };
        held.decide(verdict, None);
    }
    drop(packets);
    worker.watch.finish();
}

/// Takes frames from one interface to the other, or has the kernel do it.
pub(super) async fn pair(
    pair: Pair,
    mut worker: Worker,
    mut what: watch::Receiver<PortUse>,
    stop: CancellationToken,
) {
    worker.watch.set_gates(Gates { tcp: true, other: true });
    let mut bridge =
        Bridge { pair, kernel: true, warned: false, last: PairCounters::default(), resets: 0 };
    let mut ticker = ticker();
    loop {
        bridge.follow(&worker.context.policy.load(), what.borrow_and_update().quarantined);
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            // The thread that owns the other end waits for this task before it goes.
            _ = what.changed() => {}
            _ = ticker.tick() => {
                worker.tick();
                bridge.report(&worker.context);
            }
            waited = bridge.pair.wait() => match waited {
                Ok(()) => bridge.transfer(&mut worker),
                Err(error) => {
                    ended(&error);
                    break;
                }
            }
        }
    }
    bridge.report(&worker.context);
    worker.watch.finish();
}

/// A pair and the path that it is on.
#[derive(Debug)]
struct Bridge {
    pair: Pair,
    /// The kernel can forward, as far as we know.
    kernel: bool,
    warned: bool,
    last: PairCounters,
    /// Resets that were sent since the last report.
    resets: u64,
}

impl Bridge {
    /// Chooses who forwards: we do where frames are decided about, else the kernel, if it can.
    fn follow(&mut self, view: &PolicyView, quarantined: bool) {
        let path = match (quarantined || view.quarantined, enforces(view)) {
            (true, _) => PairPath::Closed,
            (false, false) if self.kernel => PairPath::Kernel,
            (false, _) => PairPath::Ring,
        };
        if path == self.pair.path() {
            return;
        }
        match self.pair.set_path(path) {
            Ok(()) => info!(?path, interfaces = ?self.pair.interfaces(), "pair's path"),
            Err(error) => self.not_followed(path, &error),
        }
    }

    fn not_followed(&mut self, path: PairPath, error: &CaptureError) {
        if path == PairPath::Kernel {
            self.kernel = false;
            warn!(%error, "the kernel cannot redirect: every frame of the pair takes the ring");
        } else if !std::mem::replace(&mut self.warned, true) {
            // The kernel still forwards, in spite of us: this is tried again at once.
            warn!(%error, ?path, "pair is open against the policy");
        }
    }

    fn transfer(&mut self, worker: &mut Worker) {
        let now = worker.started.elapsed();
        let enforces = worker.enforces();
        let Worker { watch, .. } = worker;
        // Past a closed pair nothing goes, ours neither.
        let refuses = self.pair.path() == PairPath::Ring;
        let mut refusals = Refusals::default();
        let decide = |frame: &Frame<'_>| {
            let passes = watch.passes(now, frame);
            if passes || !enforces {
                return PairVerdict::Forward;
            }
            if refuses {
                refusals.add(frame);
            }
            PairVerdict::Drop
        };
        self.pair.drain(decide);
        self.resets += refusals.send(&mut self.pair);
    }

    fn report(&mut self, context: &SharedContext) {
        match self.pair.counters() {
            Ok(now) => {
                let resets = std::mem::take(&mut self.resets);
                context.ports.metrics.frames(&self.last, &now, resets);
                self.last = now;
            }
            Err(error) => debug!(%error, "counters of a pair"),
        }
    }
}

fn ended(error: &CaptureError) {
    info!(%error, reason = error.reason(), "a port's interface is down or gone");
}

fn ticker() -> Interval {
    let mut ticker = interval(TICK);
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticker
}

/// How often the policy's number is looked at: a swap is felt within this time.
const TICK: Duration = Duration::from_millis(100);
/// Ticks between two looks at the clock.
const TICKS_A_SECOND: u64 = 10;
