//! TLS flows, by hand; recorded ones are in the corpus.

use std::sync::Arc;

use outrider_model::{
    AppId,
    Side::{self, Client, Server},
    ThreatId,
};

use super::{HEARTBEAT_SLACK, MAX_HELLO};
use crate::{
    DpiConfig, Event, FlowInspector, MAX_NAME, Need,
    testing::{all_on, events, seen, threats},
};

const SSL: Event = Event::Application(AppId::SSL);

fn block8(body: &[u8]) -> Vec<u8> {
    [&[u8::try_from(body.len()).unwrap()], body].concat()
}

fn block16(body: &[u8]) -> Vec<u8> {
    [&u16::try_from(body.len()).unwrap().to_be_bytes(), body].concat()
}

fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &block16(body)].concat()
}

fn sni(name: &str) -> Vec<u8> {
    extension(0, &block16(&[&[0][..], &block16(name.as_bytes())].concat()))
}

fn alpn(protocols: &[&[u8]]) -> Vec<u8> {
    let list: Vec<u8> = protocols
        .iter()
        .flat_map(|protocol| block8(protocol))
        .collect();
    extension(16, &block16(&list))
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[kind], &length[1..], body].concat()
}

fn client_hello(version: u16, extensions: &[Vec<u8>]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    body.extend([7; 32]);
    body.extend(block8(&[9; 32]));
    body.extend(block16(&[0x13, 0x01, 0x00, 0xff]));
    body.extend(block8(&[0]));
    if !extensions.is_empty() {
        body.extend(block16(&extensions.concat()));
    }
    message(1, &body)
}

fn server_hello(version: u16, extensions: &[Vec<u8>]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    body.extend([7; 32]);
    body.extend(block8(&[]));
    body.extend([0x13, 0x01, 0]);
    body.extend(block16(&extensions.concat()));
    message(2, &body)
}

fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind, 3, 1][..], &block16(body)].concat()
}

fn hello(version: u16, extensions: &[Vec<u8>]) -> Vec<u8> {
    record(22, &client_hello(version, extensions))
}

fn client(bytes: &[u8]) -> Vec<Event> {
    events(443, &[(Client, bytes)])
}

fn old() -> Vec<u8> {
    hello(0x0303, &[])
}

#[test]
fn says_names_then_the_application() {
    let seen = client(&hello(
        0x0303,
        &[alpn(&[b"\x0a\x0a", b"h2", b"http/1.1"]), sni("Www.Example.Com.")],
    ));
    let (name, protocol) = (Event::Sni("www.example.com".into()), Event::Alpn("h2".into()));
    assert_eq!(seen, [name, protocol, SSL]);
    assert_eq!(client(&old()), [SSL]);
}

#[test]
fn puts_a_hello_together_from_records() {
    let whole = client_hello(0x0303, &[sni("a.example"), extension(21, &vec![0; 4000])]);
    for size in [1, 3, 100, 4000] {
        let stream: Vec<u8> = whole
            .chunks(size)
            .flat_map(|part| record(22, part))
            .collect();
        let seen = seen(&all_on(), 443, &[(Client, &stream)]);
        assert_eq!(seen.events, [Event::Sni("a.example".into()), SSL], "records of {size}");
    }
}

#[test]
fn a_hello_that_is_too_long_has_no_name() {
    let fitting = hello(0x0303, &[sni("a.example"), extension(21, &vec![0; MAX_HELLO - 200])]);
    assert_eq!(client(&fitting).len(), 2);
    let long = client_hello(0x0303, &[sni("a.example"), extension(21, &vec![0; MAX_HELLO])]);
    let stream: Vec<u8> = long
        .chunks(9000)
        .flat_map(|part| record(22, part))
        .collect();
    let seen = seen(&all_on(), 443, &[(Client, &stream)]);
    assert_eq!(seen.events, [SSL]);
    assert!(seen.held <= MAX_HELLO);
}

#[test]
fn names_that_are_none_are_not_said() {
    let long = "x".repeat(MAX_NAME + 1);
    for name in ["", "a b", "caf\u{e9}", &long] {
        assert_eq!(client(&hello(0x0303, &[sni(name)])), [SSL], "{name}");
    }
    let mut trailing = hello(0x0303, &[sni("a.example")]);
    let length = trailing.len();
    trailing[length - 12] ^= 1;
    assert_eq!(client(&trailing), [SSL], "a list whose length is wrong");
    let many: Vec<_> = (0..200)
        .map(|_| extension(0x4444, &[]))
        .chain([sni("a")])
        .collect();
    assert_eq!(client(&hello(0x0303, &many)), [SSL], "too many extensions");
    let twice = client(&hello(0x0303, &[sni("a"), sni("b")]));
    assert_eq!(twice, [Event::Sni("a".into()), SSL]);
}

