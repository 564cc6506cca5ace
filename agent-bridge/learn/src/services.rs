//! Services: addresses that a client's proxy sees and that the client's node rewrites to those of backends.

mod moved;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use outrider_model::IpProto;

use crate::{Directory, Endpoint, Group, LearnError, Reached, policy::MAX_TEXT};

/// Services that one node may know.
pub const MAX_SERVICES: usize = 8_192;

/// Ports, and addresses, that one Service may have.
pub const MAX_SERVICE_PARTS: usize = 64;

/// Backends that all Services together may have.
pub const MAX_BACKENDS: usize = 262_144;

/// Addresses with a port that all Services together may have.
pub const MAX_DOORS: usize = crate::MAX_DOORED;

/// A Service that has an address.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Service {
    /// `<namespace>/<name>`.
    pub name: Arc<str>,
    /// Addresses that nobody chose. What is behind them decides about a flow to them.
    pub addresses: Vec<IpAddr>,
    /// Addresses that somebody chose: they may be anybody's. What is behind them may refuse, not allow.
    pub borrowed: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<(IpProto, u16)>,
    /// What is behind them.
    pub backends: Vec<Backends>,
    /// There is more than is known: nothing is sure of all of it.
    pub partial: bool,
}

/// Backends that have everything but the address in common.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Backends {
    /// Of the pods; `None`: addresses that are no pod's.
    pub group: Option<Group>,
    /// Their own proxies report.
    pub managed: bool,
    /// Their port for each of the Service's; 0 if there is none.
    pub targets: Vec<u16>,
    /// Addresses, with the pods' uids.
    pub members: Vec<(IpAddr, Option<Arc<str>>)>,
}

/// One address and port of a Service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Door<'a> {
    pub(crate) service: &'a Service,
    pub(crate) address: IpAddr,
    /// Somebody chose the address.
    pub(crate) is_borrowed: bool,
    /// `None`: every port, of a Service of which not everything is known.
    pub(crate) port: Option<(IpProto, u16)>,
    at: usize,
}

impl<'a> Door<'a> {
    /// What is behind it, with the port there.
    pub(crate) fn backends(&self) -> impl Iterator<Item = (&'a Backends, u16)> + use<'a> {
        let at = self.at;
        let backends = self.service.backends.iter();
        backends.filter_map(move |one| {
            let target = one.targets.get(at).copied().filter(|target| *target != 0)?;
            Some((one, target))
        })
    }

    /// The members of what is behind it that its address leads to.
    pub(crate) fn members(
        &self,
        backends: &'a Backends,
    ) -> impl Iterator<Item = &'a (IpAddr, Option<Arc<str>>)> + use<'a> {
        let is_v4 = self.address.is_ipv4();
        backends
            .members
            .iter()
            .filter(move |(ip, _)| ip.is_ipv4() == is_v4)
    }
}

/// All Services of which the node was told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Services {
    known: BTreeMap<Arc<str>, Arc<Service>>,
    at: HashMap<IpAddr, BTreeSet<Arc<str>>>,
    backends: usize,
    doors: usize,
}

fn backends(service: &Service) -> usize {
    service.backends.iter().map(|one| one.members.len()).sum()
}

impl Services {
    /// Enters or replaces one; says whether that changes anything.
    pub(crate) fn enter(&mut self, service: Service) -> Result<bool, LearnError> {
        let known = self.known.get(&service.name);
        if known.is_some_and(|known| **known == service) {
            return Ok(false);
        }
        let parts = [service.addresses.len(), service.borrowed.len(), service.ports.len()];
        let is_odd = |one: &Backends| one.targets.len() != service.ports.len();
        if parts.iter().any(|count| *count > MAX_SERVICE_PARTS) {
            return Err(LearnError::TooManyServiceParts);
        }
        if service.name.len() > MAX_TEXT || service.backends.iter().any(is_odd) {
            return Err(LearnError::Senseless);
        }
        if known.is_none() && self.known.len() >= MAX_SERVICES {
            return Err(LearnError::TooManyServices);
        }
        let before = known.map_or((0, 0), |known| (backends(known), doors(known).count()));
        let all = self.backends.saturating_sub(before.0) + backends(&service);
        if all > MAX_BACKENDS {
            return Err(LearnError::TooManyBackends);
        }
        let open = self.doors.saturating_sub(before.1) + doors(&service).count();
        if open > MAX_DOORS {
            return Err(LearnError::TooManyServices);
        }
        self.remove(&Arc::clone(&service.name));
        (self.backends, self.doors) = (all, open);
        for address in service.addresses.iter().chain(&service.borrowed) {
            let names = self.at.entry(address.to_canonical()).or_default();
            names.insert(Arc::clone(&service.name));
        }
        self.known
            .insert(Arc::clone(&service.name), Arc::new(service));
        Ok(true)
    }

