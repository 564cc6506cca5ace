//! Services with what is behind them. One of which the Service, a slice or a pod behind it changed is gone through
//! again, and no other.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::index::{Index, enter, leave, of};
use crate::controller::{
    plan::{Pod, Service, Slice},
    services::{Networks, Served, bytes, served},
};

/// How long the address of a pod that ended may still stand in an EndpointSlice without anybody wondering whose it is.
const LEFT: Duration = Duration::from_secs(120);
/// Addresses of pods that ended that are remembered; the oldest makes room.
const MAX_LEFT: usize = 65_536;

/// A Service and its slices, by their names.
#[derive(Debug, Default, PartialEq)]
struct Front {
    service: Option<Arc<Service>>,
    slices: BTreeMap<Arc<str>, Arc<Slice>>,
}

/// All Services.
#[derive(Debug, Default, PartialEq)]
pub(in crate::controller) struct Fronts {
    /// By `<namespace>/<name>`.
    all: HashMap<Arc<str>, Front>,
    /// By addresses of their slices.
    behind: Index<IpAddr>,
    /// Addresses of pods that ended of late, and when.
    left: HashMap<IpAddr, Instant>,
    in_turn: BTreeSet<(Instant, IpAddr)>,
    /// Those that are to be gone through again.
    stale: BTreeSet<Arc<str>>,
    /// What nodes are told.
    pub(in crate::controller) served: BTreeMap<Arc<str>, Arc<Served>>,
    /// Names of those of which every node is told.
    pub(in crate::controller) chosen: BTreeSet<Arc<str>>,
    /// Networks of cluster IPs.
    pub(in crate::controller) networks: Networks,
    at: Index<Vec<u8>>,
    by: Index<Arc<str>>,
}

impl Fronts {
    /// A Service as it was and as it is; says whether there are other networks of cluster IPs now.
    pub(super) fn service(&mut self, before: Option<&Service>, now: Option<&Arc<Service>>) -> bool {
        let mut is_other = false;
        if let Some(before) = before {
            self.turn(&before.namespace, &before.name, |front| front.service = None);
            for address in &before.addresses {
                is_other |= self.networks.leave(*address);
            }
        }
        if let Some(now) = now {
            self.turn(&now.namespace, &now.name, |front| front.service = Some(Arc::clone(now)));
            for address in &now.addresses {
                is_other |= self.networks.enter(*address);
            }
        }
        is_other
    }

    /// A slice as it was and as it is.
    pub(super) fn slice(&mut self, before: Option<&Slice>, now: Option<&Arc<Slice>>) {
        if let Some(before) = before {
            let name = self.turn(&before.namespace, &before.service, |front| {
                front.slices.remove(&before.name);
            });
            let front = self.all.get(&name);
            let others = |address| {
                let mut slices = front.iter().flat_map(|front| front.slices.values());
                slices.any(|slice| slice.addresses.contains(address))
            };
            let gone = before.addresses.iter().filter(|address| !others(address));
            gone.for_each(|address| leave(&mut self.behind, address, &name));
        }
        if let Some(now) = now {
            let name = self.turn(&now.namespace, &now.service, |front| {
                front.slices.insert(Arc::clone(&now.name), Arc::clone(now));
            });
            let addresses = now.addresses.iter();
            addresses.for_each(|address| enter(&mut self.behind, *address, &name));
        }
    }

    /// Changes what there is of a Service; says its whole name.
    fn turn(&mut self, namespace: &str, name: &str, change: impl FnOnce(&mut Front)) -> Arc<str> {
        let name: Arc<str> = format!("{namespace}/{name}").into();
        let front = self.all.entry(Arc::clone(&name)).or_default();
        change(front);
        if *front == Front::default() {
            self.all.remove(&name);
        }
        self.stale.insert(Arc::clone(&name));
        name
    }

    /// A pod has gone, or has other addresses now.
    pub(super) fn leave(&mut self, pod: &Pod) {
        for address in &pod.addresses {
            self.is_stale(*address);
            self.forget(*address);
            if self.left.len() >= MAX_LEFT
                && let Some((_, oldest)) = self.in_turn.first().copied()
            {
                self.forget(oldest);
                self.is_stale(oldest);
            }
            let now = Instant::now();
            self.left.insert(*address, now);
            self.in_turn.insert((now, *address));
        }
    }

    /// A pod is there, or changed.
    pub(super) fn come(&mut self, pod: &Pod) {
        for address in &pod.addresses {
            self.is_stale(*address);
            self.forget(*address);
        }
    }

    fn is_stale(&mut self, address: IpAddr) {
        self.stale.extend(of(&self.behind, &address).cloned());
    }

    /// That somebody left an address is forgotten.
    fn forget(&mut self, address: IpAddr) {
        if let Some(at) = self.left.remove(&address) {
            self.in_turn.remove(&(at, address));
        }
    }

    /// Goes through those again of which it is due; `whose` knows the pods. Gives those that are other than before, in
    /// both forms.
    pub(super) fn renew<'a>(
        &mut self,
        whose: impl Fn(IpAddr) -> Option<&'a Arc<Pod>>,
    ) -> Vec<Arc<Served>> {
        while let Some((at, address)) = self.in_turn.first().copied()
            && at.elapsed() >= LEFT
        {
            self.forget(address);
            self.is_stale(address);
        }
        let mut other = Vec::new();
        for name in std::mem::take(&mut self.stale) {
            let front = self.all.get(&name);
            let is_left = |ip| self.left.contains_key(&ip) && whose(ip).is_none();
            let now = front.and_then(|front| {
                let (service, slices) = (front.service.as_ref()?, front.slices.values());
                Some(Arc::new(served(service, slices, &whose, is_left)))
            });
            if self.served.get(&name) != now.as_ref() {
                self.put(&name, now, &mut other);
            }
        }
        other
    }

    /// Puts a form in place of the one before.
    fn put(&mut self, name: &Arc<str>, now: Option<Arc<Served>>, other: &mut Vec<Arc<Served>>) {
        if let Some(before) = self.served.remove(name) {
            self.chosen.remove(name);
            before.own().for_each(|own| leave(&mut self.at, own, name));
            before.uids().for_each(|uid| leave(&mut self.by, uid, name));
            other.push(before);
        }
        let Some(now) = now else { return };
        if now.chosen {
            self.chosen.insert(Arc::clone(name));
        }
        now.own()
            .for_each(|own| enter(&mut self.at, own.clone(), name));
        now.uids()
            .for_each(|uid| enter(&mut self.by, uid.into(), name));
        self.served.insert(Arc::clone(name), Arc::clone(&now));
        other.push(now);
    }

    /// Services that have that address.
    pub(in crate::controller) fn at(&self, address: IpAddr) -> impl Iterator<Item = &Arc<str>> {
        of(&self.at, &bytes(address))
    }

    /// Services that a pod is behind.
    pub(in crate::controller) fn by(&self, uid: &str) -> impl Iterator<Item = &Arc<str>> {
        of(&self.by, uid)
    }

    /// Who left of late is the same as there.
    #[cfg(test)]
    pub(super) fn left_as(&mut self, other: &Self) {
        (self.left, self.in_turn) = (other.left.clone(), other.in_turn.clone());
    }

    /// Time goes by: of who left of late nobody knows any more.
    #[cfg(test)]
    pub(super) fn forget_who_left(&mut self) {
        for address in std::mem::take(&mut self.left).into_keys() {
            self.is_stale(address);
        }
        self.in_turn.clear();
    }
}
