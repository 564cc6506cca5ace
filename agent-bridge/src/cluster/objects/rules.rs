//! Rules of policy.
#![expect(unreachable_pub, reason = "KubeSchema makes a copy of each type inside of a function")]
#![expect(clippy::duplicated_attributes, reason = "columns of one type are no duplicates")]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Condition, DEFAULT_PRIORITY, MAX_ENTRIES, MAX_PEERS, MAX_PRIORITY, Selector, WorkloadCounts,
    schema,
};

/// What pods of its namespace may receive and open. The first rule that matches decides: cluster rules, then these,
/// then what was learned; the larger priority first, then Deny before Allow.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "outrider.dev",
    version = "v1alpha1",
    kind = "NetworkRule",
    plural = "networkrules",
    shortname = "onr",
    category = "outrider",
    namespaced,
    status = "RuleStatus",
    derive = "PartialEq",
    doc = "What pods of its namespace may receive and open. The first rule that matches decides: cluster rules, then these, then what was learned; the larger priority first, then Deny before Allow.",
    printcolumn(name = "Priority", type_ = "integer", json_path = ".spec.priority"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status"
    ),
    printcolumn(
        name = "Enforced",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Enforced\")].status"
    ),
    printcolumn(name = "Workloads", type_ = "integer", json_path = ".status.workloads.concerned"),
    printcolumn(
        name = "Pending",
        type_ = "integer",
        json_path = ".status.workloads.pending",
        priority = 1
    ),
    printcolumn(
        name = "Refused",
        type_ = "integer",
        json_path = ".status.workloads.refused",
        priority = 1
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
    "(has(self.ingress) && self.ingress.size() > 0) || (has(self.egress) && self.egress.size() > 0)"
).message("at least one rule must be given, in ingress or egress"))]
#[x_kube(validation = Rule::new(
    "!has(self.ingress) || !has(self.egress) || !self.ingress.exists(i, self.egress.exists(e, e.name == i.name))"
).message("names of rules must be unique in the object, ingress and egress together"))]
pub struct NetworkRuleSpec {
    /// The larger, the earlier; among equals Deny comes before Allow.
    #[serde(default = "priority")]
    #[schemars(range(min = 0, max = MAX_PRIORITY))]
    pub priority: i32,
    /// The pods that it is about; all of the namespace if nothing is said.
    #[serde(default, skip_serializing_if = "Target::is_empty")]
    pub target: Target,
    /// What they may receive.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_ENTRIES))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub ingress: Vec<RuleEntry>,
    /// What they may open.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_ENTRIES))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub egress: Vec<RuleEntry>,
}

/// What pods of every namespace may receive and open; before what namespaces say.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "outrider.dev",
    version = "v1alpha1",
    kind = "ClusterNetworkRule",
    plural = "clusternetworkrules",
    shortname = "ocnr",
    category = "outrider",
    status = "RuleStatus",
    derive = "PartialEq",
    doc = "What pods of every namespace may receive and open; before what the NetworkRules of namespaces say.",
    printcolumn(name = "Priority", type_ = "integer", json_path = ".spec.priority"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status"
    ),
    printcolumn(
        name = "Enforced",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Enforced\")].status"
    ),
    printcolumn(name = "Workloads", type_ = "integer", json_path = ".status.workloads.concerned"),
    printcolumn(
        name = "Pending",
        type_ = "integer",
        json_path = ".status.workloads.pending",
        priority = 1
    ),
    printcolumn(
        name = "Refused",
        type_ = "integer",
        json_path = ".status.workloads.refused",
        priority = 1
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
    "(has(self.ingress) && self.ingress.size() > 0) || (has(self.egress) && self.egress.size() > 0)"
).message("at least one rule must be given, in ingress or egress"))]
#[x_kube(validation = Rule::new(
    "!has(self.ingress) || !has(self.egress) || !self.ingress.exists(i, self.egress.exists(e, e.name == i.name))"
).message("names of rules must be unique in the object, ingress and egress together"))]
#[x_kube(validation = Rule::new(
    "!has(self.ingress) || !self.ingress.exists(i, has(i.peers) && i.peers.exists(p, has(p.group)))"
).message("a cluster rule has no namespace: name a clusterGroup, not a group").field_path(".ingress"))]
#[x_kube(validation = Rule::new(
    "!has(self.egress) || !self.egress.exists(e, has(e.peers) && e.peers.exists(p, has(p.group)))"
).message("a cluster rule has no namespace: name a clusterGroup, not a group").field_path(".egress"))]
pub struct ClusterNetworkRuleSpec {
    /// The larger, the earlier; among equals Deny comes before Allow.
    #[serde(default = "priority")]
    #[schemars(range(min = 0, max = MAX_PRIORITY))]
    pub priority: i32,
    /// The pods that it is about; all if nothing is said.
    #[serde(default, skip_serializing_if = "ClusterTarget::is_empty")]
    pub target: ClusterTarget,
    /// What they may receive.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_ENTRIES))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub ingress: Vec<RuleEntry>,
    /// What they may open.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_ENTRIES))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub egress: Vec<RuleEntry>,
}

