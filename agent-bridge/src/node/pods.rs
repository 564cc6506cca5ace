//! Pods that the API server named: kept in the store, and what is said of the API server.

use std::collections::{BTreeMap, BTreeSet};

use outrider_api::KubernetesStatus;

use super::{Node, State};
use crate::{
    mailbox::watch::{Workload, describe, parse},
    pods::Known,
    store::{Change, Table},
};

/// Workload files of pods, by uid, as they are in the store or are to be.
#[derive(Debug, Default)]
pub(super) struct Stored {
    files: BTreeMap<String, Vec<u8>>,
    unsaved: BTreeSet<String>,
}

impl Node {
    /// Pods that the store has.
    pub(crate) fn stored_pods(&self) -> Known {
        let state = self.state.lock();
        let read = |(uid, file): (&String, &Vec<u8>)| -> Option<Workload> {
            parse(uid, std::str::from_utf8(file).ok()?).ok()
        };
        Known::stored(state.pods.files.iter().filter_map(read))
    }

    /// Has the store keep these pods and no others.
    pub(crate) fn keep_pods(&self, known: &Known) {
        let workloads = known.pods.values().filter_map(|pod| pod.workload.as_ref());
        let files: BTreeMap<_, _> = workloads
            .map(|workload| (workload.uid.clone(), describe(workload)))
            .collect();
        let mut state = self.state.lock();
        let Stored { files: old, unsaved } = &mut state.pods;
        let changed = files
            .iter()
            .filter(|(uid, file)| old.get(*uid) != Some(file));
        unsaved.extend(changed.map(|(uid, _)| uid.clone()));
        unsaved.extend(old.keys().filter(|uid| !files.contains_key(*uid)).cloned());
        *old = files;
    }

    /// How it stands with the API server.
    pub(crate) fn api_server(&self, node: &str, pods_from: &str, failing: Option<String>) {
        let (node, pods_from) = (node.to_owned(), pods_from.to_owned());
        *self.kubernetes.lock() = Some(KubernetesStatus { node, pods_from, failing });
    }
}

impl State {
    /// Rows of pods that changed.
    pub(super) fn take_pods(&mut self, changes: &mut Vec<Change>) {
        for uid in std::mem::take(&mut self.pods.unsaved) {
            let value = self.pods.files.get(&uid).cloned();
            changes.push(Change { table: Table::Pods, key: uid.into_bytes(), value });
        }
    }

    /// Takes back a pod; `false` if it makes no sense.
    pub(super) fn take_back_pod(&mut self, uid: &[u8], file: &[u8]) -> bool {
        let texts = std::str::from_utf8(uid)
            .ok()
            .zip(std::str::from_utf8(file).ok());
        let Some((uid, text)) = texts else { return false };
        let is_good = parse(uid, text).is_ok();
        if is_good {
            self.pods.files.insert(uid.to_owned(), file.to_vec());
        }
        is_good
    }
}
