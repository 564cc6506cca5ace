//! The pods of this node, as the API server knows them, beside those that workload files describe.
//!
//! One watch over the pods of the node and one over the node itself. What was known last is kept in the store, so that a
//! bridge that starts while the API server is away serves the pods that it served.

pub(crate) mod describe;
pub(crate) mod ground;
mod node;
pub(crate) mod tend;
mod watch;

use std::{collections::BTreeMap, str::FromStr, sync::Arc};

use crate::{
    cluster::client::{MaybeSource, Source},
    mailbox::watch::{Workload, is_name},
    settings::Reader,
};

pub(crate) use node::Surroundings;
pub(crate) use watch::Watch;

/// How the API server is reached, and who we are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KubeSettings {
    /// `OUTRIDER_BRIDGE_KUBE`.
    pub source: Source,
    /// `OUTRIDER_BRIDGE_NODE`: name of our node.
    pub node: String,
}

/// The settings with their defaults.
pub(crate) const HELP: [(&str, &str, &str); 2] = [
    ("OUTRIDER_BRIDGE_NODE", "none", "name of our node, needed in a cluster"),
    (
        "OUTRIDER_BRIDGE_KUBE",
        "off",
        "API server that is asked for pods: in-cluster or a kubeconfig",
    ),
];

/// `OUTRIDER_BRIDGE_NODE`, if it is said.
pub(crate) fn node_name<F: Fn(&str) -> Option<String>>(env: &mut Reader<F>) -> Option<String> {
    env.option::<NodeName>("OUTRIDER_BRIDGE_NODE")
        .map(|name| name.0)
}

impl KubeSettings {
    /// Reads them; `node` is the node's name, if it is known.
    pub(crate) fn read<F: Fn(&str) -> Option<String>>(
        env: &mut Reader<F>,
        node: Option<String>,
    ) -> Option<Self> {
        let source = env.value("OUTRIDER_BRIDGE_KUBE", MaybeSource(None)).0?;
        if node.is_none() {
            env.mistake("OUTRIDER_BRIDGE_KUBE needs OUTRIDER_BRIDGE_NODE, the node's name".into());
        }
        Some(Self { source, node: node? })
    }
}

struct NodeName(String);

impl FromStr for NodeName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if is_name(text) { Ok(Self(text.to_owned())) } else { Err("is no name of a node") }
    }
}

/// Who said what is known of the pods.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Origin {
    /// Nobody yet, or nobody is asked.
    #[default]
    Nobody,
    /// The store: the API server was not reached since the start.
    Store,
    /// The API server.
    Server,
}

impl Origin {
    /// The closed word.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Store => "store",
            Self::Server => "server",
        }
    }
}

/// One pod of the node.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Pod {
    /// It has a proxy that looks for its bridge.
    pub(crate) has_mailbox: bool,
    /// As a workload, once it has an address.
    pub(crate) workload: Option<Workload>,
    /// It waits for nothing but its classic proxy to end.
    pub(crate) finished: bool,
}

/// All pods of the node, by uid.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Known {
    /// Who said so.
    pub(crate) origin: Origin,
    /// The pods, those without a proxy too.
    pub(crate) pods: BTreeMap<String, Pod>,
}

impl Known {
    /// What the store has.
    pub(crate) fn stored(workloads: impl Iterator<Item = Workload>) -> Self {
        let pod = |workload: Workload| {
            let uid = workload.uid.clone();
            (uid, Pod { has_mailbox: true, workload: Some(workload), finished: false })
        };
        let pods: BTreeMap<_, _> = workloads.map(pod).collect();
        let origin = if pods.is_empty() { Origin::Nobody } else { Origin::Store };
        Self { origin, pods }
    }

    /// Pods that wait for their proxy alone.
    pub(crate) fn finished(&self) -> impl Iterator<Item = &String> {
        let finished = self.pods.iter().filter(|(_, pod)| pod.finished);
        finished.map(|(uid, _)| uid)
    }

    /// Pods that are to have a mailbox.
    pub(crate) fn mailboxes(&self) -> impl Iterator<Item = (&String, &Pod)> {
        self.pods.iter().filter(|(_, pod)| pod.has_mailbox)
    }
}

/// What everybody looks at.
pub(crate) type Shared = tokio::sync::watch::Receiver<Arc<Known>>;
