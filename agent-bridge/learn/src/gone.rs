//! Workloads that left a moment ago: reports about them are still under way.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use crate::directory::Entry;

/// Workloads that are remembered after they left.
pub const MAX_GONE: usize = 1_024;

/// How long they are remembered, in seconds.
const REMEMBERED: u64 = 300;

/// Workloads that left, and when.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gone(BTreeMap<Arc<str>, (u64, Entry)>);

impl Gone {
    pub(crate) fn add(&mut self, entry: Entry, now: u64) {
        self.0
            .retain(|_, (left, _)| left.saturating_add(REMEMBERED) > now);
        if self.0.len() >= MAX_GONE {
            let oldest = self.0.iter().min_by_key(|(_, (left, _))| *left);
            if let Some(uid) = oldest.map(|(uid, _)| Arc::clone(uid)) {
                self.0.remove(&uid);
            }
        }
        self.0.insert(Arc::clone(&entry.workload.uid), (now, entry));
    }

    pub(crate) fn remove(&mut self, uid: &str) {
        self.0.remove(uid);
    }

    pub(crate) fn get(&self, uid: &str) -> Option<&Entry> {
        self.0.get(uid).map(|(_, entry)| entry)
    }

    /// The workload that had an address when a flow began; of several, the first that left.
    pub(crate) fn at(&self, address: IpAddr, began: u64) -> Option<&Entry> {
        self.0
            .values()
            .filter(|(left, entry)| began <= *left && entry.has(address))
            .min_by_key(|(left, _)| *left)
            .map(|(_, entry)| entry)
    }
}
