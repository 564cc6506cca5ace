//! The sidecar's metric families. Label sets are closed: never an address, host, path or event id.

use outrider_model::{AppId, Direction, IpProto, PolicyAction, Side, ThreatId};

use crate::{
    flow::Outcome,
    metric::{Counter, CounterFamily, Gauge, MetricError, Registry},
};

/// Why a flow was refused before the other end was dialled, or could not be delivered.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Refusal {
    /// Policy denies it, before a byte was read.
    Policy,
    /// The workload is quarantined.
    Quarantine,
    /// It was meant for one of our own listeners.
    OwnPort,
    /// It was dialled at our listener directly: nothing redirected it.
    NotRedirected,
    /// The original destination could not be read.
    NoOriginalDst,
    /// Nobody listens at the destination.
    ConnectionRefused,
    /// The destination cannot be reached.
    Unreachable,
    /// The destination did not answer in time.
    ConnectTimeout,
    /// Dialling failed otherwise.
    DialError,
    /// Its client opens too many connections.
    SynFlood,
    /// Its client has too many flows open.
    SessionLimit,
    /// More flows than the process may hold.
    TooManyFlows,
    /// The proxy drains.
    Draining,
}

impl Refusal {
    /// All, for the closed label set.
    pub const ALL: [Self; 13] = [
        Self::Policy,
        Self::Quarantine,
        Self::OwnPort,
        Self::NotRedirected,
        Self::NoOriginalDst,
        Self::ConnectionRefused,
        Self::Unreachable,
        Self::ConnectTimeout,
        Self::DialError,
        Self::SynFlood,
        Self::SessionLimit,
        Self::TooManyFlows,
        Self::Draining,
    ];

    /// The closed label of logs and metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Quarantine => "quarantine",
            Self::OwnPort => "own-port",
            Self::NotRedirected => "not-redirected",
            Self::NoOriginalDst => "no-original-dst",
            Self::ConnectionRefused => "connection-refused",
            Self::Unreachable => "unreachable",
            Self::ConnectTimeout => "connect-timeout",
            Self::DialError => "dial-error",
            Self::SynFlood => "syn-flood",
            Self::SessionLimit => "session-limit",
            Self::TooManyFlows => "too-many-flows",
            Self::Draining => "draining",
        }
    }
}

/// Handles of the families; those on the path of every flow are looked up once.
#[derive(Clone, Debug)]
pub struct Metrics {
    opened: [Counter; 2],
    open: [Gauge; 2],
    bytes: [[Counter; 2]; 2],
    packet_sessions: CounterFamily,
    closed: CounterFamily,
    refused: CounterFamily,
    violations: CounterFamily,
    identified: CounterFamily,
    threats: CounterFamily,
    requests: CounterFamily,
    rows_dropped: Counter,
    sessions_dropped: Counter,
    threats_dropped: Counter,
}

const DIRECTIONS: [Direction; 2] = [Direction::Inbound, Direction::Outbound];
const SIDES: [Side; 2] = [Side::Client, Side::Server];

fn index(direction: Direction) -> usize {
    match direction {
        Direction::Inbound => 0,
        Direction::Outbound => 1,
    }
}

