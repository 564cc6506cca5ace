//! Events about pods that may not start, on what makes them: who looks at a Deployment without pods finds out why.

use std::{
    collections::{HashMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    time::Duration,
};

use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use serde_json::Value;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use super::counts::{Counts, Told};

/// Refusals that wait to be told.
pub(super) const MAX_WAITING: usize = 64;
/// The same is not said again for so long.
const QUIET: Duration = Duration::from_secs(300);
/// Things said that are remembered.
const MAX_REMEMBERED: usize = 1024;
/// Events that are told at once, and time until one more may be.
const BURST: u32 = 25;
const REFILL: Duration = Duration::from_secs(1);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest text of an event.
const MAX_TEXT: usize = 1024;

/// A pod that may not start.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Refusal {
    namespace: String,
    /// Kind, API version, name and uid of what makes it.
    owner: [String; 4],
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
        let field = |name: &str| {
            let text = owner.and_then(|owner| owner[name].as_str());
            text.unwrap_or_default().chars().take(MAX_FIELD).collect()
        };
        let owner = match owner {
            Some(_) => ["kind", "apiVersion", "name", "uid"].map(field),
            None => ["Namespace", "v1", namespace, ""].map(str::to_owned),
        };
        let why = reasons.join("; ").chars().take(MAX_TEXT).collect();
        Self { namespace: namespace.to_owned(), owner, why }
    }

    fn event(&self) -> Event {
        let [kind, api_version, name, uid] = self.owner.clone();
        let now = Timestamp::now();
        let time = Time(now);
        // Like kubectl's and everybody's: unique in the namespace and sorted by time.
        let own: String = name.chars().take(MAX_NAME).collect();
        let own = format!("{}.{:x}", own.trim_end_matches(['.', '-']), now.as_nanosecond());
        Event {
            metadata: ObjectMeta {
                name: Some(own),
                namespace: Some(self.namespace.clone()),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                kind: Some(kind),
                api_version: Some(api_version),
                name: Some(name),
                uid: Some(uid).filter(|uid| !uid.is_empty()),
                namespace: Some(self.namespace.clone()),
                ..ObjectReference::default()
            },
            reason: Some("PodRefused".into()),
            message: Some(self.why.clone()),
            type_: Some("Warning".into()),
            source: Some(EventSource {
                component: Some("outrider-webhook".into()),
                ..EventSource::default()
            }),
            first_timestamp: Some(time.clone()),
            last_timestamp: Some(time),
            count: Some(1),
            reporting_component: Some("outrider-webhook".into()),
            ..Event::default()
        }
    }
}

/// Tells what comes, until nobody can say anything any more.
pub(super) async fn tell(client: Client, mut refusals: mpsc::Receiver<Refusal>, counts: &Counts) {
    let mut pace = Pace::new(Instant::now());
    while let Some(refusal) = refusals.recv().await {
        if let Err(outcome) = pace.admit(&refusal, Instant::now()) {
            counts.told(outcome);
            continue;
        }
        let events: Api<Event> = Api::namespaced(client.clone(), &refusal.namespace);
        let (event, parameters) = (refusal.event(), PostParams::default());
        match timeout(PATIENCE, events.create(&parameters, &event)).await {
            Ok(Ok(_)) => counts.told(Told::Sent),
            failed => {
                counts.told(Told::Failed);
                tracing::debug!(?failed, "event not taken");
            }
        }
    }
}

/// How often it is said.
#[derive(Debug)]
struct Pace {
    said: HashMap<u64, Instant>,
    left: u32,
    filled: Instant,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self { said: HashMap::new(), left: BURST, filled: now }
    }

    fn admit(&mut self, refusal: &Refusal, now: Instant) -> Result<(), Told> {
        let mut hasher = DefaultHasher::new();
        refusal.hash(&mut hasher);
        let key = hasher.finish();
        let recent = |when: &Instant| now.duration_since(*when) < QUIET;
        if self.said.get(&key).is_some_and(recent) {
            return Err(Told::Repeated);
        }
        while self.left < BURST && now.duration_since(self.filled) >= REFILL {
            self.left += 1;
            self.filled += REFILL;
        }
        if self.left == BURST {
            self.filled = now;
        }
        if self.left == 0 {
            return Err(Told::TooMany);
        }
        self.left -= 1;
        if self.said.len() >= MAX_REMEMBERED {
            self.said.retain(|_, when| recent(when));
        }
        if self.said.len() < MAX_REMEMBERED {
            self.said.insert(key, now);
        }
        Ok(())
    }
}

/// Longest name, kind or version that is repeated.
const MAX_FIELD: usize = 253;
/// Characters of a name in the name of an event.
const MAX_NAME: usize = 200;

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
        let event = refusal("web").event();
        let about = event.involved_object;
        assert_eq!(
            (about.kind.as_deref(), about.name.as_deref()),
            (Some("ReplicaSet"), Some("web"))
        );
        let event = Refusal::new("shop", &json!({}), &["bad".to_owned()]).event();
        assert_eq!(event.involved_object.kind.as_deref(), Some("Namespace"));
        assert_eq!(event.involved_object.namespace, event.metadata.namespace);
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_is_said_once_and_many_are_not() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        assert!(pace.admit(&refusal("web"), now).is_ok());
        assert!(matches!(pace.admit(&refusal("web"), now), Err(Told::Repeated)));
        for at in 1..BURST {
            assert!(pace.admit(&refusal(&format!("web-{at}")), now).is_ok(), "{at}");
        }
        assert!(matches!(pace.admit(&refusal("more"), now), Err(Told::TooMany)));
        now += REFILL;
        assert!(pace.admit(&refusal("more"), now).is_ok());
        assert!(pace.admit(&refusal("most"), now).is_err());
        now += QUIET;
        assert!(pace.admit(&refusal("web"), now).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        for at in 0..2 * MAX_REMEMBERED {
            now += Duration::from_millis(1);
            assert!(pace.admit(&refusal(&format!("web-{at}")), now).is_ok());
            pace.left = BURST;
        }
        assert!(matches!(pace.admit(&refusal("web-0"), now), Err(Told::Repeated)));
        assert_eq!(pace.said.len(), MAX_REMEMBERED);
    }
}
