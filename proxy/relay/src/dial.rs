//! The connection to who is meant to answer.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use nix::sys::socket::{SetSockOpt, setsockopt, sockopt};
use outrider_telemetry::Refusal;
use thiserror::Error;
use tokio::net::{TcpSocket, TcpStream};

use crate::{
    Legs,
    ports::{BORROWED, OWN, Ports},
};

/// Where to dial, and from which address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Delivery {
    /// Who is meant to answer.
    pub target: SocketAddr,
    /// The address to dial from.
    pub source: Source,
    /// Firewall mark of the connection. To set one takes `NET_RAW`.
    pub mark: Option<u32>,
}

impl Delivery {
    /// A plain dial: from the address that the route gives, without a mark.
    #[must_use]
    pub const fn to(target: SocketAddr) -> Self {
        Self { target, source: Source::Route, mark: None }
    }
}

/// The address that a connection is dialled from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Source {
    /// The one that the route gives, by a port that clients don't use while there is one.
    Route,
    /// One of this host's own. Port 0 is left to the kernel.
    Own(SocketAddr),
    /// The client's, which is none of ours, by a port that clients don't use. Takes `NET_RAW`.
    Borrowed(SocketAddr),
}

/// Nobody answered the dial.
#[derive(Debug, Error)]
pub enum DialError {
    /// The kernel refused the socket, for example for want of descriptors.
    #[error("socket: {0}")]
    Socket(#[source] io::Error),
    /// The source address is not ours.
    #[error("bind: {0}")]
    Bind(#[source] io::Error),
    /// Nobody listens there.
    #[error("refused: {0}")]
    Refused(#[source] io::Error),
    /// There is no way there.
    #[error("unreachable: {0}")]
    Unreachable(#[source] io::Error),
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// Anything else.
    #[error("connect: {0}")]
    Other(#[source] io::Error),
}

impl DialError {
    /// The closed label of logs and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        self.refusal().label()
    }

    /// What the flow is counted under.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Refused(_) => Refusal::ConnectionRefused,
            Self::Unreachable(_) => Refusal::Unreachable,
            Self::Timeout => Refusal::ConnectTimeout,
            Self::Socket(_) | Self::Bind(_) | Self::Other(_) => Refusal::DialError,
        }
    }

    /// Whether another source port may do better.
    fn is_about_the_port(&self) -> bool {
        let (Self::Bind(source) | Self::Other(source)) = self else { return false };
        matches!(source.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable)
    }

    fn from_connect(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => {
                Self::Refused(error)
            }
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                Self::Unreachable(error)
            }
            io::ErrorKind::TimedOut => Self::Timeout,
            _ => Self::Other(error),
        }
    }
}

/// Dials, within `limit`. What is tried is one of our legs, whatever comes of it.
///
/// # Errors
/// Nobody answers in time, or the kernel refuses.
pub async fn dial(
    delivery: Delivery,
    limit: Duration,
    legs: &Legs,
) -> Result<TcpStream, DialError> {
    let dialled = async {
        match delivery.source {
            Source::Borrowed(client) => from_our_ports(delivery, client, &BORROWED, legs).await,
            Source::Own(_) => connect(prepare(delivery)?, delivery.target, legs).await,
            Source::Route => {
                let any: IpAddr = match delivery.target {
                    SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                    SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
                };
                match from_our_ports(delivery, SocketAddr::new(any, 0), &OWN, legs).await {
                    Err(error) if error.is_about_the_port() => {
                        connect(prepare(delivery)?, delivery.target, legs).await
                    }
                    dialled => dialled,
                }
            }
        }
    };
    tokio::time::timeout(limit, dialled)
        .await
        .unwrap_or(Err(DialError::Timeout))
}

async fn connect(
    socket: TcpSocket,
    target: SocketAddr,
    legs: &Legs,
) -> Result<TcpStream, DialError> {
    legs.connect(socket, target)
        .await
        .map_err(DialError::from_connect)
}

