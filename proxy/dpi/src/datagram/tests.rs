use outrider_model::ThreatId;
use proptest::prelude::*;

use super::*;
use crate::testing::{all_on, threats};

fn events(port: u16, flow: &[(Side, &[u8])]) -> Vec<Event> {
    let mut inspector = DatagramInspector::new(all_on(), port);
    let mut events = Vec::new();
    for (side, bytes) in flow {
        inspector.feed(*side, bytes, &mut events);
    }
    inspector.end(&mut events);
    events
}

fn app(port: u16, side: Side, bytes: &[u8]) -> Option<AppId> {
    events(port, &[(side, bytes)])
        .iter()
        .find_map(|event| match event {
            Event::Application(app) => Some(*app),
            _ => None,
        })
}

const C: Side = Side::Client;
const S: Side = Side::Server;

const QUERY: &[u8] = b"\x12\x34\x01\x20\0\x01\0\0\0\0\0\0\x07example\x03com\0\0\x01\0\x01";
const ANSWER: &[u8] = b"\x12\x34\x81\x80\0\x01\0\x01\0\0\0\0\x07example\x03com\0\0\x01\0\x01\
    \xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x5d\xb8\xd8\x22";

fn dhcp() -> Vec<u8> {
    let mut bytes = vec![0; 236];
    bytes[..4].copy_from_slice(&[1, 1, 6, 0]);
    bytes.extend([0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255]);
    bytes
}

fn ntp(first: u8) -> Vec<u8> {
    let mut bytes = vec![first, 2, 6, 0xe9, 0, 0, 0, 1, 0, 0, 0, 1, 10, 0, 0, 1];
    bytes.extend([0; 24]);
    bytes.extend([0xe8, 1, 2, 3, 4, 5, 6, 7]);
    bytes
}

fn radius(code: u8) -> Vec<u8> {
    let mut bytes = vec![code, 7, 0, 27];
    bytes.extend([9; 16]);
    bytes.extend(*b"\x01\x07alice");
    bytes
}

fn quic() -> Vec<u8> {
    let mut bytes = vec![0xc3, 0, 0, 0, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0x44, 0x96];
    bytes.resize(1200, 0x5a);
    bytes
}

/// One datagram of each application, whose bytes are enough on any port.
fn samples() -> Vec<(AppId, Side, Vec<u8>)> {
    vec![
        (AppId::DNS, C, QUERY.to_vec()),
        (AppId::DNS, S, ANSWER.to_vec()),
        (AppId::DHCP, C, dhcp()),
        (AppId::NTP, C, ntp(0x23)),
        (AppId::NTP, S, ntp(0x24)),
        (AppId::TFTP, C, b"\0\x01boot/pxe.0\0octet\0".to_vec()),
        (AppId::TFTP, S, b"\0\x06blksize\x001024\0".to_vec()),
        (AppId::SIP, C, b"INVITE sip:bob@example.com SIP/2.0\r\nVia: x\r\n\r\n".to_vec()),
        (AppId::SIP, S, b"SIP/2.0 100 Trying\r\n\r\n".to_vec()),
        (AppId::RADIUS, C, radius(1)),
        (AppId::RADIUS, S, radius(2)),
        (AppId::SYSLOG, C, b"<34>1 2003-10-11T22:14:15.003Z host su - ID47 - x".to_vec()),
        (AppId::SYSLOG, C, b"<13>Nov 25 14:31:22 host app: x".to_vec()),
        (AppId::QUIC, C, quic()),
    ]
}

#[test]
fn bytes_are_enough_on_any_port() {
    for (expected, side, bytes) in samples() {
        assert_eq!(app(4_711, side, &bytes), Some(expected), "{bytes:?}");
    }
}

#[test]
fn a_port_alone_is_nothing() {
    for port in [53, 67, 69, 123, 443, 514, 1812, 5060, 5353] {
        for bytes in [&b"\0\0\0\0"[..], &[0xff; 60], &[0xa5; 1300], b"hello there"] {
            assert_eq!(app(port, C, bytes), None, "{port} {bytes:?}");
        }
    }
}

