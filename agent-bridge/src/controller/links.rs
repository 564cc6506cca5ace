//! The bridges that are linked, one link a node, and what they say.

mod told;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use outrider_api::cluster::{Applied, Observed, WorkloadState};
use outrider_learn::MAX_CUT;
use parking_lot::{Mutex, RwLock};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    counts::Counts,
    events::{Happened, MAX_OF_BATCH, Queue, Violation},
    interest::Known,
    learned::{Merged, Taken},
    plan::Pod,
    published::{Published, index::Index},
    status::{Stale, Thing},
};

/// Conversations of one batch that are looked at.
pub(super) const MAX_CONVERSATIONS: usize = 8_192;
/// Workloads of one node whose state is kept.
pub(super) const MAX_STATES: usize = 4_096;
/// Batches that wait for their rules to be written.
const MAX_BATCHES: usize = 256;
/// How long a node may speak for a group after the last pod of it there has gone: reports are under way.
const REMEMBERED: Duration = Duration::from_secs(900);
/// Pairs of node and group that are remembered.
const MAX_REMEMBERED: usize = 65_536;
/// Longest text of a state that is kept.
const MAX_TEXT: usize = 512;

/// One linked bridge.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// Which start of the bridge.
    instance: String,
    pub(super) known: Known,
    /// What its workloads run, by uid.
    pub(super) states: BTreeMap<String, WorkloadState>,
    /// The last batch that was taken in, of the instance that is linked.
    batch: u64,
    /// Batches with the number of rules that must be written before they are acknowledged.
    waiting: VecDeque<(u64, u64)>,
    /// Addresses that are to be answered.
    questions: Vec<IpAddr>,
    /// Something changed that may concern it.
    stale: bool,
    /// There is something to tell.
    pub(super) wake: Arc<Notify>,
    /// Ends it.
    pub(super) cut: CancellationToken,
}

impl Link {
    fn leave(&mut self) -> Batches {
        let waiting = std::mem::take(&mut self.waiting);
        Batches { instance: self.instance.clone(), batch: self.batch, waiting }
    }
}

/// What a bridge had told by the link before.
#[derive(Debug)]
struct Batches {
    instance: String,
    batch: u64,
    waiting: VecDeque<(u64, u64)>,
}

/// All of them, and what they have in common.
#[derive(Debug)]
pub(super) struct Links {
    all: Mutex<HashMap<Arc<str>, Arc<Mutex<Link>>>>,
    /// Nodes by the addresses that they asked for. Locked after a link.
    askers: Mutex<Index<IpAddr>>,
    /// What each instance was last heard of, so that a batch that comes again counts once.
    batches: Mutex<HashMap<Arc<str>, Batches>>,
    gone: Mutex<HashMap<(Arc<str>, String), Instant>>,
    pub(super) merged: Mutex<Merged>,
    /// Whoever locks a link too locks this one first.
    pub(super) published: RwLock<Published>,
    /// How many of the rules that were made are written: acknowledgements may be due.
    pub(super) written: watch::Sender<u64>,
    /// Something is to be written: evidence, or what a bridge runs.
    pub(super) news: Notify,
    /// Of what something else may be to be said by now.
    pub(super) stale: Mutex<Stale>,
    /// A rule was learned.
    pub(super) learned: Notify,
    pub(super) counts: Counts,
    /// What people should see.
    pub(super) happened: Mutex<Queue>,
}

impl Links {
    pub(super) fn new(counts: Counts) -> Self {
        Self {
            all: Mutex::default(),
            askers: Mutex::default(),
            batches: Mutex::default(),
            gone: Mutex::default(),
            merged: Mutex::default(),
            published: RwLock::default(),
            written: watch::Sender::default(),
            news: Notify::default(),
            stale: Mutex::default(),
            learned: Notify::default(),
            counts,
            happened: Mutex::default(),
        }
    }

