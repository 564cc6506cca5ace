use super::{super::read, *};

fn workload(service: &str, label: &str) -> Workload {
    let labels = [("app", label), ("pod-template-hash", "1")];
    Workload {
        uid: service.into(),
        name: format!("shop/{service}-0"),
        group: format!("nv.{service}.shop"),
        labels: labels.map(|(key, value)| (key.into(), value.into())).into(),
        ..Workload::default()
    }
}

fn translate(text: &str) -> Translated {
    let all = read(text).unwrap();
    from_neuvector(&all[0], &BTreeMap::new(), &[workload("cart", "cart"), workload("web", "web")])
}

/// A rule about cart with these fields, and this list of rules in `ingress`.
fn about_cart(more: &str, ingress: &str) -> Translated {
    translate(&format!(
        r#"
apiVersion: neuvector.com/v1
kind: NvSecurityRule
metadata: {{name: nv.cart.shop, namespace: shop}}
spec:
  target:
    policymode: Monitor
    selector:
      name: nv.cart.shop
      criteria: [{{key: service, op: "=", value: cart.shop}}, {{key: domain, op: "=", value: shop}}]
  ingress: {ingress}
{more}"#
    ))
}

fn rule(fields: &str) -> String {
    format!("[{{name: Rule.1, action: allow, applications: [any], ports: any, {fields}}}]")
}

#[test]
fn a_rule_of_a_service_becomes_a_rule_and_a_mode() {
    let found = about_cart(
        "  egress:\n  - {name: out, action: deny, applications: [http, SSL], ports: 'tcp/80,443 1000-2000 udp/any icmp', \
         priority: 9, selector: {name: external, criteria: []}}",
        &rule(
            "priority: 10, selector: {name: nv.web.shop, criteria: [{key: service, op: '=', value: web.shop}, {key: domain, op: '=', value: shop}]}",
        ),
    );
    assert_eq!(found.refused, [""; 0]);
    assert_eq!(found.notes.len(), 1, "{:?}", found.notes);
    let [mode, out, inward] = found.objects.as_slice() else { panic!("{found:?}") };
    let cart =
        json!({ "matchExpressions": [{ "key": "app", "operator": "In", "values": ["cart"] }] });
    assert_eq!(mode["kind"], "WorkloadMode");
    assert_eq!(mode["metadata"], json!({ "name": "nv-cart-shop", "namespace": "shop" }));
    assert_eq!(mode["spec"], json!({ "podSelector": cart, "mode": "Monitor" }));
    assert_eq!(inward["kind"], "NetworkRule");
    assert_eq!(inward["metadata"]["name"], "nv-cart-shop-10");
    let web = json!({ "key": "app", "operator": "In", "values": ["web"] });
    let shop =
        json!({ "key": "kubernetes.io/metadata.name", "operator": "In", "values": ["shop"] });
    assert_eq!(
        inward["spec"],
        json!({ "priority": 10, "target": { "podSelector": cart }, "ingress": [{
            "name": "rule-1", "action": "Allow", "peers": [{
                "namespaceSelector": { "matchExpressions": [shop] },
                "podSelector": { "matchExpressions": [web] },
            }],
        }] })
    );
    assert_eq!(
        out["spec"]["egress"],
        json!([{
            "name": "out", "action": "Deny", "peers": [{ "external": true }], "applications": ["HTTP", "SSL"],
            "ports": ["tcp/80", "tcp/443", "tcp/1000-2000", "udp/any", "icmp"],
        }])
    );
}

#[test]
fn criteria_become_selectors() {
    for (criteria, peers) in [
        (
            "{key: app, op: '=', value: a}, {key: app, op: '=', value: b}",
            json!([{ "namespaceSelector": {}, "podSelector": { "matchExpressions": [
                { "key": "app", "operator": "In", "values": ["a", "b"] }] } }]),
        ),
        (
            "{key: app, op: '=', value: a}, {key: tier, op: '=', value: b}",
            json!([
                { "namespaceSelector": {}, "podSelector": { "matchExpressions": [
                    { "key": "app", "operator": "In", "values": ["a"] }] } },
                { "namespaceSelector": {}, "podSelector": { "matchExpressions": [
                    { "key": "tier", "operator": "In", "values": ["b"] }] } },
            ]),
        ),
        (
            "{key: app, op: '!=', value: a}, {key: tier, op: '!=', value: b}, {key: 'ns:team', op: '=', value: ops}",
            json!([{
                "namespaceSelector": { "matchExpressions": [{ "key": "team", "operator": "In", "values": ["ops"] }] },
                "podSelector": { "matchExpressions": [
                    { "key": "app", "operator": "NotIn", "values": ["a"] },
                    { "key": "tier", "operator": "NotIn", "values": ["b"] }] },
            }]),
        ),
        (
            "{key: service, op: '=', value: web.shop}",
            json!([{
                "namespaceSelector": { "matchExpressions": [
                    { "key": "kubernetes.io/metadata.name", "operator": "In", "values": ["shop"] }] },
                "podSelector": { "matchExpressions": [{ "key": "app", "operator": "In", "values": ["web"] }] },
            }]),
        ),
        ("{key: container, op: '=', value: '*'}", json!([{ "namespaceSelector": {} }])),
        (
            "{key: address, op: '=', value: 10.0.0.0/8}, {key: address, op: '=', value: 'fd00::1'}",
            json!([{ "cidr": "10.0.0.0/8" }, { "cidr": "fd00::1" }]),
        ),
    ] {
        let found =
            about_cart("", &rule(&format!("selector: {{name: x, criteria: [{criteria}]}}")));
        assert_eq!(found.refused, [""; 0], "{criteria}");
        assert_eq!(found.objects[1]["spec"]["ingress"][0]["peers"], peers, "{criteria}");
    }
}

