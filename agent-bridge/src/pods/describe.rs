//! A pod of the API as a workload: pure.

use std::net::IpAddr;

use aws_lc_rs::digest::{SHA256, digest};
use k8s_openapi::api::core::v1::{Pod as ApiPod, PodStatus};
use outrider_model::MacAddr;

use super::Pod;
use crate::{
    cluster::owner,
    inject::{MAILBOX, PROXY},
    mailbox::watch::{MAX_ADDRESSES, Workload, is_name, is_uid},
};

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
    Some((uid, Pod { has_mailbox: !has_ended, workload }))
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

#[cfg(test)]
mod tests;
