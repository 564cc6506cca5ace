//! What the nodes' bridges say, each asked with its own command line in its own pod.

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::kubectl::Kubectl;
use crate::manifests::SYSTEM;

/// Pods of the release that the named object made.
pub(crate) fn pods_of(kubectl: &Kubectl, owner: &str) -> Result<Vec<String>> {
    let all = kubectl.json(&["get", "pods", "--namespace", SYSTEM])?;
    let pods = all["items"].as_array().context("no pods")?;
    let of_owner = |pod: &&Value| {
        let made_by = pod["metadata"]["ownerReferences"][0]["name"].as_str();
        made_by.is_some_and(|name| name.starts_with(owner))
            && pod["metadata"]["deletionTimestamp"].is_null()
    };
    let names = pods
        .iter()
        .filter(of_owner)
        .filter_map(|pod| Some(pod["metadata"]["name"].as_str()?.to_owned()));
    Ok(names.collect())
}

/// Runs `outrider` beside every bridge; each line that it prints is an object.
pub(crate) fn ask(kubectl: &Kubectl, arguments: &[&str]) -> Result<Vec<Value>> {
    let program = [&["/outrider", "--json"], arguments].concat();
    let mut objects = vec![];
    for pod in pods_of(kubectl, "outrider-bridge")? {
        for line in kubectl.exec(SYSTEM, &pod, "bridge", &program)?.lines() {
            objects
                .push(serde_json::from_str(line).with_context(|| format!("{line:?} is no JSON"))?);
        }
    }
    Ok(objects)
}

/// Those objects of a list of which every named member begins with that text.
pub(crate) fn all(kubectl: &Kubectl, list: &str, members: &[(&str, &str)]) -> Result<Vec<Value>> {
    let mut found = ask(kubectl, &[list])?;
    let begins = |object: &Value, (name, text): &(&str, &str)| {
        object[name]
            .as_str()
            .is_some_and(|value| value.starts_with(text))
    };
    found.retain(|object| members.iter().all(|member| begins(object, member)));
    Ok(found)
}

/// The first of them.
pub(crate) fn find(kubectl: &Kubectl, list: &str, members: &[(&str, &str)]) -> Result<Value> {
    let mut found = all(kubectl, list, members)?.into_iter();
    found
        .next()
        .with_context(|| format!("no {members:?} among {list}"))
}

/// Sessions that the bridges counted between workloads whose names begin so.
pub(crate) fn sessions(kubectl: &Kubectl, client: &str, server: &str) -> Result<u64> {
    let found = all(kubectl, "conversations", &[("client", client), ("server", server)])?;
    Ok(found
        .iter()
        .filter_map(|one| one["sessions"].as_u64())
        .sum())
}
