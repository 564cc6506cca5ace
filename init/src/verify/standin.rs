//! A listener in the proxy's place, if the proxy is not running.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use socket2::{Domain, Socket, Type};

use super::Finding;
use super::probe::{Dialled, User};

/// Connections of others that may be in front of ours, and are kept.
const OTHERS: usize = 16;

/// How long a connection that was answered may take to arrive: the kernel repeats a handshake after 1 and 3 seconds.
const ARRIVAL: Duration = Duration::from_secs(4);

/// The proxy's port: ours, or the running proxy's.
pub(super) struct StandIn(Option<Port>);

/// A port of ours.
struct Port {
    listener: Socket,
    /// Connections, by client, that arrived before the one that was looked for.
    early: RefCell<Vec<(SocketAddr, Socket)>>,
}

impl StandIn {
    /// Takes the port if it is free.
    pub(super) fn on(port: u16, owner: &User) -> Self {
        let listener = owner.run(|| open(port)).flatten();
        Self(listener.map(|listener| Port { listener, early: RefCell::default() }))
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
        let Some(port) = &self.0 else { return Finding::Holds };
        let own = socket.local_addr().ok().and_then(|addr| addr.as_socket());
        let Some(accepted) = own.and_then(|own| port.arrival(own)) else {
            return Finding::Broken("accepted by someone else than the proxy".to_owned());
        };
        match original(&accepted).map(canonical) {
            Some(seen) if seen == to => Finding::Holds,
            seen => Finding::Broken(format!("the proxy would see {seen:?} instead of {to}")),
        }
    }
}

impl Port {
    /// The connection of `client`. The last packet of a handshake may be overtaken by a later connection's.
    fn arrival(&self, client: SocketAddr) -> Option<Socket> {
        let client = canonical(client);
        let mut early = self.early.borrow_mut();
        if let Some(index) = early.iter().position(|(peer, _)| *peer == client) {
            return Some(early.swap_remove(index).1);
        }
        while early.len() < OTHERS {
            let (accepted, peer) = self.listener.accept().ok()?;
            match peer.as_socket().map(canonical)? {
                peer if peer == client => return Some(accepted),
                peer => early.push((peer, accepted)),
            }
        }
        None
    }
}

/// IPv4 as such, and without the number of an interface, which the two ends of a link do not share.
fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
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
    socket.set_read_timeout(Some(ARRIVAL)).ok()?;
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

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
    use std::time::Duration;

    use super::{OTHERS, Port, open};

    fn port() -> (Port, SocketAddr) {
        let listener = open(0).unwrap();
        let number = listener.local_addr().unwrap().as_socket().unwrap().port();
        listener
            .set_read_timeout(Some(Duration::from_millis(10)))
            .unwrap();
        let addr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), number);
        (Port { listener, early: RefCell::default() }, addr)
    }

    #[test]
    fn connections_are_found_in_any_order() {
        let (port, addr) = port();
        let clients: Vec<_> = (0..3).map(|_| TcpStream::connect(addr).unwrap()).collect();
        for client in clients.iter().rev() {
            let own = client.local_addr().unwrap();
            assert!(port.arrival(own).is_some(), "{own}");
            assert!(port.arrival(own).is_none(), "{own} twice");
        }
    }

    #[test]
    fn others_are_kept_up_to_a_bound() {
        let (port, addr) = port();
        let clients: Vec<_> = (0..=OTHERS)
            .map(|_| TcpStream::connect(addr).unwrap())
            .collect();
        assert!(
            port.arrival(clients[OTHERS].local_addr().unwrap())
                .is_none()
        );
        assert_eq!(port.early.borrow().len(), OTHERS);
        assert!(port.arrival(clients[0].local_addr().unwrap()).is_some());
        assert!(
            port.arrival(clients[OTHERS].local_addr().unwrap())
                .is_some(),
            "there is room again"
        );
    }
}
