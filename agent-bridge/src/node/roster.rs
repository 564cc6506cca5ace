//! Who is on this node: workloads by mailbox and by name, and what counts as internal.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use outrider_wire::request::SpecialIp;

use crate::{mailbox::watch::Workload, pods::Surroundings};

/// Prefix length to which a workload's address is widened: the pods around it are internal.
const WIDEN_V4: u8 = 24;
/// The same for IPv6.
const WIDEN_V6: u8 = 64;

/// The node's workloads.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    workloads: BTreeMap<String, Arc<Workload>>,
    configured: Vec<IpNet>,
    special: Arc<[(IpAddr, SpecialIp)]>,
}

/// A name that means no workload, or several.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Unnamed {
    /// None.
    Unknown,
    /// These, by their full names.
    Ambiguous(Vec<String>),
}

impl Roster {
    /// Says what is around the workloads: networks that are internal whoever is in them, addresses of nodes and the
    /// nodes' ends of tunnels.
    pub(crate) fn surround(&mut self, around: &Surroundings) {
        self.configured = around.internal.iter().copied().collect();
        // The first entry of an address counts.
        let tunnels = around.tunnels.iter().map(|one| (*one, SpecialIp::Tunnel));
        let hosts = around.hosts.iter().map(|one| (*one, SpecialIp::Host));
        self.special = tunnels.chain(hosts).collect();
    }

    /// What addresses of nodes are for.
    pub(crate) fn special(&self) -> &Arc<[(IpAddr, SpecialIp)]> {
        &self.special
    }

    /// Enters or replaces a workload.
    pub(crate) fn enter(&mut self, workload: Workload) {
        self.workloads
            .insert(workload.uid.clone(), Arc::new(workload));
    }

    /// Removes one.
    pub(crate) fn remove(&mut self, uid: &str) {
        self.workloads.remove(uid);
    }

    /// Every workload, in order of uid.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads.values()
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.workloads.len()
    }

    /// The workload behind a mailbox.
    pub(crate) fn get(&self, uid: &str) -> Option<&Arc<Workload>> {
        self.workloads.get(uid)
    }

    /// The workload of that full name, or the only one of that bare name.
    pub(crate) fn named(&self, name: &str) -> Result<&Arc<Workload>, Unnamed> {
        if let Some(exact) = self.all().find(|workload| workload.name == name) {
            return Ok(exact);
        }
        let bare = |workload: &&Arc<Workload>| workload.name.rsplit('/').next() == Some(name);
        let found: Vec<_> = self.all().filter(bare).collect();
        match found.as_slice() {
            [] => Err(Unnamed::Unknown),
            [only] => Ok(only),
            several => {
                Err(Unnamed::Ambiguous(several.iter().map(|one| one.name.clone()).collect()))
            }
        }
    }

    /// Internal networks: what was configured, and the surroundings of every workload.
    pub(crate) fn internal(&self) -> Vec<IpNet> {
        let surroundings = self
            .all()
            .flat_map(|workload| workload.addresses.iter().map(widen));
        IpNet::aggregate(
            &self
                .configured
                .iter()
                .copied()
                .chain(surroundings)
                .collect(),
        )
    }
}

fn widen(address: &IpAddr) -> IpNet {
    let length = if address.is_ipv4() { WIDEN_V4 } else { WIDEN_V6 };
    IpNet::new_assert(*address, length).trunc()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(uid: &str, name: &str, addresses: &[&str]) -> Workload {
        Workload {
            uid: uid.into(),
            name: name.into(),
            namespace: "default".into(),
            service: uid.into(),
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            mac: Default::default(),
            labels: Default::default(),
        }
    }

    fn roster() -> Roster {
        let mut roster = Roster::default();
        let internal = ["192.168.0.0/16".parse().unwrap()].into();
        roster.surround(&Surroundings { internal, ..Surroundings::default() });
        roster.enter(workload("1", "default/web", &["10.0.0.2", "fd00::2"]));
        roster.enter(workload("2", "default/cache", &["10.0.0.3"]));
        roster.enter(workload("3", "other/cache", &["10.0.3.3"]));
        roster
    }

    #[test]
    fn surroundings_of_workloads_and_configured_networks_are_internal() {
        let found: Vec<_> = roster()
            .internal()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found, ["10.0.0.0/24", "10.0.3.0/24", "192.168.0.0/16", "fd00::/64"]);
    }

    #[test]
    fn a_bare_name_will_do_while_it_is_the_only_one() {
        let mut roster = roster();
        assert_eq!(roster.named("web").unwrap().uid, "1");
        assert_eq!(roster.named("other/cache").unwrap().uid, "3");
        assert_eq!(
            roster.named("cache"),
            Err(Unnamed::Ambiguous(vec!["default/cache".into(), "other/cache".into()]))
        );
        roster.remove("3");
        assert_eq!(roster.named("cache").unwrap().uid, "2");
        assert_eq!(roster.named("nothing"), Err(Unnamed::Unknown));
        assert_eq!(roster.len(), 2);
    }
}
