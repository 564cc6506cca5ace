//! A text into objects, each checked as the API server would.

use std::{
    collections::BTreeSet,
    io::{self, Read as _},
    path::Path,
    sync::Arc,
};

use outrider_api::{
    ObjectVerdict,
    code::{self, MAX_BYTES, ReadError},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;

use crate::{cluster::objects, controller::plan::Objects};

/// Why the file is not in force.
#[derive(Debug, Error)]
pub(crate) enum PolicyFileError {
    /// It can't be read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is none of objects.
    #[error(transparent)]
    Text(#[from] ReadError),
    /// An object is none of ours, or wrong.
    #[error("{}: {} {}", .0.object, .0.field, .0.message)]
    Object(ObjectVerdict),
}

/// Objects of a text, and what is wrong with those that are none.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    pub(crate) objects: Objects,
    pub(crate) refused: Vec<ObjectVerdict>,
}

/// Reads a file of objects; one that is not there has none.
///
/// # Errors
///
/// When it can't be read, exceeds a bound, or has an object that is none of ours or wrong.
pub(crate) fn read(path: &Path) -> Result<Objects, PolicyFileError> {
    let Parsed { objects, refused } = parse(&text(path)?)?;
    match refused.into_iter().next() {
        Some(first) => Err(PolicyFileError::Object(first)),
        None => Ok(objects),
    }
}

/// The text of the file; one that is not there has none.
pub(crate) fn text(path: &Path) -> io::Result<String> {
    let most = u64::try_from(MAX_BYTES)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    let mut text = String::new();
    match std::fs::File::open(path) {
        Ok(file) => drop(file.take(most).read_to_string(&mut text)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(text)
}

/// Reads objects: YAML of several documents, or JSON; a `List` is the objects in it.
///
/// # Errors
///
/// When it exceeds a bound or is no YAML. What is wrong with an object is told beside the others.
pub(crate) fn parse(text: &str) -> Result<Parsed, ReadError> {
    let (mut parsed, mut names) = (Parsed::default(), BTreeSet::new());
    for value in code::read(text)? {
        let name = name(&value);
        let entered = match names.insert(name.clone()) {
            true => enter(&mut parsed.objects, value),
            false => Err(("metadata.name".to_owned(), "another object has that name".to_owned())),
        };
        if let Err((field, message)) = entered {
            let (accepted, reason) = (false, "Invalid".to_owned());
            parsed
                .refused
                .push(ObjectVerdict { object: name, accepted, reason, field, message });
        }
    }
    Ok(parsed)
}

/// `<kind>/<namespace>/<name>`.
fn name(value: &Value) -> String {
    let meta = &value["metadata"];
    let parts = [&value["kind"], &meta["namespace"], &meta["name"]];
    let parts = parts.into_iter().filter_map(Value::as_str);
    let parts: Vec<_> = parts.filter(|part| !part.is_empty()).collect();
    parts.join("/")
}

/// Enters an object, or says which field is wrong and why.
fn enter(objects: &mut Objects, value: Value) -> Result<(), (String, String)> {
    fn one<T: DeserializeOwned>(
        list: &mut Vec<Arc<T>>,
        value: Value,
    ) -> Result<(), (String, String)> {
        let wrong = |error: serde_json::Error| ("spec".to_owned(), error.to_string());
        list.push(Arc::new(serde_json::from_value(value).map_err(wrong)?));
        Ok(())
    }
    objects::check(&value)?;
    match value["kind"].as_str().unwrap_or_default() {
        "WorkloadGroup" => one(&mut objects.groups, value),
        "ClusterWorkloadGroup" => one(&mut objects.cluster_groups, value),
        "NetworkRule" => one(&mut objects.rules, value),
        "ClusterNetworkRule" => one(&mut objects.cluster_rules, value),
        "WorkloadMode" => one(&mut objects.modes, value),
        "ClusterWorkloadMode" => one(&mut objects.cluster_modes, value),
        _ => Err(("kind".into(), "no kind that people write for a node without a cluster".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> Vec<(String, String)> {
        let refused = parse(text).unwrap().refused.into_iter();
        refused
            .map(|one| (one.object, format!("{} {}", one.field, one.message)))
            .collect()
    }

    fn rule(spec: &str) -> String {
        format!(
            "{{apiVersion: outrider.dev/v1alpha1, kind: NetworkRule, metadata: {{name: a, namespace: b}}, spec: {spec}}}"
        )
    }

    fn entry(rest: &str) -> String {
        rule(&format!("{{ingress: [{{name: r, action: Allow{rest}}}]}}"))
    }

    #[test]
    fn a_field_that_is_wrong_is_named_with_why() {
        for (text, words) in [
            (entry(", peer: []"), "spec.ingress[0].peer is no field"),
            (entry(", ports: tcp/80"), "spec.ingress[0].ports must be a list"),
            (entry(", ports: [any, any]"), "spec.ingress[0].ports[1] is there twice"),
            (
                entry(", peers: [{nodes: false}]"),
                "spec.ingress[0].peers[0].nodes must be one of true",
            ),
            (entry(", applications: [X]"), "spec.ingress[0].applications[0] must be one of HTTP"),
            (rule("{priority: 101}"), "spec.priority must be 100 at most"),
            (rule("{priority: -1}"), "spec.priority must be 0 at least"),
            (rule("{ingress: [{name: r}]}"), "spec.ingress[0].action must be given"),
            (entry(", peers: null"), "spec.ingress[0].peers must not be null"),
            (rule("5"), "spec must be an object"),
            (entry("").replace("v1alpha1", "v1"), "apiVersion must be outrider.dev/v1alpha1"),
            (entry("").replace(", namespace: b", ""), "metadata.namespace must be given"),
            (entry("").replace("name: a, ", ""), "metadata.name must be given"),
            (entry("").replace("kind: Net", "kind: ClusterNet"), "metadata.namespace must not be"),
            (format!("{}\n---\n{}", entry(""), entry("")), "metadata.name another object"),
            ("kind: Pod".to_owned(), "kind no kind"),
        ] {
            let found = refused(&text);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(found[0].1.starts_with(words), "{text}: {found:?}");
        }
        assert_eq!(refused(&rule("5"))[0].0, "NetworkRule/b/a");
    }

    #[test]
    fn what_is_right_is_taken_and_what_is_too_much_is_not() {
        let right = entry(", applications: [HTTP, unknown], ports: [any]");
        assert_eq!(refused(&right), []);
        let many = "{name: r, action: Allow},".repeat(65);
        let found = refused(&rule(&format!("{{ingress: [{many}]}}")));
        assert_eq!(found[0].1, "spec.ingress has 65 elements, 64 at most");
    }
}
