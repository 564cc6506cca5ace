//! What the relay does not hold: packets that are seen, judged, and stopped where that is possible.
//!
//! One thread owns everything here, so that nothing needs a lock: the tap that shows frames, the engine
//! that makes flows of them, the sessions. Each of the engine's flows is a flow of telemetry like those of
//! the relay, so that lists, rows, statistics, violations and threats know no difference.
//!
//! ```text
//!   tap ── frame ──► engine ── events ──► session ──► judge, inspector, telemetry
//!                                            │
//!                                            └─ may not go on ──► resets, verdicts
//! ```

mod book;
mod bypass;
mod meters;
mod metrics;
mod observe;
mod ports;
mod questions;
mod queue;
pub mod reset;
mod session;
mod silent;
mod sort;
mod stopper;
mod taps;
mod tier;
mod watch;

use std::{sync::Arc, time::Duration};

use outrider_capture::{Filter, Held};
use outrider_model::{Direction, FlowKey};
use outrider_packet::{Limits, forge::Glimpse};
use outrider_relay::Relay;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::{
    bypass::Bypass,
    observe::Observe,
    ports::Ports,
    questions::{Answer, Questions},
    queue::Gate,
    session::Scene,
    silent::Silent,
    stopper::Stopper,
    taps::Taps,
    watch::{Gates, Watch},
};
pub(crate) use self::{
    meters::{Metering, Pass},
    metrics::{PacketMetrics, Shown, Totals},
    ports::{PortBoard, PortMetrics},
    tier::Tier,
};
use crate::{context::SharedContext, dns, readiness::NotReady, settings::Secret, survive::Lives};

/// The packets' thread.
#[derive(Debug)]
struct Packets {
    context: SharedContext,
    scene: Scene,
    watch: Watch,
    taps: Taps,
    gate: Gate,
    bypass: Option<Bypass>,
    stopper: Stopper,
    observe: Option<Observe>,
    silent: Option<Silent>,
    questions: Questions,
    /// Packets that wait for their verdict.
    held: Vec<Held>,
    started: Instant,
    /// The policy that sessions were last judged by.
    version: u64,
    ticks: u64,
    /// Until packets that wait for a verdict can get one, where rules hold them.
    not_ready: Option<NotReady>,
}

/// Looks at packets until `stop`. What a packet could bring down comes up again, and is counted: without it
/// nothing of the pod but TCP would be seen, or pass.
pub(crate) async fn run(
    context: SharedContext,
    relay: Relay,
    not_ready: NotReady,
    stop: CancellationToken,
) {
    let life = async |not_ready| {
        let packets = Packets::new(context.clone(), &relay, not_ready);
        Box::pin(packets.run(stop.clone())).await;
    };
    keep(&context, not_ready, &stop, life).await;
}

/// One life after the other; none is ready before it says so.
async fn keep(
    context: &SharedContext,
    not_ready: NotReady,
    stop: &CancellationToken,
    life: impl AsyncFn(NotReady),
) {
    let lives = Lives::new(NAME, &context.restarts, stop);
    let mut first = Some(not_ready);
    loop {
        let guard = || context.readiness.guard(NAME);
        let not_ready = first.take().unwrap_or_else(guard);
        if !lives.once(life(not_ready)).await {
            return;
        }
    }
}

/// Opens and closes other ports until `stop`, whatever breaks.
pub(crate) async fn run_ports(context: SharedContext, relay: Relay, stop: CancellationToken) {
    let lives = Lives::new("ports", &context.restarts, &stop);
    let work = || Ports::new(Arc::clone(&context), &relay).run(stop.clone());
    while lives.once(work()).await {}
}

impl Packets {
    /// Prepares everything; opens nothing yet.
    fn new(context: SharedContext, relay: &Relay, not_ready: NotReady) -> Self {
        let scene = Scene {
            telemetry: context.telemetry.clone(),
            law: relay.law().clone(),
            dpi: relay.dpi().clone(),
            metering: Arc::clone(&context.metering),
        };
        // Not what works: that may be less after a failure, and is to be tried again.
        let tier = Tier::choose(&context.settings, &context.rights).unwrap_or_default();
        Self {
            watch: Watch::new(context.clone(), scene.clone(), Limits::default()),
            taps: Taps::new(&context.settings, tier),
            gate: Gate::new(tier.queue, context.settings.packets.queue_rule),
            bypass: bypass(&context, tier),
            stopper: Stopper::new(tier.tap, context.own_mark().map(Secret::reveal)),
            observe: None,
            silent: silent(&context, tier),
            questions: Questions::default(),
            held: Vec::new(),
            started: Instant::now(),
            version: context.policy.load().version,
            ticks: 0,
            not_ready: Some(not_ready),
            scene,
            context,
        }
    }

