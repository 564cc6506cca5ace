//! Who is who: workloads, groups, and what an address stands for.

mod addresses;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use outrider_model::MacAddr;
use outrider_policy::IpNet;

use crate::{
    Endpoint, Group, LearnError, gone::Gone, names::Names, services::Services, touched::Touched,
};
use addresses::Addresses;

/// Workloads that one node may have.
pub const MAX_WORKLOADS: usize = 4_096;

/// Workloads of other nodes that one node may know.
pub const MAX_REMOTE: usize = 131_072;

/// Addresses that one workload may have.
pub const MAX_ADDRESSES: usize = 64;

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
    /// Workloads of other nodes.
    remote: BTreeMap<Arc<str>, Entry>,
    by_address: Addresses,
    of_group: HashMap<Group, BTreeSet<Arc<str>>>,
    hosts: BTreeSet<IpAddr>,
    tunnels: BTreeSet<IpAddr>,
    address_groups: Vec<(IpNet, Group)>,
    internal: Vec<IpNet>,
    gone: Gone,
    names: Names,
    pub(crate) services: Services,
    pub(crate) touched: Touched,
    /// Counts changes of which groups are here.
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
    ///
    /// # Errors
    ///
    /// When there is no room for it, or it has too many addresses.
    pub fn enter(&mut self, workload: Workload) -> Result<(), LearnError> {
        let is_new = !self.workloads.contains_key(&workload.uid);
        if is_new && self.workloads.len() >= MAX_WORKLOADS {
            return Err(LearnError::TooManyWorkloads);
        }
        self.put(workload, false)
    }

    /// Enters or replaces a workload of another node; one that is of this node too stays that.
    ///
    /// # Errors
    ///
    /// When there is no room for it, or it has too many addresses.
    pub fn enter_remote(&mut self, workload: Workload) -> Result<(), LearnError> {
        let is_new = !self.remote.contains_key(&workload.uid);
        if is_new && self.remote.len() >= MAX_REMOTE {
            return Err(LearnError::TooManyRemote);
        }
        if self.workloads.contains_key(&workload.uid) {
            return Ok(());
        }
        self.put(workload, true)
    }

    fn put(&mut self, workload: Workload, is_remote: bool) -> Result<(), LearnError> {
        if workload.addresses.len() > MAX_ADDRESSES {
            return Err(LearnError::TooManyAddresses);
        }
        let uid = Arc::clone(&workload.uid);
        let known = if is_remote { &self.remote } else { &self.workloads };
        if known
            .get(&uid)
            .is_some_and(|known| known.workload == workload)
        {
            return Ok(());
        }
        self.gone.remove(&uid);
        self.take(&uid);
        self.epoch += 1;
        let group = workload.group();
        for address in &workload.addresses {
            self.by_address
                .add(address.to_canonical(), (is_remote, Arc::clone(&uid)));
        }
        self.of_group
            .entry(group.clone())
            .or_default()
            .insert(Arc::clone(&uid));
        self.touched.groups.insert(group.clone());
        self.touched.uids.insert(Arc::clone(&uid));
        let known = if is_remote { &mut self.remote } else { &mut self.workloads };
        known.insert(uid, Entry { workload, group });
        Ok(())
    }

    /// Takes a workload out wherever it is.
    fn take(&mut self, uid: &str) -> Option<Entry> {
        let local = self.workloads.remove(uid);
        let is_remote = local.is_none();
        let entry = local.or_else(|| self.remote.remove(uid))?;
        for address in &entry.workload.addresses {
            self.by_address
                .remove(address.to_canonical(), &(is_remote, Arc::clone(&entry.workload.uid)));
        }
        if let Some(known) = self.of_group.get_mut(&entry.group) {
            known.remove(uid);
            if known.is_empty() {
                self.of_group.remove(&entry.group);
            }
        }
        self.epoch += 1;
        self.touched.groups.insert(entry.group.clone());
        self.touched.uids.insert(Arc::clone(&entry.workload.uid));
        Some(entry)
    }

    /// Removes a workload; says whether it was there. For some minutes, reports by and about it are
    /// still understood.
    pub fn remove(&mut self, uid: &str, now: u64) -> bool {
        if !self.workloads.contains_key(uid) {
            return false;
        }
        let Some(entry) = self.take(uid) else { return false };
        self.gone.add(entry, now);
        self.names.forget(uid);
        true
    }

    /// Removes a workload of another node, as [`Directory::remove`] does; says whether it was there.
    pub fn remove_remote(&mut self, uid: &str, now: u64) -> bool {
        if !self.remote.contains_key(uid) {
            return false;
        }
        let Some(entry) = self.take(uid) else { return false };
        self.gone.add(entry, now);
        true
    }

    /// Forgets every workload of other nodes.
    pub(crate) fn forget_remote(&mut self) {
        let uids: Vec<_> = self.remote.keys().cloned().collect();
        for uid in uids {
            self.take(&uid);
        }
    }

    /// Workloads of other nodes, in order of uid.
    pub fn remote(&self) -> impl Iterator<Item = &Workload> {
        self.remote.values().map(|entry| &entry.workload)
    }

    /// Uids of a group's workloads, those of other nodes too.
    pub(crate) fn members(&self, group: &Group) -> impl Iterator<Item = &Arc<str>> {
        self.of_group.get(group).into_iter().flatten()
    }

    /// A workload of this node or another.
    pub(crate) fn anywhere(&self, uid: &str) -> Option<&Entry> {
        self.workloads.get(uid).or_else(|| self.remote.get(uid))
    }

    /// Says which addresses are the nodes'.
    pub fn set_hosts(&mut self, hosts: impl IntoIterator<Item = IpAddr>) {
        self.hosts = hosts.into_iter().map(|host| host.to_canonical()).collect();
        self.touched.all = true;
    }

    /// Says which addresses are the nodes' ends of tunnels, behind which others stand.
    pub fn set_tunnels(&mut self, tunnels: impl IntoIterator<Item = IpAddr>) {
        self.tunnels = tunnels.into_iter().map(|one| one.to_canonical()).collect();
        self.touched.all = true;
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
        self.touched.all = true;
    }

    /// Counts changes of which groups are here.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Groups of the workloads that are here; one comes up as often as it has workloads.
    pub(crate) fn groups(&self) -> impl Iterator<Item = &Group> {
        self.workloads.values().map(|entry| &entry.group)
    }

    /// A group's workloads that are here.
    pub(crate) fn locals(&self, group: &Group) -> impl Iterator<Item = &Workload> {
        self.members(group).filter_map(|uid| self.get(uid))
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
        self.touched.services |= self.internal != internal && !self.services.is_empty();
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
        if let Some(uid) = self.by_address.get(address) {
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

    /// The group of an endpoint; `None` for a workload that is gone, and for a Service of several groups.
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
            Endpoint::Service(name) => {
                Some(Group(Arc::clone(name))).filter(Group::is_of_workloads)?
            }
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
            Endpoint::Service(name) => Group(Arc::clone(name))
                .service()
                .unwrap_or_else(|| name.to_string()),
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

    /// Whether an endpoint is a workload of this node whose proxy is to report and does not.
    pub(crate) fn is_silent(&self, endpoint: &Endpoint) -> bool {
        matches!(endpoint, Endpoint::Workload(uid)
            if self.workloads.get(uid).is_some_and(|entry| !entry.workload.managed))
    }

    /// Says whether the proxy of a workload of this node reports.
    pub(crate) fn set_managed(&mut self, uid: &str, managed: bool) {
        if let Some(entry) = self.workloads.get_mut(uid) {
            entry.workload.managed = managed;
        }
    }

    /// A workload that is here, or left a moment ago.
    pub(crate) fn entry(&self, uid: &str) -> Option<&Entry> {
        self.anywhere(uid).or_else(|| self.gone.get(uid))
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

    pub(crate) fn is_internal(&self, address: IpAddr) -> bool {
        let same_family = |net: &&IpNet| net.addr().is_ipv4() == address.is_ipv4();
        let mut nets = self.internal.iter().filter(same_family).peekable();
        address.is_loopback() || nets.peek().is_none() || nets.any(|net| net.contains(&address))
    }
}

#[cfg(test)]
mod tests;
