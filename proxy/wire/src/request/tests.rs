//! What requests say, and how leniently they are read.
#![expect(clippy::arithmetic_side_effects, reason = "an overflow in a test fails the test")]

mod leniency;
mod properties;

use outrider_model::{AppId, IpProto, MacAddr, RuleId};

use super::{
    AddMac, CfgMac, ClearSession, ListeningPort, Policy, Request, Rule, RuleApp, SetDebug,
    SpecialIp, SpecialSubnet, StatsMacs, StrictGroupMode, Subnet, Subnets, TapPort, TextIp,
};
use crate::{
    ActionCode, ChunkFlags, Directions, List, PolicyCommand, WireError,
    ext::{Ack, CaptureOrder, CaptureStop, Hello, Instance, Stop},
    limits::MAX_REQUEST,
};

const POD: MacAddr = MacAddr([10, 88, 10, 77, 1, 5]);

/// The only request of a datagram.
fn parse(text: &str) -> Result<Request, WireError> {
    let mut commands = Request::parse_datagram(text.as_bytes())?;
    assert_eq!(commands.len(), 1, "{text}");
    commands.remove(0).request
}

/// Encodes to the text, and the text parses to it.
fn both_ways(request: Request, text: &str) {
    let encoded = request
        .encode()
        .map(|bytes| String::from_utf8(bytes).expect("UTF-8"));
    assert_eq!(encoded.as_deref(), Ok(text));
    assert_eq!(parse(text), Ok(request));
}

#[test]
fn there_are_37_keys_and_five_of_ours() {
    let ours = Request::KEYS
        .iter()
        .filter(|key| key.starts_with("ctrl_outrider_"));
    assert_eq!((Request::KEYS.len(), ours.count()), (42, 5));
}

#[test]
fn every_key_parses_with_any_arguments_or_says_what_it_misses() {
    for key in Request::KEYS {
        for arguments in ["{}", "null", "[]", "7", "\"x\"", "true", "1.5"] {
            match parse(&format!("{{\"{key}\":{arguments}}}")) {
                Ok(request) => assert_eq!(request.key(), *key),
                Err(error) => assert_eq!(error.reason(), "missing", "{key} {arguments}"),
            }
        }
    }
}

#[test]
fn nil_empty_and_absent_are_told_apart_where_the_agent_does() {
    both_ways(
        Request::StatsMacs(StatsMacs { macs: List::nil() }),
        r#"{"ctrl_stats_macs":{"macs":null}}"#,
    );
    both_ways(
        Request::SetDebug(SetDebug { categories: Vec::new().into() }),
        r#"{"ctrl_set_debug":{"categories":[]}}"#,
    );
    both_ways(
        Request::StrictGroupMode(StrictGroupMode { strict_group_mode: None }),
        r#"{"ctrl_strict_group_mode":{"strict_group_mode":null}}"#,
    );
    both_ways(
        Request::CfgMac(CfgMac { macs: [POD].into_iter().collect(), tap: None, apps: None }),
        r#"{"ctrl_cfg_mac":{"macs":["0a:58:0a:4d:01:05"]}}"#,
    );
    both_ways(
        Request::DelTapPort(TapPort { netns: "/n".into(), iface: "lo".into(), epmac: None }),
        r#"{"ctrl_del_tap_port":{"netns":"/n","iface":"lo","epmac":""}}"#,
    );
}

#[test]
fn listening_ports_keep_their_order() {
    let port = |port, ip_proto| ListeningPort { ip_proto, port, app: AppId(0), server: AppId(0) };
    let apps = vec![port(443, IpProto::TCP), port(53, IpProto::UDP)];
    let macs = [POD].into_iter().collect();
    both_ways(
        Request::CfgMac(CfgMac { macs, tap: Some(true), apps: Some(apps) }),
        concat!(
            r#"{"ctrl_cfg_mac":{"macs":["0a:58:0a:4d:01:05"],"tap":true,"apps":["#,
            r#"{"ip_proto":6,"port":443,"app":0,"server":0},"#,
            r#"{"ip_proto":17,"port":53,"app":0,"server":0}]}}"#
        ),
    );
}

