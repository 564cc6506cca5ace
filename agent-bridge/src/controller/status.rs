//! What is to be said of each object: the verdict of the resolver, and what the nodes run.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use outrider_api::cluster::WorkloadState;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    links::{Link, Links},
    plan::{Kind, ObjectKey, Verdict},
    published::Published,
    store::{Key, Tables},
};
use crate::cluster::objects::{Condition, WorkloadCounts};

/// What is to be said of one object.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Report {
    pub(super) key: ObjectKey,
    pub(super) verdict: Arc<Verdict>,
    counts: WorkloadCounts,
    /// Pods without a proxy, of which nothing can be said.
    bare: u32,
}

/// Of every object.
pub(super) fn wanted(now: &Published, links: &Links) -> Vec<Report> {
    let linked: std::collections::HashMap<_, _> = links.all().into_iter().collect();
    let of = |node: &str| linked.get(node);
    let reports = now.plan.verdicts.iter().map(|(key, verdict)| {
        let (counts, bare) = count(now, verdict, of);
        Report { key: key.clone(), verdict: Arc::clone(verdict), counts, bare }
    });
    reports.collect()
}

fn count<'a>(
    now: &Published,
    verdict: &Verdict,
    link: impl Fn(&str) -> Option<&'a Arc<Mutex<Link>>>,
) -> (WorkloadCounts, u32) {
    let (mut counts, mut bare) = (WorkloadCounts::default(), 0);
    for pod in verdict.workloads.iter().filter_map(|uid| now.pods.get(uid)) {
        if !pod.managed {
            bare += 1;
            continue;
        }
        counts.concerned += 1;
        let Some(link) = link(&pod.node) else {
            counts.pending += 1;
            continue;
        };
        let link = link.lock();
        match link.states.get(&*pod.uid) {
            Some(state) if runs(&link, state, verdict) => counts.enforced += 1,
            Some(state) if !state.refused.is_empty() => counts.refused += 1,
            _ => counts.pending += 1,
        }
    }
    (counts, bare)
}

/// Whether a workload's proxy has confirmed all of what an object says, in its newest form.
fn runs(link: &Link, state: &WorkloadState, verdict: &Verdict) -> bool {
    let has = |id: u32| {
        link.known
            .rule_since(id)
            .is_some_and(|since| since <= state.revision)
    };
    let has_mode = link.known.mode_since(&state.uid) <= state.revision;
    state.connected && has_mode && verdict.rules.iter().all(|rule| has(rule.id))
}

impl Report {
    pub(super) fn kind(&self) -> &'static str {
        match self.key.0 {
            Kind::Group => "workloadgroups",
            Kind::ClusterGroup => "clusterworkloadgroups",
            Kind::Rule => "networkrules",
            Kind::ClusterRule => "clusternetworkrules",
            Kind::Mode => "workloadmodes",
            Kind::ClusterMode => "clusterworkloadmodes",
        }
    }

    /// What is to be changed, if it is not as it should be.
    pub(super) fn patch(&self, tables: &Tables) -> Option<Value> {
        let key = (self.key.1.clone(), self.key.2.clone());
        let before = self.before(tables, &key)?;
        let mut conditions = vec![self.accepted()];
        if matches!(self.key.0, Kind::Rule | Kind::ClusterRule) {
            conditions.push(self.enforced());
        }
        let known = before.get("conditions").cloned().unwrap_or_default();
        let known: Vec<Condition> = serde_json::from_value(known).unwrap_or_default();
        for condition in &mut conditions {
            let same = known
                .iter()
                .find(|one| one.kind == condition.kind && one.status == condition.status);
            let at = same.and_then(|one| one.last_transition_time.clone());
            condition.last_transition_time = at.or_else(|| Some(Timestamp::now().to_string()));
        }
        let mut status = json!({
            "observedGeneration": self.verdict.generation,
            "conditions": conditions,
        });
        let concerned = self.verdict.workloads.len();
        match self.key.0 {
            Kind::Group | Kind::ClusterGroup => status["members"] = json!(concerned),
            Kind::Mode | Kind::ClusterMode => status["workloads"] = json!(concerned),
            Kind::Rule | Kind::ClusterRule => {
                status["rules"] = json!(self.verdict.rules);
                status["workloads"] = json!(self.counts);
            }
        }
        (status != before).then(|| json!({"status": status}))
    }

    /// The status that the object has; `None` if there is no such object.
    fn before(&self, tables: &Tables, key: &Key) -> Option<Value> {
        fn value<S: Serialize>(status: Option<&S>) -> Value {
            status
                .and_then(|status| serde_json::to_value(status).ok())
                .unwrap_or(Value::Null)
        }
        Some(match self.key.0 {
            Kind::Group => value(tables.groups.get(key)?.status.as_ref()),
            Kind::ClusterGroup => value(tables.cluster_groups.get(key)?.status.as_ref()),
            Kind::Rule => value(tables.rules.get(key)?.status.as_ref()),
            Kind::ClusterRule => value(tables.cluster_rules.get(key)?.status.as_ref()),
            Kind::Mode => value(tables.modes.get(key)?.status.as_ref()),
            Kind::ClusterMode => value(tables.cluster_modes.get(key)?.status.as_ref()),
        })
    }

    fn accepted(&self) -> Condition {
        Condition {
            kind: "Accepted".into(),
            status: if self.verdict.accepted { "True" } else { "False" }.into(),
            reason: self.verdict.reason.into(),
            message: self.verdict.message.clone(),
            field: self.verdict.field.clone(),
            observed_generation: Some(self.verdict.generation),
            last_transition_time: None,
        }
    }

    fn enforced(&self) -> Condition {
        let counts = self.counts;
        let (status, reason) = match counts {
            _ if !self.verdict.accepted => ("False", "NotAccepted"),
            WorkloadCounts { refused: 1.., .. } => ("False", "Refused"),
            WorkloadCounts { pending: 1.., .. } => ("Unknown", "Pending"),
            WorkloadCounts { concerned: 0, .. } => ("True", "NoWorkloads"),
            _ => ("True", "Enforced"),
        };
        let mut message = match reason {
            "NotAccepted" => "what was not accepted is not in force".to_owned(),
            _ => format!("{} of {} proxies run it", counts.enforced, counts.concerned),
        };
        if self.bare > 0 {
            message.push_str(&format!("; {} pods have no proxy", self.bare));
        }
        Condition {
            kind: "Enforced".into(),
            status: status.into(),
            reason: reason.into(),
            message,
            field: None,
            observed_generation: Some(self.verdict.generation),
            last_transition_time: None,
        }
    }
}
