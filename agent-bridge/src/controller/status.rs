//! What is to be said of each object: the verdict of the resolver, and what the nodes run.

mod tally;

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

#[cfg(test)]
use self::tally::MAX_STALE;
pub(super) use self::tally::{Stale, Tally, Thing};
use super::{
    plan::{Kind, ObjectKey, Verdict},
    store::{Key, Tables},
};
use crate::cluster::objects::{Condition, WorkloadCounts};

/// What is to be said of one object.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Report {
    pub(super) key: ObjectKey,
    pub(super) verdict: Arc<Verdict>,
    count: Count,
}

/// What a workload runs of an object.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Said {
    /// Nothing can be said: it has no proxy.
    Bare,
    /// Nothing was said of the newest form.
    Pending,
    /// Its policy has no room for all of it.
    Cut,
    /// Its proxy would not take it.
    Refused,
    /// All of it.
    Enforced,
}

/// What the workloads of an object with rules run of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Count([u32; 5]);

impl Count {
    fn of(self, said: Said) -> u32 {
        self.0[said as usize]
    }

    /// A workload says something else than before.
    fn change(&mut self, before: Option<Said>, now: Option<Said>) {
        if let Some(before) = before {
            self.0[before as usize] -= 1;
        }
        if let Some(now) = now {
            self.0[now as usize] += 1;
        }
    }

    fn workloads(self) -> WorkloadCounts {
        let (pending, enforced) = (self.of(Said::Pending), self.of(Said::Enforced));
        let refused = self.of(Said::Refused) + self.of(Said::Cut);
        WorkloadCounts { concerned: pending + enforced + refused, enforced, refused, pending }
    }
}

impl Report {
    /// Whether people wait for it, who know `before`: there is another verdict on what they wrote, or now all have said
    /// what they run. Everything else may change soon again.
    pub(super) fn is_urgent(&self, before: &Self) -> bool {
        let word = |report: &Self| (report.verdict.generation, report.verdict.reason);
        let is_settled = |report: &Self| report.count.of(Said::Pending) == 0;
        word(self) != word(before) || (is_settled(self) && !is_settled(before))
    }

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
        let concerned = self.verdict.count;
        match self.key.0 {
            Kind::Group | Kind::ClusterGroup => status["members"] = json!(concerned),
            Kind::Mode | Kind::ClusterMode => status["workloads"] = json!(concerned),
            Kind::Rule | Kind::ClusterRule => {
                status["rules"] = json!(self.verdict.rules);
                status["workloads"] = json!(self.count.workloads());
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
        let (counts, bare) = (self.count.workloads(), self.count.of(Said::Bare));
        let cut = self.count.of(Said::Cut);
        let (status, reason) = match counts {
            _ if !self.verdict.accepted => ("False", "NotAccepted"),
            _ if cut > 0 => ("False", "DoesNotFit"),
            WorkloadCounts { refused: 1.., .. } => ("False", "Refused"),
            WorkloadCounts { pending: 1.., .. } => ("Unknown", "Pending"),
            WorkloadCounts { concerned: 0, .. } => ("True", "NoWorkloads"),
            _ => ("True", "Enforced"),
        };
        let mut message = match reason {
            "NotAccepted" => "what was not accepted is not in force".to_owned(),
            _ => format!("{} of {} proxies run it", counts.enforced, counts.concerned),
        };
        if cut > 0 {
            let text = format!("; the policies of {cut} have no room for all of it");
            message.push_str(&text);
        }
        if bare > 0 {
            message.push_str(&format!("; {bare} pods have no proxy"));
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

#[cfg(test)]
mod tests;
