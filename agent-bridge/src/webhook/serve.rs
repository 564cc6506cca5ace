//! Connections in, answers out. Whoever reaches the port may try: what one peer and all of them together may
//! hold is bounded, and nobody is waited for.

use std::{
    collections::{BTreeSet, HashMap},
    convert::Infallible,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Bytes, Incoming},
    header::{CONTENT_LENGTH, CONTENT_TYPE},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::{Mutex, RwLock};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::spawn_blocking,
    time::{Instant, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    certificate::{ALPN, Certificate},
    counts::{Counts, Failure, Refused, Told},
    namespaces::Table,
    refusals::Refusal,
    review::{self, Answered, Call},
};
use crate::inject::{Cluster, Namespace, Version};

/// Largest question. A pod is at most 3 MiB, and a change shows it twice.
pub const MAX_BODY: usize = 10 << 20;
/// Questions that are read or answered at a time, of one peer and all together.
const MAX_BODIES_OF_PEER: usize = 16 << 20;
const MAX_BODIES: usize = 64 << 20;
/// Unit in which their room is given out.
const ROOM: usize = 4 << 10;
/// Connections of one peer, and of all.
const MAX_OF_PEER: usize = 64;
const MAX_CONNECTIONS: usize = 512;
/// Questions of one connection at a time.
const MAX_STREAMS: u32 = 128;
/// How long a handshake may take.
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// From a question's headers to its answer: what the API server waits at most.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// How long a connection may be silent. API servers close theirs after 90 s themselves.
const IDLE_TIME: Duration = Duration::from_secs(180);
/// From the end of the role until connections are cut.
const GRACE: Duration = Duration::from_secs(5);
/// After a failure to accept, which is most likely a lack of descriptors.
const PAUSE: Duration = Duration::from_millis(200);
/// Questions longer than this are read beside the others.
const LONG: usize = 64 << 10;

/// What answers are made of.
#[derive(Debug)]
pub(super) struct Shared {
    cluster: RwLock<Arc<Cluster>>,
    /// Namespaces, if they come from anywhere.
    pub(super) namespaces: Option<Arc<Table>>,
    pub(super) certificate: Certificate,
    pub(super) counts: Counts,
    /// What is not known yet without which answers may be wrong.
    pub(super) waits: Waits,
    /// Who tells of refused pods, if anybody.
    refusals: Option<mpsc::Sender<Refusal>>,
    room: Arc<Semaphore>,
}

/// What is waited for.
#[derive(Debug, Default)]
pub(super) struct Waits(Mutex<BTreeSet<&'static str>>);

impl Waits {
    pub(super) fn new(names: impl IntoIterator<Item = &'static str>) -> Self {
        Self(Mutex::new(names.into_iter().collect()))
    }

    /// One of them has come.
    pub(super) fn done(&self, name: &'static str) {
        if self.0.lock().remove(name) {
            tracing::info!("{name}: known");
        }
    }

    /// The rest.
    pub(super) fn left(&self) -> Vec<&'static str> {
        self.0.lock().iter().copied().collect()
    }
}

impl Shared {
    pub(super) fn new(
        cluster: Cluster,
        namespaces: Option<Arc<Table>>,
        certificate: Certificate,
        counts: Counts,
    ) -> Self {
        Self {
            cluster: RwLock::new(Arc::new(cluster)),
            namespaces,
            certificate,
            counts,
            waits: Waits::default(),
            refusals: None,
            room: Arc::new(Semaphore::new(MAX_BODIES / ROOM)),
        }
    }

    /// Waits for these, and has refusals told.
    pub(super) fn with_kubernetes(mut self, waits: Waits, refusals: mpsc::Sender<Refusal>) -> Self {
        (self.waits, self.refusals) = (waits, Some(refusals));
        self
    }

    /// What holds for the cluster now.
    pub(super) fn cluster(&self) -> Arc<Cluster> {
        Arc::clone(&self.cluster.read())
    }

    /// Versions as they are now; of what is `None` nothing has been heard.
    pub(super) fn heard(&self, server: Option<Version>, oldest_node: Option<Option<Version>>) {
        let now = self.cluster();
        let kubernetes = server.or(now.kubernetes);
        let oldest_node = oldest_node.unwrap_or(now.oldest_node);
        if (kubernetes, oldest_node) != (now.kubernetes, now.oldest_node) {
            tracing::info!(?kubernetes, ?oldest_node, "versions");
            let cluster = Cluster { kubernetes, oldest_node, ..(*now).clone() };
            *self.cluster.write() = Arc::new(cluster);
        }
    }

    /// A pod may not start.
    fn tell(&self, refusal: Refusal) {
        if let Some(refusals) = &self.refusals
            && refusals.try_send(refusal).is_err()
        {
            self.counts.told(Told::TooMany);
        }
    }
}

