//! The workload's meters, fed by all who see its traffic: floods, sessions of one source, silent
//! clients, scans.
//!
//! What finds a meter on is a threat, logged every 30 seconds at most; in Protect it is stopped too,
//! if its action says so and whoever asked can stop it.

use std::{collections::HashSet, net::IpAddr, sync::Arc};

use outrider_dpi::DpiConfig;
use outrider_model::{AppId, Direction, FlowId, FlowKey, IpProto, MacAddr, Mode, Side};
use outrider_packet::{MeterKind, MeterLog, MeterState, Meters};
use outrider_relay::PolicyHandle;
use outrider_telemetry::{
    Counter, CounterFamily, CutReason, Gauge, Grip, MetricError, Refusal, Registry, Telemetry,
    ThreatReport, unix_seconds,
};
use outrider_wire::{Meter, MeterFlags, MeterId};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::settings::MeterSettings;

#[cfg(test)]
mod tests;

/// All meters, for all threads.
#[derive(Debug)]
pub(crate) struct Metering {
    meters: Mutex<Meters>,
    telemetry: Telemetry,
    policy: PolicyHandle,
    started: Instant,
    /// Connections whose silence was counted.
    silent: Mutex<HashSet<FlowId>>,
    hits: CounterFamily,
    stopped: Counter,
    evicted: Counter,
    current: Gauge,
}

/// One of the flows that its client has open; the meter forgets it with this.
#[derive(Debug)]
pub(crate) struct Pass {
    metering: Arc<Metering>,
    client: IpAddr,
}

impl Drop for Pass {
    fn drop(&mut self) {
        let Self { metering, client } = self;
        metering
            .meters
            .lock()
            .leave(*client, metering.started.elapsed());
    }
}

impl Metering {
    /// Meters with the limits of `settings`; of what they do not say, those of detectors that are on.
    ///
    /// # Errors
    /// When a metric's name is taken.
    pub(crate) fn new(
        settings: &MeterSettings,
        dpi: &DpiConfig,
        telemetry: Telemetry,
        policy: PolicyHandle,
        registry: &Registry,
    ) -> Result<Arc<Self>, MetricError> {
        let meters = Meters::new(|kind| settings.limit(kind, dpi.is_on(kind.threat())));
        Ok(Arc::new(Self {
            meters: Mutex::new(meters),
            telemetry,
            policy,
            started: Instant::now(),
            silent: Mutex::default(),
            hits: registry.counters(
                "outrider_meter_hits_total",
                "What found a meter on, by meter",
                &["meter"],
            )?,
            stopped: registry.counter(
                "outrider_meter_stopped_total",
                "What was dropped, refused or reset because it found a meter on",
            )?,
            evicted: registry.counter(
                "outrider_meters_evicted_total",
                "Meters that went before their time, because there were too many peers",
            )?,
            current: registry.gauge("outrider_meters", "Meters at present")?,
        }))
    }

    /// A flow begins. If it is inbound, it counts as one of its client's until the pass is dropped, and a
    /// TCP connection as an attempt to open one. Whether it can be stopped, `gated` says.
    ///
    /// # Errors
    /// It is one too many, and the workload enforces.
    pub(crate) fn open(
        self: &Arc<Self>,
        key: &FlowKey,
        gated: bool,
    ) -> Result<Option<Pass>, Refusal> {
        if key.direction == Direction::Outbound {
            return Ok(None);
        }
        if key.proto == IpProto::TCP && self.enter(MeterKind::SynFlood, key, gated) {
            return Err(Refusal::SynFlood);
        }
        let sessions = MeterKind::SourceSessions;
        if !self.meters.lock().is_on(sessions) {
            return Ok(None);
        }
        let stops = self.enter(sessions, key, gated);
        let pass = Pass { metering: Arc::clone(self), client: key.client.ip() };
        if stops { Err(Refusal::SessionLimit) } else { Ok(Some(pass)) }
    }

    /// A packet of a flow came by.
    pub(crate) fn packet(&self, key: &FlowKey, side: Side, gated: bool) {
        if is_request(key, side) {
            self.enter(MeterKind::IcmpFlood, key, gated);
        }
    }

    /// Whether each request of ICMP must be asked about, whatever was allowed before.
    pub(crate) fn watches(&self, key: &FlowKey) -> bool {
        is_icmp(key) && self.meters.lock().is_on(MeterKind::IcmpFlood)
    }

    /// Whether a packet must not pass because a meter is on. Counts nothing: what passes by is counted
    /// where it is seen.
    pub(crate) fn stops(&self, key: &FlowKey, side: Side) -> bool {
        let kind = match key.direction {
            _ if is_request(key, side) => MeterKind::IcmpFlood,
            Direction::Inbound if !is_icmp(key) => MeterKind::SourceSessions,
            _ => return false,
        };
        self.enforces() && self.meters.lock().fires(kind, key.client.ip())
    }

    /// A flow came to nothing: its server refused it, or never answered.
    pub(crate) fn failed(&self, key: &FlowKey) {
        let now = self.started.elapsed();
        let reading = self.meters.lock().tried(key.client.ip(), key.server, now);
        if reading.fires {
            self.fire(MeterKind::PortScan, key, reading.log, false);
        }
    }

