//! Services with what is behind them, as bridges are told of them.
//!
//! A backend is an address: what a slice says of it besides (`targetRef`) anybody may write who may write slices. Whose
//! address it is the pods say.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use outrider_api::cluster::{Backends, Service as WireService, ServicePort};

use super::plan::{Pod, Service, Slice};

/// Ports of one Service that are told.
pub(super) const MAX_PORTS: usize = 64;
/// Backends of one Service that are told.
pub(super) const MAX_BACKENDS: usize = 4_096;
/// Cluster IPs that have so much in common are one network.
const TOGETHER: (u8, u8) = (16, 112);
/// A network of cluster IPs has so many addresses at least.
const WIDE: (u8, u8) = (24, 120);

/// One Service.
#[derive(Debug, PartialEq)]
pub(super) struct Served {
    /// What bridges are told.
    pub(super) said: WireService,
    /// Every node is told: somebody chose one of its addresses or backends, which no pod has.
    pub(super) chosen: bool,
}

/// Every Service by `<namespace>/<name>`.
pub(super) fn serve<'a>(
    services: &[Arc<Service>],
    all: &[Arc<Slice>],
    whose: impl Fn(IpAddr) -> Option<&'a Arc<Pod>>,
    is_left: impl Fn(IpAddr) -> bool,
) -> BTreeMap<Arc<str>, Arc<Served>> {
    let mut slices: HashMap<(&str, &str), Vec<&Slice>> = HashMap::new();
    for slice in all {
        slices
            .entry((&slice.namespace, &slice.service))
            .or_default()
            .push(slice);
    }
    let one = |service: &Arc<Service>| {
        let own = slices.get(&(&*service.namespace, &*service.name));
        let own = own.map_or(&[][..], Vec::as_slice);
        let name = format!("{}/{}", service.namespace, service.name);
        (name.into(), Arc::new(served(service, own, &whose, &is_left)))
    };
    services.iter().map(one).collect()
}

/// What backends have in common: group, whether they are managed, and their ports.
type Kin = (String, bool, Vec<u32>);

fn served<'a>(
    service: &Service,
    slices: &[&Slice],
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

/// Networks around the cluster IPs: what nobody has yet in them is no outside either.
pub(super) fn networks<'a>(services: impl Iterator<Item = &'a Arc<Service>>) -> Vec<IpNet> {
    let mut together: BTreeMap<IpNet, (IpAddr, IpAddr)> = BTreeMap::new();
    for address in services.flat_map(|service| service.addresses.iter().copied()) {
        let Some(around) = network(address, TOGETHER) else { continue };
        let known = together.entry(around).or_insert((address, address));
        *known = (known.0.min(address), known.1.max(address));
    }
    let cover = together
        .into_values()
        .filter_map(|(low, high)| common(low, high));
    cover.collect()
}

/// The smallest network that holds both, and not smaller than may be.
fn common(low: IpAddr, high: IpAddr) -> Option<IpNet> {
    let same = match (low, high) {
        (IpAddr::V4(low), IpAddr::V4(high)) => (low.to_bits() ^ high.to_bits()).leading_zeros(),
        (IpAddr::V6(low), IpAddr::V6(high)) => (low.to_bits() ^ high.to_bits()).leading_zeros(),
        _ => return None,
    };
    let same = u8::try_from(same).ok()?;
    network(low, (same.min(WIDE.0), same.min(WIDE.1)))
}

fn network(address: IpAddr, (v4, v6): (u8, u8)) -> Option<IpNet> {
    let net = match address {
        IpAddr::V4(v4_address) => Ipv4Net::new(v4_address, v4).ok().map(IpNet::from),
        IpAddr::V6(v6_address) => Ipv6Net::new(v6_address, v6).ok().map(IpNet::from),
    };
    net.map(|net| net.trunc())
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
