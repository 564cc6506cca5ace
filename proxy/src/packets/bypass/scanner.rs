//! The pod's sockets and interfaces, looked at every other second, on a thread that may take its time.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::SocketAddr,
};

use nix::ifaddrs::getifaddrs;
use outrider_capture::{CaptureError, InetSocket, SocketState, Sockets, Wanted, families};
use outrider_model::{Direction, IpProto};
use tracing::debug;

use super::{
    known::{Known, OwnSockets},
    trick::{Ends, Finding, Trick},
};

/// Connections past the proxy that are kept in mind, so that each is reported once; of more, some are
/// reported again.
pub(super) const MAX_REPORTED: usize = 4096;
/// Interfaces and addresses that are compared; a pod has few.
const MAX_ADDRESSES: usize = 1024;

/// What one look found.
#[derive(Debug, Default)]
pub(super) struct Looked {
    /// What is new.
    pub(super) findings: Vec<Finding>,
    /// Connections past the proxy that go on.
    pub(super) lasting: Vec<Ends>,
    /// Sockets were seen that the next look will judge, if they are still there.
    pub(super) again: bool,
    /// Sockets that were too many to look at.
    pub(super) unread: u64,
    /// Connections that were let off, because the listener has more than it can take.
    pub(super) undecided: u64,
}

/// Looks, and remembers what it saw.
#[derive(Debug)]
pub(super) struct Scanner {
    known: Known,
    sockets: Sockets,
    /// Without a leg when last looked at.
    suspects: HashSet<Key>,
    reported: HashMap<Key, Trick>,
    families: HashSet<String>,
    interfaces: Option<BTreeSet<String>>,
    looks: u64,
}

/// One socket, not to be confused with a later one of the same addresses.
type Key = (SocketAddr, SocketAddr, u32);

impl Scanner {
    pub(super) fn new(known: Known) -> Result<Self, CaptureError> {
        Ok(Self {
            known,
            sockets: Sockets::open()?,
            suspects: HashSet::new(),
            reported: HashMap::new(),
            families: HashSet::new(),
            interfaces: None,
            looks: 0,
        })
    }

    /// Looks once.
    pub(super) fn look(&mut self) -> Looked {
        let mut looked = Looked::default();
        self.connections(&mut looked);
        self.families(&mut looked);
        self.interfaces(&mut looked);
        self.looks = self.looks.saturating_add(1);
        looked
    }

    fn connections(&mut self, looked: &mut Looked) {
        let mut seen = Vec::new();
        let wanted = Wanted { proto: IpProto::TCP, states: &STATES, bytes: false };
        match self.sockets.look(wanted, |socket| seen.push(socket)) {
            Ok(unread) => looked.unread = unread,
            Err(error) => {
                debug!(%error, "sockets cannot be looked at");
                return;
            }
        }
        let crowd = Crowd::new(&seen, &self.known);
        let strangers: HashMap<Key, InetSocket> = seen
            .iter()
            .filter(|socket| crowd.is_strange(socket, &self.known))
            .map(|socket| (key(socket), *socket))
            .collect();
        if crowd.overrun {
            looked.undecided = strangers.len() as u64;
            return;
        }
        self.judge(&strangers, looked);
    }

    /// A socket counts when it was seen twice: one that was just dialled, taken or closed may be honest.
    pub(super) fn judge(&mut self, strangers: &HashMap<Key, InetSocket>, looked: &mut Looked) {
        let mut own = OwnSockets::default();
        self.reported.retain(|key, _| strangers.contains_key(key));
        let before = std::mem::take(&mut self.suspects);
        for (key, socket) in strangers {
            let ends = ends(socket, &self.known);
            if let Some(trick) = self.reported.get(key) {
                if *trick != Trick::Uncaptured {
                    looked.lasting.push(ends);
                }
                continue;
            }
            if !before.contains(key) {
                self.suspects.insert(*key);
                looked.again = true;
                continue;
            }
            let mine = self.known.is_own_uid(socket.uid);
            if mine && own.has(socket.inode) {
                self.known.keep_leg(socket);
                continue;
            }
            let trick = match (self.known.uncaptured(&ends), mine) {
                (Some(_), _) => Trick::Uncaptured,
                (None, true) => Trick::Identity,
                (None, false) if self.looks <= FIRST_LOOKS => Trick::Older,
                (None, false) => Trick::Connection,
            };
            if self.reported.len() < MAX_REPORTED {
                self.reported.insert(*key, trick);
            }
            looked
                .findings
                .push(Finding::connection(trick, ends, Some(socket)));
        }
    }

    fn families(&mut self, looked: &mut Looked) {
        let Ok(now) = families() else { return };
        for (name, sockets) in now {
            let unseen = UNSEEN.contains(&name.as_str());
            if !unseen || sockets == 0 {
                self.families.remove(&name);
            } else if self.families.insert(name.clone()) {
                let message = format!("sockets of the family {name}");
                let evidence = format!("family={name} sockets={sockets}");
                looked
                    .findings
                    .push(Finding::plain(Trick::Family, message, evidence));
            }
        }
    }

