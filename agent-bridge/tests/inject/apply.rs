//! JSON Patch from its other end, and the cluster that tests stand in.

use std::collections::BTreeMap;

use outrider_agent_bridge::inject::{
    Cluster, Decision, Exemption, Images, Injected, Injection, Namespace, Op, Operation, inject,
};
use serde_json::{Value, json};

/// Applies changes as RFC 6902 says; wrong paths panic.
pub(crate) fn applied(pod: &Value, patch: &[Operation]) -> Value {
    let mut pod = pod.clone();
    for Operation { op, path, value } in patch {
        let (holder, last) = path.rsplit_once('/').unwrap();
        let last = last.replace("~1", "/").replace("~0", "~");
        let holder = pod
            .pointer_mut(holder)
            .unwrap_or_else(|| panic!("{path}: no holder"));
        match (holder, op) {
            (Value::Object(members), Op::Add) => {
                members.insert(last, value.clone().unwrap());
            }
            (Value::Object(members), Op::Remove) => {
                members
                    .remove(&last)
                    .unwrap_or_else(|| panic!("{path}: not there"));
            }
            (Value::Array(items), Op::Add) => {
                let at = if last == "-" { items.len() } else { last.parse().unwrap() };
                items.insert(at, value.clone().unwrap());
            }
            (Value::Array(items), Op::Remove) => {
                items.remove(last.parse().unwrap());
            }
            (other, _) => panic!("{path}: in {other}"),
        }
    }
    pod
}

/// What injection makes of a pod, if it does.
pub(crate) fn injected(pod: &Value, namespace: &Namespace, cluster: &Cluster) -> Option<Injected> {
    match inject(pod, namespace, cluster) {
        Decision::Inject(injected) => Some(injected),
        _ => None,
    }
}

/// A cluster of the newest version, with what a case says of it.
pub(crate) fn cluster(said: &Value) -> Cluster {
    let map = |field: &str| -> BTreeMap<String, String> {
        serde_json::from_value(said[field].clone()).unwrap_or_default()
    };
    let text = |field: &str| said[field].as_str();
    Cluster {
        ignored: serde_json::from_value(said["ignored"].clone()).unwrap_or_default(),
        unlabelled: text("unlabelled").map_or(Injection::OptIn, |word| word.parse().unwrap()),
        images: Images {
            init: "registry.example/outrider-init:1".into(),
            proxy: "registry.example/outrider-proxy:1".into(),
            pull: "IfNotPresent".into(),
        },
        kubernetes: Some(text("kubernetes").unwrap_or("1.34").parse().unwrap()),
        oldest_node: text("oldest_node").map(|version| version.parse().unwrap()),
        policy: map("policy"),
        defaults: map("defaults"),
        exempt: Exemption::list(text("exempt").unwrap_or_default()).unwrap(),
        pods_dir: "/run/outrider/pods".into(),
        csi_driver: "mailbox.outrider.dev".into(),
    }
}

/// The namespace of a case.
pub(crate) fn namespace(said: &Value) -> Namespace {
    let map = |field: &str| serde_json::from_value(said[field].clone()).unwrap_or_default();
    Namespace { name: "shop".into(), labels: map("labels"), annotations: map("annotations") }
}

/// A namespace in which every pod is injected.
pub(crate) fn enforced() -> Namespace {
    namespace(&json!({ "labels": { "outrider.dev/injection": "enforced" } }))
}

/// A pod of one container.
pub(crate) fn pod(container: Value) -> Value {
    json!({ "metadata": { "name": "shop" }, "spec": { "containers": Value::from(vec![container]) } })
}