#[test]
fn every_cut_hello_is_still_tls() {
    let whole = client_hello(0x0303, &[sni("a.example"), alpn(&[b"h2"])]);
    for cut in 1..whole.len() {
        let mut part = message(1, &whole[4..cut.max(4)]);
        if cut < 4 {
            part.truncate(cut);
        }
        let seen = client(&record(22, &part));
        assert_eq!(seen.last(), Some(&SSL), "cut at {cut}");
    }
    for cut in 0..6 {
        assert_eq!(client(&hello(0x0303, &[])[..cut]), [Event::Unidentified], "cut at {cut}");
    }
}

#[test]
fn old_versions_are_threats_by_the_hello_not_the_record() {
    let supported = |versions: &[u16]| {
        let list: Vec<u8> = versions
            .iter()
            .flat_map(|version| version.to_be_bytes())
            .collect();
        extension(43, &block8(&list))
    };
    for (hello, wanted) in [
        (hello(0x0300, &[]), Some((ThreatId::SSL_VERSION, "client offers SSL 3.0 at most"))),
        (hello(0x0301, &[]), Some((ThreatId::TLS_1_0, "client offers TLS 1.0 at most"))),
        (hello(0x0302, &[]), Some((ThreatId::TLS_1_1, "client offers TLS 1.1 at most"))),
        (hello(0x0303, &[]), None),
        (hello(0x0303, &[supported(&[0x1a1a, 0x0304, 0x0301])]), None),
        (
            hello(0x0303, &[supported(&[0x0a0a, 0x0302, 0x0301])]),
            Some((ThreatId::TLS_1_1, "client offers TLS 1.1 at most")),
        ),
    ] {
        let seen = client(&hello);
        let wanted: Vec<_> = wanted
            .into_iter()
            .map(|(id, text)| (id, Client, text))
            .collect();
        assert_eq!(threats(&seen), wanted);
        assert_eq!(seen[0], SSL, "the application comes first");
    }
}

#[test]
fn a_version_is_reported_once_per_flow() {
    let answer = record(22, &server_hello(0x0301, &[]));
    let same = events(443, &[(Client, &hello(0x0301, &[])), (Server, &answer)]);
    assert_eq!(threats(&same).len(), 1);
    let lower = events(443, &[(Client, &old()), (Server, &answer)]);
    assert_eq!(threats(&lower), [(ThreatId::TLS_1_0, Server, "server chose TLS 1.0")]);
}

#[test]
fn versions_that_are_not_looked_for_are_no_threat() {
    let config = Arc::new(DpiConfig::default());
    let quiet = seen(&config, 443, &[(Client, &hello(0x0301, &[]))]);
    assert_eq!(quiet.events, [SSL]);
    let loud = seen(&config, 443, &[(Client, &hello(0x0300, &[]))]);
    assert_eq!(threats(&loud.events).len(), 1);
}

#[test]
fn ssl_2_is_a_threat() {
    let body = [&[1, 0, 2, 0, 3, 0, 0, 0, 16, 1, 0, 0x80][..], &[5; 16]].concat();
    let v2 = [&[0x80, u8::try_from(body.len()).unwrap()][..], &body].concat();
    let wanted = (ThreatId::SSL_VERSION, Client, "client hello of SSL 2.0");
    assert_eq!(threats(&client(&v2)), [wanted]);
    let mut compatible = v2.clone();
    compatible[3..5].copy_from_slice(&[3, 1]);
    assert_eq!(threats(&client(&compatible)), [wanted]);
    let mut overflowing = v2.clone();
    overflowing[6] = 30;
    let overflow = (ThreatId::CIPHER_OVERFLOW, Client, "ciphers exceed the SSL 2.0 hello");
    assert_eq!(threats(&client(&overflowing)), [wanted, overflow]);
    for (at, value) in [(0, 0x40), (2, 4), (3, 1), (4, 3), (6, 4), (6, 0), (8, 3), (10, 8)] {
        let mut wrong = v2.clone();
        wrong[at] = value;
        assert_eq!(client(&wrong), [Event::Unidentified], "byte {at} = {value}");
    }
}

