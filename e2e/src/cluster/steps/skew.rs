//! From an earlier revision to this one and back, under traffic: each part of it meets each other part of the other
//! revision. Nodes get another bridge when a step says so (`bridge.updateStrategy`), the rest when Helm does.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::policy::{self, object};
use super::{Outcome, Passed, install};
use crate::bridge::{self, pods_of};
use crate::kubectl::until;
use crate::manifests::{self, OUTSIDE, STAGE, SYSTEM};
use crate::stage::{Previous, Requests, Stage};
use crate::steps::traffic::{self, APPS, SOME};

/// The release's first revision, as Helm counts.
const FIRST: &str = "1";

fn previous(stage: &Stage) -> Result<&Previous> {
    stage.previous.as_ref().context("no other revision")
}

/// Bridges stay as they are until they are deleted.
fn by_hand() -> Value {
    json!({"bridge": {"updateStrategy": {"type": "OnDelete", "rollingUpdate": null}}})
}

pub(super) fn installed(stage: &Stage) -> Result<Outcome> {
    let Previous { chart, tag } = previous(stage)?;
    install::helm(stage, "install", chart, tag, &by_hand())?;
    install::ready(stage)?;
    install::linked(stage)?;
    Ok(Passed)
}

/// Rules of people for what nothing else allows, and everything that has to hold, while all is of the other revision.
pub(super) fn begun(stage: &Stage) -> Result<Outcome> {
    let app = |name: &str| json!({"podSelector": {"matchLabels": {"app": name}}});
    let allow = |peer| json!([{"name": "kept", "action": "Allow", "peers": [app(peer)]}]);
    let leaves = json!({"target": app("prober"), "egress": allow("store")});
    let enters = json!({"target": app("store"), "ingress": allow("prober")});
    let refused = stage.visit(STAGE, "deployment/prober", &stage.url("store")?);
    ensure!(refused.is_err(), "the prober was never allowed, and got {refused:?}");
    for (name, spec) in KEPT.iter().zip([leaves, enters]) {
        stage.kubectl.apply(&object("NetworkRule", name, &spec))?;
    }
    stage.start(&manifests::pod(&stage.images, OUTSIDE, "intruder", SLEEP))?;
    holds(stage, "begun")?;
    Ok(Passed)
}

/// Rules that are written once, for both ends of what they allow.
const KEPT: [&str; 2] = ["kept-leaves", "kept-enters"];
const SLEEP: &str = "trap 'exit 0' TERM; sleep 2147483647 & wait";

/// Webhook and controller are ahead of the bridges and of all proxies but new pods'.
pub(super) fn controller_first(stage: &Stage) -> Result<Outcome> {
    let before = stage.requests()?;
    install::helm(stage, "upgrade", install::CHART, &stage.images.tag, &by_hand())?;
    install::ready(stage)?;
    renewed(stage, "store", &stage.images.tag)?;
    goes_on(stage, before, "controller-first")
}

/// Bridges too: pods have the proxies that they were given before.
pub(super) fn bridges_next(stage: &Stage) -> Result<Outcome> {
    let before = stage.requests()?;
    other_bridges(stage)?;
    proxies(stage, "server", &previous(stage)?.tag)?;
    goes_on(stage, before, "bridges-next")
}

/// Then proxies, by restarting the workloads.
pub(super) fn proxies_last(stage: &Stage) -> Result<Outcome> {
    let before = stage.requests()?;
    for app in ["server", "prober"] {
        renewed(stage, app, &stage.images.tag)?;
    }
    goes_on(stage, before, "new-servers")?;
    // Its count begins anew.
    renewed(stage, "client", &stage.images.tag)?;
    goes_on(stage, Requests { answered: 0, failed: 0 }, "all-new")
}

/// Webhook and controller of the other revision, with bridges and proxies of this one.
pub(super) fn controller_back(stage: &Stage) -> Result<Outcome> {
    let before = stage.requests()?;
    stage
        .helm
        .begin(SYSTEM, &["rollback", install::RELEASE, FIRST])?;
    install::ready(stage)?;
    if let Some(reason) = locked_out(stage)? {
        eprintln!("newer bridges go on with what they were told last: {reason}");
        kept(stage)?;
        until("a status that does not know", || unknown(stage, KEPT[0]))?;
        stage.all_answered(before, SOME)?;
        return Ok(Passed);
    }
    goes_on(stage, before, "controller-back")
}

/// Whether nobody says that the rule is in force: no bridge told it to this controller.
fn unknown(stage: &Stage, name: &str) -> Result<()> {
    let rule = ["get", "networkrule", name, "--namespace", STAGE];
    let rule = stage.kubectl.json(&rule)?;
    let conditions = rule["status"]["conditions"].as_array();
    let is_unknown = |one: &Value| one["type"] == "Enforced" && one["status"] == "Unknown";
    ensure!(conditions.into_iter().flatten().any(is_unknown), "{}", rule["status"]);
    Ok(())
}

