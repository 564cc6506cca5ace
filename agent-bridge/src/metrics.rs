//! `/metrics` and `/healthz/*`.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use outrider_api::{ProxyState, Status};
use outrider_model::Mode;
use outrider_telemetry::{Gauge, GaugeFamily, MetricError, Registry};

use crate::{
    counts::Unserved,
    node::{Node, TIERS},
};

const MODES: [Mode; 3] = [Mode::Discover, Mode::Monitor, Mode::Protect];

/// Gauges that are read from the node when somebody asks.
#[derive(Clone, Debug)]
struct Gauges {
    single: Vec<Gauge>,
    proxies: GaugeFamily,
    tiers: GaugeFamily,
    modes: GaugeFamily,
    learned: GaugeFamily,
    refused: GaugeFamily,
}

/// A gauge without labels: its name, what it is, and where it stands in the status.
type Single = (&'static str, &'static str, fn(&Status) -> u64);

const SINGLE: [Single; 21] = [
    ("workloads", "Mailboxes with a workload.", |status| status.workloads),
    ("proxies_connected", "Proxies that answer.", |status| status.proxies_connected),
    ("rules", "Rules of the network policy.", |status| status.rules),
    ("rule_candidates", "Beginnings of rules.", |status| status.coverage.candidates),
    ("conversations", "Conversations kept.", |status| status.conversations),
    ("violations", "Kinds of violations kept.", |status| status.violations),
    ("threats", "Threats kept.", |status| status.threats),
    ("store_failing", "1 while the store cannot be written.", |status| {
        status.store.failing.is_some().into()
    }),
    ("store_bytes", "Size of the store's file.", |status| status.store.bytes),
    ("uptime_seconds", "Seconds since the bridge started.", |status| status.uptime),
    ("ready", "1 while the bridge can be relied on.", |status| status.not_ready.is_none().into()),
    (
        "policy_generation",
        "Times that compiled policy changed since the bridge started.",
        |status| status.coverage.generation,
    ),
    (
        "policy_lagging_proxies",
        "Proxies that answer and do not have their newest policy yet.",
        |status| status.coverage.lagging,
    ),
    ("policy_lag_seconds", "Longest time that one of them has waited for it.", |status| {
        status.coverage.lag
    }),
    ("cluster_linked", "1 while there is a link to the cluster's controller.", |status| {
        status
            .cluster
            .as_ref()
            .is_some_and(|link| link.state == "linked")
            .into()
    }),
    ("cluster_waiting", "Sums of what was seen that wait for the controller.", |status| {
        status.cluster.as_ref().map_or(0, |link| link.waiting)
    }),
    ("cluster_dropped", "Rows that the controller never hears of.", |status| {
        status.cluster.as_ref().map_or(0, |link| link.dropped)
    }),
    (
        "policy_refusing_proxies",
        "Proxies that answer and refuse their policy: the one before it stays in force.",
        |status| status.coverage.refusing,
    ),
    (
        "rules_kept_workloads",
        "Workloads whose rules this store never had, and whose proxy goes on with its own.",
        |status| status.rules_kept.len() as u64,
    ),
    ("event_listeners", "Listeners to the stream of events.", |status| status.listeners),
    ("export_sinks_failing", "Sinks whose last delivery failed.", |status| {
        status
            .export
            .iter()
            .filter(|sink| sink.failures > 0)
            .count() as u64
    }),
];

impl Gauges {
    fn register(registry: &Registry) -> Result<Self, MetricError> {
        let name = |name: &str| format!("outrider_bridge_{name}");
        let mut single = Vec::with_capacity(SINGLE.len());
        for (known, help, _) in SINGLE {
            single.push(registry.gauge(&name(known), help)?);
        }
        let family =
            |known: &str, help: &str, label: &str| registry.gauges(&name(known), help, &[label]);
        Ok(Self {
            single,
            proxies: family("proxies", "Workloads by what is known of their proxy.", "state")?,
            tiers: family(
                "proxy_tiers",
                "Proxies that answer, by what they see and can stop.",
                "tier",
            )?,
            modes: family("workload_modes", "Workloads by the mode of their group.", "mode")?,
            learned: family(
                "learned_rules",
                "Learned rules by the mode of the group that they let in.",
                "mode",
            )?,
            refused: family(
                "mailboxes_refused",
                "Mailboxes that are not served, by reason.",
                "reason",
            )?,
        })
    }

    fn read(&self, status: &Status) {
        for (gauge, (.., read)) in self.single.iter().zip(SINGLE) {
            set(gauge, read(status));
        }
        let covered = &status.coverage;
        for (state, count) in
            ProxyState::ALL
                .into_iter()
                .zip([covered.connected, covered.down, covered.never])
        {
            set(&self.proxies.with(&[state.label()]), count);
        }
        let modes = || MODES.iter().map(|mode| mode.name());
        set_all(&self.tiers, TIERS, &covered.tiers);
        set_all(&self.modes, modes(), &covered.modes);
        set_all(&self.learned, modes(), &covered.learned);
        let reasons = Unserved::ALL.iter().map(|why| why.label());
        set_all(&self.refused, reasons, &covered.refused);
    }
}

/// Sets every gauge of a closed set, those that do not occur too.
fn set_all(
    family: &GaugeFamily,
    labels: impl IntoIterator<Item = &'static str>,
    counts: &BTreeMap<String, u64>,
) {
    for label in labels {
        let count = counts.get(label).copied().unwrap_or_default();
        set(&family.with(&[label]), count);
    }
}

fn set(gauge: &Gauge, value: u64) {
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
}

#[derive(Clone, Debug)]
struct Exposed {
    node: Arc<Node>,
    registry: Registry,
    gauges: Gauges,
}

/// The routes of the health port.
///
/// # Errors
/// When a family's name is taken.
pub(crate) fn router(node: Arc<Node>, registry: Registry) -> Result<Router, MetricError> {
    let gauges = Gauges::register(&registry)?;
    Ok(Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(live))
        .route("/healthz/live", get(live))
        .route("/healthz/ready", get(ready))
        .with_state(Exposed { node, registry, gauges }))
}

async fn metrics(State(exposed): State<Exposed>) -> Response {
    exposed.gauges.read(&exposed.node.status());
    match exposed.registry.expose() {
        Ok(text) => ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn live() -> &'static str {
    "ok\n"
}

/// Ready means: the mailbox root was read once, and what is acknowledged is stored.
async fn ready(State(exposed): State<Exposed>) -> Response {
    match exposed.node.not_ready() {
        None => "ok\n".into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}
