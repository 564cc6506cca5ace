//! What was learned, for people to read, freeze and cut.
#![expect(unreachable_pub, reason = "KubeSchema makes a copy of each type inside of a function")]
#![expect(clippy::duplicated_attributes, reason = "columns of one type are no duplicates")]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Condition, MAX_COUNTED, MAX_LEARNED};

/// What was learned about one service. The controller writes `service` and `rules`, people the rest.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "outrider.dev",
    version = "v1alpha1",
    kind = "LearnedPolicy",
    plural = "learnedpolicies",
    shortname = "olp",
    category = "outrider",
    namespaced,
    status = "LearnedPolicyStatus",
    derive = "PartialEq",
    doc = "What was learned about one service. The controller writes service and rules; people may freeze it and exclude rules.",
    printcolumn(name = "Service", type_ = "string", json_path = ".spec.service", priority = 1),
    printcolumn(name = "Rules", type_ = "integer", json_path = ".status.counts.rules"),
    printcolumn(name = "Excluded", type_ = "integer", json_path = ".status.counts.excluded"),
    printcolumn(name = "Frozen", type_ = "boolean", json_path = ".spec.frozen"),
    printcolumn(name = "Sessions", type_ = "integer", json_path = ".status.counts.sessions"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct LearnedPolicySpec {
    /// The service; its group in rules is `nv.<service>.<namespace>`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253))]
    pub service: String,
    /// Its rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_LEARNED))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["id".into()]))]
    pub rules: Vec<LearnedRule>,
    /// Nothing more is learned.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub frozen: bool,
    /// Numbers of rules that shall not be in force.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_LEARNED))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub excluded: Vec<u32>,
}

/// One learned rule.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LearnedRule {
    /// Its number, from 1 000 000 up.
    pub id: u32,
    /// Relative to the service.
    pub direction: LearnedDirection,
    /// The group at the other end.
    #[schemars(length(max = 512))]
    pub peer: String,
    /// The application; empty if none was identified.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub application: String,
    /// The server's port; 0 where the protocol has none.
    pub port: u16,
    /// By which protocol: `tcp`, `udp`, ….
    #[schemars(length(max = 16))]
    pub protocol: String,
}

/// Which way flows go.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
pub enum LearnedDirection {
    /// To the service.
    Ingress,
    /// From the service.
    Egress,
}

/// Why, and how much it is used.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LearnedPolicyStatus {
    /// The generation that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Accepted`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Sums.
    #[serde(default)]
    pub counts: LearnedCounts,
    /// By rule.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_LEARNED))]
    pub evidence: Vec<LearnedEvidence>,
    /// Batches of bridges that the evidence has and that were not acknowledged yet: they may come again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_COUNTED))]
    pub counted: Vec<CountedBatch>,
}

/// A batch of what a bridge saw.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CountedBatch {
    /// The bridge's node.
    #[schemars(length(max = 253))]
    pub node: String,
    /// Which start of the bridge.
    #[schemars(length(max = 253))]
    pub instance: String,
    /// The batch's number.
    pub number: u64,
}

/// Sums over the rules.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LearnedCounts {
    /// Rules.
    pub rules: u32,
    /// Of them, not in force.
    pub excluded: u32,
    /// Sessions.
    pub sessions: u64,
}

/// What speaks for a rule.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LearnedEvidence {
    /// The rule.
    pub id: u32,
    /// RFC 3339.
    pub first_seen: String,
    /// RFC 3339.
    pub last_seen: String,
    /// Sessions.
    pub sessions: u64,
    /// Bytes both ways.
    pub bytes: u64,
    /// Addresses of the first few clients.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<String>,
}
