//! What the addresses around a workload mean.

use std::{collections::HashSet, net::IpAddr};

use ipnet::IpNet;

use crate::{NameTable, addr_map::AddrMap};

/// What kind of address this is, beyond internal and external.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum SpecialKind {
    /// A node's tunnel address (`tunnelip`).
    Tunnel,
    /// A service's cluster address (`svcip`).
    Service,
    /// A node's address (`hostip`).
    Host,
    /// A pod of the security product itself (`devip`).
    Device,
    /// A workload on a node without a bridge (`uwlip`).
    Unmanaged,
    /// A service's external address (`extip`).
    ServiceExternal,
}

/// What the addresses around a workload mean, and the switches that go with them.
#[derive(Clone, Debug, Default)]
pub struct Network {
    /// Internal subnets; if a family has none, all its addresses are internal.
    pub internal: Vec<IpNet>,
    /// Addresses of a special kind: the first entry that holds an address wins.
    pub special: Vec<(IpNet, SpecialKind)>,
    /// Workloads whose policy has been delivered.
    pub policy_addrs: HashSet<IpAddr>,
    /// What names stand for.
    pub names: NameTable,
    /// Policy is switched off: everything is open.
    pub disabled: bool,
    /// Unmanaged workloads are judged.
    pub detect_unmanaged: bool,
    /// ICMP is judged.
    pub icmp_policy: bool,
    /// All that IP carries is judged, ICMP too.
    pub ip_policy: bool,
    /// Either side in Protect decides.
    pub strict: bool,
    /// The boundary of the workload's namespace is enforced.
    pub boundary: bool,
}

/// [`Network`], ready to be asked.
#[derive(Debug)]
pub(crate) struct NetworkIndex {
    internal: AddrMap<()>,
    special: AddrMap<SpecialKind>,
    policy_addrs: HashSet<IpAddr>,
    pub(crate) disabled: bool,
    pub(crate) detect_unmanaged: bool,
    pub(crate) icmp_policy: bool,
    pub(crate) ip_policy: bool,
    pub(crate) strict: bool,
    pub(crate) boundary: bool,
}

impl NetworkIndex {
    pub(crate) fn new(network: &Network) -> Self {
        Self {
            internal: AddrMap::new(network.internal.iter().map(|net| (*net, ()))),
            special: AddrMap::new(network.special.iter().copied()),
            policy_addrs: network
                .policy_addrs
                .iter()
                .map(IpAddr::to_canonical)
                .collect(),
            disabled: network.disabled,
            detect_unmanaged: network.detect_unmanaged,
            icmp_policy: network.icmp_policy || network.ip_policy,
            ip_policy: network.ip_policy,
            strict: network.strict,
            boundary: network.boundary,
        }
    }

    pub(crate) fn is_internal(&self, address: IpAddr) -> bool {
        address.is_loopback()
            || self.internal.is_empty_for(address)
            || self.internal.get(address).is_some()
    }

    pub(crate) fn special(&self, address: IpAddr) -> Option<SpecialKind> {
        self.special.get(address).copied()
    }

    pub(crate) fn has_policy(&self, address: IpAddr) -> bool {
        self.policy_addrs.contains(&address)
    }
}

/// Link-local addresses are never judged.
pub(crate) fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}
