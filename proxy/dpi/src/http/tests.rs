//! HTTP flows, well-formed and not.

use std::sync::Arc;

use outrider_model::{
    AppId,
    Side::{self, Client, Server},
    ThreatId,
};

use super::{MAX_FIRST_HEAD, pending::MAX_PENDING, startline::MAX_METHOD};
use crate::{
    DpiConfig, Event, FlowInspector, Need,
    bytes::MAX_LINE,
    testing::{all_on, events, seen, threats},
};

mod framing;

pub(super) const HTTP: Event = Event::Application(AppId::HTTP);

pub(super) fn client(bytes: &[u8]) -> Vec<Event> {
    events(80, &[(Client, bytes)])
}

fn host(name: &str) -> Event {
    Event::Host(name.into())
}

pub(super) fn requests(events: &[Event]) -> usize {
    events
        .iter()
        .filter(|event| **event == Event::Request)
        .count()
}

/// An inspector that was fed, and the needs after it.
fn fed(flow: &[(Side, &[u8])]) -> (FlowInspector, Need, Need) {
    let mut inspector = FlowInspector::new(Arc::new(DpiConfig::default()), 80);
    let mut needs = (Need::Bytes, Need::Bytes);
    for (side, bytes) in flow {
        let interest = inspector.feed(*side, bytes, &mut Vec::new());
        needs = (interest.client, interest.server);
    }
    (inspector, needs.0, needs.1)
}

#[test]
fn says_host_then_application_then_request() {
    let seen = client(b"GET / HTTP/1.1\r\nHost: Example.com:80\r\n\r\n");
    assert_eq!(seen, [host("example.com"), HTTP, Event::Request]);
}

#[test]
fn recognises_request_lines_as_servers_do() {
    for line in [
        "GET / HTTP/1.0",
        "get / HTTP/1.1",
        "PROPFIND /a HTTP/1.1",
        "GET  /two  spaces\tand a tab HTTP/1.1 ",
        "\r\n\r\nGET / HTTP/1.1",
        "M-SEARCH * HTTP/1.1",
        "GET /\u{e9} HTTP/1.1",
        "GET / HTTP/2.0",
    ] {
        assert_eq!(client(format!("{line}\r\n\r\n").as_bytes()), [HTTP, Event::Request], "{line}");
        assert_eq!(client(format!("{line}\n\n").as_bytes()), [HTTP, Event::Request], "{line}");
    }
    assert_eq!(client(b"GET /index.html\r\n"), [HTTP, Event::Request]);
    let seen = client(b"OPTIONS rtsp://cam/1 RTSP/1.0\r\nCSeq: 1\r\n\r\n");
    assert_eq!(seen, [Event::Application(AppId::RTSP)]);
    let seen = client(b"OPTIONS sip:a@b SIP/2.0\r\nVia: x\r\n\r\n");
    assert_eq!(seen, [Event::Application(AppId::SIP)]);
}

#[test]
fn refuses_what_only_looks_like_a_request() {
    let long = "M".repeat(MAX_METHOD + 1) + " / HTTP/1.1";
    for line in [
        "EHLO mail.example.com",
        "get key",
        "GET",
        "POST /form",
        "PRI * HTTP/2.0",
        "GET / HTTP/1.x",
        "GET\u{1}/ HTTP/1.1",
        "G(T / HTTP/1.1",
        "1 / HTTP/1.1",
        "\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1",
        &long,
    ] {
        let seen = client(format!("{line}\r\n").as_bytes());
        assert_eq!(seen, [Event::Unidentified], "{line}");
    }
}

#[test]
fn a_longest_method_and_a_longest_request_line() {
    let longest = format!("{} / HTTP/1.1\r\n\r\n", "M".repeat(MAX_METHOD));
    assert_eq!(client(longest.as_bytes()), [HTTP, Event::Request]);
    let target = "x".repeat(MAX_LINE);
    let endless = format!("GET /{target} HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n\r\n");
    assert_eq!(client(endless.as_bytes()), [host("a"), HTTP, Event::Request, Event::Request]);
    let strange = format!("FETCH /{target} HTTP/1.1\r\n\r\n");
    assert_eq!(client(strange.as_bytes()), [Event::Unidentified]);
}

