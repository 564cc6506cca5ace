//! Events about pods that may not start, on what makes them: who looks at a Deployment without pods finds out why.

use std::time::Duration;

use k8s_openapi::api::core::v1::Event;
use kube::{Api, Client, api::PostParams};
use serde_json::Value;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use super::counts::{Counts, Told};
use crate::cluster::events::{About, MAX_FIELD, Pace, Saying, Unsaid};

/// Refusals that wait to be told.
pub(super) const MAX_WAITING: usize = 64;
/// The same is not said again for so long.
const QUIET: Duration = Duration::from_secs(300);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest text of an event.
const MAX_TEXT: usize = 1024;

/// A pod that may not start.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Refusal {
    /// What makes it.
    owner: About,
    why: String,
}

impl Refusal {
    /// Of a pod with its controller, or of its namespace if nothing makes it.
    pub(super) fn new(namespace: &str, pod: &Value, reasons: &[String]) -> Self {
        let owners = pod["metadata"]["ownerReferences"].as_array();
        let owner = owners.and_then(|owners| {
            owners
                .iter()
                .find(|owner| owner["controller"].as_bool() == Some(true))
        });
        let field = |name: &str| -> String {
            let text = owner.and_then(|owner| owner[name].as_str());
            text.unwrap_or_default().chars().take(MAX_FIELD).collect()
        };
        let namespace = namespace.to_owned();
        let owner = match owner {
            Some(_) => {
                let [kind, api_version, name, uid] =
                    ["kind", "apiVersion", "name", "uid"].map(field);
                About { namespace, api_version, kind, name, uid }
            }
            None => About {
                name: namespace.clone(),
                namespace,
                api_version: "v1".into(),
                kind: "Namespace".into(),
                uid: String::new(),
            },
        };
        let why = reasons.join("; ").chars().take(MAX_TEXT).collect();
        Self { owner, why }
    }

    fn saying(&self) -> Saying {
        let message = self.why.clone();
        Saying { component: "outrider-webhook", is_normal: false, reason: "PodRefused", message }
    }
}

/// Tells what comes, until nobody can say anything any more.
pub(super) async fn tell(client: Client, mut refusals: mpsc::Receiver<Refusal>, counts: &Counts) {
    let mut pace = Pace::new(Instant::now());
    while let Some(refusal) = refusals.recv().await {
        if let Err(unsaid) = pace.admit(&refusal, QUIET, Instant::now()) {
            counts.told(match unsaid {
                Unsaid::Repeated => Told::Repeated,
                Unsaid::TooMany => Told::TooMany,
            });
            continue;
        }
        let events: Api<Event> = Api::namespaced(client.clone(), &refusal.owner.namespace);
        let event = refusal.owner.event(&refusal.saying());
        let parameters = PostParams::default();
        match timeout(PATIENCE, events.create(&parameters, &event)).await {
            Ok(Ok(_)) => counts.told(Told::Sent),
            failed => {
                counts.told(Told::Failed);
                tracing::debug!(?failed, "event not taken");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refusal(name: &str) -> Refusal {
        let owner = json!({ "kind": "ReplicaSet", "apiVersion": "apps/v1", "name": name,
            "uid": "1", "controller": true });
        let pod = json!({ "metadata": { "ownerReferences": [owner] } });
        Refusal::new("shop", &pod, &["bad".to_owned()])
    }

    #[test]
    fn an_event_is_about_what_makes_the_pod_or_about_its_namespace() {
        let refusal = refusal("web");
        let about = refusal.owner.event(&refusal.saying()).involved_object;
        assert_eq!(
            (about.kind.as_deref(), about.name.as_deref()),
            (Some("ReplicaSet"), Some("web"))
        );
        let event = Refusal::new("shop", &json!({}), &["bad".to_owned()]);
        let event = event.owner.event(&event.saying());
        assert_eq!(event.involved_object.kind.as_deref(), Some("Namespace"));
        assert_eq!(event.involved_object.namespace, event.metadata.namespace);
    }
}
