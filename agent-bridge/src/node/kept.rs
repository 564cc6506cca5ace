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

    /// Bytes that it takes, about.
    fn size(&self) -> usize;
}

/// Records of one kind.
#[derive(Debug)]
pub(crate) struct Kept<V> {
    table: Table,
    bounds: Bounds,
    of: BTreeMap<String, Share<V>>,
    /// Bytes of all records.
    bytes: usize,
    dirty: BTreeSet<(String, String)>,
}

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Records of one workload; its own oldest makes room.
    pub(crate) records: usize,
    /// Bytes of all records; the oldest of the workload that has most make room.
    pub(crate) bytes: usize,
}

/// The records of one workload.
#[derive(Debug)]
struct Share<V> {
    records: BTreeMap<String, V>,
    bytes: usize,
}

impl<V> Default for Share<V> {
    fn default() -> Self {
        Self { records: BTreeMap::new(), bytes: 0 }
    }
}

impl<V: Record> Share<V> {
    /// Enters a record; says by how many bytes that changes it.
    fn enter(&mut self, key: &str, fresh: V, merge: impl FnOnce(&mut V, V)) -> (usize, usize) {
        let before = self.bytes;
        let (less, more) = match self.records.get_mut(key) {
            Some(known) => {
                let less = known.size();
                merge(known, fresh);
                (less, known.size())
            }
            None => {
                let more = fresh.size().saturating_add(key.len());
                self.records.insert(key.to_owned(), fresh);
                (0, more)
            }
        };
        self.bytes = before.saturating_sub(less).saturating_add(more);
        (before, self.bytes)
    }

    /// Takes out the oldest record; says its key and its bytes.
    fn pop_oldest(&mut self) -> Option<(String, usize)> {
        let oldest = self
            .records
            .iter()
            .min_by_key(|(_, record)| record.last_seen());
        let key = oldest.map(|(key, _)| key.clone())?;
        let size = self.records.remove(&key)?.size().saturating_add(key.len());
        self.bytes = self.bytes.saturating_sub(size);
        Some((key, size))
    }
}

impl<V: Record> Kept<V> {
    /// Keeps so much of them in `table`.
    pub(crate) fn new(table: Table, bounds: Bounds) -> Self {
        Self { table, bounds, of: BTreeMap::new(), bytes: 0, dirty: BTreeSet::new() }
    }

    /// Enters a record, or lets `merge` add it to the one of the same key. Says how many made room.
    pub(crate) fn enter(
        &mut self,
        uid: &str,
        key: String,
        fresh: V,
        merge: impl FnOnce(&mut V, V),
    ) -> u64 {
        let mut gone = self.make_room_for(uid);
        let share = self.of.entry(uid.to_owned()).or_default();
        let is_full = share.records.len() >= self.bounds.records;
        if is_full && !share.records.contains_key(&key) {
            gone += self.drop_oldest(uid);
        }
        let share = self.of.entry(uid.to_owned()).or_default();
        let (before, after) = share.enter(&key, fresh, merge);
        self.bytes = self.bytes.saturating_sub(before).saturating_add(after);
        self.dirty.insert((uid.to_owned(), key));
        while self.bytes > self.bounds.bytes {
            let largest = self.of.iter().max_by_key(|(_, share)| share.bytes);
            let Some(largest) = largest.map(|(uid, _)| uid.clone()) else { break };
            gone += self.drop_oldest(&largest);
        }
        gone
    }

    fn drop_oldest(&mut self, uid: &str) -> u64 {
        let Some((key, size)) = self.of.get_mut(uid).and_then(Share::pop_oldest) else { return 0 };
        self.bytes = self.bytes.saturating_sub(size);
        self.dirty.insert((uid.to_owned(), key));
        1
    }

    /// One workload's record of that key.
    pub(crate) fn get(&self, uid: &str, key: &str) -> Option<&V> {
        self.of.get(uid)?.records.get(key)
    }

    /// The same, taken as changed; its size is to stay.
    pub(crate) fn change(&mut self, uid: &str, key: &str) -> Option<&mut V> {
        let record = self.of.get_mut(uid)?.records.get_mut(key)?;
        self.dirty.insert((uid.to_owned(), key.to_owned()));
        Some(record)
    }

    /// One workload's records whose key begins so.
    pub(crate) fn with_prefix(&self, uid: &str, prefix: &str) -> impl Iterator<Item = &V> {
        let records = self.of.get(uid).into_iter();
        records.flat_map(move |share| {
            share
                .records
                .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
                .take_while(move |(key, _)| key.starts_with(prefix))
                .map(|(_, record)| record)
        })
    }

    /// All records with their workload's uid and their key.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str, &V)> {
        self.of.iter().flat_map(|(uid, share)| {
            share
                .records
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
        let share = self.of.entry(uid.to_owned()).or_default();
        let (before, after) = share.enter(key, record, |known, fresh| *known = fresh);
        self.bytes = self.bytes.saturating_sub(before).saturating_add(after);
        true
    }

    /// What changed since the last call.
    pub(crate) fn take_changes(&mut self) -> Vec<Change> {
        let dirty = std::mem::take(&mut self.dirty);
        let row = |(uid, key): (String, String)| {
            let record = self.of.get(&uid).and_then(|share| share.records.get(&key));
            let value = record.and_then(|record| serde_json::to_vec(record).ok());
            Change { table: self.table, key: format!("{uid}\0{key}").into_bytes(), value }
        };
        dirty.into_iter().map(row).collect()
    }

    /// Drops the workload that was quiet longest, if another one needs its place; says how many records it had.
    fn make_room_for(&mut self, uid: &str) -> u64 {
        if self.of.len() < MAX_WORKLOADS || self.of.contains_key(uid) {
            return 0;
        }
        let newest = |share: &Share<V>| share.records.values().map(V::last_seen).max();
        let quietest = self.of.iter().min_by_key(|(_, share)| newest(share));
        let Some(quietest) = quietest.map(|(uid, _)| uid.clone()) else { return 0 };
        let gone = self.of.remove(&quietest).unwrap_or_default();
        self.bytes = self.bytes.saturating_sub(gone.bytes);
        let count = gone.records.len() as u64;
        let keys = gone.records.into_keys();
        self.dirty.extend(keys.map(|key| (quietest.clone(), key)));
        count
    }
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

        fn size(&self) -> usize {
            99
        }
    }

    fn kept() -> Kept<Seen> {
        Kept::new(Table::Threats, Bounds { records: 2, bytes: usize::MAX })
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
    fn all_have_a_bound_in_bytes_and_who_has_most_makes_room() {
        let bounds = Bounds { records: 256, bytes: 1_000 };
        let mut kept = Kept::new(Table::Threats, bounds);
        let mut enter = |uid: &str, key: u64, at: u64| {
            kept.enter(uid, key.to_string(), Seen(at), |known, fresh| *known = fresh)
        };
        assert_eq!(enter("quiet", 1, 1) + enter("quiet", 2, 2), 0);
        let gone: u64 = (0..100).map(|at| enter("noisy", at % 50, 1_000 + at)).sum();
        assert_eq!(gone, 93, "99 bytes each, and the key");
        assert!(kept.bytes <= 1_000, "{}", kept.bytes);
        let counted: usize = kept
            .iter()
            .map(|(_, key, seen)| key.len() + seen.size())
            .sum();
        assert_eq!(counted, kept.bytes);
        assert_eq!(kept.of["quiet"].records.len(), 2);
        assert_eq!(newest_first(&kept)[0], Seen(1_099));
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