#[test]
fn texts_are_escaped_as_the_agent_escapes_them() {
    let odd = "<a&b>\"\\\u{8}\u{c}\n\r\t\u{1}\u{7f}\u{2028}\u{2029}é";
    let encoded = concat!(
        r#"{"ctrl_set_debug":{"categories":["\u003ca\u0026b\u003e\"\\\b\f\n\r\t\u0001"#,
        "\u{7f}",
        r#"\u2028\u2029é"]}}"#
    );
    both_ways(Request::SetDebug(SetDebug { categories: vec![odd.to_owned()].into() }), encoded);
}

#[test]
fn our_policy_members_come_last_and_only_if_used() {
    let rule = Rule {
        id: RuleId(10001),
        client: TextIp::from("::".parse::<std::net::IpAddr>().expect("v6")),
        server: TextIp::from("fd00::2".parse::<std::net::IpAddr>().expect("v6")),
        port: 6379,
        port_end: 6379,
        proto: IpProto::TCP,
        action: ActionCode(5),
        ingress: true,
        apps: vec![RuleApp { app: AppId::REDIS, action: ActionCode(2), rule: RuleId(10001) }],
        ..Rule::default()
    };
    let policy = Policy {
        command: PolicyCommand::ADD,
        chunk: ChunkFlags::WHOLE,
        default_action: ActionCode(7),
        directions: Directions::BOTH,
        macs: [POD].into_iter().collect(),
        rules: Vec::new().into(),
        rules6: vec![rule],
        grace: Some(false),
    };
    both_ways(
        Request::CfgPolicy(policy),
        concat!(
            r#"{"ctrl_cfg_policy":{"cmd":1,"flag":3,"defact":7,"dir":3,"#,
            r#""mac":["0a:58:0a:4d:01:05"],"rules":[],"rules6":[{"id":10001,"sip":"::","#,
            r#""dip":"fd00::2","port":6379,"portr":6379,"proto":6,"action":5,"ingress":true,"#,
            r#""apps":[{"app":2002,"action":2,"rid":10001}]}],"grace":false}}"#
        ),
    );
}

#[test]
fn our_subnets_come_last_and_only_if_used() {
    let subnets = Subnets {
        chunk: ChunkFlags::WHOLE,
        subnets: vec![Subnet::from("10.77.1.9/24".parse::<ipnet::IpNet>().expect("v4"))].into(),
        subnets6: vec![Subnet::from("fd00::9/64".parse::<ipnet::IpNet>().expect("v6"))],
    };
    assert_eq!(subnets.subnets6[0].net(), "fd00::/64".parse().ok());
    both_ways(
        Request::CfgInternalNet(subnets),
        concat!(
            r#"{"ctrl_cfg_internal_net":{"flag":3,"#,
            r#""subnet_addr":[{"ip":"10.77.1.0","mask":"255.255.255.0"}],"#,
            r#""subnet_addr6":[{"ip":"fd00::","mask":"ffff:ffff:ffff:ffff::"}]}}"#
        ),
    );
}

