//! The ctrl thread: requests one at a time, ticks, and what both lead to. It waits for nobody: a
//! policy is compiled on another thread, and a receiver that does not read keeps only itself
//! waiting.

use std::{collections::HashSet, io, path::Path, sync::Arc, time::Duration};

use outrider_model::names;
use outrider_relay::Relay;
use outrider_wire::{
    ChunkFlags, Reply,
    limits::MAX_REQUEST,
    request::{Command, Request},
};
use tokio::{
    task::JoinError,
    time::{Instant, Interval, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::{
    background::Background,
    debug::filter,
    inbox::Inbox,
    metrics::Loss,
    notify::Notifier,
    queries,
    replies::{RETRY, Replies},
    start,
    state::{Effect, SensorTotals, State},
    swap::Swap,
};
use crate::{
    context::SharedContext,
    identity::Identity,
    readiness::NotReady,
    recorder::{Answer, Recorder},
    status,
    survive::Lives,
};

mod ending;
mod policy;
#[cfg(test)]
mod tests;

/// Everything of the ctrl thread.
#[derive(Debug)]
pub(crate) struct Server {
    context: SharedContext,
    relay: Relay,
    state: State,
    inbox: Inbox,
    replies: Replies,
    notifier: Notifier,
    recorder: Recorder,
    compiling: Background<Swap>,
    saving: Background<io::Result<()>>,
    /// Since when something else is wanted than what is in force.
    wanted_since: Option<Instant>,
    unsaved: bool,
    /// When the last save began.
    saving_since: Instant,
    /// Who said hello while a policy was on its way: the status is due when it is in force and kept.
    greeted: Vec<Option<Arc<Path>>>,
    /// The bridge that acknowledges batches.
    bridge: Option<Arc<Path>>,
    first_policy: Option<NotReady>,
    /// Until requests can come.
    not_bound: Option<NotReady>,
    warned: HashSet<&'static str>,
    ticks: u64,
    read_identity: fn() -> io::Result<Identity>,
}

/// What the thread wakes up for.
#[derive(Debug)]
enum Event {
    Stop,
    Tick,
    Compiled(Result<Swap, JoinError>),
    Saved(Result<io::Result<()>, JoinError>),
    Received(io::Result<(usize, Option<Arc<Path>>)>),
    /// A capture has begun, or cannot.
    Recording(Answer),
    /// Nothing more was asked for: now is the time to compile what was.
    Quiet,
    /// Something may be sent that could not be before.
    Writable,
}

impl Server {
    /// A server for a state that is in force already. Binds nothing yet.
    #[must_use]
    pub(crate) fn new(
        context: SharedContext,
        relay: Relay,
        state: State,
        first_policy: Option<NotReady>,
    ) -> Self {
        let not_bound = context.readiness.guard("ctrl");
        let directory = &context.settings.ctrl_dir;
        let notifier = Notifier::new(
            directory.join(names::CTRL_LISTEN),
            context.instance,
            context.telemetry.clone(),
            context.ctrl.clone(),
        );
        Self {
            recorder: Recorder::new(&context.rights),
            inbox: Inbox::new(directory.join(names::DP_LISTEN)),
            context,
            relay,
            state,
            replies: Replies::default(),
            notifier,
            compiling: Background::idle(),
            saving: Background::idle(),
            wanted_since: None,
            unsaved: false,
            saving_since: Instant::now(),
            greeted: Vec::new(),
            bridge: None,
            first_policy,
            not_bound: Some(not_bound),
            warned: HashSet::new(),
            ticks: 0,
            read_identity: Identity::read,
        }
    }

    /// Serves until `stop`, whatever breaks, then sends what is left, for a while at most.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let restarts = self.context.restarts.clone();
        let lives = Lives::new("ctrl", &restarts, &stop);
        while lives.once(self.serve(&stop)).await {
            self.begin_again();
        }
        let mut buffer = vec![0; MAX_REQUEST.saturating_add(1)];
        self.last_words(&mut ticker(), &mut buffer).await;
        self.recorder.finish();
        self.inbox.close();
    }

    /// After a panic nothing is trusted but the reports, which must not be lost, and the policy in force. Who asks
    /// finds another socket, so that a bridge says everything again.
    fn begin_again(&mut self) {
        let (settings, identity) = (&self.context.settings, self.context.identity.load());
        match start::begin(settings, &identity) {
            Ok(beginning) => self.state = beginning.state,
            Err(error) => warn!(%error, "the state stays as it is"),
        }
        self.inbox.close();
        self.replies = Replies::default();
        self.compiling = Background::idle();
        self.saving = Background::idle();
        self.greeted.clear();
        self.bridge = None;
        self.wanted_since = None;
    }

    async fn serve(&mut self, stop: &CancellationToken) {
        let mut ticker = ticker();
        let mut buffer = vec![0; MAX_REQUEST.saturating_add(1)];
        if self.state.reports() {
            // Who managed the workload before is most likely there, and says hello if it acknowledges.
            self.notifier.hold(Instant::now());
        }
        self.inbox.bind();
        // Where it can't be, there is no mailbox, so no bridge either: nobody waits for that.
        self.not_bound = None;
        self.context.ports.want(self.state.ports());
        self.policy_known();
        loop {
            match self.next(stop, &mut ticker, &mut buffer).await {
                Event::Stop => return,
                event => self.handle(event, &buffer),
            }
        }
    }

    /// Ticks and results come before requests, so that no flood of them can hold those up.
    async fn next(
        &mut self,
        stop: &CancellationToken,
        ticker: &mut Interval,
        buffer: &mut [u8],
    ) -> Event {
        let may_compile = self.wanted_since.is_some() && self.compiling.is_idle();
        let Self { compiling, saving, inbox, replies, notifier, recorder, .. } = self;
        tokio::select! {
            biased;
            () = stop.cancelled() => Event::Stop,
            _ = ticker.tick() => Event::Tick,
            done = compiling.done() => Event::Compiled(done),
            done = saving.done() => Event::Saved(done),
            answer = recorder.answer() => Event::Recording(answer),
            received = inbox.receive(buffer) => Event::Received(received),
            () = std::future::ready(()), if may_compile => Event::Quiet,
            () = tokio::time::sleep(RETRY), if !replies.is_empty() => Event::Writable,
            () = notifier.writable() => Event::Writable,
        }
    }

    fn handle(&mut self, event: Event, buffer: &[u8]) {
        let now = Instant::now();
        match event {
            Event::Stop | Event::Writable => {}
            Event::Tick => self.tick(now),
            Event::Compiled(done) => self.compiled(done),
            Event::Saved(done) => self.saved(done),
            Event::Received(Ok((length, from))) => {
                self.received(buffer.get(..length).unwrap_or_default(), from.as_ref(), now);
            }
            Event::Recording(Answer { to, reply }) => self.reply(to.as_ref(), &[reply.into()]),
            Event::Received(Err(error)) => debug!(%error, "receiving failed"),
            Event::Quiet => self.compile(),
        }
        let overdue = self
            .wanted_since
            .is_some_and(|since| now.duration_since(since) > COALESCE);
        if overdue && self.compiling.is_idle() {
            self.compile();
        }
        if let Some(socket) = self.inbox.replies() {
            self.replies.flush(socket, now, &self.context.ctrl);
        }
        self.notifier.pump(now);
    }

    fn tick(&mut self, now: Instant) {
        if self.ticks.is_multiple_of(TICKS_AN_IDENTITY) {
            self.read_identity();
        }
        self.ticks = self.ticks.wrapping_add(1);
        self.inbox.keep();
        self.greet_waiting();
        self.context.telemetry.settle();
        self.context.metering.tick();
        self.notifier.put_names(&self.context.names, &self.state);
        self.notifier.tick(&self.state, now);
    }

    /// Interfaces may come after the proxy.
    fn read_identity(&mut self) {
        match (self.read_identity)() {
            Ok(identity) if identity != **self.context.identity.load() => {
                let macs: Vec<_> = identity.macs().iter().map(ToString::to_string).collect();
                info!(?macs, "interfaces changed");
                self.state.set_own(identity.macs());
                self.context.identity.store(Arc::new(identity));
                self.want_policy();
            }
            Ok(_same) => {}
            Err(error) => self.warn_once("identity", &error),
        }
    }

    /// Something else is wanted than what is in force.
    fn want_policy(&mut self) {
        self.wanted_since.get_or_insert_with(Instant::now);
    }

    fn received(&mut self, datagram: &[u8], from: Option<&Arc<Path>>, now: Instant) {
        match Request::parse_datagram(datagram) {
            Ok(commands) => {
                commands
                    .into_iter()
                    .for_each(|command| self.command(command, from, now));
            }
            Err(error) => self.chunk_lost(error.reason(), &error),
        }
    }

    /// What could not be read may have been part of anything.
    fn chunk_lost(&mut self, reason: &'static str, error: &dyn std::error::Error) {
        if self.state.chunk_lost() {
            self.context.ctrl.policy_refused(reason, error);
        }
        self.ignored(reason, error);
    }

    fn command(&mut self, command: Command, from: Option<&Arc<Path>>, now: Instant) {
        let request = match command.request {
            Ok(request) => request,
            // A newer agent may ask for more than we know.
            Err(error) if error.is_unknown() => return self.context.ctrl.invalid(error.reason()),
            Err(error) if CHUNKED.contains(&&*command.key) => {
                if &*command.key == CFG_POLICY {
                    self.context.ctrl.policy_refused(error.reason(), &error);
                }
                return self.chunk_lost(error.reason(), &error);
            }
            Err(error) => return self.ignored(error.reason(), &error),
        };
        let key = request.key();
        if let Request::CfgPolicy(policy) = &request
            && policy.chunk.contains(ChunkFlags::START)
        {
            self.context.ctrl.policy_begins();
        }
        if matches!(request, Request::AddMac(_)) {
            self.notice_other(from, now);
        }
        match self.state.apply(request) {
            Ok(effects) => {
                self.context.ctrl.request(key);
                effects
                    .into_iter()
                    .for_each(|effect| self.effect(effect, from, now));
            }
            Err(ignored) => {
                if key == CFG_POLICY {
                    self.context.ctrl.policy_refused(ignored.reason(), &ignored);
                }
                self.ignored(ignored.reason(), &ignored);
            }
        }
    }

    /// Another client than our bridge manages the workload: a bridge that was restarted will say hello, an agent
    /// will not and gets plain reports.
    fn notice_other(&mut self, from: Option<&Arc<Path>>, now: Instant) {
        if self.bridge.is_some() && self.bridge.as_ref() != from {
            info!("another client manages the workload");
            self.bridge = None;
            self.notifier.hold(now);
        }
    }

    fn effect(&mut self, effect: Effect, from: Option<&Arc<Path>>, now: Instant) {
        match effect {
            Effect::Alive(alive) => self.reply(from, &[alive.into()]),
            Effect::Query(query) => {
                let replies = queries::answer(query, &self.context, &self.state);
                self.reply(from, &replies);
            }
            Effect::PolicyChanged => self.want_policy(),
            Effect::PortsChanged => self.context.ports.want(self.state.ports()),
            Effect::Listens(ports) => queries::list_ports(&self.context.telemetry, &ports),
            Effect::RefreshApps => self.notifier.put_apps(&self.state),
            Effect::ClearSessions(id) => queries::clear_sessions(&self.context.telemetry, id),
            Effect::LastReport => {
                self.context.telemetry.settle();
                self.notifier.report_now(&self.state, now);
            }
            Effect::Debug(categories) => {
                self.set_log(&filter(&self.context.settings.log, &categories));
            }
            Effect::SensorsChanged(sensors) => self.sensors_changed(sensors),
            Effect::Hello(hello) => {
                // Who says it first learns at once whom it talks to; later it asks what holds.
                let is_first = self.bridge.as_ref() != from;
                self.bridge = from.filter(|_| hello.acks).cloned();
                self.notifier.hello(hello);
                self.answer_hello(from, is_first);
            }
            Effect::Ack(ack) if from.is_some() && from == self.bridge.as_ref() => {
                self.notifier.acknowledge(ack.instance, ack.seq);
            }
            Effect::Ack(_) => self.context.ctrl.invalid("foreign-ack"),
            Effect::Capture(order) if from.is_some() && from == self.bridge.as_ref() => {
                let pipe = self.inbox.take_descriptor();
                self.recorder.start(order, pipe, from);
            }
            Effect::Capture(_) => self.context.ctrl.invalid("foreign-capture"),
            Effect::StopCapture(id) => self.recorder.stop(id),
            Effect::Stop(instance) => self.stop(instance, from),
        }
    }

    fn sensors_changed(&mut self, sensors: SensorTotals) {
        if self.warned.insert("sensors") {
            warn!(?sensors, "sensors are configured, and nothing looks for them yet");
        }
        self.context.ctrl.sensors(sensors);
    }

    fn answer_hello(&mut self, from: Option<&Arc<Path>>, is_first: bool) {
        if self.is_in_force() && (is_first || self.is_kept()) {
            self.greet(from);
        } else if self.greeted.len() < MAX_GREETED {
            self.greeted.push(from.cloned());
        } else {
            self.context.ctrl.lost(Loss::ReplyOverflow, 1);
        }
    }

    /// Answers hellos that waited, once what was asked for before them is in force and kept: a proxy that is killed
    /// afterwards begins with what it has said to have.
    fn greet_waiting(&mut self) {
        if self.is_in_force() && self.is_kept() {
            for client in std::mem::take(&mut self.greeted) {
                self.greet(client.as_ref());
            }
        }
    }

    fn is_in_force(&self) -> bool {
        self.wanted_since.is_none() && self.compiling.is_idle()
    }

    fn greet(&mut self, to: Option<&Arc<Path>>) {
        self.context.telemetry.settle();
        let status = status::status(&self.context);
        self.reply(to, &[status.into()]);
    }

    fn reply(&mut self, to: Option<&Arc<Path>>, replies: &[Reply]) {
        let mut datagrams = Vec::with_capacity(replies.len());
        for reply in replies {
            match reply.encode() {
                Ok(datagram) => datagrams.push(datagram),
                Err(error) => error!(%error, kind = reply.kind().0, "a reply cannot be written"),
            }
        }
        self.replies.push(to, datagrams, &self.context.ctrl);
    }

    fn set_log(&self, directives: &str) {
        let Some(log) = &self.context.log else { return };
        match log.set(directives) {
            Ok(()) => info!(directives, "log filter changed"),
            Err(error) => warn!(%error, "log filter refused"),
        }
    }

    fn ignored(&mut self, reason: &'static str, error: &dyn std::error::Error) {
        self.context.ctrl.invalid(reason);
        self.warn_once(reason, error);
    }

    /// A peer must not fill the log: each kind of trouble is told once, then only counted.
    fn warn_once(&mut self, reason: &'static str, error: &dyn std::error::Error) {
        if self.warned.insert(reason) {
            warn!(%error, reason, "request ignored; from now on only counted");
        }
    }
}

fn ticker() -> Interval {
    let mut ticker = interval(TICK);
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticker
}

/// Time between two ticks.
const TICK: Duration = Duration::from_secs(2);
/// Interfaces are read on the first tick and every fifth one after it.
const TICKS_AN_IDENTITY: u64 = 5;
/// The request that brings a policy, or a chunk of one.
const CFG_POLICY: &str = "ctrl_cfg_policy";
/// Requests that come in chunks.
const CHUNKED: [&str; 4] =
    [CFG_POLICY, "ctrl_cfg_policy_addr", "ctrl_cfg_internal_net", "ctrl_cfg_specip_net"];
/// Longest time that requests which keep coming put off the compilation of what they ask for.
const COALESCE: Duration = Duration::from_millis(50);
/// Hellos that may wait for one policy.
const MAX_GREETED: usize = 16;
