//! What is kept of a pod, and what is read of it at all: a pod of the API has kilobytes, this has some three hundred
//! bytes besides its labels, which pods of one template share.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use kube::core::{ApiResource, Object};
use serde::{Deserialize, Serialize};

use super::plan::{Labels, Pod};
use crate::{cluster::owner, inject::PROXY};

/// Addresses of one pod that are kept.
const MAX_ADDRESSES: usize = 16;
/// Copies of labels that are kept to be shared; more are not.
const MAX_SHARED: usize = 65_536;

/// A pod as far as it is read.
pub(super) type ApiPod = Object<Spec, Status>;

/// Of `spec`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Spec {
    node_name: String,
    host_network: bool,
    containers: Vec<Container>,
    init_containers: Vec<Container>,
}

/// Of a container.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct Container {
    name: String,
}

/// Of `status`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Status {
    phase: String,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<PodIp>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct PodIp {
    ip: String,
}

/// What `Api` has to know of pods.
pub(super) fn resource() -> ApiResource {
    ApiResource::erase::<k8s_openapi::api::core::v1::Pod>(&())
}

/// Names and labels that many pods have in common.
#[derive(Debug, Default)]
pub(super) struct Shared {
    texts: HashMap<Box<str>, Arc<str>>,
    labels: HashMap<Labels, Arc<Labels>>,
}

impl Shared {
    fn text(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.texts.get(text) {
            return Arc::clone(known);
        }
        if self.texts.len() >= MAX_SHARED {
            self.texts.retain(|_, shared| Arc::strong_count(shared) > 1);
        }
        let new: Arc<str> = text.into();
        if self.texts.len() < MAX_SHARED {
            self.texts.insert(text.into(), Arc::clone(&new));
        }
        new
    }

    fn labels(&mut self, labels: BTreeMap<String, String>) -> Arc<Labels> {
        if let Some(known) = self.labels.get(&labels) {
            return Arc::clone(known);
        }
        if self.labels.len() >= MAX_SHARED {
            self.labels
                .retain(|_, shared| Arc::strong_count(shared) > 1);
        }
        let new = Arc::new(labels.clone());
        if self.labels.len() < MAX_SHARED {
            self.labels.insert(labels, Arc::clone(&new));
        }
        new
    }

    /// What is kept of a pod; nothing of one that has ended.
    pub(super) fn pod(&mut self, pod: ApiPod) -> Option<Pod> {
        let service = owner::service(&pod.metadata);
        let meta = pod.metadata;
        let status = pod.status.unwrap_or_default();
        if matches!(&*status.phase, "Succeeded" | "Failed") {
            return None;
        }
        let spec = pod.spec;
        let mut containers = spec.containers.iter().chain(&spec.init_containers);
        let managed = containers.any(|container| container.name == PROXY);
        let addresses = if spec.host_network { Vec::new() } else { addresses(&status) };
        Some(Pod {
            uid: meta.uid?.into(),
            namespace: self.text(&meta.namespace?),
            name: meta.name?.into(),
            service: self.text(&service),
            node: self.text(&spec.node_name),
            addresses,
            labels: self.labels(meta.labels.unwrap_or_default()),
            managed,
        })
    }
}

fn addresses(status: &Status) -> Vec<IpAddr> {
    let read = |one: &PodIp| one.ip.parse::<IpAddr>().ok();
    let found = status.pod_ips.iter().filter_map(read);
    let mut found: Vec<_> = found
        .map(|ip| ip.to_canonical())
        .take(MAX_ADDRESSES)
        .collect();
    found.shrink_to_fit();
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, phase: &str, host: bool) -> ApiPod {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "shop", "uid": format!("u-{name}"), "labels": {"app": "web"}},
            "spec": {
                "nodeName": "n1", "hostNetwork": host, "volumes": [{"name": "v"}],
                "containers": [{"name": "app", "image": "x"}],
                "initContainers": [{"name": "outrider-proxy", "restartPolicy": "Always"}],
            },
            "status": {"phase": phase, "podIPs": [{"ip": "10.1.0.9"}, {"ip": "::ffff:10.1.0.8"}, {"ip": "?"}]},
        }))
        .unwrap()
    }

    #[test]
    fn of_a_pod_little_is_kept_and_shared() {
        let mut shared = Shared::default();
        let one = shared.pod(pod("a", "Running", false)).unwrap();
        let two = shared.pod(pod("b", "Pending", false)).unwrap();
        assert!(Arc::ptr_eq(&one.labels, &two.labels) && Arc::ptr_eq(&one.node, &two.node));
        assert!(one.managed);
        assert_eq!(one.addresses.len(), 2);
        assert_eq!(one.addresses[1], "10.1.0.8".parse::<IpAddr>().unwrap());
        assert_eq!(one.group(), "nv.a.shop");
        assert!(
            shared
                .pod(pod("c", "Running", true))
                .unwrap()
                .addresses
                .is_empty()
        );
        assert!(shared.pod(pod("d", "Succeeded", false)).is_none());
    }
}
