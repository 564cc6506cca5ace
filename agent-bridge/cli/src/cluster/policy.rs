//! Policy objects of a cluster.

use serde_json::{Value, json};

use super::Cluster;
use crate::client::Failure;

/// Kinds that people write, with the names of their lists.
const KINDS: [(&str, &str); 6] = [
    ("WorkloadGroup", "workloadgroups"),
    ("ClusterWorkloadGroup", "clusterworkloadgroups"),
    ("NetworkRule", "networkrules"),
    ("ClusterNetworkRule", "clusternetworkrules"),
    ("WorkloadMode", "workloadmodes"),
    ("ClusterWorkloadMode", "clusterworkloadmodes"),
];

impl Cluster {
    /// What people wrote, without what is said of it.
    pub(crate) async fn policy(&self) -> Result<Vec<Value>, Failure> {
        let mut all = Vec::new();
        for (kind, plural) in KINDS {
            let path = format!("/apis/{}/{plural}", outrider_api::code::API_VERSION);
            for object in self.kubectl.list(&path).await? {
                all.push(json!({
                    "apiVersion": outrider_api::code::API_VERSION, "kind": kind,
                    "metadata": {
                        "name": object["metadata"]["name"],
                        "namespace": object["metadata"]["namespace"],
                    },
                    "spec": object["spec"],
                }));
            }
        }
        Ok(all)
    }

    /// Applies a list of objects as the command line's own, or only asks the API server whether it would take them.
    pub(crate) async fn apply(&self, list: &Value, dry_run: bool) -> Result<(), Failure> {
        let mut arguments =
            vec!["apply", "--server-side", "--field-manager=outrider-cli", "--filename=-"];
        arguments.extend(dry_run.then_some("--dry-run=server"));
        self.kubectl.say(&arguments, &list.to_string()).await
    }
}
