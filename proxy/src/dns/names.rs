//! What names mean to policy: the agent's word and what the pod was told, in force at once.
//!
//! An address that is new for a name in a rule must count before the workload can use it, so whoever
//! learns it puts it in force before the answer goes on. The rules are not compiled again for it:
//! the snapshot in force is swapped for one that shares its rules and has another index of names. The
//! lock orders that swap and the ones of the ctrl thread, so that neither undoes the other. The
//! number of the policy stays: a live flow keeps the decision it got under what was known then.

use std::{
    collections::{BTreeSet, HashSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use outrider_dpi::dns_message::DnsAddress;
use outrider_policy::{Name, NameTable};
use outrider_relay::{PolicyHandle, PolicyView};
use parking_lot::Mutex;

use super::{DnsMetrics, book::NameBook};

#[cfg(test)]
mod tests;

/// Names and policy, together.
#[derive(Debug)]
pub(crate) struct Names {
    policy: PolicyHandle,
    metrics: DnsMetrics,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    book: NameBook,
    /// What the agent says of names.
    configured: NameTable,
    /// Names that rules are about.
    ruled: HashSet<Name>,
    /// Wildcards of rules under which addresses were added and not yet told.
    grown: BTreeSet<Name>,
}

/// What the agent is told about names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Notice {
    /// All addresses under a wildcard.
    Wildcard {
        /// The wildcard.
        name: Name,
        /// Whether flows must carry a name under it.
        vhost: bool,
        /// Its addresses.
        addresses: Vec<Ipv4Addr>,
    },
    /// An address has a name, or another one.
    Named(Ipv4Addr, Name),
    /// An address has lost its name.
    Released(Ipv4Addr),
}

impl Names {
    /// Names beside a policy that is in force already.
    #[must_use]
    pub(crate) fn new(policy: PolicyHandle, configured: NameTable, metrics: DnsMetrics) -> Self {
        let ruled = ruled(&policy.load());
        let inner = Inner { configured, ruled, ..Inner::default() };
        Self { policy, metrics, inner: Mutex::new(inner) }
    }

    /// Puts a policy in force, with all that is known of names.
    pub(crate) fn enforce(&self, view: &PolicyView, configured: NameTable) {
        let mut inner = self.inner.lock();
        inner.ruled = ruled(view);
        inner.configured = configured;
        let Inner { ruled, grown, .. } = &mut *inner;
        grown.retain(|name| ruled.contains(name));
        self.swap(&inner, view);
    }

    /// The workload is about to be told the addresses of a name.
    pub(crate) fn learn(&self, name: &Name, given: &[DnsAddress], now: u64) {
        if given.is_empty() {
            return;
        }
        let mut inner = self.inner.lock();
        let learned = inner.book.learn(name, given, now);
        self.metrics.learned(learned.fresh, learned.dropped);
        self.metrics.pairs(inner.book.len());
        if learned.fresh == 0 || !inner.is_ruled(name) {
            return;
        }
        let Inner { ruled, grown, .. } = &mut *inner;
        grown.extend(wildcards(name).filter(|wildcard| ruled.contains(wildcard)));
        self.swap(&inner, &self.policy.load());
    }

    /// Forgets what has expired and is not in use.
    pub(crate) fn expire(&self, now: u64, in_use: &dyn Fn(IpAddr) -> bool) {
        let mut inner = self.inner.lock();
        if inner.book.expire(now, in_use) == 0 {
            return;
        }
        self.metrics.pairs(inner.book.len());
        if !inner.ruled.is_empty() {
            self.swap(&inner, &self.policy.load());
        }
    }

    /// The same policy with what is known of names now; the caller holds the lock.
    fn swap(&self, inner: &Inner, view: &PolicyView) {
        let (table, no_room) = inner.table();
        self.metrics.no_room(no_room);
        let snapshot = view.snapshot.with_names(&table);
        self.policy
            .store(Arc::new(PolicyView { snapshot, ..view.clone() }));
    }

    /// The name that was last asked for, of those that stand for an address.
    #[must_use]
    pub(crate) fn label(&self, address: IpAddr) -> Option<String> {
        let inner = self.inner.lock();
        inner
            .book
            .label(address)
            .map(|name| name.as_str().to_owned())
    }

    /// Names in rules, without wildcards, that stand for nothing or will not for long.
    #[must_use]
    pub(crate) fn stale(&self, until: u64) -> Vec<Name> {
        let inner = self.inner.lock();
        let is_stale = |name: &&Name| inner.book.holds_until(name).is_none_or(|end| end <= until);
        let exact = inner.ruled.iter().filter(|name| !name.is_wildcard());
        exact.filter(is_stale).cloned().collect()
    }

    /// Up to `most` notices that are due; addresses that are not external have no names.
    pub(crate) fn take_notices(
        &self,
        most: usize,
        is_external: impl Fn(IpAddr) -> bool,
    ) -> Vec<Notice> {
        let mut inner = self.inner.lock();
        let mut notices = Vec::new();
        while notices.len() < most
            && let Some(name) = inner.grown.pop_first()
        {
            notices.push(inner.wildcard_notice(name));
        }
        let room = most.saturating_sub(notices.len());
        let labels = inner.book.take_changed(room);
        notices.extend(
            labels
                .into_iter()
                .filter_map(|(address, name)| match (address, name) {
                    (IpAddr::V4(v4), Some(name)) => {
                        is_external(address).then_some(Notice::Named(v4, name))
                    }
                    (IpAddr::V4(v4), None) => is_external(address).then_some(Notice::Released(v4)),
                    // The field for the address has no family.
                    (IpAddr::V6(_), _) => None,
                }),
        );
        notices
    }
}

impl Inner {
    fn is_ruled(&self, name: &Name) -> bool {
        !self.ruled.is_empty()
            && (self.ruled.contains(name)
                || wildcards(name).any(|wildcard| self.ruled.contains(&wildcard)))
    }

    /// The agent's word and what the pod was told, as far as rules ask for it; with how many addresses
    /// found no room.
    fn table(&self) -> (NameTable, usize) {
        let mut table = self.configured.clone();
        let mut no_room = 0_usize;
        if self.ruled.is_empty() {
            return (table, no_room);
        }
        for name in self.book.names().filter(|name| self.is_ruled(name)) {
            for address in self.book.addresses(name) {
                no_room = no_room.saturating_add(table.add(name, address).is_err().into());
            }
        }
        (table, no_room)
    }

    fn wildcard_notice(&self, name: Name) -> Notice {
        let under = self.book.names().filter(|host| name.matches(host.as_str()));
        let addresses: BTreeSet<IpAddr> =
            under.flat_map(|host| self.book.addresses(host)).collect();
        let v4 = |address: IpAddr| match address {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(_) => None,
        };
        let vhost = self.configured.vhost(&name);
        Notice::Wildcard { name, vhost, addresses: addresses.into_iter().filter_map(v4).collect() }
    }
}

fn ruled(view: &PolicyView) -> HashSet<Name> {
    view.snapshot.rule_names().iter().cloned().collect()
}

fn wildcards(name: &Name) -> impl Iterator<Item = Name> {
    name.wildcards()
        .filter_map(|wildcard| Name::new(&wildcard).ok())
}
