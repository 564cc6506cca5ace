//! How the parts of the proxy come together, run, and stop.

mod listen;
mod marks;
mod route;

use std::{sync::Arc, thread};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use outrider_capture::{CaptureMode, Listener};
use outrider_dpi::DpiConfig;
use outrider_model::{Direction, names};
use outrider_relay::{Relay, RelaySettings};
use outrider_telemetry::{LogHandle, Registry, Telemetry};
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{Signal, SignalKind, signal},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

pub(crate) use self::route::delivery_source;
use self::{listen::Intake, marks::Marks};
use crate::{
    admin::{self, Surfaces},
    context::{Context, SharedContext, draw_instance, restarts},
    ctrl::{self, CtrlMetrics},
    dns::{self, Dns, DnsMetrics, Names},
    identity::Identity,
    packets::{self, Metering, PacketMetrics, PortBoard, PortMetrics, Tier},
    readiness::Readiness,
    rights::{self, Rights},
    settings::{CaptureChoice, PacketsChoice, QueueRule, Settings},
};

/// Runs the proxy until it is told to stop; returns when every flow has ended or was cut.
pub fn run(settings: Settings, log: Option<LogHandle>) -> anyhow::Result<()> {
    rights::raise(); // before there are threads: each has capabilities of its own
    let runtime = flow_runtime(&settings)?;
    let _inside = runtime.enter();
    let (context, relay, state) = assemble(settings, log)?;
    let not_listening = context.readiness.guard("listeners");
    let marks = Marks::new(&context.settings, &context.rights);
    let listeners = bind_listeners(&context.settings, &context.rights)?;
    let surfaces = Surfaces::of(&context).context("health and admin ports")?;
    let dns = context
        .settings
        .dns
        .on
        .then(|| Dns::bind(&context))
        .transpose();
    let dns = dns.context("DNS port")?;
    if let Some(mark) = marks.and_then(|marks| marks.own) {
        // What they accept answers with the mark too.
        listeners
            .iter()
            .try_for_each(|(listener, _)| listener.mark(mark))?;
    }
    let told = Told::new()?;

    let stop = CancellationToken::new();
    let no_policy = context.readiness.guard("policy");
    let server = ctrl::Server::new(Arc::clone(&context), relay.clone(), state, Some(no_policy));
    let stop_ctrl = stop.clone();
    let ctrl = side_thread("ctrl", move || server.run(stop_ctrl))?;
    let (admin_context, stop_admin) = (Arc::clone(&context), stop.clone());
    let admin = side_thread("admin", move || admin::run(surfaces, admin_context, stop_admin))?;
    let (dns_context, stop_dns) = (Arc::clone(&context), stop.clone());
    let dns = dns.map(|dns| side_thread("dns", move || dns::run(dns, dns_context, stop_dns)));
    let dns = dns.transpose()?;
    let stop_packets = CancellationToken::new();
    let packets = start_packets(&context, &relay, stop_packets.clone())?;
    let (ports_context, ports_relay) = (Arc::clone(&context), relay.clone());
    let stop_ports = stop_packets.clone();
    let ports =
        side_thread("ports", move || packets::run_ports(ports_context, ports_relay, stop_ports))?;
    drop(not_listening);

    let intake = Intake::new(Arc::clone(&context), relay, &context.settings.own_ports(), marks);
    runtime.block_on(serve(listeners, context, intake, told));
    // First, so that its sessions are in the last reports.
    stop_packets.cancel();
    packets
        .map_or(Ok(()), thread::JoinHandle::join)
        .unwrap_or_else(ended_badly);
    ports.join().unwrap_or_else(ended_badly);
    stop.cancel();
    for thread in [ctrl, admin].into_iter().chain(dns) {
        thread.join().unwrap_or_else(ended_badly);
    }
    info!("stopped");
    Ok(())
}

fn ended_badly(_panic: Box<dyn std::any::Any + Send>) {
    warn!("a side thread ended badly");
}

