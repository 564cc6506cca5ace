//! Which rule decides, why, and what would change it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A question about one flow.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct ExplainQuery {
    /// Workload or address.
    pub client: String,
    /// Workload or address.
    pub server: String,
    /// Server port.
    pub port: u16,
    /// Application; without it, the flow is judged as not yet identified.
    pub app: Option<String>,
}

/// The answer.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Explanation {
    /// Workload, `external` or an address.
    pub client: String,
    /// Workload, `external` or an address.
    pub server: String,
    /// Server port.
    pub port: u16,
    /// Which Service the flow goes through, and where that leads; none if it goes through none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Application that was assumed.
    pub app: String,
    /// What happens to the flow: `allow`, `alert`, `deny`.
    pub verdict: String,
    /// Every end that has a proxy, the client's first.
    pub judged: Vec<Judgement>,
    /// What would have to change for the flow to be allowed; empty when it is.
    pub to_allow: String,
}

/// What one proxy says about the flow.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Judgement {
    /// Workload whose proxy judges.
    pub at: String,
    /// `inbound` or `outbound`, relative to it.
    pub direction: String,
    /// Its mode.
    pub mode: String,
    /// What the rule or the default says.
    pub action: String,
    /// `allow`, `alert`, `deny`.
    pub verdict: String,
    /// Rule that decides, 0 for the default.
    pub rule: u32,
    /// Why, for people.
    pub reason: String,
}