/// Dials from this address, by ports of our own choice until one is free.
async fn from_our_ports(
    delivery: Delivery,
    address: SocketAddr,
    ports: &Ports,
    legs: &Legs,
) -> Result<TcpStream, DialError> {
    let mut last = None;
    for _ in 0..ports.attempts {
        let socket = prepare(delivery)?;
        // One port serves for every destination, and the workload may still listen on it.
        socket.set_reuseaddr(true).map_err(DialError::Socket)?;
        let source = SocketAddr::new(address.ip(), ports.next());
        let source = match (address, source) {
            (SocketAddr::V6(address), SocketAddr::V6(mut source)) => {
                source.set_scope_id(address.scope_id());
                source.into()
            }
            (_, source) => source,
        };
        let dialled = match socket.bind(source) {
            Ok(()) => connect(socket, delivery.target, legs).await,
            Err(error) => Err(DialError::Bind(error)),
        };
        match dialled {
            Err(error) if error.is_about_the_port() => last = Some(error),
            other => return other,
        }
    }
    Err(last.unwrap_or(DialError::Timeout))
}

fn prepare(delivery: Delivery) -> Result<TcpSocket, DialError> {
    let socket = match delivery.target {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let socket = socket.map_err(DialError::Socket)?;
    socket.set_nodelay(true).map_err(DialError::Socket)?;
    if let Some(mark) = delivery.mark {
        set(&socket, sockopt::Mark, &mark)?;
    }
    match delivery.source {
        Source::Route => {}
        Source::Own(source) => {
            // The port is chosen by connect, when the other end is known: chosen here, one port would
            // be used up for every destination.
            set(&socket, sockopt::IpBindAddressNoPort, &true)?;
            socket.bind(source).map_err(DialError::Bind)?;
        }
        Source::Borrowed(_) => {
            // The option of IPv4 sets the same flag on a socket of either family.
            set(&socket, sockopt::IpTransparent, &true)?;
        }
    }
    Ok(socket)
}

fn set<O: SetSockOpt>(socket: &TcpSocket, option: O, value: &O::Val) -> Result<(), DialError> {
    setsockopt(socket, option, value).map_err(|errno| DialError::Socket(errno.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorts_failures_by_what_the_kernel_said() {
        for (errno, reason) in [
            (nix::errno::Errno::ECONNREFUSED, "connection-refused"),
            (nix::errno::Errno::ECONNRESET, "connection-refused"),
            (nix::errno::Errno::EHOSTUNREACH, "unreachable"),
            (nix::errno::Errno::ENETUNREACH, "unreachable"),
            (nix::errno::Errno::ETIMEDOUT, "connect-timeout"),
            (nix::errno::Errno::EACCES, "dial-error"),
        ] {
            assert_eq!(DialError::from_connect(errno.into()).reason(), reason, "{errno}");
        }
    }

    #[tokio::test]
    async fn dials_from_the_address_it_is_told() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        let source = Source::Own("127.0.0.6:0".parse().unwrap());
        let dialled = dial(
            Delivery { source, ..Delivery::to(target) },
            Duration::from_secs(5),
            &Legs::default(),
        )
        .await
        .unwrap();
        let (_, peer) = listener.accept().await.unwrap();
        assert_eq!(peer.ip().to_string(), "127.0.0.6");
        assert_eq!(peer, dialled.local_addr().unwrap());
        assert!(dialled.nodelay().unwrap());
    }

    #[tokio::test]
    async fn dials_from_no_port_that_the_workload_would_get() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let listener = tokio::net::TcpListener::bind(any).await.unwrap();
            let target = listener.local_addr().unwrap();
            let (limit, legs) = (Duration::from_secs(5), Legs::default());
            let mut kept = Vec::new();
            for _ in 0..3 {
                kept.push(dial(Delivery::to(target), limit, &legs).await.unwrap());
                let (_, peer) = listener.accept().await.unwrap();
                assert!(peer.port() >= 61_000, "{peer}");
            }
        }
    }

    #[tokio::test]
    async fn a_source_that_is_not_ours_is_said_so() {
        let target = "127.0.0.1:9".parse().unwrap();
        let source = Source::Own("203.0.113.7:0".parse().unwrap());
        let error = dial(
            Delivery { source, ..Delivery::to(target) },
            Duration::from_secs(5),
            &Legs::default(),
        )
        .await
        .unwrap_err();
        assert!(matches!(error, DialError::Bind(_)), "{error}");
    }
}
