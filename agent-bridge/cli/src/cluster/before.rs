//! Whether a cluster is fit for Outrider, before it is installed.

use serde_json::Value;

use super::{
    Cluster,
    check::{Found, REGISTRATIONS, good, warning, wrong},
};
use crate::client::{Failure, encode};

/// Oldest API server.
const OLDEST: (u32, u32) = (1, 20);
/// The first with native sidecars, and with policies of admission.
const NATIVE: (u32, u32) = (1, 29);
const POLICIES: (u32, u32) = (1, 30);
/// Oldest kernel that is tried.
const KERNEL: (u32, u32) = (4, 19);

/// What whoever installs must be allowed: a verb, what, and whether in our namespace only.
const RIGHTS: [(&str, &str, bool); 9] = [
    ("create", "customresourcedefinitions.apiextensions.k8s.io", false),
    ("create", "clusterroles.rbac.authorization.k8s.io", false),
    ("create", "clusterrolebindings.rbac.authorization.k8s.io", false),
    ("create", "mutatingwebhookconfigurations.admissionregistration.k8s.io", false),
    ("create", "validatingwebhookconfigurations.admissionregistration.k8s.io", false),
    ("create", "daemonsets.apps", true),
    ("create", "deployments.apps", true),
    ("create", "serviceaccounts", true),
    ("create", "networkpolicies.networking.k8s.io", true),
];

/// Looks at all.
pub(super) async fn run(cluster: &Cluster) -> Result<Vec<Found>, Failure> {
    let mut found = vec![versions(&cluster.kubectl.get("/version").await?)];
    found.extend(nodes(&cluster.kubectl.list("/api/v1/nodes").await?));
    found.push(rights(cluster).await?);
    found.push(names(cluster).await?);
    found.push(definitions(cluster).await?);
    found.push(security(cluster).await?);
    Ok(found)
}

fn versions(info: &Value) -> Found {
    const WHAT: &str = "API server";
    let text = info["gitVersion"].as_str().unwrap_or_default();
    let Some(version) = numbers(text) else {
        return wrong(WHAT, format!("its version {text:?} cannot be read"));
    };
    if version < OLDEST {
        return wrong(WHAT, format!("{text} is older than {}.{}", OLDEST.0, OLDEST.1));
    }
    if version < NATIVE {
        return warning(WHAT, format!("{text}: no native sidecars, no backstop policy"));
    }
    if version < POLICIES {
        return warning(WHAT, format!("{text}: no backstop policy"));
    }
    good(WHAT, text)
}

fn nodes(nodes: &[Value]) -> Vec<Found> {
    const WHAT: &str = "nodes";
    let mut found = Vec::new();
    let info = |node: &Value, field: &str| {
        node["status"]["nodeInfo"][field]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let linux: Vec<_> = nodes
        .iter()
        .filter(|node| info(node, "operatingSystem") != "windows")
        .collect();
    let old = |field: &'static str, least: (u32, u32)| {
        let names = linux
            .iter()
            .filter(|node| numbers(&info(node, field)).is_none_or(|is| is < least));
        names
            .filter_map(|node| node["metadata"]["name"].as_str())
            .collect::<Vec<_>>()
    };
    let kernels = old("kernelVersion", KERNEL);
    if !kernels.is_empty() {
        let shown = kernels
            .iter()
            .take(8)
            .copied()
            .collect::<Vec<_>>()
            .join(", ");
        found.push(warning(WHAT, format!("kernels older than {}.{}: {shown}", KERNEL.0, KERNEL.1)));
    }
    let kubelets = old("kubeletVersion", NATIVE);
    if !kubelets.is_empty() {
        found.push(warning(
            WHAT,
            format!(
                "{} kubelets are older than 1.29: sidecars are classic everywhere",
                kubelets.len()
            ),
        ));
    }
    let windows = nodes.len() - linux.len();
    if windows > 0 {
        found.push(warning(WHAT, format!("{windows} run Windows: their pods are not covered")));
    }
    match linux.len() {
        0 => found.push(wrong(WHAT, "none of them runs Linux")),
        many => found.push(good(WHAT, format!("{many} run Linux"))),
    }
    found
}

