//! What is proved, one function a step, in the order of the product's own story.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::time::Instant;

use crate::bridge;
use crate::helm::Helm;
use crate::kubectl::{Kubectl, until};
use crate::manifests::{self, Images, STAGE, SYSTEM, Sidecar};

/// The oldest minor version whose kubelets have native sidecars by default.
const NATIVE_SINCE: u32 = 29;

/// A chart of one object, which says that Helm works here; Outrider's own is not there yet.
const PROBE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/cluster/probe-chart");

struct Stage<'a> {
    kubectl: Kubectl,
    images: &'a Images,
    helm: Option<Helm>,
    sidecar: Sidecar,
}

/// What a step came to, if nothing was wrong.
enum Outcome {
    /// All of it was seen.
    Passed,
    /// It cannot be tried here, and why.
    Skipped(&'static str),
}

use Outcome::{Passed, Skipped};

type Step = (&'static str, fn(&Stage<'_>) -> Result<Outcome>);

/// How many steps ended in which way.
#[derive(Default)]
pub(crate) struct Summary {
    /// Seen to hold.
    pub(crate) passed: u32,
    /// Not seen to hold; the steps after it were not tried.
    pub(crate) failed: u32,
    /// Not tried.
    pub(crate) skipped: u32,
}

const STEPS: &[Step] = &[
    ("real Helm installs, upgrades and removes a release", helm_works),
    ("a bridge on the node", bridge_starts),
    ("two pods with a proxy each start", pods_start),
    ("what they say to each other is learned", learned),
    ("in Protect the client goes on, an intruder is refused and reported", protected),
    ("a Job with a proxy ends", job_ends),
];

/// Runs the steps until one fails.
pub(crate) fn run(images: &Images, helm: Option<Helm>, keep: bool) -> Summary {
    let mut summary = Summary::default();
    let kubectl = Kubectl;
    let sidecar = match sidecar_of(&kubectl) {
        Ok(sidecar) => sidecar,
        Err(error) => {
            eprintln!("FAILED the cluster does not answer: {error:#}");
            summary.failed = 1;
            return summary;
        }
    };
    let stage = Stage { kubectl, images, helm, sidecar };
    for (name, step) in STEPS {
        let start = Instant::now();
        match step(&stage) {
            Ok(Passed) => {
                eprintln!("ok {name} ({:.1} s)", start.elapsed().as_secs_f32());
                summary.passed += 1;
            }
            Ok(Skipped(reason)) => {
                eprintln!("SKIPPED {name}: {reason}");
                summary.skipped += 1;
            }
            Err(error) => {
                eprintln!("FAILED {name}: {error:#}");
                explain(&stage.kubectl);
                summary.failed = 1;
                return summary;
            }
        }
    }
    if !keep && let Err(error) = remove(&stage.kubectl) {
        eprintln!("FAILED what was installed could not be removed: {error:#}");
        summary.failed = 1;
    }
    summary
}

fn sidecar_of(kubectl: &Kubectl) -> Result<Sidecar> {
    let version = kubectl.json(&["version"])?;
    let server = &version["serverVersion"];
    let minor = server["minor"].as_str().context("no version")?;
    let minor: u32 = minor.trim_end_matches('+').parse()?;
    let sidecar = if minor >= NATIVE_SINCE { Sidecar::Native } else { Sidecar::Classic };
    eprintln!("Kubernetes {}: {sidecar:?} sidecars", server["gitVersion"]);
    Ok(sidecar)
}

fn helm_works(stage: &Stage<'_>) -> Result<Outcome> {
    let Some(helm) = &stage.helm else {
        return Ok(Skipped("nothing stands for Helm (OUTRIDER_E2E_HELM)"));
    };
    helm.run("default", &["install", "probe", PROBE])?;
    helm.run("default", &["upgrade", "probe", PROBE])?;
    let map = stage.kubectl.json(&["get", "configmap", "probe"])?;
    ensure!(map["data"]["revision"] == "2", "{}", map["data"]);
    helm.run("default", &["uninstall", "probe"])?;
    let left = stage
        .kubectl
        .run(&["get", "configmap", "probe", "--ignore-not-found"])?;
    ensure!(left.is_empty(), "left: {left}");
    Ok(Passed)
}

fn bridge_starts(stage: &Stage<'_>) -> Result<Outcome> {
    for namespace in [SYSTEM, STAGE] {
        stage.kubectl.apply(&manifests::namespace(namespace))?;
    }
    stage.kubectl.apply(&manifests::bridge(stage.images))?;
    until("a bridge on every node", || {
        let set = stage
            .kubectl
            .json(&["get", "daemonset", "bridge", "--namespace", SYSTEM])?;
        let status = &set["status"];
        ensure!(status["numberReady"].as_u64() > Some(0), "{status}");
        ensure!(status["numberReady"] == status["desiredNumberScheduled"], "{status}");
        Ok(())
    })?;
    Ok(Passed)
}

