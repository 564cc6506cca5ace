//! A listener in the proxy's place, if the proxy is not running.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use socket2::{Domain, Socket, Type};

use super::Finding;
use super::probe::{Dialled, PATIENCE, User};

/// Connections of others that may be in front of ours.
const OTHERS: usize = 16;

/// The proxy's port: ours, or the running proxy's.
pub(super) struct StandIn(Option<Socket>);

impl StandIn {
    /// Takes the port if it is free.
    pub(super) fn on(port: u16, owner: &User) -> Self {
        Self(owner.run(|| open(port)).flatten())
    }

    /// Whether we hold the port, and thus see original destinations.
    pub(super) fn is_ours(&self) -> bool {
        self.0.is_some()
    }

    /// The connection to `to` must have come to this port.
    pub(super) fn judge(&self, dialled: Dialled, to: SocketAddr) -> Finding {
        match dialled {
            Dialled::Connected(socket) => self.judge_arrival(&socket, to),
            Dialled::Refused if self.is_ours() => Finding::Broken("refused".to_owned()),
            Dialled::Refused => Finding::Broken("refused: is the proxy listening?".to_owned()),
            Dialled::Nothing => Finding::Broken(format!("{to} was dialled directly")),
            Dialled::NoWay(error) => Finding::Unproved(format!("no way to {to}: {error}")),
        }
    }

    fn judge_arrival(&self, socket: &Socket, to: SocketAddr) -> Finding {
        // A running proxy does not tell what it saw; that anyone accepted is the proof.
        let Some(listener) = &self.0 else { return Finding::Holds };
        let own = socket.local_addr().ok().and_then(|addr| addr.as_socket());
        for _ in 0..OTHERS {
            let Ok((accepted, peer)) = listener.accept() else { break };
            let peer = peer.as_socket();
            let canonical =
                |addr: SocketAddr| SocketAddr::new(addr.ip().to_canonical(), addr.port());
            if peer.map(canonical) == own {
                return match original(&accepted).map(canonical) {
                    Some(seen) if seen == to => Finding::Holds,
                    seen => {
                        Finding::Broken(format!("the proxy would see {seen:?} instead of {to}"))
                    }
                };
            }
        }
        Finding::Broken("accepted by someone else than the proxy".to_owned())
    }
}

fn open(port: u16) -> Option<Socket> {
    let (socket, any): (_, IpAddr) = match Socket::new(Domain::IPV6, Type::STREAM, None) {
        Ok(socket) => (socket, Ipv6Addr::UNSPECIFIED.into()),
        Err(_) => {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).ok()?;
            (socket, Ipv4Addr::UNSPECIFIED.into())
        }
    };
    if any.is_ipv6() {
        socket.set_only_v6(false).ok()?;
    }
    socket.set_reuse_address(true).ok()?;
    // Without the privilege REDIRECT still works; TPROXY will be reported as broken, which it is.
    setsockopt(&socket, sockopt::IpTransparent, &true).unwrap_or_default();
    socket.bind(&SocketAddr::new(any, port).into()).ok()?;
    socket.listen(64).ok()?;
    socket.set_read_timeout(Some(PATIENCE)).ok()?;
    Some(socket)
}

/// Where the client wanted to go.
fn original(socket: &Socket) -> Option<SocketAddr> {
    let local = socket.local_addr().ok()?.as_socket()?;
    if local.ip().to_canonical().is_ipv4() {
        let addr = getsockopt(socket, sockopt::OriginalDst).ok()?;
        let ip = IpAddr::from(addr.sin_addr.s_addr.to_ne_bytes());
        Some(SocketAddr::new(ip, u16::from_be(addr.sin_port)))
    } else {
        let addr = getsockopt(socket, sockopt::Ip6tOriginalDst).ok()?;
        let ip = IpAddr::from(addr.sin6_addr.s6_addr);
        Some(SocketAddr::new(ip, u16::from_be(addr.sin6_port)))
    }
}
