//! Kubernetes' own `NetworkPolicy` and NeuVector's objects as rules of ours, where that means the same.

use std::collections::BTreeMap;

use outrider_api::{
    Workload,
    code::{API_VERSION, NEUVECTOR_KINDS, Translated, from_neuvector, names_services},
};
use serde_json::{Value, json};

/// Objects of ours, with what has to be said of those that were none.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Ours {
    pub(super) objects: Vec<Value>,
    /// What came of another kind, and what is else there.
    pub(super) notes: Vec<String>,
    /// What can't be said in rules, by object.
    pub(super) refused: Vec<String>,
}

/// Whether objects can only be translated by who knows the pods of services.
pub(super) fn need_workloads(objects: &[Value]) -> bool {
    objects
        .iter()
        .any(|one| is_neuvectors(one) && names_services(one))
}

/// Takes objects of ours as they are and makes rules of those of others.
pub(super) fn ours(objects: Vec<Value>, workloads: &[Workload]) -> Ours {
    let (definitions, objects): (Vec<_>, Vec<_>) = objects
        .into_iter()
        .partition(|one| one["kind"] == "NvGroupDefinition");
    let definitions: BTreeMap<_, _> = definitions
        .iter()
        .map(|one| (text(&one["metadata"]["name"]), one["spec"]["selector"]["criteria"].clone()))
        .collect();
    let mut ours = Ours::default();
    for object in objects {
        if object["kind"] == "NetworkPolicy" {
            ours.network_policy(&object);
        } else if is_neuvectors(&object) {
            ours.neuvectors(&object, from_neuvector(&object, &definitions, workloads));
        } else {
            ours.objects.push(object);
        }
    }
    ours
}