#[test]
fn counts_pipelined_requests_and_says_a_host_when_it_changes() {
    let seen = client(
        b"GET /1 HTTP/1.1\r\nHost: a.example\r\n\r\n\
          POST /2 HTTP/1.1\r\nhOST:A.example\r\nContent-Length: 5\r\n\r\nGET /\
          \r\n\r\nGET http://c.example:81/x HTTP/1.1\r\nHost: c.example\r\n\r\n\
          DELETE /3 HTTP/1.1\r\nHost: b.example\r\nHost: \r\n\r\n",
    );
    let count = Event::Request;
    let wanted = [
        host("a.example"),
        HTTP,
        count.clone(),
        count.clone(),
        host("c.example"),
        count.clone(),
        host("b.example"),
        count,
    ];
    assert_eq!(seen, wanted);
}

#[test]
fn does_not_wait_for_the_end_of_a_long_first_head() {
    let mut head = b"GET / HTTP/1.1\r\n".to_vec();
    while head.len() < 2 * MAX_FIRST_HEAD {
        head.extend(b"X-Filler: abcdefghijklmnopqrstuvwxyz\r\n");
    }
    head.extend(b"Host: late.example\r\n\r\n");
    assert_eq!(client(&head), [HTTP, host("late.example"), Event::Request]);
    assert_eq!(client(b"GET / HTTP/1.1\r\nX: y\r\n"), [HTTP], "at the end of the flow");
}

#[test]
fn where_a_first_head_gets_too_long_does_not_depend_on_the_cuts() {
    let filler = "X-Filler: abcdefghijklmnopqrstuvwxyz\r\n".repeat(MAX_FIRST_HEAD / 38);
    let mut orders = [0; 2];
    for more in 0..60 {
        let more = "y".repeat(more);
        let rest = format!("A: {more}\r\nB: c\r\nHost: a.example\r\n\r\n");
        let seen = client(format!("GET / HTTP/1.1\r\n{filler}{rest}").as_bytes());
        orders[usize::from(seen[0] == HTTP)] |= 1;
    }
    assert_eq!(orders, [1, 1], "both sides of the limit were tried");
}

#[test]
fn names_the_server_software_once() {
    for (value, app) in [
        ("nginx/1.22.1", Some(AppId::NGINX)),
        ("Apache/2.4.58 (Debian)", Some(AppId::APACHE)),
        ("Jetty(9.4.z)", Some(AppId::JETTY)),
        ("gws", None),
        ("", None),
    ] {
        let response = format!("HTTP/1.1 204 No Content\r\nServer: {value}\r\n\r\n").repeat(2);
        let request = b"GET / HTTP/1.1\r\n\r\n";
        let seen = events(80, &[(Client, request), (Server, response.as_bytes())]);
        let said = seen.iter().find_map(|event| match event {
            Event::ServerSoftware(app) => Some(*app),
            _ => None,
        });
        assert_eq!(said, app, "{value}");
        assert_eq!(seen.len(), 2 + usize::from(app.is_some()));
    }
}

#[test]
fn a_server_that_will_not_wait_is_recognised() {
    let late = b"HTTP/1.1 408 Request Time-out\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(events(80, &[(Server, late)]), [HTTP]);
    assert_eq!(events(80, &[(Client, b"GET / HT"), (Server, late)]), [Event::Unidentified]);
    let flow = [(Client, &b"GET / HTTP/1.1\r\nA: b"[..]), (Server, late), (Client, b"\r\n\r\n")];
    assert_eq!(events(80, &flow), [HTTP, Event::Request]);
    assert_eq!(events(80, &[(Server, b"HTTP/1.1 4o8 \r\n")]), [Event::Unidentified]);
}

#[test]
fn announces_bodies_of_known_length_as_opaque() {
    let head = b"PUT / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\nabc";
    let (mut inspector, client, server) = fed(&[(Client, head)]);
    assert_eq!((client, server), (Need::Skip(999_997), Need::Bytes));
    let mut events = Vec::new();
    assert_eq!(inspector.skip(Client, 999_996, &mut events).client, Need::Skip(1));
    assert_eq!(
        inspector
            .feed(Client, b"xGET / HTTP/1.1\r\n\r\n", &mut events)
            .client,
        Need::Bytes
    );
    assert_eq!(events, [Event::Request]);
    let response = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000\r\n";
    assert_eq!(inspector.feed(Server, response, &mut events).server, Need::Skip(0x10000));
    let interest = inspector.skip(Server, 0x10000, &mut events);
    assert_eq!(interest.server, Need::Bytes);
    assert_eq!(inspector.feed(Server, b"\r\n0\r\n\r\n", &mut events).server, Need::Bytes);
    assert_eq!(events.len(), 1);
}

