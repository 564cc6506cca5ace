//! What is written to the API server: statuses of what people wrote, learned policies, events. Each object seldom, all
//! together at a bounded rate; while the API server is away what is to be written waits in one place an object.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, stream};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    core::NamespaceResourceScope,
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

use super::{
    events::Events,
    links::Links,
    plan::{Kind, ObjectKey},
    status::{Report, Tally},
    store::{Key, Store},
};
use crate::cluster::{
    lease::{Standing, leading},
    objects::{
        ClusterNetworkRule, ClusterWorkloadGroup, ClusterWorkloadMode, LearnedPolicy, NetworkRule,
        WorkloadGroup, WorkloadMode,
    },
};

/// Who writes learned policies.
pub const MANAGER: &str = "outrider-learned";
/// Between two looks at what is to be written.
const TURN: Duration = Duration::from_millis(500);
/// Between two writes of one learned policy.
const LEARNED_PACE: Duration = Duration::from_secs(10);
/// The same for what is only evidence.
const EVIDENCE_PACE: Duration = Duration::from_secs(60);
/// Between two writes of one status.
const STATUS_PACE: Duration = Duration::from_secs(2);
/// After we begin to lead, bridges come back: until then, who has not come yet is not said to be behind.
const SETTLE: Duration = Duration::from_secs(15);
/// Writes of one turn, and how many of them at a time.
const MAX_WRITES: usize = 100;
const AT_A_TIME: usize = 8;
/// Time for one write.
const WRITE_TIME: Duration = Duration::from_secs(10);
/// After a turn in which a call failed.
const PAUSE: Duration = Duration::from_secs(3);

/// Writes while we lead.
pub(super) struct Writer {
    client: Client,
    store: Arc<Store>,
    links: Arc<Links>,
    events: Events,
    /// Calls that failed.
    failed: AtomicU64,
}

/// Statuses of objects.
#[derive(Debug, Default)]
struct Statuses {
    tally: Tally,
    written: HashMap<Arc<ObjectKey>, Written>,
    /// Objects whose status may be to be written.
    waiting: BTreeSet<Arc<ObjectKey>>,
}

/// What was written of an object.
#[derive(Debug)]
struct Written {
    at: Instant,
    report: Report,
}

impl Statuses {
    /// Those that are to be written now.
    fn due(&mut self, links: &Links, settled: bool) -> Vec<(Arc<ObjectKey>, Report)> {
        {
            let now = links.published.read();
            let stale = links.stale.lock().take();
            self.waiting.extend(self.tally.renew(stale, &now, links));
        }
        let (written, mut due) = (&mut self.written, Vec::new());
        self.waiting.retain(|key| {
            let Some(report) = self.tally.report(key) else {
                written.remove(key);
                return false;
            };
            let known = written.get(key);
            if known.is_some_and(|known| known.report == report) {
                return false;
            }
            let is_first = known.is_none_or(|known| known.report.verdict != report.verdict);
            let waits = known.is_some_and(|known| {
                known.at.elapsed() < STATUS_PACE && !report.is_urgent(&known.report)
            });
            if !waits && (is_first || settled) && due.len() < MAX_WRITES {
                due.push((Arc::clone(key), report));
            }
            true
        });
        due
    }
}

impl Writer {
    pub(super) fn new(
        client: Client,
        store: Arc<Store>,
        links: Arc<Links>,
        events: Events,
    ) -> Self {
        Self { client, store, links, events, failed: AtomicU64::default() }
    }

    /// Goes on for ever.
    pub(super) async fn run(mut self, mut standing: watch::Receiver<Standing>) {
        while leading(&mut standing).await {
            tokio::select! {
                biased;
                _ = standing.wait_for(|now| *now != Standing::Leading) => {}
                () = self.lead() => {}
            }
        }
    }

    async fn lead(&mut self) {
        let mut turns = interval(TURN);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let began = Instant::now();
        let mut statuses = Statuses::default();
        self.links.stale.lock().note_all();
        let mut learned = HashMap::new();
        loop {
            turns.tick().await;
            self.links.news.notified().await;
            let failed = self.failed.load(Ordering::Relaxed);
            let is_settled = began.elapsed() >= SETTLE;
            self.statuses(&mut statuses, is_settled).await;
            let left = statuses.waiting.len() + self.learned(&mut learned).await;
            self.links
                .counts
                .waiting
                .set(i64::try_from(left).unwrap_or(i64::MAX));
            if left > 0 || began.elapsed() < SETTLE {
                self.links.news.notify_one();
            }
            Box::pin(self.events.tell(&self.links, &self.store)).await;
            if self.failed.load(Ordering::Relaxed) > failed {
                sleep(PAUSE).await;
            }
        }
    }

