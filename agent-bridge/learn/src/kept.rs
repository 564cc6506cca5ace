//! Bounded records: the oldest make room, and what changed is known.

use std::collections::{BTreeMap, btree_map};

/// A record with an age.
pub(crate) trait Aged {
    /// Unix seconds of the last thing it stands for.
    fn last_seen(&self) -> u64;
}

/// The oldest records go in lots of this part of the bound, so that making room is cheap.
const LOT: usize = 16;

/// Records of one kind, by key.
#[derive(Clone, Debug)]
pub(crate) struct Kept<K, V> {
    cap: usize,
    slots: BTreeMap<K, Slot<V>>,
    /// Stored records that are gone.
    removed: Vec<K>,
}

#[derive(Clone, Debug)]
struct Slot<V> {
    value: V,
    /// It changed since it was last handed out.
    dirty: bool,
    /// It was handed out.
    stored: bool,
}

impl<K: Clone + Ord, V: Aged> Kept<K, V> {
    pub(crate) fn new(cap: usize) -> Self {
        Self { cap, slots: BTreeMap::new(), removed: Vec::new() }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.slots.iter().map(|(key, slot)| (key, &slot.value))
    }

    pub(crate) fn range(&self, keys: std::ops::RangeInclusive<K>) -> impl Iterator<Item = &V> {
        self.slots.range(keys).map(|(_, slot)| &slot.value)
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.slots.get(key).map(|slot| &slot.value)
    }

    /// The record, taken as changed.
    pub(crate) fn change(&mut self, key: &K) -> Option<&mut V> {
        let slot = self.slots.get_mut(key)?;
        slot.dirty = true;
        Some(&mut slot.value)
    }

    /// The record, made if it is new; the ones that went to make room are handed to `gone`.
    pub(crate) fn change_or_make(
        &mut self,
        key: &K,
        make: impl FnOnce() -> V,
        gone: impl FnMut(V),
    ) -> &mut V {
        if self.slots.len() >= self.cap && !self.slots.contains_key(key) {
            self.make_room(gone);
        }
        let slot = match self.slots.entry(key.clone()) {
            btree_map::Entry::Occupied(entry) => entry.into_mut(),
            btree_map::Entry::Vacant(entry) => {
                entry.insert(Slot { value: make(), dirty: true, stored: false })
            }
        };
        slot.dirty = true;
        &mut slot.value
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let slot = self.slots.remove(key)?;
        if slot.stored {
            self.removed.push(key.clone());
        }
        Some(slot.value)
    }

    /// Takes back a record that was handed out earlier; `false` if there is no room.
    pub(crate) fn restore(&mut self, key: K, value: V) -> bool {
        let has_room = self.slots.len() < self.cap;
        if has_room {
            self.slots
                .insert(key, Slot { value, dirty: false, stored: true });
        }
        has_room
    }

    /// Hands out what changed since the last call; `None` for what is gone.
    pub(crate) fn take_changes(&mut self, mut change: impl FnMut(&K, Option<&V>)) {
        for key in std::mem::take(&mut self.removed) {
            if !self.slots.contains_key(&key) {
                change(&key, None);
            }
        }
        for (key, slot) in self.slots.iter_mut().filter(|(_, slot)| slot.dirty) {
            slot.dirty = false;
            slot.stored = true;
            change(key, Some(&slot.value));
        }
    }

    fn make_room(&mut self, mut gone: impl FnMut(V)) {
        let lot = (self.cap / LOT).max(1);
        let mut ages: Vec<(u64, &K)> = self
            .slots
            .iter()
            .map(|(key, slot)| (slot.value.last_seen(), key))
            .collect();
        if lot < ages.len() {
            ages.select_nth_unstable(lot);
        }
        let oldest: Vec<K> = ages
            .into_iter()
            .take(lot)
            .map(|(_, key)| key.clone())
            .collect();
        for key in oldest {
            self.remove(&key).into_iter().for_each(&mut gone);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Aged for u64 {
        fn last_seen(&self) -> u64 {
            *self
        }
    }

    fn changes(kept: &mut Kept<u32, u64>) -> Vec<(u32, Option<u64>)> {
        let mut all = Vec::new();
        kept.take_changes(|key, value| all.push((*key, value.copied())));
        all
    }

    #[test]
    fn the_oldest_make_room() {
        let (mut kept, mut gone) = (Kept::new(32), Vec::new());
        for at in 0..33u32 {
            kept.change_or_make(&at, || 100 - u64::from(at % 32), |value| gone.push(value));
        }
        gone.sort_unstable();
        assert_eq!(gone, [69, 70]);
        assert_eq!(kept.len(), 31);
    }

    #[test]
    fn hands_out_each_change_once() {
        let mut kept = Kept::new(4);
        *kept.change_or_make(&1, || 5, drop) += 1;
        kept.change_or_make(&2, || 5, drop);
        assert_eq!(changes(&mut kept), [(1, Some(6)), (2, Some(5))]);
        assert_eq!(changes(&mut kept), []);
        kept.remove(&1);
        kept.change_or_make(&3, || 5, drop);
        kept.remove(&3);
        assert_eq!(changes(&mut kept), [(1, None)], "what was never handed out is not taken back");
    }

    #[test]
    fn what_was_restored_is_not_handed_out_again() {
        let mut kept = Kept::new(1);
        assert!(kept.restore(1, 5) && !kept.restore(2, 5));
        assert_eq!(changes(&mut kept), []);
        kept.remove(&1);
        assert_eq!(changes(&mut kept), [(1, None)]);
    }
}
