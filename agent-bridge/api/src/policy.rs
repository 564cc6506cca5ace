//! Policy that people write, for a bridge that has it in a file.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Conversations that one replay names at most.
pub const MAX_REPLAYED: usize = 10_000;

/// What people wrote.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct PolicyText {
    /// Objects: YAML of several documents, or JSON.
    pub policy: String,
}

/// To be in force in place of what people wrote before.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct PolicyRequest {
    /// Objects: YAML of several documents, or JSON.
    pub policy: String,
    /// Only say what is wrong with them.
    #[serde(default)]
    pub dry_run: bool,
}

/// Answers a [`PolicyRequest`].
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct PolicyReply {
    /// It is in the file, and in force within a second. Objects that are not accepted keep all of it out.
    pub written: bool,
    /// The file.
    pub path: String,
    /// What is to be said of each object.
    pub objects: Vec<ObjectVerdict>,
}

/// What is to be said of an object, as its status would have it in a cluster.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct ObjectVerdict {
    /// `<kind>/<namespace>/<name>`, without the namespace for those of the cluster.
    pub object: String,
    /// Whether it would hold.
    pub accepted: bool,
    /// One word of a closed list.
    pub reason: String,
    /// What the message is about, `spec.ingress[0].peers[1].group`; empty for all of it.
    pub field: String,
    /// For people.
    pub message: String,
}

/// Asks what would become of the conversations that are known.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct ReplayRequest {
    /// Objects that would be in force in place of those that are: YAML of several documents, or JSON.
    pub policy: String,
    /// As if nothing had been learned.
    #[serde(default)]
    pub alone: bool,
    /// As if every workload were in this mode: `discover`, `monitor` or `protect`.
    #[serde(default)]
    pub mode: Option<String>,
}

/// Answers a [`ReplayRequest`].
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct ReplayReply {
    /// Conversations that were judged.
    pub judged: u64,
    /// Those that could not be: both ends are gone, or no address is known.
    pub unjudged: u64,
    /// Those that would be treated otherwise but are not listed, being more than 10 000.
    pub left_out: u64,
    /// Those that would be treated otherwise.
    pub changed: Vec<Replayed>,
    /// What is to be said of each object.
    pub objects: Vec<ObjectVerdict>,
}

/// A conversation that would be treated otherwise.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Replayed {
    /// As in the list of conversations.
    pub client: String,
    /// As in the list of conversations.
    pub server: String,
    /// Application.
    pub app: String,
    /// IP protocol, `tcp`.
    pub proto: String,
    /// Server port.
    pub port: u16,
    /// Flows so far.
    pub sessions: u64,
    /// Last flow or byte.
    pub last_seen: u64,
    /// What happens to it now: `allow`, `alert`, `deny`.
    pub before: String,
    /// What would.
    pub after: String,
    /// The workload whose proxy would say so.
    pub at: String,
    /// The rule that would decide; empty for the default of the mode.
    pub rule: String,
}
