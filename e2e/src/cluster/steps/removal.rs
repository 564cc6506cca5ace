//! What uninstalling leaves.

use anyhow::{Result, ensure};

use super::install::RELEASE;
use super::{Outcome, Passed};
use crate::kubectl::until;
use crate::manifests::{self, OUTSIDE, STAGE, SYSTEM};
use crate::stage::Stage;
use crate::steps::traffic::SOME;

/// Everything of the cluster's own that the chart may make, but the definitions of custom resources, which it keeps.
const KINDS: &str = "mutatingwebhookconfigurations,validatingwebhookconfigurations,clusterroles,\
                     clusterrolebindings,csidrivers,priorityclasses";

/// What the node keeps, as docs/chart.md says: mailboxes of pods that run, the bridge's store.
const KEPT: &str = "ls -d /host/run/outrider/* /host/var/lib/outrider/* 2>/dev/null; true";

pub(super) fn uninstall(stage: &Stage) -> Result<Outcome> {
    let before = stage.requests()?;
    stage.helm.run(SYSTEM, &["uninstall", RELEASE])?;
    until("nothing of the release", || {
        let mut left = named(stage, KINDS)?;
        let policies = "validatingadmissionpolicies,validatingadmissionpolicybindings";
        // Older clusters do not have these at all.
        left.extend(named(stage, policies).unwrap_or_default());
        let pods = stage
            .kubectl
            .run(&["get", "pods", "--namespace", SYSTEM, "--output=name"])?;
        ensure!(left.is_empty() && pods.is_empty(), "{left:?} {pods}");
        Ok(())
    })?;
    // Pods that have a proxy go on as they were, by the last policy they were told.
    stage.all_answered(before, SOME)?;
    let plain = manifests::pod(
        &stage.images,
        STAGE,
        "plain",
        "trap 'exit 0' TERM; sleep 2147483647 & wait",
    );
    stage.start(&plain)?;
    eprintln!("left on the node: {}", stage.on_node(KEPT)?.replace('\n', " "));
    let definitions = named(stage, "customresourcedefinitions")?;
    ensure!(definitions.len() >= 7, "definitions: {definitions:?}");
    let remove = ["delete", "namespace", STAGE, OUTSIDE, SYSTEM, "--timeout=150s"];
    stage.kubectl.run(&remove)?;
    let all: Vec<_> = definitions.iter().map(String::as_str).collect();
    stage
        .kubectl
        .run(&[&["delete", "--timeout=60s"], &*all].concat())?;
    Ok(Passed)
}

/// Those of the kinds that have our name.
fn named(stage: &Stage, kinds: &str) -> Result<Vec<String>> {
    let all = stage.kubectl.run(&["get", kinds, "--output=name"])?;
    Ok(all
        .lines()
        .filter(|name| name.contains("outrider"))
        .map(str::to_owned)
        .collect())
}
