//! The CLI's JSON, one object a line, as it is documented.

use serde::Deserialize;

/// Traffic between two workloads on one port in one application.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the fields are documented with the CLI")]
pub struct Conversation {
    pub client: String,
    pub server: String,
    pub app: String,
    pub proto: String,
    pub port: u16,
    pub sessions: u64,
    pub bytes: u64,
    pub violations: u64,
    pub threats: u64,
    pub action: String,
    #[serde(default)]
    pub names: Vec<String>,
}

/// A learned or given rule.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the fields are documented with the CLI")]
pub struct Rule {
    pub id: u32,
    pub from: String,
    pub to: String,
    pub app: String,
    pub ports: String,
    pub action: String,
    pub learned: bool,
    #[serde(default)]
    pub evidence: Evidence,
}

/// Why a rule was learned.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the fields are documented with the CLI")]
pub struct Evidence {
    pub sessions: u64,
    pub bytes: u64,
    pub clients: u64,
    pub samples: Vec<String>,
}

/// Traffic outside policy.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the fields are documented with the CLI")]
pub struct Violation {
    pub client: String,
    pub server: String,
    pub client_ip: String,
    pub server_ip: String,
    pub port: u16,
    pub app: String,
    pub action: String,
    pub rule: u32,
    pub reason: String,
    pub count: u64,
}

/// A detector's finding.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the fields are documented with the CLI")]
pub struct Threat {
    pub id: u32,
    pub name: String,
    pub severity: String,
    pub workload: String,
    pub client_ip: String,
    pub server_ip: String,
    pub server_port: u16,
    pub app: String,
    pub count: u64,
    pub action: String,
    pub message: String,
    pub evidence: String,
}

/// A workload of the node.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the fields are documented with the CLI")]
pub struct Workload {
    pub name: String,
    pub group: String,
    pub mode: String,
    pub proxy: String,
    pub policy_version: u64,
}

/// A sample of a recent flow.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the fields are documented with the CLI")]
pub struct FlowSample {
    pub client: String,
    pub server: String,
    pub app: String,
    #[serde(default)]
    pub host: Option<String>,
    #[serde(default)]
    pub sni: Option<String>,
    pub bytes_client: u64,
    pub bytes_server: u64,
}

/// A live flow of a proxy.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the fields are documented with the CLI")]
pub struct Session {
    pub workload: String,
    pub id: u64,
    pub client: String,
    pub server: String,
    pub app: String,
    pub bytes_client: u64,
    pub bytes_server: u64,
    pub rule: u32,
    pub action: String,
}

/// The bridge's own account.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the fields are documented with the CLI")]
pub struct Status {
    pub workloads: u64,
    pub proxies_connected: u64,
    #[serde(default)]
    pub dropped: std::collections::BTreeMap<String, u64>,
}
