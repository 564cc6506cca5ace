//! Listeners that say who they are and what they saw, and connections that repeat it.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::{Namespace, Sender};

/// How long an outcome may take.
const PATIENCE: Duration = Duration::from_millis(800);

/// Accepts on `port` for both families until the test ends, and tells every client what it saw.
pub(crate) fn serve(namespace: &Namespace, owner: Sender, name: &'static str, port: u16) {
    let (ready, wait) = mpsc::channel();
    let namespace = Namespace { name: namespace.name.clone() };
    thread::spawn(move || {
        namespace.enter(owner);
        // The world owns the namespace; this copy of its name must not remove it.
        std::mem::forget(namespace);
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None).expect("socket");
        socket.set_only_v6(false).expect("dual stack");
        socket.set_reuse_address(true).expect("reuse");
        let addr = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        socket.bind(&addr.into()).expect("bind");
        socket.listen(128).expect("listen");
        ready.send(()).expect("the test waits");
        loop {
            let Ok((stream, peer)) = socket.accept() else { return };
            answer(stream.into(), peer.as_socket(), name);
        }
    });
    wait.recv().expect("the listener started");
}

fn answer(mut stream: TcpStream, peer: Option<SocketAddr>, name: &str) {
    let Ok(local) = stream.local_addr() else { return };
    let original = original_destination(&stream).unwrap_or(local);
    let source = peer
        .map(|peer| peer.ip().to_canonical().to_string())
        .unwrap_or_default();
    let text = if name == "proxy" {
        format!("proxy:{} for {original} from {source}", local.port())
    } else {
        format!("{name} from {source}")
    };
    // A client that has gone misses the answer, which its own outcome says.
    drop(stream.write_all(text.as_bytes()));
    drop(stream.shutdown(Shutdown::Write));
}

fn original_destination(stream: &TcpStream) -> Option<SocketAddr> {
    let v4 = stream.peer_addr().ok()?.ip().to_canonical().is_ipv4();
    if v4 {
        let addr = getsockopt(stream, sockopt::OriginalDst).ok()?;
        let ip = IpAddr::from(addr.sin_addr.s_addr.to_ne_bytes());
        Some(SocketAddr::new(ip, u16::from_be(addr.sin_port)))
    } else {
        let addr = getsockopt(stream, sockopt::Ip6tOriginalDst).ok()?;
        let ip = IpAddr::from(addr.sin6_addr.s6_addr);
        Some(SocketAddr::new(ip, u16::from_be(addr.sin6_port)))
    }
}

/// Connects, from `source` if given, and says what came of it.
pub(crate) fn connect(to: SocketAddr, source: Option<IpAddr>) -> String {
    match try_connect(to, source) {
        Ok(text) if text.is_empty() => "closed without a word".to_owned(),
        Ok(text) => text,
        Err(error) => match error.kind() {
            ErrorKind::ConnectionRefused => "refused".to_owned(),
            ErrorKind::ConnectionReset => "reset".to_owned(),
            ErrorKind::TimedOut | ErrorKind::WouldBlock => "nothing".to_owned(),
            _ => error.to_string(),
        },
    }
}

fn try_connect(to: SocketAddr, source: Option<IpAddr>) -> std::io::Result<String> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    socket.connect_timeout(&to.into(), PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    TcpStream::from(socket).read_to_string(&mut text)?;
    Ok(text)
}
