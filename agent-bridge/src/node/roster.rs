//! Who is on this node: workloads by mailbox, address and name, and what counts as internal.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;

use crate::mailbox::watch::Workload;

/// Prefix length to which a workload's address is widened: the pods around it are internal.
const WIDEN_V4: u8 = 24;
/// The same for IPv6.
const WIDEN_V6: u8 = 64;

/// The node's workloads.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    workloads: BTreeMap<Arc<str>, Arc<Workload>>,
    by_address: HashMap<IpAddr, Arc<str>>,
    configured: Vec<IpNet>,
    internal: Vec<IpNet>,
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
    /// A roster without workloads; `configured` networks are always internal.
    pub(crate) fn new(configured: Vec<IpNet>) -> Self {
        let mut roster = Self { configured, ..Self::default() };
        roster.index();
        roster
    }

    /// Enters or replaces a workload.
    pub(crate) fn enter(&mut self, workload: Workload) {
        self.workloads
            .insert(workload.uid.as_str().into(), Arc::new(workload));
        self.index();
    }

    /// Removes one.
    pub(crate) fn remove(&mut self, uid: &str) {
        self.workloads.remove(uid);
        self.index();
    }

    fn index(&mut self) {
        self.by_address.clear();
        let mut internal = self.configured.clone();
        for (uid, workload) in &self.workloads {
            for address in &workload.addresses {
                self.by_address
                    .entry(*address)
                    .or_insert_with(|| Arc::clone(uid));
                internal.push(widen(*address));
            }
        }
        self.internal = IpNet::aggregate(&internal);
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

    /// The workload that has an address.
    pub(crate) fn at(&self, address: IpAddr) -> Option<&Arc<Workload>> {
        self.workloads
            .get(self.by_address.get(&address.to_canonical())?)
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
    pub(crate) fn internal(&self) -> &[IpNet] {
        &self.internal
    }

    /// Whether an address is internal; loopback is, and everything is while nothing is known.
    pub(crate) fn is_internal(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let same = |net: &&IpNet| net.addr().is_ipv4() == address.is_ipv4();
        let mut family = self.internal.iter().filter(same).peekable();
        address.is_loopback() || family.peek().is_none() || family.any(|net| net.contains(&address))
    }

    /// What people call the end of a flow: the workload, `external`, or the bare address.
    pub(crate) fn call(&self, address: IpAddr) -> String {
        match self.at(address) {
            Some(workload) => workload.name.clone(),
            None if self.is_internal(address) => address.to_canonical().to_string(),
            None => EXTERNAL.into(),
        }
    }
}

/// Everything outside the internal networks.
pub(crate) const EXTERNAL: &str = "external";

fn widen(address: IpAddr) -> IpNet {
    let length = if address.is_ipv4() { WIDEN_V4 } else { WIDEN_V6 };
    IpNet::new_assert(address, length).trunc()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(uid: &str, name: &str, addresses: &[&str]) -> Workload {
        Workload {
            uid: uid.into(),
            name: name.into(),
            group: format!("nv.{uid}.default"),
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            mac: Default::default(),
        }
    }

    fn roster() -> Roster {
        let mut roster = Roster::new(vec!["192.168.0.0/16".parse().unwrap()]);
        roster.enter(workload("1", "default/web", &["10.0.0.2", "fd00::2"]));
        roster.enter(workload("2", "default/cache", &["10.0.0.3"]));
        roster.enter(workload("3", "other/cache", &["10.0.1.3"]));
        roster
    }

    #[test]
    fn surroundings_of_workloads_and_configured_networks_are_internal() {
        let roster = roster();
        for (address, internal) in [
            ("10.0.0.200", true),
            ("192.168.7.7", true),
            ("10.0.2.1", false),
            ("fd00::9", true),
            ("fd01::9", false),
            ("127.0.0.1", true),
        ] {
            assert_eq!(roster.is_internal(address.parse().unwrap()), internal, "{address}");
        }
        assert!(Roster::default().is_internal("8.8.8.8".parse().unwrap()));
    }

    #[test]
    fn ends_are_called_by_workload_address_or_external() {
        let roster = roster();
        assert_eq!(roster.call("::ffff:10.0.0.2".parse().unwrap()), "default/web");
        assert_eq!(roster.call("10.0.0.9".parse().unwrap()), "10.0.0.9");
        assert_eq!(roster.call("8.8.8.8".parse().unwrap()), "external");
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
        assert!(roster.at("10.0.1.3".parse().unwrap()).is_none());
    }
}
