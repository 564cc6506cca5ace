//! From text to what a node is told, and back from what it learned.

use super::*;
use crate::{controller::plan::Objects, store::Store};

const FILE: &str = "
apiVersion: outrider.dev/v1alpha1
kind: NetworkRule
metadata: {name: web, namespace: shop}
spec:
  ingress:
  - name: front
    action: Allow
    peers: [{podSelector: {matchLabels: {app: front}}}]
    ports: [tcp/8080]
---
kind: List
apiVersion: v1
items:
- {apiVersion: outrider.dev/v1alpha1, kind: WorkloadMode, metadata: {name: all, namespace: shop}, spec: {mode: Protect}}
---
";

fn objects(text: &str) -> Objects {
    let parsed = parse(text).unwrap();
    assert_eq!(parsed.refused, []);
    parsed.objects
}

#[test]
fn reads_several_documents_and_lists() {
    let objects = objects(FILE);
    assert_eq!((objects.rules.len(), objects.modes.len()), (1, 1));
    assert_eq!(objects.rules[0].spec.ingress[0].ports, ["tcp/8080"]);
}

#[test]
fn a_file_with_one_wrong_object_is_refused_whole_and_one_that_is_gone_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy.yaml");
    assert!(read::read(&path).unwrap().rules.is_empty());
    std::fs::write(&path, FILE.replace("Protect", "Loud")).unwrap();
    let error = read::read(&path).unwrap_err().to_string();
    assert!(error.starts_with("WorkloadMode/shop/all: spec.mode must be one of"), "{error}");
    let large = tempfile::NamedTempFile::new().unwrap();
    large
        .as_file()
        .set_len(outrider_api::code::MAX_BYTES as u64 + 1)
        .unwrap();
    let error = read::read(large.path()).unwrap_err().to_string();
    assert!(error.starts_with("larger than"), "{error}");
}

#[test]
fn rules_keep_their_numbers_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (policy, store) = (dir.path().join("policy.yaml"), dir.path().join("store"));
    let rule = |name: &str| {
        format!(
            "{{kind: NetworkRule, apiVersion: outrider.dev/v1alpha1, metadata: {{name: {name}, namespace: shop}}, spec: {{ingress: [{{name: a, action: Deny}}]}}}}"
        )
    };
    let write = |names: &[&str]| {
        let items: Vec<_> = names.iter().map(|name| rule(name)).collect();
        std::fs::write(&policy, format!("items: [{}]", items.join(", "))).unwrap();
    };
    let ids = |file: &PolicyFile| -> BTreeMap<String, u32> {
        let rules = file.plan.rules.values();
        rules
            .map(|rule| (rule.origin.to_string(), rule.id))
            .collect()
    };
    let run = || {
        let mut kept = Store::open(&store, 1).unwrap();
        let node = crate::node::restored(&kept);
        let mut file = PolicyFile { path: policy.clone(), ..PolicyFile::default() };
        file.look(&node);
        kept.commit(node.unsaved_numbers()).unwrap();
        ids(&file)
    };
    write(&["m"]);
    assert_eq!(run()["NetworkRule/shop/m/a"], 200_000);
    write(&["a", "m"]);
    let both = run();
    assert_eq!((both["NetworkRule/shop/m/a"], both["NetworkRule/shop/a/a"]), (200_000, 200_001));
    write(&["a"]);
    assert_eq!(run()["NetworkRule/shop/a/a"], 200_001);
    write(&["a", "a"]);
    let error = read::read(&policy).unwrap_err().to_string();
    assert!(error.contains("another object has that name"), "{error}");
}

#[test]
fn says_what_changed_and_nothing_else() {
    let mut resolver = Resolver::default();
    resolver.set_objects(&objects(FILE));
    let plan = resolver.plan().clone();
    let all = changes(&Plan::default(), &plan);
    assert_eq!(all.len(), plan.rules.len() + plan.sets.len() + plan.modes.len());
    assert!(changes(&plan, &plan).is_empty());
    assert_eq!(changes(&plan, &Plan::default()).len(), all.len());
}

mod round_trip;
