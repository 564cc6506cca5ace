//! What the cluster's controller is told and says.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use outrider_api::{
    LinkStatus,
    cluster::{Applied, Observed, Update, WorkloadState},
};
use outrider_telemetry::unix_seconds;

use outrider_learn::Learner;
use tokio::time::Instant;

use super::{Node, State, coverage};
use crate::{
    link::{Standing, kept::Kept, seen::Seen},
    mailbox::watch::Workload,
    settings::Settings,
};

/// The node's part of the link.
#[derive(Debug, Default)]
pub(super) struct Cluster {
    /// What is in force of what was said.
    pub(super) kept: Kept,
    /// What is to be told.
    pub(super) seen: Seen,
    /// What each workload runs, as it was told last.
    told: BTreeMap<String, WorkloadState>,
    told_revision: u64,
    /// When the last update came.
    heard: Option<Instant>,
    standing: Option<Standing>,
}

/// How long compiling may hold the node's state for what people said. The controller leaves it half of the time at least.
const WAITED_FOR: Duration = Duration::from_millis(50);

/// How long proxies are watched closely after an update.
const CATCHING_UP: Duration = Duration::from_secs(2);

impl Cluster {
    /// Nothing is known; without a controller nothing will be.
    pub(super) fn of_settings(settings: &Settings) -> Self {
        let Some(link) = &settings.link else { return Self::default() };
        let standing = Standing { target: link.target.clone(), ..Standing::default() };
        let mut cluster = Self { standing: Some(standing), ..Self::default() };
        cluster.seen.switch_on();
        cluster
    }

    /// Takes back a row of the store; `false` if it makes no sense. Without a controller what one said once does not
    /// count.
    pub(super) fn take_back(&mut self, key: &[u8], value: &[u8], learner: &mut Learner) -> bool {
        self.standing.is_none() || self.kept.restore(key, value, learner)
    }
}

impl Node {
    /// There is one; nothing came over it yet.
    pub(crate) fn linked(&self, target: &str) {
        self.standing(|standing| {
            standing.target = target.to_owned();
            standing.failing = None;
            standing.heard_at = unix_seconds();
            standing.links += 1;
        });
    }

    /// There is none.
    pub(crate) fn unlinked(&self, target: &str, why: &str) {
        self.standing(|standing| {
            standing.target = target.to_owned();
            standing.linked = false;
            standing.failing = Some(why.to_owned());
        });
    }

    /// Revision of the last update, with its epoch.
    pub(crate) fn cluster_revision(&self) -> (String, u64) {
        self.state.lock().cluster.kept.revision()
    }

    /// Takes in an update: stored with the next transaction, compiled at once.
    pub(crate) fn take_update(&self, update: Update) {
        let mut state = self.state.lock();
        let State { cluster, learner, .. } = &mut *state;
        cluster.kept.take(update, learner, unix_seconds());
        cluster.heard = Some(Instant::now());
        if let Some(standing) = &mut cluster.standing {
            standing.linked = true;
            standing.heard_at = unix_seconds();
        }
        state.version += 1;
        state.look_around();
        state.cluster_changed();
    }

    /// Addresses to ask about.
    pub(crate) fn questions(&self) -> Vec<IpAddr> {
        self.state.lock().cluster.seen.questions()
    }

    /// What was seen and is not known to be safe with the controller.
    pub(crate) fn observed(&self) -> Option<Observed> {
        let mut state = self.state.lock();
        let State { cluster, learner, .. } = &mut *state;
        cluster
            .seen
            .batch(learner.directory(), |key| learner.has_rule(key))
    }

    /// A batch is.
    pub(crate) fn observed_is_safe(&self, batch: u64) {
        let is_ours = self.state.lock().cluster.seen.acknowledged(batch);
        self.standing(|standing| {
            standing.heard_at = unix_seconds();
            standing.batches += u64::from(is_ours);
        });
    }

