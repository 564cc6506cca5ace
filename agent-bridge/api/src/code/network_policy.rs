//! Kubernetes' own `NetworkPolicy`: pods and ports, no applications, no modes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{
    COMMENT, NAMESPACE_LABEL,
    edges::{Edge, End, Seen},
    export::{Exported, name},
    labels::{Known, Labels},
};
use crate::Workload;

/// Writes one policy a group.
pub(super) fn export(edges: &BTreeMap<Edge, Seen>, workloads: &[Workload]) -> Exported {
    let known = Known::new(workloads);
    let mut left_out = BTreeSet::new();
    let mut policies: BTreeMap<(String, String), [Vec<Value>; 2]> = BTreeMap::new();
    for (edge, seen) in edges {
        let (from, to, port) = (edge.from.group(), edge.to.group(), &edge.port);
        let flow = format!("{from} to {to} on {port}");
        let apps: Vec<_> = seen.apps.iter().cloned().collect();
        for (way, own, peer) in [(0, &edge.to, &edge.from), (1, &edge.from, &edge.to)] {
            let End::Pods { group, service, namespace } = own else { continue };
            let made = known
                .of(group)
                .and_then(|_labels| rule((edge, seen), (way, peer), (&known, namespace)));
            match made {
                Ok(rule) => {
                    let own = policies
                        .entry((namespace.clone(), service.clone()))
                        .or_default();
                    own[way].push(rule);
                    if !apps.is_empty() {
                        let apps = apps.join(", ");
                        left_out.insert(format!("{flow}: not only {apps}, but any application"));
                    }
                }
                Err(why) => drop(left_out.insert(format!("{flow}: {why}, would be refused"))),
            }
        }
    }
    let objects = policies
        .into_iter()
        .filter_map(|((namespace, service), ways)| {
            let labels = known.of(&format!("nv.{service}.{namespace}")).ok()?;
            Some(policy((&namespace, &service), &labels, ways))
        });
    let objects: Vec<_> = objects.collect();
    if !objects.is_empty() {
        left_out.insert("modes: a NetworkPolicy refuses from the moment that it is applied".into());
    }
    Exported { objects, left_out: left_out.into_iter().collect() }
}

fn rule(
    (edge, seen): (&Edge, &Seen),
    (way, peer): (usize, &End),
    (known, namespace): (&Known<'_>, &str),
) -> Result<Value, String> {
    let peer = match peer {
        End::Pods { group, namespace: own, .. } => {
            let pods = json!({ "matchLabels": known.of(group)? });
            match own == namespace {
                true => json!({ "podSelector": pods }),
                false => json!({
                    "namespaceSelector": { "matchLabels": { NAMESPACE_LABEL: own } },
                    "podSelector": pods,
                }),
            }
        }
        End::Address(address) => {
            let bits = if address.is_ipv4() { 32 } else { 128 };
            json!({ "ipBlock": { "cidr": format!("{address}/{bits}") } })
        }
        other => return Err(format!("{} has no word there", other.group())),
    };
    let side = ["from", "to"][way];
    let mut rule = json!({ COMMENT: seen.evidence(), side: [peer] });
    if edge.port != "any" {
        rule["ports"] = json!([port(&edge.port)?]);
    }
    Ok(rule)
}

fn port(text: &str) -> Result<Value, String> {
    let none = || format!("{text} has no word there");
    let (proto, range) = text.split_once('/').ok_or_else(none)?;
    let mut port = Map::new();
    match proto {
        "tcp" | "udp" | "sctp" => port.insert("protocol".into(), proto.to_uppercase().into()),
        _ => return Err(none()),
    };
    if range != "any" {
        let (low, high) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| text.parse::<u16>().map_err(|_not_one| none());
        port.insert("port".into(), number(low)?.into());
        if high != low {
            port.insert("endPort".into(), number(high)?.into());
        }
    }
    Ok(port.into())
}

fn policy((namespace, service): (&str, &str), labels: &Labels, ways: [Vec<Value>; 2]) -> Value {
    let [ingress, egress] = ways;
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": { "name": name(service, 63), "namespace": namespace },
        "spec": {
            "podSelector": { "matchLabels": labels },
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": egress,
        },
    })
}
