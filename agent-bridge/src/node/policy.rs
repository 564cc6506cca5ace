//! Policy out: modes, and what every proxy is to have.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use outrider_api::{ModeChange, ModeReply};
use outrider_learn::Group;
use outrider_model::Mode;
use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
};

use super::{LinkState, Node, Refusal, State, events::Body, roster::Roster};
use crate::mailbox::{program::Desired, watch::Workload};

/// How long learned changes are collected before they are compiled and pushed.
const DEBOUNCE: Duration = Duration::from_secs(1);
/// How long compiling may hold the node's state at a time; one policy may take longer.
pub(super) const PORTION: Duration = Duration::from_millis(10);
/// So many times as long as that took, nothing is compiled: learned policy takes a tenth of the time at most.
const PAUSE: u32 = 9;
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

/// How many proxies have what they are to have, did not say so in time, or refuse it.
#[derive(Default)]
struct Confirmed {
    pushed: u64,
    pending: u64,
    refused: u64,
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
        let Confirmed { pushed, pending, refused } = push.confirmed().await;
        tracing::info!(workload, %group, %mode, pushed, pending, refused, absent, "mode set");
        let (group, mode) = (group.to_string(), mode.name().to_owned());
        self.events.publish(Body::Mode(ModeChange {
            workload: workload.clone(),
            group: group.clone(),
            mode: mode.clone(),
        }));
        Ok(ModeReply { workload, group, mode, pushed, pending, refused, absent })
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
    async fn confirmed(self) -> Confirmed {
        let end = Instant::now() + PUSH_TIME;
        let mut all = Confirmed::default();
        for (mut link, wanted) in self.links {
            let settled = |link: &LinkState| {
                !link.connected || link.applied >= wanted || link.refuses(wanted)
            };
            match timeout_at(end, link.wait_for(settled)).await {
                Ok(Ok(link)) if link.connected && link.refuses(wanted) => all.refused += 1,
                Ok(Ok(link)) if link.connected => all.pushed += 1,
                _ => all.pending += 1,
            }
        }
        all
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
        self.take_over(&group);
        self.policy_changed();
        self.version += 1;
        Ok((name, group, self.version))
    }

    /// Publishes a group's policy, and says whose confirmation a change of its mode waits for.
    fn push(&mut self, group: &Group) -> Push {
        self.publish_group(group);
        let (mut links, mut absent) = (Vec::new(), 0);
        let concerned = self
            .roster
            .all()
            .filter(|workload| workload.group() == *group);
        for workload in concerned {
            match self
                .links
                .get(&workload.uid)
                .filter(|link| link.is_connected())
            {
                Some(link) => links.push((link.state.clone(), link.desired.borrow().generation)),
                None => absent += 1,
            }
        }
        Push { links, absent }
    }

    /// Compiles a group's policy and hands it to its links at once.
    pub(super) fn publish_group(&mut self, group: &Group) {
        self.learner.compile(group);
        self.publish(|workload| workload.group() == *group);
    }

    /// Learned rules changed: they are compiled and pushed once things have calmed down a little.
    pub(super) fn policy_changed(&mut self) {
        self.policy_due
            .get_or_insert_with(|| Instant::now() + DEBOUNCE);
    }

    /// Who is here changed: who has no policy yet gets one, everybody hears who is here, and what else follows
    /// comes by and by.
    pub(super) fn roster_changed(&mut self) {
        self.around = Around::new(&self.roster);
        let fresh: BTreeSet<_> = self
            .roster
            .all()
            .filter(|workload| self.learner.policy(&workload.uid).is_none())
            .map(|workload| workload.group())
            .collect();
        for group in &fresh {
            self.learner.compile(group);
        }
        self.publish(|_| true);
        if self.learner.is_stale() {
            self.policy_due = Some(Instant::now());
        }
    }

    /// Compiles what is to be compiled again and hands it to the links, as much as `portion` is time for: in
    /// turns, and not what nobody could take, since every proxy of the group still has its last one to confirm.
    pub(super) fn publish_some(&mut self, portion: Duration) {
        let began = Instant::now();
        let stale = self.learner.stale();
        let from = stale.partition_point(|group| Some(group) <= self.published.as_ref());
        let (before, after) = stale.split_at(from);
        let (busy, mut changed) = (self.busy(), BTreeSet::new());
        for group in after.iter().chain(before) {
            if began.elapsed() >= portion {
                break;
            }
            if busy.contains(group) {
                continue;
            }
            if self.learner.compile(group) {
                changed.insert(group.clone());
            }
            self.published = Some(group.clone());
        }
        if !changed.is_empty() {
            self.publish(|workload| changed.contains(&workload.group()));
        }
        let pause = began.elapsed().saturating_mul(PAUSE);
        let is_left = self.learner.is_stale();
        self.policy_due = is_left.then(|| Instant::now() + pause);
    }

    /// Groups of which proxies are connected and all of them have their last policy to confirm.
    fn busy(&self) -> BTreeSet<Group> {
        let mut busy = BTreeMap::new();
        for workload in self.roster.all() {
            let link = self.links.get(&workload.uid);
            if let Some(link) = link.filter(|link| link.is_connected()) {
                *busy.entry(workload.group()).or_insert(true) &= link.is_behind();
            }
        }
        busy.retain(|_, busy| *busy);
        busy.into_keys().collect()
    }

    /// Hands the policies that were compiled last to the links of those for whom anything changed.
    fn publish(&mut self, concerned: impl Fn(&Workload) -> bool) {
        let mut is_changed = false;
        for workload in self.roster.all().filter(|workload| concerned(workload)) {
            let keeps_rules = self.keeps_rules(&workload.uid);
            let Some(link) = self.links.get_mut(&workload.uid) else { continue };
            let Some(policy) = self.learner.policy(&workload.uid) else { continue };
            let fresh = Desired {
                generation: self.generation + 1,
                workload: Arc::clone(workload),
                policy: Arc::clone(policy),
                keeps_rules,
                internal: Arc::clone(&self.around.internal),
                special: Arc::clone(self.roster.special()),
                policy_addrs: Arc::clone(&self.around.addresses),
            };
            if !link.desired.borrow().says_the_same(&fresh) {
                link.publish(fresh);
                is_changed = true;
            }
        }
        self.generation += u64::from(is_changed);
    }

    /// What a workload's proxy is to have, as it was compiled last.
    pub(super) fn desired(&self, uid: &str) -> Option<Desired> {
        Some(Desired {
            generation: self.generation,
            workload: Arc::clone(self.roster.get(uid)?),
            policy: Arc::clone(self.learner.policy(uid)?),
            keeps_rules: self.keeps_rules(uid),
            internal: Arc::clone(&self.around.internal),
            special: Arc::clone(self.roster.special()),
            policy_addrs: Arc::clone(&self.around.addresses),
        })
    }
}

/// What every proxy hears of the others.
#[derive(Debug, Default)]
pub(super) struct Around {
    /// Internal networks.
    internal: Arc<[IpNet]>,
    /// The addresses of every workload.
    addresses: Arc<[IpAddr]>,
}

impl Around {
    fn new(roster: &Roster) -> Self {
        let addresses: BTreeSet<_> = roster
            .all()
            .flat_map(|workload| workload.addresses.iter().copied())
            .collect();
        Self { internal: roster.internal().into(), addresses: addresses.into_iter().collect() }
    }
}

#[cfg(test)]
mod tests;
