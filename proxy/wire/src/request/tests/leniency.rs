//! The data path's leniency, and where it ends.

use super::{POD, parse};
use crate::{
    WireError,
    limits::{
        MAX_COMMANDS, MAX_NAME, MAX_NESTING, MAX_PATTERN, MAX_PATTERNS, MAX_REQUEST, MAX_RULE_APPS,
        MAX_RULE_NAME,
    },
    request::{KeepAlive, Policy, Request, Rule, TextIp},
};

fn datagram(text: &str) -> Result<Vec<&'static str>, WireError> {
    let commands = Request::parse_datagram(text.as_bytes())?;
    Ok(commands
        .into_iter()
        .map(|command| command.request.map_or("?", |known| known.key()))
        .collect())
}

#[test]
fn several_commands_run_in_order_and_one_bad_one_spoils_no_other() {
    let text = r#"{"ctrl_list_meter":1,"ctrl_add_mac":{},"new":[],"ctrl_count_session":{}}"#;
    assert_eq!(datagram(text), Ok(vec!["ctrl_list_meter", "?", "?", "ctrl_count_session"]));
    let commands = Request::parse_datagram(text.as_bytes()).expect("an object");
    assert_eq!(commands[1].request, Err(WireError::Missing("iface")));
    assert_eq!(commands[2].request, Err(WireError::UnknownKey));
    assert_eq!(&*commands[2].key, "new");
}

#[test]
fn of_equal_names_the_last_one_counts_in_the_place_of_the_first() {
    let text = r#"{"ctrl_keep_alive":{"seq_num":1},"ctrl_list_meter":{},
        "ctrl_keep_alive":{"seq_num":2,"seq_num":3}}"#;
    let commands = Request::parse_datagram(text.as_bytes()).expect("an object");
    assert_eq!(commands[0].request, Ok(Request::KeepAlive(KeepAlive { seq_num: 3 })));
    assert_eq!(commands.len(), 2);
}

#[test]
fn what_is_not_one_json_text_is_refused_and_an_array_says_nothing() {
    for bad in ["", " ", "{", "7", "null", "\"x\"", "{} x", "{\"a\":}", "{'a':1}", "{\"a\":1,}"] {
        assert_eq!(datagram(bad), Err(WireError::Json), "{bad}");
    }
    for bad in [&b"{\"a\":\"\xff\"}"[..], b"[\"\xff\"]", b"{\"\xff\":1}", b"[1,]"] {
        assert_eq!(Request::parse_datagram(bad), Err(WireError::Json), "{bad:?}");
    }
    for nothing in ["[1,{\"ctrl_list_meter\":{}}]", "{}", " { } \n"] {
        assert_eq!(datagram(nothing), Ok(Vec::new()), "{nothing}");
    }
}