async fn rights(cluster: &Cluster) -> Result<Found, Failure> {
    const WHAT: &str = "rights";
    let mut lacking = Vec::new();
    for (verb, what, here) in RIGHTS {
        let namespace = here.then_some(&*cluster.namespace);
        if !cluster.kubectl.may(verb, what, namespace).await? {
            lacking.push(format!("{verb} {what}"));
        }
    }
    Ok(match lacking.as_slice() {
        [] => good(WHAT, "all that the installation takes"),
        some => wrong(WHAT, format!("you may not {}", some.join(", "))),
    })
}

/// Whether somebody else has the names of our webhook configurations.
async fn names(cluster: &Cluster) -> Result<Found, Failure> {
    const WHAT: &str = "webhook names";
    let mut taken = Vec::new();
    for plural in REGISTRATIONS {
        let path = format!("/apis/admissionregistration.k8s.io/v1/{plural}/outrider");
        if let Some(object) = cluster.kubectl.find(&path).await?
            && !is_ours(&object)
        {
            taken.push(plural);
        }
    }
    Ok(match taken.as_slice() {
        [] => good(WHAT, "free, or ours"),
        some => wrong(WHAT, format!("`outrider` is somebody else's among {}", some.join(", "))),
    })
}

async fn definitions(cluster: &Cluster) -> Result<Found, Failure> {
    const WHAT: &str = "custom resources";
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let all = cluster.kubectl.list(path).await?;
    let there = all
        .iter()
        .filter(|one| one["spec"]["group"] == "outrider.dev")
        .count();
    Ok(match there {
        0 => good(WHAT, "none of outrider.dev yet"),
        many => good(WHAT, format!("{many} of outrider.dev are there: an upgrade")),
    })
}

/// Whether Pod Security lets the node component into its namespace.
async fn security(cluster: &Cluster) -> Result<Found, Failure> {
    const WHAT: &str = "Pod Security";
    const LABEL: &str = "pod-security.kubernetes.io/enforce";
    let path = format!("/api/v1/namespaces/{}", encode(&cluster.namespace));
    let Some(namespace) = cluster.kubectl.find(&path).await? else {
        return Ok(good(WHAT, format!("namespace {} is not there yet", cluster.namespace)));
    };
    let level = namespace["metadata"]["labels"][LABEL].as_str();
    Ok(match level {
        None | Some("privileged") => {
            good(WHAT, format!("namespace {}: {}", cluster.namespace, level.unwrap_or("no level")))
        }
        Some(level) => wrong(
            WHAT,
            format!(
                "namespace {} enforces {level}: the bridge needs {LABEL}=privileged",
                cluster.namespace
            ),
        ),
    })
}

fn is_ours(object: &Value) -> bool {
    object["metadata"]["labels"]["app.kubernetes.io/name"] == "outrider"
}

/// The first two numbers of a version.
fn numbers(text: &str) -> Option<(u32, u32)> {
    let mut parts = text
        .trim_start_matches('v')
        .split(|letter: char| !letter.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn versions_of_servers_and_kernels_are_read() {
        assert_eq!(numbers("v1.34.4"), Some((1, 34)));
        assert_eq!(numbers("5.15.0-1041-aws"), Some((5, 15)));
        assert_eq!(numbers("new"), None);
    }

    #[test]
    fn old_kernels_and_kubelets_are_named() {
        let node = |name: &str, kernel: &str, kubelet: &str| {
            json!({ "metadata": { "name": name }, "status": { "nodeInfo": {
                "kernelVersion": kernel, "kubeletVersion": kubelet, "operatingSystem": "linux" } } })
        };
        let found = nodes(&[node("a", "3.10.0", "v1.34.0"), node("b", "6.1.0", "v1.28.0")]);
        let text = format!("{found:?}");
        assert!(text.contains("older than 4.19: a") && text.contains("1 kubelets"), "{text}");
        assert!(format!("{:?}", nodes(&[])).contains("none of them"));
    }
}
