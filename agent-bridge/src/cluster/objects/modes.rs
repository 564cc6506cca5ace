//! How far policy goes for workloads.
#![expect(unreachable_pub, reason = "KubeSchema makes a copy of each type inside of a function")]
#![expect(clippy::duplicated_attributes, reason = "columns of one type are no duplicates")]

use kube::{CustomResource, KubeSchema};
use outrider_model::Mode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Condition, Selector};

/// How far policy goes for pods of its namespace.
#[derive(Clone, CustomResource, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "outrider.dev",
    version = "v1alpha1",
    kind = "WorkloadMode",
    plural = "workloadmodes",
    shortname = "owm",
    category = "outrider",
    namespaced,
    status = "ModeStatus",
    derive = "PartialEq",
    doc = "How far policy goes for pods of its namespace. The most specific object that matches a pod counts: one with a podSelector before one without, a WorkloadMode before a ClusterWorkloadMode; among equals the strictest.",
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(name = "Workloads", type_ = "integer", json_path = ".status.workloads"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].reason"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadModeSpec {
    /// Pods of the namespace; all if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<Selector>,
    /// How far policy goes.
    pub mode: ModeName,
}

/// How far policy goes for pods of every namespace.
#[derive(Clone, CustomResource, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "outrider.dev",
    version = "v1alpha1",
    kind = "ClusterWorkloadMode",
    plural = "clusterworkloadmodes",
    shortname = "ocwm",
    category = "outrider",
    status = "ModeStatus",
    derive = "PartialEq",
    doc = "How far policy goes for pods of every namespace, where no WorkloadMode of their own says it.",
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(name = "Workloads", type_ = "integer", json_path = ".status.workloads"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].reason"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterWorkloadModeSpec {
    /// Namespaces; all if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<Selector>,
    /// Pods in them; all if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<Selector>,
    /// How far policy goes.
    pub mode: ModeName,
}

/// A mode by name; the later, the stricter.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
pub enum ModeName {
    /// Learn, block nothing.
    Discover,
    /// Report violations, block nothing.
    Monitor,
    /// Block violations.
    Protect,
}

impl From<ModeName> for Mode {
    fn from(name: ModeName) -> Self {
        match name {
            ModeName::Discover => Self::Discover,
            ModeName::Monitor => Self::Monitor,
            ModeName::Protect => Self::Protect,
        }
    }
}

/// What became of a mode.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ModeStatus {
    /// The generation that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Accepted`; with the reason `Contested` where another object, as specific, says something stricter.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Pods that have their mode from it.
    #[serde(default)]
    pub workloads: u32,
}
