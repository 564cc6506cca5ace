//! Shapes of pods with what becomes of them, reviewed. `OUTRIDER_BLESS=1` writes the outcomes anew.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use outrider_agent_bridge::inject::{Decision, Injected, inject, validate};
use serde_json::Value;

use crate::apply;

/// A pod with what it stands in.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) said: Value,
}

impl Case {
    pub(crate) fn pod(&self) -> &Value {
        &self.said["pod"]
    }

    pub(crate) fn decide(&self, pod: &Value) -> Decision {
        let (namespace, cluster) = self.place();
        inject(pod, &namespace, &cluster)
    }

    pub(crate) fn validate(&self, pod: &Value) -> Result<(), Vec<String>> {
        let (namespace, cluster) = self.place();
        validate(pod, &namespace, &cluster)
    }

    fn place(
        &self,
    ) -> (outrider_agent_bridge::inject::Namespace, outrider_agent_bridge::inject::Cluster) {
        (apply::namespace(&self.said["namespace"]), apply::cluster(&self.said["cluster"]))
    }
}

/// All of them.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases: Vec<_> = fs::read_dir(dir())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "json"))
        .map(|path| Case {
            name: path.file_stem().unwrap().to_string_lossy().into_owned(),
            said: serde_json::from_slice(&fs::read(path).unwrap()).unwrap(),
        })
        .collect();
    cases.sort_by(|one, other| one.name.cmp(&other.name));
    cases
}

#[test]
fn shapes_of_pods_have_the_reviewed_outcomes() {
    let (cases, mut differ) = (cases(), Vec::new());
    assert!(cases.len() >= 40, "{}", cases.len());
    let known = known(&cases);
    for case in &cases {
        let text = shown(&case.decide(case.pod()), case, &known);
        let path = dir().join(format!("{}.txt", case.name));
        if std::env::var_os("OUTRIDER_BLESS").is_some() {
            fs::write(&path, &text).unwrap();
        }
        if fs::read_to_string(&path).unwrap_or_default() != text {
            differ.push(path);
        }
    }
    assert!(differ.is_empty(), "changed; look at them, then OUTRIDER_BLESS=1: {differ:#?}");
}

/// The containers that the plainest pods get, with which others are compared.
fn known(cases: &[Case]) -> Vec<(&str, Value)> {
    let mut known = Vec::new();
    for case in cases
        .iter()
        .filter(|case| matches!(&*case.name, "classic" | "plain"))
    {
        let Decision::Inject(injected) = case.decide(case.pod()) else { panic!("not injected") };
        let values = injected
            .patch
            .into_iter()
            .filter_map(|operation| operation.value);
        let containers = values.filter(|value| value["image"].is_string());
        known.extend(containers.map(|container| (&*case.name, container)));
    }
    known
}

fn shown(decision: &Decision, case: &Case, known: &[(&str, Value)]) -> String {
    match decision {
        Decision::Skip(why) => format!("skip {}\n", why.label()),
        Decision::Refuse(reasons) => reasons
            .iter()
            .map(|reason| format!("refuse {reason}\n"))
            .collect(),
        Decision::Inject(injected) => shown_patch(injected, case, known),
    }
}

fn shown_patch(injected: &Injected, case: &Case, known: &[(&str, Value)]) -> String {
    let mut text = format!("inject {}\n", injected.sidecar);
    for warning in &injected.warnings {
        writeln!(text, "warning {warning}").unwrap();
    }
    for operation in &injected.patch {
        let path = &operation.path;
        match &operation.value {
            None => writeln!(text, "remove {path}").unwrap(),
            Some(value) if value["image"].is_string() => {
                let as_in = known.iter().find(|(name, other)| {
                    let same = other["name"] == value["name"]
                        && other["restartPolicy"] == value["restartPolicy"];
                    same && *name != case.name
                });
                match as_in.filter(|_| case.name != "plain" && case.name != "classic") {
                    None => writeln!(text, "add {path} {value:#}").unwrap(),
                    Some((name, other)) => {
                        let differs = differences(other, value);
                        writeln!(text, "add {path} {} as in {name}{differs}", value["name"])
                            .unwrap();
                    }
                }
            }
            Some(Value::Object(members)) => {
                writeln!(text, "add {path}").unwrap();
                for (key, value) in members {
                    writeln!(text, "  {key}: {value}").unwrap();
                }
            }
            Some(value) => writeln!(text, "add {path} {value}").unwrap(),
        }
    }
    text
}

/// What a container has otherwise than another one.
fn differences(other: &Value, value: &Value) -> String {
    let mut text = String::new();
    let (other, value) = (other.as_object().unwrap(), value.as_object().unwrap());
    for key in other.keys().filter(|key| !value.contains_key(*key)) {
        write!(text, "\n  without {key}").unwrap();
    }
    for (key, value) in value
        .iter()
        .filter(|(key, value)| other.get(*key) != Some(value))
    {
        let items = value.as_array().filter(|_| key == "env");
        match items {
            None => write!(text, "\n  {key}: {value}").unwrap(),
            Some(items) => {
                let known = other.get(key).and_then(Value::as_array);
                for item in items {
                    if known.is_none_or(|known| !known.contains(item)) {
                        write!(text, "\n  {}={}", item["name"].as_str().unwrap(), item["value"])
                            .unwrap();
                    }
                }
            }
        }
    }
    text
}

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/inject")
}
