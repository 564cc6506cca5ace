//! What the node knows, in one place behind one lock: workloads, what they did, their modes and
//! rules. Reports come in, policy goes out, changes are handed to the store.

mod around;
mod asked;
#[cfg(test)]
mod bare;
mod capturing;
mod cluster;
mod commit;
mod coverage;
mod events;
mod explain;
mod kept;
mod learned;
mod pods;
mod policy;
mod ports;
mod rebuilt;
mod refusal;
mod report;
mod roster;
mod said;
mod samples;
mod sessions;
mod silence;
mod tell;
pub(crate) mod threats;
mod view;
mod written;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use outrider_api::{KubernetesStatus, StoreStatus};
use outrider_learn::{Group, Learner, Settings as LearnSettings};
use outrider_model::Mode;
use outrider_telemetry::unix_seconds;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::Instant,
};

pub(crate) use asked::Answers;
#[cfg(test)]
pub(crate) use bare::{bare, restored};
pub use commit::Committer;
pub(crate) use coverage::TIERS;
pub use events::Events;
pub(crate) use events::{Heard, Listener};
pub use refusal::Refusal;
pub(crate) use threats::Reported;

/// The learner's words in the API's.
pub(crate) mod shown {
    pub(crate) use super::learned::{conversation, rule, said, violation};
}

use crate::{
    captures::Captures,
    counts::Counts,
    export::Export,
    mailbox::{
        link::{Command, LinkState},
        load::Load,
        program::Desired,
        receive::BatchId,
        watch::{Change, Refused, Workload},
    },
    neuvector::Controller,
    settings::Settings,
    store::{Store, StoreError, Table},
};
use kept::Kept;
use ports::Ports;
use rebuilt::Rebuilt;
use roster::Roster;
use samples::Samples;

/// Commands that may wait for one link; more are dropped, and the proxy repeats what it missed.
const MAX_COMMANDS: usize = 64;

/// Batches by workload, in order: [`MAX_COMMANDS`] of each at most.
type Unacked = BTreeMap<String, Vec<BatchId>>;

/// The node's state and everything that may be asked of it.
#[derive(Debug)]
pub struct Node {
    state: Mutex<State>,
    counts: Counts,
    started: Instant,
    /// Wakes the committer before its time.
    wake: Notify,
    /// How many changes of the state are stored.
    committed: watch::Sender<u64>,
    store: Mutex<StoreStatus>,
    events: Arc<Events>,
    export: Export,
    captures: Captures,
    controller: Controller,
    /// How it stands with the API server, if it is asked.
    kubernetes: Mutex<Option<KubernetesStatus>>,
    written: written::Written,
}

#[derive(Debug)]
struct State {
    roster: Roster,
    learner: Learner,
    threats: Kept<threats::Reported>,
    held: tell::Held,
    samples: Samples,
    ports: BTreeMap<String, Ports>,
    modes: BTreeMap<Group, Mode>,
    rebuilt: Rebuilt,
    batches: BTreeMap<String, BatchId>,
    /// How often a workload's proxy began anew.
    restarts: BTreeMap<String, u64>,
    links: BTreeMap<String, LinkHandle>,
    silence: silence::Silence,
    refused: Vec<Refused>,
    broken: BTreeMap<String, String>,
    polled: bool,
    generation: u64,
    /// Counts changes, so that a waiter knows when its own is stored.
    version: u64,
    unsaved_modes: BTreeSet<Group>,
    unsaved_batches: BTreeSet<String>,
    pods: pods::Stored,
    surroundings: around::Sources,
    cluster: cluster::Cluster,
    /// Of the policy file.
    numbers: said::Numbers,
    /// To be acknowledged once what was taken with them is stored.
    unacked: Unacked,
    /// When the policy is to be compiled again, if it is.
    policy_due: Option<Instant>,
    /// The group whose policy was compiled last: the next one's turn comes first.
    published: Option<Group>,
    around: policy::Around,
    events: Arc<Events>,
    controller: Controller,
}

/// The node's part of a link.
#[derive(Debug)]
struct LinkHandle {
    /// When the proxy was first to have something that it may not have yet.
    published: Instant,
    desired: watch::Sender<Arc<Desired>>,
    commands: mpsc::Sender<Command>,
    state: watch::Receiver<LinkState>,
    load: Arc<Load>,
}

/// The link task's part.
#[derive(Debug)]
pub struct LinkParts {
    /// What the proxy is to have.
    pub desired: watch::Receiver<Arc<Desired>>,
    /// What the node asks.
    pub commands: mpsc::Receiver<Command>,
    /// What the node sees.
    pub state: watch::Sender<LinkState>,
    /// What the proxy costs.
    pub(crate) load: Arc<Load>,
}

