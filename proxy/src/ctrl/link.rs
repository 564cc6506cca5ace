//! The socket towards `ctrl_listen.sock`: connected anew whenever its owner was restarted, and
//! never waited for.

use std::{io, path::PathBuf};

use tokio::net::UnixDatagram;
use tracing::{debug, info};

/// The way notifications go.
#[derive(Debug)]
pub(crate) struct Link {
    path: PathBuf,
    socket: Option<UnixDatagram>,
}

/// What became of one datagram.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Sent {
    /// The receiver's queue has it.
    Yes,
    /// The receiver's queue is full.
    Full,
    /// Nobody receives, or the receiver was restarted.
    NoReceiver,
}

impl Link {
    /// A link that is not connected yet.
    #[must_use]
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, socket: None }
    }

    /// Connects unless it is connected; says whether it is now.
    pub(crate) fn connect(&mut self) -> bool {
        if self.socket.is_some() {
            return true;
        }
        match self.try_connect() {
            Ok(socket) => {
                info!(path = %self.path.display(), "bridge listens");
                self.socket = Some(socket);
                true
            }
            Err(error) => {
                debug!(%error, path = %self.path.display(), "no bridge listens");
                false
            }
        }
    }

    fn try_connect(&self) -> io::Result<UnixDatagram> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(&self.path)?;
        Ok(socket)
    }

    /// Whether somebody received when it was last tried.
    #[must_use]
    pub(crate) fn is_connected(&self) -> bool {
        self.socket.is_some()
    }

    /// Forgets the receiver: the next connect looks the socket up anew.
    pub(crate) fn disconnect(&mut self) {
        self.socket = None;
    }

    /// Sends without waiting.
    pub(crate) fn try_send(&mut self, datagram: &[u8]) -> Sent {
        let Some(socket) = &self.socket else { return Sent::NoReceiver };
        match socket.try_send(datagram) {
            Ok(_) => Sent::Yes,
            Err(error) if is_full(&error) => Sent::Full,
            Err(error) => {
                info!(%error, "bridge stopped listening");
                self.socket = None;
                Sent::NoReceiver
            }
        }
    }

    /// Waits until a datagram may be sent; for ever while nobody receives. Cancel safe.
    pub(crate) async fn writable(&self) {
        match &self.socket {
            Some(socket) => {
                if let Err(error) = socket.writable().await {
                    debug!(%error, "socket lost");
                    std::future::pending::<()>().await;
                }
            }
            None => std::future::pending().await,
        }
    }
}

/// Whether the receiver's queue, or our own, has no room now.
pub(super) fn is_full(error: &io::Error) -> bool {
    let no_buffers = error.raw_os_error() == Some(nix::libc::ENOBUFS);
    error.kind() == io::ErrorKind::WouldBlock || no_buffers
}
