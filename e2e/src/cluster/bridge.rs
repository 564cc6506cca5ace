//! What the node's bridge says, asked with its own command line in its own pod.

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::kubectl::Kubectl;
use crate::manifests::SYSTEM;

/// Runs `outrider` beside the bridge; each line that it prints is an object.
pub(crate) fn ask(kubectl: &Kubectl, arguments: &[&str]) -> Result<Vec<Value>> {
    let program = [&["/outrider", "--json"], arguments].concat();
    kubectl
        .exec(SYSTEM, "daemonset/bridge", "bridge", &program)?
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("{line:?} is no JSON")))
        .collect()
}

/// The first object in which every named member has that text.
pub(crate) fn find(kubectl: &Kubectl, list: &str, members: &[(&str, &str)]) -> Result<Value> {
    let all = ask(kubectl, &[list])?;
    let found = all
        .iter()
        .find(|object| {
            members
                .iter()
                .all(|(name, text)| object[name].as_str() == Some(text))
        })
        .cloned();
    found.with_context(|| format!("no {members:?} among {list}: {all:?}"))
}
