//! Labels and annotations of namespaces, known before anybody asks: no question waits for an answer of
//! somebody else.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::RwLock;
use serde::Deserialize;
use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};

use super::counts::Counts;
use crate::inject::Namespace;

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
        Self { known: RwLock::default(), counts }
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
        let known: HashMap<_, _> = list
            .items
            .into_iter()
            .map(|Item { metadata: Metadata { name, labels, annotations } }| {
                (name.clone(), Arc::new(Namespace { name, labels, annotations }))
            })
            .collect();
        self.counts
            .namespaces
            .set(i64::try_from(known.len()).unwrap_or(i64::MAX));
        *self.known.write() = known;
        Ok(())
    }

    /// Follows the file for ever.
    pub(super) async fn follow(self: Arc<Self>, path: PathBuf) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stamp = || -> Option<(SystemTime, u64)> {
            let found = fs::metadata(&path).ok()?;
            Some((found.modified().ok()?, found.len()))
        };
        let mut last = None;
        loop {
            looks.tick().await;
            let now = stamp();
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