fn heartbeat(asked: u16, payload: &[u8]) -> Vec<u8> {
    record(24, &[&[1][..], &asked.to_be_bytes(), payload].concat())
}

#[test]
fn a_heartbeat_that_asks_for_more_than_it_sends_is_a_threat() {
    let answer = record(22, &server_hello(0x0302, &[]));
    let bleed = heartbeat(0x4000, b"");
    let wanted = "heartbeat asks for 16384 bytes but sends 0";
    for flow in [
        vec![(Client, old()), (Client, bleed.clone())],
        vec![(Client, old()), (Server, answer.clone()), (Client, bleed.clone())],
    ] {
        let flow: Vec<(Side, &[u8])> = flow.iter().map(|(side, bytes)| (*side, &**bytes)).collect();
        let seen = events(443, &flow);
        assert!(threats(&seen).contains(&(ThreatId::HEARTBLEED, Client, wanted)), "{seen:?}");
    }
    let both = [old(), bleed.clone(), bleed].concat();
    assert_eq!(threats(&client(&both)).len(), 2, "each of them");
    let server = events(443, &[(Client, &old()), (Server, &heartbeat(2000, b"abc"))]);
    assert_eq!(threats(&server)[0].1, Server);
}

#[test]
fn plain_and_encrypted_heartbeats_are_no_threat() {
    let limit = heartbeat(HEARTBEAT_SLACK + 4, b"abcd");
    assert_eq!(threats(&client(&[old(), limit].concat())), []);
    let more = heartbeat(HEARTBEAT_SLACK + 5, b"abcd");
    assert_eq!(threats(&client(&[old(), more.clone()].concat())).len(), 1);
    let response = record(24, &[2, 0xff, 0xff, 0]);
    let short = record(24, &[1, 0xff]);
    assert_eq!(threats(&client(&[old(), response, short].concat())), []);
    for encrypts in [record(20, &[1]), record(23, &[0; 40])] {
        let seen = client(&[old(), encrypts, more.clone()].concat());
        assert_eq!(threats(&seen), []);
    }
}

#[test]
fn stops_where_nothing_can_be_read() {
    let chosen = extension(43, &[3, 4]);
    let answer = record(22, &server_hello(0x0303, &[chosen]));
    assert!(seen(&all_on(), 443, &[(Client, &old()), (Server, &answer)]).over, "TLS 1.3");
    let config = DpiConfig::default().with_threat(ThreatId::HEARTBLEED, false);
    let answer = record(22, &server_hello(0x0303, &[]));
    let flow: [(Side, &[u8]); 2] = [(Client, &old()), (Server, &answer)];
    assert!(!seen(&all_on(), 443, &flow).over, "heartbeats may follow");
    assert!(seen(&Arc::new(config), 443, &flow).over, "not looked for");
    let no_tls = [(Client, &*old()), (Server, &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..])];
    let mut inspector = FlowInspector::new(all_on(), 443);
    let mut last = None;
    for (side, bytes) in no_tls {
        last = Some(inspector.feed(side, bytes, &mut Vec::new()));
    }
    assert_eq!(last.map(|interest| interest.server), Some(Need::Nothing));
}

#[test]
fn record_bodies_are_opaque() {
    let mut inspector = FlowInspector::new(all_on(), 443);
    let mut events = Vec::new();
    inspector.feed(Client, &old(), &mut events);
    let certificate = [&[22, 3, 3, 0x10, 0][..], &[11, 0, 0x0f, 0xfc]].concat();
    assert_eq!(inspector.feed(Client, &certificate, &mut events).client, Need::Skip(0x1000 - 4));
    assert_eq!(inspector.skip(Client, 0x1000 - 4, &mut events).client, Need::Bytes);
    assert_eq!(
        inspector
            .feed(Client, &record(20, &[1]), &mut events)
            .client,
        Need::Nothing
    );
    assert_eq!(events, [SSL]);
}

#[test]
fn refuses_what_is_no_client_hello() {
    for (at, value) in [(0, 23), (1, 2), (2, 5), (3, 0x41), (5, 2)] {
        let mut wrong = old();
        wrong[at] = value;
        assert_eq!(client(&wrong), [Event::Unidentified], "byte {at} = {value}");
    }
    assert_eq!(client(&[22, 3, 1, 0, 0, 1]), [Event::Unidentified], "an empty record");
}
