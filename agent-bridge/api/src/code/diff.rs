//! What differs between two policies, rule by rule: order, spelling and what goes without saying do not count.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde::Serialize;
use serde_json::{Value, json};

/// The priority of an object that gives none.
const DEFAULT_PRIORITY: u64 = 50;

/// What became of a rule, or of an object that has none.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// Only the second policy has it.
    Added,
    /// Only the first one has it.
    Removed,
    /// It says something else.
    Changed,
}

/// A rule, group or mode that is not the same in both.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// What became of it.
    pub change: Change,
    /// Which: `NetworkRule/shop/web ingress from-front`.
    pub what: String,
    /// What it says in the first policy, of that which differs.
    pub before: BTreeMap<String, Value>,
    /// What it says in the second one.
    pub after: BTreeMap<String, Value>,
}

/// What one rule, group or mode says, in a form that is the same whenever the meaning is.
type Says = BTreeMap<String, Value>;

/// Compares two policies; differences are in order of kind, namespace, name and rule.
#[must_use]
pub fn diff(before: &[Value], after: &[Value]) -> Vec<Difference> {
    let (before, after) = (parts(before), parts(after));
    let all: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let one = |what: &String| {
        let (before, after) = (before.get(what), after.get(what));
        if before == after {
            return None;
        }
        let change = match (before, after) {
            (None, _) => Change::Added,
            (_, None) => Change::Removed,
            _ => Change::Changed,
        };
        let differs = |own: Option<&Says>, other: Option<&Says>| -> Says {
            let own = own.into_iter().flatten();
            own.filter(|(field, value)| other.and_then(|other| other.get(*field)) != Some(*value))
                .map(|(field, value)| (field.clone(), value.clone()))
                .collect()
        };
        let what = what.clone();
        Some(Difference {
            change,
            what,
            before: differs(before, after),
            after: differs(after, before),
        })
    };
    all.into_iter().filter_map(one).collect()
}

fn parts(objects: &[Value]) -> BTreeMap<String, Says> {
    let mut parts = BTreeMap::new();
    let mut enter = |what: String, says: Says| {
        // Of two with one name, which nobody accepts, none hides the other.
        let twice = (2u32..).map(|number| format!("{what} ({number})"));
        let mut names = std::iter::once(what.clone()).chain(twice);
        if let Some(free) = names.find(|name| !parts.contains_key(name)) {
            parts.insert(free, says);
        }
    };
    for object in objects {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let names =
            [&object["kind"], &object["metadata"]["namespace"], &object["metadata"]["name"]];
        let names: Vec<_> = names
            .into_iter()
            .map(text)
            .filter(|part| !part.is_empty())
            .collect();
        let (what, spec) = (names.join("/"), &object["spec"]);
        let ways = ["ingress", "egress"].map(|way| (way, spec[way].as_array()));
        if !text(&object["kind"]).ends_with("NetworkRule") {
            enter(what, says(spec));
            continue;
        }
        for (way, entries) in ways {
            for entry in entries.into_iter().flatten() {
                let mut says = says(entry);
                says.remove("name");
                says.insert("target".into(), target(&spec["target"]));
                let priority = spec.get("priority").filter(|priority| !priority.is_null());
                says.insert(
                    "priority".into(),
                    priority.cloned().unwrap_or(json!(DEFAULT_PRIORITY)),
                );
                enter(format!("{what} {way} {}", text(&entry["name"])), says);
            }
        }
    }
    parts
}

/// The members of a spec or of a rule.
fn says(value: &Value) -> Says {
    let members = value.as_object().into_iter().flatten();
    members
        .map(|(key, value)| (key.clone(), same(key, value)))
        .filter(|(_, value)| !is_nothing(value))
        .collect()
}

/// Whose flows it is about: an empty selector of pods is that of all.
fn target(value: &Value) -> Value {
    let target = same("target", value);
    let is_all = target == json!({ "podSelector": {} }) || target.is_null();
    if is_all { json!({}) } else { target }
}

fn is_nothing(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}