#[test]
fn our_requests_have_their_form() {
    both_ways(
        Request::OutriderHello(Hello::default()),
        r#"{"ctrl_outrider_hello":{"version":1,"acks":true}}"#,
    );
    both_ways(
        Request::OutriderAck(Ack { instance: Instance(0xabc), seq: u64::MAX }),
        r#"{"ctrl_outrider_ack":{"instance":"0000000000000abc","seq":18446744073709551615}}"#,
    );
    let order = CaptureOrder {
        id: Instance(0xabc),
        filter: "port 53".into(),
        loopback: true,
        snap: 96,
        packets: 7,
        bytes: u64::MAX,
        seconds: 60,
    };
    both_ways(
        Request::OutriderCapture(order),
        concat!(
            r#"{"ctrl_outrider_capture":{"id":"0000000000000abc","filter":"port 53","#,
            r#""loopback":true,"snap":96,"packets":7,"bytes":18446744073709551615,"seconds":60}}"#
        ),
    );
    both_ways(
        Request::OutriderCaptureStop(CaptureStop { id: Instance(0xabc) }),
        r#"{"ctrl_outrider_capture_stop":{"id":"0000000000000abc"}}"#,
    );
    assert!(parse(r#"{"ctrl_outrider_capture":{"filter":"port 53"}}"#).is_err(), "without an id");
    both_ways(
        Request::OutriderStop(Stop { instance: Instance(0xabc) }),
        r#"{"ctrl_outrider_stop":{"instance":"0000000000000abc"}}"#,
    );
    assert!(parse(r#"{"ctrl_outrider_stop":{}}"#).is_err(), "of whom");
    let bad = [r#"{"instance":"abc","seq":1}"#, r#"{"instance":"0000000000000abc"}"#, "{}"];
    for arguments in bad {
        assert!(parse(&format!(r#"{{"ctrl_outrider_ack":{arguments}}}"#)).is_err(), "{arguments}");
    }
}

#[test]
fn special_subnets_are_read_in_any_case_and_kept_if_unknown() {
    let kind = |name: &str| {
        let text = format!(
            r#"{{"ctrl_cfg_specip_net":{{"flag":3,"subnet_addr":[
                {{"ip":"10.96.0.10","mask":"255.255.255.255","iptype":"{name}"}}]}}}}"#
        );
        match parse(&text).expect("a request") {
            Request::CfgSpecialNet(nets) => nets.subnets[0].clone(),
            other => panic!("{}", other.key()),
        }
    };
    let net = "10.96.0.10/32".parse().expect("a subnet");
    assert_eq!(kind("SvcIp"), SpecialSubnet::new(net, SpecialIp::Service));
    assert_eq!(kind("foo").iptype, SpecialIp::Other("foo".into()));
    assert_eq!(kind("foo").net(), Some(net));
    for name in ["tunnelip", "svcip", "hostip", "devip", "uwlip", "extip"] {
        let iptype = kind(name).iptype;
        assert_eq!(iptype.name(), name);
        assert!(!matches!(iptype, SpecialIp::Other(_)));
    }
}

#[test]
fn a_subnet_without_a_prefix_mask_is_none() {
    let parse = |text: &str| TextIp::parse(text).unwrap_or_default();
    let subnet = |ip: &str, mask: &str| Subnet { ip: parse(ip), mask: parse(mask) };
    assert_eq!(subnet("10.0.0.0", "255.0.255.0").net(), None);
    assert_eq!(subnet("10.0.0.0", "ffff::").net(), None);
    assert_eq!(subnet("", "255.0.0.0").net(), None);
}

#[test]
fn a_request_longer_than_the_data_path_takes_is_not_encoded() {
    let request = |length: usize| {
        Request::AddMac(AddMac { iface: "x".repeat(length), ..AddMac::default() }).encode()
    };
    let empty = request(0).expect("short").len();
    let longest = MAX_REQUEST.saturating_sub(empty);
    assert_eq!(request(longest).map(|bytes| bytes.len()), Ok(MAX_REQUEST));
    assert_eq!(request(longest.saturating_add(1)), Err(WireError::TooLong(MAX_REQUEST + 1)));
}

#[test]
fn a_session_is_cleared_by_number_or_all_are() {
    both_ways(
        Request::ClearSession(ClearSession { filter_id: 4242 }),
        r#"{"ctrl_clear_session":{"filter_id":4242}}"#,
    );
    let all = Request::ClearSession(ClearSession::default());
    assert_eq!(parse(r#"{"ctrl_clear_session":{}}"#), Ok(all));
}