    fn interfaces(&mut self, looked: &mut Looked) {
        let Ok(now) = interfaces() else { return };
        let Some(before) = self.interfaces.replace(now.clone()) else { return };
        let changes = now
            .difference(&before)
            .map(|what| (what, "came"))
            .chain(before.difference(&now).map(|what| (what, "went")));
        for (what, how) in changes {
            let message = format!("{how}: {what}");
            let evidence = format!("{what} {how}");
            looked
                .findings
                .push(Finding::plain(Trick::Interface, message, evidence));
        }
    }
}

/// Everything that one look saw, to hold each socket against.
pub(super) struct Crowd {
    /// Other ends of connections to the proxy's own listeners.
    taken: HashSet<SocketAddr>,
    pairs: HashSet<(SocketAddr, SocketAddr)>,
    /// A listener of the proxy has more connections than it can take: of some the kernel knows nothing.
    pub(super) overrun: bool,
}

impl Crowd {
    pub(super) fn new(seen: &[InetSocket], known: &Known) -> Self {
        let ours = |socket: &&InetSocket| {
            known.is_own_port(socket.local.port())
                && (known.is_own_uid(socket.uid) || socket.inode == 0)
        };
        let full = |socket: &InetSocket| {
            let [waiting, room] = socket.queues;
            socket.state == SocketState::LISTEN && waiting >= room.max(1)
        };
        Self {
            taken: seen
                .iter()
                .filter(ours)
                .map(|socket| socket.remote)
                .collect(),
            pairs: seen
                .iter()
                .map(|socket| (socket.local, socket.remote))
                .collect(),
            overrun: seen.iter().filter(ours).any(full),
        }
    }

    /// Whether nothing explains the connection.
    pub(super) fn is_strange(&self, socket: &InetSocket, known: &Known) -> bool {
        let mine = known.is_own_uid(socket.uid);
        let alive = match socket.state {
            SocketState::ESTABLISHED => true,
            // What the workload dials is not answered by the wire but by the proxy, when it comes to it.
            SocketState::SYN_SENT => mine,
            _ => false,
        };
        let stays = known.is_local(socket.remote.ip()) || socket.local.ip().is_loopback();
        if !alive || stays || socket.inode == 0 {
            return false;
        }
        let answered_here = mine && known.is_own_port(socket.local.port());
        if answered_here
            || self.taken.contains(&socket.local)
            || self.pairs.contains(&(socket.remote, socket.local))
        {
            return false;
        }
        if mine && known.is_leg(socket.local, socket.remote) {
            known.keep_leg(socket);
            return false;
        }
        true
    }
}

fn key(socket: &InetSocket) -> Key {
    (socket.local, socket.remote, socket.inode)
}

/// Who dialled cannot be seen of a connection; ports that clients get are high.
fn ends(socket: &InetSocket, known: &Known) -> Ends {
    let mut ends =
        Ends { local: socket.local, remote: socket.remote, direction: Direction::Outbound };
    let inbound = Ends { direction: Direction::Inbound, ..ends };
    let serves = socket.local.port() < CLIENT_PORTS && socket.remote.port() >= CLIENT_PORTS;
    if serves || known.uncaptured(&inbound).is_some() {
        ends = inbound;
    }
    ends
}

fn interfaces() -> nix::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for interface in getifaddrs()?.take(MAX_ADDRESSES) {
        let name: String = interface.interface_name.chars().take(16).collect();
        let address = interface.address.and_then(|address| {
            let v4 = address.as_sockaddr_in().map(|v4| v4.ip().to_string());
            // An interface makes IPv6 addresses of its own, and new ones in the same network now and
            // then: the network is what counts.
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| network(v6.ip())))
        });
        found.insert(match address {
            Some(address) => format!("address {address} of {name}"),
            None => format!("interface {name}"),
        });
    }
    found.retain(|what| !what.contains("address fe80:"));
    Ok(found)
}

fn network(ip: std::net::Ipv6Addr) -> String {
    let mut segments = ip.segments();
    segments[4..].fill(0);
    format!("{}/64", std::net::Ipv6Addr::from(segments))
}

/// States that matter: the kernel leaves out the others.
const STATES: [SocketState; 4] = [
    SocketState::ESTABLISHED,
    SocketState::SYN_SENT,
    SocketState::SYN_RECEIVED,
    SocketState::LISTEN,
];
/// What is there when the proxy begins was there before it: a socket is judged at the second look.
const FIRST_LOOKS: u64 = 1;
/// Linux gives ports from here to clients.
const CLIENT_PORTS: u16 = 32_768;
/// Families whose traffic leaves the pod without a packet that the tap or a rule could see.
const UNSEEN: [&str; 7] = ["XDP", "AF_VSOCK", "TIPC", "RDS", "SMC", "SMC6", "PHONET"];
