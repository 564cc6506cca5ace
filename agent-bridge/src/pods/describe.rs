//! A pod of the API as a workload: pure.

use std::net::IpAddr;

use aws_lc_rs::digest::{SHA256, digest};
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod as ApiPod, PodStatus};
use outrider_model::MacAddr;

use super::Pod;
use crate::{
    cluster::owner,
    inject::{MAILBOX, PROXY},
    mailbox::watch::{MAX_ADDRESSES, Workload, is_name, is_uid},
};

/// The restart policy by which nothing ever ends for good.
const ALWAYS: &str = "Always";

/// What the bridge needs of a pod; `None` if it cannot be anybody's.
pub(crate) fn describe(pod: &ApiPod) -> Option<(String, Pod)> {
    let meta = &pod.metadata;
    let uid = meta.uid.clone().filter(|uid| is_uid(uid))?;
    let status = pod.status.clone().unwrap_or_default();
    if !has_proxy(pod) {
        return Some((uid, Pod::default()));
    }
    let has_ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let workload = if has_ended { None } else { workload(&uid, pod, &status) };
    let finished = !has_ended && others_ended(pod, &status);
    Some((uid, Pod { has_mailbox: !has_ended, workload, finished }))
}

/// Both a container and a volume of ours: either alone is no mailbox.
fn has_proxy(pod: &ApiPod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let mut containers = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten());
    let mut volumes = spec.volumes.iter().flatten();
    containers.any(|container| container.name == PROXY)
        && volumes.any(|volume| volume.name == MAILBOX)
}

fn workload(uid: &str, pod: &ApiPod, status: &PodStatus) -> Option<Workload> {
    let meta = &pod.metadata;
    let namespace = meta.namespace.clone().filter(|name| is_name(name))?;
    let name = meta.name.clone().filter(|name| is_name(name))?;
    let addresses: Vec<IpAddr> = status
        .pod_ips
        .iter()
        .flatten()
        .filter_map(|one| one.ip.parse::<IpAddr>().ok())
        .map(|address| address.to_canonical())
        .take(MAX_ADDRESSES)
        .collect();
    if addresses.is_empty() {
        return None;
    }
    Some(Workload {
        uid: uid.to_owned(),
        name: format!("{namespace}/{name}"),
        service: owner::service(meta),
        namespace,
        addresses,
        mac: mac(uid),
        labels: meta.labels.clone().unwrap_or_default(),
    })
}

/// The pod's name on the ctrl wire: locally administered, and the same whoever computes it. Two pods of a node
/// have the same one once in about two million nodes of 1000 pods; the second one is refused then.
pub(crate) fn mac(uid: &str) -> MacAddr {
    let digest = digest(&SHA256, uid.as_bytes());
    let mut bytes = [0x02; 6];
    bytes[1..].copy_from_slice(&digest.as_ref()[..5]);
    MacAddr(bytes)
}

/// Every container but a classic proxy has ended for good, so that the pod waits for the proxy alone. Init containers
/// have ended when the others have begun, and those that go on beside them are ended by the kubelet once nothing else
/// runs, the proxy included.
fn others_ended(pod: &ApiPod, status: &PodStatus) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let policy = spec.restart_policy.as_deref().unwrap_or(ALWAYS);
    let is_proxy = |container: &&Container| container.name == PROXY;
    let is_classic = spec.containers.iter().any(|one| is_proxy(&one));
    let mut others = spec
        .containers
        .iter()
        .filter(|one| !is_proxy(one))
        .peekable();
    // After an exit code of 0 the kubelet starts the proxy again where the policy says so, and only there.
    if !is_classic || policy == ALWAYS || others.peek().is_none() {
        return false;
    }
    let statuses = status.container_statuses.iter().flatten();
    others.all(|container| {
        let policy = container.restart_policy.as_deref().unwrap_or(policy);
        statuses
            .clone()
            .any(|status| status.name == container.name && has_ended(status, policy))
    })
}

/// The container has ended and is not started again.
fn has_ended(status: &ContainerStatus, policy: &str) -> bool {
    let state = status.state.as_ref();
    let end = state.and_then(|state| state.terminated.as_ref());
    end.is_some_and(|end| match policy {
        "Never" => true,
        "OnFailure" => end.exit_code == 0,
        _ => false,
    })
}

#[cfg(test)]
mod tests;
