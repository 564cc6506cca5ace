//! Pods that are to end: by themselves with a native sidecar, by the bridge's word to a classic one.

use anyhow::{Result, ensure};

use super::{Outcome, Passed};
use crate::bridge;
use crate::kubectl::until;
use crate::manifests::{self, STAGE};
use crate::stage::Stage;

pub(super) fn ends(stage: &Stage) -> Result<Outcome> {
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
