//! The listening socket and what comes out of it.

use std::{io, net::SocketAddr, time::Duration};

use outrider_model::OriginalDst;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tracing::debug;

use crate::{CaptureError, CaptureMode, origin};

/// Takes redirected connections of both families on one port.
#[derive(Debug)]
pub struct Listener {
    inner: TcpListener,
    port: u16,
    mode: CaptureMode,
}

/// One connection, with the destination the client meant. Addresses are canonical.
#[derive(Debug)]
pub struct Accepted {
    /// The connection to who opened the flow; it has no delay set.
    pub stream: TcpStream,
    /// Who opened it.
    pub peer: SocketAddr,
    /// Our end of it.
    pub local: SocketAddr,
    /// Where it was meant to go; our end of it if it was not redirected.
    pub original: OriginalDst,
    /// Interface that a link-local `peer` is a neighbour on; 0 for any other peer.
    pub scope: u32,
    /// What brought it here; `None` was dialled straight at us and must not be relayed.
    pub by: Option<CaptureMode>,
}

impl Listener {
    /// Listens on every address of both families, of v4 alone where the kernel has no v6. Must be
    /// called inside a tokio runtime.
    ///
    /// # Errors
    /// The port is taken, or the mode needs a capability that we don't have.
    pub fn bind(port: u16, mode: CaptureMode) -> Result<Self, CaptureError> {
        let socket = match open(Family::Dual, port, mode) {
            Err(error) if no_v6(&error) => {
                debug!(%error, port, "no IPv6 here, listening on IPv4 alone");
                open(Family::V4, port, mode)?
            }
            other => other?,
        };
        let inner = TcpListener::from_std(socket.into()).map_err(CaptureError::Socket)?;
        let port = inner.local_addr().map_err(CaptureError::Socket)?.port();
        Ok(Self { inner, port, mode })
    }

    /// Marks what the accepted connections send, from their first packet to the last that the kernel
    /// sends for them.
    ///
    /// # Errors
    /// It takes a capability that we don't have.
    pub fn mark(&self, mark: u32) -> Result<(), CaptureError> {
        SockRef::from(&self.inner)
            .set_mark(mark)
            .map_err(CaptureError::Mark)
    }

    /// The port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Takes the next connection. Dropping the future loses none: a connection is taken in one step.
    ///
    /// # Errors
    /// [`CaptureError::Exhausted`] comes after a pause of 50 ms, every other error at once; the
    /// listener goes on working after each.
    pub async fn accept(&self) -> Result<Accepted, CaptureError> {
        match self.inner.accept().await {
            Ok((stream, peer)) => self.describe(stream, peer),
            Err(error) => {
                let error = CaptureError::from_accept(error);
                if matches!(error, CaptureError::Exhausted(_)) {
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                }
                Err(error)
            }
        }
    }

    fn describe(&self, stream: TcpStream, peer: SocketAddr) -> Result<Accepted, CaptureError> {
        let local = stream.local_addr().map_err(CaptureError::Accept)?;
        let scope = match peer {
            SocketAddr::V6(peer) => peer.scope_id(),
            SocketAddr::V4(_) => 0,
        };
        let found = origin::find(&SockRef::from(&stream), local, self.port, self.mode)
            .map_err(CaptureError::OriginalDst)?;
        Ok(Accepted {
            stream,
            peer: OriginalDst::new(peer).addr(),
            local: OriginalDst::new(local).addr(),
            original: found.original,
            scope,
            by: found.by,
        })
    }
}

/// Families that one socket takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Family {
    Dual,
    V4,
}

/// Makes the listening socket. Accepted sockets inherit "no delay" from it, which saves a system
/// call a connection. The port is not shared: whoever has it is the only one.
fn open(family: Family, port: u16, mode: CaptureMode) -> Result<Socket, CaptureError> {
    let (domain, any): (_, SocketAddr) = match family {
        Family::Dual => (Domain::IPV6, ([0_u16; 8], port).into()),
        Family::V4 => (Domain::IPV4, ([0_u8; 4], port).into()),
    };
    let socket =
        Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).map_err(CaptureError::Socket)?;
    prepare(&socket, family).map_err(CaptureError::Socket)?;
    if mode == CaptureMode::Tproxy {
        transparent(&socket, family).map_err(CaptureError::Transparent)?;
    }
    socket
        .bind(&any.into())
        .map_err(|source| CaptureError::Bind { port, source })?;
    socket
        .listen(BACKLOG)
        .map_err(|source| CaptureError::Bind { port, source })?;
    Ok(socket)
}

