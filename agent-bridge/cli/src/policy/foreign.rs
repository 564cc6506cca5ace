//! Kubernetes' own `NetworkPolicy` as rules of ours, where that means the same.

use outrider_api::code::API_VERSION;
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

/// Takes objects of ours as they are and makes rules of every `NetworkPolicy`.
pub(super) fn ours(objects: Vec<Value>) -> Ours {
    let mut ours = Ours::default();
    for object in objects {
        if object["kind"] != "NetworkPolicy" {
            ours.objects.push(object);
            continue;
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let meta = &object["metadata"];
        let (namespace, name) = (text(&meta["namespace"]), text(&meta["name"]));
        match rules(&object["spec"], (&namespace, &name)) {
            Ok(made) => {
                ours.objects.extend(made);
                ours.notes.push(format!(
                    "NetworkPolicy/{namespace}/{name} becomes NetworkRules, {name} and {name}-rest; they refuse where the \
                     pods are in Protect"
                ));
            }
            Err(why) => ours
                .refused
                .push(format!("NetworkPolicy/{namespace}/{name}: {why}")),
        }
    }
    ours
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
        ours(code::read(&text).unwrap())
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
        assert_eq!(ours(vec![json!({ "kind": "WorkloadMode" })]).objects.len(), 1);
    }
}
