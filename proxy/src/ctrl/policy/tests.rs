use outrider_model::{AppId, PolicyAction, RuleId};
use outrider_wire::request::Request;

use super::*;

fn parse(rules: &str, rules6: &str) -> Policy {
    let text = format!(
        r#"{{"ctrl_cfg_policy":{{"cmd":1,"flag":3,"defact":7,"dir":2,"mac":["0a:58:0a:4d:01:05"],"rules":[{rules}],"rules6":[{rules6}],"grace":false}}}}"#
    );
    match Request::parse_datagram(text.as_bytes())
        .unwrap()
        .remove(0)
        .request
        .unwrap()
    {
        Request::CfgPolicy(policy) => policy,
        other => panic!("{other:?}"),
    }
}

fn rule(members: &str) -> String {
    format!(r#"{{"id":5,{members},"port":80,"portr":90,"proto":6,"action":2,"ingress":true}}"#)
}

#[test]
fn translates_every_member() {
    let text = r#"{"id":5,"sip":"10.0.0.1","sipr":"10.0.0.9","dip":"10.77.1.5","port":80,"portr":90,
        "proto":0,"action":5,"ingress":false,"fqdn":"*.Example.test","vhost":true,
        "apps":[{"app":4294967295,"action":7,"rid":6},{"app":2002,"action":2,"rid":8}]}"#;
    let (spec, idle) = spec(&parse(text, "")).unwrap();
    assert_eq!(idle, 0);
    assert_eq!(
        (spec.default_action, spec.inbound, spec.outbound),
        (PolicyAction::Deny, true, false)
    );
    assert!(!spec.grace);
    let rule = &spec.rules[0];
    let range = AddrSpec::Range("10.0.0.1".parse().unwrap(), "10.0.0.9".parse().unwrap());
    assert_eq!((rule.client, rule.proto, rule.ports), (range, None, (80, 90)));
    assert_eq!((rule.direction, rule.vhost), (Direction::Outbound, true));
    assert_eq!(rule.fqdn.as_ref().map(Name::as_str), Some("*.example.test"));
    let unidentified =
        AppRule { app: AppId::UNIDENTIFIED, action: PolicyAction::Deny, rule: RuleId(6) };
    assert_eq!(rule.apps[0], unidentified);
}

#[test]
fn zero_without_an_end_is_the_external_marker_and_with_one_a_range() {
    for (text, family, external) in [
        (r#""sip":"0.0.0.0","dip":"10.77.1.5""#, "rules", true),
        (r#""sip":"0.0.0.0","sipr":"255.255.255.255","dip":"10.77.1.5""#, "rules", false),
        (r#""sip":"::","dip":"fd77::5""#, "rules6", true),
        (r#""sip":"::","sipr":"ffff::","dip":"fd77::5""#, "rules6", false),
    ] {
        let rule = rule(text);
        let policy = if family == "rules" { parse(&rule, "") } else { parse("", &rule) };
        let (spec, _) = spec(&policy).unwrap();
        assert_eq!(spec.rules[0].client == AddrSpec::External, external, "{text}");
    }
}

#[test]
fn what_matches_nothing_is_left_out_and_counted() {
    let rules = [
        rule(r#""sip":"","dip":"10.77.1.5""#),
        rule(r#""sip":"10.0.0.1","dip":"fd77::5""#),
        rule(r#""sip":"10.0.0.1","dip":"10.77.1.5""#),
    ];
    let (spec, idle) = spec(&parse(&rules.join(","), "")).unwrap();
    assert_eq!((spec.rules.len(), idle), (1, 2));
}

#[test]
fn refuses_a_policy_with_an_action_it_does_not_know() {
    let strange =
        rule(r#""sip":"10.0.0.1","dip":"10.77.1.5""#).replace("\"action\":2", "\"action\":9");
    assert_eq!(spec(&parse(&strange, "")).unwrap_err(), Refused::Action(9));
    let no_name = rule(r#""sip":"10.0.0.1","dip":"10.77.1.5","fqdn":"a b""#);
    assert_eq!(spec(&parse(&no_name, "")).unwrap_err().reason(), "name");
}

#[test]
fn rules_of_both_families_keep_their_order() {
    let v4 = rule(r#""sip":"10.0.0.1","dip":"10.77.1.5""#);
    let v6 = rule(r#""sip":"fd00::1","dip":"fd77::5""#);
    let (spec, _) = spec(&parse(&v4, &v6)).unwrap();
    let families: Vec<_> = spec
        .rules
        .iter()
        .map(|rule| matches!(rule.client, AddrSpec::Range(low, _) if low.is_ipv4()))
        .collect();
    assert_eq!(families, [true, false]);
}
