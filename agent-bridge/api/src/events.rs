//! What happens, as it happens.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Kinds of events, each with a body of its own.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// A flow was sampled: a [`super::Flow`].
    Flow,
    /// Traffic outside policy was seen: the [`super::Violation`] with its sums so far.
    Violation,
    /// A detector found something: a [`super::Threat`], counted as reported.
    Threat,
    /// Somebody set a mode: a [`ModeChange`].
    Mode,
    /// A proxy refused a policy, took one again, or keeps the rules it has: a [`PolicyChange`].
    Policy,
}

impl EventKind {
    /// Every kind, in the order of their positions in an event's id.
    pub const ALL: [Self; 5] =
        [Self::Flow, Self::Violation, Self::Threat, Self::Mode, Self::Policy];

    /// The word in `kinds=` and behind `event:`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Flow => "flow",
            Self::Violation => "violation",
            Self::Threat => "threat",
            Self::Mode => "mode",
            Self::Policy => "policy",
        }
    }

    /// The kind of that label.
    #[must_use]
    pub fn named(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.label() == label)
    }
}

/// A mode was set and stored.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct ModeChange {
    /// The workload that was named.
    pub workload: String,
    /// Its group, which has the mode.
    pub group: String,
    /// The mode now.
    pub mode: String,
}

/// What became of the policy of one workload.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct PolicyChange {
    /// The workload.
    pub workload: String,
    /// Generation of the policy that it is to have.
    pub generation: u64,
    /// `refused`: the one before stays; `in-force`, after it was refused; `kept`: the store is new,
    /// and the proxy goes on with the rules and the mode it has.
    pub state: String,
    /// The mode in force, as far as the proxy says.
    pub mode: String,
    /// Why, in one word; empty if it is in force.
    pub reason: String,
    /// Why, for people.
    pub detail: String,
}

/// Name of the event that stands for others that are not kept any more.
pub const GAP: &str = "gap";

/// Events that a listener asked for and cannot have.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Gap {
    /// How many of the kinds that were asked for; `null` if nobody knows, after a restart of the bridge.
    pub missed: Option<u64>,
    /// Why, for people.
    pub reason: String,
}
