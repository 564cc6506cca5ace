//! Modes in a cluster are objects: `mode set` writes a WorkloadMode, and the controller does the rest.

use outrider_model::Mode;
use serde::Serialize;
use serde_json::{Value, json};

use super::Cluster;
use crate::{
    client::{Failure, encode},
    show::Row,
    table::Column,
};

/// An object that says a mode.
#[derive(Debug, Serialize)]
pub(crate) struct Said {
    kind: &'static str,
    namespace: String,
    name: String,
    selector: String,
    mode: String,
    workloads: Option<u64>,
}

impl Row for Said {
    const NOTHING: &'static str = "no object says a mode: every workload has the bridges' default";
    const COLUMNS: &'static [Column] = &[
        Column::Left("KIND"),
        Column::Left("NAMESPACE"),
        Column::Left("NAME"),
        Column::Left("PODS"),
        Column::Left("MODE"),
        Column::Right("WORKLOADS"),
    ];

    fn cells(&self, _now: u64) -> Vec<String> {
        let workloads = self
            .workloads
            .map(|count| count.to_string())
            .unwrap_or_default();
        let Self { kind, namespace, name, selector, mode, .. } = self;
        let [namespace, name, selector, mode] =
            [namespace, name, selector, mode].map(String::clone);
        vec![(*kind).to_owned(), namespace, name, selector, mode, workloads]
    }
}

const GROUP: &str = "/apis/outrider.dev/v1alpha1";

/// Objects that say a mode where `wanted` is: `<namespace>`, or `<namespace>/<anything>`.
pub(super) async fn find(cluster: &Cluster, wanted: &str) -> Result<Vec<Said>, Failure> {
    let namespace = wanted.split('/').next().unwrap_or_default();
    let local = format!("{GROUP}/namespaces/{}/workloadmodes", encode(namespace));
    let mut all = Vec::new();
    for (kind, path) in
        [("WorkloadMode", local), ("ClusterWorkloadMode", format!("{GROUP}/clusterworkloadmodes"))]
    {
        for object in cluster.kubectl.list(&path).await? {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let spec = &object["spec"];
            let selectors = [&spec["namespaceSelector"], &spec["podSelector"]];
            let selectors = selectors.iter().filter(|selector| !selector.is_null());
            let selector: Vec<_> = selectors.map(ToString::to_string).collect();
            all.push(Said {
                kind,
                namespace: text(&object["metadata"]["namespace"]),
                name: text(&object["metadata"]["name"]),
                selector: if selector.is_empty() { "all".into() } else { selector.join(" ") },
                mode: text(&spec["mode"]),
                workloads: object["status"]["workloads"].as_u64(),
            });
        }
    }
    Ok(all)
}

/// Writes the mode of a namespace (`shop`) or of the pods of a service or pod in it (`shop/cache`); what was done.
pub(super) async fn set(cluster: &Cluster, wanted: &str, mode: Mode) -> Result<String, Failure> {
    let (namespace, name) = match wanted.split_once('/') {
        None => (wanted, None),
        Some((namespace, name)) => (namespace, Some(name)),
    };
    let selector = match name {
        None => Value::Null,
        Some(name) => selector(cluster, namespace, name).await?,
    };
    let object = object(namespace, name, &selector, mode);
    let verb = ["apply", "--server-side", "--field-manager=outrider-cli", "--force-conflicts"];
    cluster.kubectl.put(&verb, &object).await?;
    let whose = match name {
        None => format!("all pods of {namespace} that nothing more specific names"),
        Some(_) => format!("pods of {namespace} with {}", selector["matchLabels"]),
    };
    let name = name.unwrap_or(ALL);
    Ok(format!(
        "{mode} for {whose}; `kubectl -n {namespace} get workloadmode {name}` shows what comes of it"
    ))
}

/// Name of the object for a whole namespace.
const ALL: &str = "all";

fn object(namespace: &str, name: Option<&str>, selector: &Value, mode: Mode) -> Value {
    let word = match mode {
        Mode::Discover => "Discover",
        Mode::Monitor => "Monitor",
        Mode::Protect => "Protect",
    };
    let mut object = json!({
        "apiVersion": "outrider.dev/v1alpha1", "kind": "WorkloadMode",
        "metadata": { "namespace": namespace, "name": name.unwrap_or(ALL) },
        "spec": { "mode": word },
    });
    if !selector.is_null() {
        object["spec"]["podSelector"] = selector.clone();
    }
    object
}

/// What selects the pods of a service, or those that are like a pod.
async fn selector(cluster: &Cluster, namespace: &str, name: &str) -> Result<Value, Failure> {
    let at = |plural: &str| {
        format!("/api/v1/namespaces/{}/{plural}/{}", encode(namespace), encode(name))
    };
    let labels = match cluster.kubectl.find(&at("services")).await? {
        Some(service) => service["spec"]["selector"].clone(),
        None => match cluster.kubectl.find(&at("pods")).await? {
            Some(pod) => lasting(&pod["metadata"]["labels"]),
            None => {
                return Err(Failure::Refused(format!(
                    "neither a Service nor a pod {name} in namespace {namespace}"
                )));
            }
        },
    };
    match labels.as_object() {
        Some(some) if !some.is_empty() => Ok(json!({ "matchLabels": labels })),
        _ => Err(Failure::Refused(format!(
            "{namespace}/{name} has no labels that select its pods: write a WorkloadMode by hand"
        ))),
    }
}

/// Labels of a pod that those after it will have too.
fn lasting(labels: &Value) -> Value {
    let mut labels = labels.clone();
    if let Some(members) = labels.as_object_mut() {
        members.retain(|key, _| outrider_api::code::lasting(key));
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_says_what_was_typed() {
        let all = object("shop", None, &Value::Null, Mode::Protect);
        assert_eq!(all["spec"], json!({ "mode": "Protect" }));
        assert_eq!(all["metadata"]["name"], "all");
        let labels = json!({ "app": "cache", "pod-template-hash": "5d" });
        assert_eq!(lasting(&labels), json!({ "app": "cache" }));
    }
}
