//! Which names stand for which addresses, and until when. No sockets; time is an argument, in
//! seconds.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use outrider_dpi::dns_message::DnsAddress;
use outrider_policy::{MAX_NAME_ADDRESSES, Name};

#[cfg(test)]
mod tests;

/// Pairs of a name and an address; beyond them the pair goes that would expire first.
pub(crate) const MAX_PAIRS: usize = 8_192;
/// Addresses whose label changed and that nobody has asked about yet.
pub(crate) const MAX_CHANGED: usize = 2 * MAX_PAIRS;
/// Least life of a pair: programs use an address a while after they asked for it.
pub(crate) const MIN_LIFE: u64 = 60;
/// Longest life of a pair that nobody asks for again.
pub(crate) const MAX_LIFE: u64 = 86_400;

/// Names with their addresses, as the pod was told them.
#[derive(Debug, Default)]
pub(crate) struct NameBook {
    names: HashMap<Name, BTreeMap<IpAddr, u64>>,
    /// Every pair by the time it expires.
    due: BTreeSet<(u64, IpAddr, Name)>,
    /// The name that was last asked for, of each address.
    labels: HashMap<IpAddr, Name>,
    changed: BTreeSet<IpAddr>,
}

/// What an answer came to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Learned {
    /// Pairs that were not known.
    pub fresh: usize,
    /// Pairs that had to go before their time, or did not fit.
    pub dropped: usize,
}

impl NameBook {
    /// A name was given addresses.
    pub(crate) fn learn(&mut self, name: &Name, given: &[DnsAddress], now: u64) -> Learned {
        let mut learned = Learned::default();
        for DnsAddress { address, ttl } in given {
            let address = address.to_canonical();
            let life = u64::from(*ttl).clamp(MIN_LIFE, MAX_LIFE);
            match self.keep(name, address, now.saturating_add(life)) {
                Some(fresh) => learned.fresh = learned.fresh.saturating_add(fresh.into()),
                None => learned.dropped = learned.dropped.saturating_add(1),
            }
        }
        while self.due.len() > MAX_PAIRS {
            let Some((_, address, name)) = self.due.first().cloned() else { break };
            self.forget(&name, address);
            learned.dropped = learned.dropped.saturating_add(1);
        }
        learned
    }

    /// Keeps a pair at least until `until`; whether it is new. `None` if the name has too many.
    fn keep(&mut self, name: &Name, address: IpAddr, until: u64) -> Option<bool> {
        let addresses = match self.names.get_mut(name) {
            Some(addresses) => addresses,
            None => self.names.entry(name.clone()).or_default(),
        };
        if addresses.len() >= MAX_NAME_ADDRESSES && !addresses.contains_key(&address) {
            return None;
        }
        let before = addresses.get(&address).copied();
        let until = before.map_or(until, |before| before.max(until));
        addresses.insert(address, until);
        if let Some(before) = before {
            self.due.remove(&(before, address, name.clone()));
        }
        self.due.insert((until, address, name.clone()));
        if self.labels.get(&address) != Some(name) {
            self.labels.insert(address, name.clone());
            self.change(address);
        }
        Some(before.is_none())
    }

    /// Takes out what has expired; a pair whose address is in use lives on for a while. Returns the
    /// number of pairs taken out.
    pub(crate) fn expire(&mut self, now: u64, in_use: &dyn Fn(IpAddr) -> bool) -> usize {
        let mut gone = 0_usize;
        while let Some((until, address, name)) = self.due.first().cloned() {
            if until > now {
                break;
            }
            if in_use(address) {
                let _known = self.extend(&name, address, until, now.saturating_add(MIN_LIFE));
            } else {
                self.forget(&name, address);
                gone = gone.saturating_add(1);
            }
        }
        gone
    }

    fn extend(&mut self, name: &Name, address: IpAddr, before: u64, until: u64) -> Option<u64> {
        self.due.remove(&(before, address, name.clone()));
        self.due.insert((until, address, name.clone()));
        self.names.get_mut(name)?.insert(address, until)
    }

    fn forget(&mut self, name: &Name, address: IpAddr) {
        if let Some(addresses) = self.names.get_mut(name) {
            if let Some(until) = addresses.remove(&address) {
                self.due.remove(&(until, address, name.clone()));
            }
            if addresses.is_empty() {
                self.names.remove(name);
            }
        }
        if self.labels.get(&address) == Some(name) {
            self.labels.remove(&address);
            self.change(address);
        }
    }

    /// Beyond the cap a change is not told: the label itself stays right.
    fn change(&mut self, address: IpAddr) {
        if self.changed.len() < MAX_CHANGED {
            self.changed.insert(address);
        }
    }

    /// The addresses of a name.
    pub(crate) fn addresses(&self, name: &Name) -> impl Iterator<Item = IpAddr> {
        self.names
            .get(name)
            .into_iter()
            .flat_map(|addresses| addresses.keys().copied())
    }

    /// Until when the last address of a name holds.
    #[must_use]
    pub(crate) fn holds_until(&self, name: &Name) -> Option<u64> {
        self.names.get(name)?.values().copied().max()
    }

    /// All names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Name> {
        self.names.keys()
    }

    /// The name that was last asked for, of those that stand for an address.
    #[must_use]
    pub(crate) fn label(&self, address: IpAddr) -> Option<&Name> {
        self.labels.get(&address.to_canonical())
    }

    /// Up to `most` addresses whose label changed, with the new one.
    pub(crate) fn take_changed(&mut self, most: usize) -> Vec<(IpAddr, Option<Name>)> {
        let taken: Vec<IpAddr> = self.changed.iter().copied().take(most).collect();
        taken
            .into_iter()
            .map(|address| {
                self.changed.remove(&address);
                (address, self.labels.get(&address).cloned())
            })
            .collect()
    }

    /// How many pairs there are.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.due.len()
    }
}
