//! Connections and sockets of the pod that never crossed the proxy.
//!
//! Three things are held against what the proxy knows of itself: what begins on the wire (with a tap),
//! the sockets and interfaces of the pod every other second, its raw sockets at each tick. What fits
//! nothing is a finding: a threat with evidence, counted by trick. A connection among them is handed
//! to the engine, and where the workload enforces to whoever resets it.

mod known;
mod metrics;
mod openings;
mod process;
mod raw;
mod scanner;
mod segment;
#[cfg(test)]
mod tests;
mod trick;

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    time::Duration,
};

use outrider_capture::{CaptureError, Frame, MAX_FILTER_PORTS, Sockets};
use outrider_model::{Direction, Mode};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep_until},
};
use tracing::{info, warn};

pub(crate) use self::metrics::BypassMetrics;
use self::{
    known::Known,
    openings::Openings,
    raw::RawSockets,
    scanner::{Looked, Scanner},
    trick::{Ends, Finding, Trick},
};
use crate::context::SharedContext;

/// How often the pod's sockets are looked at, at least this far apart.
const PAUSE: Duration = Duration::from_secs(2);
/// The same when something was seen that the next look will judge.
const SHORT_PAUSE: Duration = Duration::from_millis(500);
/// A look may take one part in so many of the time.
const SHARE: u32 = 50;
/// Connections past the proxy whose segments are shown to the engine at once.
const MAX_HANDED: usize = 1024;
/// Ports and networks that are left out on purpose and were said to be used.
const MAX_SAID: usize = 1024;
/// How long a connection is shown to the engine after it was last found.
const HANDED: Duration = Duration::from_secs(60);
/// A finding of one kind is logged no more often.
const LOG_PAUSE: Duration = Duration::from_secs(10);

/// Looks for ways past the proxy.
#[derive(Debug)]
pub(crate) struct Bypass {
    context: SharedContext,
    known: Known,
    sockets: Sockets,
    openings: Openings,
    raw: RawSockets,
    scan: Scan,
    /// Connections past the proxy, and until when their segments are shown to the engine.
    handed: HashMap<(SocketAddr, SocketAddr), Handed>,
    /// When a finding of that kind was last logged.
    logged: HashMap<Trick, Instant>,
    said: HashSet<u16>,
    condemned: Vec<(SocketAddr, SocketAddr)>,
    ports: Vec<u16>,
    /// Somebody resets what is condemned.
    resets: bool,
}

#[derive(Clone, Copy, Debug)]
struct Handed {
    /// The port whose segments the tap must show.
    port: u16,
    until: Instant,
}

/// The look that runs, or the next one.
#[derive(Debug)]
enum Scan {
    At(Instant, Box<Scanner>),
    Running(JoinHandle<(Box<Scanner>, Looked, Duration)>),
    Over,
}

impl Bypass {
    /// Begins to look; `resets` says that somebody resets what [`Self::take_condemned`] gives.
    ///
    /// # Errors
    /// The kernel does not show the pod's sockets.
    pub(crate) fn new(context: SharedContext, resets: bool) -> Result<Self, CaptureError> {
        context.legs.watch();
        let known = Known::new(SharedContext::clone(&context));
        let scanner = Box::new(Scanner::new(known.clone())?);
        let mut bypass = Self {
            context,
            known,
            sockets: Sockets::open()?,
            openings: Openings::default(),
            raw: RawSockets::default(),
            scan: Scan::At(Instant::now(), scanner),
            handed: HashMap::new(),
            logged: HashMap::new(),
            said: HashSet::new(),
            condemned: Vec::new(),
            ports: Vec::new(),
            resets,
        };
        bypass.ports = bypass.wanted_ports();
        Ok(bypass)
    }

    /// Looks at a frame of the tap. Whether the engine is to see it: all that is not TCP, and what does
    /// not cross the proxy of that.
    pub(crate) fn frame(&mut self, frame: &Frame<'_>) -> bool {
        let Some((segment, leaves)) = openings::segment(frame) else { return true };
        if leaves {
            let found = self.openings.look(&segment, &self.known, &mut self.sockets);
            found.into_iter().for_each(|finding| self.found(finding));
        }
        let (local, remote) = if leaves {
            (segment.source, segment.target)
        } else {
            (segment.target, segment.source)
        };
        let left_out = self.known.is_uncaptured([local.port(), remote.port()]);
        self.handed.contains_key(&(local, remote)) || left_out && !self.known.is_leg(local, remote)
    }

    /// Does what is due ten times a second.
    pub(crate) fn tick(&mut self) {
        let mut findings = Vec::new();
        self.openings
            .due(&self.known, &mut self.sockets, |finding| findings.push(finding));
        match self.raw.look(&self.known, |finding| findings.push(finding)) {
            Ok(unread) => self.context.packets.bypass().unread.inc_by(unread),
            Err(error) => tracing::debug!(%error, "raw sockets cannot be looked at"),
        }
        findings.into_iter().for_each(|finding| self.found(finding));
        let metrics = self.context.packets.bypass();
        metrics
            .unread
            .inc_by(std::mem::take(&mut self.openings.overflow));
        metrics
            .undecided
            .inc_by(std::mem::take(&mut self.openings.undecided));
        let now = Instant::now();
        self.handed.retain(|_, handed| handed.until > now);
    }