    /// Looks at packets until `stop`; then every session ends.
    async fn run(mut self, stop: CancellationToken) {
        let mut ticker = ticker();
        self.observe = observer(&self.context, &self.scene);
        self.open();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = ticker.tick() => self.tick(),
                () = self.gate.wait(&mut self.held) => {
                    self.decide();
                    self.look();
                }
                () = self.stopper.work() => {}
                () = self.taps.ready() => self.look(),
                () = scan(&mut self.bypass) => self.enforce(),
                () = observe(&mut self.observe) => {}
            }
        }
        self.last_look().await;
        self.watch.finish();
        self.report();
        info!("packets are no longer looked at");
    }

    /// The kernel shows frames once their block is full, or a while after its first: what came before the
    /// end is waited for.
    async fn last_look(&mut self) {
        if self.taps.is_there() {
            let looks = async {
                loop {
                    self.taps.ready().await;
                    self.look();
                    tokio::task::yield_now().await;
                }
            };
            let _over: Result<(), _> = tokio::time::timeout(LAST_LOOK, looks).await;
        }
        while self.show() {}
    }

    /// Opens what is to be open and is not, and says what works.
    fn open(&mut self) {
        self.taps.open();
        self.gate.open(&self.context.policy.load());
        self.stopper.open();
        let gates = Gates { tcp: self.stopper.is_there(), other: self.gate.is_there() };
        self.watch.set_gates(gates);
        if !self.gate.is_missed() {
            self.not_ready = None;
        }
        let before = self.context.packets.tier();
        let tier = Tier { tap: self.taps.is_there(), queue: self.gate.is_there(), ..before };
        if tier != before {
            warn!(tier = tier.label(), before = before.label(), "what is seen and can be stopped");
            self.context.packets.set_tier(tier);
        }
    }

    /// Takes in one block of frames.
    fn look(&mut self) {
        self.show();
        self.enforce();
    }

    /// Shows one block of frames to who wants to see them; whether there was one.
    fn show(&mut self) -> bool {
        let now = self.started.elapsed();
        let Self { watch, taps, bypass, .. } = self;
        taps.show(|frame| {
            if bypass.as_mut().is_none_or(|bypass| bypass.frame(frame)) {
                watch.frame(now, frame);
            }
        })
    }

    /// Decides about the packets that wait.
    fn decide(&mut self) {
        let now = self.started.elapsed();
        let pod = self.context.identity.load();
        for held in self.held.drain(..) {
            let packet = held.packet();
            let peek = self.watch.peek(&packet.bytes, packet.length);
            let inward = packet.hook != LOCAL_OUT;
            let answer = self
                .questions
                .ask(&self.scene, &pod, inward, peek.as_ref(), now);
            if packet.hook == LOCAL_OUT
                && answer == Answer::Drop
                && let Some(peek) = &peek
            {
                self.stopper.prohibit(&packet.bytes, peek, &pod, now);
            }
            if is_shown_by_nobody(packet.hook, answer, self.taps.is_there()) {
                self.watch.packet(now, &packet.bytes, packet.length);
            }
            self.context.packets.answered(answer);
            queue::decide(held, answer);
        }
    }

    /// Ends TCP flows that may not go on.
    fn enforce(&mut self) {
        for flow in self.watch.take_condemned() {
            let Some(FlowKey { client, server, direction, .. }) = self.watch.key(flow) else {
                continue;
            };
            let (near, far) = match direction {
                Direction::Inbound => (server, client),
                Direction::Outbound => (client, server),
            };
            let place = self.watch.engine().tcp(flow);
            let last = place.and_then(|place| Glimpse::at(client, server, place));
            debug!(%flow, "may not go on");
            self.stopper.condemn(near, far, last.as_ref());
        }
        let Some(bypass) = &mut self.bypass else { return };
        for (near, far) in bypass.take_condemned() {
            self.stopper.condemn(near, far, None);
        }
        if let Some(ports) = bypass.take_ports() {
            self.taps.set_filter(Filter::Openings(ports));
        }
    }

    fn tick(&mut self) {
        self.ticks = self.ticks.wrapping_add(1);
        if let Some(bypass) = &mut self.bypass {
            bypass.tick();
            self.enforce();
        }
        if let Some(silent) = self.silent.as_mut().filter(|_| self.taps.is_there()) {
            silent.look(&mut self.watch);
            self.enforce();
        }
        let view = self.context.policy.load();
        if view.version != self.version {
            self.version = view.version;
            self.gate.swap(&view);
            self.watch.rule();
            if let Some(observe) = &mut self.observe {
                observe.rule();
            }
            self.enforce();
        }
        drop(view);
        if self.gate.is_fresh() {
            self.context.packets.follow_policy(self.version);
        }
        if self.ticks.is_multiple_of(TICKS_A_SECOND) {
            let now = self.started.elapsed();
            self.watch.advance(now);
            self.questions.advance(now);
            self.watch.learn_servers();
            if !self.context.settings.dns.on {
                dns::forget(&self.context.names, &self.context.telemetry);
            }
            self.gate.refresh();
            self.open();
            self.report();
        }
    }

    fn report(&mut self) {
        let tap = self.taps.counters();
        let engine = self.watch.counters();
        let queue = self.gate.counters();
        let (resets, errors) = (self.stopper.resets(), self.stopper.errors());
        self.context
            .packets
            .follow(Totals { engine, tap, queue, resets, errors });
    }
}

