//! What is injected: the two containers and the mailbox, made from the settings. Every field that the API
//! server would fill in is said, so that a second look finds what the first one made.

use std::collections::BTreeSet;

use outrider_model::names;
use serde_json::{Value, json};

use super::{
    Cluster, INIT, MAILBOX, PROXY, Sidecar,
    pod::{List, Pod, text},
    probes::Asked,
    settings::Settings,
    values,
};

/// Everything of ours in a pod.
#[derive(Debug)]
pub(super) struct Made {
    /// How the proxy runs.
    pub sidecar: Sidecar,
    /// Whether `outrider-init` runs after the pod's own init containers.
    pub init_last: bool,
    /// Installs the rules.
    pub init: Value,
    /// Stands in the traffic.
    pub proxy: Value,
    /// Holds the ctrl sockets.
    pub volume: Value,
}

impl Made {
    /// Makes it.
    pub(super) fn new(
        settings: &Settings,
        cluster: &Cluster,
        sidecar: Sidecar,
        asked: &Asked,
    ) -> Self {
        Self {
            sidecar,
            init_last: sidecar == Sidecar::Classic && settings.get("classicInit") == "last",
            init: init(settings, cluster),
            proxy: proxy(settings, cluster, sidecar, asked),
            volume: volume(settings, cluster),
        }
    }

    /// What the pod's author should know about it.
    pub(super) fn warnings(&self, pod: &Pod<'_>, settings: &Settings) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.sidecar == Sidecar::Native {
            return warnings;
        }
        if pod.neighbours(List::Init).next().is_some() {
            warnings.push(
                if self.init_last {
                    "init containers run before the rules: what they send is not seen"
                } else {
                    "init containers run behind the rules and before the proxy: without network"
                }
                .to_owned(),
            );
        }
        let ends = text(pod.spec(), "restartPolicy").is_some_and(|policy| policy != "Always");
        let no_bridge = settings.get("mailbox") == "empty-dir";
        if ends && !no_bridge && pod.neighbours(List::Containers).count() > 1 {
            warnings.push(
                "the proxy ends when all other containers have ended for good: one that goes on \
                 keeps the pod from its end"
                    .to_owned(),
            );
        }
        if no_bridge {
            warnings.push("mailbox empty-dir: no bridge hears of this pod".to_owned());
        }
        if no_bridge && ends {
            warnings.push("no bridge: nobody ends the proxy when the others have ended".to_owned());
        }
        warnings
    }
}

fn init(settings: &Settings, cluster: &Cluster) -> Value {
    const SAME: [(&str, &str); 10] = [
        ("includeInboundPorts", "OUTRIDER_INIT_INBOUND_PORTS"),
        ("excludeInboundPorts", "OUTRIDER_INIT_EXCLUDE_INBOUND_PORTS"),
        ("includeOutboundPorts", "OUTRIDER_INIT_OUTBOUND_PORTS"),
        ("excludeOutboundPorts", "OUTRIDER_INIT_EXCLUDE_OUTBOUND_PORTS"),
        ("includeOutboundIPRanges", "OUTRIDER_INIT_OUTBOUND_CIDRS"),
        ("excludeOutboundIPRanges", "OUTRIDER_INIT_EXCLUDE_OUTBOUND_CIDRS"),
        ("excludeInterfaces", "OUTRIDER_INIT_EXCLUDE_INTERFACES"),
        ("kubevirtInterfaces", "OUTRIDER_INIT_VIRTUAL_INTERFACES"),
        ("captureDNS", "OUTRIDER_INIT_DNS"),
        ("guard", "OUTRIDER_INIT_GUARD"),
    ];
    let mut env = Environment::default();
    if settings.get("interceptionMode") == "TPROXY" {
        env.set("OUTRIDER_INIT_MODE", "tproxy");
    }
    if let Some(backend) = settings.changed("backend") {
        env.set("OUTRIDER_INIT_BACKEND", backend);
    }
    for (key, variable) in SAME {
        if let Some(value) = settings.changed(key) {
            env.set(variable, value);
        }
    }
    if settings.get("packets") == "queue" {
        env.set("OUTRIDER_INIT_QUEUE", settings.get("queue"));
    }
    // The legacy build of the iptables tools opens a raw socket.
    let capabilities: &[_] = match settings.get("backend") {
        "nft" => &["NET_ADMIN"],
        _ => &["NET_ADMIN", "NET_RAW"],
    };
    json!({
        "name": INIT,
        "image": cluster.images.init,
        "imagePullPolicy": cluster.images.pull,
        "command": ["/outrider-init"],
        "args": ["apply"],
        "env": env.0,
        "resources": {
            "requests": { "cpu": "10m", "memory": "16Mi" },
            "limits": { "cpu": "1", "memory": "64Mi" },
        },
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": { "add": capabilities, "drop": ["ALL"] },
            "privileged": false,
            "readOnlyRootFilesystem": true,
            "runAsGroup": 0,
            "runAsNonRoot": false,
            "runAsUser": 0,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "FallbackToLogsOnError",
    })
}

