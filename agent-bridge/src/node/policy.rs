//! Policy out: modes, and what every proxy is to have.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use outrider_api::ModeReply;
use outrider_model::Mode;
use tokio::time::{Instant, timeout, timeout_at};

use super::{LinkState, Node, Refusal, State};
use crate::mailbox::program::Desired;

/// How long learned changes are collected before they are compiled and pushed.
const DEBOUNCE: Duration = Duration::from_secs(1);
/// How long a change may take to be stored while somebody waits for it.
const STORE_TIME: Duration = Duration::from_secs(5);
/// How long proxies may take to confirm a push while somebody waits for it.
const PUSH_TIME: Duration = Duration::from_secs(5);

impl Node {
    /// Sets the mode of a workload's group; returns once it is stored and every proxy that is
    /// connected has what follows from it.
    ///
    /// # Errors
    /// When there is no such workload, or the mode cannot be stored.
    pub async fn set_mode(&self, name: &str, mode: Mode) -> Result<ModeReply, Refusal> {
        let (workload, group, version) = {
            let mut state = self.state.lock();
            let workload = state
                .roster
                .named(name)
                .map_err(|why| Refusal::from((name, why)))?;
            let workload = Arc::clone(workload);
            state.modes.insert(workload.group.clone(), mode);
            state.unsaved_modes.insert(workload.group.clone());
            state.version += 1;
            (workload.name.clone(), workload.group.clone(), state.version)
        };
        self.wake.notify_one();
        if !self.stored(version).await {
            let why = self
                .store
                .lock()
                .failing
                .clone()
                .unwrap_or_else(|| "it is slow".into());
            return Err(Refusal::NotStored(format!(
                "the mode is not stored yet ({why}); it takes effect as soon as it is"
            )));
        }
        let (pushed, pending, absent) = self.push(&group).await;
        tracing::info!(workload, group, %mode, pushed, pending, absent, "mode set");
        Ok(ModeReply { workload, group, mode: mode.name().into(), pushed, pending, absent })
    }

    /// Waits until everything up to `version` is stored; `false` if that takes too long.
    async fn stored(&self, version: u64) -> bool {
        let mut committed = self.committed.subscribe();
        let stored = committed.wait_for(|stored| *stored >= version);
        matches!(timeout(STORE_TIME, stored).await, Ok(Ok(_)))
    }

    /// Publishes and waits for whoever is concerned: how many have it, how many do not, and how
    /// many of the group are not connected.
    async fn push(&self, group: &str) -> (u64, u64, u64) {
        let (generation, links, absent) = {
            let mut state = self.state.lock();
            let mut concerned = state.publish();
            let of_group = state
                .roster
                .all()
                .filter(|workload| workload.group == group);
            concerned.extend(of_group.map(|workload| workload.uid.clone()));
            let absent = |uid: &&String| {
                let is_connected =
                    |uid: &str| state.links.get(uid).is_some_and(|l| l.is_connected());
                let in_group = state
                    .roster
                    .get(uid)
                    .is_some_and(|found| found.group == group);
                in_group && !is_connected(uid)
            };
            let absent = concerned.iter().filter(absent).count() as u64;
            let links = concerned.iter().filter_map(|uid| state.links.get(uid));
            let links: Vec<_> = links
                .filter(|link| link.is_connected())
                .map(|link| (link.state.clone(), link.desired.borrow().generation))
                .collect();
            (state.generation, links, absent)
        };
        let (mut pushed, mut pending) = (0, 0);
        let end = Instant::now() + PUSH_TIME;
        for (mut link, wanted) in links {
            debug_assert!(wanted <= generation, "generations only grow");
            let there = |link: &LinkState| !link.connected || link.applied >= wanted;
            let applied = match timeout_at(end, link.wait_for(there)).await {
                Ok(Ok(link)) => link.connected,
                _ => false,
            };
            if applied { pushed += 1 } else { pending += 1 }
        }
        (pushed, pending, absent)
    }
}

impl State {
    /// Learned rules changed: they are compiled and pushed once things have calmed down a little.
    pub(super) fn policy_changed(&mut self) {
        self.policy_due
            .get_or_insert_with(|| Instant::now() + DEBOUNCE);
    }

    /// Compiles every workload's policy and hands it to the links of those whose policy changed.
    /// Says which those are.
    pub(super) fn publish(&mut self) -> BTreeSet<String> {
        self.policy_due = None;
        let uids: Vec<String> = self
            .roster
            .all()
            .map(|workload| workload.uid.clone())
            .collect();
        let mut changed = BTreeSet::new();
        for uid in uids {
            let Some(fresh) = self.desired(&uid) else { continue };
            let Some(link) = self.links.get(&uid) else { continue };
            if link.desired.borrow().says_the_same(&fresh) {
                continue;
            }
            self.generation += 1;
            link.desired
                .send_replace(Arc::new(Desired { generation: self.generation, ..fresh }));
            changed.insert(uid);
        }
        changed
    }

    /// What a workload's proxy is to have, as things are.
    pub(super) fn desired(&self, uid: &str) -> Option<Desired> {
        let workload = Arc::clone(self.roster.get(uid)?);
        let policy = self
            .learned
            .compile(&workload, &self.roster, |group| self.mode_of(group));
        let mode = self.mode_of(&workload.group);
        let addresses = self
            .roster
            .all()
            .flat_map(|workload| workload.addresses.iter().copied());
        Some(Desired {
            generation: self.generation,
            mode,
            policy: Arc::new(policy),
            internal: self.roster.internal().into(),
            policy_addrs: addresses.collect::<BTreeSet<_>>().into_iter().collect(),
            workload,
        })
    }
}
