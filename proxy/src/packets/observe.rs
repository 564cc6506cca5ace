//! Connections of a pod of which not even packets may be seen: the kernel's own list of sockets, looked at
//! now and then, and its word of each that ends. Takes no capability.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    net::SocketAddr,
    time::Duration,
};

use outrider_capture::{CaptureError, InetSocket, SocketEvents, SocketState, Sockets, Wanted};
use outrider_model::{Direction, FlowKey, IpProto};
use outrider_telemetry::{CutReason, Outcome};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::session::{Scene, Session};
use crate::context::SharedContext;

/// Makes sessions of the pod's sockets.
#[derive(Debug)]
pub(crate) struct Observe {
    context: SharedContext,
    sockets: Sockets,
    /// Without it, connections between two looks are not seen.
    events: Option<SocketEvents>,
    book: Book,
    next: Instant,
    interval: Duration,
    lost: u64,
}

/// The sessions: as many as one look shows, and those that end in between.
#[derive(Debug)]
struct Book {
    scene: Scene,
    open: HashMap<Key, Open>,
    /// Ports that somebody in the pod listens on.
    listens: HashSet<u16>,
    looks: u64,
}

type Key = (IpProto, SocketAddr, SocketAddr);

#[derive(Debug)]
struct Open {
    /// None if it was cleared.
    session: Option<Session>,
    /// Bytes to and from the other end that are counted.
    counted: [u64; 2],
    /// The look that last showed it.
    look: u64,
}

impl Observe {
    /// Begins to look. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The kernel does not show the pod's sockets.
    pub(crate) fn new(context: SharedContext, scene: Scene) -> Result<Self, CaptureError> {
        let events = SocketEvents::open();
        if let Err(error) = &events {
            warn!(%error, "connections that end between two looks are not seen");
        }
        let interval = context.settings.packets.observe_interval;
        info!(?interval, "sockets are looked at");
        Ok(Self {
            context,
            sockets: Sockets::open()?,
            events: events.ok(),
            book: Book { scene, open: HashMap::new(), listens: HashSet::new(), looks: 0 },
            next: Instant::now(),
            interval,
            lost: 0,
        })
    }

    /// Waits for the next look or for word of connections that ended, and takes it in. Dropping the
    /// future loses nothing.
    pub(crate) async fn work(&mut self) {
        let Self { context, events, book, next, .. } = self;
        let ended = async {
            let Some(events) = events else { return std::future::pending().await };
            events.wait(|socket| book.ended(&socket, context)).await
        };
        let heard = tokio::select! {
            biased;
            () = sleep_until(*next) => None,
            heard = ended => Some(heard),
        };
        match heard {
            None => self.look(),
            Some(Ok(())) => self.count_lost(),
            Some(Err(error)) => {
                warn!(%error, "connections that end between two looks are not seen any more");
                self.events = None;
            }
        }
    }

    fn count_lost(&mut self) {
        let lost = self.events.as_ref().map_or(self.lost, SocketEvents::lost);
        let news = lost.saturating_sub(std::mem::replace(&mut self.lost, lost));
        self.context.packets.bypass().unread.inc_by(news);
    }

    fn look(&mut self) {
        let started = Instant::now();
        self.book.looks = self.book.looks.wrapping_add(1);
        for proto in [IpProto::TCP, IpProto::UDP] {
            let wanted = Wanted { proto, states: &STATES, bytes: proto == IpProto::TCP };
            let (book, context) = (&mut self.book, &self.context);
            match self
                .sockets
                .look(wanted, |socket| book.seen(&socket, context))
            {
                Ok(unread) => self.context.packets.bypass().unread.inc_by(unread),
                Err(error) => debug!(%error, proto = proto.label(), "sockets cannot be looked at"),
            }
        }
        self.book.sweep();
        // A look may take a fiftieth of the time.
        self.next = started + self.interval.max(started.elapsed() * 50);
    }

    /// Judges every session again, after a policy swap.
    pub(crate) fn rule(&mut self) {
        let Book { scene, open, .. } = &mut self.book;
        let sessions = open.values_mut().filter_map(|open| open.session.as_mut());
        sessions.for_each(|session| session.rule(scene));
    }
}

