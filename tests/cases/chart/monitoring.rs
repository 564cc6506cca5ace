//! Alerts and dashboards speak of metrics that there are, and every alert has its runbook.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;

use crate::helm::{render, root};

/// Names that code puts together: what it begins with, and what it ends with.
const COMPOSED: [(&str, &str); 6] = [
    ("outrider_bridge_", "_total"),
    ("outrider_bridge_", ""),
    ("outrider_export_", "_total"),
    ("outrider_export_", ""),
    ("outrider_controller_", ""),
    ("outrider_controller_", "_total"),
];

#[test]
fn alerts_and_dashboards_name_metrics_that_there_are() {
    let mut texts = vec![fs::read_to_string(files().join("alerts.yaml")).unwrap()];
    for entry in fs::read_dir(files().join("dashboards")).unwrap() {
        texts.push(fs::read_to_string(entry.unwrap().path()).unwrap());
    }
    let used: BTreeSet<_> = texts.iter().flat_map(|text| metrics(text)).collect();
    assert!(used.len() > 30, "{used:?}");
    let there = literals();
    let unknown: Vec<_> = used.iter().filter(|name| !exists(name, &there)).collect();
    assert!(unknown.is_empty(), "no component has these: {unknown:?}");
}

#[test]
fn every_alert_has_its_runbook_and_every_runbook_its_alert() {
    let values = "monitoring: {rules: {enabled: true}}".to_owned();
    let Some(answers) = render(&[values]) else { return };
    let objects = answers.results[0]["objects"].as_array().unwrap();
    let rules = objects
        .iter()
        .find(|object| object["kind"] == "PrometheusRule")
        .unwrap();
    let groups = rules["spec"]["groups"].as_array().unwrap();
    let alerts = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap());
    let pages: BTreeSet<_> = alerts.map(page).collect();
    let text = fs::read_to_string(root().join("docs/runbooks.md")).unwrap();
    let headings: BTreeSet<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .map(|heading| format!("docs/runbooks.md#{}", heading.to_lowercase()))
        .collect();
    assert_eq!(pages, headings);
}

fn page(alert: &Value) -> String {
    for member in ["expr", "alert"] {
        assert!(alert[member].is_string(), "{alert}");
    }
    alert["annotations"]["runbook_url"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// Words that look like metrics.
fn metrics(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("outrider_"))
        .map(str::to_owned)
        .collect()
}

/// Whether code registers that name, whole or in parts; of a histogram it has the name without its ending.
fn exists(name: &str, there: &BTreeSet<String>) -> bool {
    let histogram = name.strip_suffix("_bucket").unwrap_or(name);
    let parts = COMPOSED
        .iter()
        .filter_map(|(before, after)| histogram.strip_prefix(before)?.strip_suffix(after));
    let parts: Vec<_> = parts.collect();
    there.contains(histogram) || parts.iter().any(|part| there.contains(*part))
}

/// Every string in the sources of what has metrics.
fn literals() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut pending = vec![root().join("agent-bridge/src"), root().join("proxy")];
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(
                fs::read_dir(path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(path).unwrap();
            found.extend(text.split('"').map(str::to_owned));
        }
    }
    found
}

fn files() -> std::path::PathBuf {
    Path::new(root()).join("charts/outrider/files")
}
