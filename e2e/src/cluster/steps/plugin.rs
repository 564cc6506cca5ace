//! `kubectl outrider`: the command line as kubectl's plugin, by tunnels that kubectl opens into real pods.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{NOT_CONTROLLED, Outcome, Passed, Skipped};
use crate::manifests::{PORT, STAGE};
use crate::stage::Stage;

pub(super) fn works(stage: &Stage) -> Result<Outcome> {
    if stage.kubectl.plugins.is_none() {
        return Ok(Skipped("no directory with kubectl-outrider was named (OUTRIDER_E2E_PLUGINS)"));
    }
    if !stage.controlled() {
        return Ok(NOT_CONTROLLED);
    }
    for check in [&["check"][..], &["check", "--pre"], &["status"], &["coverage"]] {
        objects(stage, check)?;
    }
    let workloads = objects(stage, &["workloads"])?;
    for app in ["client", "server", "store", "prober"] {
        let begin = format!("{STAGE}/{app}-");
        let is_there = |one: &Value| {
            one["name"]
                .as_str()
                .is_some_and(|name| name.starts_with(&begin))
        };
        ensure!(workloads.iter().any(is_there), "no {app}: {workloads:?}");
    }
    for list in ["conversations", "rules", "violations", "flows", "sessions"] {
        objects(stage, &[list])?;
    }
    let name = |app: &str| -> Result<String> {
        let pods = stage.pods(app)?;
        let name = pods
            .first()
            .and_then(|pod| pod["metadata"]["name"].as_str());
        Ok(format!("{STAGE}/{}", name.context("no pod")?))
    };
    let port = PORT.to_string();
    let why = objects(stage, &["explain", &name("client")?, &name("server")?, &port])?;
    ensure!(!why.is_empty(), "explain says nothing");
    eprintln!("kubectl outrider explain: {}", why[0]);
    let modes = objects(stage, &["mode", "get", STAGE])?;
    ensure!(format!("{modes:?}").to_lowercase().contains("protect"), "{modes:?}");
    written(stage)?;
    Ok(Passed)
}

/// `mode set` writes an object that the controller takes; nothing of it stays.
fn written(stage: &Stage) -> Result<()> {
    let service = format!("{STAGE}/store");
    let list = || {
        stage
            .kubectl
            .run(&["get", "workloadmodes", "--namespace", STAGE, "--output=name"])
    };
    let before = list()?;
    stage
        .kubectl
        .outrider(&["mode", "set", &service, "monitor"])?;
    let after = list()?;
    let new: Vec<_> = after
        .lines()
        .filter(|name| !before.contains(name))
        .collect();
    let [new] = &*new else { anyhow::bail!("{before}, then {after}") };
    crate::kubectl::until("the mode's acceptance", || {
        let mode = stage.kubectl.json(&["get", new, "--namespace", STAGE])?;
        let conditions = mode["status"]["conditions"].as_array();
        let accepted = |one: &Value| one["type"] == "Accepted" && one["status"] == "True";
        ensure!(conditions.into_iter().flatten().any(accepted), "{mode}");
        Ok(())
    })?;
    stage.kubectl.run(&["delete", new, "--namespace", STAGE])?;
    Ok(())
}

/// What one command prints, an object a line.
fn objects(stage: &Stage, command: &[&str]) -> Result<Vec<Value>> {
    let said = stage.kubectl.outrider(&[&["--json"], command].concat())?;
    said.lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("{command:?}: {line:?}")))
        .collect()
}
