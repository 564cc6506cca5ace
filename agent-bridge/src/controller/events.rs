//! Events on workloads: what people should see with `kubectl describe deployment` and would look for nowhere else. Few:
//! the same once in a while, and never many at a time.

mod happened;
mod uncovered;

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::{
        apps::v1::ReplicaSet,
        core::v1::{Event, Pod as ApiPod},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{Api, Client, api::PostParams};
use tokio::time::{Instant, timeout};

pub(super) use happened::{Happened, MAX_OF_BATCH, Queue, Violation};

use super::{links::Links, plan::Pod, published::Published, store::Store};
use crate::cluster::events::{About, Pace, Saying, Unsaid};

/// The same is said again after so long.
const AGAIN: Duration = Duration::from_secs(900);
/// The same, of what stays as it is until somebody does something.
const SELDOM: Duration = Duration::from_secs(6 * 3600);
/// Events of one turn.
const MAX_EVENTS: usize = 20;
/// Between two looks for pods without a proxy.
const LOOK: Duration = Duration::from_secs(60);
/// Who says it.
const COMPONENT: &str = "outrider-controller";
/// Time for one call.
const CALL_TIME: Duration = Duration::from_secs(5);

/// Tells of what people should see.
pub(super) struct Events {
    client: Client,
    /// Our own namespace, which nothing is injected into.
    own: String,
    pace: Pace,
    looked: Option<Instant>,
}

/// Something to be said of the workload that a pod is of.
#[derive(Debug)]
struct Due {
    pod: Arc<Pod>,
    /// What is the same as what was said of the workload before.
    same: String,
    quiet: Duration,
    saying: Saying,
}

impl Due {
    fn new(pod: &Arc<Pod>, reason: &'static str, same: String, message: String) -> Self {
        let saying = Saying { component: COMPONENT, is_normal: false, reason, message };
        Self { pod: Arc::clone(pod), same, quiet: AGAIN, saying }
    }
}

impl Events {
    pub(super) fn new(client: Client, own: &str) -> Self {
        Self { client, own: own.to_owned(), pace: Pace::new(Instant::now()), looked: None }
    }

    /// Says what is new; an event that cannot be written is counted and not written.
    pub(super) async fn tell(&mut self, links: &Links, store: &Store) {
        let mut said = 0;
        for due in self.due(links, store) {
            let pod = &due.pod;
            let what = (&pod.namespace, &pod.service, due.saying.reason, &due.same);
            let outcome = match self.pace.admit(&what, due.quiet, Instant::now()) {
                Ok(()) if Box::pin(self.say(&due, links)).await => "sent",
                Ok(()) => "failed",
                Err(Unsaid::Repeated) => "repeated",
                Err(Unsaid::TooMany) => "too-many",
            };
            if outcome != "repeated" {
                links.counts.told.with(&[outcome]).inc();
            }
            said += usize::from(outcome == "sent");
            // While the API server does not answer nobody is kept waiting for the others.
            if outcome == "failed" || said >= MAX_EVENTS {
                return;
            }
        }
    }

    fn due(&mut self, links: &Links, store: &Store) -> Vec<Due> {
        let now = links.published.read();
        let mut due = refused(links, &now);
        let happened = links.happened.lock().take();
        due.extend(happened.iter().filter_map(|one| one.due(&now)));
        if self.looked.is_none_or(|at| at.elapsed() >= LOOK) {
            self.looked = Some(Instant::now());
            let namespaces = store.tables.lock().labels_of_namespaces();
            due.extend(uncovered::look(&now, &namespaces, &self.own));
        }
        due
    }

    async fn say(&self, due: &Due, links: &Links) -> bool {
        let about = Box::pin(self.owner(&due.pod, links)).await;
        let events = Api::<Event>::namespaced(self.client.clone(), &about.namespace);
        let (parameters, event) = (PostParams::default(), about.event(&due.saying));
        called(links, ["create", "events"], events.create(&parameters, &event))
            .await
            .is_some()
    }

    /// The workload that a pod is of: what owns it, or what owns its ReplicaSet; the pod itself, if nothing does or
    /// the API server does not say.
    async fn owner(&self, pod: &Pod, links: &Links) -> About {
        let itself = About {
            namespace: pod.namespace.to_string(),
            api_version: "v1".into(),
            kind: "Pod".into(),
            name: pod.name.to_string(),
            uid: pod.uid.to_string(),
        };
        let pods = Api::<ApiPod>::namespaced(self.client.clone(), &pod.namespace);
        let found = called(links, ["get", "pods"], pods.get_metadata(&pod.name)).await;
        let found = found.map(|found| found.metadata);
        let found = found.filter(|meta| meta.uid.as_deref() == Some(&*pod.uid));
        let Some(owner) = found.as_ref().and_then(controller) else { return itself };
        let owned = about(owner, &itself.namespace);
        if owner.kind != "ReplicaSet" {
            return owned;
        }
        let sets = Api::<ReplicaSet>::namespaced(self.client.clone(), &pod.namespace);
        let found = called(links, ["get", "replicasets"], sets.get_metadata(&owner.name)).await;
        let above = found.as_ref().and_then(|set| controller(&set.metadata));
        above.map_or(owned, |owner| about(owner, &itself.namespace))
    }
}

/// Waits for a call and counts it.
async fn called<T>(
    links: &Links,
    call: [&str; 2],
    answer: impl Future<Output = Result<T, kube::Error>>,
) -> Option<T> {
    links.counts.calls.with(&call).inc();
    match timeout(CALL_TIME, answer).await {
        Ok(Ok(found)) => Some(found),
        failed => {
            links.counts.calls_failed.with(&call).inc();
            let error = failed.map(|answer| answer.err());
            tracing::debug!(?call, ?error, "not told with all that belongs to it");
            None
        }
    }
}

fn controller(meta: &ObjectMeta) -> Option<&OwnerReference> {
    let mut owners = meta.owner_references.iter().flatten();
    owners.find(|owner| owner.controller == Some(true))
}

fn about(owner: &OwnerReference, namespace: &str) -> About {
    About {
        namespace: namespace.to_owned(),
        api_version: owner.api_version.clone(),
        kind: owner.kind.clone(),
        name: owner.name.clone(),
        uid: owner.uid.clone(),
    }
}

/// Proxies that do not take their policy.
fn refused(links: &Links, now: &Published) -> Vec<Due> {
    let mut due = Vec::new();
    for (_, link) in links.all() {
        let link = link.lock();
        let refused = link
            .states
            .values()
            .filter(|state| !state.refused.is_empty());
        for state in refused {
            let Some(pod) = now.pods.get(&*state.uid) else { continue };
            let text = &state.refused;
            let message = format!(
                "the proxy of {} keeps the policy it has, it did not take the newest: {text}",
                pod.name
            );
            due.push(Due::new(pod, "PolicyRefused", text.clone(), message));
        }
    }
    due
}

#[cfg(test)]
mod tests;
