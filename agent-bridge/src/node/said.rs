//! What people said, without a cluster.

use std::{collections::BTreeMap, sync::Arc};

use outrider_learn::ClusterChange;

use super::Node;
use crate::controller::plan::{Labels, Pod, World};

impl Node {
    /// Who is here, as rules of people mean them. Of a namespace no more is known than its name, which is its label
    /// `kubernetes.io/metadata.name`.
    pub(crate) fn world(&self) -> World {
        let state = self.state.lock();
        let mut world = World::default();
        for workload in state.roster.all() {
            let namespace = &workload.namespace;
            let name = workload.name.rsplit('/').next().unwrap_or_default();
            let pod = Pod {
                uid: workload.uid.as_str().into(),
                namespace: namespace.as_str().into(),
                name: name.into(),
                service: workload.service.as_str().into(),
                node: Arc::default(),
                addresses: workload.addresses.clone(),
                labels: Arc::new(workload.labels.clone()),
                managed: true,
            };
            world.pods.insert(Arc::clone(&pod.uid), Arc::new(pod));
            let label = ("kubernetes.io/metadata.name".to_owned(), namespace.clone());
            let labels = || Arc::new(Labels::from(BTreeMap::from([label])));
            world
                .namespaces
                .entry(namespace.clone())
                .or_insert_with(labels);
        }
        world
    }

    /// Takes in what people said; the proxies hear of it a moment later.
    pub(crate) fn say(&self, changes: Vec<ClusterChange>) {
        let mut state = self.state.lock();
        for change in changes {
            if let Err(error) = state.learner.cluster(change) {
                tracing::warn!(%error, reason = error.reason(), "policy is not taken in whole");
            }
        }
        state.policy_changed();
    }
}
