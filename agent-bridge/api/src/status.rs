//! The bridge, its workloads and their modes.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the bridge is.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Status {
    /// Version of the bridge.
    pub version: String,
    /// Seconds since it started.
    pub uptime: u64,
    /// Mailboxes with a workload.
    pub workloads: u64,
    /// Of those, how many proxies answer.
    pub proxies_connected: u64,
    /// Rules.
    pub rules: u64,
    /// Conversations.
    pub conversations: u64,
    /// Kinds of violations kept.
    pub violations: u64,
    /// Threats kept.
    pub threats: u64,
    /// What came in, by kind.
    pub received: BTreeMap<String, u64>,
    /// What came in and was not used, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Where all of this is kept.
    pub store: StoreStatus,
    /// The controller that connections are reported to, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller: Option<ControllerStatus>,
    /// How it stands with the API server of Kubernetes, if it is asked for pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<KubernetesStatus>,
    /// How it stands with the cluster's controller, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<LinkStatus>,
    /// Mailboxes or workload files that cannot be used, and why.
    pub refused: Vec<String>,
    /// Workloads whose proxy refuses its policy and goes on with the one before, and why.
    #[serde(default)]
    pub policy_refused: Vec<String>,
    /// Workloads whose rules this store never had, and whose proxy goes on with those it has, until
    /// somebody sets their mode.
    #[serde(default)]
    pub rules_kept: Vec<String>,
    /// How much of the node is covered.
    #[serde(default)]
    pub coverage: Coverage,
    /// Each sink that events are exported to.
    #[serde(default)]
    pub export: Vec<SinkStatus>,
    /// Listeners to the stream of events.
    #[serde(default)]
    pub listeners: u64,
    /// Why the bridge cannot be relied on now, as its readiness probe says; absent when it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_ready: Option<String>,
}

/// How much of the node is covered, and by what. Keys are closed sets of words; those with 0 are
/// left out.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Coverage {
    /// Workloads whose proxy answers.
    pub connected: u64,
    /// Workloads whose proxy answered once.
    pub down: u64,
    /// Workloads whose proxy never answered since the bridge started.
    pub never: u64,
    /// Proxies that answer, by what they see and can stop; `unsaid` if they do not say.
    pub tiers: BTreeMap<String, u64>,
    /// Workloads by mode.
    pub modes: BTreeMap<String, u64>,
    /// Learned rules by the mode of the group that they let in.
    pub learned: BTreeMap<String, u64>,
    /// Beginnings of rules: traffic that is not yet enough for one.
    pub candidates: u64,
    /// Mailboxes that are not served, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Times that compiled policy changed since the bridge started.
    pub generation: u64,
    /// Proxies that answer and do not have their newest policy yet.
    pub lagging: u64,
    /// Longest time that one of them has waited for it, seconds.
    pub lag: u64,
    /// Proxies that answer and refuse their policy.
    #[serde(default)]
    pub refusing: u64,
}

/// A sink that events are exported to.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct SinkStatus {
    /// `file`, `syslog` or `webhook`.
    pub sink: String,
    /// Events that wait for it.
    pub waiting: u64,
    /// Age of the oldest of them, seconds.
    pub lag: u64,
    /// Events that it took since the bridge started.
    pub sent: u64,
    /// Deliveries that failed and were tried again.
    pub retries: u64,
    /// Events that it never got.
    pub dropped: u64,
    /// Deliveries that failed since the last one that did not; 0 while it works.
    pub failures: u64,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// When that was, 0 if nothing did.
    pub last_error_at: u64,
    /// When it took something last, 0 if it did not.
    pub last_sent_at: u64,
}

/// The embedded store.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct StoreStatus {
    /// File.
    pub path: String,
    /// Set when an unreadable file was found at start: where it was moved.
    pub set_aside: Option<String>,
    /// Set while writes fail: what the system says. Nothing is acknowledged meanwhile.
    pub failing: Option<String>,
    /// Transactions since start.
    pub commits: u64,
    /// Size of the file.
    #[serde(default)]
    pub bytes: u64,
}

/// How it stands with the controller.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct ControllerStatus {
    /// `host:port`.
    pub target: String,
    /// `connecting`, `admitted`, `refused` or `failing`.
    pub state: String,
    /// Why it is not admitted.
    pub reason: Option<String>,
    /// Seconds between two reports.
    pub interval: u64,
    /// When it confirmed a report last.
    pub last_report: Option<u64>,
    /// Rows that wait, or are under way.
    pub waiting: u64,
    /// Rows that it confirmed.
    pub sent: u64,
    /// Rows that were sent again because it is not known whether it has them.
    pub repeated: u64,
    /// Rows that it never gets.
    pub lost: u64,
}

/// How it stands with the API server of Kubernetes.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct KubernetesStatus {
    /// Name of the node whose pods are asked for.
    pub node: String,
    /// Who said which pods there are: `server`; `store` while the API server was not heard since the start; `nobody`.
    pub pods_from: String,
    /// Why it is not heard now; what is known goes on to count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing: Option<String>,
}

