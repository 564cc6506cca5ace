//! Services with what is behind them, as bridges are told of them.
//!
//! A backend is an address: what a slice says of it besides (`targetRef`) anybody may write who may write slices. Whose
//! address it is the pods say.

mod networks;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use outrider_api::cluster::{Backends, Service as WireService, ServicePort};

pub(super) use self::networks::Networks;
use super::plan::{Pod, Service, Slice};

/// Ports of one Service that are told.
pub(super) const MAX_PORTS: usize = 64;
/// Backends of one Service that are told.
pub(super) const MAX_BACKENDS: usize = 4_096;
/// One Service.
#[derive(Debug, PartialEq)]
pub(super) struct Served {
    /// What bridges are told.
    pub(super) said: WireService,
    /// Every node is told: somebody chose one of its addresses or backends, which no pod has.
    pub(super) chosen: bool,
}

impl Served {
    /// Its own addresses.
    pub(super) fn own(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.said.addresses.iter().chain(&self.said.borrowed)
    }

    /// Uids of the pods behind it.
    pub(super) fn uids(&self) -> impl Iterator<Item = &str> {
        let backends = self.said.backends.iter();
        backends.flat_map(|alike| &alike.uids).map(String::as_str)
    }
}

/// What backends have in common: group, whether they are managed, and their ports.
type Kin = (String, bool, Vec<u32>);

/// A Service with its slices; addresses that are left are passed over.
pub(super) fn served<'a, 'b>(
    service: &Service,
    slices: impl Iterator<Item = &'b Arc<Slice>>,
    whose: impl Fn(IpAddr) -> Option<&'a Arc<Pod>>,
    is_left: impl Fn(IpAddr) -> bool,
) -> Served {
    let ports: Vec<_> = service.ports.iter().take(MAX_PORTS).collect();
    let mut alike: BTreeMap<Kin, BTreeMap<IpAddr, String>> = BTreeMap::new();
    let (mut count, mut partial) = (0, service.ports.len() > MAX_PORTS);
    for slice in slices {
        let target = |port: &&super::plan::NamedPort| {
            let same =
                |one: &&super::plan::NamedPort| (&one.name, one.proto) == (&port.name, port.proto);
            slice
                .ports
                .iter()
                .find(same)
                .map_or(0, |one| one.port.into())
        };
        let targets: Vec<u32> = ports.iter().map(target).collect();
        for address in slice.addresses.iter().filter(|one| !is_left(**one)) {
            if count >= MAX_BACKENDS {
                partial = true;
                break;
            }
            let pod = whose(*address);
            let group = pod.map_or_else(String::new, |pod| pod.group());
            let managed = pod.is_some_and(|pod| pod.managed);
            let uid = pod.map_or_else(String::new, |pod| pod.uid.to_string());
            let kin = alike.entry((group, managed, targets.clone())).or_default();
            count += usize::from(kin.insert(*address, uid).is_none());
        }
    }
    let chosen = !service.borrowed.is_empty() || alike.keys().any(|(group, ..)| group.is_empty());
    let backends = |((group, managed, targets), all): (Kin, BTreeMap<IpAddr, String>)| Backends {
        managed,
        targets,
        addresses: all.keys().map(|ip| bytes(*ip)).collect(),
        uids: if group.is_empty() { Vec::new() } else { all.into_values().collect() },
        group,
    };
    let said = WireService {
        namespace: service.namespace.to_string(),
        name: service.name.to_string(),
        addresses: service.addresses.iter().map(|ip| bytes(*ip)).collect(),
        borrowed: service.borrowed.iter().map(|ip| bytes(*ip)).collect(),
        ports: ports
            .iter()
            .map(|one| ServicePort { proto: one.proto.0.into(), port: one.port.into() })
            .collect(),
        backends: alike.into_iter().map(backends).collect(),
        partial,
    };
    Served { said, chosen }
}

/// As addresses are told.
pub(super) fn bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests;
