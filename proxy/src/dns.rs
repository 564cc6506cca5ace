//! The pod's questions to name servers: sent on as they came, answers passed as they came, names
//! learned on the way (`docs/dns.md`).
//!
//! [`Dns`] binds loopback, [`udp`] and [`tcp`] take questions, [`exchange`] and [`pass`] ask the pod's
//! own [`resolvers`]. What an answer says about addresses goes into the [`book`] and, where a rule is
//! about the name, into policy ([`names`]) before the workload has the answer.

mod asked;
mod book;
mod exchange;
mod frames;
mod metrics;
mod names;
mod overheard;
mod pass;
mod resolve;
mod resolvers;
mod tcp;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod udp;

use std::{
    collections::HashSet,
    hash::{BuildHasher as _, RandomState},
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::socket::{setsockopt, sockopt::Mark},
};
use outrider_dpi::dns_message::given;
use outrider_model::Direction;
use outrider_relay::Legs;
use outrider_telemetry::{Telemetry, unix_seconds};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use self::{asked::Asked, resolve::Resolving, resolvers::Resolvers};
pub(crate) use self::{
    metrics::DnsMetrics,
    names::{Names, Notice},
    overheard::Overheard,
};
use crate::{
    context::{Context, SharedContext},
    settings::Secret,
    survive::Lives,
};

/// The listener's sockets, bound before anything is served.
#[derive(Debug)]
pub(crate) struct Dns {
    sockets: Vec<(UdpSocket, TcpListener)>,
    asker: Asker,
    telemetry: Telemetry,
}

/// Everything that asking takes.
#[derive(Debug)]
pub(crate) struct Asker {
    resolvers: Resolvers,
    names: Arc<Names>,
    metrics: DnsMetrics,
    mark: Option<Secret>,
    legs: Arc<Legs>,
    ids: Ids,
    questions: Arc<Semaphore>,
    connections: Arc<Semaphore>,
}

impl Dns {
    /// Binds loopback in both families: an answer from any other address would not be taken for one
    /// by the rules that redirected the question. The kernel may lack IPv6, not IPv4.
    pub(crate) fn bind(context: &Context) -> io::Result<Self> {
        let (settings, mark) = (&context.settings.dns, context.own_mark());
        let v4 = bind((Ipv4Addr::LOCALHOST, settings.port).into(), mark)?;
        let port = v4.0.local_addr()?.port();
        let mut sockets = vec![v4];
        match bind((Ipv6Addr::LOCALHOST, port).into(), mark) {
            Ok(v6) => sockets.push(v6),
            Err(error) if is_absent(&error) => info!(%error, "no IPv6 loopback for DNS"),
            Err(error) => return Err(error),
        }
        let asker = Asker {
            resolvers: Resolvers::read(&settings.servers),
            names: Arc::clone(&context.names),
            metrics: context.dns.clone(),
            mark,
            legs: Arc::clone(&context.legs),
            ids: Ids::default(),
            questions: Arc::new(Semaphore::new(udp::MAX_QUESTIONS)),
            connections: Arc::new(Semaphore::new(tcp::MAX_CONNECTIONS)),
        };
        info!(port, servers = ?asker.resolvers.order(None), "DNS");
        Ok(Self { sockets, asker, telemetry: context.telemetry.clone() })
    }

    /// Serves until `stop`, or until a socket's task is gone; what is under way then ends at once.
    pub(crate) async fn serve(self, stop: CancellationToken) {
        let (asker, tasks) = (Arc::new(self.asker), TaskTracker::new());
        let mut sockets = JoinSet::new();
        for (udp, tcp) in self.sockets {
            match (tokio::net::UdpSocket::from_std(udp), tokio::net::TcpListener::from_std(tcp)) {
                (Ok(udp), Ok(tcp)) => {
                    let asker = || Arc::clone(&asker);
                    sockets.spawn(udp::serve(asker(), udp, tasks.clone(), stop.clone()));
                    sockets.spawn(tcp::serve(asker(), tcp, tasks.clone(), stop.clone()));
                }
                (Err(error), _) | (_, Err(error)) => warn!(%error, "DNS socket not usable"),
            }
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            Some(ended) = sockets.join_next() => warn!(?ended, "a DNS socket is no longer served"),
            () = keep(&asker, &self.telemetry) => {}
        }
    }
}

