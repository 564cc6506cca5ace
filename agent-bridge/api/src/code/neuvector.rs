//! NeuVector's own kind of object, `NvSecurityRule`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{
    COMMENT,
    edges::{Edge, End, Seen, UNKNOWN},
    export::{Exported, capital, free, name},
    labels::Known,
};
use crate::Workload;

/// `apiVersion` of its objects.
const API_VERSION: &str = "neuvector.com/v1";

/// Writes one object a group, with the rules that let others in, and those that it opens to what is no group.
pub(super) fn export(
    edges: &BTreeMap<Edge, Seen>,
    workloads: &[Workload],
    mode: Option<&str>,
) -> Exported {
    let mut groups: BTreeMap<(String, String), (Vec<Value>, Vec<Value>)> = BTreeMap::new();
    let (mut left_out, mut names) = (BTreeSet::new(), BTreeMap::<String, BTreeSet<String>>::new());
    for (edge, seen) in edges {
        let is_ingress = matches!(edge.to, End::Pods { .. });
        let (own, peer) = if is_ingress { (&edge.to, &edge.from) } else { (&edge.from, &edge.to) };
        let End::Pods { group, service, namespace } = own else { continue };
        let Some(selector) = selector(peer) else {
            left_out.insert(format!(
                "rules with {} are left out: a group of addresses is no peer that can be written",
                peer.group()
            ));
            continue;
        };
        if seen.apps.contains(UNKNOWN) {
            let (from, port) = (edge.from.group(), &edge.port);
            left_out.insert(format!("{from} to {} on {port}: an application that is not identified has no name there, so any is allowed", edge.to.group()));
        }
        let way = if is_ingress { "ingress" } else { "egress" };
        let rule = json!({
            COMMENT: seen.evidence(),
            "name": free(names.entry(group.clone()).or_default(), &format!("{service}-{way}-{}-{}", peer.word(namespace), edge.port)),
            "action": "allow",
            "applications": applications(seen),
            "ports": edge.port,
            "selector": selector,
        });
        let own = groups
            .entry((namespace.clone(), service.clone()))
            .or_default();
        if is_ingress { own.0.push(rule) } else { own.1.push(rule) }
    }
    let modes = Known::new(workloads).groups();
    for group in modes.keys() {
        if let End::Pods { service, namespace, .. } = End::read(group) {
            groups.entry((namespace, service)).or_default();
        }
    }
    let objects = groups.into_iter().map(|((namespace, service), (ingress, egress))| {
        let group = format!("nv.{service}.{namespace}");
        let mut target = json!({ "selector": pods(&group, &service, &namespace) });
        if let Some(own) = modes.get(group.as_str()) {
            target["policymode"] = capital(mode.unwrap_or(own)).into();
        }
        json!({
            "apiVersion": API_VERSION, "kind": "NvSecurityRule",
            "metadata": { "name": name(&group, 253), "namespace": namespace },
            "spec": { "target": target, "ingress": ingress, "egress": egress, "process": [], "file": [] },
        })
    });
    Exported { objects: objects.collect(), left_out: left_out.into_iter().collect() }
}

fn applications(seen: &Seen) -> Vec<String> {
    if seen.apps.is_empty() || seen.apps.contains(UNKNOWN) {
        return vec!["any".into()];
    }
    seen.apps.iter().cloned().collect()
}

fn selector(end: &End) -> Option<Value> {
    match end {
        End::Pods { group, service, namespace } => Some(pods(group, service, namespace)),
        End::External | End::Nodes | End::Ingress => {
            Some(json!({ "name": end.group(), "criteria": [] }))
        }
        End::Address(_) | End::Named(_) => None,
    }
}

fn pods(group: &str, service: &str, namespace: &str) -> Value {
    json!({ "name": group, "criteria": [
        { "key": "service", "op": "=", "value": format!("{service}.{namespace}") },
        { "key": "domain", "op": "=", "value": namespace },
    ] })
}
