//! Sorting the boxes.

use super::{Dimension, Index, Item, Kind, NONE, Node, Slot};

/// A list this short is searched by looking at each item.
const SHORT: usize = 4;

/// Places that all trees together may use for each item; past it, lists stay unsorted, which is
/// slower and still right. Rules as people and learning make them use fewer than four.
const PLACES_PER_ITEM: usize = 48;

impl Index {
    /// Takes the items in order of outcome.
    pub(crate) fn new(items: Vec<Item>) -> Self {
        debug_assert!(items.is_sorted_by_key(|item| item.outcome), "items are in order");
        let all: Vec<u32> = (0u32..).take(items.len()).collect();
        let places = items.len() * PLACES_PER_ITEM;
        let mut builder = Builder { index: Self { items, ..Self::default() }, places };
        if !all.is_empty() {
            builder.add(&all, 0);
        }
        builder.index
    }
}

struct Builder {
    index: Index,
    places: usize,
}

impl Builder {
    /// Adds what holds these items from that dimension on; the root is added last.
    fn add(&mut self, list: &[u32], depth: usize) -> u32 {
        if list.len() <= SHORT {
            return self.add_list(list);
        }
        match Dimension::ORDER.get(depth) {
            None => self.add_list(&self.reachable(list)),
            Some(dimension) if self.is_one_range(list, *dimension) => self.add(list, depth + 1),
            Some(dimension) => self.add_tree(list, *dimension, depth),
        }
    }

    /// Whether every item reaches over the whole dimension, so that a tree would tell none apart.
    fn is_one_range(&self, list: &[u32], dimension: Dimension) -> bool {
        let whole = match dimension {
            Dimension::Port => (0, u128::from(u16::MAX)),
            Dimension::App => (0, u128::from(u32::MAX)),
            Dimension::Peer | Dimension::Local => (0, u128::MAX),
            Dimension::Proto => return false,
        };
        list.iter()
            .all(|item| dimension.range(&self.index.items[*item as usize]) == whole)
    }

    /// Of items that hold the same points, those that can ever be the first: up to the first that
    /// is never turned down, and one that may be.
    fn reachable(&self, list: &[u32]) -> Vec<u32> {
        let is_conditional = |item: &&u32| self.index.items[**item as usize].conditional;
        let first = list.iter().take(1);
        let fallback = list.iter().skip(1).find(|item| !is_conditional(item));
        match first.clone().any(|item| is_conditional(&item)) {
            true => first.chain(fallback).copied().collect(),
            false => first.copied().collect(),
        }
    }

    fn add_list(&mut self, list: &[u32]) -> u32 {
        let start = count(self.index.lists.len());
        self.index.lists.extend_from_slice(list);
        self.add_node(list, Kind::List { start, len: count(list.len()) })
    }

    fn add_tree(&mut self, list: &[u32], dimension: Dimension, depth: usize) -> u32 {
        let cuts = self.cuts(list, dimension);
        let mut places = self.places(list, dimension, &cuts);
        let needed = places.len() + cuts.len();
        if needed > self.places {
            return self.add_list(list);
        }
        self.places -= needed;
        places.sort_unstable();

        let leaves = cuts.len();
        let slots = self.index.slots.len();
        self.index
            .slots
            .resize(slots + 2 * leaves, Slot { node: NONE, above: NONE });
        let start = count(self.index.cuts.len());
        self.index.cuts.extend_from_slice(&cuts);
        for group in places.chunk_by(|a, b| a.0 == b.0) {
            let members: Vec<u32> = group.iter().map(|(_, item)| *item).collect();
            let node = self.add(&members, depth + 1);
            self.index.slots[slots + group[0].0 as usize].node = node;
        }
        link(&mut self.index.slots[slots..][..2 * leaves]);
        let (leaves, slots) = (count(leaves), count(slots));
        self.add_node(list, Kind::Tree { dimension, leaves, cuts: start, slots })
    }

    /// Where the elementary ranges of these items begin.
    fn cuts(&self, list: &[u32], dimension: Dimension) -> Vec<u128> {
        let mut cuts: Vec<u128> = list
            .iter()
            .map(|item| dimension.range(&self.index.items[*item as usize]))
            .flat_map(|(low, high)| [Some(low), high.checked_add(1)])
            .flatten()
            .collect();
        cuts.sort_unstable();
        cuts.dedup();
        cuts
    }

    /// Which slots of the tree each item goes to: the fewest that make up its range.
    fn places(&self, list: &[u32], dimension: Dimension, cuts: &[u128]) -> Vec<(u32, u32)> {
        let leaves = cuts.len();
        let mut places = Vec::with_capacity(list.len());
        for item in list {
            let (low, high) = dimension.range(&self.index.items[*item as usize]);
            let mut from = leaves + cuts.partition_point(|cut| *cut < low);
            let mut to = leaves + cuts.partition_point(|cut| *cut <= high);
            while from < to {
                if from % 2 == 1 {
                    places.push((count(from), *item));
                    from += 1;
                }
                if to % 2 == 1 {
                    to -= 1;
                    places.push((count(to), *item));
                }
                from /= 2;
                to /= 2;
            }
        }
        places
    }

    fn add_node(&mut self, list: &[u32], kind: Kind) -> u32 {
        let first = list
            .first()
            .map_or(NONE, |item| self.index.items[*item as usize].outcome);
        self.index.nodes.push(Node { first, kind });
        count(self.index.nodes.len() - 1)
    }
}

/// Tells each slot which one above it is the nearest where something hangs.
fn link(slots: &mut [Slot]) {
    for at in 2..slots.len() {
        let parent = slots[at / 2];
        slots[at].above = if parent.node == NONE { parent.above } else { count(at / 2) };
    }
}

/// Sizes are bounded by the caps on rules and applications, far below `u32::MAX`.
fn count(size: usize) -> u32 {
    u32::try_from(size).expect("a policy's caps keep every size within 32 bits")
}