    /// What the proxies run: all of it, or what changed since it was told last.
    pub(crate) fn applied(&self, whole: bool) -> Option<Applied> {
        let mut state = self.state.lock();
        let revision = state.cluster.kept.revision().1;
        let now = state.running(revision);
        let told = if whole { BTreeMap::new() } else { std::mem::take(&mut state.cluster.told) };
        let is_news = |(uid, one): &(&String, &WorkloadState)| told.get(*uid) != Some(*one);
        let workloads: Vec<_> = now
            .iter()
            .filter(is_news)
            .map(|(_, one)| one.clone())
            .collect();
        let gone: Vec<_> = told
            .keys()
            .filter(|uid| !now.contains_key(*uid))
            .cloned()
            .collect();
        let is_same = workloads.is_empty() && gone.is_empty();
        let is_old = state.cluster.told_revision == revision;
        (state.cluster.told, state.cluster.told_revision) = (now, revision);
        (whole || !is_same || !is_old).then_some(Applied { revision, workloads, gone })
    }

    /// Whether a proxy that is there has an update before it that came just now.
    pub(crate) fn is_catching_up(&self) -> bool {
        let state = self.state.lock();
        let Cluster { heard, told, told_revision, .. } = &state.cluster;
        let mut states = told.values();
        heard.is_some_and(|at| at.elapsed() < CATCHING_UP)
            && states.any(|one| one.connected && one.revision < *told_revision)
    }

    /// How it stands, for people.
    pub(super) fn link_status(&self) -> Option<LinkStatus> {
        let state = self.state.lock();
        let standing = state.cluster.standing.clone()?;
        let (epoch, revision) = state.cluster.kept.revision();
        let (waiting, dropped) = state.cluster.seen.waiting();
        let word = match (&standing.failing, standing.linked) {
            (Some(_), _) => "failing",
            (None, true) => "linked",
            (None, false) => "connecting",
        };
        Some(LinkStatus {
            target: standing.target,
            state: word.into(),
            reason: standing.failing,
            epoch,
            revision,
            heard_at: standing.heard_at,
            links: standing.links,
            batches: standing.batches,
            waiting,
            dropped,
            refused: state.cluster.kept.refused(),
        })
    }

    fn standing(&self, change: impl FnOnce(&mut Standing)) {
        if let Some(standing) = &mut self.state.lock().cluster.standing {
            change(standing);
        }
    }
}

impl State {
    /// Policy is compiled as far as that may take now, the rest as soon as it may be.
    fn cluster_changed(&mut self) {
        self.publish_some(WAITED_FOR);
    }

    /// What every workload's proxy has confirmed. One that is behind is said to run what it was last known to.
    fn running(&mut self, revision: u64) -> BTreeMap<String, WorkloadState> {
        let stale = self.learner.stale();
        let state = |workload: &Workload| {
            let link = self.links.get(&workload.uid);
            let before = self
                .cluster
                .told
                .get(&workload.uid)
                .cloned()
                .unwrap_or_default();
            let seen = link
                .map(|link| link.state.borrow().clone())
                .unwrap_or_default();
            let is_current = link.is_some_and(|link| link.is_connected() && !link.is_behind())
                && !stale.contains(&workload.group());
            let mut found = WorkloadState {
                uid: workload.uid.clone(),
                connected: seen.connected,
                refused: seen
                    .refused
                    .as_ref()
                    .filter(|_| seen.connected)
                    .map_or_else(String::new, |refused| {
                        format!("{}: {}", refused.why.reason, refused.why.detail)
                    }),
                tier: if seen.connected { coverage::tier(&seen).to_owned() } else { String::new() },
                ..before
            };
            if let Some(policy) = self.learner.policy(&workload.uid).filter(|_| is_current) {
                found.revision = revision;
                policy.mode.name().clone_into(&mut found.mode);
                found.rules = u32::try_from(policy.spec.rules.len()).unwrap_or(u32::MAX);
                found.cut = policy.cut.iter().map(|rule| rule.0).collect();
            }
            found
        };
        self.roster
            .all()
            .map(|workload| (workload.uid.clone(), state(workload)))
            .collect()
    }
}
