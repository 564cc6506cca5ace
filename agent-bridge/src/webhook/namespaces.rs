//! Labels and annotations of namespaces, known before anybody asks: no question waits for an answer of
//! somebody else.

pub(super) mod watch;

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use outrider_telemetry::unix_seconds;
use parking_lot::RwLock;
use serde::Deserialize;
use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};

use super::counts::Counts;
use crate::{inject::Namespace, stamp::Stamp};

/// Namespaces at most.
const MAX_NAMESPACES: usize = 65_536;
/// Bytes of a file at most.
const MAX_FILE: u64 = 256 << 20;
/// Between two looks at the file.
const LOOK: Duration = Duration::from_secs(1);

/// Namespaces by name.
#[derive(Debug)]
pub(super) struct Table {
    known: RwLock<HashMap<String, Arc<Namespace>>>,
    /// Since when nothing is heard of changes, seconds since the epoch; 0 while it is.
    old_since: AtomicU64,
    counts: Counts,
}

#[derive(Deserialize)]
struct List {
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

impl Table {
    pub(super) fn new(counts: Counts) -> Self {
        Self { known: RwLock::default(), old_since: AtomicU64::new(0), counts }
    }

    /// What is known of one.
    pub(super) fn get(&self, name: &str) -> Option<Arc<Namespace>> {
        self.known.read().get(name).cloned()
    }

    /// Reads all of them.
    ///
    /// # Errors
    /// When the file cannot be read, or holds something else; nothing changes then.
    pub(super) fn read(&self, path: &Path) -> io::Result<()> {
        let bad = |why: String| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", path.display()))
        };
        let mut text = Vec::new();
        File::open(path)
            .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut text))
            .map_err(|error| bad(error.to_string()))?;
        if u64::try_from(text.len()).is_ok_and(|length| length > MAX_FILE) {
            return Err(bad(format!("more than {MAX_FILE} bytes")));
        }
        let list: List = serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
        if list.items.len() > MAX_NAMESPACES {
            return Err(bad(format!("more than {MAX_NAMESPACES} namespaces")));
        }
        let all = list.items.into_iter();
        self.replace(all.map(|Item { metadata: Metadata { name, labels, annotations } }| {
            Namespace { name, labels, annotations }
        }));
        Ok(())
    }

    /// These are all of them, as of now.
    fn replace(&self, all: impl IntoIterator<Item = Namespace>) {
        let all = all.into_iter();
        let known = all.map(|namespace| (namespace.name.clone(), Arc::new(namespace)));
        let known = known.collect();
        *self.known.write() = known;
        self.counted();
        let since = self.old_since.swap(0, Ordering::Relaxed);
        self.counts.namespaces_old_since.set(0);
        if since > 0 {
            let seconds = unix_seconds().saturating_sub(since);
            tracing::info!(seconds, "namespaces are followed again");
        }
    }

    /// One is there, or is other than it was.
    fn put(&self, namespace: Namespace) {
        let mut known = self.known.write();
        if known.len() < MAX_NAMESPACES || known.contains_key(&namespace.name) {
            known.insert(namespace.name.clone(), Arc::new(namespace));
        } else {
            tracing::error!(namespace = %namespace.name, "more than {MAX_NAMESPACES} namespaces");
        }
        drop(known);
        self.counted();
    }

    /// One is gone.
    fn remove(&self, name: &str) {
        self.known.write().remove(name);
        self.counted();
    }

    fn counted(&self) {
        let known = self.known.read().len();
        self.counts
            .namespaces
            .set(i64::try_from(known).unwrap_or(i64::MAX));
    }

    /// Nothing is heard of changes from now on. What is known holds.
    fn outdated(&self, why: &str) {
        let now = unix_seconds();
        let first = self
            .old_since
            .compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        if first.is_ok() {
            let since = i64::try_from(now).unwrap_or(i64::MAX);
            self.counts.namespaces_old_since.set(since);
            tracing::warn!(why, "namespaces are not followed; keeping what is known");
        }
    }

    /// Seconds since which nothing is heard of changes, if so.
    pub(super) fn age(&self, now: u64) -> Option<u64> {
        let since = self.old_since.load(Ordering::Relaxed);
        (since > 0).then(|| now.saturating_sub(since))
    }

    /// Follows the file for ever.
    pub(super) async fn follow(self: Arc<Self>, path: PathBuf) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = None;
        loop {
            looks.tick().await;
            let now = Stamp::at(&path);
            if now != last {
                last = now;
                let (table, path) = (Arc::clone(&self), path.clone());
                // It may be large, and others want to go on.
                let read = spawn_blocking(move || table.read(&path)).await;
                if let Err(error) = read.unwrap_or_else(|panic| Err(io::Error::other(panic))) {
                    tracing::error!(%error, "namespaces cannot be read; keeping what is known");
                }
            }
        }
    }
}
