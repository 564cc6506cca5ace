//! The connection to who is meant to answer.

use std::{io, net::SocketAddr, time::Duration};

use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use outrider_telemetry::Refusal;
use thiserror::Error;
use tokio::net::{TcpSocket, TcpStream};

/// Where to dial, and from which address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Delivery {
    /// Who is meant to answer.
    pub target: SocketAddr,
    /// The source address, if not the one that the route gives. Port 0 is left to the kernel.
    pub bind: Option<SocketAddr>,
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

/// Dials, within `limit`.
pub(crate) async fn dial(delivery: Delivery, limit: Duration) -> Result<TcpStream, DialError> {
    let socket = prepare(delivery)?;
    match tokio::time::timeout(limit, socket.connect(delivery.target)).await {
        Ok(connected) => connected.map_err(DialError::from_connect),
        Err(_elapsed) => Err(DialError::Timeout),
    }
}

fn prepare(delivery: Delivery) -> Result<TcpSocket, DialError> {
    let socket = match delivery.target {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let socket = socket.map_err(DialError::Socket)?;
    socket.set_nodelay(true).map_err(DialError::Socket)?;
    if let Some(source) = delivery.bind {
        // The port is chosen by connect, when the other end is known: chosen here, one port would be
        // used up for every destination.
        setsockopt(&socket, IpBindAddressNoPort, &true)
            .map_err(|errno| DialError::Socket(errno.into()))?;
        socket.bind(source).map_err(DialError::Bind)?;
    }
    Ok(socket)
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
        let bind = Some("127.0.0.6:0".parse().unwrap());
        let dialled = dial(Delivery { target, bind }, Duration::from_secs(5))
            .await
            .unwrap();
        let (_, peer) = listener.accept().await.unwrap();
        assert_eq!(peer.ip().to_string(), "127.0.0.6");
        assert_eq!(peer, dialled.local_addr().unwrap());
        assert!(dialled.nodelay().unwrap());
    }

    #[tokio::test]
    async fn a_source_that_is_not_ours_is_said_so() {
        let target = "127.0.0.1:9".parse().unwrap();
        let bind = Some("203.0.113.7:0".parse().unwrap());
        let error = dial(Delivery { target, bind }, Duration::from_secs(5))
            .await
            .unwrap_err();
        assert!(matches!(error, DialError::Bind(_)), "{error}");
    }
}
