//! What the figures of a run hold for: versions, images, the machine.

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{Outcome, Passed};
use crate::stage::Stage;

pub(super) fn told(stage: &Stage) -> Result<Outcome> {
    let nodes = stage.kubectl.json(&["get", "nodes"])?;
    for node in nodes["items"].as_array().context("no nodes")? {
        let info = &node["status"]["nodeInfo"];
        let said = |what: &str| info[what].as_str().unwrap_or("?").to_owned();
        eprintln!(
            "node {}: kubelet {}, {}, kernel {}, {}, {} processors",
            node["metadata"]["name"].as_str().unwrap_or("?"),
            said("kubeletVersion"),
            said("containerRuntimeVersion"),
            said("kernelVersion"),
            said("architecture"),
            node["status"]["capacity"]["cpu"].as_str().unwrap_or("?"),
        );
        for image in node["status"]["images"].as_array().into_iter().flatten() {
            sized(stage, image);
        }
    }
    eprintln!("Helm {}", stage.helm.run("default", &["version"])?.trim());
    Ok(Passed)
}

/// Says how large an image of this run is, packed.
fn sized(stage: &Stage, image: &Value) {
    let names = image["names"].as_array().into_iter().flatten();
    let ours = |name: &&str| name.starts_with(&stage.images.repository) && !name.contains('@');
    let Some(name) = names.filter_map(Value::as_str).find(ours) else { return };
    let kilobytes = image["sizeBytes"].as_u64().unwrap_or_default() / 1000;
    eprintln!("image {name}: {}.{} MB", kilobytes / 1000, kilobytes % 1000 / 100);
}
