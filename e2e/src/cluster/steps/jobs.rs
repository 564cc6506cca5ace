//! Pods that are to end.

use anyhow::{Result, ensure};

use super::{Outcome, Passed, Skipped};
use crate::bridge;
use crate::kubectl::until;
use crate::manifests::{self, STAGE};
use crate::stage::{Sidecar, Stage};

pub(super) fn ends(stage: &Stage) -> Result<Outcome> {
    if stage.sidecar == Sidecar::Classic {
        return Ok(Skipped("nobody tells a classic sidecar to end when the others have"));
    }
    let script = format!("wget -q -O - {} && sleep 1", stage.url("server")?);
    stage
        .kubectl
        .apply(&manifests::job(&stage.images, "errand", &script))?;
    until("the Job's end", || {
        let job = stage
            .kubectl
            .json(&["get", "job", "errand", "--namespace", STAGE])?;
        ensure!(job["status"]["succeeded"] == 1, "{}", job["status"]);
        Ok(())
    })?;
    let pods =
        stage
            .kubectl
            .json(&["get", "pods", "--namespace", STAGE, "--selector=job-name=errand"])?;
    ensure!(pods["items"][0]["status"]["phase"] == "Succeeded", "{}", pods["items"][0]["status"]);
    until("what it did, reported before it ended", || {
        let (job, server) = (format!("{STAGE}/errand-"), format!("{STAGE}/server-"));
        let ends = [("client", &*job), ("server", &*server)];
        bridge::find(&stage.kubectl, "conversations", &ends)
    })?;
    Ok(Passed)
}
