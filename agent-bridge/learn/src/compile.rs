//! From rules, groups and modes to what each workload's proxy enforces.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use outrider_model::{Direction, IpProto, Mode, PolicyAction};
use outrider_policy::{AddrSpec, AppRule, PolicySpec, RuleSpec};

use crate::{Directory, Endpoint, Group, Rule, Workload};

/// Applications in one compiled rule, so that it fits a datagram of the ctrl wire; more make more
/// rules.
const APPS_PER_RULE: usize = 64;

/// What one workload's proxy enforces.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CompiledPolicy {
    /// The workload's mode.
    pub mode: Mode,
    /// Its rules, both directions.
    pub spec: PolicySpec,
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
    One(IpAddr),
    External,
}

impl Peer {
    fn spec(self) -> AddrSpec {
        match self {
            Self::One(address) => AddrSpec::one(address),
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
                        .insert(group.clone(), vec![Peer::One(address)]);
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
        let spec = PolicySpec {
            default_action: mode.default_action(),
            inbound: true,
            outbound: true,
            rules,
            grace: false,
        };
        CompiledPolicy { mode, spec }
    }

    /// One rule for each peer and port, with the applications learned there: what is not among them
    /// meets the default, an unidentified application too.
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
                apps.entry((*peer, rule.key.proto, rule.key.port))
                    .or_default()
                    .push(entry);
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
                .map(|address| Peer::One(address.to_canonical())),
        );
    }
    for known in peers.values_mut() {
        known.sort_unstable();
        known.dedup();
    }
    let nodes = directory.hosts().map(Peer::One).collect();
    peers.insert(Group::named(Group::NODES), nodes);
    peers.insert(Group::named(Group::EXTERNAL), vec![Peer::External]);
    peers
}

/// The address that a group of one unmanaged endpoint stands for.
fn unmanaged(group: &Group) -> Option<IpAddr> {
    let address = group.name().strip_prefix(Endpoint::UNMANAGED_PREFIX)?;
    address.parse().ok()
}
