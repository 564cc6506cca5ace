//! The sockets that the network namespace has, whoever owns them. Takes no capability.

mod events;
mod message;
mod proc;

use std::{
    io::{self, Read},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use outrider_model::IpProto;
use socket2::Socket;

use crate::{CaptureError, netlink};
pub use events::SocketEvents;
use message::{Message, Request};
pub use proc::{
    MAX_RAW_SOCKETS, RawKind, RawSocket, RawSockets, families, own_inodes, raw_sockets,
};

/// A TCP or UDP socket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct InetSocket {
    /// TCP or UDP.
    pub proto: IpProto,
    /// Where its connection stands.
    pub state: SocketState,
    /// Its own address, canonical and without a scope.
    pub local: SocketAddr,
    /// The other end's; unspecified if it has none.
    pub remote: SocketAddr,
    /// The interface that it is bound to, 0 for none.
    pub interface: u32,
    /// Who made it. Unknown of one that has ended.
    pub uid: u32,
    /// Its number among the process's descriptors; 0 if no process holds it.
    pub inode: u32,
    /// Of one that waits for connections: how many it has not taken, and how many it may leave so.
    /// Of others: bytes not read, and not sent or not confirmed.
    pub queues: [u32; 2],
    /// Bytes that the other end has confirmed, and bytes that came, if they were asked for and the
    /// kernel says: SYN and FIN count as one each.
    pub bytes: Option<[u64; 2]>,
}

/// Where a socket's connection stands: the kernel's numbers. UDP has two, `ESTABLISHED` for one that
/// is connected and `CLOSED`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct SocketState(pub u8);

impl SocketState {
    /// Both ends may send.
    pub const ESTABLISHED: Self = Self(1);
    /// Dialled, not answered.
    pub const SYN_SENT: Self = Self(2);
    /// Dialled by the other end, which has not confirmed.
    pub const SYN_RECEIVED: Self = Self(3);
    /// This end has said that it sends no more, and that was confirmed.
    pub const FIN_WAIT: Self = Self(5);
    /// Over; late segments are still expected.
    pub const TIME_WAIT: Self = Self(6);
    /// No connection.
    pub const CLOSED: Self = Self(7);
    /// The other end has said that it sends no more.
    pub const CLOSE_WAIT: Self = Self(8);
    /// Waits for connections.
    pub const LISTEN: Self = Self(10);
}

/// Which sockets to show.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Wanted {
    /// TCP or UDP.
    pub proto: IpProto,
    /// In one of these states, all if there are none.
    pub states: &'static [SocketState],
    /// With what they have carried.
    pub bytes: bool,
}

/// Sockets that one look shows at most; further ones are counted.
pub const MAX_SOCKETS: u64 = 65_536;

/// Asks the kernel for sockets.
#[derive(Debug)]
pub struct Sockets {
    socket: Socket,
    buffer: Vec<u8>,
    asked: u32,
}

impl Sockets {
    /// Sees the namespace that the calling thread is in, from now on.
    ///
    /// # Errors
    /// The kernel does not show its sockets.
    pub fn open() -> Result<Self, CaptureError> {
        let socket = netlink::open(libc::NETLINK_SOCK_DIAG).map_err(failed("open"))?;
        socket
            .set_read_timeout(Some(PATIENCE))
            .map_err(failed("set up"))?;
        Ok(Self { socket, buffer: vec![0; DATAGRAM_BYTES], asked: 0 })
    }

    /// Shows sockets of both families; returns how many were more than [`MAX_SOCKETS`]. It blocks while
    /// the kernel looks through its tables, a few milliseconds.
    ///
    /// # Errors
    /// The kernel does not answer, or cannot.
    pub fn look(
        &mut self,
        wanted: Wanted,
        mut each: impl FnMut(InetSocket),
    ) -> Result<u64, CaptureError> {
        let mut total = 0_u64;
        for family in [libc::AF_INET, libc::AF_INET6] {
            let request = Request::all(family, wanted);
            let answered = self.exchange(&request, |socket| {
                total = total.saturating_add(1);
                if total <= MAX_SOCKETS {
                    each(socket);
                }
            });
            match answered {
                // Without IPv6 there is nothing to see of it.
                Err(error) if family == libc::AF_INET6 && is_absent(&error) => {}
                other => other.map_err(failed("look"))?,
            }
        }
        Ok(total.saturating_sub(MAX_SOCKETS))
    }

    /// Finds the socket with these ends; where there is none, the one that would take the connection.
    ///
    /// # Errors
    /// The kernel does not answer, or cannot.
    pub fn find(
        &mut self,
        proto: IpProto,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Result<Option<InetSocket>, CaptureError> {
        let mut found = None;
        match self.exchange(&Request::one(proto, local, remote), |socket| found = Some(socket)) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(failed("find")(error)),
            Ok(()) => Ok(found),
        }
    }

    /// Asks and reads until the answer is over.
    fn exchange(&mut self, request: &Request, mut each: impl FnMut(InetSocket)) -> io::Result<()> {
        self.asked = self.asked.wrapping_add(1);
        self.socket.send(&request.bytes(self.asked))?;
        loop {
            let length = (&self.socket).read(&mut self.buffer)?;
            let datagram = self.buffer.get(..length).unwrap_or_default();
            let mut over = None;
            message::read(datagram, |sequence, message| {
                // What is left of an earlier answer, which came too late.
                if sequence != self.asked {
                    return;
                }
                match message {
                    Message::Socket(socket) => {
                        // The kernel says it only where nobody has asked for it.
                        each(InetSocket { proto: request.proto(), ..socket });
                        if request.is_for_one() {
                            over = Some(Ok(()));
                        }
                    }
                    Message::End(0) => over = over.take().or(Some(Ok(()))),
                    Message::End(errno) => over = Some(Err(io::Error::from_raw_os_error(errno))),
                    Message::Unknown => {}
                }
            });
            if let Some(over) = over {
                return over;
            }
        }
    }
}

fn failed(step: &'static str) -> impl Fn(io::Error) -> CaptureError {
    move |source| CaptureError::Sockets { step, source }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EAFNOSUPPORT))
}

const UNSPECIFIED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
/// Longest time for the kernel to go on with an answer, which it has at once.
const PATIENCE: Duration = Duration::from_secs(1);
/// The kernel makes its datagrams as long as this at most.
const DATAGRAM_BYTES: usize = 64 * 1024;
