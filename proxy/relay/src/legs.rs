//! Which TCP connections on the wire are ours.

use std::{
    future::poll_fn,
    hash::{BuildHasher as _, RandomState},
    io,
    net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::AsRawFd,
    pin::pin,
    sync::{
        OnceLock,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use nix::sys::socket::{SockaddrStorage, getsockname};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::Instant,
};

/// Connections that are remembered at most; the oldest of a bucket makes room.
pub const MAX_LEGS: usize = 1 << 17;

/// Remembers the ends of each connection that the proxy dialled, or took from the network: while it lives
/// and as long after as there is room. Nobody waits for anybody, and until [`Self::watch`] is called
/// nothing is remembered at all.
///
/// What is kept of a connection is 40 bits of a keyed hash and the time: one stranger's connection in
/// a hundred billion is taken for ours.
#[derive(Debug, Default)]
pub struct Legs {
    table: OnceLock<Table>,
    arrivals: AtomicU8,
}

#[derive(Debug)]
struct Table {
    hasher: RandomState,
    started: Instant,
    slots: Box<[AtomicU64]>,
    /// When an entry last made room that was younger than [`MEMORY`], in the unit of [`Table::now`].
    forgot: AtomicU64,
}

impl Legs {
    /// Remembers connections from now on.
    pub fn watch(&self) {
        self.table.get_or_init(|| Table {
            hasher: RandomState::new(),
            started: Instant::now(),
            slots: (0..MAX_LEGS).map(|_| AtomicU64::new(0)).collect(),
            forgot: AtomicU64::new(0),
        });
    }

    /// Whether connections are remembered.
    #[must_use]
    pub fn is_watching(&self) -> bool {
        self.table.get().is_some()
    }

    /// A connection came in from the network, to a transparent listener or redirected.
    pub fn arrived(&self, transparent: bool) {
        let now = if transparent { TRANSPARENT } else { REDIRECTED };
        if self.arrivals.load(Relaxed) < now {
            self.arrivals.fetch_max(now, Relaxed);
        }
    }

    /// Whether what comes in is redirected, so that no socket of the proxy ever has the workload's port.
    /// Unknown, and so `false`, until something came in.
    #[must_use]
    pub fn are_redirected(&self) -> bool {
        self.arrivals.load(Relaxed) == REDIRECTED
    }

    /// A connection of ours, by its end here and the other one.
    pub fn add(&self, local: SocketAddr, remote: SocketAddr) {
        if let Some(table) = self.table.get() {
            table.add(local, remote);
        }
    }

    /// Dials, and remembers the connection from its first packet on, whatever comes of it.
    ///
    /// # Errors
    /// Nobody answers, or the kernel refuses.
    pub async fn connect(&self, socket: TcpSocket, remote: SocketAddr) -> io::Result<TcpStream> {
        if !self.is_watching() {
            return socket.connect(remote).await;
        }
        // The kernel chooses our end when the dial begins, and the socket belongs to the dial from then
        // on: while that is pending, the number is the same socket's.
        let number = socket.as_raw_fd();
        let mut dial = pin!(socket.connect(remote));
        let mut known = false;
        poll_fn(|context| {
            let polled = dial.as_mut().poll(context);
            let local = match &polled {
                _ if known => return polled,
                Poll::Pending => getsockname::<SockaddrStorage>(number)
                    .ok()
                    .and_then(address),
                Poll::Ready(Ok(stream)) => stream.local_addr().ok(),
                Poll::Ready(Err(_)) => None,
            };
            if let Some(local) = local {
                known = true;
                self.add(local, remote);
            }
            polled
        })
        .await
    }

    /// Whether the connection is, or was, ours.
    #[must_use]
    pub fn has(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        let Some(table) = self.table.get() else { return false };
        let (bucket, print) = table.place(local, remote);
        bucket
            .iter()
            .any(|slot| slot.load(Relaxed) >> TIME_BITS == print)
    }

    /// Whether, in this time until now, nothing was forgotten that was not old: else "not ours" may only
    /// mean that there was no room.
    #[must_use]
    pub fn is_whole(&self, since: Duration) -> bool {
        self.table.get().is_some_and(|table| {
            let forgot = table.forgot.load(Relaxed);
            forgot == 0 || table.now().saturating_sub(forgot) > units(since)
        })
    }
}

impl Table {
    fn add(&self, local: SocketAddr, remote: SocketAddr) {
        let (bucket, print) = self.place(local, remote);
        let now = self.now();
        let entry = print << TIME_BITS | now;
        for _ in 0..WAYS {
            let Some((slot, old)) = oldest(bucket, print) else { return };
            if slot.compare_exchange(old, entry, Relaxed, Relaxed).is_ok() {
                let lost = old != 0 && old >> TIME_BITS != print;
                if lost && now.saturating_sub(old & TIME) < units(MEMORY) {
                    self.forgot.store(now, Relaxed);
                }
                return;
            }
        }
        self.forgot.store(now, Relaxed);
    }

    /// Quarters of a second since the start, from 1, so that no entry is 0.
    fn now(&self) -> u64 {
        units(self.started.elapsed()).saturating_add(1) & TIME
    }

    fn place(&self, local: SocketAddr, remote: SocketAddr) -> (&[AtomicU64], u64) {
        let hash = self.hasher.hash_one((plain(local), plain(remote)));
        let bucket = usize::try_from(hash % BUCKETS as u64).unwrap_or_default() * WAYS;
        let slots = self.slots.get(bucket..bucket + WAYS).unwrap_or_default();
        (slots, hash >> TIME_BITS)
    }
}

/// The slot of the same connection, else a free one, else that of the oldest; with what is in it.
fn oldest(bucket: &[AtomicU64], print: u64) -> Option<(&AtomicU64, u64)> {
    let seen = bucket.iter().map(|slot| (slot, slot.load(Relaxed)));
    seen.min_by_key(|(_, entry)| if entry >> TIME_BITS == print { 0 } else { entry & TIME })
}

fn address(storage: SockaddrStorage) -> Option<SocketAddr> {
    let v4 = storage
        .as_sockaddr_in()
        .map(|v4| SocketAddr::from(SocketAddrV4::from(*v4)));
    v4.or_else(|| {
        storage
            .as_sockaddr_in6()
            .map(|v6| SocketAddrV6::from(*v6).into())
    })
}

/// Without the scope and the flow label, which one side knows and the other does not.
fn plain(addr: SocketAddr) -> (IpAddr, u16) {
    (addr.ip().to_canonical(), addr.port())
}

fn units(time: Duration) -> u64 {
    u64::try_from(time.as_millis() / 250).unwrap_or(u64::MAX)
}

/// What was ours so long ago is still known, unless [`Legs::is_whole`] says otherwise. Up to 5 000
/// connections a second there is room for that.
const MEMORY: Duration = Duration::from_secs(3);

/// How connections come in, as far as is known; one transparent rule outweighs all that is redirected.
const REDIRECTED: u8 = 1;
const TRANSPARENT: u8 = 2;
/// Slots that one hash may be in: a line of the cache.
const WAYS: usize = 8;
const BUCKETS: usize = MAX_LEGS / WAYS;
/// Bits of the time in an entry: 48 days of quarters of a second.
const TIME_BITS: u32 = 24;
const TIME: u64 = (1 << TIME_BITS) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(number: u32) -> (SocketAddr, SocketAddr) {
        let [_, high, low, port] = number.to_be_bytes();
        let local = SocketAddr::from(([10, 0, high, low], 30_000 + u16::from(port)));
        (local, "10.9.0.2:80".parse().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn knows_what_is_ours_and_nothing_else() {
        let legs = Legs::default();
        let (local, remote) = ends(1);
        legs.add(local, remote);
        assert!(!legs.has(local, remote), "nobody watches");
        legs.watch();
        assert!(!legs.has(local, remote));
        legs.add(local, remote);
        assert!(legs.has(local, remote) && !legs.has(remote, local));
        assert!(!legs.has(local, "10.9.0.2:81".parse().unwrap()));
        assert!(legs.is_whole(MEMORY));
    }

    #[tokio::test]
    async fn a_dial_is_ours_if_it_is_answered_or_not() {
        let legs = Legs::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        legs.watch();
        for source in ["127.0.0.1:0", "127.0.0.2:0"] {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(source.parse().unwrap()).unwrap();
            let stream = legs.connect(socket, target).await.unwrap();
            assert!(legs.has(stream.local_addr().unwrap(), target));
        }
        drop(listener);
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.3:0".parse().unwrap()).unwrap();
        let local = socket.local_addr().unwrap();
        let refused = legs.connect(socket, target).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert!(legs.has(local, target));
    }

    #[test]
    fn knows_how_connections_come_in_when_some_have() {
        let legs = Legs::default();
        assert!(!legs.are_redirected());
        legs.arrived(false);
        assert!(legs.are_redirected());
        legs.arrived(true);
        legs.arrived(false);
        assert!(!legs.are_redirected());
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_is_the_same_with_a_scope_and_mapped() {
        let legs = Legs::default();
        legs.watch();
        legs.add("[fe80::1%3]:5".parse().unwrap(), "[::ffff:10.0.0.1]:6".parse().unwrap());
        assert!(legs.has("[fe80::1]:5".parse().unwrap(), "10.0.0.1:6".parse().unwrap()));
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_make_room_and_it_says_when_they_were_young() {
        let legs = Legs::default();
        legs.watch();
        let most = u32::try_from(MAX_LEGS).unwrap();
        for number in 0..most / 16 {
            let (local, remote) = ends(number);
            legs.add(local, remote);
            legs.add(local, remote);
        }
        assert!(legs.is_whole(MEMORY), "hardly full");
        assert!((0..most / 16).all(|number| legs.has(ends(number).0, ends(number).1)));
        tokio::time::advance(MEMORY * 2).await;
        for number in most..most + most / 16 {
            legs.add(ends(number).0, ends(number).1);
        }
        assert!(legs.is_whole(MEMORY), "those that made room were old");
        for number in 2 * most..5 * most {
            legs.add(ends(number).0, ends(number).1);
        }
        assert!(!legs.is_whole(Duration::from_secs(1)));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(legs.is_whole(Duration::from_secs(1)), "nothing was forgotten in the last second");
        assert!(!legs.is_whole(MEMORY));
    }
}
