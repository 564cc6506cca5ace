//! TCP probes. The kernel accepts a captured connection before the proxy has asked the application, so a
//! TCP probe of the kubelet would always succeed. It becomes a question to the proxy's health port, which
//! connects to the application and answers accordingly. Probes by HTTP and gRPC reach the application
//! through the proxy and mean what they meant; commands never leave the container.

use std::collections::BTreeSet;

use outrider_model::names;
use serde_json::json;

use super::{
    neighbours::is_own_port,
    patch::Patch,
    pod::{Container, List, Pod, text},
    settings::Settings,
    values,
};

/// Ports of one pod that the proxy answers for.
pub const MAX_PROBE_PORTS: usize = 64;

/// Probes of a container.
const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];
/// Where the proxy answers for a port of the application.
const PATH: &str = "/healthz/app/tcp/";

/// Rewrites what must be, and says which ports the proxy answers for.
///
/// # Errors
/// When they are too many.
pub(super) fn rewrite(
    pod: &Pod<'_>,
    settings: &Settings,
    patch: &mut Patch,
    warnings: &mut Vec<String>,
) -> Result<BTreeSet<u16>, Vec<String>> {
    let mut ports = BTreeSet::new();
    let off = settings.get("probes") == "off";
    for list in [List::Containers, List::Init] {
        for container in pod.neighbours(list) {
            for probe in PROBES {
                if let Some(port) = rewritten(&container, probe) {
                    ports.insert(port);
                } else if !off {
                    ports.extend(rewrite_one(&container, probe, patch, warnings));
                }
            }
        }
    }
    if ports.len() > MAX_PROBE_PORTS {
        return Err(vec![format!("more than {MAX_PROBE_PORTS} ports with TCP probes")]);
    }
    Ok(ports)
}

fn rewrite_one(
    container: &Container<'_>,
    probe: &str,
    patch: &mut Patch,
    warnings: &mut Vec<String>,
) -> Option<u16> {
    let tcp = &container.value[probe]["tcpSocket"];
    // A probe of another host does not come to this pod.
    if !tcp.is_object() || text(tcp, "host").is_some_and(|host| !host.is_empty()) {
        return None;
    }
    let Some(port) = container.port(&tcp["port"]) else {
        let name = container.shown();
        warnings.push(format!("{name}: {probe}: no port of that name, left as it is"));
        return None;
    };
    let path = format!("{}/{probe}", container.path());
    patch.remove(format!("{path}/tcpSocket"));
    let asked = json!({
        "path": format!("{PATH}{port}"),
        "port": names::HEALTH_PORT,
        "scheme": "HTTP",
    });
    patch.add(format!("{path}/httpGet"), asked);
    Some(port)
}

/// The port that a probe of our making asks for.
fn rewritten(container: &Container<'_>, probe: &str) -> Option<u16> {
    let http = &container.value[probe]["httpGet"];
    let to_us = http["port"].as_u64() == Some(names::HEALTH_PORT.into());
    let path = text(http, "path").filter(|_| to_us)?;
    values::port(path.strip_prefix(PATH)?)
}

/// Probes and hooks of a container that ask the proxy itself: they would say nothing of the application.
pub(super) fn refused(container: &Container<'_>) -> Vec<String> {
    let ours = |handler: &serde_json::Value| {
        ["httpGet", "tcpSocket", "grpc"].iter().any(|kind| {
            container
                .port(&handler[*kind]["port"])
                .is_some_and(is_own_port)
        })
    };
    let mut reasons = Vec::new();
    for probe in PROBES {
        if ours(&container.value[probe]) && rewritten(container, probe).is_none() {
            reasons.push(format!("{}: {probe} asks a port of the proxy", container.shown()));
        }
    }
    for hook in ["postStart", "preStop"] {
        if ours(&container.value["lifecycle"][hook]) {
            reasons.push(format!("{}: {hook} asks a port of the proxy", container.shown()));
        }
    }
    reasons
}