fn proxy(settings: &Settings, cluster: &Cluster, sidecar: Sidecar, asked: &Asked) -> Value {
    let mut container = json!({
        "name": PROXY,
        "image": cluster.images.proxy,
        "imagePullPolicy": cluster.images.pull,
        "command": ["/outrider-proxy"],
        "env": environment(settings, asked).0,
        "ports": [{
            "name": "outrider-health",
            "containerPort": names::HEALTH_PORT,
            "protocol": "TCP",
        }],
        "resources": resources(settings),
        "securityContext": security(settings),
        "livenessProbe": probe("/healthz/live", 10, 6),
        "readinessProbe": probe("/healthz/ready", 5, 3),
        "volumeMounts": [mount(settings)],
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "FallbackToLogsOnError",
    });
    match sidecar {
        Sidecar::Native => {
            container["restartPolicy"] = "Always".into();
            // The next container starts when this succeeds.
            container["startupProbe"] = probe("/healthz/ready", 1, 600);
        }
        Sidecar::Classic => {
            // The kubelet starts the next container when the hook of this one has ended.
            container["lifecycle"] = json!({
                "postStart": { "exec": { "command": ["/outrider-proxy", "await"] } },
                "preStop": { "exec": { "command": ["/outrider-proxy", "linger"] } },
            });
        }
    }
    container
}

fn environment(settings: &Settings, asked: &Asked) -> Environment {
    let mut env = Environment::default();
    env.0.push(json!({
        "name": POD_UID,
        "valueFrom": { "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.uid" } },
    }));
    env.set("OUTRIDER_CTRL_DIR", names::CTRL_DIR);
    for (key, variable) in [
        ("mode", "OUTRIDER_DEFAULT_MODE"),
        ("firstPolicy", "OUTRIDER_PROXY_FIRST_POLICY"),
        ("logLevel", "OUTRIDER_PROXY_LOG"),
        ("drainGrace", "OUTRIDER_PROXY_DRAIN_GRACE"),
    ] {
        if let Some(value) = settings.changed(key) {
            env.set(variable, value);
        }
    }
    if settings.get("interceptionMode") == "TPROXY" {
        env.set("OUTRIDER_PROXY_CAPTURE", "tproxy");
    }
    match settings.get("captureDNS") {
        "off" => {}
        "all" => env.set("OUTRIDER_PROXY_DNS", "on"),
        servers => {
            env.set("OUTRIDER_PROXY_DNS", "on");
            env.set("OUTRIDER_PROXY_DNS_SERVERS", servers);
        }
    }
    match settings.get("packets") {
        "relay" => {}
        tier => {
            env.set("OUTRIDER_PROXY_PACKETS", tier);
            uncaptured(settings, &mut env);
        }
    }
    if settings.get("packets") == "queue" {
        env.set("OUTRIDER_PROXY_QUEUE_RULE", settings.get("queue"));
    }
    if !asked.ports.is_empty() {
        let list: Vec<_> = asked.ports.iter().map(u16::to_string).collect();
        env.set("OUTRIDER_PROXY_PROBE_PORTS", &list.join(","));
    }
    if let Some(others) = asked.others() {
        env.set("OUTRIDER_PROXY_PROBES", &others);
    }
    env
}