/// Serves until `stop`, whatever breaks.
pub(crate) async fn run(first: Dns, context: SharedContext, stop: CancellationToken) {
    let mut first = Some(first);
    let mut life = async || match first.take().map_or_else(|| Dns::bind(&context), Ok) {
        Ok(dns) => dns.serve(stop.clone()).await,
        Err(error) => warn!(%error, "DNS port"),
    };
    let lives = Lives::new("dns", &context.restarts, &stop);
    while lives.once(Box::pin(life())).await {}
}

/// Forgets what has expired and asks for names in rules, for ever.
async fn keep(asker: &Asker, telemetry: &Telemetry) {
    let mut resolving = Resolving::new(asker);
    let mut ticker = interval(TURN);
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticker.tick().await;
        forget(&asker.names, telemetry);
        resolving.turn(asker).await;
    }
}

/// Forgets what has expired; what outbound flows use stays.
pub(crate) fn forget(names: &Names, telemetry: &Telemetry) {
    let mut in_use = HashSet::new();
    telemetry.flows().for_each(|flow| {
        if flow.key().direction == Direction::Outbound {
            in_use.insert(flow.key().server.ip());
        }
    });
    names.expire(unix_seconds(), &|address| in_use.contains(&address));
}

/// What is learned from the wire: nothing where questions come to the proxy.
pub(crate) fn overhear(context: &Context) -> Option<Overheard> {
    let settings = &context.settings.dns;
    let servers = || Resolvers::read(&settings.servers).order(None);
    (!settings.on).then(|| Overheard::new(servers(), context.dns.clone()))
}

/// Answers leave with the mark too, or the pod's rules would not know them for ours.
fn bind(address: SocketAddr, mark: Option<Secret>) -> io::Result<(UdpSocket, TcpListener)> {
    let udp = UdpSocket::bind(address)?;
    let tcp = TcpListener::bind(udp.local_addr()?)?;
    set_mark(&udp, mark)?;
    set_mark(&tcp, mark)?;
    udp.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    Ok((udp, tcp))
}

fn is_absent(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw);
    matches!(code, Some(Errno::EADDRNOTAVAIL | Errno::EAFNOSUPPORT))
}

impl Asker {
    /// Takes in what an answer says about the addresses of the name that was asked for.
    fn learn(&self, asked: &Asked, answer: &[u8]) {
        if let Some(name) = asked.name() {
            self.names.learn(name, &given(answer), unix_seconds());
        }
    }

    /// A socket towards a name server carries the pod's secret mark, if there is one.
    fn mark(&self, socket: &impl AsFd) -> io::Result<()> {
        set_mark(socket, self.mark)
    }
}

fn set_mark(socket: &impl AsFd, mark: Option<Secret>) -> io::Result<()> {
    match mark {
        Some(mark) => Ok(setsockopt(socket, Mark, &mark.reveal())?),
        None => Ok(()),
    }
}

/// Ids that nobody can foresee: a keyed hash of a counter, its keys drawn from the system at start.
#[derive(Debug, Default)]
struct Ids {
    keys: RandomState,
    drawn: AtomicU64,
}

impl Ids {
    fn draw(&self) -> u16 {
        let [high, low, ..] = self
            .keys
            .hash_one(self.drawn.fetch_add(1, Relaxed))
            .to_be_bytes();
        u16::from_be_bytes([high, low])
    }
}

/// Time between two turns of what is done by the clock.
const TURN: Duration = Duration::from_secs(5);
