//! Bounded records: the oldest of those who have most make room, and what changed is known.

use std::collections::{BTreeMap, HashMap, btree_map};

/// A record with an age.
pub(crate) trait Aged {
    /// Unix seconds of the last thing it stands for.
    fn last_seen(&self) -> u64;

    /// In whose share it is: the workload whose proxy reported it first.
    fn reporter(&self) -> &str;
}

/// The oldest records go in lots of this part of the bound, so that making room is cheap.
const LOT: usize = 16;

/// Keys on the list of changes that are not worth a look.
const SLACK: usize = 1_024;

/// Records of one kind, by key.
#[derive(Clone, Debug)]
pub(crate) struct Kept<K, V> {
    cap: usize,
    slots: BTreeMap<K, Slot<V>>,
    /// Keys of records that changed since they were last handed out, and of some that are gone.
    dirty: Vec<K>,
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
        Self { cap, slots: BTreeMap::new(), dirty: Vec::new(), removed: Vec::new() }
    }

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
        self.tidy();
        let slot = self.slots.get_mut(key)?;
        if !slot.dirty {
            slot.dirty = true;
            self.dirty.push(key.clone());
        }
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
        self.tidy();
        let slot = match self.slots.entry(key.clone()) {
            btree_map::Entry::Occupied(entry) => entry.into_mut(),
            btree_map::Entry::Vacant(entry) => {
                entry.insert(Slot { value: make(), dirty: false, stored: false })
            }
        };
        if !slot.dirty {
            slot.dirty = true;
            self.dirty.push(key.clone());
        }
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
        for key in std::mem::take(&mut self.dirty) {
            // One that went and came again is listed twice.
            let Some(slot) = self.slots.get_mut(&key).filter(|slot| slot.dirty) else { continue };
            slot.dirty = false;
            slot.stored = true;
            change(&key, Some(&slot.value));
        }
    }

    /// Strikes keys off the list that are gone or listed twice, before it outgrows the records: while
    /// nothing can be stored it is not taken away.
    fn tidy(&mut self) {
        let Self { dirty, slots, .. } = self;
        if dirty.len() > SLACK.saturating_add(slots.len().saturating_mul(2)) {
            dirty.retain(|key| slots.get(key).is_some_and(|slot| slot.dirty));
            dirty.sort_unstable();
            dirty.dedup();
        }
    }

    /// Nobody loses a record as long as another reporter has more of them.
    fn make_room(&mut self, mut gone: impl FnMut(V)) {
        let lot = (self.cap / LOT).max(1);
        let mut shares = HashMap::<&str, Vec<(u64, &K)>>::new();
        for (key, slot) in &self.slots {
            let share = shares.entry(slot.value.reporter()).or_default();
            share.push((slot.value.last_seen(), key));
        }
        let level = level(shares.values().map(Vec::len).collect(), lot);
        let mut oldest = Vec::new();
        for share in shares.values_mut() {
            let surplus = share.len().saturating_sub(level);
            if surplus == 0 {
                continue;
            }
            if surplus < share.len() {
                share.select_nth_unstable(surplus);
            }
            oldest.extend(share.iter().take(surplus).map(|(_, key)| (*key).clone()));
        }
        for key in oldest {
            self.remove(&key).into_iter().for_each(&mut gone);
        }
        let Self { dirty, slots, .. } = self;
        dirty.retain(|key| slots.contains_key(key));
    }
}

/// The number to which the largest shares are cut for at least `lot` to become free.
fn level(mut shares: Vec<usize>, lot: usize) -> usize {
    shares.sort_unstable_by_key(|share| std::cmp::Reverse(*share));
    let mut sum = 0_usize;
    for (count, share) in (1_usize..).zip(&shares) {
        sum = sum.saturating_add(*share);
        let next = shares.get(count).copied().unwrap_or_default();
        // Cut to the next share, the largest so many give that much.
        if sum.saturating_sub(next.saturating_mul(count)) >= lot {
            return sum.saturating_sub(lot) / count;
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Aged for u64 {
        fn last_seen(&self) -> u64 {
            *self
        }

        fn reporter(&self) -> &str {
            if *self < 1_000 { "one" } else { "other" }
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
    fn who_has_most_makes_room() {
        assert_eq!(level(vec![5, 100, 5, 5], 8), 92);
        assert_eq!(level(vec![40, 50, 5], 20), 35);
        assert_eq!(level(vec![10, 10, 10], 3), 9);
        assert_eq!(level(vec![2, 1], 9), 0);
        let (mut kept, mut gone) = (Kept::new(64), Vec::new());
        for at in 0..8u32 {
            kept.change_or_make(&at, || u64::from(at), drop);
        }
        for at in 8..1_000u32 {
            kept.change_or_make(&at, || 1_000 + u64::from(at), |value| gone.push(value));
        }
        assert!(gone.iter().all(|value| *value >= 1_000), "{gone:?}");
        assert_eq!(kept.iter().filter(|(_, value)| **value < 1_000).count(), 8);
        assert!(kept.len() <= 64 && gone.len() + kept.len() == 1_000);
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
        for _ in 0..2 {
            kept.change_or_make(&4, || 7, drop);
            kept.remove(&4);
        }
        kept.change_or_make(&4, || 8, drop);
        assert_eq!(changes(&mut kept), [(4, Some(8))]);
    }

    #[test]
    fn what_comes_and_goes_while_nothing_is_stored_takes_no_room() {
        let mut kept = Kept::new(16);
        for at in 0..10_000u32 {
            let key = if at % 2 == 0 { 7 } else { at };
            kept.change_or_make(&key, || 5, drop);
            kept.remove(&key);
        }
        kept.change_or_make(&7, || 5, drop);
        assert!(kept.dirty.len() <= SLACK + 2 && kept.removed.is_empty(), "{}", kept.dirty.len());
        assert_eq!(changes(&mut kept), [(7, Some(5))]);
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
