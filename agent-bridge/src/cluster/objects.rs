//! Our custom resources: `outrider.dev/v1alpha1`.
//!
//! What the API server can refuse by itself, it refuses by the schema and the CEL rules in it; an API server
//! before 1.25 knows no CEL, so whoever reads an object checks it again.

mod check;
mod groups;
mod learned;
mod modes;
mod parts;
mod rules;
mod schema;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

pub(crate) use check::check;
pub use groups::{
    ClusterWorkloadGroup, ClusterWorkloadGroupSpec, GroupStatus, WorkloadGroup, WorkloadGroupSpec,
};
pub use learned::{
    CountedBatch, LearnedCounts, LearnedDirection, LearnedEvidence, LearnedPolicy,
    LearnedPolicySpec, LearnedPolicyStatus, LearnedRule,
};
pub use modes::{
    ClusterWorkloadMode, ClusterWorkloadModeSpec, ModeName, ModeStatus, WorkloadMode,
    WorkloadModeSpec,
};
pub use parts::{Condition, Operator, Requirement, Selector, WorkloadCounts};
pub use rules::{
    Action, ClusterNetworkRule, ClusterNetworkRuleSpec, ClusterTarget, NetworkRule,
    NetworkRuleSpec, Peer, RuleEntry, RuleNumber, RuleStatus, Target,
};

/// The API group.
pub const GROUP: &str = "outrider.dev";

/// The version of all kinds.
pub const VERSION: &str = "v1alpha1";

/// Labels that one selector asks for, and expressions that it has.
pub const MAX_SELECTOR: usize = 16;
/// Values of one expression of a selector.
pub const MAX_VALUES: usize = 32;
/// Networks of one group.
pub const MAX_CIDRS: usize = 256;
/// DNS names of one group.
pub const MAX_NAMES: usize = 64;
/// Rules of one object in one direction.
pub const MAX_ENTRIES: usize = 64;
/// Peers of one rule.
pub const MAX_PEERS: usize = 32;
/// Ports of one rule.
pub const MAX_PORTS: usize = 32;
/// Applications of one rule.
pub const MAX_APPLICATIONS: usize = 32;
/// Rules of one learned policy.
pub const MAX_LEARNED: usize = 2_048;
/// Batches of bridges that are named of one service; of more, one that comes again counts twice.
pub const MAX_COUNTED: usize = 1_024;
/// The largest priority.
pub const MAX_PRIORITY: i32 = 100;
/// The priority of who gives none.
pub const DEFAULT_PRIORITY: i32 = 50;

/// Every definition, in the order in which people read them.
#[must_use]
pub fn definitions() -> Vec<CustomResourceDefinition> {
    vec![
        WorkloadGroup::crd(),
        ClusterWorkloadGroup::crd(),
        NetworkRule::crd(),
        ClusterNetworkRule::crd(),
        WorkloadMode::crd(),
        ClusterWorkloadMode::crd(),
        LearnedPolicy::crd(),
    ]
}

/// Every definition as YAML, one document each; the same bytes each time.
///
/// # Errors
///
/// What the serializer says; it never does for these.
pub fn yaml() -> anyhow::Result<String> {
    let mut text = String::new();
    for definition in definitions() {
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(&serde_json::to_value(definition)?)?);
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