#[test]
fn numbers_are_cut_to_their_width_and_anything_else_reads_as_zero() {
    let seq = |value: &str| match parse(&format!(r#"{{"ctrl_keep_alive":{{"seq_num":{value}}}}}"#))
    {
        Ok(Request::KeepAlive(alive)) => alive.seq_num,
        other => panic!("{other:?}"),
    };
    assert_eq!(seq("-1"), u32::MAX);
    assert_eq!(seq("4294967301"), 5);
    for zero in ["3.7", "\"9\"", "null", "true", "[]", "1e3", "18446744073709551616"] {
        assert_eq!(seq(zero), 0, "{zero}");
    }
}

#[test]
fn only_true_is_true() {
    for value in ["1", "null", "\"true\"", "false", "{}"] {
        let text = format!(r#"{{"ctrl_sys_conf":{{"xff_enabled":{value}}}}}"#);
        match parse(&text) {
            Ok(Request::SysConf(conf)) => assert!(!conf.is_on(), "{value}"),
            other => panic!("{other:?}"),
        }
    }
}

fn policy(rule: &str) -> Result<Policy, WireError> {
    let text = format!(
        r#"{{"ctrl_cfg_policy":{{"flag":3,"mac":["0a:58:0a:4d:01:05"],"rules":[{rule}]}}}}"#
    );
    match parse(&text)? {
        Request::CfgPolicy(policy) => Ok(policy),
        other => panic!("{}", other.key()),
    }
}

fn rule(rule: &str) -> Result<Rule, WireError> {
    policy(rule).map(|policy| policy.rules[0].clone())
}

#[test]
fn a_rule_needs_its_addresses_and_takes_no_null_for_an_optional_text() {
    assert_eq!(policy("{}"), Err(WireError::Missing("sip")));
    assert_eq!(policy("7"), Err(WireError::Missing("sip")));
    assert_eq!(policy(r#"{"sip":""}"#), Err(WireError::Missing("dip")));
    for member in ["sipr", "dipr", "fqdn"] {
        let text = format!(r#"{{"sip":"","dip":"","{member}":null}}"#);
        assert_eq!(policy(&text).map_err(|error| error.reason()), Err("missing"), "{member}");
    }
}

#[test]
fn an_empty_address_matches_nothing_and_is_what_the_real_one_takes_it_for() {
    let odd = rule(r#"{"sip":"","dip":"::ffff:10.0.0.1","sipr":"","dipr":"fd00::1"}"#);
    let odd = odd.expect("texts");
    assert_eq!(odd.client, TextIp(None));
    assert_eq!(odd.client.as_data_path(), std::net::Ipv4Addr::BROADCAST);
    assert_eq!(odd.client_end, Some(TextIp(None)), "an end that matches nothing, not no end");
    assert_eq!(odd.server.0, "10.0.0.1".parse().ok());
    assert_eq!(odd.server.as_data_path(), std::net::Ipv4Addr::new(10, 0, 0, 1));
    let end = odd.server_end.map(TextIp::as_data_path);
    assert_eq!(end, Some(std::net::Ipv4Addr::BROADCAST));
}

#[test]
fn a_text_that_is_no_address_is_refused() {
    for member in ["sip", "dip", "sipr", "dipr"] {
        let mut members = std::collections::BTreeMap::from([("sip", ""), ("dip", "")]);
        members.insert(member, "10.0.0");
        let text = serde_json::to_string(&members).unwrap();
        assert_eq!(rule(&text), Err(WireError::BadValue(member)));
    }
}

#[test]
fn lists_of_addresses_are_texts_and_nil_ones_mean_nobody() {
    let macs = |list: &str| match parse(&format!(r#"{{"ctrl_stats_macs":{{"macs":{list}}}}}"#))? {
        Request::StatsMacs(asked) => Ok(asked.macs),
        other => panic!("{}", other.key()),
    };
    assert_eq!(macs("[5]"), Err(WireError::Missing("macs")));
    assert_eq!(macs(r#"["zz"]"#), Err(WireError::BadValue("macs")));
    assert_eq!(macs(r#"["","a:58:0A:4d:1:5"]"#).map(|macs| macs.to_vec()), Ok(vec![POD]));
    assert!(macs(r#""0a:58:0a:4d:01:05""#).is_ok_and(|macs| macs.is_nil()));
}

#[test]
fn a_text_with_a_nul_is_refused() {
    let text = r#"{"ctrl_cfg_set_fqdn":{"fqdn_name":"good.test\u0000.bad.test"}}"#;
    assert_eq!(parse(text), Err(WireError::BadValue("fqdn_name")));
}

#[test]
fn length_is_capped() {
    let request = |length: usize| {
        let filling = "a".repeat(length - r#"{"ctrl_list_meter":""}"#.len());
        datagram(&format!(r#"{{"ctrl_list_meter":"{filling}"}}"#))
    };
    assert_eq!(request(MAX_REQUEST), Ok(vec!["ctrl_list_meter"]));
    assert_eq!(request(MAX_REQUEST + 1), Err(WireError::TooLong(MAX_REQUEST + 1)));
}

#[test]
fn nesting_is_capped_but_brackets_in_texts_are_not_counted() {
    let nested = |depth: usize| {
        datagram(&format!(r#"{{"x":{}{}}}"#, "[".repeat(depth - 1), "]".repeat(depth - 1)))
    };
    assert_eq!(nested(MAX_NESTING), Ok(vec!["?"]));
    assert_eq!(nested(MAX_NESTING + 1), Err(WireError::Nesting));
    let text = r#"{"ctrl_list_meter":"\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["}"#;
    assert_eq!(datagram(text), Ok(vec!["ctrl_list_meter"]));
}

#[test]
fn commands_are_capped() {
    let many = |count: usize| {
        let members: Vec<_> = (0..count).map(|n| format!("\"k{n}\":0")).collect();
        datagram(&format!("{{{}}}", members.join(",")))
    };
    assert_eq!(many(MAX_COMMANDS).map(|all| all.len()), Ok(MAX_COMMANDS));
    let refused =
        WireError::TooMany { what: "commands", count: MAX_COMMANDS + 1, cap: MAX_COMMANDS };
    assert_eq!(many(MAX_COMMANDS + 1), Err(refused));
}

fn too_many<T: std::fmt::Debug>(outcome: Result<T, WireError>, what: &str, cap: usize) {
    match outcome {
        Err(WireError::TooMany { what: found, count, cap: limit }) => {
            assert_eq!((found, count, limit), (what, cap + 1, cap));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn names_are_capped() {
    let name = |length: usize| "n".repeat(length);
    let set =
        |length| parse(&format!(r#"{{"ctrl_cfg_set_fqdn":{{"fqdn_name":"{}"}}}}"#, name(length)));
    assert!(set(MAX_NAME).is_ok());
    too_many(set(MAX_NAME + 1), "fqdn_name", MAX_NAME);
    let del =
        |length| parse(&format!(r#"{{"ctrl_cfg_del_fqdn":{{"names":["{}"]}}}}"#, name(length)));
    assert!(del(MAX_NAME).is_ok());
    too_many(del(MAX_NAME + 1), "name bytes", MAX_NAME);
    let fqdn = |length| rule(&format!(r#"{{"sip":"","dip":"","fqdn":"{}"}}"#, name(length)));
    assert!(fqdn(MAX_NAME).is_ok());
    too_many(fqdn(MAX_NAME + 1), "name bytes", MAX_NAME);
}

#[test]
fn applications_of_a_rule_are_capped() {
    let apps = |count: usize| {
        rule(&format!(r#"{{"sip":"","dip":"","apps":[{}]}}"#, vec!["0"; count].join(",")))
    };
    assert_eq!(apps(MAX_RULE_APPS).map(|rule| rule.apps.len()), Ok(MAX_RULE_APPS));
    too_many(apps(MAX_RULE_APPS + 1), "applications", MAX_RULE_APPS);
}

#[test]
fn sensor_rules_are_capped() {
    let sensor = |name: usize, patterns: usize, length: usize| {
        let patterns = vec![format!("\"{}\"", "p".repeat(length)); patterns].join(",");
        let name = "n".repeat(name);
        parse(&format!(
            r#"{{"ctrl_bld_dlp":{{"flag":3,"dlp_rules":[{{"name":"{name}","patterns":[{patterns}]}}]}}}}"#
        ))
    };
    assert!(sensor(1, MAX_PATTERNS, 1).is_ok());
    too_many(sensor(1, MAX_PATTERNS + 1, 1), "patterns", MAX_PATTERNS);
    assert!(sensor(1, 1, MAX_PATTERN).is_ok());
    too_many(sensor(1, 1, MAX_PATTERN + 1), "pattern bytes", MAX_PATTERN);
    assert!(sensor(MAX_RULE_NAME, 1, 1).is_ok());
    too_many(sensor(MAX_RULE_NAME + 1, 1, 1), "name", MAX_RULE_NAME);
}
