//! The release: installed, tested, upgraded.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{NOT_CONTROLLED, Outcome, Passed, Skipped, policy};
use crate::bridge;
use crate::kubectl::until;
use crate::manifests::SYSTEM;
use crate::stage::{Stage, seconds};
use crate::steps::traffic::SOME;

/// The chart, and the release's name.
pub(super) const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/outrider");
pub(super) const RELEASE: &str = "outrider";

/// Values for images of these tags: bridge, webhook and controller; what is injected.
fn values(stage: &Stage, ours: &str, injected: &str) -> Value {
    let mut values = stage.values.clone();
    values["images"] = json!({
        "registry": stage.images.repository,
        "agentBridge": {"tag": ours},
        "init": {"tag": injected},
        "proxy": {"tag": injected},
    });
    values
}

pub(super) fn install(stage: &Stage) -> Result<Outcome> {
    release(stage, &json!({}))?;
    Ok(Passed)
}

/// Installs it and waits until all of it is ready. `more` are values besides the run's.
pub(super) fn release(stage: &Stage, more: &Value) -> Result<()> {
    helm(stage, "install", CHART, &stage.images.tag, more)?;
    ready(stage)?;
    linked(stage)
}

/// Installs or upgrades to a chart with all images of one tag. Waits for all of it if nothing has to be done besides.
pub(super) fn helm(stage: &Stage, verb: &str, chart: &str, tag: &str, more: &Value) -> Result<()> {
    let mut values = values(stage, tag, tag);
    for (name, value) in more.as_object().into_iter().flatten() {
        values[name] = value.clone();
    }
    let is_by_hand = values["bridge"]["updateStrategy"]["type"] == "OnDelete";
    let values = values.to_string();
    let arguments = [verb, RELEASE, chart, &values];
    if is_by_hand {
        stage.helm.begin(SYSTEM, &arguments)?;
    } else {
        stage.helm.run(SYSTEM, &arguments)?;
    }
    Ok(())
}

/// Waits until the bridges have heard the controller; says how long that took after all of it was ready.
pub(super) fn linked(stage: &Stage) -> Result<()> {
    if !stage.controlled() {
        return Ok(());
    }
    let start = Instant::now();
    until("bridges linked to the controller", || {
        let told = bridge::ask(&stage.kubectl, &["status"])?;
        ensure!(
            !told.is_empty() && told.iter().all(|one| one["cluster"]["state"] == "linked"),
            "{told:?}"
        );
        Ok(())
    })?;
    eprintln!("linked to the controller {:.1} s after all was ready", seconds(start));
    Ok(())
}

pub(super) fn ready(stage: &Stage) -> Result<()> {
    stage.rolled_out(SYSTEM, "deployment/outrider-webhook")?;
    let bridges = ["get", "daemonset", "outrider-bridge", "--namespace", SYSTEM];
    let strategy = &stage.kubectl.json(&bridges)?["spec"]["updateStrategy"]["type"];
    if strategy == "RollingUpdate" {
        stage.rolled_out(SYSTEM, "daemonset/outrider-bridge")?;
    }
    if stage.controlled() {
        stage.rolled_out(SYSTEM, "deployment/outrider-controller")?;
    }
    Ok(())
}

pub(super) fn test(stage: &Stage) -> Result<Outcome> {
    if !stage.controlled() {
        return Ok(NOT_CONTROLLED);
    }
    stage.helm.run(SYSTEM, &["test", RELEASE])?;
    Ok(Passed)
}

pub(super) fn upgrade(stage: &Stage) -> Result<Outcome> {
    let Some(next) = &stage.next_tag else {
        return Ok(Skipped("no other tag to upgrade to (OUTRIDER_E2E_NEXT_TAG)"));
    };
    let before = stage.requests()?;
    let tag = &*stage.images.tag;
    // Bridges ahead of the proxies; then proxies ahead of the bridges; then all new.
    for (ours, injected) in [(&**next, tag), (tag, next), (next, next)] {
        let values = values(stage, ours, injected).to_string();
        stage
            .helm
            .run(SYSTEM, &["upgrade", RELEASE, CHART, &values])?;
        ready(stage)?;
        stage.restart("server")?;
        runs(stage, injected)?;
        if stage.controlled() {
            policy::denies_and_allows(stage, "skewed")?;
        }
    }
    stage.all_answered(before, SOME)?;
    Ok(Passed)
}

/// Whether the newest server's proxy is of that tag.
fn runs(stage: &Stage, tag: &str) -> Result<()> {
    let image = stage
        .images
        .named("outrider-proxy")
        .replace(&stage.images.tag, tag);
    let pods = stage.pods("server")?;
    ensure!(
        pods.iter()
            .any(|pod| pod["spec"].to_string().contains(&image)),
        "no {image}: {pods:?}"
    );
    Ok(())
}
