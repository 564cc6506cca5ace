//! The flows that are open: found by key, bounded, each with a time to go.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    hash::{BuildHasherDefault, Hasher},
    time::Duration,
};

use outrider_model::FlowId;

use crate::{
    FlowRecord,
    flow::{Flow, Key},
};

/// Timers beyond four a flow before those that mean nothing any more are thrown out.
const SPARE_TIMERS: usize = 1_024;

/// All flows that are open.
#[derive(Debug)]
pub(crate) struct Table {
    flows: HashMap<FlowId, Flow, BuildHasherDefault<Serial>>,
    index: HashMap<Key, FlowId>,
    /// Each flow is in here at least once, not later than its time to go. Entries that are no longer
    /// its earliest are passed over.
    timers: BinaryHeap<Reverse<(Duration, FlowId)>>,
    max: usize,
}

impl Table {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            flows: HashMap::default(),
            index: HashMap::new(),
            timers: BinaryHeap::new(),
            max: max.max(1),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.flows.len()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.flows.len() >= self.max
    }

    pub(crate) fn find(&self, key: &Key) -> Option<FlowId> {
        self.index.get(key).copied()
    }

    pub(crate) fn get(&mut self, id: FlowId) -> Option<&mut Flow> {
        self.flows.get_mut(&id)
    }

    pub(crate) fn peek(&self, id: FlowId) -> Option<&Flow> {
        self.flows.get(&id)
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = &FlowRecord> {
        self.flows.values().map(|flow| &flow.record)
    }

    /// Adds a flow; make room first.
    pub(crate) fn add(&mut self, id: FlowId, flow: Flow) {
        self.index.insert(flow.key, id);
        self.flows.insert(id, flow);
    }

    pub(crate) fn remove(&mut self, id: FlowId) -> Option<Flow> {
        let flow = self.flows.remove(&id)?;
        if self.index.get(&flow.key) == Some(&id) {
            self.index.remove(&flow.key);
        }
        Some(flow)
    }

    /// Sets when a flow goes unless something of it is seen before.
    pub(crate) fn keep(&mut self, id: FlowId, until: Duration) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        flow.deadline = until;
        if until < flow.scheduled {
            flow.scheduled = until;
            self.timers.push(Reverse((until, id)));
            self.tidy();
        }
    }

    /// Timers of flows that are gone must not pile up until their time.
    fn tidy(&mut self) {
        if self.timers.len()
            > self
                .flows
                .len()
                .saturating_mul(4)
                .saturating_add(SPARE_TIMERS)
        {
            self.timers.retain(|Reverse((at, id))| {
                let flow = self.flows.get(id);
                flow.is_some_and(|flow| flow.scheduled == *at)
            });
        }
    }

    /// Takes out a flow whose time has come.
    pub(crate) fn expired(&mut self, now: Duration) -> Option<Flow> {
        while let Some(Reverse((at, _))) = self.timers.peek()
            && *at <= now
        {
            if let Some(flow) = self.next_to_go() {
                return Some(flow);
            }
        }
        None
    }

    /// Takes out the flow that would go first.
    pub(crate) fn evict(&mut self) -> Option<Flow> {
        while !self.timers.is_empty() {
            if let Some(flow) = self.next_to_go() {
                return Some(flow);
            }
        }
        None
    }

    /// Looks at the earliest timer: takes its flow out, or corrects its time.
    fn next_to_go(&mut self) -> Option<Flow> {
        let Reverse((at, id)) = self.timers.pop()?;
        let flow = self.flows.get_mut(&id)?;
        if flow.scheduled != at {
            return None;
        }
        if flow.deadline > at {
            flow.scheduled = flow.deadline;
            self.timers.push(Reverse((flow.deadline, id)));
            return None;
        }
        self.remove(id)
    }

    /// Takes out all flows, in the order in which they began.
    pub(crate) fn take_all(&mut self) -> Vec<Flow> {
        self.index.clear();
        self.timers.clear();
        let mut flows: Vec<_> = self.flows.drain().map(|(_, flow)| flow).collect();
        flows.sort_unstable_by_key(|flow| flow.record.flow);
        flows
    }
}

/// Hashes numbers that are given out in turn, by nobody but us. Keys, which peers choose, have the
/// standard hasher with its secret.
#[derive(Debug, Default)]
pub(crate) struct Serial(u64);

impl Hasher for Serial {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64((*byte).into());
        }
    }

    fn write_u64(&mut self, number: u64) {
        // 2^64 by the golden ratio: neighbours differ in the high bits too, which the map looks at first.
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use outrider_model::IpProto;

    use super::*;
    use crate::Ends;

    #[test]
    fn timers_of_flows_that_are_gone_do_not_pile_up() {
        let mut table = Table::new(10);
        let client = SocketAddr::from(([10, 0, 0, 1], 1));
        let ends = Ends { client, server: client, proto: IpProto::UDP };
        for number in 0..100_000 {
            let id = FlowId(number);
            let key = Key::of(ends.proto, client, client, 0);
            table.add(id, Flow::new(id, key, ends, client, Duration::ZERO));
            table.keep(id, Duration::from_secs(1_200));
            table.keep(id, Duration::from_secs(15));
            table.remove(id);
            assert!(table.timers.len() <= SPARE_TIMERS + 4);
        }
    }
}
