//! The live flows, sharded by number so that tasks on different cores rarely meet.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicU64, atomic::Ordering::Relaxed},
};

use outrider_model::{Decision, FlowId, FlowKey, IpProto};
use parking_lot::Mutex;

use crate::{FlowState, Grip, load};

/// Shards; a power of two.
const SHARDS: usize = 16;

/// Flows by protocol.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ByProto {
    /// TCP.
    pub tcp: u64,
    /// UDP.
    pub udp: u64,
    /// ICMP of both families.
    pub icmp: u64,
    /// All others.
    pub other: u64,
}

impl ByProto {
    /// All of them.
    #[must_use]
    pub fn total(self) -> u64 {
        [self.tcp, self.udp, self.icmp, self.other]
            .into_iter()
            .fold(0, u64::saturating_add)
    }

    fn from_places([tcp, udp, icmp, other]: [u64; 4]) -> Self {
        Self { tcp, udp, icmp, other }
    }
}

/// The place of a protocol in [`ByProto::from_places`].
fn place(proto: IpProto) -> usize {
    match proto {
        IpProto::TCP => 0,
        IpProto::UDP => 1,
        IpProto::ICMP | IpProto::ICMPV6 => 2,
        _ => 3,
    }
}

/// All live flows. Bounded by the process's descriptors, of which each relayed flow holds two, and by the cap of whoever
/// sees packets, who ends a flow for each that he opens beyond it.
#[derive(Debug, Default)]
pub struct FlowTable {
    opened: AtomicU64,
    by_proto: [AtomicU64; 4],
    shards: [Mutex<HashMap<FlowId, Arc<FlowState>>>; SHARDS],
}

impl FlowTable {
    fn shard(&self, id: FlowId) -> &Mutex<HashMap<FlowId, Arc<FlowState>>> {
        let index = usize::try_from(id.0 % SHARDS as u64).unwrap_or_default();
        &self.shards[index]
    }

    pub(crate) fn insert(&self, key: FlowKey, grip: Grip, decision: Decision) -> Arc<FlowState> {
        let id = FlowId(self.opened.fetch_add(1, Relaxed) + 1);
        self.by_proto[place(key.proto)].fetch_add(1, Relaxed);
        let state = Arc::new(FlowState::new(id, key, grip, decision));
        self.shard(id).lock().insert(id, Arc::clone(&state));
        state
    }

    pub(crate) fn remove(&self, id: FlowId) {
        self.shard(id).lock().remove(&id);
    }

    /// Flows entered since the start.
    #[must_use]
    pub fn opened(&self) -> u64 {
        load(&self.opened)
    }

    /// The same by protocol.
    #[must_use]
    pub fn opened_by_proto(&self) -> ByProto {
        ByProto::from_places([0, 1, 2, 3].map(|place| load(&self.by_proto[place])))
    }

    /// Flows that live, by protocol.
    #[must_use]
    pub fn by_proto(&self) -> ByProto {
        let mut live = [0; 4];
        for shard in &self.shards {
            for flow in shard.lock().values() {
                live[place(flow.key().proto)] += 1;
            }
        }
        ByProto::from_places(live)
    }

    /// Flows that live.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Whether none lives.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Finds a flow by its number.
    #[must_use]
    pub fn find(&self, id: FlowId) -> Option<Arc<FlowState>> {
        self.shard(id).lock().get(&id).cloned()
    }

    /// Visits every flow that lives when its shard is reached; a shard's lock is not held during the visits.
    pub fn for_each(&self, mut visit: impl FnMut(&FlowState)) {
        for shard in &self.shards {
            let flows: Vec<_> = shard.lock().values().cloned().collect();
            flows.iter().for_each(|flow| visit(flow));
        }
    }
}
