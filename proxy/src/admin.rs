//! What people and kubelets ask: metrics and health for everybody, the admin surface on loopback.

use std::{
    net::{Ipv4Addr, Ipv6Addr, TcpListener},
    sync::Arc,
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use nix::sys::socket::{setsockopt, sockopt};
use serde::{Deserialize, Serialize};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use crate::{
    context::{Context, SharedContext},
    settings::Secret,
    status,
    survive::Lives,
};

mod probe;
#[cfg(test)]
mod tests;

/// Sockets of the two surfaces, bound before anything is served.
#[derive(Debug)]
pub(crate) struct Surfaces {
    health: Vec<TcpListener>,
    admin: Vec<TcpListener>,
}

impl Surfaces {
    /// Binds health and admin port, and marks what the health port answers, so that the pod's rules know it as ours. Either
    /// family may be missing from the kernel, not both.
    pub(crate) fn bind(ports: [u16; 2], mark: Option<Secret>) -> Result<Self, std::io::Error> {
        let [health, admin] = ports;
        let dual = TcpListener::bind((Ipv6Addr::UNSPECIFIED, health));
        let health = dual.or_else(|_no_v6| TcpListener::bind((Ipv4Addr::UNSPECIFIED, health)))?;
        let loopback = TcpListener::bind((Ipv4Addr::LOCALHOST, admin))?;
        let port = loopback.local_addr()?.port();
        let mut admin = vec![loopback];
        admin.extend(TcpListener::bind((Ipv6Addr::LOCALHOST, port)).ok());
        if let Some(mark) = mark {
            setsockopt(&health, sockopt::Mark, &mark.reveal())?;
        }
        Ok(Self { health: vec![health], admin })
    }

    /// Binds those that the settings name.
    pub(crate) fn of(context: &Context) -> Result<Self, std::io::Error> {
        let ports = [context.settings.health_port, context.settings.admin_port];
        Self::bind(ports, context.own_mark())
    }

    /// Serves until `stop`.
    pub(crate) async fn serve(self, context: Arc<Context>, stop: CancellationToken) {
        let tasks = TaskTracker::new();
        let surfaces = [
            (self.health, health_router(Arc::clone(&context))),
            (self.admin, admin_router(context)),
        ];
        for (sockets, router) in surfaces {
            for socket in sockets {
                tasks.spawn(serve(socket, router.clone(), stop.clone()));
            }
        }
        tasks.close();
        stop.cancelled().await;
        // A peer that keeps its connection open must not keep the process.
        let _late = tokio::time::timeout(GOODBYE, tasks.wait()).await;
    }
}

/// Serves both surfaces until `stop`, whatever breaks.
pub(crate) async fn run(first: Surfaces, context: SharedContext, stop: CancellationToken) {
    let mut first = Some(first);
    let mut life = async || match first.take().map_or_else(|| Surfaces::of(&context), Ok) {
        Ok(surfaces) => surfaces.serve(Arc::clone(&context), stop.clone()).await,
        Err(error) => warn!(%error, "health and admin ports"),
    };
    let lives = Lives::new("admin", &context.restarts, &stop);
    while lives.once(life()).await {}
}

async fn serve(socket: TcpListener, router: Router, stop: CancellationToken) {
    let served = async {
        socket.set_nonblocking(true)?;
        let socket = tokio::net::TcpListener::from_std(socket)?;
        axum::serve(socket, router.into_make_service_with_connect_info::<probe::Asked>())
            .with_graceful_shutdown(stop.cancelled_owned())
            .await
    };
    if let Err(error) = served.await {
        warn!(%error, "surface failed");
    }
}

/// `/metrics` and `/healthz`.
pub(crate) fn health_router(context: Arc<Context>) -> Router {
    let probes = probe::Probes::new(&context);
    let app = get(probe::tcp).with_state(Arc::clone(&probes));
    let more = get(probe::more).with_state(probes);
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz/live", get(|| async { "live\n" }))
        .route("/healthz/ready", get(ready))
        .route("/healthz/app/tcp/{port}", app)
        .route("/healthz/app/{kind}/{port}/{*path}", more.clone())
        .route("/healthz/app/{kind}/{port}/", more)
        .with_state(context)
}

/// The admin surface.
pub(crate) fn admin_router(context: Arc<Context>) -> Router {
    Router::new()
        .route("/", get(|| async { INDEX }))
        .route("/status", get(show_status))
        .route("/flows", get(show_flows))
        .route("/config", get(show_config))
        .route("/log", post(set_log))
        .with_state(context)
}

async fn metrics(State(context): State<Arc<Context>>) -> Response {
    match context.telemetry.expose(&context.registry) {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn ready(State(context): State<Arc<Context>>) -> Response {
    let waits_for = context.readiness.waits_for();
    if waits_for.is_empty() {
        return "ready\n".into_response();
    }
    let text = format!("not ready: waits for {}\n", waits_for.join(", "));
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

async fn show_status(State(context): State<Arc<Context>>) -> Json<impl Serialize> {
    context.telemetry.settle();
    Json(status::detailed(&context))
}

/// How many flows to show.
#[derive(Debug, Deserialize)]
struct Limit {
    limit: Option<usize>,
}

async fn show_flows(
    State(context): State<Arc<Context>>,
    Query(Limit { limit }): Query<Limit>,
) -> Json<impl Serialize> {
    context.telemetry.settle();
    let limit = limit.unwrap_or(FLOWS_SHOWN).min(MAX_FLOWS_SHOWN);
    Json(status::flows(&context.telemetry, &context.names, limit))
}

async fn show_config(State(context): State<Arc<Context>>) -> String {
    format!("{:#?}\n", context.settings)
}

/// The filter to log with from now on.
#[derive(Debug, Deserialize)]
struct Level {
    level: String,
}

async fn set_log(State(context): State<Arc<Context>>, Query(level): Query<Level>) -> Response {
    let Some(log) = &context.log else {
        return (StatusCode::CONFLICT, "this process has no log of its own\n").into_response();
    };
    match log.set(&level.level) {
        Ok(()) => {
            info!(level = %level.level, "log filter changed");
            format!("logging {}\n", level.level).into_response()
        }
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    }
}

const INDEX: &str = "\
GET  /status       mode, policy, rights, sums
GET  /flows        what is open now, ?limit=N
GET  /config       settings in force
POST /log?level=L  log filter from now on
";
/// Flows shown unless the caller says otherwise.
const FLOWS_SHOWN: usize = 1000;
/// Most flows shown.
const MAX_FLOWS_SHOWN: usize = 100_000;
/// How long a peer may keep its connection open when the process ends.
const GOODBYE: Duration = Duration::from_millis(200);