    /// Lets time pass, and looks for silent clients if that is asked for.
    pub(crate) fn tick(&self) {
        let (evicted, current, looks) = {
            let mut meters = self.meters.lock();
            meters.advance(self.started.elapsed());
            (meters.evicted(), meters.len(), meters.is_on(MeterKind::NoData))
        };
        self.evicted
            .inc_by(evicted.saturating_sub(self.evicted.get()));
        self.current.set(i64::try_from(current).unwrap_or(i64::MAX));
        if looks {
            self.look_for_silence(unix_seconds());
        }
    }

    /// How many meters there are, and what was stopped for any of them.
    #[must_use]
    pub(crate) fn totals(&self) -> (u64, u64) {
        (self.meters.lock().len() as u64, self.stopped.get())
    }

    /// The meters as the wire lists them. It has no number for scans.
    #[must_use]
    pub(crate) fn list(&self, epmac: MacAddr) -> Vec<Meter> {
        let enforced = self.enforces();
        let meters = self.meters.lock();
        meters
            .states(self.started.elapsed())
            .filter_map(|state| meter(&state, epmac, enforced))
            .collect()
    }

    fn enforces(&self) -> bool {
        self.policy.load().mode == Mode::Protect
    }

    /// Counts; whether what happened must be stopped.
    fn enter(&self, kind: MeterKind, key: &FlowKey, gated: bool) -> bool {
        let now = self.started.elapsed();
        let reading = self.meters.lock().enter(kind, key.client.ip(), now);
        reading.fires && self.fire(kind, key, reading.log, gated)
    }

    /// A meter is on; whether what found it so is to be stopped.
    fn fire(&self, kind: MeterKind, key: &FlowKey, log: Option<MeterLog>, gated: bool) -> bool {
        let enforced = self.enforces();
        let stops = enforced && gated && kind.threat().action().stops();
        self.hits.with(&[kind.name()]).inc();
        if stops {
            self.stopped.inc();
        }
        if let Some(log) = log {
            self.telemetry
                .threat(report(kind, key, log, (enforced, stops)));
        }
        stops
    }

    /// Connections that were open for 30 seconds without a byte of their client are counted, each once.
    fn look_for_silence(&self, now: u64) {
        let mut found = Vec::new();
        self.telemetry.flows().for_each(|flow| {
            let key = flow.key();
            let inbound = key.direction == Direction::Inbound && key.proto == IpProto::TCP;
            let old = now.saturating_sub(flow.opened_at()) >= SILENCE;
            if inbound && old && flow.is_established() && flow.bytes()[0] == 0 {
                found.push((flow.id(), *key));
            }
        });
        let silent = found.iter().map(|(id, _)| *id).collect();
        let known = std::mem::replace(&mut *self.silent.lock(), silent);
        for (id, key) in found.iter().filter(|(id, _)| !known.contains(id)) {
            let flow = self.telemetry.flows().find(*id);
            let held = flow.as_ref().is_some_and(|flow| flow.grip() == Grip::Held);
            if self.enter(MeterKind::NoData, key, held)
                && let Some(flow) = flow
            {
                flow.cut(CutReason::Threat);
            }
        }
    }
}

fn is_icmp(key: &FlowKey) -> bool {
    key.proto.is_icmp()
}

fn is_request(key: &FlowKey, side: Side) -> bool {
    is_icmp(key) && side == Side::Client
}

fn report(
    kind: MeterKind,
    key: &FlowKey,
    log: MeterLog,
    (enforced, stopped): (bool, bool),
) -> ThreatReport {
    let MeterLog { hits, count } = log;
    let message = match kind {
        MeterKind::SynFlood => format!("{count} connections of one source at once"),
        MeterKind::IcmpFlood => format!("{count} ICMP requests at once"),
        MeterKind::SourceSessions => format!("{count} flows of one source are open"),
        MeterKind::NoData => format!("{count} clients that say nothing"),
        MeterKind::PortScan => format!("{count} ports or hosts tried in vain"),
    };
    ThreatReport {
        id: kind.threat(),
        direction: key.direction,
        side: Side::Client,
        client: key.client,
        server: key.server,
        proto: key.proto,
        app: AppId::UNKNOWN,
        enforced,
        stopped,
        message,
        evidence: Vec::new(),
        is_packet: false,
        length: 0,
        count: hits,
        reported_at: 0,
    }
}

fn meter(state: &MeterState, epmac: MacAddr, enforced: bool) -> Option<Meter> {
    let meter_id = match state.kind {
        MeterKind::SynFlood => MeterId::SYN_FLOOD,
        MeterKind::IcmpFlood => MeterId::ICMP_FLOOD,
        MeterKind::SourceSessions => MeterId::SESSIONS_PER_SOURCE,
        MeterKind::NoData => MeterId::TCP_NO_DATA,
        MeterKind::PortScan => return None,
    };
    let v4 = state.peer.is_none_or(|peer| peer.is_ipv4());
    Some(Meter {
        epmac,
        idle: u16::try_from(state.idle.as_secs()).unwrap_or(u16::MAX),
        count: state.count,
        last_count: state.last,
        peer_ip: state.peer.map(Into::into).unwrap_or_default(),
        meter_id,
        flags: MeterFlags::NONE
            .with(MeterFlags::IPV4, v4)
            .with(MeterFlags::TAP, !enforced),
        span: state.limit.span(),
        upper_limit: state.limit.upper(),
        lower_limit: state.limit.lower(),
    })
}

/// Seconds of a connection without a byte of its client.
const SILENCE: u64 = 30;
