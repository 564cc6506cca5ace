//! Which batches are in what is written. A leader that is killed between writing and acknowledging leaves batches that
//! bridges send again: what is written of a service names them, so that the next leader counts them once.
//!
//! A bridge has one batch under way at a time, and most are acknowledged at once; only those that wait for a rule to be
//! written can be in what is written, so there are seldom more than there are new rules.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::cluster::objects::MAX_COUNTED;

/// A batch of a node's: which start of its bridge, and which number.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Batch {
    pub(super) instance: Arc<str>,
    pub(super) number: u64,
}

/// The newest batch of each node, until it is acknowledged; `None` then.
#[derive(Debug, Default)]
pub(super) struct UnderWay(HashMap<Arc<str>, Option<Batch>>);

impl UnderWay {
    pub(super) fn begin(&mut self, node: &Arc<str>, batch: Batch) {
        self.0.insert(Arc::clone(node), Some(batch));
    }

    pub(super) fn acknowledged(&mut self, node: &str, number: u64) {
        if let Some(known) = self.0.get_mut(node)
            && known.as_ref().is_some_and(|known| known.number <= number)
        {
            *known = None;
        }
    }

    fn of(&self, node: &str) -> Option<&Batch> {
        self.0.get(node)?.as_ref()
    }

    /// Whether a batch may come again: it is under way, or the node has not been heard of since another leader had it.
    fn may_come(&self, node: &str, batch: &Batch) -> bool {
        self.0
            .get(node)
            .is_none_or(|known| known.as_ref() == Some(batch))
    }
}

/// Batches that the evidence of one service has.
#[derive(Debug, Default)]
pub(super) struct Counted {
    all: BTreeMap<Arc<str>, Batch>,
    /// Those that were counted before we led.
    before: BTreeMap<Arc<str>, Batch>,
}

impl Counted {
    pub(super) fn restored(all: BTreeMap<Arc<str>, Batch>) -> Self {
        Self { all: all.clone(), before: all }
    }

    /// Whether another leader has counted the batch that a node is telling.
    pub(super) fn had(&self, node: &str, under_way: &UnderWay) -> bool {
        let now = under_way.of(node);
        now.is_some() && self.before.get(node) == now
    }

    /// The batch that a node is telling is in the evidence.
    pub(super) fn note(&mut self, node: &Arc<str>, under_way: &UnderWay) {
        let Some(batch) = under_way.of(node) else { return };
        if self.all.get(node) == Some(batch) {
            return;
        }
        if self.all.len() >= MAX_COUNTED {
            self.forget(under_way);
        }
        if self.all.len() < MAX_COUNTED || self.all.contains_key(node) {
            self.all.insert(Arc::clone(node), batch.clone());
        }
    }

    /// Those that may come again.
    pub(super) fn forget(&mut self, under_way: &UnderWay) -> &BTreeMap<Arc<str>, Batch> {
        self.all
            .retain(|node, batch| under_way.may_come(node, batch));
        &self.all
    }
}
