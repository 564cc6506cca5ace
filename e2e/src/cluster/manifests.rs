//! What the tests put into the cluster besides the chart: plain workloads, as anybody would write them. Everything of
//! Outrider's in them is injection's.

use serde_json::{Value, json};

/// Namespace of the release.
pub(crate) const SYSTEM: &str = "outrider";
/// Namespace whose every pod is injected.
pub(crate) const STAGE: &str = "outrider-e2e";
/// Namespace that never heard of Outrider.
pub(crate) const OUTSIDE: &str = "outrider-e2e-outside";
/// Where servers listen.
pub(crate) const PORT: u16 = 8080;
/// The port of a Service in front of it.
pub(crate) const SERVICE_PORT: u16 = 80;

/// Where images come from.
pub(crate) struct Images {
    /// Registry and path.
    pub(crate) repository: String,
    /// Tag of every image.
    pub(crate) tag: String,
}

impl Images {
    /// Full name of one.
    pub(crate) fn named(&self, name: &str) -> String {
        format!("{}/{name}:{}", self.repository, self.tag)
    }
}

/// A namespace; with the label by which every pod in it is injected, or without.
pub(crate) fn namespace(name: &str, enforced: bool) -> Value {
    let labels = if enforced { json!({"outrider.dev/injection": "enforced"}) } else { json!({}) };
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

/// A Service in front of the pods of that name.
pub(crate) fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": STAGE},
        "spec": {
            "selector": {"app": name},
            "ports": [{"port": SERVICE_PORT, "targetPort": PORT, "protocol": "TCP"}],
        },
    })
}

/// Pods that answer over HTTP. The script runs beside the server.
pub(crate) fn server(images: &Images, name: &str, replicas: u32, beside: &str) -> Value {
    let script = format!("trap 'exit 0' TERM; {beside} httpd -f -p {PORT} -h /www & wait");
    let mut object = deployment(images, name, replicas, &script);
    let container = &mut object["spec"]["template"]["spec"]["containers"][0];
    container["readinessProbe"] =
        json!({"httpGet": {"path": "/", "port": PORT}, "periodSeconds": 1});
    // Whoever was told of this pod before it left the Service is still answered.
    container["lifecycle"] = json!({"preStop": {"exec": {"command": ["sleep", "5"]}}});
    object
}

/// Pods that run a script.
pub(crate) fn deployment(images: &Images, name: &str, replicas: u32, script: &str) -> Value {
    let labels = json!({"app": name});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": STAGE},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {"metadata": {"labels": labels}, "spec": pod_spec(images, script)},
        },
    })
}

/// A pod that runs a script.
pub(crate) fn pod(images: &Images, namespace: &str, name: &str, script: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": pod_spec(images, script),
    })
}

/// A Job whose pod runs a script.
pub(crate) fn job(images: &Images, name: &str, script: &str) -> Value {
    let mut spec = pod_spec(images, script);
    spec["restartPolicy"] = json!("Never");
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": name, "namespace": STAGE},
        "spec": {"backoffLimit": 0, "template": {"spec": spec}},
    })
}

/// A pod that sees the processes and the directories of its node: what a test does to a node it does through this one.
pub(crate) fn node_shell(images: &Images) -> Value {
    let mut object = pod(images, OUTSIDE, "node", "trap 'exit 0' TERM; sleep 2147483647 & wait");
    let spec = &mut object["spec"];
    spec["hostPID"] = json!(true);
    spec["volumes"] = json!([{"name": "host", "hostPath": {"path": "/"}}]);
    let container = &mut spec["containers"][0];
    container["securityContext"] = json!({"runAsUser": 0, "privileged": true});
    container["volumeMounts"] =
        json!([{"name": "host", "mountPath": "/host", "mountPropagation": "HostToContainer"}]);
    object
}

fn pod_spec(images: &Images, script: &str) -> Value {
    json!({
        "terminationGracePeriodSeconds": 15,
        "automountServiceAccountToken": false,
        "containers": [{
            "name": "workload",
            "image": images.named("busybox"),
            "command": ["sh", "-c", script],
            "securityContext": {
                "runAsUser": 65534, "runAsGroup": 65534, "allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
        }],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    })
}