    /// A bridge is linked; one that was before for the same node is cut.
    pub(super) fn enter(&self, node: &Arc<str>, instance: &str) -> Arc<Mutex<Link>> {
        let mut all = self.all.lock();
        let before = all.remove(node);
        let left = match before {
            Some(before) => {
                before.lock().cut.cancel();
                Some(self.part(node, &before))
            }
            None => {
                self.counts.links.add(1);
                self.batches.lock().remove(node)
            }
        };
        let mut link = Link { instance: instance.to_owned(), stale: true, ..Link::default() };
        if let Some(left) = left.filter(|left| left.instance == instance) {
            (link.batch, link.waiting) = (left.batch, left.waiting);
        }
        let link = Arc::new(Mutex::new(link));
        all.insert(Arc::clone(node), Arc::clone(&link));
        self.note([Thing::Node(Arc::clone(node))]);
        link
    }

    /// It is no more.
    pub(super) fn leave(&self, node: &Arc<str>, link: &Arc<Mutex<Link>>) {
        let mut all = self.all.lock();
        if all
            .get(node)
            .is_some_and(|current| Arc::ptr_eq(current, link))
        {
            all.remove(node);
            self.counts.links.sub(1);
            let left = self.part(node, link);
            self.batches.lock().insert(Arc::clone(node), left);
            self.note([Thing::Node(Arc::clone(node))]);
        }
    }

    fn note(&self, things: impl IntoIterator<Item = Thing>) {
        self.stale.lock().note(things);
    }

    /// The link of a node.
    pub(super) fn of(&self, node: &str) -> Option<Arc<Mutex<Link>>> {
        self.all.lock().get(node).map(Arc::clone)
    }

    /// Every link with its node.
    pub(super) fn all(&self) -> Vec<(Arc<str>, Arc<Mutex<Link>>)> {
        let all = self.all.lock();
        all.iter()
            .map(|(node, link)| (Arc::clone(node), Arc::clone(link)))
            .collect()
    }

    /// Begins with nothing: we lead, and what was merged before is the API server's by now, or another leader's.
    pub(super) fn begin(&self) {
        *self.merged.lock() = Merged::default();
        self.batches.lock().clear();
    }

    /// Ends all links: we lead no more.
    pub(super) fn cut_all(&self) {
        for (_, link) in self.all() {
            link.lock().cut.cancel();
        }
    }

    /// Remembers for whom nodes may speak for a while.
    fn remember(&self, left: &[Arc<Pod>]) {
        let mut gone = self.gone.lock();
        for pod in left {
            if gone.len() >= MAX_REMEMBERED {
                gone.retain(|_, at| at.elapsed() < REMEMBERED);
            }
            if gone.len() < MAX_REMEMBERED {
                gone.insert((Arc::clone(&pod.node), pod.group()), Instant::now());
            }
        }
    }

    /// Whether a node may speak for a group.
    fn may_speak(&self, now: &Published, node: &Arc<str>, group: &str) -> bool {
        now.has_member(node, group)
            || self
                .gone
                .lock()
                .get(&(Arc::clone(node), group.to_owned()))
                .is_some_and(|at| at.elapsed() < REMEMBERED)
    }

