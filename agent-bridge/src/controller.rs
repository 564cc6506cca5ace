//! The `controller` role: what people write as objects becomes what each node's bridge needs, and what the bridges
//! see becomes learned policy of the cluster. Kubernetes is the store; there is nothing else to run.
//!
//! ```text
//!  API server ── watch ──► store ── planner ──► resolve (pure) ──► published ── links ──► bridges
//!       ▲                             ▲                                           │
//!       │                             └── learned: merged, by number ◄── observed ┤
//!       └── writer: statuses, learned policies, events ◄──────────────── applied ─┘
//! ```
//!
//! Every replica watches; the one that holds the Lease plans, serves and writes.

mod accept;
mod ca;
mod counts;
mod events;
mod health;
pub mod interest;
mod learned;
mod links;
mod nodes;
pub mod plan;
mod planner;
mod pods;
pub mod published;
pub mod resolve;
mod review;
mod service;
mod services;
pub mod settings;
mod slices;
mod status;
mod store;
mod watch;
mod writer;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use kube::Client;
use outrider_api::cluster::cluster_server::ClusterServer;
use outrider_telemetry::{MetricError, Registry, unix_seconds};
use thiserror::Error;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch as channel},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{codec::CompressionEncoding, transport::Server};

pub use ca::KEY as CA_KEY;
pub use service::LEADER;
pub use writer::MANAGER;

use self::{
    accept::Held, ca::Ca, counts::Counts, events::Events, health::Health, links::Links,
    planner::Planner, review::Reviewer, service::Service, settings::Settings, store::Store,
    writer::Writer,
};
use crate::{
    cluster::{
        client::{ClientError, client},
        lease::{Candidate, Standing},
    },
    webhook::Terms,
};

/// Largest message to a bridge: everything that a node is to know at once.
pub const MAX_MESSAGE: usize = 64 << 20;
/// Largest message of a bridge.
pub const MAX_QUESTION: usize = 4 << 20;
/// Connections that were accepted and not taken yet.
const MAX_ACCEPTED: usize = 64;
/// Streams of one connection. A bridge has one.
const MAX_STREAMS: u32 = 4;
/// A connection on which nothing is heard is asked for a sign of life, and ended without one.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Why a controller does not start, or does not go on.
#[derive(Debug, Error)]
pub enum ControllerError {
    /// There is no way to the API server.
    #[error("OUTRIDER_CONTROLLER_KUBE: {0}")]
    Client(#[from] ClientError),
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
    /// No certificate can be made.
    #[error("certificate: {0}")]
    Certificate(#[source] io::Error),
    /// A metric family cannot be registered.
    #[error(transparent)]
    Metrics(#[from] MetricError),
    /// A part that never ends ended.
    #[error("{0} ended unexpectedly")]
    Ended(&'static str),
}

/// A controller whose listeners are bound.
pub struct Controller {
    settings: Settings,
    client: Client,
    ca: Ca,
    store: Arc<Store>,
    links: Arc<Links>,
    registry: Registry,
    listener: TcpListener,
    metrics: TcpListener,
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controller")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Controller {
    /// Binds the listeners. The API server need not be there yet.
    ///
    /// # Errors
    /// When settings cannot be put to work.
    pub async fn open(settings: Settings, terms: Terms) -> Result<Self, ControllerError> {
        let client = client(&settings.kube).await?;
        let registry = Registry::default();
        let counts = Counts::register(&registry)?;
        let ca = Ca::new(client.clone(), &settings, terms).map_err(ControllerError::Certificate)?;
        let listener = listen("OUTRIDER_CONTROLLER_LISTEN", settings.listen).await?;
        let all = SocketAddr::from(([0u16; 8], settings.metrics_port));
        let metrics = match TcpListener::bind(all).await {
            Ok(listener) => listener,
            Err(_no_v6) => {
                let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, settings.metrics_port));
                listen("OUTRIDER_CONTROLLER_METRICS_PORT", any).await?
            }
        };
        let links = Arc::new(Links::new(counts));
        let store = Arc::new(Store::default());
        Ok(Self { settings, client, ca, store, links, registry, listener, metrics })
    }

    /// Where bridges are answered, which a setting of port 0 leaves open.
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

    /// Runs until `stop`, and gives the Lease back.
    ///
    /// # Errors
    /// When a part ends that should not.
    pub async fn run(self, stop: CancellationToken) -> Result<(), ControllerError> {
        let Self { settings, client, ca, store, links, registry, listener, metrics } = self;
        let (tasks, follow) = (TaskTracker::new(), TaskTracker::new());
        let (standing, stands) = channel::channel(Standing::Following(None));
        let (ready, is_ready) = channel::channel(false);
        let counts = links.counts.clone();
        watch::begin(&client, &store, &counts, &follow);
        let service = Service {
            links: Arc::clone(&links),
            reviewer: Arc::new(Reviewer::new(
                client.clone(),
                &settings.bridge_account,
                &settings.namespace,
                counts,
            )),
            standing: stands.clone(),
            epoch: format!("{}-{}", settings.identity, unix_seconds()).into(),
            ready: is_ready.clone(),
            tasks: tasks.clone(),
            stop: stop.clone(),
        };
        let health = Health {
            registry,
            links: Arc::clone(&links),
            store: Arc::clone(&store),
            standing: stands.clone(),
            ready: is_ready,
            known: ca.known(),
        };
        let planner = Planner { store: Arc::clone(&store), links: Arc::clone(&links), ready };
        let events = Events::new(client.clone(), &settings.namespace);
        let writer = Writer::new(client.clone(), store, links, events);
        let (namespace, name) = (&settings.namespace, &settings.lease);
        let candidate =
            Candidate::new(client, namespace, name, &settings.identity, &settings.address);
        let (into, accepted) = mpsc::channel(MAX_ACCEPTED);
        let accept = accept::accept(listener, ca.served(), into);
        let ended = tokio::select! {
            biased;
            () = candidate.run(standing, stop.clone()) => (!stop.is_cancelled()).then_some("the election"),
            () = planner.run(stands.clone()) => Some("the planner"),
            () = writer.run(stands) => Some("the writer"),
            () = ca.keep() => Some("the certificate's keeper"),
            () = accept => Some("the listener"),
            _ = Box::pin(serve(accepted, service)) => Some("the service"),
            _ = axum::serve(metrics, health.router()) => Some("the metrics"),
        };
        tasks.close();
        tasks.wait().await;
        ended.map_or(Ok(()), |part| Err(ControllerError::Ended(part)))
    }
}

async fn serve(
    accepted: mpsc::Receiver<io::Result<Held>>,
    service: Service,
) -> Result<(), tonic::transport::Error> {
    let service = ClusterServer::new(service)
        .accept_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(MAX_QUESTION)
        .max_encoding_message_size(MAX_MESSAGE);
    let serving = Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .add_service(service)
        .serve_with_incoming(ReceiverStream::new(accepted));
    Box::pin(serving).await
}

async fn listen(
    setting: &'static str,
    address: SocketAddr,
) -> Result<TcpListener, ControllerError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ControllerError::Listen { setting, address, source })
}