#[test]
fn what_has_no_words_is_refused_by_its_field() {
    let selector = |criteria: &str| rule(&format!("selector: {{name: x, criteria: [{criteria}]}}"));
    for (ingress, why) in [
        (
            selector("{key: app, op: prefix, value: a}"),
            "spec.ingress[0].selector.criteria[0]: app prefix a: ",
        ),
        (selector("{key: app, op: '=', value: 'a*'}"), "a selector has no patterns"),
        (selector("{key: image, op: '=', value: a}"), "selected by namespace and label"),
        (
            selector("{key: app, op: '=', value: a}, {key: app, op: '!=', value: b}"),
            "criteria[1]: app != b: either all",
        ),
        (
            selector("{key: address, op: '=', value: 10.0.0.1-10.0.0.9}"),
            "write a range as networks",
        ),
        (selector("{key: address, op: '=', value: x.example}"), "egress only"),
        (selector("{key: service, op: '=', value: gone.shop}"), "no pod of nv.gone.shop is known"),
        (selector("{key: app, op: '='}"), "criteria[0]: key, op and value must be texts"),
        (selector(""), ".criteria: there are none"),
        (
            rule("selector: {name: 'Workload:ingress', criteria: []}"),
            "spec.ingress[0].selector.name: ",
        ),
        (
            rule("selector: {name: fed.x, criteria: [{key: app, op: '=', value: a}]}"),
            "fed.x is no group",
        ),
        (
            rule(
                "selector: {name: nv.ip.web.shop, criteria: [{key: domain, op: '=', value: shop}]}",
            ),
            "nv.ip.web.shop is no group",
        ),
        (rule("selector: {name: x, name_referral: true}"), "no NvGroupDefinition x"),
        (
            "[{name: a, action: allow, ports: tcp/x, selector: {name: external}}]".into(),
            "spec.ingress[0].ports: \"tcp/x\"",
        ),
        (
            "[{name: a, action: allow, applications: [Quake], selector: {name: external}}]".into(),
            "applications[0]: \"Quake\"",
        ),
        ("[{name: a, action: log, selector: {name: external}}]".into(), "spec.ingress[0].action: "),
    ] {
        let found = about_cart("", &ingress);
        assert!(found.refused.iter().any(|said| said.contains(why)), "{why}: {found:?}");
        assert!(found.objects.is_empty(), "all of it or nothing");
    }
    let many: Vec<_> = (0..MAX_ENTRIES + 1)
        .map(|at| format!("{{name: r{at}, action: allow, selector: {{name: external}}}}"))
        .collect();
    let many = about_cart("", &format!("[{}]", many.join(",")));
    assert!(many.refused[0].contains("65 rules of priority 0"), "{:?}", many.refused);
    let ends: Vec<_> = (0..33)
        .map(|at| format!("{{key: l{at}, op: '=', value: a}}"))
        .collect();
    let ends = about_cart("", &selector(&ends.join(",")));
    assert!(ends.refused[0].contains("stand for 33 ends"), "{:?}", ends.refused);
}

#[test]
fn what_is_not_about_flows_is_left_out_line_by_line() {
    let more = "  process: [{name: sh}, {name: ls}]\n  process_profile: {baseline: shield}\n  dlp: {status: true}\n  file: []\n";
    let found = about_cart(more, "[]");
    let fields = found.notes.iter().filter_map(|note| note.split(' ').next());
    let expected = ["spec.process[0]", "spec.process[1]", "spec.process_profile", "spec.dlp"];
    assert_eq!(fields.collect::<Vec<_>>(), expected);
    assert_eq!(found.objects.len(), 1, "the mode is left: {found:?}");
}

#[test]
fn deny_behind_allow_of_the_same_priority_is_said() {
    let external = "applications: [any], selector: {name: external}";
    let found = about_cart(
        "",
        &format!("[{{name: a, action: allow, {external}}}, {{name: b, action: deny, {external}}}]"),
    );
    assert!(
        found
            .notes
            .iter()
            .any(|note| note.starts_with("spec.ingress[1]: of equal priority"))
    );
}

#[test]
fn rules_of_the_cluster_are_about_pods_of_namespaces() {
    let cluster = |name: &str, criteria: &str| {
        translate(&format!(
            "kind: NvClusterSecurityRule\nmetadata: {{name: all}}\nspec:\n  target: {{selector: {{name: {name}, criteria: [{criteria}]}}}}\n  \
             egress: [{{name: a, action: deny, selector: {{name: nodes}}}}]\n"
        ))
    };
    let found = cluster("containers", "{key: container, op: '=', value: '*'}");
    assert_eq!(found.objects[0]["kind"], "ClusterNetworkRule");
    assert_eq!(found.objects[0]["spec"]["target"], Value::Null, "all of them");
    let found = cluster("x", "{key: domain, op: '!=', value: kube-system}");
    let namespaces = json!({ "matchExpressions": [
        { "key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system"] }] });
    assert_eq!(found.objects[0]["spec"]["target"], json!({ "namespaceSelector": namespaces }));
    assert!(cluster("nodes", "").refused[0].contains("nodes is no group of pods"));
    let foreign = translate(
        "kind: NvSecurityRule\nmetadata: {name: a, namespace: shop}\nspec: {target: {selector: {name: x, criteria: [{key: domain, op: '=', value: other}]}}}\n",
    );
    assert!(foreign.refused[0].contains("must have the criterion domain = shop"));
}
