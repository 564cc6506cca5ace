//! What may be asked of the node.

use std::sync::Arc;

use outrider_api::{PolicyRefusal, Running, Status, StoreStatus, Threat};
use outrider_learn::{Group, PolicyRule};
use outrider_model::Mode;

use super::{LinkState, Node, State, coverage, ports::Ports, threats};
use crate::{
    api::lists::{Picked, Said, Selection},
    mailbox::{link::Refused, watch::Workload},
};

impl Node {
    /// How the bridge is.
    #[must_use]
    pub fn status(&self) -> Status {
        let (store, export) = (self.store_status(), self.export.status());
        let not_ready = self.not_ready().map(str::to_owned);
        let cluster = self.link_status();
        let state = self.state.lock();
        let coverage = state.coverage();
        let broken = state
            .broken
            .iter()
            .map(|(uid, reason)| format!("{uid}: {reason}"));
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            uptime: self.started.elapsed().as_secs(),
            workloads: state.roster.len() as u64,
            proxies_connected: coverage.connected,
            rules: state.learner.rules().count() as u64,
            conversations: state.learner.conversations().count() as u64,
            violations: state.learner.violations().count() as u64,
            threats: threats::shown(&state.threats).count() as u64,
            received: self.counts.all_received(),
            dropped: self.counts.all_dropped(),
            store,
            controller: self.controller.status(),
            kubernetes: self.kubernetes.lock().clone(),
            cluster,
            refused: state
                .refused
                .iter()
                .map(|one| one.text.clone())
                .chain(broken)
                .collect(),
            policy_refused: state.policy_refused(),
            rules_kept: state.rules_kept(),
            coverage,
            export,
            listeners: self.events.listeners() as u64,
            not_ready,
        }
    }

    fn store_status(&self) -> StoreStatus {
        let mut status = self.store.lock().clone();
        status.bytes = std::fs::metadata(&status.path).map_or(0, |file| file.len());
        status
    }

    /// Why the bridge cannot be relied on yet, if so.
    #[must_use]
    pub fn not_ready(&self) -> Option<&'static str> {
        if self.store.lock().failing.is_some() {
            return Some("the store cannot be written");
        }
        let nobody = |found: &outrider_api::KubernetesStatus| found.pods_from == "nobody";
        if self.kubernetes.lock().as_ref().is_some_and(nobody) {
            return Some("the API server was not heard yet, and the store knows no pods");
        }
        (!self.state.lock().polled).then_some("the mailbox root was not read yet")
    }

    /// Workloads, in order of uid.
    pub(crate) fn workloads(&self, asked: &Selection) -> Picked<outrider_api::Workload> {
        let state = self.state.lock();
        let all: Vec<_> = state
            .roster
            .all()
            .map(|workload| state.describe(workload))
            .collect();
        drop(state);
        asked.pick(&all)
    }

    /// The group of the workload of that name, if it means one.
    #[must_use]
    pub fn group_of(&self, name: &str) -> Option<String> {
        let state = self.state.lock();
        let workload = state.roster.named(name).ok()?;
        Some(workload.group().to_string())
    }

    /// Conversations, in order of their ends' names.
    pub(crate) fn conversations(&self, asked: &Selection) -> Picked<outrider_api::Conversation> {
        asked.pick(self.state.lock().learner.conversations())
    }

    /// Rules: those that people wrote and the cluster learned, in the order in which they are asked, then those that
    /// were learned here, in order of number. Of a workload, those that hold for it.
    pub(crate) fn rules(&self, asked: &Selection) -> Picked<outrider_api::Rule> {
        let state = self.state.lock();
        let workload = asked.workload().map(|name| state.roster.named(name));
        let workload = workload.and_then(Result::ok);
        let own = workload.and_then(|one| state.learner.directory().get(&one.uid));
        let said = state.learner.said();
        let named = |rule: &&PolicyRule| {
            let is_end = |name| rule.from.name() == name || rule.to.name() == name;
            asked.workload().is_none_or(is_end)
        };
        let said: Vec<_> = match own {
            Some(workload) => said.rules_of(workload).into_iter().map(Said).collect(),
            None => said.rules().filter(named).map(Said).collect(),
        };
        let mut picked = asked.pick(&said);
        if !picked.is_full(asked) {
            asked.pick_more(&mut picked, state.learner.rules());
        }
        picked
    }

    /// Violations, newest first.
    pub(crate) fn violations(&self, asked: &Selection) -> Picked<outrider_api::Violation> {
        asked.pick(self.state.lock().learner.violations())
    }

    /// Threats, newest first.
    pub(crate) fn threats(&self, asked: &Selection) -> Picked<Threat> {
        asked.pick(threats::shown(&self.state.lock().threats))
    }

    /// Samples of recent flows, newest first.
    pub(crate) fn flows(&self, asked: &Selection) -> Picked<outrider_api::Flow> {
        let state = self.state.lock();
        let all: Vec<_> = state.samples.all().map(Arc::clone).collect();
        drop(state);
        asked.pick(all.iter().map(|flow| &**flow))
    }
}