#[test]
fn no_beginning_of_a_datagram_is_taken_for_a_whole_one() {
    for (expected, side, bytes) in samples() {
        for cut in 0..bytes.len().min(40) {
            let found = app(4_711, side, &bytes[..cut]);
            let text = matches!(expected, AppId::SYSLOG | AppId::SIP | AppId::TFTP);
            assert!(text || found.is_none(), "{expected}: {cut} of {bytes:?} is {found:?}");
        }
    }
}

#[test]
fn the_port_helps_where_bytes_are_weak() {
    let weak = [
        (123, ntp(0x0b)),
        (514, b"<13>no date".to_vec()),
        (1812, [&[12, 7, 0, 20][..], &[9; 16]].concat()),
    ];
    for (port, bytes) in weak {
        assert!(app(port, C, &bytes).is_some(), "{port}");
        assert_eq!(app(4_711, C, &bytes), None, "{port}");
    }
}

#[test]
fn dns_questions_are_counted_and_watched() {
    let seen = events(53, &[(C, QUERY), (S, ANSWER), (C, QUERY)]);
    assert_eq!(seen, [Event::Application(AppId::DNS), Event::Request, Event::Request]);
    let mut transfer = QUERY.to_vec();
    for (kind, threat) in [(252, ThreatId::ZONE_TRANSFER), (10, ThreatId::DNS_NULL)] {
        let at = transfer.len() - 3;
        transfer[at] = kind;
        assert_eq!(threats(&events(53, &[(C, &transfer)]))[0].0, threat);
    }
}

#[test]
fn names_in_circles_and_huge_nonsense_are_found() {
    let mut circle = QUERY[..12].to_vec();
    circle.extend([0xc0, 12, 0, 1, 0, 1]);
    assert_eq!(threats(&events(53, &[(C, &circle)]))[0].0, ThreatId::DNS_LOOP);
    let mut huge = QUERY[..12].to_vec();
    huge.resize(3000, 0x3f);
    let seen = events(53, &[(C, QUERY), (C, &huge)]);
    assert_eq!(threats(&seen)[0].0, ThreatId::DNS_OVERFLOW);
    assert!(threats(&events(54, &[(C, &circle)])).is_empty());
}

#[test]
fn entries_of_a_message_have_a_limit() {
    let most = u8::try_from(dns::MAX_ENTRIES - 2).unwrap();
    let mut message = QUERY.to_vec();
    message[7] = most + 1;
    message[2] = 0x81;
    for _ in 0..=most {
        message.extend([0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 0]);
    }
    assert_eq!(app(53, S, &message), Some(AppId::DNS));
    message[6..8].copy_from_slice(&[1, 0]);
    message.extend([0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 0]);
    assert_eq!(app(53, S, &message), None);
}

#[test]
fn gives_up_after_some_datagrams() {
    let mut inspector = DatagramInspector::new(all_on(), 9);
    let mut seen = Vec::new();
    for _ in 1..MAX_TRIES {
        assert!(inspector.feed(C, b"?", &mut seen));
    }
    assert!(!inspector.feed(C, b"?", &mut seen));
    assert!(!inspector.feed(C, QUERY, &mut seen));
    assert_eq!(seen, [Event::Unidentified]);
}

proptest! {
    #[test]
    fn any_datagrams_are_survived(port: u16, flow in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..80)), 0..12)) {
        let flow: Vec<_> = flow.iter().map(|(client, bytes)| (if *client { C } else { S }, &bytes[..])).collect();
        let seen = events(port, &flow);
        let settled = |event: &&Event| matches!(event, Event::Application(_) | Event::Unidentified);
        prop_assert!(seen.iter().filter(settled).count() <= 1);
    }

    #[test]
    fn damage_is_survived(at: prop::sample::Index, value: u8, which: prop::sample::Index) {
        let all = samples();
        let (_, side, mut bytes) = all[which.index(all.len())].clone();
        let at = at.index(bytes.len());
        bytes[at] = value;
        events(53, &[(side, &bytes), (side, &bytes)]);
    }
}