/// Why bridges may not speak to the controller, if the other revision's roles do not let them.
fn locked_out(stage: &Stage) -> Result<Option<String>> {
    until("bridges linked or locked out", || {
        let mut why = None;
        for told in bridge::ask(&stage.kubectl, &["status"])? {
            let reason = told["cluster"]["reason"].as_str().unwrap_or_default();
            if reason.contains("forbidden") {
                why = Some(reason.to_owned());
            } else {
                ensure!(told["cluster"]["state"] == "linked", "{told}");
            }
        }
        Ok(why)
    })
}

/// Bridges too, which read what newer ones have stored: proxies are ahead. New pods get older ones again.
pub(super) fn bridges_back(stage: &Stage) -> Result<Outcome> {
    let before = stage.requests()?;
    other_bridges(stage)?;
    proxies(stage, "server", &stage.images.tag)?;
    goes_on(stage, before, "bridges-back")?;
    renewed(stage, "server", &previous(stage)?.tag)?;
    goes_on(stage, before, "proxies-back")
}

/// All of it at once, as Helm does it.
pub(super) fn forth_again(stage: &Stage) -> Result<Outcome> {
    let before = stage.requests()?;
    let chart = install::CHART;
    install::helm(stage, "upgrade", chart, &stage.images.tag, &json!({}))?;
    install::ready(stage)?;
    renewed(stage, "server", &stage.images.tag)?;
    goes_on(stage, before, "forth-again")
}

/// Whether no request has failed, and what was, is and will be said is enforced.
fn goes_on(stage: &Stage, before: Requests, name: &str) -> Result<Outcome> {
    holds(stage, name)?;
    stage.all_answered(before, SOME)?;
    Ok(Passed)
}

/// Learned and written policy is in force in every proxy of whatever revision, and a new rule and a new mode get there.
fn holds(stage: &Stage, name: &str) -> Result<()> {
    install::linked(stage)?;
    kept(stage)?;
    for name in KEPT {
        policy::enforced(stage, name)?;
    }
    policy::denies_and_allows(stage, name)?;
    reaches(stage, name)
}

/// What was learned and written is in force in every proxy.
fn kept(stage: &Stage) -> Result<()> {
    until("every proxy heard, in Protect", || modes(stage, APPS.as_slice(), "protect"))?;
    if let Ok(page) = stage.visit(OUTSIDE, "intruder", &stage.url("server")?) {
        bail!("the intruder got {page:?}");
    }
    let store = stage.url("store")?;
    until("what a rule allows", || stage.visit(STAGE, "deployment/prober", &store))?;
    Ok(())
}

/// A new mode gets to the servers' proxies, and goes again.
fn reaches(stage: &Stage, name: &str) -> Result<()> {
    let spec = json!({"mode": "Monitor", "podSelector": {"matchLabels": {"app": "server"}}});
    stage.kubectl.apply(&object("WorkloadMode", name, &spec))?;
    until("servers in Monitor", || modes(stage, &["server"], "monitor"))?;
    stage
        .visit(OUTSIDE, "intruder", &stage.url("server")?)
        .context("Monitor lets everybody in")?;
    stage
        .kubectl
        .run(&["delete", "workloadmode", name, "--namespace", STAGE])?;
    until("servers in Protect again", || modes(stage, &["server"], "protect"))
}

/// Whether all pods of these have a proxy that is heard and enforces so.
fn modes(stage: &Stage, apps: &[&str], mode: &str) -> Result<()> {
    for app in apps {
        for pod in stage.pods(app)? {
            if !pod["metadata"]["deletionTimestamp"].is_null() {
                continue;
            }
            let name = pod["metadata"]["name"].as_str().context("no name")?;
            let name = format!("{STAGE}/{name}");
            let heard = [("name", &*name), ("proxy", "connected"), ("mode", mode)];
            bridge::find(&stage.kubectl, "workloads", &heard)?;
        }
    }
    Ok(())
}

/// Has every node's bridge replaced by one of the DaemonSet's present revision.
fn other_bridges(stage: &Stage) -> Result<()> {
    for pod in pods_of(&stage.kubectl, "outrider-bridge")? {
        stage
            .kubectl
            .run(&["delete", "pod", &pod, "--namespace", SYSTEM, "--wait=true"])?;
    }
    until("bridges of the other revision", || {
        let set =
            stage
                .kubectl
                .json(&["get", "daemonset", "outrider-bridge", "--namespace", SYSTEM])?;
        let (status, generation) = (&set["status"], &set["metadata"]["generation"]);
        let wanted = &status["desiredNumberScheduled"];
        let are_new = ["updatedNumberScheduled", "numberReady"]
            .iter()
            .all(|count| status[count] == *wanted);
        ensure!(are_new && status["observedGeneration"] == *generation, "{status}");
        Ok(())
    })
}

/// Restarts a workload and waits until all its pods have the proxy of that tag.
fn renewed(stage: &Stage, app: &str, tag: &str) -> Result<()> {
    traffic::restarted(stage, app)?;
    proxies(stage, app, tag)
}

/// Whether every pod of a workload has the proxy of that tag.
fn proxies(stage: &Stage, app: &str, tag: &str) -> Result<()> {
    let image = format!("{}/outrider-proxy:{tag}", stage.images.repository);
    for pod in stage.pods(app)? {
        ensure!(pod["spec"].to_string().contains(&format!("\"{image}\"")), "no {image}: {pod}");
    }
    Ok(())
}
