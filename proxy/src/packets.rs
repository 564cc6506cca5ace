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

mod bypass;
mod metrics;
mod reading;
pub mod reset;
mod session;
mod sort;
mod tier;
mod watch;

use std::time::Duration;

use outrider_capture::{CaptureError, Filter, Tap, TapSettings};
use outrider_packet::Limits;
use outrider_relay::Relay;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::{
    bypass::Bypass,
    session::Scene,
    watch::{Gates, Watch},
};
pub(crate) use self::{metrics::PacketMetrics, tier::Tier};
use crate::context::SharedContext;

/// The packets' thread.
#[derive(Debug)]
pub(crate) struct Packets {
    context: SharedContext,
    watch: Watch,
    taps: Taps,
    bypass: Option<Bypass>,
    started: Instant,
    /// The policy that sessions were last judged by.
    version: u64,
    ticks: u64,
}

impl Packets {
    /// Prepares the thread; opens nothing yet.
    #[must_use]
    pub(crate) fn new(context: SharedContext, relay: &Relay) -> Self {
        let scene = Scene {
            telemetry: context.telemetry.clone(),
            law: relay.law().clone(),
            dpi: relay.dpi().clone(),
        };
        let version = context.policy.load().version;
        let mut watch = Watch::new(context.clone(), scene, Limits::default());
        watch.set_gates(Gates::default());
        let taps = Taps::new(&context);
        let bypass = bypass(&context);
        Self { context, watch, taps, bypass, started: Instant::now(), version, ticks: 0 }
    }

    /// Looks at packets until `stop`; then every session ends.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut ticker = ticker();
        self.taps.open();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = ticker.tick() => self.tick(),
                () = self.taps.ready() => self.look(),
                () = scan(&mut self.bypass) => self.enforce(),
            }
        }
        while self.show() {}
        self.watch.finish();
        self.report();
        info!("packets are no longer looked at");
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

    /// Ends TCP flows that may not go on.
    fn enforce(&mut self) {
        for flow in self.watch.take_condemned() {
            debug!(%flow, place = ?self.watch.engine().tcp(flow), "may not go on");
        }
        let Some(bypass) = &mut self.bypass else { return };
        for condemned in bypass.take_condemned() {
            debug!(?condemned, "went past the proxy");
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
        let version = self.context.policy.load().version;
        if version != self.version {
            self.version = version;
            self.watch.rule();
            self.enforce();
        }
        if self.ticks.is_multiple_of(TICKS_A_SECOND) {
            self.watch.advance(self.started.elapsed());
            self.taps.open();
            self.report();
        }
    }

    fn report(&mut self) {
        let tap = self.taps.counters();
        let engine = self.watch.counters();
        let totals = metrics::Totals { engine, tap, ..self.context.packets.totals() };
        self.context.packets.follow(totals);
    }
}

/// The taps of this pod, which come and go with their interfaces.
#[derive(Debug)]
struct Taps {
    settings: Option<TapSettings>,
    tap: Option<Tap>,
    last: outrider_capture::TapCounters,
    warned: bool,
}

impl Taps {
    fn new(context: &SharedContext) -> Self {
        let tier = context.packets.tier();
        // What the relay holds is not copied, but for the first packet of each connection.
        let ports = context.settings.packets.uncaptured.clone();
        let filter = if tier.relay { Filter::Openings(ports) } else { Filter::Everything };
        let settings = tier
            .tap
            .then(|| TapSettings { filter, ..TapSettings::default() });
        Self { settings, tap: None, last: outrider_capture::TapCounters::default(), warned: false }
    }

    /// Opens what is to be open and is not.
    fn open(&mut self) {
        let Some(settings) = self.settings.as_ref().filter(|_| self.tap.is_none()) else { return };
        match Tap::open(settings) {
            Ok(tap) => {
                info!("packets are looked at");
                self.tap = Some(tap);
            }
            Err(error) => self.failed(&error),
        }
    }

    /// Shows other frames from now on.
    fn set_filter(&mut self, filter: Filter) {
        let set = self
            .tap
            .as_ref()
            .map_or(Ok(()), |tap| tap.set_filter(&filter));
        if let Err(error) = set {
            warn!(%error, "the tap keeps its filter");
        }
        if let Some(settings) = &mut self.settings {
            settings.filter = filter;
        }
    }

    /// Waits until there are frames.
    async fn ready(&mut self) {
        let Some(tap) = &mut self.tap else { return std::future::pending().await };
        if let Err(error) = tap.ready().await {
            self.failed(&error);
        }
    }

    /// Shows one block of frames; whether there was one.
    fn show(&mut self, mut visit: impl FnMut(&outrider_capture::Frame<'_>)) -> bool {
        self.tap
            .as_mut()
            .and_then(|tap| tap.show(|frame| visit(&frame)))
            .is_some()
    }

    fn counters(&mut self) -> outrider_capture::TapCounters {
        if let Some(Ok(counters)) = self.tap.as_mut().map(Tap::counters) {
            self.last = counters;
        }
        self.last
    }

    /// Said once; what goes on failing is tried again every second.
    fn failed(&mut self, error: &CaptureError) {
        if !std::mem::replace(&mut self.warned, true) {
            warn!(%error, reason = error.reason(), "packets are not looked at");
        }
    }
}

/// Where TCP is relayed, what goes past the proxy is looked for.
fn bypass(context: &SharedContext) -> Option<Bypass> {
    let tier = context.packets.tier();
    let bypass = tier.relay.then(|| Bypass::new(context.clone(), tier.tap))?;
    bypass
        .inspect_err(|error| warn!(%error, "ways past the proxy are not looked for"))
        .ok()
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

/// How often the policy's number is looked at: a swap is felt within this time.
const TICK: Duration = Duration::from_millis(100);
/// Ticks between two looks at the clock.
const TICKS_A_SECOND: u64 = 10;
