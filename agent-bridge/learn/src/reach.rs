//! Groups and sets as addresses.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use outrider_policy::{AddrSpec, Name};

use crate::{Directory, Endpoint, Group, Policy, policy::Set};

/// A peer as a rule's address; ordered, so that equal policy compiles to equal rules.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Peer {
    Range(IpAddr, IpAddr),
    External,
    Any,
}

impl Reach {
    /// Whether an address is among the peers; `is_outside` says of it that it is not internal.
    pub(crate) fn has(&self, address: IpAddr, is_outside: bool) -> bool {
        let begins = |peer: &Peer| matches!(peer, Peer::Range(low, _) if *low <= address);
        let at = self.peers.partition_point(begins);
        let last = at.checked_sub(1).and_then(|at| self.peers.get(at));
        let is_inside = |peer: &Peer| matches!(peer, Peer::Range(_, high) if address <= *high);
        let wide = self.peers.iter().rev().take(2);
        last.is_some_and(is_inside)
            || wide.into_iter().any(|peer| match peer {
                Peer::Any => true,
                Peer::External => is_outside,
                Peer::Range(..) => false,
            })
    }
}

impl Peer {
    fn one(address: IpAddr) -> Self {
        Self::Range(address, address)
    }

    pub(crate) fn spec(self) -> AddrSpec {
        match self {
            Self::Range(low, high) => AddrSpec::Range(low, high),
            Self::External => AddrSpec::External,
            Self::Any => AddrSpec::Any,
        }
    }

    /// In how many families' lists a rule with it is.
    pub(crate) fn lists(self) -> usize {
        if matches!(self, Self::Range(..)) { 1 } else { 2 }
    }
}

/// What a group or a set stands for in a rule.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Reach {
    /// In order, adjacent addresses as one range; what is no range comes last.
    pub(crate) peers: Vec<Peer>,
    pub(crate) names: Vec<Name>,
}

/// What groups and sets stand for, as it was gathered last.
pub(crate) type Reaches = HashMap<Group, Arc<Reach>>;

/// What a group or a set stands for; a set that nobody told of stands for nothing.
pub(crate) fn reach(directory: &Directory, policy: &Policy, group: &Group) -> Reach {
    if let Some(set) = policy.set(group) {
        return of_set(directory, set);
    }
    let peers = match group.name() {
        Group::EXTERNAL => vec![Peer::External],
        Group::NODES => directory.hosts().map(Peer::one).collect(),
        Group::INGRESS => directory.tunnels().map(Peer::one).collect(),
        name => match name
            .strip_prefix(Endpoint::UNMANAGED_PREFIX)
            .map(str::parse)
        {
            Some(address) => address.into_iter().map(Peer::one).collect(),
            None if group.is_of_workloads() => {
                let uids = directory.members(group).map(AsRef::as_ref);
                merged(uids.flat_map(|uid| addresses(directory, uid)).collect())
            }
            None => address_group(directory, group),
        },
    };
    Reach { peers, names: Vec::new() }
}

fn of_set(directory: &Directory, set: &Set) -> Reach {
    if set.any {
        return Reach { peers: vec![Peer::Any], names: Vec::new() };
    }
    let members = set.members.iter().flat_map(|uid| addresses(directory, uid));
    let hosts = directory
        .hosts()
        .filter(|_| set.nodes)
        .map(|host| (host, host));
    let networks = set
        .networks
        .iter()
        .map(|net| (net.network(), net.broadcast()));
    let mut peers = merged(members.chain(hosts).chain(networks).collect());
    peers.extend(set.external.then_some(Peer::External));
    Reach { peers, names: set.names.clone() }
}

fn address_group(directory: &Directory, group: &Group) -> Vec<Peer> {
    let own = directory
        .address_groups()
        .iter()
        .filter(|(_, name)| name == group);
    merged(
        own.map(|(net, _)| (net.network(), net.broadcast()))
            .collect(),
    )
}

fn addresses(directory: &Directory, uid: &str) -> impl Iterator<Item = (IpAddr, IpAddr)> {
    let entry = directory.anywhere(uid).into_iter();
    let own = entry.flat_map(|entry| &entry.workload.addresses);
    own.map(|address| (address.to_canonical(), address.to_canonical()))
}

/// Ranges in order, those that touch or overlap as one.
fn merged(mut ranges: Vec<(IpAddr, IpAddr)>) -> Vec<Peer> {
    ranges.sort_unstable();
    let mut few: Vec<(IpAddr, IpAddr)> = Vec::new();
    for (low, high) in ranges {
        match few.last_mut() {
            Some(last) if follows(last.1, low) => last.1 = last.1.max(high),
            _ => few.push((low, high)),
        }
    }
    few.into_iter()
        .map(|(low, high)| Peer::Range(low, high))
        .collect()
}

/// Whether a range that begins at `low` continues one that ends at `high`.
fn follows(high: IpAddr, low: IpAddr) -> bool {
    match (high, low) {
        (IpAddr::V4(high), IpAddr::V4(low)) => low.to_bits() <= high.to_bits().saturating_add(1),
        (IpAddr::V6(high), IpAddr::V6(low)) => low.to_bits() <= high.to_bits().saturating_add(1),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_touch_are_one_range() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let range = |low: &str, high: &str| (ip(low), ip(high));
        let found = merged(vec![
            range("10.0.0.5", "10.0.0.5"),
            range("fd00::2", "fd00::2"),
            range("10.0.0.4", "10.0.0.4"),
            range("10.0.1.0", "10.0.1.255"),
            range("10.0.1.7", "10.0.1.9"),
            range("255.255.255.255", "255.255.255.255"),
            range("fd00::1", "fd00::1"),
            range("::", "::"),
        ]);
        let expected = [
            ("10.0.0.4", "10.0.0.5"),
            ("10.0.1.0", "10.0.1.255"),
            ("255.255.255.255", "255.255.255.255"),
            ("::", "::"),
            ("fd00::1", "fd00::2"),
        ];
        let expected = expected.map(|(low, high)| Peer::Range(ip(low), ip(high)));
        assert_eq!(found, expected);
        let pods = (0..10_000u32).map(|at| IpAddr::from((0x0a00_0000 + at).to_be_bytes()));
        assert_eq!(merged(pods.map(|pod| (pod, pod)).collect()).len(), 1);
    }
}
