//! Changed records in, events out.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
};

use outrider_learn::{Change as Learned, Conversation, Endpoint, Record, Violation};
use outrider_model::PolicyAction;
use tokio::time::Instant;

use super::{
    ExportSettings,
    counts::ExportCounts,
    event::{End, Event, Kind},
    limit::{Limiter, Subject},
};
use crate::{node::Reported, store::Change};

/// Reads what the node is about to store.
#[derive(Debug)]
pub(super) struct Feed {
    kinds: Vec<Kind>,
    node: String,
    /// What each record stood for when it was read last, by the hash of its key.
    totals: HashMap<u64, u64>,
    hashes: RandomState,
    limiter: Limiter,
    counts: ExportCounts,
}

impl Feed {
    /// Makes events of the wanted kinds; none if there is no sink.
    pub(super) fn new(settings: &ExportSettings, counts: ExportCounts) -> Self {
        let kinds = if settings.sinks().is_empty() { Vec::new() } else { settings.kinds.clone() };
        Self {
            kinds,
            node: host_name(),
            totals: HashMap::new(),
            hashes: RandomState::new(),
            limiter: Limiter::new(settings.rate),
            counts,
        }
    }

    pub(super) fn known_learned(&mut self, key: &[u8], record: &Record) {
        let (kind, total) = match record {
            Record::Violation(known) => (Kind::Violation, known.count.total()),
            Record::Conversation(known) => (Kind::Conversation, known.sessions),
            _ => return,
        };
        self.known(kind, key, total);
    }

    pub(super) fn known_threat(&mut self, key: &[u8], value: &[u8]) {
        if let Ok(known) = serde_json::from_slice::<Reported>(value) {
            self.known(Kind::Threat, key, known.told());
        }
    }

    fn known(&mut self, kind: Kind, key: &[u8], total: u64) {
        if self.kinds.contains(&kind) {
            self.totals.insert(self.hashes.hash_one(key), total);
        }
    }

    /// Takes back an event that was left out.
    pub(super) fn take_back(&mut self, key: &[u8], value: &[u8]) -> bool {
        let subject = serde_json::from_slice::<Subject>(key);
        let (Ok(subject), Ok(event)) = (subject, serde_json::from_slice(value)) else {
            return false;
        };
        self.limiter.take_back(subject, event, Instant::now());
        true
    }

    /// The events that may pass.
    pub(super) fn read(
        &mut self,
        learned: &[Learned],
        threats: &[Change],
        now: Instant,
    ) -> Vec<Event> {
        let mut passed = self.limiter.overdue(now);
        for Learned { key, record } in learned {
            let made = match record {
                Some(Record::Violation(known)) => self
                    .more(Kind::Violation, key.as_bytes(), known.count.total())
                    .map(|more| violation(known, more)),
                Some(Record::Conversation(known)) => self
                    .more(Kind::Conversation, key.as_bytes(), known.sessions)
                    .map(|more| conversation(known, more)),
                Some(_) => None,
                None => self.forget(key.as_bytes()),
            };
            passed.extend(made.and_then(|event| self.admit(key.as_bytes(), event, now)));
        }
        for Change { key, value, .. } in threats {
            let known = value.as_deref().map(serde_json::from_slice::<Reported>);
            let made = match known {
                Some(Ok(known)) => self
                    .more(Kind::Threat, key, known.told())
                    .map(|more| threat(known, more)),
                _ => self.forget(key),
            };
            passed.extend(made.and_then(|event| self.admit(key, event, now)));
        }
        for event in &passed {
            self.counts.event(event.kind, 1);
            self.counts.suppressed(event.kind, event.suppressed);
        }
        passed
    }

    /// Rows to be stored.
    pub(super) fn take_changes(&mut self) -> Vec<Change> {
        self.limiter.take_changes()
    }

    /// How much a record grew since it was read last; nothing if it did not or nobody asked.
    fn more(&mut self, kind: Kind, key: &[u8], total: u64) -> Option<u64> {
        if !self.kinds.contains(&kind) {
            return None;
        }
        let before = self
            .totals
            .insert(self.hashes.hash_one(key), total)
            .unwrap_or_default();
        // A record that shrank was evicted and begun again in between.
        let more = if total < before { total } else { total - before };
        (more > 0).then_some(more)
    }

    fn forget(&mut self, key: &[u8]) -> Option<Event> {
        self.totals.remove(&self.hashes.hash_one(key));
        None
    }

    fn admit(&mut self, key: &[u8], event: Event, now: Instant) -> Option<Event> {
        let event = Event { node: self.node.clone(), ..event }.bounded();
        let record = self.hashes.hash_one(key);
        let what = match event.kind {
            Kind::Threat => event.threat.into(),
            Kind::Violation => event.rule.into(),
            Kind::Conversation => record,
        };
        let subject =
            Subject { workload: event.workload.clone(), kind: event.kind, what: Some(what) };
        self.limiter.admit(subject, record, event, now)
    }
}

