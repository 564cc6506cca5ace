//! Names in rules that nobody has asked for yet, or not lately: the proxy asks for them itself.
//!
//! Without it a restarted proxy would know none of the addresses that the workload still uses, and a
//! workload that keeps addresses beyond their time would be cut off. It asks the pod's own name servers,
//! so what it learns is what the pod would be told; never the hosts file, which the workload can write.

use std::{collections::HashMap, io, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use hickory_resolver::{
    Resolver,
    config::{LookupIpStrategy, ResolveHosts},
    net::runtime::{RuntimeProvider, TokioHandle, TokioTime, iocompat::AsyncIoTokioAsStd},
};
use outrider_dpi::dns_message::DnsAddress;
use outrider_policy::Name;
use outrider_relay::{Delivery, Legs, dial};
use outrider_telemetry::unix_seconds;
use tokio::net::{TcpStream, UdpSocket};
use tracing::{debug, warn};

use super::{Asker, set_mark};
use crate::settings::Secret;

/// Names asked for in one turn.
const MAX_NAMES_A_TURN: usize = 64;
/// A name is asked for again so long before its addresses expire.
const AHEAD: u64 = 15;
/// A name that stands for nothing is asked for again after so long.
const RETRY: u64 = 30;
/// Answers the resolver keeps: ours is the book.
const CACHED: u64 = 64;
/// Longest time for one name.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks for names in rules.
#[derive(Debug)]
pub(super) struct Resolving {
    resolver: Option<Resolver<Sockets>>,
    /// When each name was last asked for; only names in rules stay in it.
    asked: HashMap<Name, u64>,
}

impl Resolving {
    /// A resolver over the pod's name servers.
    pub(super) fn new(asker: &Asker) -> Self {
        let (config, mut options) = asker.resolvers.config();
        options.use_hosts_file = ResolveHosts::Never;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.cache_size = CACHED;
        let legs = Arc::clone(&asker.legs);
        let sockets = Sockets { handle: TokioHandle::default(), mark: asker.mark, legs };
        let resolver = Resolver::builder_with_config(config, sockets)
            .with_options(options)
            .build()
            .inspect_err(|error| warn!(%error, "names in rules are learned from traffic alone"))
            .ok();
        Self { resolver, asked: HashMap::new() }
    }

    /// Asks for names that are due, one after the other.
    pub(super) async fn turn(&mut self, asker: &Asker) {
        let Some(resolver) = &self.resolver else { return };
        let now = unix_seconds();
        let mut stale = asker.names.stale(now.saturating_add(AHEAD));
        self.asked.retain(|name, _| stale.contains(name));
        let due = |name: &Name| {
            let asked = self.asked.get(name);
            asked.is_none_or(|at| now >= at.saturating_add(RETRY))
        };
        stale.retain(due);
        for name in stale.into_iter().take(MAX_NAMES_A_TURN) {
            let lookup = resolver.lookup_ip(format!("{name}."));
            match tokio::time::timeout(PATIENCE, lookup).await {
                Ok(Ok(found)) => {
                    let records = found.as_lookup().answers();
                    let ttl = records
                        .iter()
                        .map(|record| record.ttl)
                        .min()
                        .unwrap_or_default();
                    let given: Vec<_> = found
                        .iter()
                        .map(|address| DnsAddress { address, ttl })
                        .collect();
                    asker.names.learn(&name, &given, unix_seconds());
                }
                Ok(Err(error)) => debug!(%name, %error, "name in a rule not resolved"),
                Err(_elapsed) => debug!(%name, "name in a rule not resolved in time"),
            }
            self.asked.insert(name, now);
        }
    }
}

/// The resolver's sockets: the proxy's own, as all towards name servers.
#[derive(Clone)]
struct Sockets {
    handle: TokioHandle,
    mark: Option<Secret>,
    legs: Arc<Legs>,
}

type Opening<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

impl RuntimeProvider for Sockets {
    type Handle = TokioHandle;
    type Timer = TokioTime;
    type Udp = UdpSocket;
    type Tcp = AsyncIoTokioAsStd<TcpStream>;

    fn create_handle(&self) -> TokioHandle {
        self.handle.clone()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        _from: Option<SocketAddr>,
        limit: Option<Duration>,
    ) -> Opening<Self::Tcp> {
        let Self { mark, legs, .. } = self.clone();
        Box::pin(async move {
            let delivery = Delivery { mark: mark.map(Secret::reveal), ..Delivery::to(server) };
            let dialled = dial(delivery, limit.unwrap_or(PATIENCE), &legs).await;
            dialled.map(AsyncIoTokioAsStd).map_err(io::Error::other)
        })
    }

    fn bind_udp(&self, local: SocketAddr, _server: SocketAddr) -> Opening<UdpSocket> {
        let mark = self.mark;
        Box::pin(async move {
            let socket = UdpSocket::bind(local).await?;
            set_mark(&socket, mark)?;
            Ok(socket)
        })
    }
}
