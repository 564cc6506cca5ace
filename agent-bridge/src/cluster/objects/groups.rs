//! Groups of endpoints that rules name.
#![expect(unreachable_pub, reason = "KubeSchema makes a copy of each type inside of a function")]
#![expect(clippy::duplicated_attributes, reason = "columns of one type are no duplicates")]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Condition, Selector, schema};

/// Endpoints that rules of its namespace name: pods by label, networks, DNS names, or several of these.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "outrider.dev",
    version = "v1alpha1",
    kind = "WorkloadGroup",
    plural = "workloadgroups",
    shortname = "owg",
    category = "outrider",
    namespaced,
    status = "GroupStatus",
    derive = "PartialEq",
    doc = "Endpoints that network rules name: pods by label, networks, DNS names, or several of these.",
    printcolumn(name = "Members", type_ = "integer", json_path = ".status.members"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].reason",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "has(self.podSelector) || (has(self.cidrs) && self.cidrs.size() > 0) || (has(self.names) && self.names.size() > 0)"
).message("at least one of podSelector, cidrs and names must be given"))]
pub struct WorkloadGroupSpec {
    /// Pods of the namespace; empty for all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<Selector>,
    /// Networks and addresses, of either family.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::cidrs")]
    pub cidrs: Vec<String>,
    /// DNS names, `*.` in front for all below.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::names")]
    pub names: Vec<String>,
}

/// Endpoints that rules of every namespace name.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "outrider.dev",
    version = "v1alpha1",
    kind = "ClusterWorkloadGroup",
    plural = "clusterworkloadgroups",
    shortname = "cowg",
    category = "outrider",
    status = "GroupStatus",
    derive = "PartialEq",
    doc = "Endpoints that network rules of every namespace name: pods by namespace and label, networks, DNS names.",
    printcolumn(name = "Members", type_ = "integer", json_path = ".status.members"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].reason",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "has(self.namespaceSelector) || has(self.podSelector) || (has(self.cidrs) && self.cidrs.size() > 0) || (has(self.names) && self.names.size() > 0)"
).message("at least one of namespaceSelector, podSelector, cidrs and names must be given"))]
pub struct ClusterWorkloadGroupSpec {
    /// Namespaces whose pods are meant; all if there is only a `podSelector`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<Selector>,
    /// Pods in those namespaces; all if there is only a `namespaceSelector`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<Selector>,
    /// Networks and addresses, of either family.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::cidrs")]
    pub cidrs: Vec<String>,
    /// DNS names, `*.` in front for all below.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::names")]
    pub names: Vec<String>,
}

/// What became of a group.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupStatus {
    /// The generation that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Accepted`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Pods in it.
    #[serde(default)]
    pub members: u32,
}