impl Node {
    /// Rebuilds the state from the store.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn restore(
        settings: &Settings,
        store: &Store,
        counts: Counts,
        (export, controller): (Export, Controller),
    ) -> Result<Self, StoreError> {
        let events = Arc::new(Events::new(counts.clone()));
        let mut state = State::new(settings, Arc::clone(&events), controller.clone());
        state.rebuilt = Rebuilt::new(store.knows_beginning());
        for table in Table::CONTENT {
            let mut bad = 0;
            store.load(table, |key, value| {
                bad += u64::from(!state.take_back(table, key, value, &export));
            })?;
            counts.dropped(crate::counts::Dropped::BadRecord, bad);
            if bad > 0 {
                tracing::error!(?table, bad, "stored records cannot be read back");
            }
        }
        export.restored();
        state.learner.settle();
        state.look_around();
        state.hold_undecided();
        let totals = state.learner.totals();
        counts.sessions.inc_by(totals.sessions);
        counts.bytes.inc_by(totals.bytes);
        let status = StoreStatus {
            path: store.path().display().to_string(),
            set_aside: store.set_aside().map(|path| path.display().to_string()),
            ..StoreStatus::default()
        };
        Ok(Self {
            state: Mutex::new(state),
            counts,
            started: Instant::now(),
            wake: Notify::new(),
            committed: watch::Sender::new(0),
            store: Mutex::new(status),
            events,
            export,
            captures: Captures::new(store.path()),
            controller,
            kubernetes: Mutex::new(None),
            written: written::Written::of_settings(settings),
        })
    }

    /// What came in and was not used.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// What happens, for whoever listens.
    #[must_use]
    pub fn events(&self) -> &Arc<Events> {
        &self.events
    }

    /// Takes in what the watcher found, and has policy compiled for whom it concerns.
    pub fn update_roster(&self, changes: &[Change], refused: Vec<Refused>) {
        let mut state = self.state.lock();
        state.refused = refused;
        state.polled = true;
        for change in changes {
            match change {
                Change::Present(workload) => state.remember(workload),
                Change::Gone(uid) => state.forget(uid),
            }
        }
        state.listen();
        if !changes.is_empty() {
            state.roster_changed();
        }
    }

    /// Makes a link for a workload; one that was there before ends.
    pub fn attach(&self, uid: &str) -> Option<LinkParts> {
        let mut state = self.state.lock();
        let desired = Arc::new(state.desired(uid)?);
        let (desired, wanted) = watch::channel(desired);
        let (commands, asked) = mpsc::channel(MAX_COMMANDS);
        let connects = state
            .links
            .get(uid)
            .map_or(0, |link| link.state.borrow().connects);
        let (said, link) = watch::channel(LinkState { connects, ..LinkState::default() });
        let load = Arc::new(Load::default());
        let link = LinkHandle {
            published: Instant::now(),
            desired,
            commands,
            state: link,
            load: Arc::clone(&load),
        };
        state.links.insert(uid.to_owned(), link);
        Some(LinkParts { desired: wanted, commands: asked, state: said, load })
    }

    /// What a workload's proxy was to have last, for the farewell.
    #[must_use]
    pub fn desired(&self, uid: &str) -> Option<Arc<Desired>> {
        self.state
            .lock()
            .links
            .get(uid)
            .map(|link| Arc::clone(&link.desired.borrow()))
    }

    /// Notes why a mailbox cannot be used, or that it can.
    pub fn mailbox_state(&self, uid: &str, broken: Option<String>) {
        let mut state = self.state.lock();
        match broken {
            Some(reason) => drop(state.broken.insert(uid.to_owned(), reason)),
            None => drop(state.broken.remove(uid)),
        }
    }
}

impl State {
    fn new(settings: &Settings, events: Arc<Events>, controller: Controller) -> Self {
        let mut learner = Learner::new(LearnSettings {
            default_mode: settings.default_mode,
            ..LearnSettings::default()
        });
        let directory = learner.directory_mut();
        directory.set_address_groups(settings.address_groups.iter().cloned());
        let mut state = Self {
            events,
            controller,
            roster: Roster::default(),
            learner,
            ports: BTreeMap::new(),
            threats: Kept::new(Table::Threats, threats::BOUNDS),
            held: tell::Held::default(),
            samples: Samples::default(),
            modes: BTreeMap::new(),
            rebuilt: Rebuilt::default(),
            batches: BTreeMap::new(),
            restarts: BTreeMap::new(),
            links: BTreeMap::new(),
            silence: silence::Silence::default(),
            refused: Vec::new(),
            broken: BTreeMap::new(),
            polled: false,
            generation: 0,
            version: 0,
            unsaved_modes: BTreeSet::new(),
            unsaved_batches: BTreeSet::new(),
            pods: pods::Stored::default(),
            surroundings: around::Sources::of_settings(settings),
            cluster: cluster::Cluster::of_settings(settings),
            numbers: said::Numbers::default(),
            unacked: Unacked::new(),
            policy_due: None,
            published: None,
            around: policy::Around::default(),
        };
        state.look_around();
        state
    }

    fn remember(&mut self, workload: &Workload) {
        if let Err(error) = self
            .learner
            .directory_mut()
            .enter(learned::workload(workload))
        {
            // The watcher's caps are lower than the learner's.
            tracing::error!(%error, workload = workload.name, "the workload is not learned about");
        }
        self.still_silent(&workload.uid);
        self.roster.enter(workload.clone());
        self.learner
            .directory_mut()
            .set_internal(self.roster.internal());
    }

    fn forget(&mut self, uid: &str) {
        self.roster.remove(uid);
        self.learner.directory_mut().remove(uid, unix_seconds());
        self.learner
            .directory_mut()
            .set_internal(self.roster.internal());
        self.links.remove(uid);
        self.silence.forget(uid);
        self.samples.forget(uid);
        self.ports.remove(uid);
        self.restarts.remove(uid);
        self.broken.remove(uid);
        self.rebuilt.forget(uid);
        if self.batches.remove(uid).is_some() {
            self.unsaved_batches.insert(uid.to_owned());
        }
    }
}

impl LinkHandle {
    fn is_connected(&self) -> bool {
        self.state.borrow().connected
    }

    /// The proxy answers and does not have yet what it is to have.
    fn is_behind(&self) -> bool {
        let (state, wanted) = (self.state.borrow(), self.desired.borrow().generation);
        state.connected && state.applied < wanted && !state.refuses(wanted)
    }

    /// Says what the proxy is to have.
    fn publish(&mut self, fresh: Desired) {
        if !self.is_behind() {
            self.published = Instant::now();
        }
        self.desired.send_replace(Arc::new(fresh));
    }
}
