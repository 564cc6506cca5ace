//! Whether a pod is to be injected at all. The first that matches counts.

use serde_json::Value;

use super::{
    Cluster, Injection, Namespace, PREFIX, Skip,
    pod::{annotation, label, text},
};

/// Why not.
#[derive(Debug)]
pub(super) enum No {
    /// It is none of ours.
    Skip(Skip),
    /// It cannot be told, or the pod may not say so.
    Refuse(String),
}

impl From<Skip> for No {
    fn from(skip: Skip) -> Self {
        Self::Skip(skip)
    }
}

/// The label of a pod that asks for injection, or against it.
const KEY: &str = "outrider.dev/inject";

/// Cluster before namespace before pod.
pub(super) fn asked(
    pod: &Value,
    namespace: &Namespace,
    cluster: &Cluster,
    warnings: &mut Vec<String>,
) -> Result<(), No> {
    if cluster.ignored.contains(&namespace.name) {
        return Err(Skip::IgnoredNamespace.into());
    }
    let holds = holding(namespace, cluster)?;
    if holds == Injection::Disabled {
        return Err(Skip::NamespaceDisabled.into());
    }
    let wish = wish(pod)?;
    match (holds, wish) {
        (Injection::OptIn, None | Some(false)) => return Err(Skip::NotAsked.into()),
        (Injection::Enabled, Some(false)) => return Err(Skip::OptedOut.into()),
        (Injection::Enforced, Some(false)) => warnings.push(format!(
            "label {KEY}=false has no effect: the namespace says {}=enforced",
            Namespace::LABEL
        )),
        _ => {}
    }
    unfit(pod).map_or(Ok(()), |why| Err(why.into()))
}

fn holding(namespace: &Namespace, cluster: &Cluster) -> Result<Injection, No> {
    let Some(said) = namespace.labels.get(Namespace::LABEL) else { return Ok(cluster.unlabelled) };
    said.parse().map_err(|form| {
        No::Refuse(format!(
            "namespace {}: label {} is {said:?}: allowed is {form}",
            namespace.name,
            Namespace::LABEL
        ))
    })
}

fn wish(pod: &Value) -> Result<Option<bool>, No> {
    if annotation(pod, KEY).is_some() {
        return Err(No::Refuse(format!(
            "annotation {KEY}: it is a label, of value \"true\" or \"false\""
        )));
    }
    match label(pod, KEY) {
        None => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(other) => {
            let other: String = other.chars().take(64).collect();
            let allowed = "allowed is \"true\" or \"false\"";
            Err(No::Refuse(format!("label {KEY} is {other:?}: {allowed}")))
        }
    }
}

/// What cannot be injected.
fn unfit(pod: &Value) -> Option<Skip> {
    let spec = &pod["spec"];
    let system = text(&spec["os"], "name").or_else(|| {
        let selector = &spec["nodeSelector"];
        text(selector, "kubernetes.io/os").or_else(|| text(selector, "beta.kubernetes.io/os"))
    });
    if annotation(pod, "kubernetes.io/config.mirror").is_some() {
        Some(Skip::Mirror)
    } else if system == Some("windows") {
        Some(Skip::Windows)
    } else if spec["hostNetwork"].as_bool() == Some(true) {
        Some(Skip::HostNetwork)
    } else {
        None
    }
}

/// Whether a key is a label or annotation that injection itself has a meaning for.
pub(super) fn is_ours(key: &str) -> bool {
    key.starts_with(PREFIX)
}
