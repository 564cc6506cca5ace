//! Answers for the workload: whether something listens on one of its ports, and what it says of its health. A kubelet
//! that asked by itself would always be told that it listens, since the kernel accepts captured connections before the
//! workload is asked, and may be denied the rest by policy.
//!
//! Anybody may ask, so only what injection has declared is asked, the workload is not asked each time (what it said
//! holds for half a second, and whoever comes meanwhile is told the same), and only the status is told.

mod question;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    extract::{ConnectInfo, Path, State, connect_info::Connected},
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header::USER_AGENT},
    response::{IntoResponse, Response},
    serve::IncomingStream,
};
use nix::sys::socket::{setsockopt, sockopt::Mark};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Mutex,
    time::{Instant, timeout},
};

use crate::{
    assembly::delivery_source,
    context::Context,
    settings::{AppProbe, Header},
};

/// How long an answer holds.
const FRESH: Duration = Duration::from_millis(500);
/// How long the workload may take to accept.
const PATIENCE: Duration = Duration::from_secs(1);

/// When it was asked, and whether it accepted.
type Said = Mutex<Option<(Instant, bool)>>;

/// Ports of the workload that may be asked about, with what they said last, per family.
#[derive(Debug)]
pub(super) struct Probes {
    known: HashMap<(u16, bool), Said>,
    others: HashMap<String, Vec<Other>>,
    dialer: Dialer,
}

/// A question that is more than a connection.
#[derive(Debug)]
struct Other {
    probe: AppProbe,
    /// When it was asked last, and the answer's status; per family.
    said: [Mutex<Option<(Instant, StatusCode)>>; 2],
}

/// Connects as an inbound connection is delivered, which the redirect rules leave alone.
#[derive(Debug)]
struct Dialer {
    mark: Option<u32>,
}

impl Dialer {
    async fn dial(&self, at: SocketAddr) -> io::Result<TcpStream> {
        let socket = if at.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(mark) = self.mark {
            setsockopt(&socket, Mark, &mark)?;
        }
        socket.bind(SocketAddr::new(delivery_source(at.ip()), 0))?;
        socket.connect(at).await
    }
}

impl Probes {
    pub(super) fn new(context: &Context) -> Arc<Self> {
        let ports = context.settings.probe_ports.iter();
        let known = ports.flat_map(|port| [(*port, false), (*port, true)]);
        let known = known.map(|key| (key, Mutex::new(None))).collect();
        let may_mark = context.rights.raw_sockets();
        let mark = context.settings.mark.filter(|_| may_mark);
        let mut others: HashMap<String, Vec<Other>> = HashMap::new();
        for probe in &context.settings.probes {
            let other = Other { probe: probe.clone(), said: Default::default() };
            others.entry(probe.ask.clone()).or_default().push(other);
        }
        let dialer = Dialer { mark: mark.map(|mark| mark.reveal()) };
        Arc::new(Self { known, others, dialer })
    }

    /// Whether the workload accepts there; `None` if that is not to be asked.
    async fn ask(&self, at: SocketAddr) -> Option<bool> {
        let mut said = self.known.get(&(at.port(), at.is_ipv6()))?.lock().await;
        if let Some((when, accepts)) = *said
            && when.elapsed() < FRESH
        {
            return Some(accepts);
        }
        let accepts = matches!(timeout(PATIENCE, self.dialer.dial(at)).await, Ok(Ok(_)));
        *said = Some((Instant::now(), accepts));
        Some(accepts)
    }

    /// What the workload says to a question; `None` if that is not to be asked.
    async fn ask_more(&self, ask: &str, pod: IpAddr, headers: &HeaderMap) -> Option<StatusCode> {
        let others = self.others.get(ask)?.iter();
        // Of questions that differ in headers the one that was put.
        let put = others.filter(|other| other.is_put_by(headers));
        let other = put.max_by_key(|other| other.probe.headers.len())?;
        let mut said = other.said[usize::from(pod.is_ipv6())].lock().await;
        if let Some((when, status)) = *said
            && when.elapsed() < FRESH
        {
            return Some(status);
        }
        let at = SocketAddr::new(pod, other.probe.port);
        let agent = agent(headers);
        let asked = question::ask(&self.dialer, &other.probe, at, &agent);
        let status = match timeout(other.probe.patience, Box::pin(asked)).await {
            Ok(Ok(status)) => status,
            Ok(Err(_)) => StatusCode::BAD_GATEWAY,
            Err(_elapsed) => StatusCode::GATEWAY_TIMEOUT,
        };
        *said = Some((Instant::now(), status));
        Some(status)
    }
}

impl Other {
    /// Whether who asks has said the question's headers.
    fn is_put_by(&self, headers: &HeaderMap) -> bool {
        self.probe.headers.iter().all(|Header(name, value)| {
            let mut said = headers.get_all(name).iter();
            said.any(|said| said.as_bytes() == value.trim().as_bytes())
        })
    }
}

/// Who asks, if it is a kubelet; workloads know it by that.
fn agent(headers: &HeaderMap) -> HeaderValue {
    let said = headers.get(USER_AGENT).filter(|said| {
        let version = said.as_bytes().strip_prefix(b"kube-probe/");
        version.is_some_and(|version| {
            let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b".+-".contains(byte);
            version.len() <= MAX_VERSION && version.iter().all(plain)
        })
    });
    said.cloned()
        .unwrap_or(HeaderValue::from_static("kube-probe/outrider"))
}

/// Longest version of a kubelet.
const MAX_VERSION: usize = 32;

/// The address that was asked, which is one of the pod.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked(Option<IpAddr>);

impl Connected<IncomingStream<'_, TcpListener>> for Asked {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        let local = stream.io().local_addr();
        Self(local.ok().map(|local| local.ip().to_canonical()))
    }
}

/// `/healthz/app/tcp/<port>`.
pub(super) async fn tcp(
    State(probes): State<Arc<Probes>>,
    ConnectInfo(Asked(pod)): ConnectInfo<Asked>,
    Path(port): Path<u16>,
) -> Response {
    let Some(pod) = pod else { return StatusCode::SERVICE_UNAVAILABLE.into_response() };
    match probes.ask(SocketAddr::new(pod, port)).await {
        Some(true) => "accepts\n".into_response(),
        Some(false) => (StatusCode::SERVICE_UNAVAILABLE, "does not accept\n").into_response(),
        None => (StatusCode::NOT_FOUND, "not in OUTRIDER_PROXY_PROBE_PORTS\n").into_response(),
    }
}

/// `/healthz/app/http/<port>/<path>` and the like: the workload's status, without a word of what it says.
pub(super) async fn more(
    State(probes): State<Arc<Probes>>,
    ConnectInfo(Asked(pod)): ConnectInfo<Asked>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let Some(pod) = pod else { return StatusCode::SERVICE_UNAVAILABLE.into_response() };
    let path = uri.path_and_query().map_or("", |path| path.as_str());
    let ask = path.strip_prefix("/healthz/app/").unwrap_or_default();
    match probes.ask_more(ask, pod, &headers).await {
        // A redirection has been followed; one that is left would lead whoever asks astray.
        Some(status) if status.is_informational() || status.is_redirection() => {
            StatusCode::OK.into_response()
        }
        Some(status) => (status, format!("the workload: {status}\n")).into_response(),
        None => (StatusCode::NOT_FOUND, "not in OUTRIDER_PROXY_PROBES\n").into_response(),
    }
}
