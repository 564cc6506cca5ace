//! De-duplication and rate limit per workload, kind and threat or rule. What is left out is never
//! forgotten: its number goes with the next event, and if none comes, the last one left out is sent
//! itself when its time is up.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::event::{Event, Kind};
use crate::store::{Change, Table};

/// How long the number of events is counted over.
pub(super) const WINDOW: Duration = Duration::from_secs(60);
/// How often it is looked for what is overdue.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Subjects that are told apart per workload; the rest of a kind share one.
pub(super) const MAX_SUBJECTS: usize = 128;

/// What events are counted by.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub(super) struct Subject {
    /// Which workload.
    pub(super) workload: String,
    /// Which kind.
    pub(super) kind: Kind,
    /// Which threat, rule or conversation; `None` for all that there is no room for.
    pub(super) what: Option<u64>,
}

#[derive(Debug)]
struct Bucket {
    began: Instant,
    /// Which records were sent in this window.
    sent: Vec<u64>,
    /// The last event that was left out, and all that were before it.
    pending: Option<Event>,
}

/// The limits of one node.
#[derive(Debug)]
pub(super) struct Limiter {
    rate: usize,
    buckets: BTreeMap<Subject, Bucket>,
    dirty: BTreeSet<Subject>,
    /// When it was looked for what is overdue.
    looked: Option<Instant>,
}

impl Limiter {
    /// Lets `rate` events of a subject pass in a window.
    pub(super) fn new(rate: usize) -> Self {
        Self { rate, buckets: BTreeMap::new(), dirty: BTreeSet::new(), looked: None }
    }

    /// Takes in an event that came of the record `record`; gives it back if it may pass.
    pub(super) fn admit(
        &mut self,
        subject: Subject,
        record: u64,
        mut event: Event,
        now: Instant,
    ) -> Option<Event> {
        let subject = self.with_room(subject);
        let fresh = || Bucket { began: now, sent: Vec::new(), pending: None };
        let bucket = self.buckets.entry(subject.clone()).or_insert_with(fresh);
        if now.duration_since(bucket.began) >= WINDOW {
            bucket.began = now;
            bucket.sent.clear();
        }
        if let Some(before) = bucket.pending.take() {
            event.suppressed = before.suppressed.saturating_add(before.count);
            self.dirty.insert(subject.clone());
        }
        if bucket.sent.len() < self.rate && !bucket.sent.contains(&record) {
            bucket.sent.push(record);
            return Some(event);
        }
        bucket.pending = Some(event);
        self.dirty.insert(subject);
        None
    }

    /// Events that were left out and whose window is over; quiet subjects are forgotten.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<Event> {
        let mut due = Vec::new();
        if self
            .looked
            .is_some_and(|at| now.duration_since(at) < LOOK_EVERY)
        {
            return due;
        }
        self.looked = Some(now);
        self.buckets.retain(|subject, bucket| {
            if now.duration_since(bucket.began) < WINDOW {
                return true;
            }
            bucket.began = now;
            bucket.sent.clear();
            let Some(event) = bucket.pending.take() else { return false };
            self.dirty.insert(subject.clone());
            due.push(event);
            true
        });
        due
    }

    /// Takes back what was left out when it was stored; it is sent at the next look.
    pub(super) fn take_back(&mut self, subject: Subject, event: Event, now: Instant) {
        let began = now.checked_sub(WINDOW).unwrap_or(now);
        let bucket = Bucket { began, sent: Vec::new(), pending: Some(event) };
        self.buckets.insert(subject, bucket);
    }

    /// What changed among the events left out.
    pub(super) fn take_changes(&mut self) -> Vec<Change> {
        let row = |subject: Subject| {
            let pending = self
                .buckets
                .get(&subject)
                .and_then(|bucket| bucket.pending.as_ref());
            let value = pending.and_then(|event| serde_json::to_vec(event).ok());
            let key = serde_json::to_vec(&subject).ok()?;
            Some(Change { table: Table::Pending, key, value })
        };
        std::mem::take(&mut self.dirty)
            .into_iter()
            .filter_map(row)
            .collect()
    }

    fn with_room(&self, subject: Subject) -> Subject {
        if self.buckets.contains_key(&subject) {
            return subject;
        }
        let first = Subject { workload: subject.workload.clone(), kind: Kind::Threat, what: None };
        let known = self
            .buckets
            .range(first..)
            .take_while(|(known, _)| known.workload == subject.workload);
        if known.count() < MAX_SUBJECTS { subject } else { Subject { what: None, ..subject } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::event::example;

    fn subject(what: u64) -> Subject {
        Subject { workload: "default/cache".into(), kind: Kind::Threat, what: Some(what) }
    }

    fn event(count: u64) -> Event {
        Event { count, ..example() }
    }

    #[test]
    fn equal_findings_pass_once_a_window_and_the_next_event_says_how_many_were_left_out() {
        let (mut limiter, now) = (Limiter::new(3), Instant::now());
        assert!(limiter.admit(subject(1), 7, event(1), now).is_some());
        assert!(limiter.admit(subject(1), 7, event(2), now).is_none());
        assert!(limiter.admit(subject(1), 7, event(3), now).is_none());
        assert!(limiter.admit(subject(2), 7, event(1), now).is_some(), "another subject");
        let other = limiter.admit(subject(1), 8, event(1), now).unwrap();
        assert_eq!((other.count, other.suppressed), (1, 5));
    }

    #[test]
    fn more_than_the_rate_is_left_out_and_sent_when_the_window_is_over() {
        let (mut limiter, now) = (Limiter::new(2), Instant::now());
        let passed = (0..10)
            .filter_map(|record| limiter.admit(subject(1), record, event(1), now))
            .count();
        assert_eq!(passed, 2);
        assert!(limiter.overdue(now).is_empty());
        let due = limiter.overdue(now + WINDOW);
        assert_eq!((due[0].count, due[0].suppressed, due.len()), (1, 7, 1));
        assert!(limiter.overdue(now + WINDOW * 2).is_empty());
        assert!(limiter.buckets.is_empty(), "a quiet subject takes no memory");
    }

    #[test]
    fn what_was_left_out_survives_a_restart() {
        let (mut limiter, now) = (Limiter::new(1), Instant::now());
        for record in 0..3 {
            drop(limiter.admit(subject(1), record, event(1), now));
        }
        let changes = limiter.take_changes();
        let mut other = Limiter::new(1);
        for Change { key, value, .. } in changes {
            let subject = serde_json::from_slice(&key).unwrap();
            let event = serde_json::from_slice(&value.unwrap()).unwrap();
            other.take_back(subject, event, now + WINDOW);
        }
        assert_eq!(other.overdue(now + WINDOW)[0].suppressed, 1);
        assert_eq!(other.take_changes()[0].value, None);
    }

    #[test]
    fn a_workload_that_invents_threats_gets_one_bucket_for_the_rest() {
        let (mut limiter, now) = (Limiter::new(1), Instant::now());
        let passed = (0..10_000)
            .filter_map(|what| limiter.admit(subject(what), what, event(1), now))
            .count();
        assert_eq!(passed, MAX_SUBJECTS + 1);
        assert_eq!(limiter.buckets.len(), MAX_SUBJECTS + 1);
    }
}
