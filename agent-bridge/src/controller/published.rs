//! A plan with what links need to find their part of it fast. Made once a change, read by every link.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use outrider_learn::Ends;

use super::{
    plan::{Plan, Pod, Rule, Set, World},
    store::index,
};

/// What is in force in the cluster, at one moment.
#[derive(Debug, Default)]
pub(super) struct Published {
    /// Grows with each change.
    pub(super) revision: u64,
    /// The policy that people wrote.
    pub(super) plan: Plan,
    /// What was learned, between groups of services; sets of these names are not in the plan.
    pub(super) learned: Vec<Arc<Rule>>,
    /// Networks of pods.
    pub(super) internal: Vec<IpNet>,
    /// Pods by uid.
    pub(super) pods: HashMap<Arc<str>, Arc<Pod>>,
    by_address: HashMap<IpAddr, Arc<Pod>>,
    by_group: HashMap<String, Vec<Arc<Pod>>>,
    by_node: HashMap<Arc<str>, Vec<Arc<Pod>>>,
    /// Nodes of what is in a set.
    nodes_of: HashMap<Arc<str>, Reach>,
}

/// Which nodes have something to do with a set.
#[derive(Debug)]
enum Reach {
    All,
    Some(HashSet<Arc<str>>),
}

impl Reach {
    fn has(&self, node: &str) -> bool {
        match self {
            Self::All => true,
            Self::Some(nodes) => nodes.contains(node),
        }
    }
}

impl Published {
    /// Indexes what is in force.
    #[must_use]
    pub(super) fn new(
        revision: u64,
        world: &World,
        plan: Plan,
        learned: Vec<Arc<Rule>>,
        internal: Vec<IpNet>,
    ) -> Self {
        let pods = || world.pods.values().map(Arc::clone);
        let by_address: HashMap<_, _> = pods()
            .flat_map(|pod| {
                pod.addresses
                    .clone()
                    .into_iter()
                    .map(move |ip| (ip, Arc::clone(&pod)))
            })
            .collect();
        let scheduled = pods().filter(|pod| !pod.node.is_empty());
        let by_group = index(pods().map(|pod| (pod.group(), pod)));
        let mut nodes_of: HashMap<_, _> = plan
            .sets
            .iter()
            .map(|(name, set)| (Arc::clone(name), reach(set, world, &by_address)))
            .collect();
        for name in learned.iter().flat_map(|rule| [&rule.from, &rule.to]) {
            if !nodes_of.contains_key(name) {
                let members = by_group.get(&**name).into_iter().flatten();
                let nodes = members.map(|pod| Arc::clone(&pod.node)).collect();
                nodes_of.insert(Arc::clone(name), Reach::Some(nodes));
            }
        }
        Self {
            revision,
            learned,
            internal,
            pods: pods().map(|pod| (Arc::clone(&pod.uid), pod)).collect(),
            by_node: index(scheduled.map(|pod| (Arc::clone(&pod.node), pod))),
            by_address,
            by_group,
            nodes_of,
            plan,
        }
    }

    /// Rules that concern a node's pods: one of them is at an end where the rule holds.
    pub(super) fn rules_of<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a Arc<Rule>> {
        let near =
            move |set: &Arc<str>| self.nodes_of.get(set).is_some_and(|nodes| nodes.has(node));
        let all = self.plan.rules.values().chain(&self.learned);
        all.filter(move |rule| match rule.ends {
            Ends::Both => near(&rule.from) || near(&rule.to),
            Ends::Server => near(&rule.to),
            Ends::Client => near(&rule.from),
        })
    }

    /// Whose address that is.
    #[must_use]
    pub(super) fn at(&self, address: IpAddr) -> Option<&Arc<Pod>> {
        self.by_address.get(&address.to_canonical())
    }

    /// Pods of a node.
    pub(super) fn on(&self, node: &str) -> impl Iterator<Item = &Arc<Pod>> {
        self.by_node.get(node).into_iter().flatten()
    }

    /// Pods of a learned group.
    pub(super) fn in_group(&self, group: &str) -> impl Iterator<Item = &Arc<Pod>> {
        self.by_group.get(group).into_iter().flatten()
    }

    /// The same learned rule as it is held already, if it is.
    pub(super) fn learned_as(&self, rule: Arc<Rule>) -> Arc<Rule> {
        let at = self
            .learned
            .binary_search_by_key(&rule.id, |known| known.id);
        let known = at.ok().and_then(|at| self.learned.get(at));
        known
            .filter(|known| **known == rule)
            .map_or(rule, Arc::clone)
    }

    /// Whether a pod of that group runs on the node.
    #[must_use]
    pub(super) fn has_member(&self, node: &str, group: &str) -> bool {
        self.in_group(group).any(|pod| &*pod.node == node)
    }
}

/// Whatever has no end of its own is everywhere.
fn reach(set: &Set, world: &World, by_address: &HashMap<IpAddr, Arc<Pod>>) -> Reach {
    if set.any {
        return Reach::All;
    }
    let members = set.members.iter().filter_map(|uid| world.pods.get(uid));
    let mut nodes: HashSet<_> = members.map(|pod| Arc::clone(&pod.node)).collect();
    let (single, wide): (Vec<IpNet>, Vec<IpNet>) = set
        .networks
        .iter()
        .copied()
        .partition(|network| network.prefix_len() == network.max_prefix_len());
    let named = single
        .iter()
        .filter_map(|network| by_address.get(&network.addr()));
    nodes.extend(named.map(|pod| Arc::clone(&pod.node)));
    if !wide.is_empty() {
        let inside = |ip: &IpAddr| wide.iter().any(|network| network.contains(ip));
        let found = by_address.iter().filter(|(ip, _)| inside(ip));
        nodes.extend(found.map(|(_, pod)| Arc::clone(&pod.node)));
    }
    Reach::Some(nodes)
}
