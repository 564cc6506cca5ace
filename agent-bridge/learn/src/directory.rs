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

use crate::gone::Gone;

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
    /// An internal address that is no workload of this node.
    Unmanaged(IpAddr),
    /// Anything outside the internal networks.
    External,
}

impl Endpoint {
    /// How the group of an unmanaged endpoint begins; its address follows.
    pub(crate) const UNMANAGED_PREFIX: &'static str = "Workload:";
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
    internal: Vec<IpNet>,
    gone: Gone,
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
        self.index();
        true
    }

    /// Says which addresses are the nodes'.
    pub fn set_hosts(&mut self, hosts: impl IntoIterator<Item = IpAddr>) {
        self.hosts = hosts.into_iter().map(|host| host.to_canonical()).collect();
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
        } else if self.hosts.contains(&address) {
            Endpoint::Host(address)
        } else if self.is_internal(address) {
            Endpoint::Unmanaged(address)
        } else {
            Endpoint::External
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
            Endpoint::External => Group::named(Group::EXTERNAL),
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

    fn is_internal(&self, address: IpAddr) -> bool {
        let same_family = |net: &&IpNet| net.addr().is_ipv4() == address.is_ipv4();
        let mut nets = self.internal.iter().filter(same_family).peekable();
        address.is_loopback() || nets.peek().is_none() || nets.any(|net| net.contains(&address))
    }

    fn index(&mut self) {
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
mod tests {
    use super::*;
    use crate::MAX_GONE;

    fn workload(uid: &str, addresses: Vec<IpAddr>) -> Workload {
        Workload {
            uid: uid.into(),
            name: format!("default/{uid}"),
            namespace: "default".into(),
            service: uid.into(),
            addresses,
            mac: None,
            labels: BTreeMap::new(),
            managed: true,
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_is_a_workload_a_node_internal_or_external() {
        let mut directory = Directory::default();
        directory
            .enter(workload("web", vec![ip("10.0.0.2"), ip("fd00::2")]))
            .unwrap();
        directory.set_hosts([ip("10.0.0.1")]);
        directory.set_internal(vec!["10.0.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()]);
        let group = |text| {
            directory
                .group(&directory.endpoint(ip(text)))
                .map(|group| group.name().to_owned())
        };
        assert_eq!(group("::ffff:10.0.0.2").as_deref(), Some("nv.web.default"));
        assert_eq!(group("fd00::2").as_deref(), Some("nv.web.default"));
        assert_eq!(group("10.0.0.1").as_deref(), Some("nodes"));
        assert_eq!(group("10.0.0.7").as_deref(), Some("Workload:10.0.0.7"));
        assert_eq!(group("192.0.2.1").as_deref(), Some("external"));
        assert_eq!(directory.name(&directory.endpoint(ip("fd00::2"))), "default/web");
        assert_eq!(directory.name(&Endpoint::Workload("gone".into())), "gone");
    }

    #[test]
    fn an_address_goes_back_to_who_else_has_it() {
        let mut directory = Directory::default();
        directory
            .enter(workload("a", vec![ip("10.0.0.2")]))
            .unwrap();
        directory
            .enter(workload("b", vec![ip("10.0.0.2")]))
            .unwrap();
        assert!(directory.remove("a", 5) && !directory.remove("a", 5));
        assert_eq!(directory.endpoint(ip("10.0.0.2")), Endpoint::Workload("b".into()));
    }

    #[test]
    fn who_left_is_still_understood_for_flows_that_began_before() {
        let mut directory = Directory::default();
        directory
            .enter(workload("a", vec![ip("10.0.0.2")]))
            .unwrap();
        directory.remove("a", 100);
        assert!(directory.get("a").is_none());
        let a = Endpoint::Workload("a".into());
        assert_eq!(directory.endpoint_at(ip("10.0.0.2"), 100), a);
        assert_eq!(directory.endpoint_at(ip("10.0.0.2"), 101), directory.endpoint(ip("10.0.0.2")));
        assert_eq!(directory.group(&a).unwrap().name(), "nv.a.default");
        directory
            .enter(workload("b", vec![ip("10.0.0.2")]))
            .unwrap();
        assert_eq!(directory.endpoint_at(ip("10.0.0.2"), 1), Endpoint::Workload("b".into()));
        directory.remove("b", 1_000);
        assert_eq!(directory.group(&a), None, "it is forgotten in time");
    }

    #[test]
    fn who_left_is_bounded() {
        let mut directory = Directory::default();
        for at in 0..=MAX_GONE {
            directory
                .enter(workload(&at.to_string(), Vec::new()))
                .unwrap();
            directory.remove(&at.to_string(), u64::try_from(at).unwrap() / 10);
        }
        assert!(directory.entry("0").is_none() && directory.entry("1").is_some());
    }

    #[test]
    fn workloads_and_their_addresses_are_bounded() {
        let mut directory = Directory::default();
        let many = vec![ip("10.0.0.2"); MAX_ADDRESSES + 1];
        assert_eq!(directory.enter(workload("a", many)), Err(LearnError::TooManyAddresses));
        for at in 0..MAX_WORKLOADS {
            let entry = Entry { workload: workload("w", Vec::new()), group: Group::named("w") };
            directory.workloads.insert(at.to_string().into(), entry);
        }
        let refused = directory.enter(workload("late", Vec::new()));
        assert_eq!(refused, Err(LearnError::TooManyWorkloads));
        assert_eq!(directory.enter(workload("0", Vec::new())), Ok(()));
    }
}
