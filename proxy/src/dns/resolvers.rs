//! The pod's name servers: who they are, and which of them to ask first.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use hickory_resolver::{
    config::{NameServerConfig, ResolverConfig, ResolverOpts},
    system_conf::parse_resolv_conf,
};
use tokio::time::Instant;
use tracing::warn;

use crate::settings::MAX_NAME_SERVERS;

#[cfg(test)]
mod tests;

/// Where the pod's name servers are written down.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Longest time between a question and asking the next server as well.
const MAX_PATIENCE: Duration = Duration::from_secs(2);
/// Least and longest time that a question is kept.
const MIN_LIFE: Duration = Duration::from_secs(5);
const MAX_LIFE: Duration = Duration::from_secs(30);
/// How long a server that did not answer is asked last.
const SUSPICION: Duration = Duration::from_secs(30);

/// The name servers with what became of asking them.
#[derive(Debug)]
pub(crate) struct Resolvers {
    servers: Vec<Server>,
    options: ResolverOpts,
    started: Instant,
}

#[derive(Debug)]
struct Server {
    address: SocketAddr,
    /// Milliseconds since `started` until which it is asked last.
    suspect_until: AtomicU64,
}

impl Resolvers {
    /// Reads the pod's configuration, once: a workload that can write to the file must not be able to
    /// choose, later on, who tells the proxy what names mean. `pinned` takes its place.
    #[must_use]
    pub(crate) fn read(pinned: &[SocketAddr]) -> Self {
        let text = std::fs::read(RESOLV_CONF).unwrap_or_else(|error| {
            warn!(%error, path = RESOLV_CONF, "not read");
            Vec::new()
        });
        Self::parse(&text, pinned)
    }

    /// Without a name server the one on this host is asked, as the C libraries do.
    pub(crate) fn parse(text: &[u8], pinned: &[SocketAddr]) -> Self {
        let (servers, options) = match parse_resolv_conf(text) {
            Ok((config, options)) => {
                let servers = config.name_servers().iter();
                (
                    servers
                        .map(|server| SocketAddr::new(server.ip, PORT))
                        .collect(),
                    options,
                )
            }
            Err(error) => {
                warn!(%error, "no name server is configured, the one on this host is asked");
                (vec![SocketAddr::from((Ipv4Addr::LOCALHOST, PORT))], ResolverOpts::default())
            }
        };
        let chosen: Vec<SocketAddr> = if pinned.is_empty() { servers } else { pinned.to_vec() };
        let servers = chosen.into_iter().take(MAX_NAME_SERVERS);
        let new = |address| Server { address, suspect_until: AtomicU64::new(0) };
        Self { servers: servers.map(new).collect(), options, started: Instant::now() }
    }

    /// Whom to ask, in order: whom the client meant, then those that answered the last time.
    pub(crate) fn order(&self, meant: Option<IpAddr>) -> Vec<SocketAddr> {
        let now = self.now();
        let mut servers: Vec<&Server> = self.servers.iter().collect();
        servers.sort_by_key(|server| {
            let suspect = server.suspect_until.load(Relaxed) > now;
            (suspect, Some(server.address.ip()) != meant)
        });
        servers.iter().map(|server| server.address).collect()
    }

    /// A server did not answer: for a while it is asked last.
    pub(crate) fn suspect(&self, server: SocketAddr) {
        self.mark(server, self.now().saturating_add(millis(SUSPICION)));
    }

    /// A server answered.
    pub(crate) fn trust(&self, server: SocketAddr) {
        self.mark(server, 0);
    }

    fn mark(&self, address: SocketAddr, until: u64) {
        let server = self.servers.iter().find(|server| server.address == address);
        if let Some(server) = server {
            server.suspect_until.store(until, Relaxed);
        }
    }

    fn now(&self) -> u64 {
        millis(self.started.elapsed())
    }

    /// How long to wait for one server before the next is asked as well.
    #[must_use]
    pub(crate) fn patience(&self) -> Duration {
        (self.options.timeout / 2).clamp(MIN_PATIENCE, MAX_PATIENCE)
    }

    /// How long a question is kept: as long as a client that reads the same file may wait.
    #[must_use]
    pub(crate) fn life(&self) -> Duration {
        let attempts = u32::try_from(self.options.attempts).unwrap_or(1);
        self.options
            .timeout
            .saturating_mul(attempts)
            .clamp(MIN_LIFE, MAX_LIFE)
    }

    /// The same servers for a resolver of our own.
    pub(crate) fn config(&self) -> (ResolverConfig, ResolverOpts) {
        let servers = self.servers.iter().map(|server| {
            let mut config = NameServerConfig::udp_and_tcp(server.address.ip());
            for connection in &mut config.connections {
                connection.port = server.address.port();
            }
            config
        });
        let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
        (config, self.options.clone())
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Where name servers listen.
const PORT: u16 = 53;
const MIN_PATIENCE: Duration = Duration::from_millis(500);
