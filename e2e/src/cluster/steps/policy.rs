//! Policy by objects, from kubectl to the pods.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::{NOT_CONTROLLED, Outcome, Passed};
use crate::bridge;
use crate::kubectl::until;
use crate::manifests::{self, OUTSIDE, STAGE};
use crate::stage::Stage;
use crate::steps::traffic::{APPS, SOME};

/// One of our objects.
pub(crate) fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "outrider.dev/v1alpha1", "kind": kind,
        "metadata": {"name": name, "namespace": STAGE}, "spec": spec,
    })
}

/// A NetworkRule for the pods of `server` that says what the named workload may do there.
pub(crate) fn rule(name: &str, action: &str, from: &str) -> Value {
    let spec = json!({
        "target": {"podSelector": {"matchLabels": {"app": "server"}}},
        "ingress": [{
            "name": "only", "action": action,
            "peers": [{"podSelector": {"matchLabels": {"app": from}}}],
        }],
    });
    object("NetworkRule", name, &spec)
}

pub(super) fn protected(stage: &Stage) -> Result<Outcome> {
    let before = stage.requests()?;
    if stage.controlled() {
        let spec = json!({"mode": "Protect"});
        stage
            .kubectl
            .apply(&object("WorkloadMode", "protect", &spec))?;
    } else {
        for app in APPS {
            // One of them says it for all pods of the Deployment.
            let pods = stage.pods(app)?;
            let pod = pods
                .first()
                .and_then(|pod| pod["metadata"]["name"].as_str());
            let pod = format!("{STAGE}/{}", pod.context("no pod")?);
            bridge::ask(&stage.kubectl, &["mode", "set", &pod, "protect"])?;
        }
    }
    until("every workload in Protect", || {
        let mut there = vec![];
        for app in APPS {
            let begins = [("name", &*format!("{STAGE}/{app}-")), ("proxy", "connected")];
            there.extend(bridge::all(&stage.kubectl, "workloads", &begins)?);
        }
        ensure!(there.len() >= 5, "{there:?}");
        ensure!(there.iter().all(|one| one["mode"] == "protect"), "{there:?}");
        Ok(())
    })?;
    stage.all_answered(before, SOME)?;
    Ok(Passed)
}

pub(super) fn intruder(stage: &Stage) -> Result<Outcome> {
    let sleep = "trap 'exit 0' TERM; sleep 2147483647 & wait";
    stage.start(&manifests::pod(&stage.images, OUTSIDE, "intruder", sleep))?;
    let url = stage.url("server")?;
    if let Ok(page) = stage.visit(OUTSIDE, "intruder", &url) {
        bail!("the intruder got {page:?}");
    }
    let intruder = stage
        .kubectl
        .json(&["get", "pod", "intruder", "--namespace", OUTSIDE])?;
    let address = intruder["status"]["podIP"].as_str().context("no address")?;
    let server = format!("{STAGE}/server-");
    let violation = [("client_ip", address), ("server", &*server)];
    until("the violation", || bridge::find(&stage.kubectl, "violations", &violation))?;
    Ok(Passed)
}

pub(super) fn shown(stage: &Stage) -> Result<Outcome> {
    if !stage.controlled() {
        return Ok(NOT_CONTROLLED);
    }
    let list = |kind| stage.kubectl.run(&["get", kind, "--namespace", STAGE]);
    until("modes with their workloads", || {
        let text = list("workloadmodes")?;
        ensure!(text.contains("MODE") && text.contains("Protect"), "{text}");
        Ok(())
    })?;
    until("what was learned, by service", || {
        let text = list("learnedpolicies")?;
        for service in ["server", "store"] {
            ensure!(text.contains(service), "{text}");
        }
        Ok(())
    })?;
    Ok(Passed)
}

pub(super) fn refused(stage: &Stage) -> Result<Outcome> {
    let spec = json!({"mode": "Sometimes"});
    let wrong = [
        (object("WorkloadMode", "wrong", &spec), &["spec.mode", "Protect"][..]),
        (rule("wrong", "Perhaps", "client"), &["spec.ingress", "action", "Allow"]),
    ];
    for (object, words) in wrong {
        let Err(refusal) = stage.kubectl.apply(&object) else {
            bail!("{object} was taken");
        };
        let refusal = format!("{refusal:#}");
        ensure!(words.iter().all(|word| refusal.contains(word)), "{refusal}");
    }
    Ok(Passed)
}

/// Waits until the object's status says that every node has it in force.
pub(crate) fn enforced(stage: &Stage, name: &str) -> Result<()> {
    until("the status", || {
        let rule = stage
            .kubectl
            .json(&["get", "networkrule", name, "--namespace", STAGE])?;
        let generation = &rule["metadata"]["generation"];
        let conditions = rule["status"]["conditions"].as_array();
        let is_true = |kind: &str| {
            conditions.into_iter().flatten().any(|one| {
                one["type"] == kind
                    && one["status"] == "True"
                    && one["observedGeneration"] == *generation
            })
        };
        ensure!(is_true("Accepted") && is_true("Enforced"), "{}", rule["status"]);
        Ok(())
    })
}

/// A rule that denies holds as soon as its status says so, and no longer once it is deleted.
pub(crate) fn denies_and_allows(stage: &Stage, name: &str) -> Result<()> {
    let url = stage.url("server")?;
    let visit = || stage.visit(STAGE, "deployment/prober", &url);
    visit().context("what held before holds")?;
    stage.kubectl.apply(&rule(name, "Deny", "prober"))?;
    enforced(stage, name)?;
    if let Ok(page) = visit() {
        bail!("the status says that the rule is in force, and the prober got {page:?}");
    }
    stage
        .kubectl
        .run(&["delete", "networkrule", name, "--namespace", STAGE])?;
    until("the rule's end", visit)?;
    Ok(())
}
