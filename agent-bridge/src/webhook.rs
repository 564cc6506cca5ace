//! The `webhook` role: tells the API server what becomes of a pod.
//!
//! ```text
//!  API server ── TLS ── serve ── review ──► inject (pure) ──► patch, refusal
//!                         │         ▲
//!       certificate ──────┘         └── namespaces: known before anybody asks
//!         ▲
//!  files, or authority: made, made known, served, renewed
//! ```

pub(crate) mod authorities;
pub(crate) mod authority;
mod bundle;
mod certificate;
mod counts;
mod kubernetes;
mod namespaces;
mod refusals;
mod review;
mod serve;
pub mod settings;
pub(crate) mod validity;

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
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::sync::CancellationToken;

use crate::cluster::client::{self, ClientError};

pub use authority::Terms;
pub use serve::MAX_BODY;

use self::{
    authority::{Authority, Pair},
    bundle::Bundle,
    certificate::Certificate,
    counts::Counts,
    kubernetes::Kubernetes,
    namespaces::Table,
    serve::{Shared, Waits},
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
    /// There is no way to the API server.
    #[error("OUTRIDER_WEBHOOK_KUBE: {0}")]
    Kubernetes(#[from] ClientError),
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
    kubernetes: Option<Kubernetes>,
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
        let client = match &settings.kube {
            Some(source) => Some(client::client(source).await?),
            None => None,
        };
        let bundle = client
            .clone()
            .filter(|_| settings.given.is_none())
            .map(|client| Bundle::new(client, settings.configuration.clone(), counts.clone()));
        let own = match settings.given {
            Some(_) => None,
            None => Some(own(&settings, bundle.clone(), terms).map_err(WebhookError::Certificate)?),
        };
        let loaded = match (&own, &settings.given) {
            (Some((_, pair)), _) => Ok(pair.loaded.clone()),
            (None, Some(given)) => {
                certificate::load(given, &settings.names, settings.client_ca.as_deref())
            }
            (None, None) => Err(io::Error::other("neither given nor made")),
        };
        let loaded = loaded.map_err(WebhookError::Certificate)?;
        let table = || Arc::new(Table::new(counts.clone()));
        let namespaces = match &settings.namespaces {
            Namespaces::None => client.as_ref().map(|_| table()),
            Namespaces::File(path) => {
                let table = table();
                table.read(path).map_err(WebhookError::Namespaces)?;
                Some(table)
            }
        };
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, settings.metrics_port));
        let all = SocketAddr::from(([0u16; 8], settings.metrics_port));
        let metrics = match TcpListener::bind(all).await {
            Ok(listener) => listener,
            Err(_no_v6) => listen("OUTRIDER_WEBHOOK_METRICS_PORT", any).await?,
        };
        let listener = listen("OUTRIDER_WEBHOOK_LISTEN", settings.listen).await?;
        let certificate = Certificate::new(loaded, counts.clone());
        let shared = Shared::new(settings.cluster.clone(), namespaces, certificate, counts);
        let (shared, kubernetes) = match client {
            None => (shared, None),
            Some(client) => {
                let (teller, refusals) = mpsc::channel(refusals::MAX_WAITING);
                let said = [settings.cluster.kubernetes, settings.cluster.oldest_node];
                let bundles = bundle.iter().flat_map(|_| kubernetes::BUNDLE);
                let waits =
                    Waits::new(bundles.chain([kubernetes::NAMESPACES, kubernetes::VERSIONS]));
                let shared = shared.with_kubernetes(waits, teller);
                (shared, Some(Kubernetes { client, bundle, refusals, said }))
            }
        };
        let shared = Arc::new(shared);
        Ok(Self { settings, own, kubernetes, shared, registry, listener, metrics })
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
        let Self { settings, own, kubernetes, shared, registry, listener, metrics } = self;
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
            match (&shared.namespaces, kubernetes, &settings.namespaces) {
                (Some(table), Some(kubernetes), _) => {
                    Box::pin(kubernetes.run(&shared, table)).await;
                }
                (Some(table), None, Namespaces::File(path)) => {
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
            () = follow => Some("the reader of namespaces"),
            _ = axum::serve(metrics, health) => Some("the metrics"),
        };
        ended.map_or(Ok(()), |part| Err(WebhookError::Ended(part)))
    }
}

fn own(
    settings: &Settings,
    bundle: Option<Arc<Bundle>>,
    terms: Terms,
) -> io::Result<(Authority, Pair)> {
    let authority = Authority {
        names: settings.names.clone(),
        client_ca: settings.client_ca.clone(),
        file: settings.bundle.clone(),
        bundle,
        terms,
    };
    let pair = authority.make()?;
    authority.begin(&pair)?;
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

/// Ready means: who checks the certificate takes it, and all is known that answers are made of.
async fn ready(State((_, shared)): State<Served>) -> Response {
    let now = unix_seconds();
    if let Some(wrong) = shared.certificate.wrong(now) {
        let text = format!("the certificate is of no use: {wrong}\n");
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    }
    let left = shared.waits.left();
    if !left.is_empty() {
        let text = format!("not known yet: {}\n", left.join(", "));
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    }
    match shared.namespaces.as_ref().and_then(|table| table.age(now)) {
        None => "ok\n".into_response(),
        Some(age) => format!("ok, with namespaces as they were {age} s ago\n").into_response(),
    }
}
