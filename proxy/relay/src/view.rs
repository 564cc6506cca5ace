//! The policy in force, as every flow sees it.

use std::sync::Arc;

use arc_swap::ArcSwap;
use outrider_model::Mode;
use outrider_policy::Snapshot;

/// Everything that decides about a flow; swapped whole.
#[derive(Clone, Debug)]
pub struct PolicyView {
    /// The compiled rules.
    pub snapshot: Snapshot,
    /// How far they may go.
    pub mode: Mode,
    /// Whether an agent has claimed the workload.
    pub managed: bool,
    /// The workload is cut off from everything, whatever the rules say.
    pub quarantined: bool,
    /// Grows with every swap: a flow that was judged under another number is judged again.
    pub version: u64,
}

/// Shared by all flows; store a new view, then call [`Relay::rejudge`](crate::Relay::rejudge).
pub type PolicyHandle = Arc<ArcSwap<PolicyView>>;
