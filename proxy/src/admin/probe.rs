//! Answers for the workload: whether something listens on one of its ports. A kubelet that asked by itself
//! would always be told yes, since the kernel accepts captured connections before the workload is asked.
//!
//! Anybody may ask, so the workload is not asked each time: what it said holds for half a second, and whoever
//! comes meanwhile is told the same.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    extract::{ConnectInfo, Path, State, connect_info::Connected},
    http::StatusCode,
    response::{IntoResponse, Response},
    serve::IncomingStream,
};
use nix::sys::socket::{setsockopt, sockopt::Mark};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::Mutex,
    time::{Instant, timeout},
};

use crate::{assembly::delivery_source, context::Context};

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
    mark: Option<u32>,
}

impl Probes {
    pub(super) fn new(context: &Context) -> Arc<Self> {
        let ports = context.settings.probe_ports.iter();
        let known = ports.flat_map(|port| [(*port, false), (*port, true)]);
        let known = known.map(|key| (key, Mutex::new(None))).collect();
        let may_mark = context.rights.raw_sockets();
        let mark = context.settings.mark.filter(|_| may_mark);
        Arc::new(Self { known, mark: mark.map(|mark| mark.reveal()) })
    }

    /// Whether the workload accepts there; `None` if that is not to be asked.
    async fn ask(&self, at: SocketAddr) -> Option<bool> {
        let mut said = self.known.get(&(at.port(), at.is_ipv6()))?.lock().await;
        if let Some((when, accepts)) = *said
            && when.elapsed() < FRESH
        {
            return Some(accepts);
        }
        let accepts = matches!(timeout(PATIENCE, self.dial(at)).await, Ok(Ok(())));
        *said = Some((Instant::now(), accepts));
        Some(accepts)
    }

    /// Connects as an inbound connection is delivered, which the redirect rules leave alone.
    async fn dial(&self, at: SocketAddr) -> io::Result<()> {
        let socket = if at.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(mark) = self.mark {
            setsockopt(&socket, Mark, &mark)?;
        }
        socket.bind(SocketAddr::new(delivery_source(at.ip()), 0))?;
        socket.connect(at).await.map(drop)
    }
}

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
