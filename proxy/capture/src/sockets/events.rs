//! Word of each connection that ends.

use std::io::{ErrorKind, Read};

use outrider_model::IpProto;
use socket2::Socket;
use tokio::io::unix::AsyncFd;

use super::{
    DATAGRAM_BYTES, InetSocket, UNSPECIFIED, failed,
    message::{self, Message, Request},
};
use crate::{CaptureError, netlink, sys};

/// Shows TCP connections and connected UDP sockets of the namespace as they end, with what they have
/// carried. Takes no capability, but the kernel works for each of them: it is not for who relays.
#[derive(Debug)]
pub struct SocketEvents {
    socket: AsyncFd<Socket>,
    buffer: Vec<u8>,
    lost: u64,
}

impl SocketEvents {
    /// Listens from now on. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn open() -> Result<Self, CaptureError> {
        let socket = netlink::open(libc::NETLINK_SOCK_DIAG).map_err(failed("open"))?;
        socket.set_nonblocking(true).map_err(failed("set up"))?;
        if let Err(error) = socket.set_recv_buffer_size(SOCKET_BYTES) {
            tracing::debug!(%error, "socket events keep the kernel's default of socket memory");
        }
        for group in GROUPS {
            sys::join_netlink(&socket, group).map_err(failed("listen"))?;
        }
        // Only a socket with a number of its own is told, and the first question gives it one.
        let nobody = Request::one(IpProto::TCP, UNSPECIFIED, UNSPECIFIED);
        socket.send(&nobody.bytes(0)).map_err(failed("ask"))?;
        let socket = sys::watch(socket).map_err(failed("watch"))?;
        Ok(Self { socket, buffer: vec![0; DATAGRAM_BYTES], lost: 0 })
    }

    /// Waits for connections that ended and shows them, a bounded number at a time. Dropping the
    /// future loses none.
    ///
    /// # Errors
    /// The kernel tells no more.
    pub async fn wait(&mut self, mut each: impl FnMut(InetSocket)) -> Result<(), CaptureError> {
        let mut ready = self
            .socket
            .ready(sys::FRAMES_OR_ERROR)
            .await
            .map_err(failed("listen"))?;
        for _ in 0..BATCH {
            match (&mut self.socket.get_ref()).read(&mut self.buffer) {
                Ok(length) => {
                    let datagram = self.buffer.get(..length).unwrap_or_default();
                    message::read(datagram, |_, message| {
                        if let Message::Socket(socket) = message {
                            each(socket);
                        }
                    });
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    ready.clear_ready();
                    return Ok(());
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    self.lost = self.lost.saturating_add(1);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(failed("listen")(error)),
            }
        }
        Ok(())
    }

    /// Times that word came faster than it was read, so that some was lost.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }
}

/// Connections of TCP and UDP over IPv4, then over IPv6 (linux/sock_diag.h).
const GROUPS: [u32; 4] = [1, 2, 3, 4];
/// Datagrams that one call reads.
const BATCH: usize = 256;
/// Socket memory asked for; the kernel caps it at `net.core.rmem_max`.
const SOCKET_BYTES: usize = 4 * 1024 * 1024;
