//! Records that the bridge keeps per workload: bounded for each, so that one pod's noise never
//! pushes out what another one reported, and written back to the store when they change.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use serde::{Serialize, de::DeserializeOwned};

use crate::store::{Change, Table};

/// Workloads, present and past, whose records are kept.
pub(crate) const MAX_WORKLOADS: usize = 2048;

/// A record with an age: the oldest makes room.
pub(crate) trait Record: Clone + Serialize + DeserializeOwned {
    /// Unix seconds of the last thing it stands for.
    fn last_seen(&self) -> u64;
}

/// Records of one kind.
#[derive(Debug)]
pub(crate) struct Kept<V> {
    table: Table,
    cap: usize,
    of: BTreeMap<String, BTreeMap<String, V>>,
    dirty: BTreeSet<(String, String)>,
}

impl<V: Record> Kept<V> {
    /// Keeps at most `cap` records a workload, in `table`.
    pub(crate) fn new(table: Table, cap: usize) -> Self {
        Self { table, cap, of: BTreeMap::new(), dirty: BTreeSet::new() }
    }

    /// Enters a record, or lets `merge` add it to the one of the same key.
    pub(crate) fn enter(
        &mut self,
        uid: &str,
        key: String,
        fresh: V,
        merge: impl FnOnce(&mut V, V),
    ) {
        self.make_room_for(uid);
        let records = self.of.entry(uid.to_owned()).or_default();
        if let Some(known) = records.get_mut(&key) {
            merge(known, fresh);
        } else {
            if let Some(old) = oldest(records).filter(|_| records.len() >= self.cap) {
                records.remove(&old);
                self.dirty.insert((uid.to_owned(), old));
            }
            records.insert(key.clone(), fresh);
        }
        self.dirty.insert((uid.to_owned(), key));
    }

    /// One workload's record of that key.
    pub(crate) fn get(&self, uid: &str, key: &str) -> Option<&V> {
        self.of.get(uid)?.get(key)
    }

    /// The same, taken as changed.
    pub(crate) fn change(&mut self, uid: &str, key: &str) -> Option<&mut V> {
        let record = self.of.get_mut(uid)?.get_mut(key)?;
        self.dirty.insert((uid.to_owned(), key.to_owned()));
        Some(record)
    }

    /// One workload's records whose key begins so.
    pub(crate) fn with_prefix(&self, uid: &str, prefix: &str) -> impl Iterator<Item = &V> {
        let records = self.of.get(uid).into_iter();
        records.flat_map(move |records| {
            records
                .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
                .take_while(move |(key, _)| key.starts_with(prefix))
                .map(|(_, record)| record)
        })
    }

    /// All records with their workload's uid and their key.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str, &V)> {
        self.of.iter().flat_map(|(uid, records)| {
            records
                .iter()
                .map(move |(key, record)| (uid.as_str(), key.as_str(), record))
        })
    }

    /// Takes back a stored record; `false` if it makes no sense.
    pub(crate) fn restore(&mut self, key: &[u8], value: &[u8]) -> bool {
        let Some((uid, key)) = std::str::from_utf8(key)
            .ok()
            .and_then(|key| key.split_once('\0'))
        else {
            return false;
        };
        let Ok(record) = serde_json::from_slice(value) else { return false };
        self.of
            .entry(uid.to_owned())
            .or_default()
            .insert(key.to_owned(), record);
        true
    }

    /// What changed since the last call.
    pub(crate) fn take_changes(&mut self) -> Vec<Change> {
        let dirty = std::mem::take(&mut self.dirty);
        let row = |(uid, key): (String, String)| {
            let record = self.of.get(&uid).and_then(|records| records.get(&key));
            let value = record.and_then(|record| serde_json::to_vec(record).ok());
            Change { table: self.table, key: format!("{uid}\0{key}").into_bytes(), value }
        };
        dirty.into_iter().map(row).collect()
    }

    /// Drops the workload that was quiet longest, if another one needs its place.
    fn make_room_for(&mut self, uid: &str) {
        if self.of.len() < MAX_WORKLOADS || self.of.contains_key(uid) {
            return;
        }
        let newest = |records: &BTreeMap<String, V>| records.values().map(V::last_seen).max();
        let quietest = self.of.iter().min_by_key(|(_, records)| newest(records));
        let Some(quietest) = quietest.map(|(uid, _)| uid.clone()) else { return };
        let gone = self.of.remove(&quietest).unwrap_or_default();
        self.dirty
            .extend(gone.into_keys().map(|key| (quietest.clone(), key)));
    }
}

fn oldest<V: Record>(records: &BTreeMap<String, V>) -> Option<String> {
    records
        .iter()
        .min_by_key(|(_, record)| record.last_seen())
        .map(|(key, _)| key.clone())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
    struct Seen(u64);

    impl Record for Seen {
        fn last_seen(&self) -> u64 {
            self.0
        }
    }

    fn kept() -> Kept<Seen> {
        Kept::new(Table::Threats, 2)
    }

    fn newest_first(kept: &Kept<Seen>) -> Vec<Seen> {
        let mut all: Vec<_> = kept.iter().map(|(.., seen)| seen.clone()).collect();
        all.sort_by_key(|seen| std::cmp::Reverse(seen.0));
        all
    }

    fn enter(kept: &mut Kept<Seen>, uid: &str, key: &str, at: u64) {
        kept.enter(uid, key.into(), Seen(at), |known, fresh| known.0 = known.0.max(fresh.0));
    }

    #[test]
    fn a_workload_at_its_cap_loses_its_own_oldest_record() {
        let mut kept = kept();
        enter(&mut kept, "quiet", "a", 1);
        enter(&mut kept, "noisy", "b", 5);
        enter(&mut kept, "noisy", "c", 4);
        enter(&mut kept, "noisy", "d", 6);
        assert_eq!(newest_first(&kept), [Seen(6), Seen(5), Seen(1)]);
    }

    #[test]
    fn changes_rebuild_the_same_records() {
        let mut kept = kept();
        for (key, at) in [("a", 1), ("b", 2), ("c", 3), ("c", 9)] {
            enter(&mut kept, "pod", key, at);
        }
        let mut other = self::kept();
        for change in kept.take_changes() {
            if let Some(value) = change.value {
                assert!(other.restore(&change.key, &value));
            }
        }
        assert_eq!(newest_first(&other), newest_first(&kept));
        assert!(kept.take_changes().is_empty());
        assert!(!other.restore(b"no separator", b"1"));
        assert!(!other.restore(b"pod\0key", b"{"));
    }

    #[test]
    fn the_number_of_workloads_is_bounded_too() {
        let mut kept = kept();
        for number in 0..=MAX_WORKLOADS as u64 {
            enter(&mut kept, &format!("pod{number}"), "k", number + 1);
        }
        assert_eq!(newest_first(&kept).len(), MAX_WORKLOADS);
        assert!(!kept.of.contains_key("pod0"));
        let removed = kept
            .take_changes()
            .into_iter()
            .filter(|change| change.value.is_none());
        assert_eq!(removed.count(), 1);
    }
}
