//! Policy out: modes, and what every proxy is to have.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use outrider_api::{ModeChange, ModeReply};
use outrider_learn::Group;
use outrider_model::Mode;
use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
};

use super::{LinkState, Node, Refusal, State, events::Body};
use crate::mailbox::program::Desired;

/// How long learned changes are collected before they are compiled and pushed.
const DEBOUNCE: Duration = Duration::from_secs(1);
/// How long a change may take to be stored while somebody waits for it.
const STORE_TIME: Duration = Duration::from_secs(5);
/// How long proxies may take to confirm a push while somebody waits for it.
const PUSH_TIME: Duration = Duration::from_secs(5);

/// A push under way.
struct Push {
    /// The connected links that are concerned, and what each is to have.
    links: Vec<(watch::Receiver<LinkState>, u64)>,
    /// Workloads of the group that are not connected.
    absent: u64,
}

impl Node {
    /// Sets the mode of a workload's group; returns once it is stored and every proxy that is
    /// connected has what follows from it.
    ///
    /// # Errors
    /// When there is no such workload, or the mode cannot be stored.
    pub async fn set_mode(&self, name: &str, mode: Mode) -> Result<ModeReply, Refusal> {
        let (workload, group, version) = self.state.lock().set_mode(name, mode)?;
        self.wake.notify_one();
        if !self.stored(version).await {
            let why = self
                .store
                .lock()
                .failing
                .clone()
                .unwrap_or_else(|| "it is slow".into());
            return Err(Refusal::NotStored(format!(
                "the mode is being pushed, but it is not stored yet ({why}): until it is, a \
                 restart of the bridge forgets it"
            )));
        }
        let push = self.state.lock().push(&group);
        let absent = push.absent;
        let (pushed, pending) = push.confirmed().await;
        tracing::info!(workload, %group, %mode, pushed, pending, absent, "mode set");
        let (group, mode) = (group.to_string(), mode.name().to_owned());
        self.events.publish(Body::Mode(ModeChange {
            workload: workload.clone(),
            group: group.clone(),
            mode: mode.clone(),
        }));
        Ok(ModeReply { workload, group, mode, pushed, pending, absent })
    }

    /// Waits until everything that was taken in before is stored, as long as that takes.
    pub(crate) async fn all_stored(&self) {
        let version = self.state.lock().version;
        let mut committed = self.committed.subscribe();
        // The sender is ours: it is there.
        drop(committed.wait_for(|stored| *stored >= version).await);
    }

    /// Waits until everything up to `version` is stored; `false` if that takes too long.
    async fn stored(&self, version: u64) -> bool {
        let mut committed = self.committed.subscribe();
        let stored = committed.wait_for(|stored| *stored >= version);
        matches!(timeout(STORE_TIME, stored).await, Ok(Ok(_)))
    }
}

impl Push {
    /// How many have what they are to have, and how many did not say so in time.
    async fn confirmed(self) -> (u64, u64) {
        let end = Instant::now() + PUSH_TIME;
        let (mut pushed, mut pending) = (0, 0);
        for (mut link, wanted) in self.links {
            let settled = |link: &LinkState| !link.connected || link.applied >= wanted;
            match timeout_at(end, link.wait_for(settled)).await {
                Ok(Ok(link)) if link.connected => pushed += 1,
                _ => pending += 1,
            }
        }
        (pushed, pending)
    }
}

impl State {
    fn set_mode(&mut self, name: &str, mode: Mode) -> Result<(String, Group, u64), Refusal> {
        let workload = self
            .roster
            .named(name)
            .map_err(|why| Refusal::from((name, why)))?;
        let (name, group) = (workload.name.clone(), workload.group());
        self.modes.insert(group.clone(), mode);
        self.unsaved_modes.insert(group.clone());
        self.learner.set_mode(group.clone(), mode);
        self.policy_changed();
        self.version += 1;
        Ok((name, group, self.version))
    }

    /// Publishes, and says whose confirmation a change of a group's mode waits for.
    fn push(&mut self, group: &Group) -> Push {
        let changed = self.publish();
        let (mut links, mut absent) = (Vec::new(), 0);
        for workload in self.roster.all() {
            let in_group = workload.group() == *group;
            if !in_group && !changed.contains(&workload.uid) {
                continue;
            }
            match self
                .links
                .get(&workload.uid)
                .filter(|link| link.is_connected())
            {
                Some(link) => links.push((link.state.clone(), link.desired.borrow().generation)),
                None => absent += u64::from(in_group),
            }
        }
        Push { links, absent }
    }

    /// Learned rules changed: they are compiled and pushed once things have calmed down a little.
    pub(super) fn policy_changed(&mut self) {
        self.policy_due
            .get_or_insert_with(|| Instant::now() + DEBOUNCE);
    }

    /// Compiles every workload's policy and hands it to the links of those for whom anything
    /// changed. Says which those are.
    pub(super) fn publish(&mut self) -> BTreeSet<String> {
        self.policy_due = None;
        self.learner.compile_changed();
        let mut changed = BTreeSet::new();
        let (internal, addresses) = self.surroundings();
        for workload in self.roster.all() {
            let Some(link) = self.links.get_mut(&workload.uid) else { continue };
            let Some(policy) = self.learner.policy(&workload.uid) else { continue };
            let fresh = Desired {
                generation: self.generation + 1,
                workload: Arc::clone(workload),
                policy: Arc::clone(policy),
                internal: Arc::clone(&internal),
                special: Arc::clone(self.roster.special()),
                policy_addrs: Arc::clone(&addresses),
            };
            if !link.desired.borrow().says_the_same(&fresh) {
                link.publish(fresh);
                changed.insert(workload.uid.clone());
            }
        }
        self.generation += u64::from(!changed.is_empty());
        changed
    }

    /// What a workload's proxy is to have, as it was compiled last.
    pub(super) fn desired(&self, uid: &str) -> Option<Desired> {
        let (internal, policy_addrs) = self.surroundings();
        Some(Desired {
            generation: self.generation,
            workload: Arc::clone(self.roster.get(uid)?),
            policy: Arc::clone(self.learner.policy(uid)?),
            internal,
            special: Arc::clone(self.roster.special()),
            policy_addrs,
        })
    }

    /// Internal networks, and the addresses of every workload.
    fn surroundings(&self) -> (Arc<[ipnet::IpNet]>, Arc<[std::net::IpAddr]>) {
        let addresses = self
            .roster
            .all()
            .flat_map(|workload| workload.addresses.iter().copied());
        let addresses = addresses.collect::<BTreeSet<_>>().into_iter().collect();
        (self.roster.internal().into(), addresses)
    }
}
