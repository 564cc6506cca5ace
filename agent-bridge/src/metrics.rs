//! `/metrics` and `/healthz/*`.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use outrider_telemetry::{Gauge, MetricError, Registry};

use crate::{export::Export, node::Node};

/// Gauges that are read from the node when somebody asks.
#[derive(Clone, Debug)]
struct Gauges {
    workloads: Gauge,
    connected: Gauge,
    rules: Gauge,
    conversations: Gauge,
    violations: Gauge,
    threats: Gauge,
    store_failing: Gauge,
    uptime: Gauge,
}

impl Gauges {
    fn register(registry: &Registry) -> Result<Self, MetricError> {
        let gauge =
            |name: &str, help: &str| registry.gauge(&format!("outrider_bridge_{name}"), help);
        Ok(Self {
            workloads: gauge("workloads", "Mailboxes with a workload.")?,
            connected: gauge("proxies_connected", "Proxies that answer.")?,
            rules: gauge("rules", "Rules of the network policy.")?,
            conversations: gauge("conversations", "Conversations kept.")?,
            violations: gauge("violations", "Kinds of violations kept.")?,
            threats: gauge("threats", "Threats kept.")?,
            store_failing: gauge("store_failing", "1 while the store cannot be written.")?,
            uptime: gauge("uptime_seconds", "Seconds since the bridge started.")?,
        })
    }

    fn read(&self, node: &Node) {
        let status = node.status();
        let set = |gauge: &Gauge, value: u64| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        set(&self.workloads, status.workloads);
        set(&self.connected, status.proxies_connected);
        set(&self.rules, status.rules);
        set(&self.conversations, status.conversations);
        set(&self.violations, status.violations);
        set(&self.threats, status.threats);
        set(&self.store_failing, status.store.failing.is_some().into());
        set(&self.uptime, status.uptime);
    }
}

#[derive(Clone, Debug)]
struct Exposed {
    node: Arc<Node>,
    export: Export,
    registry: Registry,
    gauges: Gauges,
}

/// The routes of the health port.
///
/// # Errors
/// When a family's name is taken.
pub(crate) fn router(
    node: Arc<Node>,
    export: Export,
    registry: Registry,
) -> Result<Router, MetricError> {
    let gauges = Gauges::register(&registry)?;
    Ok(Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(live))
        .route("/healthz/live", get(live))
        .route("/healthz/ready", get(ready))
        .with_state(Exposed { node, export, registry, gauges }))
}

async fn metrics(State(exposed): State<Exposed>) -> Response {
    exposed.gauges.read(&exposed.node);
    exposed.export.measure();
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
