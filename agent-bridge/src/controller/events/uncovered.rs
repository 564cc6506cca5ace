//! Pods that are to have a proxy and have none, as far as labels tell.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Due, SELDOM};
use crate::{
    controller::{
        plan::{Labels, Pod},
        published::Published,
    },
    inject::{Injection, Namespace},
};

/// What a pod says of itself.
const ASKED: &str = "outrider.dev/inject";
/// Left alone by the webhook whatever they say, unless it is told otherwise.
const SYSTEM: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];

/// One for each workload.
pub(super) fn look(
    now: &Published,
    namespaces: &BTreeMap<String, Arc<Labels>>,
    own: &str,
) -> Vec<Due> {
    let mut seen = BTreeSet::new();
    let uncovered = now.pods.values().filter(|pod| {
        let labels = namespaces.get(&*pod.namespace);
        let is_left_alone = &*pod.namespace == own || SYSTEM.contains(&&*pod.namespace);
        !is_left_alone && labels.is_some_and(|labels| lacks_proxy(pod, labels))
    });
    let firsts =
        uncovered.filter(|pod| seen.insert((Arc::clone(&pod.namespace), Arc::clone(&pod.service))));
    firsts
        .map(|pod| {
            let message = format!(
                "{} has no proxy though its namespace is labelled for it: it was created before the label, or \
                 while the webhook was away. It is neither seen nor protected until it is created anew",
                pod.name
            );
            Due { quiet: SELDOM, ..Due::new(pod, "NotInjected", String::new(), message) }
        })
        .collect()
}

/// Pods in the node's network have no addresses of their own, and no proxy.
fn lacks_proxy(pod: &Pod, namespace: &Labels) -> bool {
    if pod.managed || pod.addresses.is_empty() {
        return false;
    }
    let asked = pod.labels.get(ASKED).map(String::as_str);
    let label = namespace.get(Namespace::LABEL);
    match label.and_then(|text| text.parse().ok()) {
        Some(Injection::Enforced) => true,
        Some(Injection::Enabled) => asked != Some("false"),
        Some(Injection::OptIn) => asked == Some("true"),
        Some(Injection::Disabled) => false,
        None => label.is_none() && asked == Some("true"),
    }
}
