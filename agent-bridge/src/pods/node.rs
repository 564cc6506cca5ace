//! What the API says about our node: its own addresses, its pods' networks, its ends of tunnels.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;

/// Annotations in which networks write a node's end of their tunnels.
const TUNNELS: [&str; 8] = [
    "projectcalico.org/IPv4IPIPTunnelAddr",
    "projectcalico.org/IPv4VXLANTunnelAddr",
    "projectcalico.org/IPv6VXLANTunnelAddr",
    "projectcalico.org/IPv4WireguardInterfaceAddr",
    "network.cilium.io/ipv4-cilium-host",
    "network.cilium.io/ipv6-cilium-host",
    "io.cilium.network.ipv4-cilium-host",
    "io.cilium.network.ipv6-cilium-host",
];
/// Says that the network is flannel's, whose device has the first address of the pods' network.
const FLANNEL: &str = "flannel.alpha.coreos.com/backend-type";
/// Most addresses and most networks that are taken of a node.
const MAX_OF_NODE: usize = 32;

/// Addresses around the workloads, beside those that were configured.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Surroundings {
    /// The nodes' addresses.
    pub(crate) hosts: BTreeSet<IpAddr>,
    /// Nodes' ends of tunnels.
    pub(crate) tunnels: BTreeSet<IpAddr>,
    /// Internal networks.
    pub(crate) internal: BTreeSet<IpNet>,
}

/// Reads a node.
pub(crate) fn surroundings(node: &Node) -> Surroundings {
    let status = node.status.iter();
    let hosts = status
        .flat_map(|status| status.addresses.iter().flatten())
        .filter(|address| address.type_.ends_with("IP"))
        .filter_map(|address| address.address.parse::<IpAddr>().ok())
        .map(|address| address.to_canonical())
        .take(MAX_OF_NODE)
        .collect();
    let spec = node.spec.iter();
    let networks = spec.flat_map(|spec| spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr));
    let internal: BTreeSet<IpNet> = networks
        .filter_map(|text| text.parse::<IpNet>().ok())
        .map(|network| network.trunc())
        .take(MAX_OF_NODE)
        .collect();
    let said = |key: &str| node.metadata.annotations.as_ref()?.get(key);
    let mut tunnels: BTreeSet<IpAddr> = TUNNELS
        .into_iter()
        .filter_map(said)
        .filter_map(|text| text.split('/').next()?.parse::<IpAddr>().ok())
        .map(|address| address.to_canonical())
        .collect();
    if said(FLANNEL).is_some() {
        tunnels.extend(internal.iter().map(IpNet::network));
    }
    Surroundings { hosts, tunnels, internal }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(value: serde_json::Value) -> Node {
        serde_json::from_value(value).unwrap()
    }

    fn texts<T: ToString>(all: &BTreeSet<T>) -> Vec<String> {
        all.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn addresses_and_networks_of_both_families_are_read() {
        let found = surroundings(&node(serde_json::json!({
            "metadata": { "annotations": { "projectcalico.org/IPv4VXLANTunnelAddr": "10.1.0.1",
                "network.cilium.io/ipv6-cilium-host": "odd" } },
            "spec": { "podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24", "fd01::/64", "x"] },
            "status": { "addresses": [
                { "type": "InternalIP", "address": "192.0.2.1" },
                { "type": "ExternalIP", "address": "2001:db8::1" },
                { "type": "Hostname", "address": "192.0.2.9" } ] },
        })));
        assert_eq!(texts(&found.hosts), ["192.0.2.1", "2001:db8::1"]);
        assert_eq!(texts(&found.internal), ["10.1.0.0/24", "fd01::/64"]);
        assert_eq!(texts(&found.tunnels), ["10.1.0.1"]);
    }

    #[test]
    fn flannels_end_of_the_tunnel_is_the_first_address_of_its_pods() {
        let found = surroundings(&node(serde_json::json!({
            "metadata": { "annotations": { "flannel.alpha.coreos.com/backend-type": "vxlan" } },
            "spec": { "podCIDRs": ["10.1.7.0/24"] },
        })));
        assert_eq!(texts(&found.tunnels), ["10.1.7.0"]);
    }
}
