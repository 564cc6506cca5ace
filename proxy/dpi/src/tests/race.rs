//! Giving up, and who may speak first.

use outrider_model::{
    AppId,
    Side::{self, Client, Server},
};

use crate::{
    Event, FlowInspector, Need,
    bytes::MAX_LINE,
    recognise::MAX_SECOND,
    testing::{all_on, events, seen},
};

fn needs(flow: &[(Side, &[u8])]) -> (Need, Need) {
    let mut inspector = FlowInspector::new(all_on(), 1);
    let mut last = (Need::Bytes, Need::Bytes);
    for (side, bytes) in flow {
        let interest = inspector.feed(*side, bytes, &mut Vec::new());
        last = (interest.client, interest.server);
    }
    last
}

#[test]
fn gives_up_at_the_first_byte_that_fits_nothing() {
    for bytes in [&b"\x7f"[..], b"\x00\x00\x00\xff\xff", b"{\"a\"", b"\x10\x20\x00\x04MQTT"] {
        assert_eq!(events(1, &[(Client, bytes)]), [Event::Unidentified], "{bytes:?}");
        assert_eq!(needs(&[(Client, bytes)]), (Need::Nothing, Need::Nothing));
    }
}

#[test]
fn other_protocols_stay_unknown() {
    for (name, flow) in [
        ("AMQP", (Client, &b"AMQP\x00\x00\x09\x01"[..])),
        ("MQTT", (Client, b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04test")),
        ("memcached", (Client, b"get key\r\n")),
        ("memcached binary", (Client, b"\x80\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x03")),
        ("Kafka", (Client, b"\x00\x00\x00\x1a\x00\x12\x00\x03\x00\x00\x00\x01\x00\x05admin")),
        ("MongoDB", (Client, b"\x41\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\xdd\x07\x00\x00")),
        ("Cassandra", (Client, b"\x04\x00\x00\x00\x05\x00\x00\x00\x00")),
        ("LDAP", (Client, b"\x30\x0c\x02\x01\x01\x60\x07\x02\x01\x03\x04\x00\x80\x00")),
        ("RDP", (Client, b"\x03\x00\x00\x13\x0e\xe0\x00\x00\x00\x00\x00\x01\x00\x08")),
        ("SMB", (Client, b"\x00\x00\x00\x45\xffSMB\x72\x00")),
        ("SMTP", (Server, b"220 mail.example.com ESMTP Postfix\r\n")),
        ("FTP", (Server, b"220 (vsFTPd 3.0.5)\r\n")),
        ("IMAP", (Server, b"* OK ready\r\n")),
        ("NATS", (Server, b"INFO {\"server_id\":\"x\"}\r\n")),
        ("VNC", (Server, b"RFB 003.008\n")),
        ("rsync", (Server, b"@RSYNCD: 31.0\n")),
    ] {
        assert_eq!(events(1, &[flow]), [Event::Unidentified], "{name}");
    }
}

#[test]
fn a_server_that_speaks_first_is_not_waited_for() {
    let request: (Side, &[u8]) = (Client, b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(events(1, &[(Server, b"220 hello\r\n"), request]), [Event::Unidentified]);
    assert_eq!(needs(&[(Server, b"22")]), (Need::Nothing, Need::Nothing));
}

#[test]
fn what_the_second_side_sends_is_kept_up_to_a_limit() {
    let some = vec![b'x'; MAX_SECOND];
    let start: (Side, &[u8]) = (Client, b"GET / ");
    let end: (Side, &[u8]) = (Client, b"HTTP/1.1\r\n\r\n");
    let fits = [start, (Server, &*some), end];
    assert_eq!(events(1, &fits), [Event::Application(AppId::HTTP), Event::Request]);
    let late = [start, (Server, &b"HTTP/1.1 200 OK\r\nServer: nginx\r\n\r\n"[..]), end];
    assert!(events(1, &late).contains(&Event::ServerSoftware(AppId::NGINX)));
    let flood = [start, (Server, &*some), (Server, b"x"), end];
    assert_eq!(events(1, &flood), [Event::Unidentified]);
}

#[test]
fn a_beginning_that_decides_nothing_is_given_up_at_its_limit() {
    let endless = [&b"FETCH /"[..], &vec![b'a'; 2 * MAX_LINE]].concat();
    let all = seen(&all_on(), 1, &[(Client, &endless)]);
    assert_eq!(all.events, [Event::Unidentified]);
    assert!(all.held <= MAX_LINE, "{}", all.held);
}

#[test]
fn a_flow_that_ends_early_is_unidentified_once() {
    assert_eq!(events(1, &[(Client, b"GE")]), [Event::Unidentified]);
    assert_eq!(events(1, &[]), [Event::Unidentified]);
    let mut inspector = FlowInspector::new(all_on(), 1);
    let mut events = Vec::new();
    let interest = inspector.end(Client, &mut events);
    assert_eq!((interest.client, interest.server), (Need::Nothing, Need::Bytes));
    inspector.feed(Server, b"SSH-2.0-x\r\n", &mut events);
    assert_eq!(events, [Event::Application(AppId::SSH)], "a client need not speak");
    assert_eq!(inspector.app(), Some(AppId::SSH));
    assert!(inspector.end(Server, &mut events).is_over());
    assert!(inspector.end(Server, &mut events).is_over());
    assert_eq!(events.len(), 1);
}

#[test]
fn bytes_that_were_missed_end_the_race() {
    let mut inspector = FlowInspector::new(all_on(), 1);
    let mut events = Vec::new();
    assert!(inspector.skip(Client, 1, &mut events).is_over());
    assert_eq!(events, [Event::Unidentified]);
}

#[test]
fn a_flow_is_small() {
    assert!(size_of::<FlowInspector>() <= 160, "{}", size_of::<FlowInspector>());
}
