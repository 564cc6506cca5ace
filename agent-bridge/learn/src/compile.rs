//! From rules, groups and modes to what each workload's proxy enforces.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use outrider_model::{AppId, Direction, IpProto, Mode, PolicyAction};
use outrider_policy::{AddrSpec, AppRule, PolicySpec, RuleSpec};

use crate::{Directory, Endpoint, Group, MAX_GROUP_RULES, Rule, Workload};

/// Applications in one compiled rule, so that it fits a datagram of the ctrl wire; more make more
/// rules.
const APPS_PER_RULE: usize = 64;

/// Rules that one compiled policy has at most. One that means all of the outside is in the lists of
/// both families, so this stays below what a proxy takes by as many as there can be of those.
pub const MAX_COMPILED: usize = outrider_policy::MAX_RULES - 2 * MAX_GROUP_RULES;

/// What one workload's proxy enforces.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CompiledPolicy {
    /// The workload's mode.
    pub mode: Mode,
    /// Its rules, both directions.
    pub spec: PolicySpec,
    /// Rules that are not in it because it has [`MAX_COMPILED`].
    pub left_out: usize,
}

/// Rules by the group at each end, and the addresses of each group.
pub(crate) struct Compiler<'a> {
    by_server: HashMap<&'a Group, Vec<&'a Rule>>,
    by_client: HashMap<&'a Group, Vec<&'a Rule>>,
    peers: HashMap<Group, Vec<Peer>>,
}

/// A peer as a rule's address; ordered, so that equal policy compiles to equal rules.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Peer {
    Range(IpAddr, IpAddr),
    External,
}

impl Peer {
    fn one(address: IpAddr) -> Self {
        Self::Range(address, address)
    }

    fn spec(self) -> AddrSpec {
        match self {
            Self::Range(low, high) => AddrSpec::Range(low, high),
            Self::External => AddrSpec::External,
        }
    }
}

impl<'a> Compiler<'a> {
    /// Takes the rules in order of number.
    pub(crate) fn new(directory: &'a Directory, rules: impl Iterator<Item = &'a Rule>) -> Self {
        let mut compiler =
            Self { by_server: HashMap::new(), by_client: HashMap::new(), peers: peers(directory) };
        for rule in rules {
            compiler
                .by_server
                .entry(&rule.key.to)
                .or_default()
                .push(rule);
            compiler
                .by_client
                .entry(&rule.key.from)
                .or_default()
                .push(rule);
            for group in [&rule.key.from, &rule.key.to] {
                if let Some(address) = unmanaged(group) {
                    compiler
                        .peers
                        .insert(group.clone(), vec![Peer::one(address)]);
                }
            }
        }
        compiler
    }

    /// What a workload's proxy enforces in that mode.
    pub(crate) fn policy(&self, workload: &Workload, mode: Mode) -> CompiledPolicy {
        let group = workload.group();
        let action = match mode {
            Mode::Discover => PolicyAction::Learn,
            Mode::Monitor | Mode::Protect => PolicyAction::Allow,
        };
        let mut rules = Vec::new();
        if let Some(known) = self.by_server.get(&group) {
            let known = known.iter().map(|rule| (*rule, &rule.key.from));
            rules.extend(self.rules(known, Direction::Inbound, action));
        }
        if let Some(known) = self.by_client.get(&group) {
            let known = known.iter().map(|rule| (*rule, &rule.key.to));
            rules.extend(self.rules(known, Direction::Outbound, action));
        }
        let left_out = rules.len().saturating_sub(MAX_COMPILED);
        rules.truncate(MAX_COMPILED);
        let spec = PolicySpec {
            default_action: mode.default_action(),
            inbound: true,
            outbound: true,
            rules,
            grace: false,
        };
        CompiledPolicy { mode, spec, left_out }
    }

    /// One rule for each peer and port, with the applications learned there: what is not among them
    /// meets the default, an unidentified application too; except at a server whose clients alone
    /// say what it is.
    fn rules<'r>(
        &self,
        rules: impl Iterator<Item = (&'r Rule, &'r Group)>,
        direction: Direction,
        action: PolicyAction,
    ) -> Vec<RuleSpec> {
        let mut apps: BTreeMap<(Peer, IpProto, u16), Vec<AppRule>> = BTreeMap::new();
        for (rule, peers) in rules {
            let entry = AppRule { app: rule.key.app, action, rule: rule.id };
            for peer in self.peers.get(peers).into_iter().flatten() {
                let known = apps
                    .entry((*peer, rule.key.proto, rule.key.port))
                    .or_default();
                known.push(entry);
                if direction == Direction::Inbound && rule.evidence.by_client {
                    known.push(AppRule { app: AppId::UNIDENTIFIED, ..entry });
                }
            }
        }
        let mut specs = Vec::with_capacity(apps.len());
        for ((peer, proto, port), apps) in apps {
            let (client, server) = match direction {
                Direction::Inbound => (peer.spec(), AddrSpec::Any),
                Direction::Outbound => (AddrSpec::Any, peer.spec()),
            };
            specs.extend(apps.chunks(APPS_PER_RULE).map(|apps| RuleSpec {
                id: apps[0].rule,
                client,
                server,
                ports: (port, port),
                proto: Some(proto),
                action: PolicyAction::CheckApp,
                direction,
                fqdn: None,
                vhost: false,
                apps: apps.to_vec(),
            }));
        }
        specs
    }
}

fn peers(directory: &Directory) -> HashMap<Group, Vec<Peer>> {
    let mut peers: HashMap<Group, Vec<Peer>> = HashMap::new();
    for workload in directory.workloads() {
        let known = peers.entry(workload.group()).or_default();
        known.extend(
            workload
                .addresses
                .iter()
                .map(|address| Peer::one(address.to_canonical())),
        );
    }
    for known in peers.values_mut() {
        known.sort_unstable();
        known.dedup();
    }
    let nodes = directory.hosts().map(Peer::one).collect();
    peers.insert(Group::named(Group::NODES), nodes);
    let tunnels = directory.tunnels().map(Peer::one).collect();
    peers.insert(Group::named(Group::INGRESS), tunnels);
    for (net, group) in directory.address_groups() {
        let range = Peer::Range(net.network(), net.broadcast());
        peers.entry(group.clone()).or_default().push(range);
    }
    peers.insert(Group::named(Group::EXTERNAL), vec![Peer::External]);
    peers
}

/// The address that a group of one unmanaged endpoint stands for.
fn unmanaged(group: &Group) -> Option<IpAddr> {
    let address = group.name().strip_prefix(Endpoint::UNMANAGED_PREFIX)?;
    address.parse().ok()
}