fn threat(known: Reported, count: u64) -> Event {
    let Reported { threat, inbound, .. } = known;
    let name = |is_own: bool| if is_own { threat.workload.clone() } else { String::new() };
    Event {
        id: String::new(),
        kind: Kind::Threat,
        time: threat.reported_at,
        node: String::new(),
        client: End { name: name(!inbound), ip: threat.client_ip, port: threat.client_port },
        server: End { name: name(inbound), ip: threat.server_ip, port: threat.server_port },
        workload: threat.workload,
        proto: String::new(),
        app: threat.app,
        rule: 0,
        threat: threat.id,
        name: threat.name,
        action: threat.action,
        severity: threat.severity,
        message: threat.message,
        count,
        suppressed: 0,
    }
}

fn violation(known: &Violation, count: u64) -> Event {
    let key = &known.key;
    let at_client = known.count.stopped > 0 && known.count.judged == 0;
    let severity = if known.action == PolicyAction::Deny { "medium" } else { "low" };
    Event {
        id: String::new(),
        kind: Kind::Violation,
        time: known.last_seen,
        node: String::new(),
        workload: judge(
            (&key.client, &known.client_name),
            (&key.server, &known.server_name),
            at_client,
        ),
        client: End { name: known.client_name.clone(), ip: key.client_ip.to_string(), port: 0 },
        server: End {
            name: known.server_name.clone(),
            ip: key.server_ip.to_string(),
            port: key.port,
        },
        proto: key.proto.to_string(),
        app: key.app.to_string(),
        rule: known.rule.0,
        threat: 0,
        name: String::new(),
        action: known.action.label().into(),
        severity: severity.into(),
        message: known.reason.clone(),
        count,
        suppressed: 0,
    }
}

fn conversation(known: &Conversation, count: u64) -> Event {
    let key = &known.key;
    let port = key.port;
    Event {
        id: String::new(),
        kind: Kind::Conversation,
        time: known.last_seen,
        node: String::new(),
        workload: judge(
            (&key.client, &known.client_name),
            (&key.server, &known.server_name),
            false,
        ),
        client: End { name: known.client_name.clone(), ip: String::new(), port: 0 },
        server: End { name: known.server_name.clone(), ip: String::new(), port },
        proto: key.proto.to_string(),
        app: key.app.to_string(),
        rule: known.rule.0,
        threat: 0,
        name: String::new(),
        action: known.action.label().into(),
        severity: "info".into(),
        message: format!("{} sessions, {} bytes so far", known.sessions, known.bytes),
        count,
        suppressed: 0,
    }
}

/// The workload whose proxy's word counts: the server's, if it has one and the client's did not
/// stop the flow before.
fn judge(
    (client, client_name): (&Endpoint, &str),
    (server, server_name): (&Endpoint, &str),
    at_client: bool,
) -> String {
    let is_workload = |end: &Endpoint| matches!(end, Endpoint::Workload(_));
    let by_client = is_workload(client) && (at_client || !is_workload(server));
    if by_client { client_name } else { server_name }.to_owned()
}

/// What the system calls this node.
pub(crate) fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use outrider_telemetry::Registry;
    use serde_json::json;

    use super::*;
    use crate::{settings::Settings, store::Table};

    fn feed(sink: Option<&str>) -> Feed {
        let read = |key: &str| (key == "OUTRIDER_EXPORT_FILE").then_some(sink).flatten();
        let settings = Settings::read(|key| read(key).map(str::to_owned)).unwrap();
        Feed::new(&settings.export, ExportCounts::register(&Registry::default()).unwrap())
    }

    fn value(count: u64) -> Vec<u8> {
        let threat = json!({
            "id": 2022, "name": "x", "severity": "high", "workload": "default/cache",
            "client_ip": "10.0.0.9", "client_port": 4000, "server_ip": "10.0.0.2",
            "server_port": 80, "app": "HTTP", "count": count, "action": "alert",
            "message": "two lengths", "evidence": "", "reported_at": 9, "inbound": true,
        });
        threat.to_string().into_bytes()
    }

    fn row(key: &str, value: Option<Vec<u8>>) -> Change {
        Change { table: Table::Threats, key: key.as_bytes().to_vec(), value }
    }

    #[test]
    fn an_event_stands_for_what_came_since_the_record_was_read_last() {
        let mut feed = feed(Some("-"));
        let now = Instant::now();
        feed.known_threat(b"old", &value(5));
        let rows = [row("old", Some(value(7))), row("new", Some(value(1)))];
        let events = feed.read(&[], &rows, now);
        let counts: Vec<_> = events.iter().map(|event| event.count).collect();
        assert_eq!(counts, [2, 1]);
        let server = End { name: "default/cache".into(), ip: "10.0.0.2".into(), port: 80 };
        assert_eq!((&events[0].server, events[0].client.name.as_str()), (&server, ""));
        assert!(feed.read(&[], &rows, now).is_empty(), "nothing is new");
        assert!(feed.read(&[], &[row("old", None)], now).is_empty());
        assert_eq!(feed.totals.len(), 1, "a record that is gone takes no memory");
    }

    #[test]
    fn without_a_sink_nothing_is_made_or_kept() {
        let mut feed = feed(None);
        feed.known_threat(b"old", &value(5));
        assert!(
            feed.read(&[], &[row("new", Some(value(1)))], Instant::now())
                .is_empty()
        );
        assert!(feed.totals.is_empty());
    }
}
