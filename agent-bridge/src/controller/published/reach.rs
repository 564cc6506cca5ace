//! Which nodes have something to do with a set: those of its pods, and of pods that have one of its addresses.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;

use crate::controller::plan::{Pod, Set};

/// Pods by address, and by uid where several say that they have the same.
pub(super) type Addresses = BTreeMap<(IpAddr, Arc<str>), Arc<Pod>>;

/// Nodes of one set.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Reach {
    /// It has no end.
    All,
    /// These.
    Some(Nodes),
}

/// Nodes of a set's pods.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Nodes {
    members: HashSet<Arc<str>>,
    networks: Vec<IpNet>,
    /// By how many addresses in the networks.
    inside: HashMap<Arc<str>, usize>,
}

impl Nodes {
    /// Each once, or twice.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &Arc<str>> {
        self.members.iter().chain(self.inside.keys())
    }

    fn has(&self, node: &str) -> bool {
        self.members.contains(node) || self.inside.contains_key(node)
    }
}

/// Nodes of all sets.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Reaches {
    of: HashMap<Arc<str>, Reach>,
    /// Sets by node.
    at: HashMap<Arc<str>, BTreeSet<Arc<str>>>,
    everywhere: BTreeSet<Arc<str>>,
    with_networks: BTreeSet<Arc<str>>,
}

impl Reaches {
    pub(super) fn of(&self, set: &str) -> Option<&Reach> {
        self.of.get(set)
    }

    /// Sets that have something to do with a node.
    pub(super) fn at(&self, node: &str) -> impl Iterator<Item = &Arc<str>> {
        let here = self.at.get(node).into_iter().flatten();
        here.chain(&self.everywhere)
    }

    /// What a set is now.
    pub(super) fn define(
        &mut self,
        name: &Arc<str>,
        set: &Set,
        pods: &HashMap<Arc<str>, Arc<Pod>>,
        addresses: &Addresses,
    ) {
        if set.any {
            self.forget(name);
            self.of.insert(Arc::clone(name), Reach::All);
            self.everywhere.insert(Arc::clone(name));
            return;
        }
        let before = match self.of.remove(name) {
            Some(Reach::Some(nodes)) => nodes,
            Some(Reach::All) | None => Nodes::default(),
        };
        self.everywhere.remove(name);
        let members = set.members.iter().filter_map(|uid| pods.get(uid));
        let members = members.map(|pod| Arc::clone(&pod.node)).collect();
        let networks = IpNet::aggregate(&set.networks);
        let inside = match networks == before.networks {
            true => before.inside.clone(),
            false => inside(&networks, addresses),
        };
        match networks.is_empty() {
            true => self.with_networks.remove(name),
            false => self.with_networks.insert(Arc::clone(name)),
        };
        let now = Nodes { members, networks, inside };
        for node in before.nodes().filter(|node| !now.has(node)) {
            leave(&mut self.at, node, name);
        }
        for node in now.nodes().filter(|node| !before.has(node)) {
            let sets = self.at.entry(Arc::clone(node)).or_default();
            sets.insert(Arc::clone(name));
        }
        self.of.insert(Arc::clone(name), Reach::Some(now));
    }

    /// There is no such set.
    pub(super) fn forget(&mut self, name: &Arc<str>) {
        if let Some(Reach::Some(nodes)) = self.of.remove(name) {
            nodes
                .nodes()
                .for_each(|node| leave(&mut self.at, node, name));
        }
        self.everywhere.remove(name);
        self.with_networks.remove(name);
    }

    /// A pod of a node has an address.
    pub(super) fn enter(&mut self, address: IpAddr, node: &Arc<str>) {
        for name in &self.with_networks {
            let Some(Reach::Some(nodes)) = self.of.get_mut(name) else { continue };
            if nodes.networks.iter().any(|net| net.contains(&address)) {
                *nodes.inside.entry(Arc::clone(node)).or_default() += 1;
                let sets = self.at.entry(Arc::clone(node)).or_default();
                sets.insert(Arc::clone(name));
            }
        }
    }

    /// It has it no more.
    pub(super) fn leave(&mut self, address: IpAddr, node: &Arc<str>) {
        for name in &self.with_networks {
            let Some(Reach::Some(nodes)) = self.of.get_mut(name) else { continue };
            if !nodes.networks.iter().any(|net| net.contains(&address)) {
                continue;
            }
            if let Some(count) = nodes.inside.get_mut(node) {
                *count -= 1;
                if *count == 0 {
                    nodes.inside.remove(node);
                }
            }
            if !nodes.has(node) {
                leave(&mut self.at, node, name);
            }
        }
    }
}

/// Nodes by how many of their pods' addresses are in one of the networks, which do not overlap.
fn inside(networks: &[IpNet], addresses: &Addresses) -> HashMap<Arc<str>, usize> {
    let mut inside = HashMap::new();
    for network in networks {
        let (first, last) = (network.network(), network.broadcast());
        let from = (first, Arc::default());
        let found = addresses
            .range(from..)
            .take_while(|((ip, _), _)| *ip <= last);
        for (_, pod) in found {
            *inside.entry(Arc::clone(&pod.node)).or_default() += 1;
        }
    }
    inside
}

fn leave(all: &mut HashMap<Arc<str>, BTreeSet<Arc<str>>>, node: &Arc<str>, name: &Arc<str>) {
    if let Some(sets) = all.get_mut(node) {
        sets.remove(name);
        if sets.is_empty() {
            all.remove(node);
        }
    }
}
