//! What was seen and what came of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Flows summed per client, server, application and port.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Conversation {
    /// Workload that opened the flows; `external` or an address when it is not one of ours.
    pub client: String,
    /// Workload that answered; `external`, a name or an address when it is not one of ours.
    pub server: String,
    /// What the client is: `workload`, `host`, `ingress`, `address-group`, `unmanaged`,
    /// `external-name`, `external`, `service`.
    #[serde(default)]
    pub client_class: String,
    /// What the server is, in the same words.
    #[serde(default)]
    pub server_class: String,
    /// Application, `unknown` when none was recognised.
    pub app: String,
    /// IP protocol, `tcp`.
    pub proto: String,
    /// Server port.
    pub port: u16,
    /// Flows.
    pub sessions: u64,
    /// Bytes, both ways.
    pub bytes: u64,
    /// Flows outside policy.
    pub violations: u64,
    /// Flows that carried a threat.
    pub threats: u64,
    /// The last thing policy said: `learn`, `allow`, `deny`, …
    pub action: String,
    /// First flow.
    pub first_seen: u64,
    /// Last flow or byte.
    pub last_seen: u64,
    /// Names the client asked for: HTTP hosts, TLS server names.
    pub names: Vec<String>,
    /// A few of the newest flows, `10.0.0.3:41234 > 10.0.0.2:6379`.
    #[serde(default)]
    pub samples: Vec<String>,
}

/// One rule of the network policy.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Rule {
    /// Number; learned rules start at 10001, those of people at 200000, those learned in the cluster at 1000000.
    pub id: u32,
    /// Group or set of the client.
    pub from: String,
    /// Group or set of the server.
    pub to: String,
    /// Application, `any` when the rule is about the port alone.
    pub app: String,
    /// `tcp/6379`, `any`.
    pub ports: String,
    /// `allow` or `deny`.
    pub action: String,
    /// Whether traffic made it, rather than a person.
    pub learned: bool,
    /// Where people wrote it, or that the cluster learned it: `<kind>/<namespace>/<object>/<rule>`. What this node
    /// learned has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// What it was learned from.
    pub evidence: Evidence,
}

/// Why a rule was learned.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Evidence {
    /// Flows.
    pub sessions: u64,
    /// Bytes, both ways.
    pub bytes: u64,
    /// Distinct client addresses.
    pub clients: u64,
    /// First flow.
    pub first_seen: u64,
    /// Last flow or byte.
    pub last_seen: u64,
    /// A few flows, `10.0.0.3:41234 > 10.0.0.2:6379`.
    pub samples: Vec<String>,
    /// Only clients' proxies saw which application it is: at the server, what can't be identified passes too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_client: bool,
}

/// Traffic outside policy, summed.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Violation {
    /// Workload, `external` or an address.
    pub client: String,
    /// Workload, `external` or an address.
    pub server: String,
    /// Client address.
    pub client_ip: String,
    /// Server address.
    pub server_ip: String,
    /// Server port.
    pub port: u16,
    /// IP protocol, `tcp`.
    pub proto: String,
    /// Application; `not-checked` when the flow was refused before a byte was read.
    pub app: String,
    /// `violate` (passed and reported) or `deny`.
    pub action: String,
    /// Rule that decided, 0 for the default action.
    pub rule: u32,
    /// Why, for people.
    pub reason: String,
    /// Flows.
    pub count: u64,
    /// First flow.
    pub first_seen: u64,
    /// Last flow.
    pub last_seen: u64,
}

/// A detector's finding.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Threat {
    /// Number.
    pub id: u32,
    /// Name.
    pub name: String,
    /// `info`, `low`, `medium`, `high`, `critical`.
    pub severity: String,
    /// Workload whose proxy found it.
    pub workload: String,
    /// Client address.
    pub client_ip: String,
    /// Client port.
    pub client_port: u16,
    /// Server address.
    pub server_ip: String,
    /// Server port.
    pub server_port: u16,
    /// Application.
    pub app: String,
    /// Findings this stands for.
    pub count: u64,
    /// `alert` or `block`.
    pub action: String,
    /// What exactly was found.
    pub message: String,
    /// The bytes that gave it away, base64.
    pub evidence: String,
    /// When the proxy reported it last.
    pub reported_at: u64,
}

/// A sample of a recent flow.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Flow {
    /// Workload whose proxy reported it.
    pub workload: String,
    /// `ip:port`.
    pub client: String,
    /// `ip:port`.
    pub server: String,
    /// Application.
    pub app: String,
    /// HTTP host, empty when there was none.
    pub host: String,
    /// TLS server name, empty when there was none.
    pub sni: String,
    /// What policy said.
    pub action: String,
    /// Rule that decided.
    pub rule: u32,
    /// Bytes from the client.
    pub bytes_client: u64,
    /// Bytes from the server.
    pub bytes_server: u64,
    /// When.
    pub at: u64,
}

/// A flow that is open now.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Session {
    /// Workload whose proxy carries it.
    pub workload: String,
    /// Number, unique within the proxy's life.
    pub id: u32,
    /// `inbound` or `outbound`, relative to the workload.
    pub direction: String,
    /// `ip:port`.
    pub client: String,
    /// `ip:port`.
    pub server: String,
    /// Application so far.
    pub app: String,
    /// Seconds since it was opened.
    pub age: u64,
    /// Seconds since the last byte.
    pub idle: u64,
    /// Bytes from the client (modulo 2^32, as the wire has them).
    pub bytes_client: u64,
    /// Bytes from the server (modulo 2^32, as the wire has them).
    pub bytes_server: u64,
    /// Rule that decided.
    pub rule: u32,
    /// What policy said.
    pub action: String,
}