    /// Forgets one; says whether it was there.
    pub(crate) fn remove(&mut self, name: &str) -> bool {
        let Some(known) = self.known.remove(name) else { return false };
        self.backends = self.backends.saturating_sub(backends(&known));
        self.doors = self.doors.saturating_sub(doors(&known).count());
        for address in known.addresses.iter().chain(&known.borrowed) {
            let address = address.to_canonical();
            if let Some(names) = self.at.get_mut(&address) {
                names.remove(name);
                if names.is_empty() {
                    self.at.remove(&address);
                }
            }
        }
        true
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Every Service, in order of name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.known.values()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Arc<Service>> {
        self.known.get(name)
    }

    /// What an address and port leads to, if it is a Service's.
    pub(crate) fn door(&self, address: IpAddr, proto: IpProto, port: u16) -> Option<Door<'_>> {
        let address = address.to_canonical();
        let all = self.at.get(&address)?.iter();
        let mut doors = all
            .filter_map(|name| self.known.get(name))
            .flat_map(|service| doors_at(service, address));
        doors.find(|door| door.port.is_none_or(|own| own == (proto, port)))
    }

    /// Whether it is an address of a Service that nobody chose.
    pub(crate) fn owns(&self, address: IpAddr) -> Option<&Arc<Service>> {
        let names = self.at.get(&address.to_canonical())?;
        let known = names.iter().filter_map(|name| self.known.get(name));
        let mut own = known.filter(|one| one.addresses.contains(&address.to_canonical()));
        own.next()
    }
}

/// Every address of a Service with every port.
pub(crate) fn doors(service: &Service) -> impl Iterator<Item = Door<'_>> {
    let all = service.addresses.iter().chain(&service.borrowed);
    all.flat_map(|address| doors_at(service, address.to_canonical()))
}

fn doors_at(service: &Service, address: IpAddr) -> impl Iterator<Item = Door<'_>> {
    let is_borrowed = !service.addresses.contains(&address);
    let ports = service.ports.iter().copied().map(Some).enumerate();
    // Of what is not known whole every port is one that nobody answers for.
    let ports = ports.filter(|_| !service.partial);
    let all = service.partial.then_some((usize::MAX, None));
    ports
        .chain(all)
        .map(move |(at, port)| Door { service, address, is_borrowed, port, at })
}

impl Directory {
    /// Where a flow to a Service's own address goes; `None` if it is none. Backends that have not all the same group
    /// and port stand together under the Service's name, which is no group: nothing is learned about it.
    #[must_use]
    pub fn reached(&self, address: IpAddr, proto: IpProto, port: u16) -> Option<Reached> {
        let service = self.services.owns(address)?;
        let whole = |managed| Reached {
            endpoint: Endpoint::Service(Arc::clone(&service.name)),
            port,
            managed,
        };
        let door = self.services.door(address, proto, port);
        let Some(door) = door.filter(|door| door.port.is_some() && !door.is_borrowed) else {
            return Some(whole(false));
        };
        let behind: Vec<_> = door
            .backends()
            .flat_map(|(backends, target)| {
                door.members(backends)
                    .map(move |one| (backends, target, one))
            })
            .collect();
        let managed = !behind.is_empty() && behind.iter().all(|(backends, ..)| backends.managed);
        let Some((first, target, member)) = behind.first() else { return Some(whole(false)) };
        let is_alike = behind
            .iter()
            .all(|(one, port, _)| (&one.group, port) == (&first.group, target));
        let endpoint = match (&first.group, &member.1) {
            _ if !is_alike => return Some(whole(managed)),
            (Some(_), Some(uid)) if behind.len() == 1 && self.anywhere(uid).is_some() => {
                Endpoint::Workload(Arc::clone(uid))
            }
            (Some(group), _) => Endpoint::Service(Arc::clone(&group.0)),
            (None, _) => {
                let mut ends = behind.iter().map(|(.., (ip, _))| self.endpoint(*ip));
                let end = ends.next()?;
                let group = self.group(&end);
                if !ends.all(|other| self.group(&other) == group) {
                    return Some(whole(managed));
                }
                if let Endpoint::Workload(_) = end {
                    let managed = behind.len() == 1 && self.is_managed(&end);
                    return Some(Reached { endpoint: end, port: *target, managed });
                }
                match end {
                    Endpoint::External => Endpoint::Named(name(service)),
                    end => end,
                }
            }
        };
        Some(Reached { endpoint, port: *target, managed })
    }
}

/// As the cluster's DNS has it.
fn name(service: &Service) -> Arc<str> {
    match service.name.split_once('/') {
        Some((namespace, name)) => format!("{name}.{namespace}.svc").into(),
        None => Arc::clone(&service.name),
    }
}

#[cfg(test)]
pub(crate) mod tests;
