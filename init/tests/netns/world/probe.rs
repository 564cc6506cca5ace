//! Listeners that say who they are and what they saw, and connections that repeat it.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use socket2::{Domain, Socket, Type};

use super::{Namespace, Sender};

/// How often an outcome is looked for, and how long a look takes. On a busy machine a look takes longer, by as much
/// as whoever answers may have to wait for a turn.
const LOOKS: usize = 5;
const LOOK: Duration = Duration::from_millis(100);

/// Mark of sockets that borrow a client's address.
const MARK: u32 = 0x6eb;

/// TCP or UDP.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Transport {
    #[default]
    Tcp,
    Udp,
}

/// How a connection is opened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    pub(crate) transport: Transport,
    pub(crate) source: Option<IpAddr>,
    /// The source is someone else's address, and the socket carries the mark.
    pub(crate) transparent: bool,
    pub(crate) source_port: u16,
    pub(crate) mark: Option<u32>,
}

impl Options {
    /// UDP.
    pub(crate) fn udp() -> Self {
        Self { transport: Transport::Udp, ..Self::default() }
    }

    /// UDP from an address and a port.
    pub(crate) fn udp_from(source: &str, source_port: u16) -> Self {
        Self { source_port, transport: Transport::Udp, ..Self::from_source(source) }
    }

    /// From one of the pod's own addresses.
    pub(crate) fn from_source(source: &str) -> Self {
        Self { source: Some(source.parse().expect("address")), ..Self::default() }
    }

    /// From a client's address, as a transparent proxy does.
    pub(crate) fn borrowing(source: &str) -> Self {
        Self { transparent: true, mark: Some(MARK), ..Self::from_source(source) }
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.transport == Transport::Udp {
            write!(f, " udp")?;
        }
        if let Some(source) = self.source {
            let how = if self.transparent { "borrowing" } else { "by" };
            write!(f, " {how} {source}")?;
        }
        Ok(())
    }
}

/// Does `work` in the namespace until the test ends; returns when `work` says that it is ready.
fn background(namespace: &Namespace, owner: Sender, work: impl FnOnce(&dyn Fn()) + Send + 'static) {
    let (ready, wait) = mpsc::channel();
    let enter = namespace.entrance(owner);
    thread::spawn(move || {
        enter();
        work(&|| ready.send(()).expect("the test waits"));
    });
    wait.recv().expect("the listener started");
}

/// Accepts on `port` for both families until the test ends, and tells every client what it saw.
pub(crate) fn serve(namespace: &Namespace, owner: Sender, name: &'static str, port: u16) {
    accept(namespace, owner, name, (Ipv6Addr::UNSPECIFIED, port).into(), false);
}

/// The same for one family.
pub(crate) fn serve_at(namespace: &Namespace, owner: Sender, name: &'static str, addr: &str) {
    accept(namespace, owner, name, addr.parse().expect("address"), true);
}

fn accept(namespace: &Namespace, owner: Sender, name: &'static str, addr: SocketAddr, alone: bool) {
    background(namespace, owner, move |ready| {
        let port = addr.port();
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None).expect("socket");
        if addr.is_ipv6() {
            socket.set_only_v6(alone).expect("families");
        }
        socket.set_reuse_address(true).expect("reuse");
        setsockopt(&socket, sockopt::IpTransparent, &true).expect("transparent");
        socket.bind(&addr.into()).expect("bind");
        socket.listen(128).expect("listen");
        ready();
        while let Ok((stream, peer)) = socket.accept() {
            answer(stream.into(), peer.as_socket(), name, port);
        }
    });
}

fn answer(mut stream: TcpStream, peer: Option<SocketAddr>, name: &str, port: u16) {
    let Ok(local) = stream.local_addr() else { return };
    let source = peer
        .map(|peer| peer.ip().to_canonical().to_string())
        .unwrap_or_default();
    let mut text = format!("{name} from {source}");
    if name == "proxy" {
        let local = SocketAddr::new(local.ip().to_canonical(), local.port());
        let original = original_destination(&stream).unwrap_or(local);
        let how = if local.port() == port { "" } else { " (transparent)" };
        text = format!("proxy:{port}{how} for {original} from {source}");
    }
    // A client that has gone misses the answer, which its own outcome says.
    drop(stream.write_all(text.as_bytes()));
    drop(stream.shutdown(Shutdown::Write));
}

/// Answers every datagram until the test ends.
pub(crate) fn serve_udp(namespace: &Namespace, owner: Sender, name: &'static str, addr: &str) {
    let addr: SocketAddr = addr.parse().expect("address");
    background(namespace, owner, move |ready| {
        let socket = UdpSocket::bind(addr).expect("bind");
        ready();
        let mut question = [0; 64];
        while let Ok((_, peer)) = socket.recv_from(&mut question) {
            drop(socket.send_to(format!("{name} from {}", peer.ip()).as_bytes(), peer));
        }
    });
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

/// Connects and says what came of it.
pub(crate) fn connect(to: SocketAddr, options: Options) -> String {
    let outcome = open(to, options).and_then(|socket| match options.transport {
        Transport::Tcp => exchange_tcp(&socket, to),
        Transport::Udp => exchange_udp(&socket, to),
    });
    match outcome {
        Ok(text) if text.is_empty() => "closed without a word".to_owned(),
        Ok(text) => text,
        Err(error) => match error.kind() {
            ErrorKind::ConnectionRefused => "refused".to_owned(),
            ErrorKind::ConnectionReset => "reset".to_owned(),
            ErrorKind::TimedOut => "nothing".to_owned(),
            ErrorKind::PermissionDenied => "not permitted".to_owned(),
            _ => error.to_string(),
        },
    }
}

fn open(to: SocketAddr, options: Options) -> std::io::Result<Socket> {
    let kind = match options.transport {
        Transport::Tcp => Type::STREAM,
        Transport::Udp => Type::DGRAM,
    };
    let socket = Socket::new(Domain::for_address(to), kind, None)?;
    socket.set_read_timeout(Some(LOOK))?;
    socket.set_write_timeout(Some(LOOK))?;
    if options.transparent {
        setsockopt(&socket, sockopt::IpTransparent, &true)?;
    }
    if let Some(mark) = options.mark {
        socket.set_mark(mark)?;
    }
    if let Some(source) = options.source {
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::new(source, options.source_port).into())?;
    }
    Ok(socket)
}

/// Looks until there is an outcome, so often at most.
fn patiently<T>(mut look: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    for _ in 0..LOOKS {
        match look() {
            Err(error) if NOT_YET.contains(&error.raw_os_error().unwrap_or_default()) => {}
            outcome => return outcome,
        }
    }
    Err(ErrorKind::TimedOut.into())
}

/// What a look says that saw nothing, at a connection that is made or at one that is there.
const NOT_YET: [i32; 3] = [Errno::EAGAIN as i32, Errno::EINPROGRESS as i32, Errno::EALREADY as i32];

fn exchange_tcp(mut socket: &Socket, to: SocketAddr) -> std::io::Result<String> {
    patiently(|| socket.connect(&to.into()))?;
    let mut text = Vec::new();
    patiently(|| socket.read_to_end(&mut text))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn exchange_udp(mut socket: &Socket, to: SocketAddr) -> std::io::Result<String> {
    socket.connect(&to.into())?;
    socket.write_all(b"?")?;
    let mut answer = [0; 64];
    let length = patiently(|| socket.read(&mut answer))?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}
