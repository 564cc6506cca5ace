//! First match among boxes in five dimensions.
//!
//! Each rule is a box: a range of peers, ports, applications, own addresses and protocols. One
//! dimension after the other, a segment tree sorts the boxes by the elementary ranges they cover
//! there; a query meets only the lists of boxes that hold its point in every dimension so far, and
//! skips those whose first box comes after the best match found.

mod build;

/// Where a flow lies, or how far a rule reaches.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Point {
    pub(crate) peer: u128,
    pub(crate) local: u128,
    pub(crate) port: u16,
    pub(crate) app: u32,
    pub(crate) proto: u16,
}

/// One rule's reach, both ends included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item {
    pub(crate) peer: (u128, u128),
    pub(crate) local: (u128, u128),
    pub(crate) port: (u16, u16),
    pub(crate) app: (u32, u32),
    pub(crate) proto: (u16, u16),
    /// Its place in the order of all rules.
    pub(crate) outcome: u32,
    /// It may be turned down although it holds the point.
    pub(crate) conditional: bool,
}

impl Item {
    fn holds(&self, point: &Point) -> bool {
        within(self.port, point.port)
            && within(self.proto, point.proto)
            && within(self.app, point.app)
            && within(self.peer, point.peer)
            && within(self.local, point.local)
    }
}

fn within<T: Copy + PartialOrd>((low, high): (T, T), value: T) -> bool {
    low <= value && value <= high
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Dimension {
    Peer,
    Port,
    App,
    Local,
    Proto,
}

impl Dimension {
    const ORDER: [Self; 5] = [Self::Peer, Self::Port, Self::App, Self::Local, Self::Proto];

    fn range(self, item: &Item) -> (u128, u128) {
        let wide = |(low, high): (u32, u32)| (u128::from(low), u128::from(high));
        match self {
            Self::Peer => item.peer,
            Self::Local => item.local,
            Self::App => wide(item.app),
            Self::Port => wide((item.port.0.into(), item.port.1.into())),
            Self::Proto => wide((item.proto.0.into(), item.proto.1.into())),
        }
    }

    fn coordinate(self, point: &Point) -> u128 {
        match self {
            Self::Peer => point.peer,
            Self::Local => point.local,
            Self::App => point.app.into(),
            Self::Port => point.port.into(),
            Self::Proto => point.proto.into(),
        }
    }
}

/// No node there.
const NONE: u32 = u32::MAX;

/// No match yet: later than every outcome.
pub(crate) const NO_MATCH: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Node {
    /// The earliest outcome below.
    first: u32,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Items in order, each to be checked.
    List { start: u32, len: u32 },
    /// A segment tree over `leaves` elementary ranges: its cuts, and two slots a leaf.
    Tree { dimension: Dimension, leaves: u32, cuts: u32, slots: u32 },
}

/// A place in a tree.
#[derive(Clone, Copy, Debug)]
struct Slot {
    /// What hangs there, or [`NONE`].
    node: u32,
    /// The nearest slot on the way to the root where something hangs, or [`NONE`].
    above: u32,
}

/// The boxes of one table, ready to be searched.
#[derive(Debug, Default)]
pub(crate) struct Index {
    items: Vec<Item>,
    nodes: Vec<Node>,
    cuts: Vec<u128>,
    slots: Vec<Slot>,
    lists: Vec<u32>,
}

impl Index {
    /// The earliest outcome before `best` whose box holds the point and which is accepted, else
    /// `best`.
    pub(crate) fn search(&self, point: &Point, best: u32, accept: &impl Fn(u32) -> bool) -> u32 {
        match self.nodes.last() {
            Some(root) => self.visit(*root, point, best, accept),
            None => best,
        }
    }

    fn visit(&self, node: Node, point: &Point, best: u32, accept: &impl Fn(u32) -> bool) -> u32 {
        match node.kind {
            Kind::List { start, len } => {
                let list = &self.lists[start as usize..][..len as usize];
                list.iter()
                    .map(|item| &self.items[*item as usize])
                    .take_while(|item| item.outcome < best)
                    .find(|item| item.holds(point) && accept(item.outcome))
                    .map_or(best, |item| item.outcome)
            }
            Kind::Tree { dimension, leaves, cuts, slots } => {
                let (leaves, slots) = (leaves as usize, slots as usize);
                let cuts = &self.cuts[cuts as usize..][..leaves];
                let coordinate = dimension.coordinate(point);
                let before = cuts.partition_point(|cut| *cut <= coordinate);
                let Some(leaf) = before.checked_sub(1) else { return best };
                self.climb(leaf + leaves, &self.slots[slots..][..2 * leaves], (point, best, accept))
            }
        }
    }

    /// Visits what hangs on the way from a leaf to the root.
    fn climb(
        &self,
        leaf: usize,
        slots: &[Slot],
        (point, mut best, accept): (&Point, u32, &impl Fn(u32) -> bool),
    ) -> u32 {
        let mut at = leaf;
        while let Some(slot) = slots.get(at) {
            if let Some(node) = self.nodes.get(slot.node as usize)
                && node.first < best
            {
                best = self.visit(*node, point, best, accept);
            }
            at = slot.above as usize;
        }
        best
    }
}

#[cfg(test)]
mod tests;
