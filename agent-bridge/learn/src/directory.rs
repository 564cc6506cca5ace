//! Who is who: workloads, groups, and what an address stands for.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    net::IpAddr,
    sync::Arc,
};

use outrider_model::MacAddr;
use outrider_policy::IpNet;
use serde::{Deserialize, Serialize};

use crate::{gone::Gone, names::Names};

/// Workloads that one node may have.
pub const MAX_WORKLOADS: usize = 4_096;

/// Addresses that one workload may have.
pub const MAX_ADDRESSES: usize = 64;

/// Why something is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LearnError {
    /// More workloads than [`MAX_WORKLOADS`].
    #[error("more workloads than a node may have")]
    TooManyWorkloads,
    /// More addresses than [`MAX_ADDRESSES`].
    #[error("more addresses than a workload may have")]
    TooManyAddresses,
    /// No workload has that uid.
    #[error("no such workload")]
    UnknownWorkload,
    /// Client and server have no address of the same family.
    #[error("client and server have no address family in common")]
    NoCommonFamily,
}

impl LearnError {
    /// The closed label of logs and metrics.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::TooManyWorkloads => "too-many-workloads",
            Self::TooManyAddresses => "too-many-addresses",
            Self::UnknownWorkload => "unknown-workload",
            Self::NoCommonFamily => "no-common-family",
        }
    }
}

/// Name of a set of endpoints that share rules and, if they are workloads, a mode.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Group(Arc<str>);

impl Group {
    /// Everything outside the internal networks.
    pub const EXTERNAL: &'static str = "external";
    /// Every node.
    pub const NODES: &'static str = "nodes";
    /// Whatever reaches a workload through a node's tunnel address.
    pub const INGRESS: &'static str = "Workload:ingress";

    /// A group by its name.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self(name.into())
    }

    /// The group of a service's workloads.
    #[must_use]
    pub fn of_service(service: &str, namespace: &str) -> Self {
        Self(format!("nv.{service}.{namespace}").into())
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }

    /// Whether workloads are its members, so that it is the subject of a policy.
    pub(crate) fn is_of_workloads(&self) -> bool {
        self.0.starts_with("nv.")
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One end of a conversation.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Endpoint {
    /// A workload of this node, by uid.
    Workload(Arc<str>),
    /// A node.
    Host(IpAddr),
    /// What comes through a node's tunnel address: who it was cannot be told.
    Ingress,
    /// A group of addresses that was configured, by its name.
    Addresses(Arc<str>),
    /// An internal address that is no workload of this node.
    Unmanaged(IpAddr),
    /// An address outside the internal networks that a workload was given for that name.
    Named(Arc<str>),
    /// Anything else outside the internal networks.
    External,
}

impl Endpoint {
    /// How the group of an unmanaged endpoint begins; its address follows.
    pub(crate) const UNMANAGED_PREFIX: &'static str = "Workload:";

    /// The closed word for its kind.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::Workload(_) => "workload",
            Self::Host(_) => "host",
            Self::Ingress => "ingress",
            Self::Addresses(_) => "address-group",
            Self::Unmanaged(_) => "unmanaged",
            Self::Named(_) => "external-name",
            Self::External => "external",
        }
    }
}

/// A pod with identity.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Workload {
    /// What it is known by.
    pub uid: Arc<str>,
    /// `<namespace>/<name>`.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// What it is a replica of.
    pub service: String,
    /// Its addresses, of both families.
    pub addresses: Vec<IpAddr>,
    /// The identity on the ctrl wire.
    pub mac: Option<MacAddr>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its own proxy reports: what other proxies say of flows to it adds only what it cannot have
    /// seen.
    pub managed: bool,
}

impl Workload {
    /// `nv.<service>.<namespace>`.
    #[must_use]
    pub fn group(&self) -> Group {
        Group::of_service(&self.service, &self.namespace)
    }
}

/// The node's workloads and what the addresses around them mean.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    workloads: BTreeMap<Arc<str>, Entry>,
    by_address: HashMap<IpAddr, Arc<str>>,
    hosts: BTreeSet<IpAddr>,
    tunnels: BTreeSet<IpAddr>,
    address_groups: Vec<(IpNet, Group)>,
    internal: Vec<IpNet>,
    gone: Gone,
    names: Names,
    /// Counts changes of what groups are here and what their addresses are.
    epoch: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) workload: Workload,
    pub(crate) group: Group,
}

