//! The `webhook` role: tells the API server what becomes of a pod.
//!
//! ```text
//!  API server ── TLS ── serve ── review ──► inject (pure) ──► patch, refusal
//!                         │         ▲
//!       certificate ──────┘         └── namespaces: known before anybody asks
//!         ▲
//!  files, or authority: made, made known, served, renewed
//! ```

mod authority;
mod certificate;
mod counts;
mod namespaces;
mod review;
mod serve;
pub mod settings;
mod validity;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use outrider_telemetry::{MetricError, Registry, unix_seconds};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use authority::Terms;
pub use serve::MAX_BODY;

use self::{
    authority::{Authority, Pair},
    certificate::Certificate,
    counts::Counts,
    namespaces::Table,
    serve::Shared,
    settings::{Namespaces, Settings},
};

/// Why a webhook does not start, or does not go on.
#[derive(Debug, Error)]
pub enum WebhookError {
    /// A listener cannot be opened.
    #[error("{setting}: cannot listen on {address}: {source}")]
    Listen {
        /// The setting that names it.
        setting: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The certificate cannot be used.
    #[error("certificate: {0}")]
    Certificate(#[source] io::Error),
    /// The namespaces cannot be read.
    #[error("OUTRIDER_WEBHOOK_NAMESPACES: {0}")]
    Namespaces(#[source] io::Error),
    /// A metric family cannot be registered.
    #[error(transparent)]
    Metrics(#[from] MetricError),
    /// A part that never ends ended.
    #[error("{0} ended unexpectedly")]
    Ended(&'static str),
}

/// A webhook whose listeners are bound.
#[derive(Debug)]
pub struct Webhook {
    settings: Settings,
    own: Option<(Authority, Pair)>,
    shared: Arc<Shared>,
    registry: Registry,
    listener: TcpListener,
    metrics: TcpListener,
}

impl Webhook {
    /// Reads or makes the certificate, reads the namespaces, binds the listeners.
    ///
    /// # Errors
    /// When any of it fails; nothing runs then.
    pub async fn open(settings: Settings, terms: Terms) -> Result<Self, WebhookError> {
        let registry = Registry::default();
        let counts = Counts::register(&registry)?;
        let own = match settings.given {
            Some(_) => None,
            None => Some(own(&settings, terms).map_err(WebhookError::Certificate)?),
        };
        let loaded = match (&own, &settings.given) {
            (Some((_, pair)), _) => Ok(pair.loaded.clone()),
            (None, Some(given)) => {
                certificate::load(given, &settings.names, settings.client_ca.as_deref())
            }
            (None, None) => Err(io::Error::other("neither given nor made")),
        };
        let loaded = loaded.map_err(WebhookError::Certificate)?;
        let namespaces = match &settings.namespaces {
            Namespaces::None => None,
            Namespaces::File(path) => {
                let table = Table::new(counts.clone());
                table.read(path).map_err(WebhookError::Namespaces)?;
                Some(Arc::new(table))
            }
        };
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, settings.metrics_port));
        let all = SocketAddr::from(([0u16; 8], settings.metrics_port));
        let metrics = match TcpListener::bind(all).await {
            Ok(listener) => listener,
            Err(_no_v6) => listen("OUTRIDER_WEBHOOK_METRICS_PORT", any).await?,
        };
        let listener = listen("OUTRIDER_WEBHOOK_LISTEN", settings.listen).await?;
        let shared = Arc::new(Shared {
            cluster: settings.cluster.clone(),
            namespaces,
            certificate: Certificate::new(loaded, counts.clone()),
            counts,
            room: Shared::room(),
        });
        Ok(Self { settings, own, shared, registry, listener, metrics })
    }

    /// Where the API server is answered, which a setting of port 0 leaves open.
    ///
    /// # Errors
    /// What the system says.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Where `/metrics` is served.
    ///
    /// # Errors
    /// What the system says.
    pub fn metrics_address(&self) -> io::Result<SocketAddr> {
        self.metrics.local_addr()
    }

    /// Runs until `stop`; what is being answered then is answered.
    ///
    /// # Errors
    /// When a part ends that should not.
    pub async fn run(self, stop: CancellationToken) -> Result<(), WebhookError> {
        let Self { settings, own, shared, registry, listener, metrics } = self;
        let health = Router::new()
            .route("/metrics", get(exposed))
            .route("/healthz", get(live))
            .route("/healthz/live", get(live))
            .route("/healthz/ready", get(ready))
            .with_state((registry, Arc::clone(&shared)));
        let keep = async {
            match (own, &settings.given) {
                (Some((authority, pair)), _) => authority.renew(pair, &shared.certificate).await,
                (None, Some(given)) => {
                    let client_ca = settings.client_ca.as_deref();
                    shared
                        .certificate
                        .follow(given, &settings.names, client_ca)
                        .await;
                }
                (None, None) => {}
            }
        };
        let follow = async {
            match (&shared.namespaces, &settings.namespaces) {
                (Some(table), Namespaces::File(path)) => {
                    Arc::clone(table).follow(path.clone()).await;
                }
                _ => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            biased;
            () = serve::serve(listener, Arc::clone(&shared), stop.clone()) => {
                (!stop.is_cancelled()).then_some("the listener")
            }
            () = keep => Some("the certificate's keeper"),
            () = follow => Some("the namespaces' reader"),
            _ = axum::serve(metrics, health) => Some("the metrics"),
        };
        ended.map_or(Ok(()), |part| Err(WebhookError::Ended(part)))
    }
}

fn own(settings: &Settings, terms: Terms) -> io::Result<(Authority, Pair)> {
    let authority = Authority {
        names: settings.names.clone(),
        client_ca: settings.client_ca.clone(),
        bundle: settings.bundle.clone(),
        terms,
    };
    let pair = authority.make()?;
    authority.publish(&[&pair])?;
    Ok((authority, pair))
}

async fn listen(setting: &'static str, address: SocketAddr) -> Result<TcpListener, WebhookError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| WebhookError::Listen { setting, address, source })
}

type Served = (Registry, Arc<Shared>);

async fn exposed(State((registry, _)): State<Served>) -> Response {
    match registry.expose() {
        Ok(text) => ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn live() -> &'static str {
    "ok\n"
}

/// Ready means: who checks the certificate takes it.
async fn ready(State((_, shared)): State<Served>) -> Response {
    match shared.certificate.wrong(unix_seconds()) {
        None => "ok\n".into_response(),
        Some(wrong) => {
            let text = format!("the certificate is of no use: {wrong}\n");
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
    }
}
