//! Packet captures of this node's pods (`docs/api.md`): bounded in number, size and time, whatever a
//! pod's proxy does. A capture's bytes come through a pipe that the proxy was given the other end of;
//! nothing has a name in a mailbox, so nothing is left there, whoever dies. They go on to who asked, or
//! into a file without a name.

mod pump;
mod spool;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use outrider_model::PacketFilter;
use outrider_telemetry::unix_seconds;
use outrider_wire::ext::Instance;
use parking_lot::Mutex;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use pump::{Pump, open as open_pipe};
pub(crate) use spool::Spool;

use crate::{mailbox::watch::Workload, node::Refusal};

/// Captures of one pod that run at once; its proxy holds to the same number.
pub(crate) const MAX_RUNNING_OF_POD: usize = 2;
/// Captures of the node that run at once.
pub(crate) const MAX_RUNNING: usize = 16;
/// Captures that are kept, those that run included.
const MAX_KEPT: usize = 64;
/// Bytes that all stored captures may have together: 512 MiB.
pub(crate) const MAX_STORED_BYTES: u64 = 512 << 20;
/// Bytes of one stored capture at most: 128 MiB.
pub(crate) const MAX_STORED_CAPTURE: u64 = 128 << 20;
/// Bytes of one capture at most: 1 GiB.
pub(crate) const MAX_BYTES: u64 = 1 << 30;
/// Bytes of one capture at least: its frame and a packet.
pub(crate) const MIN_BYTES: u64 = 4096;
/// Bytes of a capture if nobody says: 64 MiB.
pub(crate) const DEFAULT_BYTES: u64 = 64 << 20;
/// Seconds of one capture at most.
pub(crate) const MAX_SECONDS: u32 = 3600;
/// Seconds of a capture if nobody says.
pub(crate) const DEFAULT_SECONDS: u32 = 60;
/// Bytes of each packet at most, and at least.
pub(crate) const MAX_SNAP: u32 = 65_535;
/// The least.
pub(crate) const MIN_SNAP: u32 = 64;

/// Reads a filter.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn filter(text: &str) -> Result<PacketFilter, Refusal> {
    text.parse()
        .map_err(|error| Refusal::Bad(format!("{error}")))
}

/// What is to be captured.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    /// Which packets.
    pub(crate) filter: PacketFilter,
    /// Those of loopback too.
    pub(crate) loopback: bool,
    /// Bytes of each packet.
    pub(crate) snap: u32,
    /// Packets; 0: as many as come.
    pub(crate) packets: u64,
    /// Bytes of the file.
    pub(crate) bytes: u64,
    /// How long.
    pub(crate) seconds: u32,
}

impl Wish {
    /// Holds a wish to its bounds.
    ///
    /// # Errors
    /// What is out of them.
    pub(crate) fn checked(self) -> Result<Self, Refusal> {
        let bad = |what: String| Err(Refusal::Bad(what));
        if !(MIN_SNAP..=MAX_SNAP).contains(&self.snap) {
            return bad(format!("a snap length is {MIN_SNAP} to {MAX_SNAP} bytes"));
        }
        if !(MIN_BYTES..=MAX_BYTES).contains(&self.bytes) {
            return bad(format!("a capture has {MIN_BYTES} to {MAX_BYTES} bytes"));
        }
        if !(1..=MAX_SECONDS).contains(&self.seconds) {
            return bad(format!("a capture takes 1 to {MAX_SECONDS} seconds"));
        }
        Ok(self)
    }
}

/// How a capture is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum State {
    /// Packets come.
    Running,
    /// It ended as it should.
    Ended,
    /// It broke off.
    Failed(String),
}

/// How far a capture is.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    pub(crate) state: State,
    pub(crate) bytes: u64,
    pub(crate) packets: u64,
    /// Packets that the kernel had no room for; known at the end.
    pub(crate) lost: u64,
    /// Unix seconds; 0 while it runs.
    pub(crate) ended: u64,
}

/// One capture.
#[derive(Debug)]
pub(crate) struct Capture {
    pub(crate) id: Instance,
    pub(crate) workload: Arc<Workload>,
    pub(crate) wish: Wish,
    /// Its place in the order of their begin.
    place: u64,
    /// Unix seconds.
    pub(crate) started: u64,
    /// Where its bytes are, if they are kept.
    pub(crate) spool: Option<Spool>,
    /// Somebody wants it to end.
    pub(crate) stop: CancellationToken,
    progress: Mutex<Progress>,
}

impl Capture {
    /// How far it is.
    pub(crate) fn progress(&self) -> Progress {
        self.progress.lock().clone()
    }

    /// More came.
    fn advance(&self, bytes: usize, packets: u64) {
        let mut progress = self.progress.lock();
        progress.bytes += bytes as u64;
        progress.packets = packets;
    }

    /// Nothing more comes. Only the first end counts.
    fn end(&self, state: State, lost: u64) {
        let mut progress = self.progress.lock();
        if progress.state == State::Running {
            tracing::info!(id = %self.id, workload = self.workload.name, ?state,
                packets = progress.packets, bytes = progress.bytes, lost, "a capture ended");
            (progress.state, progress.lost, progress.ended) = (state, lost, unix_seconds());
        }
    }