/// How it stands with the cluster's controller.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct LinkStatus {
    /// Who was dialled last, `host:port`.
    pub target: String,
    /// `linked`, `connecting` or `failing`.
    pub state: String,
    /// Why there is no link; what was said last goes on to count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The controller's, of that revision.
    pub epoch: String,
    /// Of the last update that is in force, 0 if there was none.
    pub revision: u64,
    /// When anything was heard last since the bridge started, Unix seconds; 0 if nothing was.
    pub heard_at: u64,
    /// Links since the bridge started.
    pub links: u64,
    /// Batches of what was seen that the controller acknowledged.
    pub batches: u64,
    /// Sums that wait to be told or acknowledged.
    pub waiting: u64,
    /// Rows that found no room among them: the controller never hears of them.
    pub dropped: u64,
    /// Parts of updates that could not be used.
    pub refused: u64,
}

/// Whether a workload's proxy answers.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    Deserialize,
    Eq,
    JsonSchema,
    Hash,
    Ord,
    PartialEq,
    PartialOrd,
    Serialize,
)]
#[serde(rename_all = "lowercase")]
pub enum ProxyState {
    /// It answered the last keep-alive.
    Connected,
    /// It answered once.
    Down,
    /// It never answered since the bridge started.
    #[default]
    Never,
}

impl ProxyState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Connected, Self::Down, Self::Never];

    /// The word of the JSON form.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Down => "down",
            Self::Never => "never",
        }
    }
}

/// A pod with a mailbox.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Workload {
    /// `<namespace>/<name>`.
    pub name: String,
    /// Name of the mailbox.
    pub uid: String,
    /// Workloads of one service.
    pub group: String,
    /// `discover`, `monitor` or `protect`.
    pub mode: String,
    /// The pod's addresses.
    pub addresses: Vec<String>,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The pod's MAC, its name on the ctrl wire.
    pub mac: String,
    /// Whether its proxy answers.
    pub proxy: ProxyState,
    /// How often policy was pushed to this proxy since it connected; 0 while it is not.
    pub policy_version: u64,
    /// Rules in the policy it has now.
    pub rules: u64,
    /// Rules that this policy has no room for; what they allow meets the default.
    #[serde(default)]
    pub rules_left_out: u64,
    /// The group has as many learned rules as it may have: no more are learned until some go.
    #[serde(default)]
    pub rules_full: bool,
    /// What it listens on, as far as its proxy saw.
    #[serde(default)]
    pub ports: Vec<ListeningPort>,
    /// Times it connected since the bridge started.
    pub connects: u64,
    /// Times its proxy began anew since the bridge started, as its reports say: what it had not reported by then is
    /// not known.
    #[serde(default)]
    pub restarts: u64,
    /// Generation of the policy that it is to have; generations count changes over all workloads.
    #[serde(default)]
    pub generation: u64,
    /// What its proxy runs, as it says itself; absent while it is not connected, and for a data path that does not
    /// say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<Running>,
    /// Why the policy that it is to have is not in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<PolicyRefusal>,
    /// This store never had its rules: its proxy goes on with those it has, until somebody sets the mode.
    #[serde(default)]
    pub rules_kept: bool,
    /// The proxy's own status, as it answered the hello; absent for a proxy that has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_version: Option<String>,
}

/// What a proxy runs.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Running {
    /// Generation of this bridge's policy that is in force; 0 if it is one of an earlier bridge.
    pub generation: u64,
    /// The proxy's own number of what is in force; it grows with every change since the proxy began.
    pub version: u64,
    /// `rules`, `default` or `open`; empty if it does not say.
    pub policy: String,
    /// The mode in force.
    pub mode: String,
}

/// A policy that a proxy refused. The one before it stays in force.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct PolicyRefusal {
    /// Which.
    pub generation: u64,
    /// Why, in one word of a closed set.
    pub reason: String,
    /// Why, for people.
    pub detail: String,
}

/// A port that a workload listens on.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct ListeningPort {
    /// IP protocol, `tcp`.
    pub proto: String,
    /// Number.
    pub port: u16,
    /// Application, `unknown` when none was recognised.
    pub app: String,
    /// The server's software, empty when it is not known.
    pub server: String,
}

/// What to set a workload's group to.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct ModeRequest {
    /// `discover`, `monitor` or `protect`.
    pub mode: String,
}

/// Answers a [`ModeRequest`] once it is stored and pushed.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct ModeReply {
    /// The workload that was named.
    pub workload: String,
    /// Its group, which has the mode.
    pub group: String,
    /// The mode now.
    pub mode: String,
    /// Connected proxies that hold the new policy.
    pub pushed: u64,
    /// Proxies that were connected but did not confirm in time; they get it when they answer again.
    pub pending: u64,
    /// Connected proxies that refused the new policy; the mode is in force there, the rules are those from before.
    #[serde(default)]
    pub refused: u64,
    /// Workloads of the group whose proxy is not connected; they get it when they connect.
    pub absent: u64,
}