/// The same meaning in the same form.
fn same(key: &str, value: &Value) -> Value {
    match value {
        Value::Object(members) => members
            .iter()
            .map(|(key, value)| (key.clone(), same(key, value)))
            .filter(|(_, value)| !is_nothing(value))
            .collect(),
        Value::Array(items) => {
            let items: BTreeMap<_, _> = items
                .iter()
                .map(|item| same(key, item))
                .map(|item| (item.to_string(), item))
                .collect();
            let is_any = key == "ports" && items.values().any(|item| item == "any");
            if is_any { json!([]) } else { items.into_values().collect() }
        }
        Value::String(text) if matches!(key, "cidr" | "cidrs") => network(text).into(),
        Value::String(text) if matches!(key, "name" | "names") => {
            text.trim_end_matches('.').to_ascii_lowercase().into()
        }
        other => other.clone(),
    }
}

/// A network with its own first address and its length, or the text if it is none.
fn network(text: &str) -> String {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, length.parse::<u32>().ok()),
        None => (text, Some(128)),
    };
    match (address.parse::<IpAddr>(), length) {
        (Ok(IpAddr::V4(address)), Some(length)) => {
            let length = length.min(32);
            let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
            format!("{}/{length}", std::net::Ipv4Addr::from(u32::from(address) & mask))
        }
        (Ok(IpAddr::V6(address)), Some(length)) => {
            let length = length.min(128);
            let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
            format!("{}/{length}", std::net::Ipv6Addr::from(u128::from(address) & mask))
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::read;

    fn compared(before: &str, after: &str) -> Vec<(Change, String)> {
        let (before, after) = (read(before).unwrap(), read(after).unwrap());
        diff(&before, &after)
            .into_iter()
            .map(|one| (one.change, one.what))
            .collect()
    }

    const RULE: &str = "
kind: NetworkRule
metadata: {name: web, namespace: shop}
spec:
  ingress:
  - {name: a, action: Allow, peers: [{cidr: 10.1.2.3/8}, {name: API.example.com.}], ports: [tcp/80, tcp/81]}
  - {name: b, action: Deny}
";

    #[test]
    fn what_means_the_same_is_the_same() {
        let other = "
kind: List
items:
- spec:
    priority: 50
    target: {podSelector: {}}
    egress: []
    ingress:
    - {action: Deny, name: b, ports: [any], applications: []}
    - {ports: [tcp/81, tcp/80, tcp/80], action: Allow, peers: [{name: api.example.com}, {cidr: 10.0.0.0/8}], name: a}
  metadata: {name: web, namespace: shop, labels: {a: b}}
  kind: NetworkRule
";
        assert_eq!(compared(RULE, other), []);
        for (text, expected) in [
            ("10.0.0.1", "10.0.0.1/32"),
            ("0.0.0.1/0", "0.0.0.0/0"),
            ("fd00::1/64", "fd00::/64"),
            ("::1", "::1/128"),
            ("x/y", "x/y"),
        ] {
            assert_eq!(network(text), expected);
        }
    }

    #[test]
    fn every_rule_that_differs_is_named_with_what_differs() {
        let other = RULE
            .replace("tcp/81", "tcp/82")
            .replace("name: b", "name: c");
        let (before, after) = (read(RULE).unwrap(), read(&other).unwrap());
        let found = diff(&before, &after);
        let names: Vec<_> = found
            .iter()
            .map(|one| (one.change, one.what.as_str()))
            .collect();
        assert_eq!(
            names,
            [
                (Change::Changed, "NetworkRule/shop/web ingress a"),
                (Change::Removed, "NetworkRule/shop/web ingress b"),
                (Change::Added, "NetworkRule/shop/web ingress c"),
            ]
        );
        assert_eq!(
            found[0].after,
            BTreeMap::from([("ports".to_owned(), json!(["tcp/80", "tcp/82"]))])
        );
        let later = RULE.replace("spec:", "spec:\n  priority: 60");
        assert_eq!(compared(RULE, &later).len(), 2, "a priority is each rule's");
        let mode = "kind: WorkloadMode\nmetadata: {name: all}\nspec: {mode: Protect}";
        let looser = mode.replace("Protect", "Monitor");
        assert_eq!(compared(mode, &looser), [(Change::Changed, "WorkloadMode/all".to_owned())]);
        assert_eq!(
            compared(mode, &format!("{mode}\n---\n{mode}")).len(),
            1,
            "none hides the other"
        );
    }
}
