//! Mailboxes as inline ephemeral CSI volumes: the kubelet mounts them, the bridge is the driver.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{Outcome, Passed, Skipped, install};
use crate::bridge;
use crate::kubectl::until;
use crate::manifests::{self, STAGE, SYSTEM};
use crate::stage::Stage;

pub(super) fn mounted(stage: &Stage) -> Result<Outcome> {
    let Some(directory) = &stage.kubelet else {
        return Ok(Skipped("nobody said where the kubelet's directory is (OUTRIDER_E2E_KUBELET)"));
    };
    let csi = json!({"type": "csi", "csi": {"kubeletDirectory": directory}});
    install::release(stage, &json!({"mailbox": csi}))?;
    let seen = speaks(stage);
    let remove = ["delete", "namespace", STAGE, "--ignore-not-found", "--timeout=150s"];
    stage.kubectl.run(&remove)?;
    stage.helm.run(SYSTEM, &["uninstall", install::RELEASE])?;
    seen?;
    Ok(Passed)
}

/// Pods with such a mailbox: their proxies are heard, and what they say to each other is counted.
fn speaks(stage: &Stage) -> Result<()> {
    until("the namespace", || stage.kubectl.apply(&manifests::namespace(STAGE, true)))?;
    stage.kubectl.apply(&manifests::service("server"))?;
    let images = &stage.images;
    stage.deploy(&manifests::server(images, "server", 1, ""))?;
    stage.deploy(&manifests::deployment(images, "prober", 1, "sleep 2147483647 & wait"))?;
    for app in ["server", "prober"] {
        let pods = stage.pods(app)?;
        let pod = pods.first().context("no pod")?;
        let volumes = pod["spec"]["volumes"].as_array().context("no volumes")?;
        let ours =
            |volume: &Value| volume["csi"]["driver"].as_str() == Some("mailbox.outrider.dev");
        ensure!(volumes.iter().any(ours), "no volume of ours: {volumes:?}");
        ensure!(!volumes.iter().any(|volume| volume["hostPath"].is_object()), "{volumes:?}");
        let name = format!("{STAGE}/{}", pod["metadata"]["name"].as_str().context("no name")?);
        until("its proxy known to the bridge", || {
            let connected = [("name", &*name), ("proxy", "connected")];
            bridge::find(&stage.kubectl, "workloads", &connected)
        })?;
    }
    let url = stage.url("server")?;
    let (client, server) = (format!("{STAGE}/prober-"), format!("{STAGE}/server-"));
    until("the conversation", || {
        stage.visit(STAGE, "deployment/prober", &url)?;
        let ends = [("client", &*client), ("server", &*server), ("app", "HTTP")];
        bridge::find(&stage.kubectl, "conversations", &ends)
    })?;
    Ok(())
}
