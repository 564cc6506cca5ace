//! What holds for any datagram.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::{WireError, request::Request};

/// Every member name that any request reads.
const MEMBERS: &[&str] = &[
    "acks",
    "action",
    "addmac",
    "app",
    "apps",
    "bcmac",
    "categories",
    "cmd",
    "defact",
    "delmac",
    "dip",
    "dipr",
    "dir",
    "dlp_rule_names",
    "dlp_rules",
    "epmac",
    "filter_id",
    "flag",
    "fqdn",
    "fqdn_ips",
    "fqdn_name",
    "grace",
    "id",
    "iface",
    "ingress",
    "instance",
    "ip",
    "iptype",
    "jumboframe",
    "mac",
    "macs",
    "mask",
    "name",
    "names",
    "nbe",
    "netns",
    "oldmac",
    "patterns",
    "pips",
    "pmac",
    "port",
    "portr",
    "proto",
    "qnum",
    "quar",
    "rid",
    "rule_ids",
    "rules",
    "rules6",
    "ruletype",
    "seq",
    "seq_num",
    "server",
    "sip",
    "sipr",
    "subnet_addr",
    "subnet_addr6",
    "tap",
    "ucmac",
    "version",
    "vex_iface",
    "vhost",
    "vin_iface",
    "waf_rule_ids",
    "waf_rule_names",
    "wafruletype",
    "xff_enabled",
];

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        prop::sample::select(vec![
            "",
            "0a:58:0a:4d:01:05",
            "10.0.0.1",
            "fd00::1",
            "0.0.0.0",
            "svcip",
            "*.a.test",
            "<&>",
            "0000000000000abc",
        ])
        .prop_map(Value::from),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    leaf().prop_recursive(4, 48, 6, |inner| {
        let member = (prop::sample::select(MEMBERS), inner.clone());
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Value::from),
            prop::collection::vec(member, 0..8).prop_map(object),
        ]
    })
}

fn object(members: Vec<(&'static str, Value)>) -> Value {
    members
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect::<Map<_, _>>()
        .into()
}

/// What parses encodes (unless it grew too long), and that parses to the same.
fn round_trip(datagram: &[u8]) {
    let Ok(commands) = Request::parse_datagram(datagram) else { return };
    for request in commands
        .into_iter()
        .filter_map(|command| command.request.ok())
    {
        match request.encode() {
            Ok(bytes) => {
                let again = Request::parse_datagram(&bytes).expect("what encodes parses");
                assert_eq!(again.len(), 1);
                assert_eq!(again[0].request.as_ref(), Ok(&request));
                assert_eq!(request.encode(), Ok(bytes), "one form only");
            }
            Err(error) => assert_eq!(error.reason(), WireError::TooLong(0).reason()),
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
        round_trip(&bytes);
    }

    #[test]
    fn any_arguments_never_panic_and_what_parses_round_trips(
        key in prop::sample::select(Request::KEYS),
        arguments in prop::collection::vec((prop::sample::select(MEMBERS), value()), 0..12),
    ) {
        round_trip(json!({ key: object(arguments) }).to_string().as_bytes());
    }
}