/// Serves until `stop`; what is being answered then is answered.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    let (tasks, cut) = (TaskTracker::new(), CancellationToken::new());
    let peers = Arc::new(Peers::default());
    loop {
        let (stream, peer) = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => (stream, peer.ip().to_canonical()),
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    sleep(PAUSE).await;
                    continue;
                }
            },
        };
        let Some(place) = peers.enter(peer, &shared.counts) else {
            shared.counts.refused(Refused::TooMany);
            continue;
        };
        let (shared, stop) = (Arc::clone(&shared), stop.clone());
        let connection = async move {
            let room = Arc::clone(&place.room);
            Box::pin(connection(stream, peer, Asked { shared, room }, stop)).await;
            drop(place);
        };
        tasks.spawn(cut.clone().run_until_cancelled_owned(connection));
    }
    drop(listener);
    tasks.close();
    if timeout(GRACE, tasks.wait()).await.is_err() {
        cut.cancel();
        tasks.wait().await;
    }
}

/// What a connection's questions are answered with.
#[derive(Clone, Debug)]
struct Asked {
    shared: Arc<Shared>,
    /// Room of the peer.
    room: Arc<Semaphore>,
}

async fn connection(stream: TcpStream, peer: IpAddr, asked: Asked, stop: CancellationToken) {
    let shared = Arc::clone(&asked.shared);
    let config = shared.certificate.config();
    let stream = match timeout(HANDSHAKE_TIME, TlsAcceptor::from(config).accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            shared.counts.refused(Refused::Handshake);
            tracing::debug!(%peer, %error, "no handshake");
            return;
        }
        Err(_elapsed) => return shared.counts.refused(Refused::TimedOut),
    };
    if let Err(error) = Box::pin(exchange(stream, asked, stop)).await {
        tracing::debug!(%peer, %error, "connection ended");
    }
}

async fn exchange(
    stream: TlsStream<TcpStream>,
    asked: Asked,
    stop: CancellationToken,
) -> Result<(), hyper::Error> {
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(ALPN[0]);
    let answer = service_fn(move |request| {
        let asked = asked.clone();
        async move { Ok::<_, Infallible>(answer(request, &asked).await) }
    });
    let io = TokioIo::new(stream);
    if is_h2 {
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(16 << 10)
            .keep_alive_interval(IDLE_TIME)
            .serve_connection(io, answer);
        tokio::pin!(connection);
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            ended = &mut connection => return ended,
        }
        connection.as_mut().graceful_shutdown();
        connection.await
    } else {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE_TIME)
            .max_buf_size(64 << 10)
            .serve_connection(io, answer);
        tokio::pin!(connection);
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            ended = &mut connection => return ended,
        }
        connection.as_mut().graceful_shutdown();
        connection.await
    }
}

async fn answer(request: Request<Incoming>, asked: &Asked) -> Response<Full<Bytes>> {
    let began = Instant::now();
    let answered = timeout(ANSWER_TIME, decide(request, asked, began)).await;
    let (why, status, text) = match answered {
        Ok(Ok(response)) => return response,
        Ok(Err(refused)) => refused,
        Err(_elapsed) => {
            (Failure::TimedOut, StatusCode::SERVICE_UNAVAILABLE, "not in time".to_owned())
        }
    };
    asked.shared.counts.failed(why);
    let mut response = Response::new(Full::from(format!("outrider: {text}\n")));
    *response.status_mut() = status;
    response
}

type NotAnswered = (Failure, StatusCode, String);

async fn decide(
    request: Request<Incoming>,
    asked: &Asked,
    began: Instant,
) -> Result<Response<Full<Bytes>>, NotAnswered> {
    let no = |why, status, text: &str| Err((why, status, text.to_owned()));
    let Some((call, holds)) = route(request.uri().path()) else {
        return no(Failure::NotFound, StatusCode::NOT_FOUND, "there are /inject and /validate");
    };
    if request.method() != Method::POST {
        return no(Failure::Malformed, StatusCode::METHOD_NOT_ALLOWED, "only POST");
    }
    let (body, room) = body(request, asked).await?;
    let length = body.len();
    let shared = Arc::clone(&asked.shared);
    let work = move || {
        let _room = room;
        let request = review::read(&body)
            .map_err(|why| (Failure::Malformed, StatusCode::BAD_REQUEST, why))?;
        let namespace = namespace(&request.namespace, holds, &shared);
        let answered = review::answer(call, &request, &namespace, &shared.cluster());
        Ok(answered)
    };
    let Answered { outcome, text, refusal } = if length > LONG {
        let done = spawn_blocking(work).await;
        let failed = (Failure::Malformed, StatusCode::INTERNAL_SERVER_ERROR, "failed".to_owned());
        done.map_err(|_panicked| failed)??
    } else {
        work()?
    };
    asked.shared.counts.decided(outcome, began.elapsed());
    refusal
        .into_iter()
        .for_each(|refusal| asked.shared.tell(refusal));
    let mut response = Response::new(Full::from(text));
    let json = hyper::header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    Ok(response)
}

