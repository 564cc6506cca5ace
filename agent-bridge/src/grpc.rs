//! NeuVector's gRPC surface: what a component of the network can answer of its node agent, plain on
//! a unix socket and with mutual TLS on TCP.

pub(crate) mod accept;
#[cfg(test)]
mod anything;
mod convert;
pub mod dial;
mod enforcer;
mod rules;
mod sniffer;
pub mod tls;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use outrider_api::share::{
    enforcer_cap_service_server::EnforcerCapServiceServer,
    enforcer_service_server::EnforcerServiceServer,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{codec::CompressionEncoding, transport::Server};

use crate::node::Node;
use accept::Held;
use enforcer::{Capabilities, Enforcer};
use tls::Certificates;

/// Largest message in either direction.
pub const MAX_MESSAGE: usize = 32 * 1024 * 1024;
/// Largest question; none has more in it than names of workloads.
const MAX_QUESTION: usize = 1024 * 1024;
/// Calls of one connection at once; more wait.
const MAX_CALLS: usize = 16;
/// The same, as HTTP/2 announces it.
const MAX_STREAMS: u32 = 64;
/// Time until the head of an answer; proxies are given less.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// A connection on which nothing is heard is asked for a sign of life, and ended without one.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Connections that were accepted and not taken yet.
const MAX_ACCEPTED: usize = 8;

/// Bound listeners.
#[derive(Debug)]
pub struct Listeners {
    /// Where the plain socket is.
    pub path: PathBuf,
    /// The plain socket.
    pub unix: UnixListener,
    /// TCP, for who shows a certificate.
    pub tcp: Option<(TcpListener, Arc<Certificates>)>,
}

impl Listeners {
    /// Serves until `stop`. Calls that are under way then are cut.
    pub async fn run(self, node: Arc<Node>, stop: CancellationToken) -> io::Result<()> {
        let tasks = TaskTracker::new();
        let enforcer = Enforcer::new(node, tasks.clone());
        let (into, accepted) = mpsc::channel(MAX_ACCEPTED);
        let plain = accept::plain(self.unix, into);
        let over_unix = Box::pin(serve(accepted, enforcer.clone()));
        let (into, accepted) = mpsc::channel(MAX_ACCEPTED);
        let tcp = self.tcp;
        let secure = async move {
            match tcp {
                Some((listener, certificates)) => {
                    accept::secure(listener, certificates, into).await;
                }
                None => drop(into),
            }
        };
        // Without certificates nothing comes in here, and that is no reason to end.
        let over_tcp = async {
            Box::pin(serve(accepted, enforcer)).await?;
            std::future::pending::<Result<(), tonic::transport::Error>>().await
        };
        let ended = tokio::select! {
            biased;
            () = stop.cancelled() => Ok(()),
            ((), ended) = async { tokio::join!(plain, over_unix) } => ended,
            ((), ended) = async { tokio::join!(secure, over_tcp) } => ended,
        };
        drop(std::fs::remove_file(&self.path));
        ended.map_err(io::Error::other)
    }
}

async fn serve<S>(
    accepted: mpsc::Receiver<io::Result<Held<S>>>,
    enforcer: Enforcer,
) -> Result<(), tonic::transport::Error>
where
    S: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static,
{
    let enforcer = EnforcerServiceServer::new(enforcer)
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(MAX_QUESTION)
        .max_encoding_message_size(MAX_MESSAGE);
    let capabilities = EnforcerCapServiceServer::new(Capabilities)
        .accept_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(MAX_QUESTION);
    Server::builder()
        .timeout(ANSWER_TIME)
        .concurrency_limit_per_connection(MAX_CALLS)
        .max_concurrent_streams(MAX_STREAMS)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .add_service(enforcer)
        .add_service(capabilities)
        .serve_with_incoming(ReceiverStream::new(accepted))
        .await
}
