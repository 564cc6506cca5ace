//! What was learned as three kinds of objects, byte for byte, and what has no words in them.

use std::{collections::BTreeMap, fs, path::Path};

use super::*;
use crate::{Evidence, code};

fn workload(name: &str, group: &str, mode: &str, labels: &[(&str, &str)]) -> Workload {
    let labels = labels
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    Workload {
        name: name.into(),
        group: group.into(),
        mode: mode.into(),
        labels: labels.collect::<BTreeMap<_, _>>(),
        ..Workload::default()
    }
}

fn rule(from: &str, to: &str, app: &str, ports: &str, sessions: u64) -> Rule {
    Rule {
        id: 10_001,
        from: from.into(),
        to: to.into(),
        app: app.into(),
        ports: ports.into(),
        action: "allow".into(),
        learned: true,
        origin: None,
        evidence: Evidence { sessions, last_seen: 1_795_667_280, ..Evidence::default() },
    }
}

fn learned() -> (Vec<Rule>, Vec<Workload>) {
    let web = |pod: &str, hash: &str| {
        let labels = [("app", "web"), ("pod-template-hash", hash), ("tier", "front")];
        workload(pod, "nv.web.shop", "protect", &labels)
    };
    let workloads = vec![
        web("shop/web-1", "a"),
        web("shop/web-2", "b"),
        workload("shop/cache-0", "nv.cache.v2.shop", "discover", &[("app", "cache")]),
        workload("ops/prom", "nv.prom.ops", "monitor", &[("app", "web"), ("on", "yes")]),
        workload("ops/bare", "nv.bare.ops", "discover", &[]),
    ];
    let by_client = Evidence { by_client: true, sessions: 4, ..Evidence::default() };
    let rules = vec![
        rule("nv.web.shop", "nv.cache.v2.shop", "Redis", "tcp/6379", 12),
        rule("nv.prom.ops", "nv.web.shop", "HTTP", "tcp/8080", 1),
        rule("nv.prom.ops", "nv.web.shop", "SSL", "tcp/8080", 7),
        rule("external", "nv.web.shop", "unknown", "tcp/9000", 5),
        rule("nv.web.shop", "external", "any", "udp", 0),
        rule("Workload:10.0.0.77", "nv.web.shop", "SSH", "tcp/22", 3),
        rule("nodes", "nv.web.shop", "unknown", "icmp", 5),
        rule("nodes", "nv.web.shop", "unknown", "icmpv6", 5),
        rule("Workload:ingress", "nv.web.shop", "HTTP", "tcp/8080", 3),
        rule("databases", "nv.cache.v2.shop", "Redis", "tcp/6379", 3),
        rule("nv.bare.ops", "nv.cache.v2.shop", "Redis", "tcp/6379", 3),
        Rule { evidence: by_client, ..rule("nv.web.shop", "nv.prom.ops", "GRPC", "tcp/9090", 4) },
        Rule { learned: false, ..rule("any", "nv.web.shop", "any", "any", 0) },
    ];
    (rules, workloads)
}

#[test]
fn the_three_forms_are_what_the_golden_files_have() {
    let (rules, workloads) = learned();
    let (mut backward, mut away) = (rules.clone(), workloads.clone());
    backward.reverse();
    away.reverse();
    for (form, file) in [
        (Form::Outrider, "outrider"),
        (Form::NeuVector, "neuvector"),
        (Form::NetworkPolicy, "networkpolicy"),
    ] {
        let made = export(&rules, &workloads, form, None);
        assert_eq!(made, export(&backward, &away, form, None), "{file}: the order is ours");
        let notes: String = made
            .left_out
            .iter()
            .map(|note| format!("# {note}\n"))
            .collect();
        let text = format!("{notes}---\n{}", code::write(&made.objects));
        let plain: Vec<_> = made.objects.iter().map(code::plain).collect();
        assert_eq!(code::read(&text).unwrap(), plain, "{file} reads as it was written");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{file}.yaml"));
        if std::env::var_os("OUTRIDER_WRITE_GOLDEN").is_some() {
            fs::write(&path, &text).unwrap();
        }
        let golden = fs::read_to_string(&path).unwrap_or_default();
        assert!(text == golden, "{file}: OUTRIDER_WRITE_GOLDEN=1 writes it anew\n{text}");
    }
}

#[test]
fn a_mode_may_be_given_for_all() {
    let (rules, workloads) = learned();
    let made = export(&rules, &workloads, Form::Outrider, Some("protect"));
    let modes: Vec<_> = made
        .objects
        .iter()
        .filter(|one| one["kind"] == "WorkloadMode")
        .map(|one| one["spec"]["mode"].as_str().unwrap())
        .collect();
    assert_eq!(modes, ["Protect"; 3]);
}

#[test]
fn an_object_with_more_rules_than_it_may_have_is_several() {
    let workloads = [workload("shop/web", "nv.web.shop", "discover", &[("app", "web")])];
    let rules: Vec<_> = (1..=130)
        .map(|port| rule("external", "nv.web.shop", "HTTP", &format!("tcp/{port}"), 1))
        .collect();
    let made = export(&rules, &workloads, Form::Outrider, None).objects;
    let of = |kind: &'static str| made.iter().filter(move |one| one["kind"] == kind);
    let sizes: Vec<_> = of("NetworkRule")
        .map(|one| {
            let name = one["metadata"]["name"].as_str().unwrap();
            (name, one["spec"]["ingress"].as_array().unwrap().len())
        })
        .collect();
    assert_eq!(sizes, [("web", 64), ("web-2", 64), ("web-3", 2)]);
    assert_eq!(of("WorkloadMode").count(), 1);
}

#[test]
fn names_are_made_of_letters_that_may_be_and_of_none_twice() {
    for (text, expected) in
        [("from-Web.v2-tcp/80", "from-web-v2-tcp-80"), ("::1", "1"), ("ä", "unnamed"), ("a--", "a")]
    {
        assert_eq!(name(text, MAX_NAME), expected);
    }
    let mut taken = BTreeSet::new();
    let long = "x".repeat(80);
    assert_eq!(free(&mut taken, &long).len(), MAX_NAME);
    let second = free(&mut taken, &long);
    assert!(second.len() == MAX_NAME && second.ends_with("x-2"), "{second}");
}

#[test]
fn labels_that_others_have_too_select_nobody() {
    let workloads = [
        workload("shop/a-1", "nv.a.shop", "discover", &[("app", "x")]),
        workload("shop/b-1", "nv.b.shop", "discover", &[("app", "x"), ("tier", "back")]),
    ];
    let rules = [rule("nv.b.shop", "nv.a.shop", "HTTP", "tcp/80", 3)];
    let made = export(&rules, &workloads, Form::Outrider, None);
    let kinds: Vec<_> = made.objects.iter().map(|one| &one["kind"]).collect();
    assert_eq!(kinds, ["WorkloadMode"]);
    let why = "rules of nv.a.shop are left out: the labels of nv.a.shop are those of nv.b.shop too";
    assert_eq!(made.left_out, [why]);
}
