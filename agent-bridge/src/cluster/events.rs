//! Events of Kubernetes: what they are about, what they look like, and how often anything is said.

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
use tokio::time::Instant;

/// Things said that are remembered.
const MAX_REMEMBERED: usize = 16_384;
/// Events that are told at once, and time until one more may be.
const BURST: u32 = 25;
const REFILL: Duration = Duration::from_secs(1);
/// Longest name, kind or version that is repeated, in characters.
pub(crate) const MAX_FIELD: usize = 253;
/// Characters of a name in the name of an event.
const MAX_NAME: usize = 200;
/// Longest text of an event, in characters.
const MAX_TEXT: usize = 1024;

/// The object that an event is about.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) struct About {
    /// Where it lives; the event lives there too.
    pub(crate) namespace: String,
    /// Its API version.
    pub(crate) api_version: String,
    /// Its kind.
    pub(crate) kind: String,
    /// Its name.
    pub(crate) name: String,
    /// Its uid, empty if it is not known: `kubectl describe` does not show the event then.
    pub(crate) uid: String,
}

/// What is said.
#[derive(Clone, Debug)]
pub(crate) struct Saying {
    /// Who says it.
    pub(crate) component: &'static str,
    /// It is no warning.
    pub(crate) is_normal: bool,
    /// One word.
    pub(crate) reason: &'static str,
    /// For people.
    pub(crate) message: String,
}

impl About {
    /// The event that says so now.
    pub(crate) fn event(&self, saying: &Saying) -> Event {
        let now = Timestamp::now();
        let time = Time(now);
        // Like kubectl's and everybody's: unique in the namespace and sorted by time.
        let own: String = self.name.chars().take(MAX_NAME).collect();
        let own = format!("{}.{:x}", own.trim_end_matches(['.', '-']), now.as_nanosecond());
        let component = Some(saying.component.to_owned());
        Event {
            metadata: ObjectMeta {
                name: Some(own),
                namespace: Some(self.namespace.clone()),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                kind: Some(self.kind.clone()),
                api_version: Some(self.api_version.clone()),
                name: Some(self.name.clone()),
                uid: Some(self.uid.clone()).filter(|uid| !uid.is_empty()),
                namespace: Some(self.namespace.clone()),
                ..ObjectReference::default()
            },
            reason: Some(saying.reason.to_owned()),
            message: Some(saying.message.chars().take(MAX_TEXT).collect()),
            type_: Some(if saying.is_normal { "Normal" } else { "Warning" }.to_owned()),
            source: Some(EventSource { component: component.clone(), ..EventSource::default() }),
            first_timestamp: Some(time.clone()),
            last_timestamp: Some(time),
            count: Some(1),
            reporting_component: component,
            ..Event::default()
        }
    }
}

/// Why nothing is said.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Unsaid {
    /// It was said a while ago.
    Repeated,
    /// Too much is said.
    TooMany,
}

/// How often it is said: the same once in a while, and not too much of everything.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Until when it is not said again.
    said: HashMap<u64, Instant>,
    left: u32,
    filled: Instant,
}

impl Pace {
    /// Nothing was said yet.
    pub(crate) fn new(now: Instant) -> Self {
        Self { said: HashMap::new(), left: BURST, filled: now }
    }

    /// Whether it is said; the same is not for `quiet` then.
    pub(crate) fn admit(
        &mut self,
        what: &impl Hash,
        quiet: Duration,
        now: Instant,
    ) -> Result<(), Unsaid> {
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        let key = hasher.finish();
        if self.said.get(&key).is_some_and(|until| now < *until) {
            return Err(Unsaid::Repeated);
        }
        while self.left < BURST && now.duration_since(self.filled) >= REFILL {
            self.left += 1;
            self.filled += REFILL;
        }
        if self.left == BURST {
            self.filled = now;
        }
        if self.said.len() >= MAX_REMEMBERED {
            self.said.retain(|_, until| now < *until);
        }
        if self.left == 0 || self.said.len() >= MAX_REMEMBERED {
            return Err(Unsaid::TooMany);
        }
        self.left -= 1;
        self.said.insert(key, now + quiet);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Duration = Duration::from_secs(300);

    #[tokio::test(start_paused = true)]
    async fn the_same_is_said_once_and_many_are_not() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        assert_eq!(pace.admit(&"web", QUIET, now), Ok(()));
        assert_eq!(pace.admit(&"web", QUIET, now), Err(Unsaid::Repeated));
        for at in 1..BURST {
            assert_eq!(pace.admit(&at, QUIET, now), Ok(()), "{at}");
        }
        assert_eq!(pace.admit(&"more", QUIET, now), Err(Unsaid::TooMany));
        now += REFILL;
        assert_eq!(pace.admit(&"more", QUIET, now), Ok(()));
        assert_eq!(pace.admit(&"most", QUIET, now), Err(Unsaid::TooMany));
        now += QUIET;
        assert_eq!(pace.admit(&"web", QUIET, now), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded_and_nothing_is_said_beyond() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        for at in 0..MAX_REMEMBERED {
            assert_eq!(pace.admit(&at, QUIET, now), Ok(()));
            pace.left = BURST;
        }
        assert_eq!(pace.admit(&"more", QUIET, now), Err(Unsaid::TooMany));
        assert_eq!(pace.admit(&0_usize, QUIET, now), Err(Unsaid::Repeated));
        now += QUIET;
        assert_eq!(pace.admit(&"more", QUIET, now), Ok(()));
        assert_eq!(pace.said.len(), 1);
    }

    #[test]
    fn an_event_says_what_it_is_about_and_is_cut() {
        let about = About {
            namespace: "shop".into(),
            api_version: "apps/v1".into(),
            kind: "Deployment".into(),
            name: "web-".repeat(60),
            uid: String::new(),
        };
        let message = "x".repeat(2 * MAX_TEXT);
        let saying =
            Saying { component: "outrider-test", is_normal: true, reason: "Seen", message };
        let event = about.event(&saying);
        assert_eq!(event.type_.as_deref(), Some("Normal"));
        assert_eq!(event.message.map(|text| text.len()), Some(MAX_TEXT));
        let object = event.involved_object;
        assert_eq!((object.kind.as_deref(), object.uid), (Some("Deployment"), None));
        assert_eq!(object.namespace, event.metadata.namespace);
        assert!(
            event
                .metadata
                .name
                .is_some_and(|name| name.len() <= 253 && name.contains("web."))
        );
    }
}
