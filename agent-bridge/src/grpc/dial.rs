//! Connections out, with mutual TLS: each is made with the certificates that are current then, and
//! is one connection: what is sent after its end fails, so that whoever sent it knows.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{
    codegen::http::Uri,
    transport::{Channel, Endpoint},
};
use tower::service_fn;

use super::tls::{Certificates, Loaded};

/// How long it may take to connect, the handshake included.
const CONNECT_TIME: Duration = Duration::from_secs(3);
/// How long one of several addresses may take to answer.
const ADDRESS_TIME: Duration = Duration::from_secs(1);
/// Addresses of a name that are used.
const MAX_ADDRESSES: usize = 64;

/// One connection.
#[derive(Clone, Debug)]
pub struct Connection {
    /// What calls are made over.
    pub channel: Channel,
    /// Connections that were asked for.
    asked: Arc<AtomicUsize>,
    config: Arc<ClientConfig>,
}

impl Connection {
    /// Whether something was to be sent after the connection had ended; it was not.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.asked.load(Ordering::Relaxed) > 1
    }

    /// Whether the certificates changed since it was made.
    #[must_use]
    pub fn is_outdated(&self, certificates: &Certificates) -> bool {
        !Arc::ptr_eq(&self.config, &certificates.current().client)
    }
}

/// Connects to `target`, `host:port`. The peer must show a certificate for the name that the
/// certificates say. Of several addresses the one at `turn` is tried first.
///
/// # Errors
/// When no connection comes about within 3 s.
pub async fn connect(
    target: &str,
    turn: usize,
    certificates: &Certificates,
) -> io::Result<Connection> {
    let Loaded { client, peer, .. } = certificates.current();
    let name = ServerName::try_from(peer.clone())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, format!("{peer}: {error}")))?;
    let connected = timeout(
        CONNECT_TIME,
        Box::pin(async {
            let stream = reach(target, turn).await?;
            stream.set_nodelay(true)?;
            TlsConnector::from(Arc::clone(&client))
                .connect(name, stream)
                .await
        }),
    );
    let stream = connected.await??;
    Box::pin(over(stream, client)).await
}

/// Speaks HTTP/2 over the stream.
async fn over(stream: TlsStream<TcpStream>, config: Arc<ClientConfig>) -> io::Result<Connection> {
    let asked = Arc::new(AtomicUsize::new(0));
    let (count, stream) = (Arc::clone(&asked), Arc::new(parking_lot::Mutex::new(Some(stream))));
    let once = service_fn(move |_: Uri| {
        count.fetch_add(1, Ordering::Relaxed);
        let stream = stream.lock().take();
        let ended = || io::Error::new(io::ErrorKind::NotConnected, "the connection has ended");
        std::future::ready(stream.map(TokioIo::new).ok_or_else(ended))
    });
    // The scheme is that of what is spoken inside.
    let channel = Endpoint::from_static("http://controller")
        .connect_with_connector(once)
        .await
        .map_err(io::Error::other)?;
    Ok(Connection { channel, asked, config })
}

async fn reach(target: &str, turn: usize) -> io::Result<TcpStream> {
    let mut addresses: Vec<_> = lookup_host(target).await?.take(MAX_ADDRESSES).collect();
    let first = turn.checked_rem(addresses.len()).unwrap_or_default();
    addresses.rotate_left(first);
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{target}: no address"));
    for address in addresses {
        match timeout(ADDRESS_TIME, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = io::Error::new(error.kind(), format!("{address}: {error}")),
            Err(_late) => {
                last = io::Error::new(io::ErrorKind::TimedOut, format!("{address}: no answer"));
            }
        }
    }
    Err(last)
}