/// What the rules leave out is no bypass. Lists that the proxy's settings have no form for are left to it.
fn uncaptured(settings: &Settings, env: &mut Environment) {
    let lists = [settings.get("excludeInboundPorts"), settings.get("excludeOutboundPorts")];
    let ports: Option<BTreeSet<u16>> = lists
        .iter()
        .flat_map(|list| list.split(',').map(str::trim))
        .filter(|entry| !entry.is_empty())
        .map(values::port)
        .collect();
    let ports = ports.unwrap_or_default();
    if (1..=super::MAX_ENTRIES).contains(&ports.len()) {
        let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
        env.set("OUTRIDER_PROXY_UNCAPTURED_PORTS", &ports.join(","));
    }
    if let Some(networks) = settings.changed("excludeOutboundIPRanges") {
        env.set("OUTRIDER_PROXY_UNCAPTURED_NETWORKS", networks);
    }
}

fn security(settings: &Settings) -> Value {
    let mut added = Vec::new();
    if settings.get("packets") == "queue" {
        added.push("NET_ADMIN");
    }
    if settings.get("packets") != "relay" || settings.get("interceptionMode") == "TPROXY" {
        added.push("NET_RAW");
    }
    let mut capabilities = json!({ "drop": ["ALL"] });
    if !added.is_empty() {
        capabilities["add"] = added.into();
    }
    json!({
        "allowPrivilegeEscalation": false,
        "capabilities": capabilities,
        "privileged": false,
        "readOnlyRootFilesystem": true,
        "runAsGroup": names::PROXY_UID,
        "runAsNonRoot": true,
        "runAsUser": names::PROXY_UID,
        "seccompProfile": { "type": "RuntimeDefault" },
    })
}

fn resources(settings: &Settings) -> Value {
    let mut limits = json!({ "memory": settings.get("proxyMemoryLimit") });
    if let Some(most) = settings.changed("proxyCPULimit") {
        limits["cpu"] = most.into();
    }
    json!({
        "requests": {
            "cpu": settings.get("proxyCPU"),
            "memory": settings.get("proxyMemory"),
        },
        "limits": limits,
    })
}

fn probe(path: &str, period: u32, failures: u32) -> Value {
    json!({
        "httpGet": { "path": path, "port": names::HEALTH_PORT, "scheme": "HTTP" },
        "periodSeconds": period,
        "timeoutSeconds": 2,
        "successThreshold": 1,
        "failureThreshold": failures,
    })
}

fn mount(settings: &Settings) -> Value {
    let mut mount = json!({ "name": MAILBOX, "mountPath": names::CTRL_DIR });
    if settings.get("mailbox") == "host-path" {
        // Of all the mailboxes on the node the proxy sees its own.
        mount["subPathExpr"] = format!("$({POD_UID})").into();
    }
    mount
}

fn volume(settings: &Settings, cluster: &Cluster) -> Value {
    match settings.get("mailbox") {
        "csi" => json!({
            "name": MAILBOX,
            "csi": { "driver": cluster.csi_driver, "readOnly": false },
        }),
        "empty-dir" => json!({
            "name": MAILBOX,
            "emptyDir": { "medium": "Memory", "sizeLimit": "16Mi" },
        }),
        _ => json!({
            "name": MAILBOX,
            "hostPath": { "path": cluster.pods_dir, "type": "DirectoryOrCreate" },
        }),
    }
}

/// The variable that the mailbox's path is made of.
const POD_UID: &str = "OUTRIDER_POD_UID";

/// Variables of a container.
#[derive(Default)]
struct Environment(Vec<Value>);

impl Environment {
    fn set(&mut self, name: &str, value: &str) {
        self.0.push(json!({ "name": name, "value": value }));
    }
}
