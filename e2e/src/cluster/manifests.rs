//! The objects of the stage, written by hand: what injection and the chart will make from labels and values.

use serde_json::{Value, json};

/// Namespace of the bridge.
pub(crate) const SYSTEM: &str = "outrider-system";
/// Namespace of the workloads.
pub(crate) const STAGE: &str = "outrider-e2e";

/// uid and gid of the proxy and of its mailbox.
const PROXY: u32 = 1771;
/// Where a node has the mailboxes of its pods.
const PODS: &str = "/run/outrider/pods";

/// Makes a pod's mailbox and, out of the pod's reach, the file that says who the pod is. A bridge that asks the API
/// server needs neither.
const MAILBOX: &str = r#"
set -e
mkdir -p /pods/$UID_OF_POD
chown 1771:1771 /pods/$UID_OF_POD
chmod 0700 /pods/$UID_OF_POD
cat >/pods/.$UID_OF_POD.new <<JSON
{"uid": "$UID_OF_POD", "name": "$NAME_OF_POD", "namespace": "$NAMESPACE_OF_POD", "service": "$NAME_OF_POD",
 "addresses": ["$ADDRESS_OF_POD"], "mac": "$(cat /sys/class/net/eth0/address)", "labels": {}}
JSON
mv /pods/.$UID_OF_POD.new /pods/$UID_OF_POD.json
"#;

/// Where images come from.
pub(crate) struct Images {
    /// Registry and path.
    pub(crate) repository: String,
    /// Tag of every image.
    pub(crate) tag: String,
}

impl Images {
    fn named(&self, name: &str) -> String {
        format!("{}/{name}:{}", self.repository, self.tag)
    }
}

/// How a pod has its proxy.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Sidecar {
    /// An init container that goes on (Kubernetes 1.29 and later).
    Native,
    /// A container beside the workload's.
    Classic,
    /// None: a pod that nobody watches.
    None,
}

/// A namespace.
pub(crate) fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

/// One bridge a node.
pub(crate) fn bridge(images: &Images) -> Value {
    let labels = json!({"app": "outrider-bridge"});
    let container = json!({
        "name": "bridge",
        "image": images.named("outrider-agent-bridge"),
        "args": ["bridge"],
        "securityContext": {
            "runAsUser": 0, "runAsGroup": 0, "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"], "add": ["CHOWN", "DAC_OVERRIDE", "FOWNER"]},
        },
        "ports": [{"name": "metrics", "containerPort": 15190, "protocol": "TCP"}],
        "readinessProbe": {"httpGet": {"path": "/healthz/ready", "port": 15190}, "periodSeconds": 2},
        "volumeMounts": [
            {"name": "run", "mountPath": "/run/outrider"},
            {"name": "state", "mountPath": "/var/lib/outrider"},
        ],
    });
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": "bridge", "namespace": SYSTEM},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "hostPID": true, // whose a report is follows from the sender's process
                    "containers": [container],
                    "volumes": [host_path("run", "/run/outrider"), host_path("state", "/var/lib/outrider")],
                },
            },
        },
    })
}

/// A pod of one busybox container that runs a script.
pub(crate) fn pod(images: &Images, name: &str, script: &str, sidecar: Sidecar) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": STAGE, "labels": {"app": name}},
        "spec": pod_spec(images, script, sidecar),
    })
}

/// A Job of the same kind of pod.
pub(crate) fn job(images: &Images, name: &str, script: &str, sidecar: Sidecar) -> Value {
    let mut spec = pod_spec(images, script, sidecar);
    spec["restartPolicy"] = json!("Never");
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": name, "namespace": STAGE},
        "spec": {"backoffLimit": 0, "template": {"spec": spec}},
    })
}

fn pod_spec(images: &Images, script: &str, sidecar: Sidecar) -> Value {
    let workload = json!({
        "name": "workload",
        "image": images.named("busybox"),
        "command": ["sh", "-c", script],
        "securityContext": {"runAsUser": 65534, "capabilities": {"drop": ["ALL"]}},
    });
    let mut proxy = proxy(images);
    let (first, beside) = match sidecar {
        Sidecar::None => (vec![], vec![workload]),
        Sidecar::Classic => (vec![mailbox(images), init(images)], vec![proxy, workload]),
        Sidecar::Native => {
            proxy["restartPolicy"] = json!("Always");
            proxy["startupProbe"] = ready();
            (vec![mailbox(images), init(images), proxy], vec![workload])
        }
    };
    json!({
        "terminationGracePeriodSeconds": 5,
        "automountServiceAccountToken": false,
        "initContainers": first,
        "containers": beside,
        "volumes": [host_path("pods", PODS)],
    })
}

fn mailbox(images: &Images) -> Value {
    json!({
        "name": "mailbox",
        "image": images.named("busybox"),
        "command": ["sh", "-c", MAILBOX],
        "env": [
            field("UID_OF_POD", "metadata.uid"), field("NAME_OF_POD", "metadata.name"),
            field("NAMESPACE_OF_POD", "metadata.namespace"), field("ADDRESS_OF_POD", "status.podIP"),
        ],
        "securityContext": {"runAsUser": 0},
        "volumeMounts": [{"name": "pods", "mountPath": "/pods"}],
    })
}

fn init(images: &Images) -> Value {
    json!({
        "name": "outrider-init",
        "image": images.named("outrider-init"),
        "args": ["apply"],
        "securityContext": {
            "runAsUser": 0,
            "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]},
        },
    })
}

fn proxy(images: &Images) -> Value {
    json!({
        "name": "outrider-proxy",
        "image": images.named("outrider-proxy"),
        "env": [field("UID_OF_POD", "metadata.uid")],
        "securityContext": {
            "runAsUser": PROXY, "runAsGroup": PROXY, "runAsNonRoot": true,
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
        "readinessProbe": ready(),
        "volumeMounts": [
            {"name": "pods", "mountPath": "/run/outrider/ctrl", "subPathExpr": "$(UID_OF_POD)"},
        ],
    })
}

fn ready() -> Value {
    json!({"httpGet": {"path": "/healthz/ready", "port": 15120}, "periodSeconds": 1, "failureThreshold": 60})
}

fn field(name: &str, path: &str) -> Value {
    json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}})
}

fn host_path(name: &str, path: &str) -> Value {
    json!({"name": name, "hostPath": {"path": path, "type": "DirectoryOrCreate"}})
}
