//! The pods' mailboxes: which there are, and for each a task that reads and one that writes.

pub mod activity;
pub mod budget;
pub mod channel;
pub mod dir;
pub mod lines;
pub mod link;
pub(crate) mod load;
pub mod peer;
pub mod program;
pub mod receive;
pub(crate) mod rules;
pub mod watch;

use std::{collections::HashMap, io, path::PathBuf, sync::Arc, time::Duration};

use outrider_model::names;
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

use crate::{counts::Counts, node::Node, pods::Shared};
use activity::Activity;
use dir::MailboxDir;
use lines::Lines;
use link::Link;
use peer::Gate;
use receive::Receiver;
use watch::{Change, Refused, Watcher, Workload};

/// How long the farewell to the proxy of a removed pod may take.
const FAREWELL_TIME: Duration = Duration::from_secs(2);

/// Keeps a pair of tasks for every mailbox of the node.
#[derive(Debug)]
pub struct Mailboxes {
    root: PathBuf,
    node: Arc<Node>,
    lines: Lines,
    counts: Counts,
    tasks: TaskTracker,
    open: HashMap<String, Open>,
    pods: Option<Shared>,
}

impl Drop for Mailboxes {
    fn drop(&mut self) {
        self.lines.close();
    }
}

/// One mailbox's task.
#[derive(Debug)]
struct Open {
    workload: Workload,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Mailboxes {
    /// Mailboxes below `root`.
    #[must_use]
    pub fn new(root: PathBuf, node: Arc<Node>, lines: Lines, counts: Counts) -> Self {
        let (tasks, open) = (TaskTracker::new(), HashMap::new());
        Self { root, node, lines, counts, tasks, open, pods: None }
    }

    /// The same, with the pods that the API server names.
    pub(crate) fn of_pods(mut self, pods: Option<Shared>) -> Self {
        self.pods = pods;
        self
    }

    /// Looks every 500 ms and when pods change, until `stop`; then lets every mailbox go.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut watcher = Watcher::new(self.root.clone());
        let mut ticker = interval(watch::POLL);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = changed(&mut self.pods) => {}
                _ = ticker.tick() => {}
            }
            let known = self.pods.as_ref().map(|pods| Arc::clone(&pods.borrow()));
            let known = known.unwrap_or_default();
            known.finished().for_each(|uid| self.node.stop_proxy(uid));
            let looked = spawn_blocking(move || {
                let poll = watcher.poll_with(&known);
                (watcher, poll)
            });
            let Ok((back, poll)) = looked.await else { break };
            watcher = back;
            self.apply(&poll.changes, poll.refused).await;
        }
        self.open.values().for_each(|open| open.stop.cancel());
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn apply(&mut self, changes: &[Change], refused: Vec<Refused>) {
        for change in changes {
            if let Change::Gone(uid) = change {
                self.close(uid).await;
            }
        }
        self.node.update_roster(changes, refused);
        for change in changes {
            if let Change::Present(workload) = change {
                self.stop(&workload.uid).await;
                tracing::info!(workload = workload.name, uid = workload.uid, "workload found");
                self.open(workload.clone());
            }
        }
        // A mailbox's task ends when the mailbox cannot be used, or by a bug: it is tried again.
        let ended = self.open.values().filter(|open| open.task.is_finished());
        let ended: Vec<_> = ended.map(|open| open.workload.clone()).collect();
        ended.into_iter().for_each(|workload| self.open(workload));
    }

    fn open(&mut self, workload: Workload) {
        let stop = CancellationToken::new();
        let mailbox = Mailbox {
            root: self.root.clone(),
            workload: workload.clone(),
            node: Arc::clone(&self.node),
            lines: self.lines.clone(),
            counts: self.counts.clone(),
            tasks: self.tasks.clone(),
        };
        let span = tracing::info_span!("mailbox", workload = workload.name);
        let served = stop
            .clone()
            .run_until_cancelled_owned(Box::pin(mailbox.serve()));
        let task = self.tasks.spawn(
            async move {
                served.await;
            }
            .instrument(span),
        );
        self.open
            .insert(workload.uid.clone(), Open { workload, stop, task });
    }

    /// Ends a mailbox's task, and waits for it: names in the mailbox are used by one task only.
    async fn stop(&mut self, uid: &str) {
        let Some(open) = self.open.remove(uid) else { return };
        open.stop.cancel();
        if let Err(error) = open.task.await {
            tracing::error!(%error, uid, "the mailbox's task did not end well");
        }
    }

    async fn close(&mut self, uid: &str) {
        self.stop(uid).await;
        tracing::info!(uid, "workload gone");
        let Some(desired) = self.node.desired(uid) else { return };
        let Ok(dir) = MailboxDir::open(&self.root, uid) else { return };
        let gate = Gate::new(uid, dir.owner(), self.counts.clone());
        let said = async move { link::farewell(Arc::new(dir), gate, &desired).await };
        self.tasks.spawn(async move {
            if !matches!(timeout(FAREWELL_TIME, said).await, Ok(Ok(()))) {
                tracing::debug!("the removed pod's proxy was not there to be told");
            }
        });
    }
}

