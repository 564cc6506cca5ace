//! Workloads that talk to each other: `client` asks `server` all the time, which asks `store`.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{Outcome, Passed};
use crate::bridge;
use crate::kubectl::until;
use crate::manifests::{self, OUTSIDE, STAGE};
use crate::stage::{Sidecar, Stage};

/// Requests that have to be answered before something counts as going on.
pub(crate) const SOME: u64 = 20;

/// The workloads, each a Deployment of that name.
pub(crate) const APPS: [&str; 4] = ["server", "store", "client", "prober"];

/// Counts answers and failures into a file; rests while a file says so.
const CLIENT: &str = "
answered=0 failed=0
while :; do
    if [ -e /tmp/rest ]; then touch /tmp/resting; sleep 0.2; continue; fi
    rm -f /tmp/resting
    if timeout 5 wget -q -O /dev/null $URL; then answered=$((answered+1)); else failed=$((failed+1)); fi
    echo $answered $failed >/tmp/next && mv /tmp/next /tmp/count
    sleep 0.1
done";

/// Asks another server once a second.
const BESIDE: &str = "while :; do timeout 5 wget -q -O /dev/null $URL; sleep 1; done &";

pub(super) fn start(stage: &Stage) -> Result<Outcome> {
    stage.kubectl.apply(&manifests::namespace(STAGE, true))?;
    stage.kubectl.apply(&manifests::namespace(OUTSIDE, false))?;
    for name in ["server", "store"] {
        stage.kubectl.apply(&manifests::service(name))?;
    }
    let images = &stage.images;
    let beside = BESIDE.replace("$URL", &stage.url("store")?);
    let client = CLIENT.replace("$URL", &stage.url("server")?);
    let prober = "sleep 2147483647 & wait";
    stage.deploy(&manifests::server(images, "store", 1, ""))?;
    stage.deploy(&manifests::server(images, "server", 2, &beside))?;
    stage.deploy(&manifests::deployment(images, "client", 1, &client))?;
    stage.deploy(&manifests::deployment(images, "prober", 1, prober))?;
    stage.start(&manifests::node_shell(images))?;
    for pod in APPS
        .iter()
        .map(|app| stage.pods(app))
        .collect::<Result<Vec<_>>>()?
        .concat()
    {
        injected(&pod, stage.sidecar)?;
        let name = pod["metadata"]["name"].as_str().context("no name")?;
        let name = format!("{STAGE}/{name}");
        until("its proxy known to the bridge", || {
            let connected = [("name", &*name), ("proxy", "connected")];
            bridge::find(&stage.kubectl, "workloads", &connected)
        })?;
    }
    let outside = stage
        .kubectl
        .json(&["get", "pod", "node", "--namespace", OUTSIDE])?;
    ensure!(!outside.to_string().contains("outrider-proxy"), "injected: {outside}");
    Ok(Passed)
}

/// The pod has our containers where they belong, and the workload's is as it was.
fn injected(pod: &Value, sidecar: Sidecar) -> Result<()> {
    let names = |list: &str| -> Vec<String> {
        let containers = pod["spec"][list].as_array().into_iter().flatten();
        containers
            .filter_map(|one| Some(one["name"].as_str()?.to_owned()))
            .collect()
    };
    let (first, beside) = (names("initContainers"), names("containers"));
    let expected = match sidecar {
        Sidecar::Native => (vec!["outrider-init", "outrider-proxy"], vec!["workload"]),
        Sidecar::Classic => (vec!["outrider-init"], vec!["outrider-proxy", "workload"]),
    };
    ensure!(first == expected.0 && beside == expected.1, "{first:?}, {beside:?}");
    Ok(())
}

pub(super) fn learned(stage: &Stage) -> Result<Outcome> {
    let before = stage.requests()?;
    stage.all_answered(before, SOME)?;
    let prober = stage.visit(STAGE, "deployment/prober", &stage.url("server")?)?;
    ensure!(prober.trim() == "hello", "the server said {prober:?}");
    let group = |name| format!("nv.{name}.{STAGE}");
    for (from, to) in [("client", "server"), ("server", "store"), ("prober", "server")] {
        let (client, server) = (format!("{STAGE}/{from}-"), format!("{STAGE}/{to}-"));
        let ends = [("client", &*client), ("server", &*server), ("app", "HTTP")];
        until("the conversation", || bridge::find(&stage.kubectl, "conversations", &ends))?;
        let (from, to) = (group(from), group(to));
        let rule = [("from", &*from), ("to", &*to)];
        until("the rule", || {
            stage.visit(STAGE, "deployment/prober", &stage.url("server")?)?;
            bridge::find(&stage.kubectl, "rules", &rule)
        })?;
    }
    // An earlier revision may know nothing of Services.
    if stage.controlled() && stage.previous.is_none() {
        nothing_but_workloads(stage)?;
    }
    Ok(Passed)
}

/// Everybody asks Services: what is behind them is what was talked to, once, and no address.
fn nothing_but_workloads(stage: &Stage) -> Result<()> {
    until("no server but workloads", || {
        for client in ["client", "prober"] {
            let client = format!("{STAGE}/{client}-");
            let own = bridge::all(&stage.kubectl, "conversations", &[("client", &*client)])?;
            let is_workload = |one: &Value| {
                let server = one["server"].as_str();
                server.is_some_and(|server| server.starts_with(STAGE))
            };
            let others: Vec<_> = own.iter().filter(|one| !is_workload(one)).collect();
            ensure!(others.is_empty(), "{others:?}");
        }
        Ok(())
    })
}

pub(super) fn rollout(stage: &Stage) -> Result<Outcome> {
    let before = stage.requests()?;
    restarted(stage, "server")?;
    stage.all_answered(before, SOME)?;
    Ok(Passed)
}

/// Restarts a workload and waits until none of its old pods is left.
pub(super) fn restarted(stage: &Stage, app: &str) -> Result<()> {
    let old = names(stage, app)?;
    stage.restart(app)?;
    until("the end of the old pods", || {
        let now = names(stage, app)?;
        ensure!(!now.iter().any(|name| old.contains(name)), "{old:?}, then {now:?}");
        Ok(())
    })
}

/// Names of an application's pods, those that end too.
fn names(stage: &Stage, app: &str) -> Result<Vec<String>> {
    let pods = stage.pods(app)?;
    let name = |pod: &Value| Some(pod["metadata"]["name"].as_str()?.to_owned());
    Ok(pods.iter().filter_map(name).collect())
}
