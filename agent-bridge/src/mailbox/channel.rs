//! The request socket of one proxy: requests out, replies in.
//!
//! A connected socket of our own name, since the proxy answers to the name a request came from.
//! Replies that nobody waits for any more are thrown away before each request, so that a late one
//! is never taken for the next one's.

use std::{
    io::{self, IoSlice},
    os::fd::{AsRawFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tokio::{
    io::Interest,
    net::UnixDatagram,
    time::{Instant, timeout, timeout_at},
};

use super::{
    dir::MailboxDir,
    peer::{self, Gate},
};

/// Largest datagram in either direction.
pub const MAX_DATAGRAM: usize = 8192;
/// Longest wait for the proxy to take one request.
const WRITE_TIME: Duration = Duration::from_secs(2);
/// Stale replies thrown away before a request; a hostile proxy may send without end.
const MAX_STALE: usize = 1024;
/// Other replies passed over while one is awaited.
const MAX_SKIPPED: usize = 4096;

/// One connection to one proxy.
#[derive(Debug)]
pub struct Channel {
    dir: Arc<MailboxDir>,
    name: String,
    socket: UnixDatagram,
    gate: Gate,
}

impl Channel {
    /// Binds our name in the mailbox and connects to the proxy's socket.
    ///
    /// # Errors
    /// What the system says; nothing of ours is left in the mailbox then.
    pub fn open(dir: Arc<MailboxDir>, gate: Gate, listen: &str) -> io::Result<Self> {
        let name = format!("dp_client.{}", std::process::id());
        let socket = dir.bind(&name)?;
        let channel = Self { dir, name, socket, gate };
        channel.dir.connect(&channel.socket, listen)?;
        Ok(channel)
    }

    /// Sends one request.
    ///
    /// # Errors
    /// What the system says, or `TimedOut` when the proxy does not take it.
    pub async fn send(&self, request: &[u8]) -> io::Result<()> {
        let sent = timeout(WRITE_TIME, self.socket.send(request)).await;
        let sent = sent.map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))??;
        if sent == request.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// Sends one request, and a descriptor with it.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn send_with(&self, request: &[u8], descriptor: &OwnedFd) -> io::Result<()> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let send = || {
            let descriptors = [descriptor.as_raw_fd()];
            let with = [ControlMessage::ScmRights(&descriptors)];
            let socket = self.socket.as_raw_fd();
            Ok(sendmsg::<()>(socket, &[IoSlice::new(request)], &with, flags, None)?)
        };
        let sent = timeout(WRITE_TIME, self.socket.async_io(Interest::WRITABLE, send)).await;
        let sent = sent.map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))??;
        if sent == request.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// Throws away what arrived for requests that nobody waits for any more.
    pub fn drain(&self) {
        let mut buffer = [0; MAX_DATAGRAM];
        for _ in 0..MAX_STALE {
            if self.socket.try_recv(&mut buffer).is_err() {
                return;
            }
        }
    }

    /// Reads the proxy's replies until `wanted` takes one, each for at most `each`, all until `end`.
    ///
    /// # Errors
    /// What the system says, or `TimedOut`.
    pub async fn receive<T>(
        &self,
        each: Duration,
        end: Instant,
        mut wanted: impl FnMut(&[u8]) -> Option<T>,
    ) -> io::Result<T> {
        let mut buffer = vec![0; MAX_DATAGRAM];
        for _ in 0..MAX_SKIPPED {
            let deadline = end.min(Instant::now() + each);
            let received = timeout_at(deadline, peer::receive(&self.socket, &mut buffer)).await;
            // On a busy machine it is we who are late: what is there by now was sent in time.
            let (length, sender) = match received {
                Ok(received) => received?,
                Err(_elapsed) => peer::receive_now(&self.socket, &mut buffer).map_err(late)?,
            };
            if !self.gate.admits(sender) {
                continue;
            }
            if let Some(found) = buffer.get(..length).and_then(&mut wanted) {
                return Ok(found);
            }
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "only replies to other requests"))
    }
}

/// Nothing was there at the end of the time.
fn late(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => error,
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        if let Err(error) = self.dir.remove(&self.name) {
            tracing::debug!(%error, name = self.name, "our request socket cannot be removed");
        }
    }
}
