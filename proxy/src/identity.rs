//! Who this pod is on the wire and in the kernel: its MACs and addresses.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags, sys::socket::SockaddrStorage};
use outrider_model::MacAddr;

/// The pod's interfaces, in the kernel's order.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Identity {
    macs: Vec<MacAddr>,
    /// Those that others know the pod by: no loopback, none that is valid on one link only.
    addresses: BTreeSet<IpAddr>,
    /// All, those of the loopback interface included.
    local: BTreeSet<IpAddr>,
    /// Those that stand for everybody on a link.
    broadcast: BTreeSet<IpAddr>,
}

impl Identity {
    /// An identity that nobody read.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn new(macs: Vec<MacAddr>, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let addresses: BTreeSet<_> = addresses.into_iter().map(|ip| ip.to_canonical()).collect();
        Self { macs, local: addresses.clone(), addresses, ..Self::default() }
    }

    /// Asks the kernel.
    pub(crate) fn read() -> Result<Self, std::io::Error> {
        let mut identity = Self::default();
        for interface in getifaddrs().map_err(std::io::Error::from)? {
            let loopback = interface.flags.contains(InterfaceFlags::IFF_LOOPBACK);
            if let Some(address) = interface.address {
                identity.add(&address, loopback);
            }
            let everybody = interface
                .flags
                .contains(InterfaceFlags::IFF_BROADCAST)
                .then_some(interface.broadcast);
            // Without a broadcast address the C library gives the interface's own in its place.
            let ip = everybody
                .flatten()
                .filter(|to| interface.address.as_ref() != Some(to))
                .and_then(|to| Some(IpAddr::V4(to.as_sockaddr_in()?.ip())));
            identity.broadcast.extend(ip);
        }
        Ok(identity)
    }

    fn add(&mut self, address: &SockaddrStorage, loopback: bool) {
        if let Some(link) = address.as_link_addr() {
            let mac = link.addr().map(MacAddr).filter(|mac| mac.0 != [0; 6]);
            self.macs.extend(mac.filter(|mac| !self.macs.contains(mac)));
        }
        let ip = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        let ip = ip.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())));
        self.local.extend(ip);
        self.addresses
            .extend(ip.filter(|ip| !loopback && !is_link_local(*ip)));
    }

    /// The MACs, the first of which stands for the workload.
    #[must_use]
    pub(crate) fn macs(&self) -> &[MacAddr] {
        &self.macs
    }

    /// The addresses that others know the pod by, sorted.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.addresses.iter().copied()
    }

    /// Whether an address leads back into the pod: its own, loopback or unspecified.
    #[must_use]
    pub(crate) fn is_local(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        ip.is_loopback() || ip.is_unspecified() || self.local.contains(&ip)
    }

    /// Whether an address stands for more than one host.
    #[must_use]
    pub(crate) fn is_shared(&self, ip: IpAddr) -> bool {
        ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) || self.broadcast.contains(&ip)
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_this_machine_without_loopback() {
        let identity = Identity::read().unwrap();
        assert!(
            identity
                .addresses()
                .all(|ip| !ip.is_loopback() && !is_link_local(ip))
        );
        assert!(identity.addresses().all(|ip| identity.is_local(ip)));
        assert!(identity.macs().iter().all(|mac| mac.0 != [0; 6]));
    }

    #[test]
    fn knows_what_leads_back_into_the_pod() {
        let pod =
            Identity::new(Vec::new(), ["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()]);
        for local in ["10.0.0.2", "::ffff:10.0.0.2", "fd00::2", "127.0.0.1", "::1", "0.0.0.0"] {
            assert!(pod.is_local(local.parse().unwrap()), "{local}");
        }
        assert!(!pod.is_local("10.0.0.3".parse().unwrap()));
    }
}
