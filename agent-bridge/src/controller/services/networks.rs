//! Networks around the cluster IPs: what nobody has yet in them is no outside either.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Cluster IPs that have so much in common are one network.
const TOGETHER: (u8, u8) = (16, 112);
/// A network of cluster IPs has so many addresses at least.
const WIDE: (u8, u8) = (24, 120);

/// Cluster IPs, and the networks around them.
#[derive(Debug, Default, PartialEq)]
pub(in crate::controller) struct Networks {
    /// By how many Services.
    addresses: BTreeMap<IpAddr, usize>,
    /// By all that would be in one network.
    around: BTreeMap<IpNet, IpNet>,
}

impl Networks {
    /// All of them.
    pub(in crate::controller) fn all(&self) -> impl Iterator<Item = &IpNet> {
        self.around.values()
    }

    /// A Service has that address; says whether the networks are others now.
    pub(in crate::controller) fn enter(&mut self, address: IpAddr) -> bool {
        *self.addresses.entry(address).or_default() += 1;
        self.renew(address)
    }

    /// It has it no more.
    pub(in crate::controller) fn leave(&mut self, address: IpAddr) -> bool {
        if let Some(count) = self.addresses.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.addresses.remove(&address);
            }
        }
        self.renew(address)
    }

    fn renew(&mut self, address: IpAddr) -> bool {
        let Some(around) = network(address, TOGETHER) else { return false };
        let mut inside = self.addresses.range(around.network()..=around.broadcast());
        let low = inside.next().map(|(low, _)| *low);
        let high = inside.next_back().map(|(high, _)| *high).or(low);
        match low.zip(high).and_then(|(low, high)| common(low, high)) {
            Some(now) => self.around.insert(around, now) != Some(now),
            None => self.around.remove(&around).is_some(),
        }
    }
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
