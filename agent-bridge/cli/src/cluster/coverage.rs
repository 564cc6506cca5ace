//! Pods of namespaces that ask for injection which run without a proxy.

use serde::Serialize;
use serde_json::Value;

use super::Kubectl;
use crate::{
    client::{Failure, encode},
    show::Row,
    table::Column,
};

/// A pod without a proxy.
#[derive(Debug, Serialize)]
pub(crate) struct Uncovered {
    namespace: String,
    pod: String,
    node: String,
    why: &'static str,
}

impl Row for Uncovered {
    const NOTHING: &'static str = "every pod of a namespace that asks for it has its proxy";
    const COLUMNS: &'static [Column] = &[
        Column::Left("NAMESPACE"),
        Column::Left("POD"),
        Column::Left("NODE"),
        Column::Left("WITHOUT A PROXY BECAUSE"),
    ];

    fn cells(&self, _now: u64) -> Vec<String> {
        vec![self.namespace.clone(), self.pod.clone(), self.node.clone(), self.why.to_owned()]
    }
}

/// The container that stands in the traffic.
pub(super) const PROXY: &str = "outrider-proxy";
/// The label of a namespace, and what asks for every pod.
const LABEL: &str = "outrider.dev/injection";

/// Names of the namespaces that ask for every pod, or for those that want it.
pub(super) async fn namespaces(kubectl: &Kubectl) -> Result<Vec<(String, bool)>, Failure> {
    let selector = encode(&format!("{LABEL} in (enforced,enabled)"));
    let found = kubectl
        .list(&format!("/api/v1/namespaces?labelSelector={selector}"))
        .await?;
    let named = found.iter().filter_map(|namespace| {
        let name = namespace["metadata"]["name"].as_str()?.to_owned();
        Some((name, namespace["metadata"]["labels"][LABEL] == "enforced"))
    });
    Ok(named.collect())
}

/// Finds them.
pub(super) async fn find(kubectl: &Kubectl) -> Result<Vec<Uncovered>, Failure> {
    let mut uncovered = Vec::new();
    for (namespace, enforced) in namespaces(kubectl).await? {
        let path = format!("/api/v1/namespaces/{}/pods", encode(&namespace));
        for pod in kubectl.list(&path).await? {
            if let Some(why) = without(&pod, enforced) {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                uncovered.push(Uncovered {
                    namespace: namespace.clone(),
                    pod: text(&pod["metadata"]["name"]),
                    node: text(&pod["spec"]["nodeName"]),
                    why,
                });
            }
        }
    }
    Ok(uncovered)
}

/// Why a pod has no proxy, if it should have one.
fn without(pod: &Value, enforced: bool) -> Option<&'static str> {
    let spec = &pod["spec"];
    let over = ["Succeeded", "Failed"].map(|phase| pod["status"]["phase"] == phase);
    if over.contains(&true) || proxy(pod).is_some() {
        return None;
    }
    if !enforced && pod["metadata"]["labels"]["outrider.dev/inject"] == "false" {
        return Some("it asked to be left out");
    }
    if spec["hostNetwork"] == true {
        return Some("it has the node's network");
    }
    if spec["os"]["name"] == "windows" || spec["nodeSelector"]["kubernetes.io/os"] == "windows" {
        return Some("it runs on Windows");
    }
    if pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_string() {
        return Some("the kubelet runs it from a file");
    }
    Some("it is older than the label, or nobody asked the webhook: restart what makes it")
}

/// The proxy of a pod.
pub(super) fn proxy(pod: &Value) -> Option<&Value> {
    ["initContainers", "containers"].iter().find_map(|list| {
        let containers = pod["spec"][*list].as_array()?;
        containers
            .iter()
            .find(|container| container["name"] == PROXY)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_without_a_proxy_has_a_reason() {
        let with = json!({ "spec": { "initContainers": [{ "name": PROXY }] } });
        assert_eq!(without(&with, true), None);
        let over = json!({ "status": { "phase": "Succeeded" }, "spec": {} });
        assert_eq!(without(&over, true), None);
        let out =
            json!({ "metadata": { "labels": { "outrider.dev/inject": "false" } }, "spec": {} });
        assert_eq!(without(&out, false), Some("it asked to be left out"));
        assert!(without(&out, true).is_some_and(|why| why.contains("older")));
        let host = json!({ "spec": { "hostNetwork": true } });
        assert!(without(&host, true).is_some_and(|why| why.contains("node's network")));
    }
}
