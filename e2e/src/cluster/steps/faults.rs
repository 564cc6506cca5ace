//! Parts of Outrider that are away, and what holds meanwhile.

use anyhow::{Context as _, Result, bail, ensure};

use super::{NOT_CONTROLLED, Outcome, Passed, Skipped, policy};
use crate::bridge::{self, pods_of};
use crate::kubectl::until;
use crate::manifests::{self, OUTSIDE, STAGE, SYSTEM};
use crate::stage::{Requests, Stage};
use crate::steps::traffic::SOME;

const SLEEP: &str = "trap 'exit 0' TERM; sleep 2147483647 & wait";

pub(super) fn webhook_away(stage: &Stage) -> Result<Outcome> {
    let before = stage.requests()?;
    let webhook = "deployment/outrider-webhook";
    let replicas = stage
        .kubectl
        .json(&["get", webhook, "--namespace", SYSTEM])?["spec"]["replicas"]
        .to_string();
    let scale = |replicas: &str| {
        let count = format!("--replicas={replicas}");
        stage
            .kubectl
            .run(&["scale", webhook, "--namespace", SYSTEM, &count])
    };
    scale("0")?;
    until("no webhook", || {
        let left = pods_of(&stage.kubectl, "outrider-webhook")?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })?;
    let seen = without_webhook(stage, before);
    scale(&replicas)?;
    stage.rolled_out(SYSTEM, webhook)?;
    seen?;
    until("pods again", || {
        stage
            .kubectl
            .apply(&manifests::pod(&stage.images, STAGE, "late", SLEEP))
    })?;
    stage
        .kubectl
        .run(&["delete", "pod", "late", "--namespace", STAGE, "--wait=false"])?;
    Ok(Passed)
}

fn without_webhook(stage: &Stage, before: Requests) -> Result<()> {
    let refused = until("a refusal", || {
        let pod = manifests::pod(&stage.images, STAGE, "unwatched", SLEEP);
        match stage.kubectl.apply(&pod) {
            Ok(()) => {
                stage
                    .kubectl
                    .run(&["delete", "pod", "unwatched", "--namespace", STAGE])?;
                bail!("a pod without a proxy was let in");
            }
            Err(refusal) => Ok(format!("{refusal:#}")),
        }
    })?;
    ensure!(refused.contains("outrider.dev"), "the refusal does not say whose it is: {refused}");
    stage.start(&manifests::pod(&stage.images, OUTSIDE, "unaffected", SLEEP))?;
    stage.all_answered(before, SOME)
}

/// Ends the processes of a pod of ours on its node as a crash would, at once.
fn kill(stage: &Stage, pod: &str) -> Result<()> {
    let pod = stage
        .kubectl
        .json(&["get", "pod", pod, "--namespace", SYSTEM])?;
    let uid = pod["metadata"]["uid"].as_str().context("no uid")?;
    // Some runtimes write it with underscores.
    let either = format!("{uid}\\|{}", uid.replace('-', "_"));
    let killed = stage.on_node(&format!(
        "for process in /proc/[0-9]*; do
            case $(cat $process/comm 2>/dev/null) in outrider*) ;; *) continue ;; esac
            if grep -q '{either}' $process/cgroup; then kill -9 ${{process#/proc/}} && echo killed; fi
        done"
    ))?;
    ensure!(killed.contains("killed"), "no process of {uid} on the node");
    Ok(())
}

pub(super) fn bridge_killed(stage: &Stage) -> Result<Outcome> {
    let pods = pods_of(&stage.kubectl, "outrider-bridge")?;
    let [pod] = &*pods else {
        return Ok(Skipped(
            "there is more than one node, and only one that processes are ended on",
        ));
    };
    let before = rest(stage)?;
    counted(stage, before)?;
    work(stage)?;
    stage.all_answered(before, SOME)?;
    kill(stage, pod)?;
    stage.all_answered(stage.requests()?, SOME)?;
    until("the bridge's return", || {
        let status = stage
            .kubectl
            .json(&["get", "pod", pod, "--namespace", SYSTEM])?;
        let container = &status["status"]["containerStatuses"][0];
        ensure!(container["restartCount"].as_u64() > Some(0), "{container}");
        ensure!(container["ready"] == true, "{container}");
        Ok(())
    })?;
    stage.all_answered(stage.requests()?, SOME)?;
    let after = rest(stage)?;
    ensure!(after.failed == before.failed, "{before:?}, then {after:?}");
    counted(stage, after)?;
    work(stage)?;
    Ok(Passed)
}

/// Waits until the bridge has counted every request that the client made since it began.
fn counted(stage: &Stage, made: Requests) -> Result<()> {
    let (client, server) = (format!("{STAGE}/client-"), format!("{STAGE}/server-"));
    until("every request counted once", || {
        let sessions = bridge::sessions(&stage.kubectl, &client, &server)?;
        ensure!(sessions == made.answered + made.failed, "{made:?}, {sessions} sessions");
        Ok(())
    })
}

/// Lets the client rest; what it has counted by then.
fn rest(stage: &Stage) -> Result<Requests> {
    let client = |program: &[&str]| {
        stage
            .kubectl
            .exec(STAGE, "deployment/client", "workload", program)
    };
    client(&["touch", "/tmp/rest"])?;
    until("the client's rest", || client(&["cat", "/tmp/resting"]))?;
    stage.requests()
}

fn work(stage: &Stage) -> Result<()> {
    let remove = ["rm", "/tmp/rest"];
    stage
        .kubectl
        .exec(STAGE, "deployment/client", "workload", &remove)?;
    Ok(())
}

pub(super) fn controller_killed(stage: &Stage) -> Result<Outcome> {
    if !stage.controlled() {
        return Ok(NOT_CONTROLLED);
    }
    let before = stage.requests()?;
    let leader = || -> Result<String> {
        let lease =
            stage
                .kubectl
                .json(&["get", "lease", "outrider-controller", "--namespace", SYSTEM])?;
        let holder = lease["spec"]["holderIdentity"]
            .as_str()
            .context("nobody leads")?;
        Ok(holder.to_owned())
    };
    let old = leader()?;
    ensure!(pods_of(&stage.kubectl, "outrider-controller")?.contains(&old), "{old} leads");
    kill(stage, &old)?;
    let delete = ["delete", "pod", &old, "--namespace", SYSTEM, "--force", "--grace-period=0"];
    stage.kubectl.run(&delete)?;
    until("another leader", || {
        let new = leader()?;
        ensure!(new != old && !new.is_empty(), "{new} leads");
        Ok(())
    })?;
    policy::denies_and_allows(stage, "after")?;
    stage.all_answered(before, SOME)?;
    Ok(Passed)
}
