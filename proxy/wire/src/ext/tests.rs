//! Our own kinds: five tests each, and their caps.

use outrider_model::{AppId, IpProto, MacAddr, RuleId};

use super::{Batch, CaptureReply, Evidence, FlowTotals, Instance, Refusal, SampleFlow, Status};
use crate::{
    ActionCode, Body, Message, WireError,
    limits::{MAX_EVIDENCE, MAX_MESSAGE, MAX_NESTING, MAX_STATUS_LIST, MAX_TEXT},
    message::tests::{five, hex, with_length},
};

five!(
    batch: Batch,
    Batch { instance: Instance(0x0123_4567_89ab_cdef), seq: 7, datagrams: 3 },
    hex("4000 001c 0123456789abcdef 0000000000000007 0003 0000 00000000"),
    [4, 12, 20]
);

fn json(kind: u8, text: &str) -> Vec<u8> {
    with_length([vec![kind, 0, 0, 0], text.as_bytes().to_vec()].concat())
}

fn status_value() -> Status {
    Status {
        instance: Instance(0xabc),
        version: "0.1.0".into(),
        mode: "protect".into(),
        policy_version: 4,
        policy: "rules".into(),
        refused: Some(Refusal::new("port-range", "ports 4 to 1".into())),
        managed: true,
        macs: vec![MacAddr([10, 88, 10, 77, 1, 5])],
        addresses: vec!["10.0.0.2".parse().expect("v4"), "fd00::2".parse().expect("v6")],
        capabilities: vec!["tap".into()],
        tier: "relay+tap".into(),
        stops: true,
        flows: FlowTotals { opened: 5, closed: 3, open: 2, bytes_client: 10, bytes_server: 20 },
        dropped: [("rows".to_owned(), 1)].into(),
    }
}

const STATUS_TEXT: &str = concat!(
    r#"{"instance":"0000000000000abc","version":"0.1.0","mode":"protect","policy_version":4,"#,
    r#""policy":"rules","refused":{"reason":"port-range","detail":"ports 4 to 1"},"#,
    r#""managed":true,"macs":["0a:58:0a:4d:01:05"],"addresses":["10.0.0.2","fd00::2"],"#,
    r#""capabilities":["tap"],"tier":"relay+tap","stops":true,"flows":{"opened":5,"closed":3,"open":2,"#,
    r#""bytes_client":10,"bytes_server":20},"dropped":{"rows":1}}"#
);

five!(status: Status, status_value(), json(65, STATUS_TEXT), []);

fn flow() -> SampleFlow {
    SampleFlow {
        client: "10.0.0.3:41234".parse().expect("v4"),
        server: "[fd00::2]:6379".parse().expect("v6"),
        proto: IpProto::TCP,
        inbound: true,
        app: AppId::REDIS,
        rule: RuleId(10001),
        action: ActionCode(7),
        host: "shop.test".into(),
        sni: String::new(),
        bytes_client: 10,
        bytes_server: 20,
        at: 1_795_442_288,
    }
}

const EVIDENCE_TEXT: &str = concat!(
    r#"{"flows":[{"client":"10.0.0.3:41234","server":"[fd00::2]:6379","proto":6,"inbound":true,"#,
    r#""app":2002,"rule":10001,"action":7,"host":"shop.test","bytes_client":10,"#,
    r#""bytes_server":20,"at":1795442288}]}"#
);

five!(evidence: Evidence, Evidence { flows: vec![flow()] }, json(66, EVIDENCE_TEXT), []);

const CAPTURE_TEXT: &str = r#"{"id":"0000000000000abc","error":"no right"}"#;

five!(
    capture: CaptureReply,
    CaptureReply { id: Instance(0xabc), error: "no right".into() },
    json(67, CAPTURE_TEXT),
    []
);

#[test]
fn errors_of_a_capture_are_cut_and_capped() {
    let long = CaptureReply::new(Instance(1), "é".repeat(300));
    assert_eq!(long.error.len(), 512);
    assert!(long.encode().is_ok());
    let longer = CaptureReply { error: "x".repeat(513), ..long };
    assert!(matches!(longer.encode(), Err(WireError::TooMany { what: "error bytes", .. })));
}

