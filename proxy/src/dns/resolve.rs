//! Names in rules that nobody has asked for yet, or not lately: the proxy asks for them itself.
//!
//! Without it a restarted proxy would know none of the addresses that the workload still uses, and a
//! workload that keeps addresses beyond their time would be cut off. It asks the pod's own name servers,
//! so what it learns is what the pod would be told; never the hosts file, which the workload can write.

use std::{collections::HashMap, time::Duration};

use hickory_resolver::{
    TokioResolver,
    config::{LookupIpStrategy, ResolveHosts},
    net::runtime::TokioRuntimeProvider,
};
use outrider_dpi::dns_message::DnsAddress;
use outrider_policy::Name;
use outrider_telemetry::unix_seconds;
use tracing::{debug, warn};

use super::Asker;

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
    resolver: Option<TokioResolver>,
    /// When each name was last asked for; only names in rules stay in it.
    asked: HashMap<Name, u64>,
}

impl Resolving {
    /// A resolver over the pod's name servers. None if its sockets would have to carry a mark: they
    /// cannot.
    pub(super) fn new(asker: &Asker) -> Self {
        let (config, mut options) = asker.resolvers.config();
        options.use_hosts_file = ResolveHosts::Never;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.cache_size = CACHED;
        let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let resolver = match asker.mark {
            None => builder.with_options(options).build(),
            Some(_) => return Self { resolver: None, asked: HashMap::new() },
        };
        let resolver = resolver
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
