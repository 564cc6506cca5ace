//! Events that sinks still have to deliver: one log in memory and in the store, a cursor per sink.

use std::{collections::VecDeque, sync::Arc};

use outrider_telemetry::unix_seconds;

use super::{
    counts::{ExportCounts, Lost},
    event::Event,
    sink::Name,
};
use crate::store::{Change, Table};

/// Key of the record that names this spool and its last event, in [`Table::Cursors`].
const SELF_KEY: &[u8] = b"spool";

/// An event on its way.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Its number; there are no gaps.
    pub(super) number: u64,
    /// Since when it waits, Unix seconds.
    pub(super) time: u64,
    /// Its JSON.
    pub(super) json: Arc<str>,
}

#[derive(Debug)]
struct Cursor {
    sink: Name,
    /// The last event that is done with.
    done: Option<u64>,
    dirty: bool,
}

/// The log and its readers.
#[derive(Debug)]
pub(super) struct Spool {
    /// Distinguishes this store's events from any other's.
    instance: u64,
    cap: usize,
    bytes: usize,
    head: u64,
    head_dirty: bool,
    log: VecDeque<Entry>,
    cursors: Vec<Cursor>,
    changes: Vec<Change>,
    counts: ExportCounts,
}

impl Spool {
    /// Keeps at most `cap` bytes of events for `sinks`.
    pub(super) fn new(cap: usize, sinks: Vec<Name>, counts: ExportCounts) -> Self {
        let cursor = |sink| Cursor { sink, done: None, dirty: false };
        Self {
            instance: crate::pause::random(),
            cap,
            bytes: 0,
            head: 0,
            head_dirty: true,
            log: VecDeque::new(),
            cursors: sinks.into_iter().map(cursor).collect(),
            changes: Vec::new(),
            counts,
        }
    }

    /// The last event's number.
    pub(super) fn head(&self) -> u64 {
        self.head
    }

    /// Takes back a stored row; `false` if it makes no sense.
    pub(super) fn take_back(&mut self, table: Table, key: &[u8], value: &[u8]) -> bool {
        if table == Table::Events {
            return self.take_back_event(key, value).is_some();
        }
        if key == SELF_KEY {
            let Some((instance, head)) = value.split_first_chunk() else { return false };
            let Ok(head) = head.try_into().map(u64::from_be_bytes) else { return false };
            self.instance = u64::from_be_bytes(*instance);
            self.head = self.head.max(head);
            self.head_dirty = false;
            return true;
        }
        let Ok(done) = value.try_into().map(u64::from_be_bytes) else { return false };
        let known = self
            .cursors
            .iter_mut()
            .find(|cursor| cursor.sink.label().as_bytes() == key);
        match known {
            Some(cursor) => cursor.done = Some(done),
            // Nobody wants it any more: should the sink come back, it begins with what is new then.
            None => self.changes.push(cursor_row(key, None)),
        }
        true
    }

    fn take_back_event(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let number = u64::from_be_bytes(key.try_into().ok()?);
        let json = std::str::from_utf8(value).ok()?;
        let event: Event = serde_json::from_str(json).ok()?;
        self.bytes += json.len();
        self.head = self.head.max(number);
        self.log
            .push_back(Entry { number, time: event.time, json: json.into() });
        Some(())
    }

    /// The store was read to its end: a sink without a cursor begins with the next event.
    pub(super) fn restored(&mut self) {
        let head = self.head;
        for cursor in &mut self.cursors {
            cursor.dirty |= cursor.done.is_none();
            cursor.done = Some(cursor.done.unwrap_or(head).min(head));
        }
        self.make_room();
    }

    /// Gives an event its id and keeps it until every sink is done with it.
    pub(super) fn push(&mut self, mut event: Event) {
        if self.cursors.is_empty() {
            return;
        }
        self.head += 1;
        self.head_dirty = true;
        event.id = format!("{:016x}-{}", self.instance, self.head);
        let Ok(json) = serde_json::to_string(&event) else { return };
        self.bytes += json.len();
        let key = self.head.to_be_bytes().to_vec();
        let value = Some(json.clone().into_bytes());
        self.changes
            .push(Change { table: Table::Events, key, value });
        self.log
            .push_back(Entry { number: self.head, time: unix_seconds(), json: json.into() });
        self.make_room();
    }

