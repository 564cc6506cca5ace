//! Values: each is documented and in the schema, and what cannot be meant is refused with what is wrong.

use std::fs;

use serde_json::Value;

use crate::helm::{render, reviewed, root};

/// Each of them is wrong in one way.
const WRONG: &[&str] = &[
    "bridge: {logs: debug}",
    "bridge: {defaultMode: enforce}",
    "bridge: {api: {listen: localhost}}",
    "bridge: {internalNetworks: [10.0.0.0]}",
    "bridge: {addressGroups: {office: here}}",
    "bridge: {env: [{value: x}]}",
    "bridge: {resources: {request: {cpu: 1}}}",
    "bridge: {resources: {limits: {memory: 512MB}}}",
    "bridge: {tolerations: [{operator: Exist}]}",
    "bridge: {updateStrategy: {type: Recreate}}",
    "controller: {replicas: 0}",
    "controller: {replicas: two}",
    "controller: {clusterIP: controller}",
    "controller: {enabled: \"yes\"}",
    "crds: {keeps: false}",
    "fullnameOverride: Outrider",
    "images: {pullPolicy: Sometimes}",
    "images: {tag: \"1.0:latest\"}",
    "images: {proxy: {digest: \"sha256:12\"}}",
    "images: {registry: \"https://registry.example.com\"}",
    "kubernetesVersion: \"1.19\"",
    "mailbox: {type: hostPath}",
    "mailbox: {directory: /pods}",
    "mailbox: {directory: run/outrider/pods}",
    "monitoring: {interval: often}",
    "monitoring: {rules: {disabled: [Threats]}}",
    "networkPolicy: {apiServer: [everywhere]}",
    "nodeSelector: {disk: ssd}",
    "test: {namespace: outrider}",
    "webhook: {certificate: {issuerRef: {kind: Issuer, name: internal}}}",
    "webhook: {certificate: {source: none}}",
    "webhook: {certificate: {source: secret, caBundle: LS0tLS1CRUdJTg==}}",
    "webhook: {defaults: {loglevel: warn}}",
    "webhook: {exempt: [raw]}",
    "webhook: {failurePolicy: {enforced: fail}}",
    "webhook: {policy: {mode: enforce}}",
    "webhook: {port: 70000}",
    "webhook: {timeoutSeconds: 60}",
    "webhook: {unlabelled: optIn}",
];

#[test]
fn wrong_values_are_refused_with_what_is_wrong() {
    let texts: Vec<_> = WRONG.iter().map(|text| (*text).to_owned()).collect();
    let Some(answers) = render(&texts) else { return };
    let mut said = String::new();
    for (text, answer) in texts.iter().zip(&answers.results) {
        let error = answer["error"].as_str();
        let error = error.unwrap_or_else(|| panic!("taken: {text}"));
        said += &format!("{text}\n");
        for line in error.lines().filter(|line| {
            line.starts_with("- ") || line.contains("goes with") || line.contains("another one")
        }) {
            said += &format!("    {line}\n");
        }
    }
    reviewed("charts/golden/refused.txt", &said);
}

#[test]
fn every_value_is_documented_and_in_the_schema() {
    let Some(answers) = render(&[]) else { return };
    let schema = fs::read_to_string(root().join("charts/outrider/values.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let mut wrong = Vec::new();
    compare(&answers.values, &schema, "", &mut wrong);
    assert!(wrong.is_empty(), "{wrong:#?}");

    let path = root().join("charts/outrider/README.md");
    let readme = fs::read_to_string(path).unwrap();
    let (before, _) = readme.split_once(MARK).unwrap();
    reviewed("charts/outrider/README.md", &format!("{before}{MARK}{}", table(&answers.values)));
}

const MARK: &str = "\n## Values\n";

/// Every member is in both, or in neither.
fn compare(values: &Value, schema: &Value, path: &str, wrong: &mut Vec<String>) {
    let (Some(values), Some(properties)) = (values.as_object(), schema["properties"].as_object())
    else {
        return;
    };
    if values.is_empty() {
        return; // documented as a whole
    }
    for name in values.keys().filter(|name| !properties.contains_key(*name)) {
        wrong.push(format!("{path}.{name} is not in the schema"));
    }
    for (name, property) in properties {
        match values.get(name) {
            Some(value) => compare(value, property, &format!("{path}.{name}"), wrong),
            None => wrong.push(format!("{path}.{name} is not among the values")),
        }
    }
}

/// The table of the README: a row for each comment `# -- `.
fn table(values: &Value) -> String {
    let text = fs::read_to_string(root().join("charts/outrider/values.yaml")).unwrap();
    let mut table = "\n| Value | Default | |\n|---|---|---|\n".to_owned();
    let mut path: Vec<&str> = Vec::new();
    let mut comment = None;
    let mut documented = None; // depth of a value whose members need no words of their own
    for line in text.lines() {
        let content = line.trim_start();
        let depth = (line.len() - content.len()) / 2;
        if let Some(words) = content.strip_prefix("# -- ") {
            comment = Some(words);
            continue;
        }
        let Some((name, default)) = content.split_once(':') else { continue };
        if content.starts_with('#') || documented.is_some_and(|above| depth > above) {
            continue;
        }
        path.truncate(depth);
        path.push(name);
        documented = comment.is_some().then_some(depth);
        match comment.take() {
            Some(words) => {
                let default = path.iter().fold(values, |value, name| &value[name]);
                let words = words.replace('|', "\\|");
                table += &format!("| `{}` | `{default}` | {words} |\n", path.join("."));
            }
            None => assert!(default.is_empty(), "{} has no words", path.join(".")),
        }
    }
    table
}
