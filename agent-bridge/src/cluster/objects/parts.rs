//! What several kinds are made of.
#![expect(unreachable_pub, reason = "KubeSchema makes a copy of each type inside of a function")]

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{MAX_SELECTOR, schema};

/// Which labels something must have; all that is said must hold, and an empty selector means everything.
#[derive(
    Clone, Debug, Default, Deserialize, Eq, Hash, KubeSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    /// Labels with their values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = MAX_SELECTOR))]
    pub match_labels: BTreeMap<String, String>,
    /// Labels with what holds for their values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_SELECTOR))]
    pub match_expressions: Vec<Requirement>,
}

impl Selector {
    /// Whether labels are meant by it.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let has = |(key, value): (&String, &String)| labels.get(key) == Some(value);
        self.match_labels.iter().all(has)
            && self.match_expressions.iter().all(|one| one.matches(labels))
    }

    /// Whether it asks for nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }
}

/// What holds for one label.
#[derive(
    Clone, Debug, Deserialize, Eq, Hash, KubeSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "(self.operator in ['In', 'NotIn']) == (has(self.values) && self.values.size() > 0)"
).message("In and NotIn need values, Exists and DoesNotExist have none"))]
pub struct Requirement {
    /// The label.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// What holds.
    pub operator: Operator,
    /// For In and NotIn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::values")]
    pub values: Vec<String>,
}

impl Requirement {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        match self.operator {
            Operator::In => value.is_some_and(|value| self.values.contains(value)),
            Operator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

/// What may hold for a label.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
pub enum Operator {
    /// Its value is one of those.
    In,
    /// Its value is none of those, or it is not there.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

/// Something that is true of an object, or not, and why. The form is that of Kubernetes, with the field beside.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What: `Accepted`, `Enforced`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Why, one word of a closed list.
    pub reason: String,
    /// Why, for people.
    pub message: String,
    /// The field that it is about, as `spec.ingress[0].peers[1].group`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The generation of the object that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When `status` changed last, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<String>,
}

/// How many workloads an object is about, and what became of it there.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadCounts {
    /// That it is about.
    pub concerned: u32,
    /// Whose proxy has confirmed it.
    pub enforced: u32,
    /// Whose proxy would not take it.
    pub refused: u32,
    /// That have yet to say.
    pub pending: u32,
}
