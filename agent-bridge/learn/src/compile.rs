//! From rules, groups and modes to what each group's workloads enforce.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use outrider_model::{AppId, Direction, IpProto, Mode, PolicyAction};
use outrider_policy::{AddrSpec, AppRule, PolicySpec, RuleSpec};

use crate::{Directory, Endpoint, Group, Rule};

/// Applications in one compiled rule, so that it fits a datagram of the ctrl wire; more make more
/// rules.
const APPS_PER_RULE: usize = 64;

/// Rules that the compiled policies of all groups have. What is free is shared: one may take half of
/// it, so the more there are, the less any gets.
pub const MAX_ALL_COMPILED: usize = 262_144;

/// Rules that one compiled policy has at most, which is what one gets that is alone. One that means all of the outside is
/// in the lists of both families, and a proxy takes 250 000.
pub const MAX_COMPILED: usize = MAX_ALL_COMPILED / SHARE;

/// Rules that a compiled policy may have however many the others have.
pub const MIN_COMPILED: usize = 128;

/// A policy may take this part of what is free.
const SHARE: usize = 2;

/// What the workloads of a group enforce.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CompiledPolicy {
    /// The group's mode.
    pub mode: Mode,
    /// Its rules, both directions.
    pub spec: PolicySpec,
    /// Rules that are not in it because it has as many as it may.
    pub left_out: usize,
}

/// How many rules a policy may have, beside so many of all others.
pub(crate) fn allowance(others: usize) -> usize {
    (MAX_ALL_COMPILED.saturating_sub(others) / SHARE).max(MIN_COMPILED)
}

/// A peer as a rule's address; ordered, so that equal policy compiles to equal rules.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Peer {
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

/// The addresses of each group.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peers(HashMap<Group, Vec<Peer>>);

impl Peers {
    /// As the directory has them now.
    pub(crate) fn new(directory: &Directory) -> Self {
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
        Self(peers)
    }

    fn of(&self, group: &Group) -> Cow<'_, [Peer]> {
        match (self.0.get(group), unmanaged(group)) {
            (Some(known), _) => known.into(),
            (None, Some(address)) => vec![Peer::one(address)].into(),
            (None, None) => Cow::default(),
        }
    }
}

/// The address that a group of one unmanaged endpoint stands for.
fn unmanaged(group: &Group) -> Option<IpAddr> {
    let address = group.name().strip_prefix(Endpoint::UNMANAGED_PREFIX)?;
    address.parse().ok()
}

/// What the workloads of `group` enforce in that mode, of `rules` in order of number. What comes after `most` is left out: so what is in force stays so.
pub(crate) fn policy<'r>(
    (group, mode): (&Group, Mode),
    rules: impl Iterator<Item = &'r Rule>,
    peers: &Peers,
    most: usize,
) -> CompiledPolicy {
    let action = match mode {
        Mode::Discover => PolicyAction::Learn,
        Mode::Monitor | Mode::Protect => PolicyAction::Allow,
    };
    let mut places = Places { most: most.min(MAX_COMPILED), ..Places::default() };
    for rule in rules {
        let app = AppRule { app: rule.key.app, action, rule: rule.id };
        if rule.key.to == *group {
            let from = peers.of(&rule.key.from);
            places.add(Direction::Inbound, &from, (rule, app));
            if rule.evidence.by_client {
                let unseen = AppRule { app: AppId::UNIDENTIFIED, ..app };
                places.add(Direction::Inbound, &from, (rule, unseen));
            }
        }
        if rule.key.from == *group {
            places.add(Direction::Outbound, &peers.of(&rule.key.to), (rule, app));
        }
    }
    let left_out = places.left_out;
    let spec = PolicySpec {
        default_action: mode.default_action(),
        inbound: true,
        outbound: true,
        rules: places.rules(),
        grace: false,
    };
    CompiledPolicy { mode, spec, left_out }
}

/// One place for each direction, peer and port, with the applications learned there: what is not among
/// them meets the default, an unidentified application too; except at a server whose clients alone
/// say what it is.
#[derive(Default)]
struct Places {
    most: usize,
    /// Whether it is the way out, to or from whom, and the port.
    apps: BTreeMap<(bool, Peer, IpProto, u16), Vec<AppRule>>,
    /// Rules that this makes.
    count: usize,
    left_out: usize,
}

impl Places {
    fn add(&mut self, direction: Direction, peers: &[Peer], (rule, app): (&Rule, AppRule)) {
        let is_out = direction == Direction::Outbound;
        for peer in peers {
            let place = (is_out, *peer, rule.key.proto, rule.key.port);
            let known = self.apps.get_mut(&place);
            let begins = known
                .as_ref()
                .is_none_or(|known| known.len() % APPS_PER_RULE == 0);
            if begins && self.count >= self.most {
                self.left_out += 1;
                continue;
            }
            self.count += usize::from(begins);
            match known {
                Some(known) => known.push(app),
                None => drop(self.apps.insert(place, vec![app])),
            }
        }
    }

    fn rules(self) -> Vec<RuleSpec> {
        let mut specs = Vec::with_capacity(self.count);
        for ((is_out, peer, proto, port), apps) in self.apps {
            let (client, server, direction) = match is_out {
                false => (peer.spec(), AddrSpec::Any, Direction::Inbound),
                true => (AddrSpec::Any, peer.spec(), Direction::Outbound),
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