impl Metrics {
    /// Registers every family.
    pub(crate) fn register(registry: &Registry) -> Result<Self, MetricError> {
        let opened =
            registry.counters("outrider_flows_opened_total", "Flows taken in", &["direction"])?;
        let open = registry.gauges("outrider_flows_open", "Flows that live", &["direction"])?;
        let bytes = registry.counters(
            "outrider_flow_bytes_total",
            "Bytes passed on, by the side that sent them",
            &["direction", "side"],
        )?;
        Ok(Self {
            opened: DIRECTIONS.map(|direction| opened.with(&[direction.label()])),
            open: DIRECTIONS.map(|direction| open.with(&[direction.label()])),
            bytes: DIRECTIONS
                .map(|direction| SIDES.map(|side| bytes.with(&[direction.label(), side.label()]))),
            packet_sessions: registry.counters(
                "outrider_packet_sessions_total",
                "Flows of which only packets are seen, by protocol; they are among those opened",
                &["direction", "proto"],
            )?,
            closed: registry.counters(
                "outrider_flows_closed_total",
                "Flows ended, by how",
                &["direction", "outcome"],
            )?,
            refused: registry.counters(
                "outrider_flows_refused_total",
                "Flows refused or not delivered, by reason",
                &["direction", "reason"],
            )?,
            violations: registry.counters(
                "outrider_violations_total",
                "Violations of policy, by what the rule or default says",
                &["direction", "action"],
            )?,
            identified: registry.counters(
                "outrider_flows_identified_total",
                "Flows whose identification is final, by application",
                &["direction", "app"],
            )?,
            threats: registry.counters(
                "outrider_threats_total",
                "Threats found, by name and whether the flow was stopped",
                &["threat", "stopped"],
            )?,
            requests: registry.counters(
                "outrider_application_requests_total",
                "Requests read inside flows, by application",
                &["direction", "app"],
            )?,
            rows_dropped: registry.counter(
                "outrider_report_rows_dropped_total",
                "Connection rows lost because the table was full",
            )?,
            sessions_dropped: registry
                .counter("outrider_report_sessions_dropped_total", SESSIONS_DROPPED)?,
            threats_dropped: registry.counter(
                "outrider_report_threats_dropped_total",
                "Threat logs lost because too many were pending",
            )?,
        })
    }

    /// Flows taken in.
    #[must_use]
    pub fn opened(&self, direction: Direction) -> &Counter {
        &self.opened[index(direction)]
    }

    /// Flows that live.
    #[must_use]
    pub fn open_flows(&self, direction: Direction) -> &Gauge {
        &self.open[index(direction)]
    }

    pub(crate) fn bytes(&self, direction: Direction, bytes: [u64; 2]) {
        let [client, server] = &self.bytes[index(direction)];
        client.inc_by(bytes[0]);
        server.inc_by(bytes[1]);
    }

    pub(crate) fn total_bytes(&self) -> [u64; 2] {
        [0, 1].map(|side| self.bytes.iter().map(|counters| counters[side].get()).sum())
    }

    /// Flows of which only packets are seen.
    #[must_use]
    pub fn packet_sessions(&self, direction: Direction, proto: IpProto) -> Counter {
        self.packet_sessions
            .with(&[direction.label(), proto.label()])
    }

    /// Flows ended.
    #[must_use]
    pub fn closed(&self, direction: Direction, outcome: Outcome) -> Counter {
        self.closed.with(&[direction.label(), outcome.label()])
    }

    /// Flows refused or not delivered.
    #[must_use]
    pub fn refused(&self, direction: Direction, reason: Refusal) -> Counter {
        self.refused.with(&[direction.label(), reason.label()])
    }

    /// Violations.
    #[must_use]
    pub fn violations(&self, direction: Direction, action: PolicyAction) -> Counter {
        self.violations.with(&[direction.label(), action.label()])
    }

    /// Flows whose identification is final.
    #[must_use]
    pub fn identified(&self, direction: Direction, app: AppId) -> Counter {
        self.identified.with(&[direction.label(), app_label(app)])
    }

    /// Requests read inside flows.
    #[must_use]
    pub fn requests(&self, direction: Direction, app: AppId) -> Counter {
        self.requests.with(&[direction.label(), app_label(app)])
    }

    /// Threats found.
    #[must_use]
    pub fn threat(&self, id: ThreatId, stopped: bool) -> Counter {
        self.threats
            .with(&[id.name().unwrap_or("other"), if stopped { "true" } else { "false" }])
    }

    /// Connection rows lost.
    #[must_use]
    pub fn rows_dropped(&self) -> &Counter {
        &self.rows_dropped
    }

    /// Sessions that lost rows stood for.
    #[must_use]
    pub fn sessions_dropped(&self) -> &Counter {
        &self.sessions_dropped
    }

    /// Threat logs lost.
    #[must_use]
    pub fn threats_dropped(&self) -> &Counter {
        &self.threats_dropped
    }
}

const SESSIONS_DROPPED: &str = "Sessions that lost connection rows stood for";

/// Applications without a public name share one label, so that the set stays closed.
fn app_label(app: AppId) -> &'static str {
    match app {
        AppId::UNKNOWN | AppId::UNIDENTIFIED => "unknown",
        named => named.name().unwrap_or("other"),
    }
}
