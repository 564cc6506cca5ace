//! Events on workloads: what people should see with `kubectl describe pod` and would look for nowhere else.

use std::{collections::HashMap, sync::Arc, time::Duration};

use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use tokio::time::{Instant, timeout};

use super::{links::Links, plan::Pod};

/// The same is said again after so long.
const AGAIN: Duration = Duration::from_secs(900);
/// Events of one turn.
const MAX_EVENTS: usize = 20;
/// What was said is remembered of so many workloads.
const MAX_SAID: usize = 16_384;
/// Longest beginning of an event's name.
const MAX_NAME: usize = 200;
/// Who says it.
const COMPONENT: &str = "outrider-controller";
/// Time for one call.
const WRITE_TIME: Duration = Duration::from_secs(5);

/// Tells of proxies that do not take their policy.
pub(super) struct Events {
    client: Client,
    said: HashMap<Arc<str>, (String, Instant)>,
}

impl Events {
    pub(super) fn new(client: Client) -> Self {
        Self { client, said: HashMap::new() }
    }

    /// Says what is new; an event that cannot be written is counted and not written.
    pub(super) async fn tell(&mut self, links: &Links) {
        for (pod, refused) in self.due(links) {
            let events = Api::<Event>::namespaced(self.client.clone(), &pod.namespace);
            links.counts.calls.with(&["create", "events"]).inc();
            let (parameters, event) = (PostParams::default(), event(&pod, &refused));
            let told = timeout(WRITE_TIME, events.create(&parameters, &event)).await;
            if !matches!(told, Ok(Ok(_))) {
                links.counts.calls_failed.with(&["create", "events"]).inc();
            }
            if self.said.len() >= MAX_SAID {
                self.said.retain(|_, (_, at)| at.elapsed() < AGAIN);
            }
            if self.said.len() < MAX_SAID {
                self.said
                    .insert(Arc::clone(&pod.uid), (refused, Instant::now()));
            }
        }
    }

    fn due(&self, links: &Links) -> Vec<(Arc<Pod>, String)> {
        let now = links.published.read();
        let mut due = Vec::new();
        for (_, link) in links.all() {
            let link = link.lock();
            let refused = link
                .states
                .values()
                .filter(|state| !state.refused.is_empty());
            for state in refused.filter(|state| !self.is_said(&state.uid, &state.refused)) {
                if due.len() >= MAX_EVENTS {
                    return due;
                }
                let pod = now.pods.get(&*state.uid);
                due.extend(pod.map(|pod| (Arc::clone(pod), state.refused.clone())));
            }
        }
        due
    }

    fn is_said(&self, uid: &str, refused: &str) -> bool {
        let said = self.said.get(uid);
        said.is_some_and(|(text, at)| text == refused && at.elapsed() < AGAIN)
    }
}

fn event(pod: &Pod, refused: &str) -> Event {
    let now = Timestamp::now();
    let name: String = pod.name.chars().take(MAX_NAME).collect();
    Event {
        metadata: ObjectMeta {
            // Like kubectl's and everybody's: unique in the namespace and sorted by time.
            name: Some(format!("{}.{:x}", name.trim_end_matches(['.', '-']), now.as_nanosecond())),
            namespace: Some(pod.namespace.to_string()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            namespace: Some(pod.namespace.to_string()),
            name: Some(pod.name.to_string()),
            uid: Some(pod.uid.to_string()),
            ..ObjectReference::default()
        },
        type_: Some("Warning".into()),
        reason: Some("PolicyRefused".into()),
        message: Some(format!(
            "the proxy keeps the policy it has, it did not take the newest: {refused}"
        )),
        source: Some(EventSource { component: Some(COMPONENT.into()), ..EventSource::default() }),
        reporting_component: Some(COMPONENT.into()),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        count: Some(1),
        ..Event::default()
    }
}