#[test]
fn members_of_a_newer_status_are_ignored_and_absent_ones_read_as_nothing() {
    let newer = json(65, r#"{"mode":"monitor","colour":[1,{"a":null}]}"#);
    let status = Status::decode_exact(&newer).expect("a status");
    assert_eq!(status, Status { mode: "monitor".into(), ..Status::default() });
}

#[test]
fn bodies_that_are_not_json_or_not_ours_are_refused() {
    let texts =
        ["", "[]", "{", "{}x", r#"{"instance":"xyz"}"#, r#"{"macs":["zz"]}"#, r#"{"managed":1}"#];
    for text in texts {
        assert_eq!(Status::decode_exact(&json(65, text)), Err(WireError::Json), "{text}");
    }
}

#[test]
fn nesting_is_capped() {
    let deep = |depth: usize| {
        let (open, close) = ("[".repeat(depth - 1), "]".repeat(depth - 1));
        Status::decode_exact(&json(65, &format!(r#"{{"x":{open}{close}}}"#)))
    };
    assert_eq!(deep(MAX_NESTING), Ok(Status::default()));
    assert_eq!(deep(MAX_NESTING + 1), Err(WireError::Nesting));
}

#[test]
fn lists_and_texts_of_a_status_are_capped_both_ways() {
    let many = MAX_STATUS_LIST + 1;
    let too_many = |what| WireError::TooMany { what, count: many, cap: MAX_STATUS_LIST };
    let macs = Status { macs: vec![MacAddr::default(); many], ..Status::default() };
    assert_eq!(macs.encode(), Err(too_many("MAC addresses")));
    let text = format!(r#"{{"capabilities":[{}""]}}"#, r#""","#.repeat(MAX_STATUS_LIST));
    assert_eq!(Status::decode_exact(&json(65, &text)), Err(too_many("capabilities")));
    let long = Status { mode: "x".repeat(MAX_TEXT + 1), ..Status::default() };
    assert!(matches!(long.encode(), Err(WireError::TooMany { what: "text bytes", .. })));
    let refused = Some(Refusal::new("r", "é".repeat(MAX_TEXT)));
    let cut = Status { refused, ..Status::default() };
    assert!(
        cut.encode().is_ok()
            && cut
                .refused
                .is_some_and(|refused| refused.detail.len() == 254)
    );
    let refused = Some(Refusal { reason: "x".repeat(MAX_TEXT + 1), detail: String::new() });
    let long = Status { refused, ..Status::default() };
    assert!(matches!(long.encode(), Err(WireError::TooMany { what: "text bytes", .. })));
}

#[test]
fn evidence_of_any_number_is_split_by_number_and_by_size() {
    assert_eq!(Evidence::split(&[]), Ok(Vec::new()));
    for host in [String::new(), "x".repeat(MAX_TEXT), "\"".repeat(MAX_TEXT)] {
        let flows = vec![SampleFlow { host, ..flow() }; 3 * MAX_EVIDENCE + 1];
        let parts = Evidence::split(&flows).expect("names within their cap");
        for part in &parts {
            let bytes = part.encode().expect("within a datagram");
            assert!(bytes.len() <= MAX_MESSAGE && part.flows.len() <= MAX_EVIDENCE);
            assert_eq!(Evidence::decode_exact(&bytes).as_ref(), Ok(part));
        }
        assert_eq!(
            parts
                .into_iter()
                .flat_map(|part| part.flows)
                .collect::<Vec<_>>(),
            flows
        );
    }
}

#[test]
fn evidence_is_capped_both_ways() {
    let many = Evidence { flows: vec![flow(); MAX_EVIDENCE + 1] };
    let refused = WireError::TooMany { what: "flows", count: MAX_EVIDENCE + 1, cap: MAX_EVIDENCE };
    assert_eq!(many.encode(), Err(refused.clone()));
    let minimal = concat!(
        r#"{"client":"1.1.1.1:1","server":"1.1.1.1:1","proto":6,"inbound":true,"app":0,"#,
        r#""rule":0,"action":0,"bytes_client":0,"bytes_server":0,"at":0}"#
    );
    let list = vec![minimal; MAX_EVIDENCE + 1].join(",");
    let text = format!(r#"{{"flows":[{list}]}}"#);
    assert_eq!(Evidence::decode_exact(&json(66, &text)), Err(refused));
    let long = SampleFlow { sni: "x".repeat(MAX_TEXT + 1), ..flow() };
    assert!(Evidence::split(std::slice::from_ref(&long)).is_err());
    assert!(Message::from_flows(vec![long]).encode().is_err());
}

impl Message {
    fn from_flows(flows: Vec<SampleFlow>) -> Self {
        Self::Notification(Evidence { flows }.into())
    }
}

#[test]
fn instances_are_sixteen_digits() {
    assert_eq!(Instance(0xabc).to_string(), "0000000000000abc");
    assert_eq!(Instance::parse("0000000000000abc"), Some(Instance(0xabc)));
    for bad in ["", "abc", "+000000000000abc", "0000000000000abcd", "000000000000zabc"] {
        assert_eq!(Instance::parse(bad), None, "{bad}");
    }
}