/// Starts the thread that looks at packets, where there is anything for it to do.
fn start_packets(
    context: &SharedContext,
    relay: &Relay,
    stop: CancellationToken,
) -> anyhow::Result<Option<thread::JoinHandle<()>>> {
    let tier = context.packets.tier();
    let off = context.settings.packets.choice == PacketsChoice::Off;
    let starts = tier.tap || tier.queue || !off;
    let (context, relay) = (Arc::clone(context), relay.clone());
    let not_ready = context.readiness.guard(packets::NAME);
    let run = move || packets::run(context, relay, not_ready, stop);
    starts.then(|| side_thread(packets::NAME, run)).transpose()
}

fn flow_runtime(settings: &Settings) -> anyhow::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    builder
        .worker_threads(settings.workers)
        .thread_name("flows")
        .enable_all();
    builder.build().context("threads for flows")
}

/// Everything that flows and side threads share, with the policy to begin with in force.
fn assemble(
    settings: Settings,
    log: Option<LogHandle>,
) -> anyhow::Result<(SharedContext, Relay, ctrl::State)> {
    let started = Instant::now();
    let rights = Rights::take();
    let identity = Identity::read().context("interfaces")?;
    let tier = Tier::choose(&settings, &rights)?;
    introduce(&settings, &rights, &identity, tier);
    let registry = Registry::default();
    let telemetry = Telemetry::with_rows(&registry, settings.report_rows)?;
    let ctrl::Beginning { state, view } = ctrl::begin(&settings, &identity)?;
    let policy = Arc::new(ArcSwap::from_pointee(view));
    let dns = DnsMetrics::register(&registry)?;
    let packets = PacketMetrics::register(&registry)?;
    packets.set_tier(tier);
    let configured = state.network().names.clone();
    let names = Arc::new(Names::new(Arc::clone(&policy), configured, dns.clone()));
    let dpi = Arc::new(detectors(&settings));
    let (meters, handle) = (&settings.meters, Arc::clone(&policy));
    let metering = Metering::new(meters, &dpi, telemetry.clone(), handle, &registry)?;
    let relay = Relay::new(relay_settings(&settings), Arc::clone(&policy), dpi, telemetry.clone());
    let context = Context {
        rights,
        instance: draw_instance(),
        identity: ArcSwap::from_pointee(identity),
        policy,
        names,
        telemetry,
        ctrl: CtrlMetrics::register(&registry)?,
        dns,
        legs: Arc::clone(relay.legs()),
        packets,
        metering,
        ports: PortBoard::new(PortMetrics::register(&registry)?),
        restarts: restarts(&registry)?,
        registry,
        readiness: Readiness::default(),
        alone: CancellationToken::new(),
        log,
        started,
        settings,
    };
    Ok((Arc::new(context), relay, state))
}

/// Says at start what the proxy is, what it may do, and what it goes by.
fn introduce(settings: &Settings, rights: &Rights, identity: &Identity, tier: Tier) {
    let version = env!("CARGO_PKG_VERSION");
    info!(version, ?settings, "outrider-proxy starts");
    introduce_pod(rights, identity, tier);
    warn_of_rights(settings, rights);
    if settings.packets.queue_rule == Some(QueueRule::Closed) && !tier.queue {
        warn!("the pod's queue rules are closed and nobody reads the queue: only TCP passes");
    }
    if !settings.unknown.is_empty() {
        warn!(names = ?settings.unknown, "settings of these names do not exist");
    }
}

fn introduce_pod(rights: &Rights, identity: &Identity, tier: Tier) {
    info!(
        uid = rights.uid,
        capabilities = ?rights.capabilities,
        can = ?rights.can,
        cannot = ?rights.cannot,
        open_files = rights.open_files,
        "rights"
    );
    info!(tier = tier.label(), "what is seen and can be stopped");
    let macs: Vec<_> = identity.macs().iter().map(ToString::to_string).collect();
    let addresses: Vec<_> = identity.addresses().collect();
    info!(?macs, ?addresses, "pod");
}

