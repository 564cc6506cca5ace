//! What the bridge's REST API says and takes, one type an object.
//!
//! Times are Unix seconds, addresses are text, names of workloads are `<namespace>/<name>`. Lists
//! are JSON arrays; `outrider … --json` prints one element a line. Members may be added
//! in later versions: readers skip what they do not know.
#![forbid(unsafe_code)]

mod captures;
pub mod cluster;
pub mod code;
mod events;
mod explain;
pub mod kubelet;
mod observed;
pub mod openapi;
mod policy;
mod query;
pub mod share;
mod status;

pub use captures::{CAPTURE_ID, CAPTURE_TYPE, Capture, CaptureRequest, CaptureState};
pub use events::{EventKind, GAP, Gap, ModeChange, PolicyChange};
pub use explain::{ExplainQuery, Explanation, Judgement};
pub use observed::{Conversation, Evidence, Flow, Rule, Session, Threat, Violation};
pub use policy::{
    MAX_REPLAYED, ObjectVerdict, PolicyReply, PolicyRequest, PolicyText, ReplayReply,
    ReplayRequest, Replayed,
};
pub use query::{EventsQuery, ListQuery, MAX_LIMIT, NEXT_CURSOR};
pub use status::{
    ControllerStatus, Coverage, KubernetesStatus, LinkStatus, ListeningPort, ModeReply,
    ModeRequest, PolicyRefusal, ProxyState, Running, SinkStatus, Status, StoreStatus, Workload,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Paths of the API.
pub mod paths {
    /// [`super::Status`].
    pub const STATUS: &str = "/v1/status";
    /// Array of [`super::Workload`].
    pub const WORKLOADS: &str = "/v1/workloads";
    /// Array of [`super::Conversation`].
    pub const CONVERSATIONS: &str = "/v1/conversations";
    /// Array of [`super::Rule`].
    pub const RULES: &str = "/v1/rules";
    /// Array of [`super::Violation`].
    pub const VIOLATIONS: &str = "/v1/violations";
    /// Array of [`super::Threat`].
    pub const THREATS: &str = "/v1/threats";
    /// Array of [`super::Flow`].
    pub const FLOWS: &str = "/v1/flows";
    /// Array of [`super::Session`], asked of the proxies at that moment; `?workload=` narrows it.
    pub const SESSIONS: &str = "/v1/sessions";
    /// Server-sent events of the [`super::EventKind`]s in `?kinds=`.
    pub const EVENTS: &str = "/v1/events";
    /// The OpenAPI document of all of these.
    pub const OPENAPI: &str = "/v1/openapi.json";
    /// [`super::Explanation`] for an [`super::ExplainQuery`].
    pub const EXPLAIN: &str = "/v1/explain";
    /// [`super::PolicyText`]; `PUT` a [`super::PolicyRequest`], answered by a [`super::PolicyReply`].
    pub const POLICY: &str = "/v1/policy";
    /// `POST` a [`super::ReplayRequest`], answered by a [`super::ReplayReply`].
    pub const REPLAY: &str = "/v1/policy/replay";
    /// `PUT` a [`super::ModeRequest`], answered by a [`super::ModeReply`]. The name is bare.
    pub const MODE: &str = "/v1/workloads/{name}/mode";
    /// `POST` a [`super::CaptureRequest`], answered by a pcapng file. The name is bare.
    pub const CAPTURE: &str = "/v1/workloads/{name}/capture";
    /// The same, for `<namespace>/<name>`.
    pub const CAPTURE_FULL: &str = "/v1/workloads/{namespace}/{name}/capture";
    /// Array of [`super::Capture`].
    pub const CAPTURES: &str = "/v1/captures";
    /// `DELETE` to stop a [`super::Capture`] that runs, or forget one that is over.
    pub const CAPTURE_STOP: &str = "/v1/captures/{id}";
    /// The same, for `<namespace>/<name>`.
    pub const MODE_FULL: &str = "/v1/workloads/{namespace}/{name}/mode";
}

/// What a cluster's roles are about: whoever may `get` it may look, who may `update` it may change.
pub mod access {
    /// API group.
    pub const GROUP: &str = "outrider.dev";
    /// Resource; there is no such object, only the right.
    pub const RESOURCE: &str = "bridges";
}

/// Body of every answer that is not a success.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct ErrorBody {
    /// What went wrong and, where there is something to do, what.
    pub error: String,
}
