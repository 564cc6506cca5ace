//! What is read of a node: the networks of its pods.

use ipnet::IpNet;
use kube::core::{ApiResource, Object};
use serde::{Deserialize, Serialize};

/// Networks of one node that are kept.
const MAX_NETWORKS: usize = 8;

/// A node as far as it is read.
pub(super) type ApiNode = Object<Spec, Nothing>;

/// Of `spec`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Spec {
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Vec<String>,
}

/// Of `status`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Nothing {}

/// What `Api` has to know of nodes.
pub(super) fn resource() -> ApiResource {
    ApiResource::erase::<k8s_openapi::api::core::v1::Node>(&())
}

pub(super) fn networks(node: &ApiNode) -> Vec<IpNet> {
    let read = node
        .spec
        .pod_cidrs
        .iter()
        .filter_map(|text| text.parse::<IpNet>().ok());
    read.map(|network| network.trunc())
        .take(MAX_NETWORKS)
        .collect()
}