/// Whether a queued packet is to be taken in from the queue. The tap shows what comes in before it is
/// queued, and what goes out after it passed: each packet once, but for those that are dropped on their way
/// out.
fn is_shown_by_nobody(hook: u8, answer: Answer, tapped: bool) -> bool {
    !tapped || (hook == LOCAL_OUT && answer == Answer::Drop)
}

/// Where TCP is relayed, what goes past the proxy is looked for.
fn bypass(context: &SharedContext, tier: Tier) -> Option<Bypass> {
    let bypass = tier.relay.then(|| Bypass::new(context.clone(), tier.tap))?;
    bypass
        .inspect_err(|error| warn!(%error, "ways past the proxy are not looked for"))
        .ok()
}

/// Where TCP is seen by its packets alone, what sends none is looked for.
fn silent(context: &SharedContext, tier: Tier) -> Option<Silent> {
    let silent = (tier.tap && !tier.relay).then(|| Silent::new(context.clone()))?;
    silent
        .inspect_err(|error| warn!(%error, "silent connections are not looked for"))
        .ok()
}

/// Where neither connections nor packets are seen, sockets are.
fn observer(context: &SharedContext, scene: &Scene) -> Option<Observe> {
    let sees_nothing = context.packets.tier() == Tier::default();
    let observe = sees_nothing.then(|| Observe::new(context.clone(), scene.clone()))?;
    observe
        .inspect_err(|error| warn!(%error, "sockets are not looked at"))
        .ok()
}

async fn observe(observe: &mut Option<Observe>) {
    match observe {
        Some(observe) => observe.work().await,
        None => std::future::pending().await,
    }
}

/// Waits until the pod's sockets have been looked at.
async fn scan(bypass: &mut Option<Bypass>) {
    match bypass {
        Some(bypass) => bypass.scan().await,
        None => std::future::pending().await,
    }
}

fn ticker() -> Interval {
    let mut ticker = interval(TICK);
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticker
}

/// What readiness calls this.
pub(crate) const NAME: &str = "packets";
/// Netfilter's hook for what the pod sends.
const LOCAL_OUT: u8 = 3;
/// How long the last frames are waited for: two time-outs of a tap's block, and the kernel's clock tick.
const LAST_LOOK: Duration = Duration::from_millis(50);
/// How often the policy's number is looked at: a swap is felt within this time.
const TICK: Duration = Duration::from_millis(100);
/// Ticks between two looks at the clock.
const TICKS_A_SECOND: u64 = 10;

#[cfg(test)]
mod tests;