fn priority() -> i32 {
    DEFAULT_PRIORITY
}

/// Pods of a namespace.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.podSelector) || !has(self.group)")
    .message("at most one of podSelector and group may be given"))]
pub struct Target {
    /// By label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<Selector>,
    /// Those of a WorkloadGroup of the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::object")]
    pub group: Option<String>,
}

impl Target {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Pods of any namespace.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.clusterGroup) || (!has(self.podSelector) && !has(self.namespaceSelector))")
    .message("clusterGroup stands alone"))]
pub struct ClusterTarget {
    /// Namespaces; all if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<Selector>,
    /// Pods in them; all if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<Selector>,
    /// Those of a ClusterWorkloadGroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::object")]
    pub cluster_group: Option<String>,
}

impl ClusterTarget {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// One rule: flows between the target and any of the peers, to any of the ports, in any of the applications.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleEntry {
    /// Unique in the object; reports name it.
    #[schemars(schema_with = "schema::rule_name")]
    pub name: String,
    /// What becomes of the flows.
    pub action: Action,
    /// The other end; empty for any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_PEERS))]
    pub peers: Vec<Peer>,
    /// Applications; `unknown` is what can't be identified; empty for any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::applications")]
    pub applications: Vec<String>,
    /// The server's ports; empty for any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::ports")]
    pub ports: Vec<String>,
}

/// What becomes of flows.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
pub enum Action {
    /// They are refused in Protect, and reported in every mode.
    Deny,
    /// They pass.
    Allow,
}

/// The other end of a rule: exactly one of these, podSelector and namespaceSelector together being one.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "[has(self.group), has(self.clusterGroup), has(self.podSelector) || has(self.namespaceSelector), has(self.cidr), has(self.name), has(self.external), has(self.nodes)].filter(x, x).size() == 1"
).message("exactly one of group, clusterGroup, podSelector with namespaceSelector, cidr, name, external and nodes must be given"))]
pub struct Peer {
    /// A WorkloadGroup of the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::object")]
    pub group: Option<String>,
    /// A ClusterWorkloadGroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::object")]
    pub cluster_group: Option<String>,
    /// Namespaces; without it the rule's own, in a cluster rule all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<Selector>,
    /// Pods; without it all of those namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<Selector>,
    /// A network or an address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::cidr")]
    pub cidr: Option<String>,
    /// A DNS name, `*.` in front for all below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::name")]
    pub name: Option<String>,
    /// Everything outside the internal networks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::yes")]
    pub external: Option<bool>,
    /// The cluster's nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::yes")]
    pub nodes: Option<bool>,
}

/// What became of an object's rules.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleStatus {
    /// The generation that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Accepted` and `Enforced`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Numbers of its rules, as reports have them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RuleNumber>,
    /// What the workloads that it is about do with it.
    #[serde(default)]
    pub workloads: WorkloadCounts,
}

/// Number of a rule.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleNumber {
    /// Its name in the object.
    pub name: String,
    /// Its number, from 200 000 to 899 999; it keeps it as long as the object lives.
    pub id: u32,
}
