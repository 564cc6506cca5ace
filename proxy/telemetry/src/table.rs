//! The live flows, sharded by number so that tasks on different cores rarely meet.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicU64, atomic::Ordering::Relaxed},
};

use outrider_model::{Decision, FlowId, FlowKey};
use parking_lot::Mutex;

use crate::{FlowState, load};

/// Shards; a power of two.
const SHARDS: usize = 16;

/// All live flows. Bounded by the process's descriptors: each flow holds two.
#[derive(Debug, Default)]
pub struct FlowTable {
    opened: AtomicU64,
    shards: [Mutex<HashMap<FlowId, Arc<FlowState>>>; SHARDS],
}

impl FlowTable {
    fn shard(&self, id: FlowId) -> &Mutex<HashMap<FlowId, Arc<FlowState>>> {
        let index = usize::try_from(id.0 % SHARDS as u64).unwrap_or_default();
        &self.shards[index]
    }

    pub(crate) fn insert(&self, key: FlowKey, decision: Decision) -> Arc<FlowState> {
        let id = FlowId(self.opened.fetch_add(1, Relaxed) + 1);
        let state = Arc::new(FlowState::new(id, key, decision));
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