impl Entry {
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        self.workload
            .addresses
            .iter()
            .any(|own| own.to_canonical() == address)
    }
}

impl Directory {
    /// Enters or replaces a workload.
    pub fn enter(&mut self, workload: Workload) -> Result<(), LearnError> {
        if workload.addresses.len() > MAX_ADDRESSES {
            return Err(LearnError::TooManyAddresses);
        }
        let is_new = !self.workloads.contains_key(&workload.uid);
        if is_new && self.workloads.len() >= MAX_WORKLOADS {
            return Err(LearnError::TooManyWorkloads);
        }
        let group = workload.group();
        self.gone.remove(&workload.uid);
        self.workloads
            .insert(Arc::clone(&workload.uid), Entry { workload, group });
        self.index();
        Ok(())
    }

    /// Removes a workload; says whether it was there. For some minutes, reports by and about it are
    /// still understood.
    pub fn remove(&mut self, uid: &str, now: u64) -> bool {
        let Some(entry) = self.workloads.remove(uid) else { return false };
        self.gone.add(entry, now);
        self.names.forget(uid);
        self.index();
        true
    }

    /// Says which addresses are the nodes'.
    pub fn set_hosts(&mut self, hosts: impl IntoIterator<Item = IpAddr>) {
        self.hosts = hosts.into_iter().map(|host| host.to_canonical()).collect();
        self.epoch += 1;
    }

    /// Says which addresses are the nodes' ends of tunnels, behind which others stand.
    pub fn set_tunnels(&mut self, tunnels: impl IntoIterator<Item = IpAddr>) {
        self.tunnels = tunnels.into_iter().map(|one| one.to_canonical()).collect();
        self.epoch += 1;
    }

    /// Says which networks are groups of their own; of several that hold an address, the narrowest
    /// counts. A network that begins with `nv.` or has a reserved name is left out.
    pub fn set_address_groups(&mut self, groups: impl IntoIterator<Item = (IpNet, Group)>) {
        let reserved = [Group::EXTERNAL, Group::NODES, Group::INGRESS];
        let is_free = |group: &Group| !group.is_of_workloads() && !reserved.contains(&group.name());
        self.address_groups = groups
            .into_iter()
            .filter(|(_, group)| is_free(group))
            .collect();
        self.address_groups
            .sort_by_key(|(net, _)| std::cmp::Reverse(net.prefix_len()));
        self.epoch += 1;
    }

    /// Counts changes of what groups are here and what their addresses are.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Groups of the workloads that are here; one comes up as often as it has workloads.
    pub(crate) fn groups(&self) -> impl Iterator<Item = &Group> {
        self.workloads.values().map(|entry| &entry.group)
    }

    /// The networks that are groups of their own.
    pub(crate) fn address_groups(&self) -> &[(IpNet, Group)] {
        &self.address_groups
    }

    /// A node's ends of tunnels.
    pub(crate) fn tunnels(&self) -> impl Iterator<Item = IpAddr> {
        self.tunnels.iter().copied()
    }

    /// Names that workloads were given addresses for.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// The same, to be changed.
    pub fn names_mut(&mut self) -> &mut Names {
        &mut self.names
    }

    /// Says which networks are internal; if a family has none, all its addresses are.
    pub fn set_internal(&mut self, internal: Vec<IpNet>) {
        self.internal = internal;
    }

    /// The internal networks.
    #[must_use]
    pub fn internal(&self) -> &[IpNet] {
        &self.internal
    }

    /// A workload by uid.
    #[must_use]
    pub fn get(&self, uid: &str) -> Option<&Workload> {
        self.workloads.get(uid).map(|entry| &entry.workload)
    }

    /// Every workload, in order of uid.
    pub fn workloads(&self) -> impl Iterator<Item = &Workload> {
        self.workloads.values().map(|entry| &entry.workload)
    }

    /// What an address stands for now.
    #[must_use]
    pub fn endpoint(&self, address: IpAddr) -> Endpoint {
        self.endpoint_at(address, u64::MAX)
    }

