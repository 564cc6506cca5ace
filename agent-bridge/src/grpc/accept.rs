//! Connections in: so many at most, over TLS each with its own handshake that delays no other.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::task::TaskTracker;
use tonic::transport::server::Connected;

use super::tls::{Certificates, Loaded, is_for};

/// Connections of one listener at once; who comes later waits in the kernel's queue.
const MAX_CONNECTIONS: usize = 64;
/// How long a handshake may take.
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// After a failure to accept, which is most likely a lack of descriptors.
const PAUSE: Duration = Duration::from_millis(200);

/// A connection that counts among its listener's until it is dropped.
#[derive(Debug)]
pub(crate) struct Held<S, P = OwnedSemaphorePermit> {
    pub(crate) stream: S,
    pub(crate) _place: P,
}

type Into<S> = mpsc::Sender<io::Result<Held<S>>>;

/// Accepts on the unix socket, until nobody takes connections any more.
pub(super) async fn plain(listener: UnixListener, into: Into<UnixStream>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    while let Some(place) = place(&places).await {
        match listener.accept().await {
            Ok((stream, _)) => {
                if into.send(Ok(Held { stream, _place: place })).await.is_err() {
                    return;
                }
            }
            Err(error) => pause(&error).await,
        }
    }
}

/// The same on TCP, for peers that show a certificate.
pub(super) async fn secure(
    listener: TcpListener,
    certificates: Arc<Certificates>,
    into: Into<TlsStream<TcpStream>>,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let handshakes = TaskTracker::new();
    while let Some(place) = place(&places).await {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                pause(&error).await;
                continue;
            }
        };
        let Loaded { server: config, peer: name, .. } = certificates.current();
        let into = into.clone();
        if into.is_closed() {
            return;
        }
        handshakes.spawn(async move {
            let shaken = TlsAcceptor::from(config).accept(stream);
            let said = match timeout(HANDSHAKE_TIME, shaken).await {
                Ok(Ok(stream)) => match is_for(stream.get_ref().1.peer_certificates(), &name) {
                    Ok(()) => into.send(Ok(Held { stream, _place: place })).await.is_ok(),
                    Err(error) => {
                        tracing::info!(%peer, name, %error, "gRPC peer refused: not for that name");
                        false
                    }
                },
                Ok(Err(error)) => {
                    tracing::info!(%peer, %error, "gRPC peer refused");
                    false
                }
                Err(_elapsed) => false,
            };
            tracing::debug!(%peer, accepted = said, "gRPC connection");
        });
    }
}

async fn place(places: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    Arc::clone(places).acquire_owned().await.ok()
}

async fn pause(error: &io::Error) {
    tracing::warn!(%error, "gRPC: accept failed");
    sleep(PAUSE).await;
}

impl<S: Send + Sync + Unpin, P: Send + Sync + Unpin> Connected for Held<S, P> {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl<S: AsyncRead + Unpin, P: Unpin> AsyncRead for Held<S, P> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin, P: Unpin> AsyncWrite for Held<S, P> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