    /// Waits for the next look at the pod's sockets and takes in what it found. Dropping the future
    /// loses nothing.
    pub(crate) async fn scan(&mut self) {
        match &mut self.scan {
            Scan::Over => std::future::pending().await,
            Scan::At(at, _) => {
                sleep_until(*at).await;
                self.begin();
            }
            Scan::Running(running) => match running.await {
                Ok((scanner, looked, took)) => self.looked(scanner, looked, took),
                Err(error) => {
                    warn!(%error, "the pod's sockets are no longer looked at");
                    self.scan = Scan::Over;
                }
            },
        }
    }

    fn begin(&mut self) {
        let Scan::At(_, mut scanner) = std::mem::replace(&mut self.scan, Scan::Over) else {
            return;
        };
        self.scan = Scan::Running(tokio::task::spawn_blocking(move || {
            let started = Instant::now();
            let looked = scanner.look();
            (scanner, looked, started.elapsed())
        }));
    }

    fn looked(&mut self, scanner: Box<Scanner>, looked: Looked, took: Duration) {
        let pause = if looked.again { SHORT_PAUSE } else { PAUSE };
        self.scan = Scan::At(Instant::now() + pause.max(took * SHARE), scanner);
        let metrics = self.context.packets.bypass();
        metrics.unread.inc_by(looked.unread);
        metrics.undecided.inc_by(looked.undecided);
        looked
            .findings
            .into_iter()
            .for_each(|finding| self.found(finding));
        looked
            .lasting
            .into_iter()
            .for_each(|ends| self.hand_over(ends));
    }

    /// Reports what was found and does what the mode says.
    fn found(&mut self, mut finding: Finding) {
        let trick = finding.trick;
        let stops = trick.threat().action().stops();
        if !self.is_news(&finding) {
            return;
        }
        let metrics = self.context.packets.bypass();
        metrics.found(trick);
        // Who makes thousands of them fills no disk, and has us look for a process only now and then.
        let due = self
            .logged
            .get(&trick)
            .is_none_or(|logged| logged.elapsed() >= LOG_PAUSE);
        finding.name_owner(due);
        let enforced = self.enforces();
        let stopped = enforced && stops && finding.ends.is_some() && self.resets;
        if due {
            self.logged.insert(trick, Instant::now());
            let evidence = String::from_utf8_lossy(&finding.evidence);
            let (trick, evidence) = (trick.label(), evidence.escape_debug());
            info!(trick, stopped, %evidence, "{}", finding.message);
        }
        self.context
            .telemetry
            .threat(finding.report(enforced, stopped));
        if let Some(ends) = finding.ends.filter(|_| stops) {
            self.hand_over(ends);
        }
    }

    /// Whether it is to be reported: what is left out on purpose once a port, a connection once.
    fn is_news(&mut self, finding: &Finding) -> bool {
        match (finding.trick, finding.ends) {
            (Trick::Uncaptured, Some(ends)) => {
                let port = self.known.uncaptured(&ends).unwrap_or_default();
                self.said.len() < MAX_SAID && self.said.insert(port)
            }
            (Trick::Flags, _) | (_, None) => true,
            (_, Some(ends)) => !self.handed.contains_key(&(ends.local, ends.remote)),
        }
    }

    fn enforces(&self) -> bool {
        self.context.policy.load().mode == Mode::Protect
    }

    /// Shows a connection's segments to the engine from now on, and has it reset in Protect.
    fn hand_over(&mut self, ends: Ends) {
        let pair = (ends.local, ends.remote);
        if self.handed.len() < MAX_HANDED || self.handed.contains_key(&pair) {
            let port = match ends.direction {
                Direction::Outbound => ends.remote.port(),
                Direction::Inbound => ends.local.port(),
            };
            self.handed
                .insert(pair, Handed { port, until: Instant::now() + HANDED });
        }
        if self.enforces() {
            self.condemned.push((ends.local, ends.remote));
        }
    }

    /// Connections to be reset since the last call, the pod's end first.
    pub(crate) fn take_condemned(&mut self) -> Vec<(SocketAddr, SocketAddr)> {
        std::mem::take(&mut self.condemned)
    }

    /// Ports whose segments the tap must show, if they are others than at the last call.
    pub(crate) fn take_ports(&mut self) -> Option<Vec<u16>> {
        let wanted = self.wanted_ports();
        if wanted == self.ports {
            return None;
        }
        self.ports.clone_from(&wanted);
        Some(wanted)
    }

    /// Those left out on purpose come first; of the others as many as a filter can name.
    fn wanted_ports(&self) -> Vec<u16> {
        let left_out = self.context.settings.packets.uncaptured.iter().copied();
        let mut handed: Vec<u16> = self.handed.values().map(|handed| handed.port).collect();
        handed.sort_unstable();
        handed.dedup();
        let mut ports: Vec<u16> = left_out.collect();
        handed.retain(|port| !ports.contains(port));
        ports.extend(handed);
        ports.truncate(MAX_FILTER_PORTS);
        ports
    }
}
