//! Services with what is behind them. They are gone through again when one of them, a slice, or a pod behind one
//! changes.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use tokio::time::Instant;

use crate::controller::{
    plan::{Pod, Service, Slice},
    services::{self, Served, bytes},
};

/// How long the address of a pod that ended may still stand in an EndpointSlice without anybody wondering whose it is.
const LEFT: Duration = Duration::from_secs(120);
/// Addresses of pods that ended that are remembered.
const MAX_LEFT: usize = 65_536;

/// Names by what they are found by.
type Index<K> = HashMap<K, Vec<Arc<str>>>;

/// All Services.
#[derive(Debug, Default, PartialEq)]
pub(in crate::controller) struct Fronts {
    services: Vec<Arc<Service>>,
    slices: Vec<Arc<Slice>>,
    /// Addresses of backends.
    behind: HashSet<IpAddr>,
    /// Addresses of pods that ended of late.
    left: HashMap<IpAddr, Instant>,
    is_stale: bool,
    /// By `<namespace>/<name>`.
    pub(in crate::controller) served: BTreeMap<Arc<str>, Arc<Served>>,
    /// Names of those of which every node is told.
    pub(in crate::controller) chosen: Vec<Arc<str>>,
    /// Networks of cluster IPs.
    pub(in crate::controller) networks: Vec<IpNet>,
    at: Index<Vec<u8>>,
    by: Index<Arc<str>>,
}

impl Fronts {
    /// What there is now.
    pub(super) fn set(&mut self, services: Vec<Arc<Service>>, slices: Vec<Arc<Slice>>) {
        let behind = slices.iter().flat_map(|slice| &slice.addresses);
        self.behind = behind.copied().collect();
        self.networks = services::networks(services.iter());
        (self.services, self.slices, self.is_stale) = (services, slices, true);
    }

    /// Nobody left of late.
    #[cfg(test)]
    pub(super) fn forget_who_left(&mut self) {
        self.left.clear();
    }

    /// A pod has gone, or has other addresses now.
    pub(super) fn leave(&mut self, pod: &Pod) {
        if self.left.len() >= MAX_LEFT {
            self.left.retain(|_, at| at.elapsed() < LEFT);
        }
        for address in &pod.addresses {
            self.is_stale |= self.behind.contains(address);
            if self.left.len() < MAX_LEFT {
                self.left.insert(*address, Instant::now());
            }
        }
    }

    /// A pod is there, or changed.
    pub(super) fn come(&mut self, pod: &Pod) {
        for address in &pod.addresses {
            self.is_stale |= self.behind.contains(address);
            self.left.remove(address);
        }
    }

    /// Goes through them again if that is due; `whose` knows the pods. Says whether any is other than before.
    pub(super) fn renew<'a>(&mut self, whose: impl Fn(IpAddr) -> Option<&'a Arc<Pod>>) -> bool {
        if !std::mem::take(&mut self.is_stale) {
            return false;
        }
        self.left.retain(|_, at| at.elapsed() < LEFT);
        let is_left = |address: IpAddr| self.left.contains_key(&address);
        let mut served = services::serve(&self.services, &self.slices, whose, is_left);
        for (name, service) in &mut served {
            if let Some(known) = self.served.get(name).filter(|known| *known == service) {
                *service = Arc::clone(known);
            }
        }
        let is_new = served != self.served;
        self.served = served;
        self.index();
        is_new
    }

    fn index(&mut self) {
        (self.at, self.by) = Default::default();
        self.chosen.clear();
        for (name, one) in &self.served {
            if one.chosen {
                self.chosen.push(Arc::clone(name));
            }
            for own in one.said.addresses.iter().chain(&one.said.borrowed) {
                self.at
                    .entry(own.clone())
                    .or_default()
                    .push(Arc::clone(name));
            }
            for uid in one.said.backends.iter().flat_map(|alike| &alike.uids) {
                self.by
                    .entry(uid.as_str().into())
                    .or_default()
                    .push(Arc::clone(name));
            }
        }
    }

    /// Services that have that address.
    pub(in crate::controller) fn at(&self, address: IpAddr) -> impl Iterator<Item = &Arc<str>> {
        self.at.get(&bytes(address)).into_iter().flatten()
    }

    /// Services that a pod is behind.
    pub(in crate::controller) fn by(&self, uid: &str) -> impl Iterator<Item = &Arc<str>> {
        self.by.get(uid).into_iter().flatten()
    }
}