fn warn_of_rights(settings: &Settings, rights: &Rights) {
    if rights.uid != names::PROXY_UID {
        warn!(
            uid = rights.uid,
            expected = names::PROXY_UID,
            "not the uid that the pod's redirect rules exempt: own connections may be captured"
        );
    }
    if settings.mark.is_some() && !rights.raw_sockets() {
        warn!(
            "OUTRIDER_MARK cannot be set on packets without NET_RAW: own connections may be captured"
        );
    }
}

fn detectors(settings: &Settings) -> DpiConfig {
    let on = settings.threats_on.iter().map(|id| (*id, true));
    let off = settings.threats_off.iter().map(|id| (*id, false));
    on.chain(off)
        .fold(DpiConfig::default(), |config, (id, on)| config.with_threat(id, on))
}

fn relay_settings(settings: &Settings) -> RelaySettings {
    RelaySettings {
        connect_timeout: settings.flow.connect_timeout,
        hold_bytes: settings.flow.hold_bytes,
        hold_time: settings.flow.hold_time,
        half_close_timeout: settings.flow.half_close_timeout,
        idle_timeout: settings.flow.idle_timeout,
    }
}

/// The two listeners, the outbound one always fed by redirection; none if nothing is redirected.
fn bind_listeners(
    settings: &Settings,
    rights: &Rights,
) -> anyhow::Result<Vec<(Listener, Direction)>> {
    let mode = match settings.capture {
        CaptureChoice::Auto if rights.raw_sockets() => CaptureMode::Tproxy,
        CaptureChoice::Auto | CaptureChoice::Redirect => CaptureMode::Redirect,
        CaptureChoice::Tproxy => CaptureMode::Tproxy,
        CaptureChoice::None => return Ok(Vec::new()),
    };
    let outbound = Listener::bind(settings.outbound_port, CaptureMode::Redirect)?;
    let inbound = Listener::bind(settings.inbound_port, mode).context("inbound listener")?;
    info!(capture = mode.label(), "inbound listener");
    Ok(vec![(outbound, Direction::Outbound), (inbound, Direction::Inbound)])
}

/// A thread with a runtime of its own, so that what runs there neither slows flows nor waits for
/// them.
fn side_thread<F: Future<Output = ()>>(
    name: &'static str,
    make: impl FnOnce() -> F + Send + 'static,
) -> anyhow::Result<thread::JoinHandle<()>> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .context(name)?;
    let run = move || runtime.block_on(make());
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .context(name)
}

/// Accepts until told to stop, then drains: within the grace period, or until told again.
async fn serve(
    listeners: Vec<(Listener, Direction)>,
    context: SharedContext,
    intake: Intake,
    mut told: Told,
) {
    let grace = context.settings.drain_grace;
    let (drain, accepting) = (CancellationToken::new(), TaskTracker::new());
    for (listener, direction) in listeners {
        accepting.spawn(intake.clone().accept(listener, direction, drain.clone()));
    }
    accepting.close();
    let say_ready = async {
        context.readiness.reached().await;
        info!(took = ?context.started.elapsed(), "ready for traffic");
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        () = told.wait() => {}
        () = context.alone.cancelled() => info!("everything else in the pod has ended"),
        () = say_ready => {}
    }
    let _not_ready = context.readiness.guard("drained");
    drain.cancel();
    accepting.wait().await;
    let cut = intake.finish(grace, told.wait()).await;
    info!(cut, "drained");
}

/// The signals that tell the proxy to stop.
#[derive(Debug)]
struct Told {
    terminate: Signal,
    interrupt: Signal,
}

impl Told {
    fn new() -> anyhow::Result<Self> {
        let terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
        let interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
        Ok(Self { terminate, interrupt })
    }

    async fn wait(&mut self) {
        let name = tokio::select! {
            biased;
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        };
        info!(signal = name, "told to stop");
    }
}
