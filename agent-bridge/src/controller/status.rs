//! What is to be said of each object: the verdict of the resolver, and what the nodes run.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use outrider_api::cluster::WorkloadState;
use outrider_learn::MAX_CUT;
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
    count: Count,
}

/// What a rule's workloads run of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Count {
    of: WorkloadCounts,
    /// Pods without a proxy, of which nothing can be said.
    bare: u32,
    /// Of those that refuse it, those whose policy has no room for all of it.
    cut: u32,
}

/// Of every object.
pub(super) fn wanted(now: &Published, links: &Links) -> Vec<Report> {
    let linked: std::collections::HashMap<_, _> = links.all().into_iter().collect();
    let of = |node: &str| linked.get(node);
    let reports = now.plan.verdicts.iter().map(|(key, verdict)| {
        let count = match verdict.kind {
            Kind::Rule | Kind::ClusterRule => count(now, verdict, of),
            _ => Count::default(),
        };
        Report { key: key.clone(), verdict: Arc::clone(verdict), count }
    });
    reports.collect()
}

/// How many workloads of an object with rules run them.
fn count<'a>(
    now: &Published,
    verdict: &Verdict,
    link: impl Fn(&str) -> Option<&'a Arc<Mutex<Link>>>,
) -> Count {
    let mut count = Count::default();
    let counts = &mut count.of;
    for pod in verdict.workloads.iter().filter_map(|uid| now.pods.get(uid)) {
        if !pod.managed {
            count.bare += 1;
            continue;
        }
        counts.concerned += 1;
        let Some(link) = link(&pod.node) else {
            counts.pending += 1;
            continue;
        };
        let link = link.lock();
        match link.states.get(&*pod.uid) {
            Some(state) if is_cut(state, verdict) => {
                counts.refused += 1;
                count.cut += 1;
            }
            Some(state) if runs(&link, state, verdict) => counts.enforced += 1,
            Some(state) if !state.refused.is_empty() => counts.refused += 1,
            _ => counts.pending += 1,
        }
    }
    count
}

/// Whether a workload's policy has no room for all that an object says. If it names as many rules as it may, any may be
/// among the others.
fn is_cut(state: &WorkloadState, verdict: &Verdict) -> bool {
    let is_named = |id: u32| state.cut.len() >= MAX_CUT || state.cut.contains(&id);
    !state.cut.is_empty() && verdict.rules.iter().any(|rule| is_named(rule.id))
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
    /// Whether people wait for it, who know `before`: there is another verdict on what they wrote, or now all have said
    /// what they run. Everything else may change soon again.
    pub(super) fn is_urgent(&self, before: &Self) -> bool {
        let word = |report: &Self| (report.verdict.generation, report.verdict.reason);
        let is_settled = |report: &Self| report.count.of.pending == 0;
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
                status["workloads"] = json!(self.count.of);
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
        let Count { of: counts, bare, cut } = self.count;
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
mod tests {
    use outrider_learn::Ends;
    use outrider_telemetry::Registry;

    use super::*;
    use crate::{
        cluster::objects::RuleNumber,
        controller::{
            counts::Counts,
            plan::{Plan, Pod, Rule, Set, Uids, World},
            published::Change,
        },
    };

    const ID: u32 = 200_000;

    /// A rule at one pod.
    fn plan() -> Plan {
        let members: Uids = Arc::new(["u".into()].into());
        let set = Set { members: Arc::clone(&members), ..Set::default() };
        let (from, to) = ("external".into(), "them".into());
        let rule = Rule { id: ID, from, to, ends: Ends::Server, ..Rule::default() };
        let verdict = Verdict {
            kind: Kind::Rule,
            namespace: "shop".into(),
            name: "web".into(),
            generation: 1,
            accepted: true,
            reason: "Accepted",
            message: String::new(),
            field: None,
            rules: vec![RuleNumber { name: "a".into(), id: ID }],
            count: 1,
            workloads: members,
        };
        let key = (Kind::Rule, "shop".to_owned(), "web".to_owned());
        Plan {
            sets: [("them".into(), Arc::new(set))].into(),
            rules: [(ID, Arc::new(rule))].into(),
            verdicts: [(key, Arc::new(verdict))].into(),
            ..Plan::default()
        }
    }

    #[test]
    fn a_rule_for_which_a_policy_has_no_room_is_not_enforced() {
        let links = Links::new(Counts::register(&Registry::default()).unwrap());
        let (node, uid): (Arc<str>, Arc<str>) = ("n1".into(), "u".into());
        let link = links.enter(&node, "1");
        let pod = Pod { uid: Arc::clone(&uid), node, managed: true, ..Pod::default() };
        let world = World { pods: [(uid, Arc::new(pod))].into(), ..World::default() };
        links.publish(true, Change::whole(&world, &plan()), &plan());
        links.update("n1", &link).unwrap();
        let most = u32::try_from(MAX_CUT).unwrap();
        let cases = [
            (Vec::new(), "True", "Enforced"),
            (vec![ID], "False", "DoesNotFit"),
            (vec![ID + 1], "True", "Enforced"),
            // Others may be cut too, which are not named.
            ((ID + 1..=ID + most).collect(), "False", "DoesNotFit"),
        ];
        for (cut, status, reason) in cases {
            let state = WorkloadState {
                uid: "u".into(),
                revision: 1,
                connected: true,
                cut,
                ..WorkloadState::default()
            };
            link.lock().states.insert("u".into(), state);
            let report = wanted(&links.published.read(), &links).remove(0);
            let said = report.enforced();
            assert_eq!((&*said.status, &*said.reason), (status, reason), "{}", said.message);
        }
    }
}