    /// Writes statuses that are not as they should be; the others wait.
    async fn statuses(&self, statuses: &mut Statuses, settled: bool) {
        let due = statuses.due(&self.links, settled);
        let done: Vec<_> = stream::iter(due)
            .map(|(key, report)| async move {
                let done = self.status(&report).await;
                done.then(|| (key, Written { at: Instant::now(), report }))
            })
            .buffer_unordered(AT_A_TIME)
            .collect()
            .await;
        for (key, written) in done.into_iter().flatten() {
            statuses.waiting.remove(&key);
            statuses.written.insert(key, written);
        }
    }

    async fn status(&self, report: &Report) -> bool {
        let Some(patch) = report.patch(&self.store.tables.lock()) else { return true };
        match report.key.0 {
            Kind::Group => {
                self.patch(self.of::<WorkloadGroup>(report), report, &patch)
                    .await
            }
            Kind::Rule => {
                self.patch(self.of::<NetworkRule>(report), report, &patch)
                    .await
            }
            Kind::Mode => {
                self.patch(self.of::<WorkloadMode>(report), report, &patch)
                    .await
            }
            Kind::ClusterGroup => {
                self.patch(self.all::<ClusterWorkloadGroup>(), report, &patch)
                    .await
            }
            Kind::ClusterRule => {
                self.patch(self.all::<ClusterNetworkRule>(), report, &patch)
                    .await
            }
            Kind::ClusterMode => {
                self.patch(self.all::<ClusterWorkloadMode>(), report, &patch)
                    .await
            }
        }
    }

    fn of<K>(&self, report: &Report) -> Api<K>
    where
        K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &report.key.1)
    }

    fn all<K: kube::Resource<DynamicType = ()>>(&self) -> Api<K> {
        Api::all(self.client.clone())
    }

    async fn patch<K>(&self, api: Api<K>, report: &Report, patch: &Value) -> bool
    where
        K: Clone + DeserializeOwned + std::fmt::Debug,
    {
        let parameters = PatchParams::default();
        let patch = Patch::Merge(patch);
        let call = api.patch_status(&report.key.2, &parameters, &patch);
        self.called("patch-status", report.kind(), call).await
    }

    /// Writes learned policies; says how many are left.
    async fn learned(&self, last: &mut HashMap<Key, Instant>) -> usize {
        let dirty = self.links.merged.lock().dirty();
        let mut left = 0;
        let mut due = Vec::new();
        for (key, has_rules) in dirty {
            let pace = if has_rules { LEARNED_PACE } else { EVIDENCE_PACE };
            let waits = last.get(&key).is_some_and(|at| at.elapsed() < pace);
            if waits || due.len() >= MAX_WRITES {
                left += 1;
            } else {
                due.push(key);
            }
        }
        let done: Vec<_> = stream::iter(due)
            .map(|key| async move {
                let done = self.policy(&key).await;
                (key, done)
            })
            .buffer_unordered(AT_A_TIME)
            .collect()
            .await;
        for (key, done) in done {
            left += usize::from(!done);
            last.insert(key, Instant::now());
        }
        let now = self.links.merged.lock().written();
        let is_other = |said: &mut u64| std::mem::replace(said, now) != now;
        self.links.written.send_if_modified(is_other);
        left
    }

    async fn policy(&self, key: &Key) -> bool {
        let Some(write) = self.links.merged.lock().write(key) else { return true };
        let api = Api::<LearnedPolicy>::namespaced(self.client.clone(), &key.0);
        let parameters = PatchParams::apply(MANAGER).force();
        let mut done = true;
        if let Some(rules) = &write.rules {
            let patch = Patch::Apply(rules);
            let call = api.patch(&key.1, &parameters, &patch);
            done = self.called("apply", "learnedpolicies", call).await;
        }
        if done {
            let patch = Patch::Apply(&write.status);
            let call = api.patch_status(&key.1, &parameters, &patch);
            // Evidence that could not be written is with the next.
            self.called("patch-status", "learnedpolicies", call).await;
        }
        self.links.merged.lock().wrote(&write, done);
        done
    }

    /// Waits for a call and counts it. What is not there any more is written.
    async fn called<T>(
        &self,
        verb: &str,
        kind: &str,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> bool {
        let counts = &self.links.counts;
        counts.calls.with(&[verb, kind]).inc();
        let error = match timeout(WRITE_TIME, call).await {
            Ok(Ok(_)) => return true,
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => return true,
            Ok(Err(error)) => error.to_string(),
            Err(_elapsed) => "no answer".to_owned(),
        };
        counts.calls_failed.with(&[verb, kind]).inc();
        self.failed.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(verb, kind, error, "not written");
        false
    }
}