impl Book {
    /// A socket that is there.
    fn seen(&mut self, socket: &InetSocket, context: &SharedContext) {
        if socket.state == SocketState::LISTEN {
            self.listens.insert(socket.local.port());
            return;
        }
        if !is_news(socket, context) {
            return;
        }
        let looks = self.looks;
        let open = self.enter(socket);
        open.look = looks;
        let ends = match socket.state {
            SocketState::CLOSE_WAIT => [0, 1],
            SocketState::FIN_WAIT => [1, 0],
            _ => [0, 0],
        };
        open.count(socket.bytes, ends);
    }

    /// A socket that is no more. One that nobody answered has no session.
    fn ended(&mut self, socket: &InetSocket, context: &SharedContext) {
        let key = key(socket);
        let answered = socket.proto != IpProto::TCP
            || socket.bytes.is_some_and(|bytes| bytes != [0, 0])
            || self.open.contains_key(&key);
        if !answered || !is_news(socket, context) {
            return;
        }
        let open = self.enter(socket);
        open.count(socket.bytes, [1, 1]);
        if let Some(session) = self.open.remove(&key).and_then(|open| open.session) {
            session.finish(Outcome::Done);
        }
    }

    fn enter(&mut self, socket: &InetSocket) -> &mut Open {
        let flow = self.flow(socket);
        match self.open.entry(key(socket)) {
            Entry::Occupied(entry) => {
                let open = entry.into_mut();
                if open.session.is_none() {
                    open.session = Some(Session::unread(&self.scene, flow));
                }
                open
            }
            Entry::Vacant(entry) => entry.insert(Open {
                session: Some(Session::unread(&self.scene, flow)),
                counted: [0, 0],
                look: 0,
            }),
        }
    }

    /// Who dialled cannot be seen of a socket: a port that somebody listens on is a server's.
    fn flow(&self, socket: &InetSocket) -> FlowKey {
        let InetSocket { proto, local, remote, .. } = *socket;
        let serves = self.listens.contains(&local.port())
            || (local.port() < CLIENT_PORTS && remote.port() >= CLIENT_PORTS);
        if serves {
            FlowKey { client: remote, server: local, proto, direction: Direction::Inbound }
        } else {
            FlowKey { client: local, server: remote, proto, direction: Direction::Outbound }
        }
    }

    /// Ends the sessions of sockets that are gone without a word, and those that were cleared.
    fn sweep(&mut self) {
        let looks = self.looks;
        for (_, open) in self.open.extract_if(|_, open| open.look != looks) {
            if let Some(session) = open.session {
                session.finish(Outcome::Done);
            }
        }
        for open in self.open.values_mut() {
            let cleared = |session: &Session| session.flow().cut_reason() == Some(CutReason::Clear);
            if let Some(session) = open.session.take_if(|session| cleared(session)) {
                session.finish(Outcome::Cleared);
            }
        }
    }
}

impl Open {
    /// Counts what is new. The kernel counts a SYN as a byte for who sent the first one, and each FIN,
    /// of which there were so many each way: after a reset that may be one too many.
    fn count(&mut self, bytes: Option<[u64; 2]>, ends: [u64; 2]) {
        let (Some([to, from]), Some(session)) = (bytes, &self.session) else { return };
        let begins = u64::from(!session.flow().is_inbound());
        let (to, from) = (to.saturating_sub(begins + ends[0]), from.saturating_sub(ends[1]));
        let [told, heard] = &mut self.counted;
        let news = [to.saturating_sub(*told), from.saturating_sub(*heard)];
        (*told, *heard) = (to.max(*told), from.max(*heard));
        session.carried(news);
    }
}

fn key(socket: &InetSocket) -> Key {
    (socket.proto, socket.local, socket.remote)
}

/// Whether it is a connection with another host that is not the proxy's own.
pub(super) fn is_news(socket: &InetSocket, context: &SharedContext) -> bool {
    let pod = context.identity.load();
    let remote = socket.remote.ip();
    socket.remote.port() != 0
        && !pod.is_local(remote)
        && !pod.is_shared(remote)
        && !socket.local.ip().is_loopback()
        && !context.settings.own_ports().contains(&socket.local.port())
}

/// All but those of which nothing is known any more, or not yet. A UDP socket that is connected is
/// "established".
const STATES: [SocketState; 4] =
    [SocketState::ESTABLISHED, SocketState::CLOSE_WAIT, SocketState::FIN_WAIT, SocketState::LISTEN];
/// Linux gives ports from here to clients.
const CLIENT_PORTS: u16 = 32_768;