#[test]
fn responses_are_framed_by_their_requests() {
    let flow: [(Side, &[u8]); 2] = [
        (Client, b"HEAD / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n"),
        (Server, b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n\
                   HTTP/1.1 103 Early Hints\r\n\r\n\
                   HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n\
                   HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc\
                   HTTP/1.1 200 OK\r\nServer: nginx\r\n\r\n"),
    ];
    let seen = events(80, &flow);
    assert_eq!(seen.last(), Some(&Event::ServerSoftware(AppId::NGINX)), "{seen:?}");
    assert_eq!(fed(&flow).2, Need::Nothing, "until the connection closes");
}

#[test]
fn a_switch_of_protocols_ends_the_reading() {
    let upgrade = b"GET /chat HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let switch = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x05hello";
    let flow: [(Side, &[u8]); 3] =
        [(Client, upgrade), (Server, switch), (Client, b"\x81\x85abcdefghi")];
    assert!(seen(&all_on(), 80, &flow).over);
    let connect = b"CONNECT db.example:5432 HTTP/1.1\r\n\r\n";
    let flow: [(Side, &[u8]); 2] = [(Client, connect), (Server, b"HTTP/1.0 200 ok\r\n\r\n")];
    let tunnel = seen(&all_on(), 80, &flow);
    assert!(tunnel.over);
    assert_eq!(tunnel.events, [host("db.example"), HTTP, Event::Request]);
}

#[test]
fn a_refused_switch_goes_on_as_http() {
    let connect = b"CONNECT a:1 HTTP/1.1\r\n\r\n";
    let refusal = b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 2\r\n\r\nno";
    let flow: [(Side, &[u8]); 3] =
        [(Client, connect), (Server, refusal), (Client, b"GET / HTTP/1.1\r\n\r\n")];
    assert_eq!(requests(&events(80, &flow)), 2);
    let unasked: [(Side, &[u8]); 3] = [
        (Client, b"GET / HTTP/1.1\r\n\r\n"),
        (Server, b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
        (Client, b"GET / HTTP/1.1\r\n\r\n"),
    ];
    assert_eq!(requests(&events(80, &unasked)), 2, "nobody asked for a switch");
    assert_eq!(fed(&unasked).2, Need::Nothing);
}

#[test]
fn bytes_that_are_no_request_end_the_client_side_quietly() {
    let hijacked = b"POST /attach HTTP/1.1\r\n\r\n\x01\x02raw\nGET / HTTP/1.1\r\n\r\n";
    let seen = client(hijacked);
    assert_eq!(seen, [HTTP, Event::Request]);
    let early = b"CONNECT a:1 HTTP/1.1\r\n\r\nGET\x01/ HTTP/1.1\r\n\r\n";
    assert_eq!(threats(&client(early)), [], "a tunnel may already be in use");
    let response: [(Side, &[u8]); 2] =
        [(Client, b"GET / HTTP/1.1\r\n\r\n"), (Server, b"ICY 200 OK\r\n\r\n")];
    assert_eq!(fed(&response).2, Need::Nothing);
}

#[test]
fn more_waiting_requests_than_can_be_kept_end_the_server_side() {
    let plain = b"GET / HTTP/1.1\r\n\r\n".repeat(2 * MAX_PENDING as usize);
    let (mut inspector, ..) = fed(&[(Client, &plain)]);
    let interest = inspector.feed(Client, b"HEAD / HTTP/1.1\r\n\r\n", &mut Vec::new());
    assert_eq!((interest.client, interest.server), (Need::Bytes, Need::Nothing));
}

#[test]
fn an_idle_flow_holds_nothing_but_its_host() {
    let (inspector, ..) = fed(&[(Client, b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")]);
    assert_eq!(inspector.held(), "a.example".len());
    assert!(size_of::<super::Http>() < 512, "{}", size_of::<super::Http>());
    let (inspector, client, server) = fed(&[(Client, b"GET /a\r\n")]);
    assert_eq!((client, server, inspector.held()), (Need::Nothing, Need::Nothing, 0));
}

#[test]
fn a_line_that_never_ends_is_kept_up_to_its_limit() {
    let mut stream = b"GET / HTTP/1.1\r\nCookie: ".to_vec();
    stream.extend(vec![b'c'; 4 * MAX_LINE]);
    let endless = seen(&all_on(), 80, &[(Client, &stream), (Server, &stream)]);
    assert!(endless.held <= MAX_LINE + 16, "{}", endless.held);
    assert_eq!(endless.events, [HTTP]);
}

#[test]
fn a_detector_that_is_off_still_ends_the_reading() {
    let config = DpiConfig::default().with_threat(ThreatId::SMUGGLING, false);
    let flow: [(Side, &[u8]); 1] =
        [(Client, b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n")];
    let quiet = seen(&Arc::new(config), 80, &flow);
    assert_eq!((quiet.events, quiet.over), (vec![HTTP], true));
}