fn prepare(socket: &Socket, family: Family) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    if family == Family::Dual { socket.set_only_v6(false) } else { Ok(()) }
}

fn transparent(socket: &Socket, family: Family) -> io::Result<()> {
    match family {
        Family::Dual => socket.set_ip_transparent_v6(true),
        Family::V4 => socket.set_ip_transparent_v4(true),
    }
}

/// Whether the kernel has no IPv6, as opposed to having it and refusing the port.
fn no_v6(error: &CaptureError) -> bool {
    let (CaptureError::Socket(source) | CaptureError::Bind { source, .. }) = error else {
        return false;
    };
    matches!(source.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

/// Connections that may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Pause after the process or the host ran out of descriptors: flows that end meanwhile free some.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    async fn accept_from(listener: &Listener, to: &str) -> (TcpStream, Accepted) {
        let target: SocketAddr = format!("{to}:{}", listener.port()).parse().unwrap();
        let client = TcpStream::connect(target).await.unwrap();
        let accepted = listener.accept().await.unwrap();
        (client, accepted)
    }

    #[tokio::test]
    async fn takes_both_families_and_knows_a_direct_dial() {
        let listener = Listener::bind(0, CaptureMode::Redirect).unwrap();
        for to in ["127.0.0.1", "[::1]"] {
            let (client, accepted) = accept_from(&listener, to).await;
            assert_eq!(accepted.peer, client.local_addr().unwrap(), "canonical peer");
            assert_eq!(accepted.local, client.peer_addr().unwrap(), "canonical local");
            assert_eq!(accepted.by, None, "{to} was dialled directly");
            assert_eq!(accepted.original.addr(), accepted.local);
        }
    }

    #[tokio::test]
    async fn accepted_sockets_have_no_delay_and_close_on_exec() {
        let listener = Listener::bind(0, CaptureMode::Redirect).unwrap();
        let (_client, accepted) = accept_from(&listener, "127.0.0.1").await;
        assert!(accepted.stream.nodelay().unwrap());
        let flags = nix::fcntl::fcntl(&accepted.stream, nix::fcntl::FcntlArg::F_GETFD).unwrap();
        assert_ne!(flags & libc::FD_CLOEXEC, 0);
    }

    #[tokio::test]
    async fn says_which_port_is_taken() {
        let first = Listener::bind(0, CaptureMode::Redirect).unwrap();
        let error = Listener::bind(first.port(), CaptureMode::Redirect).unwrap_err();
        assert_eq!(error.reason(), "bind");
        assert!(error.to_string().contains(&first.port().to_string()));
    }

    #[tokio::test]
    async fn a_cancelled_accept_loses_no_connection() {
        let listener = Listener::bind(0, CaptureMode::Redirect).unwrap();
        {
            let accept = listener.accept();
            tokio::pin!(accept);
            let pending = std::future::poll_fn(|cx| {
                std::task::Poll::Ready(accept.as_mut().poll(cx).is_pending())
            });
            assert!(pending.await, "nobody has dialled yet");
        }
        accept_from(&listener, "127.0.0.1").await;
    }

    #[tokio::test]
    async fn only_a_missing_family_falls_back_to_v4() {
        let missing = CaptureError::Socket(io::Error::from_raw_os_error(libc::EAFNOSUPPORT));
        let taken =
            CaptureError::Bind { port: 1, source: io::Error::from_raw_os_error(libc::EADDRINUSE) };
        assert!(no_v6(&missing));
        assert!(!no_v6(&taken));
        assert_eq!(
            open(Family::V4, 0, CaptureMode::Redirect)
                .unwrap()
                .domain()
                .unwrap(),
            Domain::IPV4
        );
    }
}