    /// What an address stood for when a flow began.
    #[must_use]
    pub fn endpoint_at(&self, address: IpAddr, began: u64) -> Endpoint {
        let address = address.to_canonical();
        if let Some(uid) = self.by_address.get(&address) {
            Endpoint::Workload(Arc::clone(uid))
        } else if let Some(entry) = self.gone.at(address, began) {
            Endpoint::Workload(Arc::clone(&entry.workload.uid))
        } else if self.tunnels.contains(&address) {
            Endpoint::Ingress
        } else if self.hosts.contains(&address) {
            Endpoint::Host(address)
        } else if let Some(group) = self.address_group(address) {
            Endpoint::Addresses(Arc::clone(&group.0))
        } else if self.is_internal(address) {
            Endpoint::Unmanaged(address)
        } else {
            Endpoint::External
        }
    }

    /// What an address stood for, to a workload that opened a flow to it: outside the internal
    /// networks it goes by the name that the workload was given it for.
    pub(crate) fn server_at(&self, address: IpAddr, client: &str, began: u64) -> Endpoint {
        match self.endpoint_at(address, began) {
            Endpoint::External => self
                .names
                .of(client, address.to_canonical(), began)
                .map_or(Endpoint::External, Endpoint::Named),
            known => known,
        }
    }

    /// The group of an endpoint; `None` for a workload that is gone.
    #[must_use]
    pub fn group(&self, endpoint: &Endpoint) -> Option<Group> {
        Some(match endpoint {
            Endpoint::Workload(uid) => self.entry(uid)?.group.clone(),
            Endpoint::Host(_) => Group::named(Group::NODES),
            Endpoint::Unmanaged(address) => {
                Group(format!("{}{address}", Endpoint::UNMANAGED_PREFIX).into())
            }
            Endpoint::Ingress => Group::named(Group::INGRESS),
            Endpoint::Addresses(name) => Group(Arc::clone(name)),
            Endpoint::Named(_) | Endpoint::External => Group::named(Group::EXTERNAL),
        })
    }

    /// What people call an endpoint.
    #[must_use]
    pub fn name(&self, endpoint: &Endpoint) -> String {
        match endpoint {
            Endpoint::Workload(uid) => self
                .entry(uid)
                .map_or_else(|| uid.to_string(), |entry| entry.workload.name.clone()),
            Endpoint::Host(address) => format!("Host:{address}"),
            Endpoint::Unmanaged(address) => address.to_string(),
            Endpoint::Ingress => Group::INGRESS.into(),
            Endpoint::Addresses(name) | Endpoint::Named(name) => name.to_string(),
            Endpoint::External => Group::EXTERNAL.into(),
        }
    }

    /// Whether an endpoint's own proxy reports.
    #[must_use]
    pub fn is_managed(&self, endpoint: &Endpoint) -> bool {
        match endpoint {
            Endpoint::Workload(uid) => self.entry(uid).is_some_and(|entry| entry.workload.managed),
            _ => false,
        }
    }

    /// A workload that is here, or left a moment ago.
    pub(crate) fn entry(&self, uid: &str) -> Option<&Entry> {
        self.workloads.get(uid).or_else(|| self.gone.get(uid))
    }

    pub(crate) fn hosts(&self) -> impl Iterator<Item = IpAddr> {
        self.hosts.iter().copied()
    }

    fn address_group(&self, address: IpAddr) -> Option<&Group> {
        let holds = |(net, _): &&(IpNet, Group)| net.contains(&address);
        self.address_groups
            .iter()
            .find(holds)
            .map(|(_, group)| group)
    }

    fn is_internal(&self, address: IpAddr) -> bool {
        let same_family = |net: &&IpNet| net.addr().is_ipv4() == address.is_ipv4();
        let mut nets = self.internal.iter().filter(same_family).peekable();
        address.is_loopback() || nets.peek().is_none() || nets.any(|net| net.contains(&address))
    }

    fn index(&mut self) {
        self.epoch += 1;
        self.by_address.clear();
        for (uid, entry) in &self.workloads {
            for address in &entry.workload.addresses {
                self.by_address
                    .entry(address.to_canonical())
                    .or_insert_with(|| Arc::clone(uid));
            }
        }
    }
}

#[cfg(test)]
mod tests;