/// What is asked, and what the caller says of the namespace: `/inject`, `/inject/enforced`.
fn route(path: &str) -> Option<(Call, Option<&'static str>)> {
    let (first, rest) = path
        .strip_prefix('/')?
        .split_once('/')
        .unwrap_or((path.get(1..)?, ""));
    let call = match first {
        "inject" => Call::Inject,
        "validate" => Call::Validate,
        _ => return None,
    };
    let holds = match rest {
        "" => None,
        "enforced" => Some("enforced"),
        "enabled" => Some("enabled"),
        "opt-in" => Some("opt-in"),
        _ => return None,
    };
    Some((call, holds))
}

/// What is known of the namespace; else what the caller says, by whose selector it was chosen.
fn namespace(name: &str, holds: Option<&str>, shared: &Shared) -> Arc<Namespace> {
    if let Some(table) = &shared.namespaces {
        if let Some(known) = table.get(name) {
            return known;
        }
        shared.counts.unknown_namespaces.inc();
    }
    let mut namespace = Namespace { name: name.to_owned(), ..Namespace::default() };
    if let Some(holds) = holds {
        namespace
            .labels
            .insert(Namespace::LABEL.to_owned(), holds.to_owned());
    }
    Arc::new(namespace)
}

/// The question, and its room until it is answered.
async fn body(
    request: Request<Incoming>,
    asked: &Asked,
) -> Result<(Bytes, [OwnedSemaphorePermit; 2]), NotAnswered> {
    let too_large = || {
        let text = format!("more than {MAX_BODY} bytes");
        (Failure::TooLarge, StatusCode::PAYLOAD_TOO_LARGE, text)
    };
    let said = request.headers().get(CONTENT_LENGTH);
    let said = said.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let length = said.unwrap_or(MAX_BODY);
    if length > MAX_BODY || request.body().size_hint().lower() > MAX_BODY as u64 {
        return Err(too_large());
    }
    let units = u32::try_from(length / ROOM + 1).map_err(|_never| too_large())?;
    let closed = |_| (Failure::TimedOut, StatusCode::SERVICE_UNAVAILABLE, "closed".to_owned());
    let take = |room: &Arc<Semaphore>| Arc::clone(room).acquire_many_owned(units);
    let of_peer = take(&asked.room).await.map_err(closed)?;
    let of_all = take(&asked.shared.room).await.map_err(closed)?;
    let read = Limited::new(request.into_body(), length).collect().await;
    let bytes = read.map_err(|error| {
        if error.is::<http_body_util::LengthLimitError>() {
            return too_large();
        }
        (Failure::Malformed, StatusCode::BAD_REQUEST, "the question broke off".to_owned())
    })?;
    Ok((bytes.to_bytes(), [of_peer, of_all]))
}

/// Connections by peer.
#[derive(Debug, Default)]
struct Peers(Mutex<HashMap<IpAddr, Peer>>);

#[derive(Debug)]
struct Peer {
    connections: usize,
    room: Arc<Semaphore>,
}

/// A connection's place among its peer's.
#[derive(Debug)]
struct Place {
    peers: Arc<Peers>,
    peer: IpAddr,
    room: Arc<Semaphore>,
    counts: Counts,
}

impl Peers {
    fn enter(self: &Arc<Self>, peer: IpAddr, counts: &Counts) -> Option<Place> {
        let mut open = self.0.lock();
        let all: usize = open.values().map(|peer| peer.connections).sum();
        if all >= MAX_CONNECTIONS {
            return None;
        }
        let mine = open.entry(peer).or_insert_with(|| Peer {
            connections: 0,
            room: Arc::new(Semaphore::new(MAX_BODIES_OF_PEER / ROOM)),
        });
        if mine.connections >= MAX_OF_PEER {
            return None;
        }
        mine.connections += 1;
        counts.connections.add(1);
        let room = Arc::clone(&mine.room);
        Some(Place { peers: Arc::clone(self), peer, room, counts: counts.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.counts.connections.sub(1);
        let mut open = self.peers.0.lock();
        if let Some(mine) = open.get_mut(&self.peer) {
            mine.connections = mine.connections.saturating_sub(1);
            if mine.connections == 0 {
                open.remove(&self.peer);
            }
        }
    }
}
