//! Sockets of a chosen owner, and what comes of a connection.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use socket2::{Domain, Socket, Type};

use super::Finding;
use crate::settings::{Groups, Settings};

/// How long a connection may take: on loopback it takes microseconds.
pub(super) const PATIENCE: Duration = Duration::from_millis(500);

/// What came of dialling.
#[derive(Debug)]
pub(super) enum Dialled {
    /// Someone accepted.
    Connected(Socket),
    /// Reset.
    Refused,
    /// No answer.
    Nothing,
    /// The kernel has no way there.
    NoWay(io::Error),
}

/// Owner of the sockets of a probe.
#[derive(Clone, Copy, Debug)]
pub(super) struct User {
    uid: u32,
    gid: Option<u32>,
    mark: Option<u32>,
}

impl User {
    /// The proxy.
    pub(super) fn proxy(settings: &Settings) -> Self {
        let uid = settings.proxy_uids.first().copied().unwrap_or_default();
        Self { uid, gid: None, mark: settings.secret_mark }
    }

    /// Anyone else, in a group that is captured.
    pub(super) fn workload(settings: &Settings) -> Self {
        // Not root: a pod's root may be an owner that the settings name.
        let uid = (NOBODY..)
            .find(|uid| !settings.proxy_uids.contains(uid))
            .unwrap_or(NOBODY);
        let gid = match &settings.groups {
            Groups::All => (NOBODY..).find(|gid| !settings.exclude_groups.contains(gid)),
            Groups::Only(list) => list
                .iter()
                .find(|gid| !settings.exclude_groups.contains(gid))
                .copied(),
        };
        Self { uid, gid, mark: None }
    }

    /// Does `work` as this user, on a thread of its own; `None` if that is not permitted.
    pub(super) fn run<T: Send>(self, work: impl FnOnce() -> T + Send) -> Option<T> {
        thread::scope(|scope| {
            let thread = scope.spawn(move || {
                if let Some(gid) = self.gid {
                    setfsgid(Gid::from_raw(gid));
                }
                setfsuid(Uid::from_raw(self.uid));
                // The call tells what was before it: asked again, it tells whether it worked.
                let became = setfsuid(Uid::from_raw(self.uid)) == Uid::from_raw(self.uid);
                MARK.set(self.mark);
                became.then(work)
            });
            thread.join().ok().flatten()
        })
    }

    /// Why nothing was proved when [`User::run`] said no.
    pub(super) fn unproved(self) -> Finding {
        Finding::Unproved(format!("needs SETUID to act as user {}", self.uid))
    }
}

/// uid and gid of nobody in particular.
const NOBODY: u32 = 65534;

thread_local! {
    /// Secret mark of the sockets of this thread.
    static MARK: std::cell::Cell<Option<u32>> = const { std::cell::Cell::new(None) };
}

/// Dials, from `source` if given.
pub(super) fn dial(to: SocketAddr, source: Option<IpAddr>) -> Dialled {
    match connect(to, source) {
        Ok(socket) => Dialled::Connected(socket),
        Err(error) => match error.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Dialled::Refused,
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Dialled::Nothing,
            _ => Dialled::NoWay(error),
        },
    }
}

fn connect(to: SocketAddr, source: Option<IpAddr>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    if let Some(mark) = MARK.get() {
        socket.set_mark(mark)?;
    }
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    socket.connect_timeout(&to.into(), PATIENCE)?;
    Ok(socket)
}

/// A socket of this thread's user.
pub(super) fn datagram_socket(to: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), Type::DGRAM, None)?;
    if let Some(mark) = MARK.get() {
        socket.set_mark(mark)?;
    }
    Ok(socket)
}

/// A listener of the workload.
pub(super) struct Listener(Socket);

/// Listens on a free port of `addr`.
pub(super) fn listen(addr: IpAddr) -> Option<Listener> {
    let addr = SocketAddr::new(addr, 0);
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None).ok()?;
    socket.bind(&addr.into()).ok()?;
    socket.listen(8).ok()?;
    socket.set_read_timeout(Some(PATIENCE)).ok()?;
    Some(Listener(socket))
}

impl Listener {
    /// Where it listens.
    pub(super) fn addr(&self) -> Option<SocketAddr> {
        self.0.local_addr().ok()?.as_socket()
    }

    /// The connection must have arrived here as it was dialled.
    pub(super) fn judge_direct(&self, dialled: Dialled) -> Finding {
        match dialled {
            Dialled::Connected(socket) => {
                let own = socket.local_addr().ok().and_then(|addr| addr.as_socket());
                match self.0.accept().map(|(_, peer)| peer.as_socket()) {
                    Ok(peer) if peer == own => Finding::Holds,
                    Ok(peer) => {
                        Finding::Broken(format!("arrived from {peer:?} instead of {own:?}"))
                    }
                    Err(_) => Finding::Broken("accepted by someone else".to_owned()),
                }
            }
            Dialled::Refused => Finding::Broken("refused".to_owned()),
            Dialled::Nothing => Finding::Broken("no answer".to_owned()),
            Dialled::NoWay(error) => Finding::Broken(error.to_string()),
        }
    }
}
