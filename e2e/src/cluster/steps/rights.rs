//! What each role may do and what it must not, as the API server sees its service account.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{Outcome, Passed};
use crate::manifests::{STAGE, SYSTEM};
use crate::stage::Stage;

/// A verb, a resource with its group, the namespace (none: everywhere) and the name (none: any).
type Deed = (&'static str, &'static str, &'static str, &'static str);

const BRIDGE: &[Deed] = &[
    ("list", "pods", "", ""),
    ("watch", "services", "", ""),
    ("watch", "nodes", "", ""),
    ("create", "tokenreviews.authentication.k8s.io", "", ""),
    ("create", "subjectaccessreviews.authorization.k8s.io", "", ""),
    ("get", "configmaps", SYSTEM, "outrider-controller-ca"),
];
const WEBHOOK: &[Deed] = &[
    ("watch", "namespaces", "", ""),
    ("create", "events", "", ""),
    ("patch", "mutatingwebhookconfigurations.admissionregistration.k8s.io", "", "outrider"),
    ("update", "validatingwebhookconfigurations.admissionregistration.k8s.io", "", "outrider"),
];
const CONTROLLER: &[Deed] = &[
    ("watch", "pods", "", ""),
    ("watch", "networkrules.outrider.dev", "", ""),
    ("patch", "networkrules/status.outrider.dev", "", ""),
    ("patch", "learnedpolicies.outrider.dev", "", ""),
    ("create", "tokenreviews.authentication.k8s.io", "", ""),
    ("create", "events", "", ""),
    ("update", "leases.coordination.k8s.io", SYSTEM, "outrider-controller"),
    ("update", "configmaps", SYSTEM, "outrider-controller-ca"),
];
/// What none of them may do.
const NOBODY: &[Deed] = &[
    ("get", "secrets", "", ""),
    ("list", "secrets", SYSTEM, ""),
    ("get", "secrets", "kube-system", ""),
    ("create", "pods", SYSTEM, ""),
    ("delete", "pods", "", ""),
    ("patch", "pods", "", ""),
    ("create", "pods/exec", SYSTEM, ""),
    ("create", "pods/exec", STAGE, ""),
    ("create", "pods/attach", STAGE, ""),
    ("create", "pods/portforward", STAGE, ""),
    ("update", "pods/ephemeralcontainers", STAGE, ""),
    ("get", "pods/log", STAGE, ""),
    ("create", "serviceaccounts/token", SYSTEM, ""),
    ("get", "nodes/proxy", "", ""),
    ("patch", "nodes", "", ""),
    ("update", "namespaces", "", ""),
    ("get", "configmaps", SYSTEM, "another"),
    ("list", "configmaps", "", ""),
    ("update", "leases.coordination.k8s.io", SYSTEM, "another"),
    ("update", "leases.coordination.k8s.io", "kube-system", "outrider-controller"),
    ("update", "networkrules.outrider.dev", STAGE, ""),
    ("update", "workloadmodes.outrider.dev", STAGE, ""),
    ("update", "deployments.apps", SYSTEM, ""),
    ("update", "daemonsets.apps", SYSTEM, ""),
    ("patch", "mutatingwebhookconfigurations.admissionregistration.k8s.io", "", "another"),
    ("create", "mutatingwebhookconfigurations.admissionregistration.k8s.io", "", ""),
    ("create", "clusterrolebindings.rbac.authorization.k8s.io", "", ""),
    ("bind", "clusterroles.rbac.authorization.k8s.io", "", ""),
    ("escalate", "clusterroles.rbac.authorization.k8s.io", "", ""),
    ("impersonate", "users", "", ""),
    ("approve", "signers.certificates.k8s.io", "", ""),
];

/// What one of them may do, and the others must not.
const ALONE: &[(&str, Deed)] = &[
    ("bridge", ("create", "subjectaccessreviews.authorization.k8s.io", "", "")),
    ("webhook", WEBHOOK[2]),
    ("controller", CONTROLLER[2]),
    ("controller", CONTROLLER[3]),
    ("controller", CONTROLLER[6]),
    ("controller", CONTROLLER[7]),
];

pub(super) fn proved(stage: &Stage) -> Result<Outcome> {
    let mut asked = vec![];
    for (role, may) in [("bridge", BRIDGE), ("webhook", WEBHOOK), ("controller", CONTROLLER)] {
        if role == "controller" && !stage.controlled() {
            continue;
        }
        let others = ALONE.iter().filter(|(owner, _)| *owner != role);
        asked.extend(may.iter().map(|deed| (role, *deed, true)));
        asked.extend(NOBODY.iter().map(|deed| (role, *deed, false)));
        asked.extend(others.map(|(_, deed)| (role, *deed, false)));
    }
    let reviews: Vec<_> = asked
        .iter()
        .map(|(role, deed, _)| review(role, *deed))
        .collect();
    let answers = stage.kubectl.create(&reviews)?;
    ensure!(answers.len() == asked.len(), "{} answers", answers.len());
    let wrong: Vec<_> = asked
        .iter()
        .zip(&answers)
        .filter(|((_, _, expected), answer)| answer["status"]["allowed"] != *expected)
        .map(|((role, deed, expected), _)| format!("{role} {deed:?}, which should be {expected}"))
        .collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    no_wildcard(stage)?;
    as_the_bridge(stage)?;
    eprintln!("{} questions about rights", asked.len());
    Ok(Passed)
}

fn account(role: &str) -> String {
    format!("system:serviceaccount:{SYSTEM}:outrider-{role}")
}

fn review(role: &str, (verb, what, namespace, name): Deed) -> Value {
    let (what, group) = what.split_once('.').unwrap_or((what, ""));
    let (resource, part) = what.split_once('/').unwrap_or((what, ""));
    json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {
            "user": account(role),
            "groups": ["system:serviceaccounts", format!("system:serviceaccounts:{SYSTEM}"), "system:authenticated"],
            "resourceAttributes": {
                "verb": verb, "group": group, "resource": resource, "subresource": part,
                "namespace": namespace, "name": name,
            },
        },
    })
}

/// No rule of ours says `*`.
fn no_wildcard(stage: &Stage) -> Result<()> {
    let roles = stage
        .kubectl
        .json(&["get", "clusterroles,roles", "--all-namespaces"])?;
    let ours = roles["items"].as_array().context("no roles")?.iter();
    for role in ours.filter(|role| role["metadata"]["name"].to_string().contains("outrider")) {
        ensure!(!role["rules"].to_string().contains("\"*\""), "{role}");
    }
    Ok(())
}

/// The same by real calls in the bridge's name.
fn as_the_bridge(stage: &Stage) -> Result<()> {
    let name = format!("--as={}", account("bridge"));
    let get = |what: &str| {
        stage
            .kubectl
            .run(&["get", what, "--namespace", SYSTEM, "--output=name", &name])
    };
    ensure!(get("pods")?.contains("pod/"), "no pods");
    for what in ["secrets", "configmaps"] {
        let refusal = get(what)
            .err()
            .with_context(|| format!("{what} were shown"))?;
        ensure!(format!("{refusal:#}").contains("cannot list"), "{refusal:#}");
    }
    Ok(())
}