    /// The next events for a sink up to the number `stored`, at most `most` of them and at most
    /// about `bytes`.
    pub(super) fn next(&self, sink: Name, stored: u64, most: usize, bytes: usize) -> Vec<Entry> {
        let mut room = bytes;
        self.log
            .range(self.after(self.done(sink))..)
            .take_while(|entry| entry.number <= stored)
            .take(most)
            .take_while(|entry| {
                let fits = room > 0;
                room = room.saturating_sub(entry.json.len());
                fits
            })
            .cloned()
            .collect()
    }

    /// A sink is done with everything up to this number; says how many of them it had not been.
    pub(super) fn done_with(&mut self, sink: Name, number: u64) -> u64 {
        let Some(cursor) = self.cursors.iter_mut().find(|cursor| cursor.sink == sink) else {
            return 0;
        };
        let before = cursor.done.unwrap_or_default();
        cursor.done = Some(before.max(number));
        cursor.dirty = true;
        self.make_room();
        number.saturating_sub(before)
    }

    /// Rows to be stored.
    pub(super) fn take_changes(&mut self) -> Vec<Change> {
        let mut changes = std::mem::take(&mut self.changes);
        if std::mem::take(&mut self.head_dirty) {
            let value = [self.instance.to_be_bytes(), self.head.to_be_bytes()].concat();
            changes.push(cursor_row(SELF_KEY, Some(value)));
        }
        for cursor in &mut self.cursors {
            if std::mem::take(&mut cursor.dirty) {
                let done = cursor.done.unwrap_or_default().to_be_bytes().to_vec();
                changes.push(cursor_row(cursor.sink.label().as_bytes(), Some(done)));
            }
        }
        changes
    }

    /// How many events wait for each sink, and the age of the oldest in seconds. `now` is in Unix
    /// seconds.
    pub(super) fn waiting(&self, now: u64) -> impl Iterator<Item = (Name, u64, u64)> {
        self.cursors.iter().map(move |cursor| {
            let done = cursor.done.unwrap_or_default();
            let oldest = self.log.get(self.after(done));
            let lag = oldest.map_or(0, |entry| now.saturating_sub(entry.time));
            (cursor.sink, self.head.saturating_sub(done), lag)
        })
    }

    /// Where in the log the events after this number begin.
    fn after(&self, number: u64) -> usize {
        self.log.partition_point(|entry| entry.number <= number)
    }

    fn done(&self, sink: Name) -> u64 {
        let found = self.cursors.iter().find(|cursor| cursor.sink == sink);
        found.and_then(|cursor| cursor.done).unwrap_or_default()
    }

    /// Lets go of what every sink is done with, and of the oldest while there is too much.
    fn make_room(&mut self) {
        let everyone = self
            .cursors
            .iter()
            .map(|cursor| cursor.done.unwrap_or_default())
            .min();
        let everyone = everyone.unwrap_or(u64::MAX);
        while let Some(oldest) = self.log.front() {
            if oldest.number > everyone && self.bytes <= self.cap {
                break;
            }
            let (number, size) = (oldest.number, oldest.json.len());
            self.log.pop_front();
            self.bytes = self.bytes.saturating_sub(size);
            let key = number.to_be_bytes().to_vec();
            self.changes
                .push(Change { table: Table::Events, key, value: None });
            for cursor in &mut self.cursors {
                if cursor.done.unwrap_or_default() < number {
                    cursor.done = Some(number);
                    cursor.dirty = true;
                    self.counts.lost(cursor.sink, Lost::Overflow, 1);
                }
            }
        }
    }
}

fn cursor_row(key: &[u8], value: Option<Vec<u8>>) -> Change {
    Change { table: Table::Cursors, key: key.to_vec(), value }
}

#[cfg(test)]
mod tests {
    use outrider_telemetry::Registry;

    use super::*;
    use crate::export::event::example;

    fn spool(cap: usize, sinks: &[Name]) -> Spool {
        let counts = ExportCounts::register(&Registry::default()).unwrap();
        let mut spool = Spool::new(cap, sinks.to_vec(), counts);
        spool.restored();
        spool
    }

