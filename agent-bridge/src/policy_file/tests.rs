use super::*;
use crate::store::Store;

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

#[test]
fn reads_several_documents_and_lists() {
    let objects = parse(FILE).unwrap();
    assert_eq!((objects.rules.len(), objects.modes.len()), (1, 1));
    assert_eq!(objects.rules[0].spec.ingress[0].ports, ["tcp/8080"]);
}

#[test]
fn refuses_what_is_none_of_ours() {
    let error = |text: &str| parse(text).unwrap_err().to_string();
    assert!(error("kind: Pod").starts_with("object 1 (Pod)"), "{}", error("kind: Pod"));
    let modeless = "apiVersion: outrider.dev/v1alpha1\nkind: WorkloadMode\nmetadata: {name: a}\nspec: {mode: Loud}";
    assert!(error(modeless).contains("Loud"), "{}", error(modeless));
    assert!(error("a: [").len() > 5);
    let many = format!("items: [{}]", "{kind: Pod},".repeat(MAX_OBJECTS + 1));
    assert!(matches!(parse(&many), Err(PolicyFileError::TooMany)));
    let large = tempfile::NamedTempFile::new().unwrap();
    large.as_file().set_len(MAX_BYTES + 1).unwrap();
    assert!(matches!(read(large.path()), Err(PolicyFileError::TooLarge)));
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
    assert!(matches!(read(&policy), Err(PolicyFileError::Twice(_))));
}

#[test]
fn says_what_changed_and_nothing_else() {
    let mut resolver = Resolver::default();
    resolver.set_objects(&parse(FILE).unwrap());
    let plan = resolver.plan().clone();
    let all = changes(&Plan::default(), &plan);
    assert_eq!(all.len(), plan.rules.len() + plan.sets.len() + plan.modes.len());
    assert!(changes(&plan, &plan).is_empty());
    assert_eq!(changes(&plan, &Plan::default()).len(), all.len());
}