fn is_neuvectors(object: &Value) -> bool {
    object["kind"]
        .as_str()
        .is_some_and(|kind| NEUVECTOR_KINDS.contains(&kind))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl Ours {
    fn network_policy(&mut self, object: &Value) {
        let meta = &object["metadata"];
        let (namespace, name) = (text(&meta["namespace"]), text(&meta["name"]));
        match rules(&object["spec"], (&namespace, &name)) {
            Ok(made) => {
                self.objects.extend(made);
                self.notes.push(format!(
                    "NetworkPolicy/{namespace}/{name} becomes NetworkRules, {name} and {name}-rest; they refuse where the \
                     pods are in Protect"
                ));
            }
            Err(why) => self
                .refused
                .push(format!("NetworkPolicy/{namespace}/{name}: {why}")),
        }
    }

    fn neuvectors(&mut self, object: &Value, made: Translated) {
        let meta = &object["metadata"];
        let name = [&object["kind"], &meta["namespace"], &meta["name"]].map(text);
        let name = name.iter().filter(|part| !part.is_empty());
        let name = name.map(String::as_str).collect::<Vec<_>>().join("/");
        let Translated { objects, notes, refused } = made;
        let line = |said: &String| format!("{name}: {said}");
        self.notes.extend(notes.iter().map(line));
        self.refused.extend(refused.iter().map(line));
        let names = |object: &Value| {
            format!("{}/{}", text(&object["kind"]), text(&object["metadata"]["name"]))
        };
        if !objects.is_empty() {
            let names: Vec<_> = objects.iter().map(names).collect();
            self.notes
                .push(format!("{name} becomes {}", names.join(", ")));
        } else if refused.is_empty() {
            self.notes.push(format!("{name} says nothing about flows"));
        }
        self.objects.extend(objects);
    }
}

/// The rules that allow, and behind them what becomes of the rest: in a direction that the policy is about it is refused,
/// in the other one it passes. Several policies for one pod allow what any of them does, as they should: `-rest` comes
/// last, and Deny before Allow.
fn rules(spec: &Value, (namespace, name): (&str, &str)) -> Result<Vec<Value>, String> {
    let isolates = |way: &str, otherwise: bool| match spec["policyTypes"].as_array() {
        Some(types) => types.iter().any(|one| {
            one.as_str()
                .is_some_and(|one| one.eq_ignore_ascii_case(way))
        }),
        None => otherwise,
    };
    let isolated = [
        ("ingress", isolates("ingress", true)),
        ("egress", isolates("egress", !spec["egress"].is_null())),
    ];
    let target = json!({ "podSelector": spec["podSelector"] });
    let (mut allow, mut rest) =
        (json!({ "target": target }), json!({ "target": target, "priority": 0 }));
    for (way, is_isolated) in isolated {
        rest[way] = json!([match is_isolated {
            true =>
                json!({ "name": format!("no-other-{way}"), "action": "Deny", "ports": ["tcp/any", "udp/any", "sctp/any"] }),
            false => json!({ "name": format!("any-{way}"), "action": "Allow" }),
        }]);
        if !is_isolated {
            continue;
        }
        let mut entries = Vec::new();
        if way == "ingress" {
            // Whoever implements a NetworkPolicy lets the pod's own node in.
            entries
                .push(json!({ "name": "nodes", "action": "Allow", "peers": [{ "nodes": true }] }));
        }
        for (at, rule) in spec[way].as_array().into_iter().flatten().enumerate() {
            entries.push(entry(rule, way, at).map_err(|why| format!("spec.{way}[{at}].{why}"))?);
        }
        allow[way] = entries.into();
    }
    let object = |name: String, spec: Value| {
        json!({
            "apiVersion": API_VERSION, "kind": "NetworkRule",
            "metadata": { "name": name, "namespace": namespace },
            "spec": spec,
        })
    };
    let allows = isolated
        .iter()
        .any(|(way, _)| allow[way].as_array().is_some_and(|all| !all.is_empty()));
    let allow = allows.then(|| object(name.to_owned(), allow));
    Ok(allow
        .into_iter()
        .chain([object(format!("{name}-rest"), rest)])
        .collect())
}

fn entry(rule: &Value, way: &str, at: usize) -> Result<Value, String> {
    let side = if way == "ingress" { "from" } else { "to" };
    let mut entry = json!({ "name": format!("{way}-{at}"), "action": "Allow" });
    let list = |name: &str| rule[name].as_array().cloned().unwrap_or_default();
    let (mut peers, mut ports) = (Vec::new(), Vec::new());
    for (at, one) in list(side).iter().enumerate() {
        peers.push(peer(one).map_err(|why| format!("{side}[{at}]{why}"))?);
    }
    for (at, one) in list("ports").iter().enumerate() {
        ports.push(port(one).map_err(|why| format!("ports[{at}]{why}"))?);
    }
    for (name, list) in [("peers", peers), ("ports", ports)] {
        if !list.is_empty() {
            entry[name] = list.into();
        }
    }
    Ok(entry)
}

fn peer(one: &Value) -> Result<Value, String> {
    let block = &one["ipBlock"];
    if block.is_null() {
        return Ok(one.clone());
    }
    match block["except"].as_array() {
        Some(except) if !except.is_empty() => {
            Err(".ipBlock.except: a rule has no exceptions; write the networks that are left"
                .into())
        }
        _ => Ok(json!({ "cidr": block["cidr"] })),
    }
}

fn port(one: &Value) -> Result<Value, String> {
    let protocol = one["protocol"]
        .as_str()
        .unwrap_or("TCP")
        .to_ascii_lowercase();
    let range = match (&one["port"], &one["endPort"]) {
        (Value::Null, _) => "any".to_owned(),
        (Value::Number(port), Value::Null) => port.to_string(),
        (Value::Number(port), Value::Number(end)) => format!("{port}-{end}"),
        (other, _) => {
            return Err(format!(
                ".port: {other} is a name that only its pods know; write the number"
            ));
        }
    };
    Ok(format!("{protocol}/{range}").into())
}

#[cfg(test)]
mod tests {
    use outrider_api::code;

    use super::*;

    fn made(spec: &str) -> Ours {
        let text = format!(
            "kind: NetworkPolicy\napiVersion: networking.k8s.io/v1\nmetadata: {{name: web, namespace: shop}}\nspec: {spec}\n"
        );
        ours(code::read(&text).unwrap(), &[])
    }

    #[test]
    fn a_network_policy_allows_what_it_says_and_refuses_the_rest_of_its_direction() {
        let found = made(
            "{podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {}}, \
             {ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: 80}, {protocol: UDP, port: 53, endPort: 60}, {protocol: SCTP}]}, {}]}",
        );
        assert_eq!((found.refused.len(), found.notes.len()), (0, 1));
        let [allow, rest] = found.objects.as_slice() else { panic!("{:?}", found.objects) };
        let expected = json!([
            { "name": "nodes", "action": "Allow", "peers": [{ "nodes": true }] },
            {
                "name": "ingress-0", "action": "Allow",
                "peers": [{ "podSelector": {} }, { "cidr": "10.0.0.0/8" }],
                "ports": ["tcp/80", "udp/53-60", "sctp/any"],
            },
            { "name": "ingress-1", "action": "Allow" },
        ]);
        assert_eq!(allow["spec"]["ingress"], expected);
        assert_eq!(allow["spec"]["egress"], Value::Null);
        assert_eq!(rest["metadata"]["name"], "web-rest");
        let actions = ["ingress", "egress"].map(|way| &rest["spec"][way][0]["action"]);
        assert_eq!(actions, ["Deny", "Allow"]);
        assert_eq!(rest["spec"]["priority"], 0);
    }

    #[test]
    fn what_has_no_words_is_refused_by_name() {
        let named = made("{podSelector: {}, ingress: [{ports: [{port: http}]}]}");
        let why = "NetworkPolicy/shop/web: spec.ingress[0].ports[0].port: \"http\" is a name";
        assert!(named.refused[0].starts_with(why), "{:?}", named.refused);
        let closed = made("{podSelector: {}, policyTypes: [Egress]}").objects;
        assert_eq!(closed.len(), 1, "nothing is allowed: {closed:?}");
        let except = made(
            "{podSelector: {}, egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]}]}",
        );
        assert!(
            except.refused[0].contains("spec.egress[0].to[0].ipBlock.except"),
            "{:?}",
            except.refused
        );
        assert_eq!(
            ours(vec![json!({ "kind": "WorkloadMode" })], &[])
                .objects
                .len(),
            1
        );
    }

    #[test]
    fn neuvectors_objects_are_named_with_what_becomes_of_them() {
        let text = "kind: NvSecurityRule\nmetadata: {name: web, namespace: shop}\nspec:\n  target:\n    policymode: Protect\n    \
            selector: {name: web, name_referral: true}\n  process: [{name: sh, action: deny}]\n---\nkind: NvGroupDefinition\n\
            metadata: {name: web, namespace: neuvector}\nspec: {selector: {name: web, criteria: [{key: domain, op: \"=\", value: shop}]}}\n";
        let found = ours(code::read(text).unwrap(), &[]);
        assert_eq!(found.objects.len(), 1, "{found:?}");
        let notes = [
            "NvSecurityRule/shop/web: spec.process[0] is left out: processes are not controlled",
            "NvSecurityRule/shop/web becomes WorkloadMode/web",
        ];
        assert_eq!(found.notes, notes);
        let unknown =
            text.replace("metadata: {name: web, namespace: neuvector}", "metadata: {name: other}");
        let found = ours(code::read(&unknown).unwrap(), &[]);
        assert!(
            found.refused[0]
                .starts_with("NvSecurityRule/shop/web: spec.target.selector.name_referral")
        );
        assert!(found.objects.is_empty());
        let service = json!({ "kind": "NvSecurityRule", "spec": { "x": [{ "key": "service" }] } });
        assert!(need_workloads(&[service]));
        assert!(!need_workloads(&code::read(text).unwrap()));
    }
}
