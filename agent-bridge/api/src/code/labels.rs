//! What selects the pods of a learned group.

use std::collections::{BTreeMap, BTreeSet};

use crate::Workload;

/// Labels by key.
pub(super) type Labels = BTreeMap<String, String>;

/// Labels that one selector may ask for.
const MAX_LABELS: usize = 16;

/// Labels that tell one pod, one run or one version from another.
const PASSING: [&str; 12] = [
    "app.kubernetes.io/version",
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-name",
    "controller-revision-hash",
    "controller-uid",
    "helm.sh/chart",
    "job-name",
    "outrider.dev/inject",
    "pod-template-generation",
    "pod-template-hash",
    "statefulset.kubernetes.io/pod-name",
];

/// Whether pods that come after this one will have that label too.
#[must_use]
pub fn lasting(key: &str) -> bool {
    !PASSING.contains(&key)
}

/// The workloads that are known, as far as groups are selected among them.
#[derive(Debug)]
pub(super) struct Known<'a> {
    workloads: &'a [Workload],
}

impl<'a> Known<'a> {
    pub(super) fn new(workloads: &'a [Workload]) -> Self {
        Self { workloads }
    }

    /// Every group, with its mode.
    pub(super) fn groups(&self) -> BTreeMap<&'a str, &'a str> {
        self.workloads
            .iter()
            .map(|one| (one.group.as_str(), one.mode.as_str()))
            .collect()
    }

    /// Labels that all pods of a group have, and no other pod of their namespace that is known.
    pub(super) fn of(&self, group: &str) -> Result<Labels, String> {
        let mut members = self.workloads.iter().filter(|one| one.group == group);
        let Some(first) = members.next() else {
            return Err(format!("no pod of {group} is known, so nobody knows its labels"));
        };
        let mut labels = first.labels.clone();
        labels.retain(|key, _| lasting(key));
        for other in members {
            labels.retain(|key, value| other.labels.get(key) == Some(value));
        }
        if labels.is_empty() {
            return Err(format!("the pods of {group} have no label in common that lasts"));
        }
        let labels: Labels = labels.into_iter().take(MAX_LABELS).collect();
        let namespace = place(&first.name);
        let others: BTreeSet<_> = self
            .workloads
            .iter()
            .filter(|one| one.group != group && place(&one.name) == namespace)
            .filter(|one| {
                labels
                    .iter()
                    .all(|(key, value)| one.labels.get(key) == Some(value))
            })
            .map(|one| one.group.as_str())
            .collect();
        match others.first() {
            Some(other) => Err(format!("the labels of {group} are those of {other} too")),
            None => Ok(labels),
        }
    }
}

/// The namespace of a workload.
fn place(name: &str) -> &str {
    name.split_once('/').map_or("", |(namespace, _)| namespace)
}
