//! MySQL flows by hand, laid out as MySQL 8.0 does; recorded ones of MariaDB are in the corpus.

use outrider_model::{
    AppId,
    Side::{Client, Server},
    ThreatId,
};

use super::{COMPRESSED, MAX_USER, PROTOCOL_41, TLS};
use crate::{
    Event,
    testing::{events, threats},
};

const MYSQL: Event = Event::Application(AppId::MYSQL);
const OK: &[u8] = &[7, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0];

fn packet(sequence: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_le_bytes();
    [&length[..3], &[sequence], body].concat()
}

/// A greeting of MySQL 8.0.36: capabilities, charset 255, autocommit, 21 bytes of scramble.
fn greeting() -> Vec<u8> {
    let mut body = b"\x0a8.0.36\0".to_vec();
    body.extend([0x0b, 0, 0, 0]);
    body.extend(b"abcdefgh\0");
    body.extend([0xff, 0xff, 0xff, 0x02, 0, 0xff, 0xdf, 21]);
    body.extend([0; 10]);
    body.extend(b"ijklmnopqrst\0caching_sha2_password\0");
    packet(0, &body)
}

fn login_as(flags: u32, user: &str) -> Vec<u8> {
    let mut body = (flags | PROTOCOL_41).to_le_bytes().to_vec();
    body.extend([0, 0, 0, 1, 255]);
    body.extend([0; 23]);
    body.extend(user.as_bytes());
    body.extend(b"\0\x14aaaaaaaaaaaaaaaaaaaashop\0caching_sha2_password\0");
    packet(1, &body)
}

fn denied(code: u16) -> Vec<u8> {
    let code = code.to_le_bytes();
    packet(2, &[&[0xff][..], &code, b"#28000Access denied for user 'bob'@'10.0.0.3'"].concat())
}

fn flow(login: &[u8], server: &[u8], then: &[u8]) -> Vec<Event> {
    events(3306, &[(Server, &greeting()), (Client, login), (Server, server), (Client, then)])
}

#[test]
fn recognises_greetings_and_refusals() {
    let nine = packet(0, b"\x093.20.32\0\x05\0\0\0abcdefgh\0");
    let blocked = packet(0, b"\xff\x6a\x04Host '10.0.0.3' is not allowed to connect");
    let short = packet(0, b"\x0a4.0.1\0\x05\0\0\0abcdefgh\0\x2c\x20");
    let old = packet(
        0,
        b"\x0a4.1.22\0\x05\0\0\0abcdefgh\0\x2c\x82\x08\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0ijklmnopqrst\0",
    );
    for server in [greeting(), nine, blocked, short, old] {
        assert_eq!(events(3306, &[(Server, &server)]), [MYSQL], "{server:?}");
    }
}

#[test]
fn refuses_what_is_no_greeting() {
    let mut extra = greeting();
    extra.splice(0..1, [extra[0] + 1]);
    extra.push(b'x');
    assert_eq!(events(3306, &[(Server, &extra)]), [Event::Unidentified], "more than announced");
    for (at, value) in [(1, 3), (2, 1), (3, 1), (4, 11), (5, b'x'), (6, 1), (24, 1), (32, 60)] {
        let mut wrong = greeting();
        wrong[at] = value;
        assert_eq!(events(3306, &[(Server, &wrong)]), [Event::Unidentified], "byte {at}");
    }
    for cut in 1..greeting().len() {
        let seen = events(3306, &[(Server, &greeting()[..cut])]);
        assert_eq!(seen, [Event::Unidentified], "cut at {cut}");
    }
    let error = packet(0, b"\xff\x15\x04#28000no");
    assert_eq!(
        events(3306, &[(Server, &error)]),
        [Event::Unidentified],
        "not an error to begin with"
    );
    assert_eq!(events(3306, &[(Client, &login_as(0, "bob"))]), [Event::Unidentified]);
}

#[test]
fn a_refused_login_is_a_threat_with_the_user() {
    for code in [1044, 1045] {
        let seen = flow(&login_as(0, "bob"), &denied(code), b"");
        let message = format!("login of \"bob\" refused, error {code}");
        assert_eq!(threats(&seen), [(ThreatId::MYSQL_DENIED, Server, &*message)]);
    }
    assert_eq!(threats(&flow(&login_as(0, "bob"), &denied(1049), b"")), []);
}

#[test]
fn the_user_is_found_in_every_login() {
    let after_switch =
        [packet(2, &[&[0xfe][..], b"mysql_native_password\0abc\0"].concat()), denied(1045)];
    let seen = flow(&login_as(0, "bob"), &after_switch.concat(), b"");
    assert_eq!(threats(&seen).len(), 1, "after a change of method");
    let old = packet(1, b"\x05\0\0\0\x01carol\0secret");
    let seen = flow(&old, &denied(1045), b"");
    assert_eq!(threats(&seen)[0].2, "login of \"carol\" refused, error 1045");
    let long = "u".repeat(2 * MAX_USER);
    let seen = flow(&login_as(0, &long), &denied(1045), b"");
    assert_eq!(threats(&seen)[0].2.len(), crate::MAX_MESSAGE);
    let strange = flow(&login_as(0, "b\n\u{e9}"), &denied(1045), b"");
    assert_eq!(threats(&strange)[0].2, "login of \"b\\né\" refused, error 1045");
}

#[test]
fn counts_queries_after_the_login() {
    let queries = [
        packet(0, b"\x03select 1"),
        packet(0, b"\x0e"),
        packet(0, b"\x17\x01\0\0\0\0\x01\0\0\0"),
        packet(1, b"\x03not a command"),
        packet(0, b""),
        packet(0, b"\x01"),
    ];
    let seen = flow(&login_as(0, "bob"), OK, &queries.concat());
    assert_eq!(seen, [MYSQL, Event::Request, Event::Request]);
}

#[test]
fn stops_at_encryption_and_compression() {
    let query = packet(0, b"\x03select 1");
    let tls = packet(1, &[&(TLS | PROTOCOL_41).to_le_bytes()[..], &[0; 28]].concat());
    assert_eq!(flow(&tls, OK, &query), [MYSQL]);
    assert_eq!(flow(&login_as(COMPRESSED, "bob"), OK, &query), [MYSQL]);
    let offered = flow(&login_as(TLS, "bob"), OK, &query);
    assert_eq!(offered, [MYSQL, Event::Request], "a whole login is no request for TLS");
    assert_eq!(flow(&packet(1, b"x"), OK, &query), [MYSQL], "no login");
    let empty = flow(&login_as(0, "bob"), &packet(2, b""), &query);
    assert_eq!(empty, [MYSQL]);
}