    fn numbers(spool: &Spool, sink: Name) -> Vec<u64> {
        let next = spool.next(sink, u64::MAX, usize::MAX, usize::MAX);
        next.iter().map(|entry| entry.number).collect()
    }

    fn restart(from: &mut Vec<Change>, old: &mut Spool, sinks: &[Name]) -> Spool {
        from.append(&mut old.take_changes());
        let mut rows = std::collections::BTreeMap::new();
        for change in from.iter() {
            rows.insert((change.table, change.key.clone()), change.value.clone());
        }
        let counts = ExportCounts::register(&Registry::default()).unwrap();
        let mut fresh = Spool::new(old.cap, sinks.to_vec(), counts);
        for ((table, key), value) in rows {
            if let Some(value) = value {
                assert!(fresh.take_back(table, &key, &value));
            }
        }
        fresh.restored();
        fresh
    }

    #[test]
    fn a_sink_that_is_down_holds_no_other_up_and_everyone_gets_everything() {
        let mut spool = spool(1 << 20, &[Name::File, Name::Webhook]);
        (0..5).for_each(|_| spool.push(example()));
        assert_eq!(numbers(&spool, Name::File), [1, 2, 3, 4, 5]);
        assert_eq!(spool.done_with(Name::File, 5), 5);
        assert!(numbers(&spool, Name::File).is_empty());
        assert_eq!(numbers(&spool, Name::Webhook), [1, 2, 3, 4, 5]);
        assert_eq!(spool.done_with(Name::Webhook, 2), 2);
        assert_eq!(spool.log.len(), 3, "what nobody needs is gone");
        assert_eq!(spool.next(Name::Webhook, 4, 9, usize::MAX).len(), 2, "only what is stored");
        assert_eq!(spool.next(Name::Webhook, 5, 9, 1).len(), 1, "bounded by bytes");
    }

    #[test]
    fn overflow_drops_the_oldest_and_counts_them_for_who_did_not_have_them() {
        let size = serde_json::to_string(&example()).unwrap().len() + 1;
        let mut spool = spool(3 * size, &[Name::File, Name::Syslog]);
        (0..3).for_each(|_| spool.push(example()));
        spool.done_with(Name::File, 3);
        (0..2).for_each(|_| spool.push(example()));
        assert_eq!(numbers(&spool, Name::Syslog), [3, 4, 5]);
        assert_eq!(spool.counts.lost_by(Name::Syslog, Lost::Overflow), 2);
        assert_eq!(spool.counts.lost_by(Name::File, Lost::Overflow), 0);
        assert_eq!(spool.done_with(Name::Syslog, 3), 1, "what was dropped meanwhile is not sent");
    }

    #[test]
    fn a_restart_goes_on_with_the_same_ids_and_never_uses_one_again() {
        let (mut rows, sinks) = (Vec::new(), [Name::Webhook]);
        let mut first = spool(1 << 20, &sinks);
        (0..3).for_each(|_| first.push(example()));
        first.done_with(Name::Webhook, 1);
        let before = first.next(Name::Webhook, 9, 9, usize::MAX);
        let mut second = restart(&mut rows, &mut first, &sinks);
        let after = second.next(Name::Webhook, 9, 9, usize::MAX);
        let json = |list: &[Entry]| list.iter().map(|one| one.json.clone()).collect::<Vec<_>>();
        assert_eq!(json(&after), json(&before));
        second.done_with(Name::Webhook, 3);
        let mut third = restart(&mut rows, &mut second, &sinks);
        third.push(example());
        assert_eq!(numbers(&third, Name::Webhook), [4]);
        assert_eq!(third.instance, first.instance);
    }

    #[test]
    fn a_sink_that_was_removed_holds_nothing_and_begins_anew() {
        let mut rows = Vec::new();
        let mut both = spool(1 << 20, &[Name::File, Name::Webhook]);
        (0..3).for_each(|_| both.push(example()));
        both.done_with(Name::File, 3);
        let mut file = restart(&mut rows, &mut both, &[Name::File]);
        assert!(file.log.is_empty());
        let mut back = restart(&mut rows, &mut file, &[Name::File, Name::Webhook]);
        back.push(example());
        assert_eq!(numbers(&back, Name::Webhook), [4]);
    }
}
