//! Definitions as the API server gets them, and as the chart has them.

use serde_json::{Value, json};

use super::*;

#[test]
fn the_chart_has_the_definitions_of_this_build() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/outrider/files/crds.yaml");
    let fresh = yaml().unwrap();
    assert_eq!(fresh, yaml().unwrap(), "the same bytes each time");
    let hint = "write it with `outrider-agent-bridge crds > charts/outrider/files/crds.yaml`";
    assert!(std::fs::read_to_string(path).unwrap_or_default() == fresh, "{hint}");
}

#[test]
fn every_kind_has_short_names_a_category_columns_and_a_status() {
    let mut short = Vec::new();
    for definition in definitions() {
        let (name, spec) = (definition.metadata.name.unwrap(), definition.spec);
        assert_eq!(name, format!("{}.{GROUP}", spec.names.plural));
        assert_eq!(spec.names.categories.unwrap(), ["outrider"], "{name}");
        short.extend(spec.names.short_names.unwrap());
        let version = &spec.versions[0];
        assert_eq!((version.name.as_str(), version.storage, version.served), (VERSION, true, true));
        assert!(version.subresources.as_ref().unwrap().status.is_some(), "{name}");
        assert!(version.additional_printer_columns.as_ref().unwrap().len() >= 4, "{name}");
    }
    assert_eq!(short, ["owg", "cowg", "onr", "ocnr", "owm", "ocwm", "olp"]);
}

/// Lists and texts without a bound would make the cost of CEL rules unbounded too.
#[test]
fn every_list_and_text_of_a_spec_has_a_bound() {
    fn look(path: &str, schema: &Value, open: &mut Vec<String>) {
        let is = |kind: &str| schema["type"] == kind;
        let enumerated = schema.get("enum").is_some();
        if (is("array") && schema.get("maxItems").is_none())
            || (is("string") && !enumerated && schema.get("maxLength").is_none())
        {
            open.push(path.to_owned());
        }
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            look(&format!("{path}.{name}"), inner, open);
        }
        if let Some(items) = schema.get("items") {
            look(&format!("{path}[]"), items, open);
        }
    }
    for definition in definitions() {
        let definition = serde_json::to_value(definition).unwrap();
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let mut open = Vec::new();
        look("spec", &schema["properties"]["spec"], &mut open);
        assert!(open.is_empty(), "{}: {open:?}", definition["metadata"]["name"]);
    }
}

#[test]
fn a_rule_reads_and_writes_as_people_write_it() {
    let text = json!({
        "target": {"podSelector": {"matchLabels": {"app": "web"}}},
        "ingress": [{
            "name": "front", "action": "Allow", "ports": ["tcp/80"], "applications": ["HTTP"],
            "peers": [{"podSelector": {}, "namespaceSelector": {"matchLabels": {"team": "shop"}}}, {"external": true}],
        }],
    });
    let spec: NetworkRuleSpec = serde_json::from_value(text.clone()).unwrap();
    assert_eq!(spec.priority, DEFAULT_PRIORITY);
    let mut written = serde_json::to_value(&spec).unwrap();
    assert_eq!(written["priority"].take(), DEFAULT_PRIORITY);
    written.as_object_mut().unwrap().remove("priority");
    assert_eq!(written, text);
}

#[test]
fn a_selector_matches_as_those_of_kubernetes_do() {
    let selector = |text: Value| serde_json::from_value::<Selector>(text).unwrap();
    let labels = [("app", "web"), ("tier", "front")].map(|(key, value)| (key.into(), value.into()));
    let labels = labels.into_iter().collect();
    let one = |key: &str, operator: &str, values: Value| {
        selector(
            json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]}),
        )
    };
    for (selector, expected) in [
        (Selector::default(), true),
        (selector(json!({"matchLabels": {"app": "web"}})), true),
        (selector(json!({"matchLabels": {"app": "web", "tier": "back"}})), false),
        (one("app", "In", json!(["web", "api"])), true),
        (one("zone", "In", json!(["a"])), false),
        (one("zone", "NotIn", json!(["a"])), true),
        (one("app", "NotIn", json!(["web"])), false),
        (one("app", "Exists", json!([])), true),
        (one("zone", "DoesNotExist", json!([])), true),
    ] {
        assert_eq!(selector.matches(&labels), expected, "{selector:?}");
    }
}