    /// Takes in a batch; says which batch can be acknowledged at once. Rules are made only if it is sure that we lead.
    pub(super) fn observe(
        &self,
        node: &Arc<str>,
        link: &Mutex<Link>,
        said: &Observed,
        sure: bool,
    ) -> Option<u64> {
        let now = self.published.read();
        let mut link = link.lock();
        if said.batch <= link.batch {
            // It is here already, and acknowledged as soon as it is safe.
            let waits = link.waiting.iter().any(|(batch, _)| *batch == said.batch);
            return (!waits).then_some(said.batch);
        }
        link.batch = said.batch;
        self.note_violations(&now, node, &link.states, said);
        let mut merged = self.merged.lock();
        merged.begin_batch(node, &link.instance, said.batch);
        let mut learned = false;
        for (at, one) in said.conversations.iter().enumerate() {
            let own = if one.side == 2 { &one.to } else { &one.from };
            let outcome = if at >= MAX_CONVERSATIONS {
                "too-many"
            } else if !self.may_speak(&now, node, own) {
                "foreign"
            } else {
                let taken = merged.observe(node, one, sure);
                learned |= taken == Taken::Learned;
                taken.reason()
            };
            self.counts.observed.with(&[outcome]).inc();
        }
        let (made, written) = (merged.made(), merged.written());
        let waits = learned && made > written && link.waiting.len() < MAX_BATCHES;
        if !waits {
            merged.acknowledged(node, said.batch);
        }
        drop((merged, now));
        self.news.notify_one();
        if learned {
            self.learned.notify_one();
        }
        if !waits {
            return Some(said.batch);
        }
        link.waiting.push_back((said.batch, made));
        None
    }

    /// Batches whose rules are all written by now.
    pub(super) fn due(&self, node: &str, link: &Mutex<Link>) -> Vec<u64> {
        let mut link = link.lock();
        let mut merged = self.merged.lock();
        let written = merged.written();
        let mut due = Vec::new();
        while link
            .waiting
            .front()
            .is_some_and(|(_, made)| *made <= written)
        {
            due.extend(link.waiting.pop_front().map(|(batch, _)| batch));
        }
        if let Some(last) = due.last() {
            merged.acknowledged(node, *last);
        }
        due
    }

    /// Notes what a node's workloads run; of other nodes' workloads it may not speak.
    pub(super) fn applied(&self, node: &Arc<str>, link: &Mutex<Link>, said: Applied) {
        let now = self.published.read();
        let mut link = link.lock();
        let own = said.workloads.iter().map(|state| &state.uid);
        let own = own
            .chain(&said.gone)
            .map(|uid| Thing::Workload(uid.as_str().into()));
        let own: Vec<_> = own.collect();
        for uid in said.gone {
            link.states.remove(&uid);
        }
        for mut state in said.workloads {
            let known = now.pods.get(&*state.uid);
            let is_own = known.is_some_and(|pod| pod.node == *node);
            let has_room = link.states.len() < MAX_STATES || link.states.contains_key(&state.uid);
            if !is_own || !has_room {
                self.counts.observed.with(&["foreign-state"]).inc();
                continue;
            }
            cut(&mut state.refused);
            cut(&mut state.mode);
            cut(&mut state.tier);
            state.cut.truncate(MAX_CUT);
            let mode = state.mode.clone();
            let before = link.states.insert(state.uid.clone(), state);
            let before = before.map(|before| before.mode);
            if let Some(pod) = known
                && let Some(before) = before.filter(|before| !before.is_empty() && *before != mode)
            {
                let modes = [before, mode];
                self.happened(Happened::Mode { uid: Arc::clone(&pod.uid), modes });
            }
        }
        self.note(own);
        drop((link, now));
        self.news.notify_one();
    }

    /// Notes what a batch says was against policy.
    fn note_violations(
        &self,
        now: &Published,
        node: &Arc<str>,
        states: &BTreeMap<String, WorkloadState>,
        said: &Observed,
    ) {
        let violated = said.conversations.iter().filter(|one| one.violations > 0);
        for one in violated.take(MAX_OF_BATCH) {
            let own = if one.side == 2 { &one.to } else { &one.from };
            let here = now.in_group(own).find(|pod| pod.node == *node);
            let Some(pod) = here else { continue };
            let mode = states.get(&*pod.uid).map(|state| state.mode.clone());
            self.happened(Happened::Violation(Violation::of(one, mode.unwrap_or_default())));
        }
    }

    fn happened(&self, what: Happened) {
        if !self.happened.lock().put(what) {
            self.counts.told.with(&["too-many"]).inc();
        }
    }
}

fn cut(text: &mut String) {
    if text.len() > MAX_TEXT {
        let end = (0..=MAX_TEXT).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or_default());
    }
}
