//! Simulated bridges, one a node: they link to whoever leads, take what they are told, and say at once that their
//! proxies run it.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use outrider_api::cluster::{Applied, Update, WorkloadState};
use parking_lot::Mutex;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::bridge::Bridge;

/// How often a bridge looks whether other pods are here.
const LOOK: Duration = Duration::from_millis(500);

/// When an object's rule came, and to how many bridges so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Came {
    pub(crate) bridges: usize,
    pub(crate) last: Instant,
}

/// What all bridges have in common.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// By the object of the rule.
    pub(crate) came: Mutex<HashMap<String, Came>>,
    /// Uids of pods by node.
    pub(crate) pods: Mutex<HashMap<String, BTreeSet<String>>>,
    pub(crate) linked: AtomicUsize,
    /// Links that were made.
    pub(crate) links: AtomicUsize,
}

impl Shared {
    /// To how many bridges the rule of an object came, and when it came to the last.
    pub(crate) fn came(&self, object: &str) -> Option<Came> {
        self.came.lock().get(object).copied()
    }

    fn hear(&self, update: &Update) {
        let mut came = self.came.lock();
        for rule in &update.rules {
            let object = rule.origin.split('/').nth(2).unwrap_or_default();
            let now = Instant::now();
            let one = came
                .entry(object.to_owned())
                .or_insert(Came { bridges: 0, last: now });
            (one.bridges, one.last) = (one.bridges + 1, now);
        }
    }
}

/// All bridges. They end with it.
pub(crate) struct Fleet {
    pub(crate) shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

impl Fleet {
    /// They link once there is somebody.
    pub(crate) fn new(shared: Arc<Shared>, ports: &[u16], ca: &str, tokens: &[String]) -> Self {
        let mut tasks = JoinSet::new();
        for (at, token) in tokens.iter().enumerate() {
            let (ports, ca, token) = (ports.to_vec(), ca.to_owned(), token.clone());
            let (shared, node) = (Arc::clone(&shared), format!("n{at}"));
            tasks.spawn(async move {
                loop {
                    let bridge = Bridge::link_leader(&ports, &ca, &token, &node).await;
                    shared.linked.fetch_add(1, Ordering::Relaxed);
                    shared.links.fetch_add(1, Ordering::Relaxed);
                    serve(bridge, &shared, &node).await;
                    shared.linked.fetch_sub(1, Ordering::Relaxed);
                }
            });
        }
        Self { shared, tasks }
    }

    pub(crate) fn linked(&self) -> usize {
        self.shared.linked.load(Ordering::Relaxed)
    }

    /// Whether one of them broke.
    pub(crate) fn is_broken(&mut self) -> bool {
        self.tasks.try_join_next().is_some()
    }
}

async fn serve(mut bridge: Bridge, shared: &Arc<Shared>, node: &str) {
    let heard = Arc::clone(shared);
    bridge.heard = Some(Arc::new(move |update| heard.hear(update)));
    let mut told = None;
    loop {
        let own = shared.pods.lock().get(node).cloned().unwrap_or_default();
        let now = (bridge.revision, own);
        if told.as_ref() != Some(&now) {
            if !bridge.apply(applied(&now)).await {
                return;
            }
            told = Some(now);
        }
        if timeout(LOOK, bridge.next()).await == Ok(false) {
            return;
        }
    }
}

fn applied((revision, own): &(u64, BTreeSet<String>)) -> Applied {
    let state = |uid: &String| WorkloadState {
        uid: uid.clone(),
        connected: true,
        revision: *revision,
        mode: "Discover".into(),
        ..WorkloadState::default()
    };
    Applied {
        revision: *revision,
        workloads: own.iter().map(state).collect(),
        ..Applied::default()
    }
}