impl State {
    /// How far policy goes for a workload: what the cluster says for it, else what holds for its group.
    pub(super) fn mode_of(&self, uid: &str, group: &Group) -> Mode {
        let said = self.learner.said().mode(uid);
        said.unwrap_or_else(|| self.learner.mode(group))
    }

    /// Workloads whose proxy refuses its policy, and why.
    fn policy_refused(&self) -> Vec<String> {
        let refusing = self.roster.all().filter_map(|workload| {
            let state = self.links.get(&workload.uid)?.state.borrow();
            let refused = state.refused.as_ref().filter(|_| state.connected)?;
            let Refused { generation, why } = &**refused;
            let name = &workload.name;
            Some(format!("{name}: generation {generation}: {}: {}", why.reason, why.detail))
        });
        refusing.collect()
    }

    /// Workloads whose proxy goes on with the rules it has.
    fn rules_kept(&self) -> Vec<String> {
        let kept = self
            .roster
            .all()
            .filter(|workload| self.keeps_rules(&workload.uid));
        kept.map(|workload| workload.name.clone()).collect()
    }

    fn describe(&self, workload: &Workload) -> outrider_api::Workload {
        let link = self.links.get(&workload.uid);
        let state = link
            .map(|link| link.state.borrow().clone())
            .unwrap_or_default();
        let policy = link.map(|link| Arc::clone(&link.desired.borrow().policy));
        let (rules, left_out) = policy
            .map(|policy| (policy.spec.rules.len(), policy.left_out))
            .unwrap_or_default();
        let group = workload.group();
        outrider_api::Workload {
            name: workload.name.clone(),
            uid: workload.uid.clone(),
            mode: self.mode_of(&workload.uid, &group).name().into(),
            rules_full: self.learner.is_full(&group),
            group: group.to_string(),
            addresses: workload.addresses.iter().map(ToString::to_string).collect(),
            labels: workload.labels.clone(),
            mac: workload.mac.to_string(),
            proxy: coverage::proxy(&state),
            policy_version: if state.connected { state.pushes } else { 0 },
            rules: rules as u64,
            rules_left_out: left_out as u64,
            ports: self
                .ports
                .get(&workload.uid)
                .map(Ports::listed)
                .unwrap_or_default(),
            connects: state.connects,
            restarts: self.restarts.get(&workload.uid).copied().unwrap_or(0),
            generation: link.map_or(0, |link| link.desired.borrow().generation),
            running: running(&state),
            refused: refused(&state),
            rules_kept: self.keeps_rules(&workload.uid),
            proxy_version: state.proxy.as_ref().map(|proxy| proxy.version.clone()),
        }
    }
}

/// What a connected proxy runs, as it says.
fn running(state: &LinkState) -> Option<Running> {
    let said = state.proxy.as_ref().filter(|_| state.connected)?;
    Some(Running {
        generation: state.applied,
        version: said.policy_version,
        policy: said.policy.clone(),
        mode: said.mode.clone(),
    })
}

fn refused(state: &LinkState) -> Option<PolicyRefusal> {
    let Refused { generation, why } = &**state.refused.as_ref().filter(|_| state.connected)?;
    let (reason, detail) = (why.reason.clone(), why.detail.clone());
    Some(PolicyRefusal { generation: *generation, reason, detail })
}