/// The next change of the pods; never, if there are none or nobody watches them any more.
async fn changed(pods: &mut Option<Shared>) {
    if let Some(shared) = pods {
        if shared.changed().await.is_ok() {
            return;
        }
        tracing::debug!("nobody watches the pods any more");
    }
    std::future::pending().await
}

/// Everything that one mailbox's task needs.
struct Mailbox {
    root: PathBuf,
    workload: Workload,
    node: Arc<Node>,
    lines: Lines,
    counts: Counts,
    tasks: TaskTracker,
}

impl Mailbox {
    /// Serves until the mailbox cannot be used any more.
    async fn serve(self) {
        let uid = self.workload.uid.clone();
        let node = Arc::clone(&self.node);
        let Err(error) = self.try_serve().await else { return };
        tracing::warn!(%error, "the mailbox cannot be used; trying again");
        node.mailbox_state(&uid, Some(error.to_string()));
    }

    async fn try_serve(self) -> io::Result<()> {
        let uid = self.workload.uid.as_str();
        let dir = Arc::new(MailboxDir::open(&self.root, uid)?);
        dir.sweep_clients()?;
        let socket = dir.bind(names::CTRL_LISTEN)?;
        let bound = dir.inode(names::CTRL_LISTEN)?;
        let Some(parts) = self.node.attach(uid) else { return Ok(()) };
        self.node.mailbox_state(uid, None);
        let activity = Arc::new(Activity::default());
        let gate = Gate::new(uid, dir.owner(), self.counts.clone());
        let receiver = Receiver::new(
            (uid.into(), self.workload.mac),
            socket,
            (Arc::clone(&activity), gate.clone()),
            self.lines,
            self.counts.clone(),
        );
        let link = Link {
            node: self.node,
            dir: Arc::clone(&dir),
            gate,
            activity,
            desired: parts.desired,
            commands: parts.commands,
            state: parts.state,
            counts: self.counts,
            seq: 0,
            proxy: None,
            stopped: false,
        };
        // The receiver has a task of its own: nothing that the link awaits may keep it from reading.
        let looking = load::follow(parts.load, link.gate.clone());
        let mut reading = AbortOnDrop(self.tasks.spawn(receiver.run()));
        tokio::select! {
            biased;
            ended = &mut reading.0 => Err(ended.unwrap_or_else(io::Error::other)),
            error = replaced(&dir, bound) => Err(error),
            () = link.run() => Ok(()),
            never = looking => match never {},
        }
    }
}

/// Ends when the name of our socket leads somewhere else: whoever did that, nobody reaches us.
async fn replaced(dir: &MailboxDir, bound: u64) -> io::Error {
    let mut ticker = interval(link::TICK);
    loop {
        ticker.tick().await;
        match dir.inode(names::CTRL_LISTEN) {
            Ok(found) if found == bound => {}
            Ok(_) => return io::Error::other("our socket was replaced"),
            Err(error) => return error,
        }
    }
}

/// A task that ends with its owner.
struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