    fn is_running(&self) -> bool {
        self.progress.lock().state == State::Running
    }
}

/// Every capture of the node.
#[derive(Debug)]
pub(crate) struct Captures {
    all: Mutex<BTreeMap<u64, Arc<Capture>>>,
    /// How many there have been.
    entered: AtomicU64,
    /// Where files without a name are made.
    dir: PathBuf,
    tasks: TaskTracker,
}

impl Captures {
    /// None yet; files are made beside the store's.
    pub(crate) fn new(store: &Path) -> Self {
        let dir = store.parent().unwrap_or(Path::new("/")).to_owned();
        Self { all: Mutex::default(), entered: AtomicU64::new(0), dir, tasks: TaskTracker::new() }
    }

    /// Makes room for a capture and enters it.
    ///
    /// # Errors
    /// There are as many as may be, or no file can be made.
    pub(crate) fn enter(
        &self,
        id: Instance,
        workload: Arc<Workload>,
        wish: Wish,
        stored: bool,
    ) -> Result<Arc<Capture>, Refusal> {
        let mut all = self.all.lock();
        let running = |of_pod: bool| {
            all.values()
                .filter(|one| one.is_running())
                .filter(|one| !of_pod || one.workload.uid == workload.uid)
                .count()
        };
        if running(true) >= MAX_RUNNING_OF_POD {
            let most = MAX_RUNNING_OF_POD;
            return Err(Refusal::Busy(format!("{most} captures of this pod run: stop one")));
        }
        if running(false) >= MAX_RUNNING {
            return Err(Refusal::Busy(format!("{MAX_RUNNING} captures run: stop one")));
        }
        forget_oldest(&mut all);
        let kept: u64 = all
            .values()
            .filter(|one| one.spool.is_some())
            .map(|one| one.wish.bytes)
            .sum();
        if all.len() >= MAX_KEPT || (stored && kept.saturating_add(wish.bytes) > MAX_STORED_BYTES) {
            let full = "stored captures have no more room: remove one";
            return Err(Refusal::Busy(full.to_owned()));
        }
        let spool = stored.then(|| Spool::new(&self.dir)).transpose();
        let spool =
            spool.map_err(|error| Refusal::NotStored(format!("no file for a capture: {error}")))?;
        let progress = Progress { state: State::Running, bytes: 0, packets: 0, lost: 0, ended: 0 };
        let capture = Arc::new(Capture {
            id,
            workload,
            wish,
            place: self.entered.fetch_add(1, Ordering::Relaxed),
            started: unix_seconds(),
            spool,
            stop: CancellationToken::new(),
            progress: Mutex::new(progress),
        });
        all.insert(id.0, Arc::clone(&capture));
        Ok(capture)
    }

    /// All, in order of their begin.
    pub(crate) fn list(&self) -> Vec<Arc<Capture>> {
        let mut list: Vec<_> = self.all.lock().values().cloned().collect();
        list.sort_by_key(|one| one.place);
        list
    }

    /// One.
    ///
    /// # Errors
    /// There is none of that name.
    pub(crate) fn get(&self, id: &str) -> Result<Arc<Capture>, Refusal> {
        let found = Instance::parse(id).and_then(|id| self.all.lock().get(&id.0).cloned());
        found
            .ok_or_else(|| Refusal::NotFound(format!("no capture {id:?}; /v1/captures lists them")))
    }

    /// Forgets a capture; one that runs ends without its last packets.
    pub(crate) fn remove(&self, id: Instance) {
        if let Some(capture) = self.all.lock().remove(&id.0) {
            capture.end(State::Failed("removed".to_owned()), 0);
            capture.stop.cancel();
        }
    }

    /// Keeps what comes of a capture in its file, until it ends.
    pub(crate) fn store(&self, mut pump: Pump) {
        self.tasks.spawn(async move {
            while let Some(Ok(bytes)) = pump.next().await {
                let Some(spool) = &pump.capture().spool else { return };
                if let Err(error) = spool.append(bytes).await {
                    pump.fail(format!("it cannot be stored: {error}"));
                }
            }
        });
    }

    /// Where work for captures is to be done.
    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Ends all of them.
    pub(crate) fn close(&self) {
        for capture in self.list() {
            self.remove(capture.id);
        }
    }
}

/// Of what only went through, the record is kept for a while.
fn forget_oldest(all: &mut BTreeMap<u64, Arc<Capture>>) {
    let over = |one: &&Arc<Capture>| one.spool.is_none() && !one.is_running();
    while all.values().filter(over).count() >= MAX_RECORDS {
        let oldest = all.values().filter(over).min_by_key(|one| one.place);
        let Some(oldest) = oldest.map(|one| one.id.0) else { return };
        all.remove(&oldest);
    }
}

/// Captures that are over and were not stored of which the record is kept.
const MAX_RECORDS: usize = 16;
/// What a proxy may be late with the end.
const GRACE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