fn pods_start(stage: &Stage<'_>) -> Result<Outcome> {
    start(stage, "server", "httpd -f -p 8080 -h /www", stage.sidecar)?;
    let address = address_of(stage, "server")?;
    let script = format!(
        "while :; do timeout 5 wget -q -O - http://{address}:8080/ >/dev/null; sleep 1; done"
    );
    start(stage, "client", &script, stage.sidecar)?;
    until("both proxies known to the bridge", || {
        for name in ["server", "client"] {
            let name = format!("{STAGE}/{name}");
            let connected = [("name", &*name), ("proxy", "connected")];
            bridge::find(&stage.kubectl, "workloads", &connected)?;
        }
        Ok(())
    })?;
    Ok(Passed)
}

fn learned(stage: &Stage<'_>) -> Result<Outcome> {
    let ends = [
        ("client", &*format!("{STAGE}/client")),
        ("server", &*format!("{STAGE}/server")),
        ("app", "HTTP"),
    ];
    until("the conversation", || bridge::find(&stage.kubectl, "conversations", &ends))?;
    let rule = [("from", &*format!("nv.client.{STAGE}")), ("to", &*format!("nv.server.{STAGE}"))];
    until("the rule", || bridge::find(&stage.kubectl, "rules", &rule))?;
    Ok(Passed)
}

fn protected(stage: &Stage<'_>) -> Result<Outcome> {
    bridge::ask(&stage.kubectl, &["mode", "set", &format!("{STAGE}/server"), "protect"])?;
    start(stage, "intruder", "sleep 2147483647", Sidecar::None)?;
    let url = format!("http://{}:8080/", address_of(stage, "server")?);
    let visit = |pod| {
        stage
            .kubectl
            .exec(STAGE, pod, "workload", &["timeout", "5", "wget", "-q", "-O", "-", &url])
    };
    let page = visit("client")?;
    ensure!(page.trim() == "hello", "the client got {page:?}");
    if let Ok(page) = visit("intruder") {
        bail!("the intruder got {page:?}");
    }
    let address = address_of(stage, "intruder")?;
    let violation = [("client_ip", &*address), ("server", &*format!("{STAGE}/server"))];
    until("the violation", || bridge::find(&stage.kubectl, "violations", &violation))?;
    Ok(Passed)
}

fn job_ends(stage: &Stage<'_>) -> Result<Outcome> {
    if stage.sidecar == Sidecar::Classic {
        return Ok(Skipped("a classic sidecar has nobody yet who ends it with the workload"));
    }
    stage
        .kubectl
        .apply(&manifests::job(stage.images, "job", "true", stage.sidecar))?;
    until("the Job's end", || {
        let job = stage
            .kubectl
            .json(&["get", "job", "job", "--namespace", STAGE])?;
        ensure!(job["status"]["succeeded"] == 1, "{}", job["status"]);
        Ok(())
    })?;
    Ok(Passed)
}

fn start(stage: &Stage<'_>, name: &str, script: &str, sidecar: Sidecar) -> Result<()> {
    stage
        .kubectl
        .apply(&manifests::pod(stage.images, name, script, sidecar))?;
    until(&format!("pod {name}"), || {
        let pod = stage
            .kubectl
            .json(&["get", "pod", name, "--namespace", STAGE])?;
        let conditions = pod["status"]["conditions"]
            .as_array()
            .context("no conditions")?;
        let ready = conditions
            .iter()
            .any(|one| one["type"] == "Ready" && one["status"] == "True");
        ensure!(ready, "{}", pod["status"]);
        Ok(())
    })
}

fn address_of(stage: &Stage<'_>, pod: &str) -> Result<String> {
    let pod = stage
        .kubectl
        .json(&["get", "pod", pod, "--namespace", STAGE])?;
    Ok(pod["status"]["podIP"]
        .as_str()
        .context("no address")?
        .to_owned())
}

/// Prints what a person would look at first.
fn explain(kubectl: &Kubectl) {
    for arguments in [
        &["get", "pods", "--all-namespaces", "--output=wide"][..],
        &["get", "events", "--all-namespaces"],
        &["logs", "--namespace", SYSTEM, "daemonset/bridge", "--tail=20"],
    ] {
        match kubectl.run(arguments) {
            Ok(text) => eprintln!("{text}"),
            Err(error) => eprintln!("{error:#}"),
        }
    }
}

fn remove(kubectl: &Kubectl) -> Result<()> {
    let start = Instant::now();
    kubectl.run(&["delete", "namespace", STAGE, SYSTEM, "--timeout=120s"])?;
    let took = start.elapsed();
    ensure!(took < Duration::from_secs(120), "it took {took:?}");
    Ok(())
}
