//! The `bridge` role, put together.

mod joined;

use std::{io, net::SocketAddr, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use axum::Router;
use outrider_telemetry::{MetricError, Registry, unix_seconds};
use thiserror::Error;
use tokio::{
    net::{TcpListener, UnixListener},
    runtime::Handle,
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    api::{
        self, Access, Gate, Review, Tokens, TokensError,
        serve::{Limits, serve},
    },
    counts::Counts,
    export::Export,
    grpc::{self, tls::Certificates},
    mailbox::{Mailboxes, lines::Lines},
    metrics,
    neuvector::Controller,
    node::{Committer, Node},
    policy_file,
    settings::Settings,
    store::{Store, StoreError},
};

use joined::Joined;

/// Who may use the unix socket: its owner and group.
const SOCKET_MODE: u32 = 0o660;

/// Why a bridge does not start, or does not go on.
#[derive(Debug, Error)]
pub enum BridgeError {
    /// The store cannot be opened or read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A listener cannot be opened.
    #[error("{setting}: cannot listen on {address}: {source}")]
    Listen {
        /// The setting that names it.
        setting: &'static str,
        /// The address.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// The tokens cannot be read.
    #[error("OUTRIDER_BRIDGE_TOKENS: {0}")]
    Tokens(#[from] TokensError),
    /// The certificates of gRPC cannot be used.
    #[error("certificates of gRPC: {0}")]
    Tls(#[source] io::Error),
    /// A metric family cannot be registered.
    #[error(transparent)]
    Metrics(#[from] MetricError),
    /// A part that never ends ended.
    #[error("{0} ended unexpectedly")]
    Ended(&'static str),
}

/// A bridge whose store is open and whose listeners are bound.
#[derive(Debug)]
pub struct Bridge {
    settings: Settings,
    node: Arc<Node>,
    store: Store,
    counts: Counts,
    export: Export,
    controller: Controller,
    joined: Joined,
    certificates: Option<Arc<Certificates>>,
    health: Router,
    tokens: Arc<Tokens>,
    api: TcpListener,
    socket: UnixListener,
    grpc: grpc::Listeners,
    metrics: TcpListener,
}

impl Bridge {
    /// Opens store and listeners, and restores what the store has.
    ///
    /// # Errors
    /// When any of it fails; nothing runs then.
    pub async fn open(settings: Settings) -> Result<Self, BridgeError> {
        let tokens = Arc::new(Tokens::open(settings.tokens.as_deref())?);
        let registry = Registry::default();
        let counts = Counts::register(&registry)?;
        let store = Store::open(&settings.store, unix_seconds())?;
        let export = Export::new(&settings.export, &registry)?;
        let controller = Controller::new(settings.controller.as_ref(), &settings.hosts, &registry)?;
        let outlets = (export.clone(), controller.clone());
        let node = Arc::new(Node::restore(&settings, &store, counts.clone(), outlets)?);
        let api = listen("OUTRIDER_BRIDGE_API", settings.api).await?;
        let socket = listen_unix("OUTRIDER_BRIDGE_SOCKET", &settings.socket)?;
        let joined = Joined::open(&settings)?;
        let certificates = settings.grpc_tls.clone().map(Certificates::load);
        let certificates = certificates
            .transpose()
            .map_err(BridgeError::Tls)?
            .map(Arc::new);
        let grpc = listen_grpc(&settings, certificates.clone()).await?;
        let any = SocketAddr::from(([0, 0, 0, 0], settings.metrics_port));
        let all = SocketAddr::from(([0u16; 8], settings.metrics_port));
        let metrics = match TcpListener::bind(all).await {
            Ok(listener) => listener,
            Err(_no_v6) => listen("OUTRIDER_BRIDGE_METRICS_PORT", any).await?,
        };
        let health = metrics::router(Arc::clone(&node), registry)?;
        Ok(Self {
            settings,
            node,
            store,
            counts,
            export,
            controller,
            joined,
            certificates,
            health,
            tokens,
            api,
            socket,
            grpc,
            metrics,
        })
    }

    /// Where the REST API listens, which a setting of port 0 leaves open.
    ///
    /// # Errors
    /// What the system says.
    pub fn api_address(&self) -> io::Result<SocketAddr> {
        self.api.local_addr()
    }

    /// Where gRPC listens on TCP, if it does.
    #[must_use]
    pub fn grpc_address(&self) -> Option<SocketAddr> {
        self.grpc.tcp.as_ref()?.0.local_addr().ok()
    }

    /// Where `/metrics` is served.
    ///
    /// # Errors
    /// What the system says.
    pub fn metrics_address(&self) -> io::Result<SocketAddr> {
        self.metrics.local_addr()
    }

    /// Runs until `stop`; what was taken in is stored before this returns.
    ///
    /// # Errors
    /// When a part ends that should not.
    pub async fn run(self, stop: CancellationToken) -> Result<(), BridgeError> {
        let lines = Lines::default();
        let Self {
            settings,
            node,
            store,
            counts,
            export,
            controller,
            joined,
            certificates,
            health,
            tokens,
            api,
            socket,
            grpc,
            metrics,
        } = self;
        let tasks = TaskTracker::new();
        export.start(&settings.export, &tasks, &stop);
        let mailboxes = Mailboxes::new(settings.pods, node.clone(), lines.clone(), counts.clone())
            .of_pods(joined.start(&node, &tasks, &stop));
        let mailboxes = tasks.spawn(mailboxes.run(stop.child_token()));
        let [stored, gone] = [CancellationToken::new(), CancellationToken::new()];
        let reporting = controller.start(&node, certificates);
        let committer = Committer::new(Arc::clone(&node), store, lines);
        let committer = apart(&tasks, committer.run(stored.clone()));
        tasks.spawn(Arc::clone(&tokens).follow(stop.child_token()));
        let review = Review::of(settings.review.as_ref(), &counts);
        let over_tcp = api::router(Arc::clone(&node), guarded(&api, tokens, review));
        let known = Arc::clone(&node);
        let over_unix = api::router(Arc::clone(&node), Access::Unix);
        policy_file::follow(settings.policy, &node, &tasks, &stop);
        let grpc = grpc.run(node, stop.child_token());
        let api = serve(api, over_tcp, Limits::API, counts.clone(), gone.clone());
        let socket = serve(socket, over_unix, Limits::API, counts.clone(), gone.clone());
        let metrics = serve(metrics, health, Limits::HEALTH, counts, gone.clone());
        let [api, socket, metrics] = [tasks.spawn(api), tasks.spawn(socket), tasks.spawn(metrics)];
        let ended = tokio::select! {
            biased;
            () = stop.cancelled() => None,
            _ = committer => Some("the store's writer"),
            _ = mailboxes => Some("the watch over the mailboxes"),
            _ = api => Some("the API on TCP"),
            _ = socket => Some("the API on the unix socket"),
            _ = grpc => Some("gRPC"),
            _ = metrics => Some("the metrics"),
        };
        stop.cancel();
        gone.cancel();
        known.events().close();
        known.captures().close();
        tracing::info!("stopping: mailboxes first, then what they told is stored");
        drop(std::fs::remove_file(&settings.socket));
        tasks.close();
        // The committer ends when the mailboxes have closed the lines.
        tasks.wait().await;
        stored.cancel();
        // Then nothing more comes in: the controller gets the rest.
        reporting.finish().await;
        ended.map_or(Ok(()), |part| Err(BridgeError::Ended(part)))
    }
}

/// Runs on a thread of its own: what it does takes long, and keep-alives must not wait for it.
fn apart(tasks: &TaskTracker, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    let runtime = Handle::current();
    tasks.spawn_blocking(move || runtime.block_on(task))
}

/// How requests come in over TCP.
fn guarded(api: &TcpListener, tokens: Arc<Tokens>, review: Option<Review>) -> Access {
    let is_loopback = api.local_addr().is_ok_and(|at| at.ip().is_loopback());
    Access::Tcp(Arc::new(Gate { tokens, review, is_loopback }))
}

async fn listen(setting: &'static str, address: SocketAddr) -> Result<TcpListener, BridgeError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| BridgeError::Listen { setting, address: address.to_string(), source })
}

/// Always the unix socket; TCP if there are certificates to ask peers for theirs.
async fn listen_grpc(
    settings: &Settings,
    certificates: Option<Arc<Certificates>>,
) -> Result<grpc::Listeners, BridgeError> {
    let path = settings.grpc_socket.clone();
    let unix = listen_unix("OUTRIDER_BRIDGE_GRPC_SOCKET", &path)?;
    let tcp = match certificates {
        Some(certificates) => {
            Some((listen("OUTRIDER_BRIDGE_GRPC", settings.grpc).await?, certificates))
        }
        None => None,
    };
    Ok(grpc::Listeners { path, unix, tcp })
}

/// Binds the socket anew. A live bridge on the same store was refused before; a stale file is ours.
fn listen_unix(setting: &'static str, path: &Path) -> Result<UnixListener, BridgeError> {
    let bind = || -> io::Result<UnixListener> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))?;
        Ok(listener)
    };
    bind().map_err(|source| BridgeError::Listen {
        setting,
        address: path.display().to_string(),
        source,
    })
}
