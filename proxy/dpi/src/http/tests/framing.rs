//! What two readers may frame differently.

use outrider_model::{
    Side::{self, Client, Server},
    ThreatId,
};

use super::{HTTP, client, requests};
use crate::{
    MAX_MESSAGE,
    testing::{all_on, events, seen, threats},
};

const TWO_LENGTHS: &str = "two Content-Length values that differ";
const BOTH: &str = "both Content-Length and Transfer-Encoding";
const NOT_CHUNKED: &str = "Transfer-Encoding does not end in chunked";
const OLD: &str = "Transfer-Encoding in an HTTP/1.0 message";
const NO_NUMBER: &str = "Content-Length is not a number";
const FOLDED: &str = "framing header is folded";
const MISSPELT: &str = "framing header with a malformed name";
const BARE_CR: &str = "bare carriage return beside a framing header";
const MIXED: &str = "line ends mixed beside a framing header";
const CHUNK: &str = "malformed chunk size";
const LONG: &str = "framing header is too long";

/// A request with these header lines and what follows them; its only finding.
fn finding(rest: &str) -> Option<(ThreatId, Side, String)> {
    let request = format!("POST / HTTP/1.1\r\nHost: a\r\n{rest}");
    let after = b"GET / HTTP/1.1\r\n\r\n";
    let flow: [(Side, &[u8]); 2] = [(Client, request.as_bytes()), (Client, after)];
    let seen = seen(&all_on(), 80, &flow);
    let found = threats(&seen.events);
    assert!(found.len() <= 1, "{rest:?}: {found:?}");
    assert_eq!(seen.over, !found.is_empty(), "{rest:?}: reading ends with a finding");
    found
        .first()
        .map(|(id, side, text)| (*id, *side, (*text).to_owned()))
}

/// What follows a request's first header, and the finding.
const AMBIGUOUS: &[(&str, &str)] = &[
    ("Content-Length: 5\r\nContent-Length: 6\r\n\r\n", TWO_LENGTHS),
    ("Content-Length: 5, 6\r\n\r\n", TWO_LENGTHS),
    ("content-length:0\r\nX: y\r\nCONTENT-LENGTH: 1\r\n\r\n", TWO_LENGTHS),
    ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", BOTH),
    ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", BOTH),
    ("Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\n", BOTH),
    ("Transfer-Encoding: gzip\r\n\r\n", NOT_CHUNKED),
    ("Transfer-Encoding: chunked, gzip\r\n\r\n", NOT_CHUNKED),
    ("Transfer-Encoding: chunked, chunked\r\n\r\n", NOT_CHUNKED),
    ("Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n", NOT_CHUNKED),
    ("Transfer-Encoding: xchunked\r\n\r\n", NOT_CHUNKED),
    ("Transfer-Encoding: \u{b}chunked\r\n\r\n", NOT_CHUNKED),
    ("Transfer-Encoding: \"chunked\"\r\n\r\n", NOT_CHUNKED),
    ("Transfer-Encoding: chunked;q=1\r\n\r\n", NOT_CHUNKED),
    ("Transfer-Encoding: \r\n\r\n", NOT_CHUNKED),
    ("Transfer-Encoding: chunked,\r\n\r\n", NOT_CHUNKED),
    ("Content-Length: +5\r\n\r\n", NO_NUMBER),
    ("Content-Length: 0x5\r\n\r\n", NO_NUMBER),
    ("Content-Length: 5 5\r\n\r\n", NO_NUMBER),
    ("Content-Length: 5;x\r\n\r\n", NO_NUMBER),
    ("Content-Length:\r\n\r\n", NO_NUMBER),
    ("Content-Length: 5,\r\n\r\n", NO_NUMBER),
    ("Content-Length: 9223372036854775808\r\n\r\n", NO_NUMBER),
    ("Content-Length: 99999999999999999999999\r\n\r\n", NO_NUMBER),
    ("Content-Length: 5\r\n 6\r\n\r\n", FOLDED),
    ("Transfer-Encoding:\r\n chunked\r\n\r\n", FOLDED),
    ("X: y\r\n\tTransfer-Encoding: chunked\r\n\r\n", FOLDED),
    ("X: y\r\n \r\nGET / HTTP/1.1\r\n\r\n", FOLDED),
    ("Transfer-Encoding : chunked\r\n\r\n", MISSPELT),
    ("Content-Length\t: 5\r\n\r\n", MISSPELT),
    ("\u{b}Transfer-Encoding: chunked\r\n\r\n", MISSPELT),
    ("Transfer\0-Encoding: chunked\r\n\r\n", MISSPELT),
    ("Transfer-Encoding chunked\r\n\r\n", MISSPELT),
    ("Content-Length\r\n\r\n", MISSPELT),
    ("\u{feff}Content-Length: 5\r\n\r\n", MISSPELT),
    ("Content-Length: 5\r\r\n\r\n", BARE_CR),
    ("Transfer-Encoding: chu\rnked\r\n\r\n", BARE_CR),
    ("X: y\rTransfer-Encoding: chunked\r\n\r\n", BARE_CR),
    ("X: y\nContent-Length: 5\r\n\r\n", MIXED),
    ("X: y\r\nContent-Length: 5\n\r\n", MIXED),
    ("Content-Length: 5\r\n\n", MIXED),
    ("Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n", CHUNK),
    ("Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n", CHUNK),
    ("Transfer-Encoding: chunked\r\n\r\n\r\n", CHUNK),
    ("Transfer-Encoding: chunked\r\n\r\n 5\r\nhello\r\n", CHUNK),
    ("Transfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n", CHUNK),
    ("Transfer-Encoding: chunked\r\n\r\n5 5\r\nhello\r\n", CHUNK),
    ("Transfer-Encoding: chunked\r\n\r\n5;a\rb\r\nhello\r\n", CHUNK),
    ("Transfer-Encoding: chunked\r\n\r\n00000000000000005\r\nhello\r\n", CHUNK),
    ("Transfer-Encoding: chunked\r\n\r\n100000000\r\n", "chunk size beyond 32 bits"),
    ("Transfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n", "chunk data does not end in CR LF"),
    ("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\n", "chunk data does not end in CR LF"),
    (
        "Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n",
        "framing header in the trailer",
    ),
    ("Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length : 5\r\n\r\n", MISSPELT),
    ("\r\nGET\u{1}/ HTTP/1.1\r\n\r\n", "malformed request line after a request"),
    ("\r\n GET / HTTP/1.1\r\n\r\n", "malformed request line after a request"),
    ("\r\nGET / HTTP/1.1\rX\r\n\r\n", "malformed request line after a request"),
];

#[test]
fn ambiguous_requests_are_smuggling() {
    for (rest, message) in AMBIGUOUS {
        let wanted = Some((ThreatId::SMUGGLING, Client, (*message).to_owned()));
        assert_eq!(finding(rest), wanted, "{rest:?}");
        assert!(message.len() <= MAX_MESSAGE);
    }
}

#[test]
fn negative_lengths_have_their_own_threat() {
    for (rest, message) in [
        ("Content-Length: -1\r\n\r\n", "negative Content-Length"),
        ("Content-Length: 5, -5\r\n\r\n", "negative Content-Length"),
        ("Transfer-Encoding: chunked\r\n\r\n80000000\r\n", "chunk size with bit 31 set"),
        ("Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\n", "chunk size with bit 31 set"),
    ] {
        let wanted = Some((ThreatId::NEGATIVE_LENGTH, Client, message.to_owned()));
        assert_eq!(finding(rest), wanted, "{rest:?}");
    }
    let largest = "Transfer-Encoding: chunked\r\n\r\n7fffffff\r\n";
    assert_eq!(finding(largest), None);
}

#[test]
fn plain_framing_is_no_threat() {
    for rest in [
        "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        "Content-Length: 5, 5\r\n\r\nhello",
        "Content-Length:5 \t\r\n\r\nhello",
        "Content-Length: 005\r\n\r\nhello",
        "Transfer-Encoding: CHUNKED\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "Transfer-Encoding: gzip, chunked\r\n\r\n5;ext=\"v\"\r\nhello\r\n0\r\nX: y\r\n\r\n",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n00\r\n\r\n",
        "X: a\r\n b\r\n\r\n",
        "X: a\rb\r\n\r\n",
        "X-Content-Length: 5\r\nContent-Length-X: 9\r\nTransferEncoding: chunked\r\n\r\n",
        "TE: trailers\r\nContent-Type: a/b\r\n\r\n",
        "no colon here\r\n\r\n",
        "X: y\n\r\n",
        "\r\n\r\n\r\n",
    ] {
        assert_eq!(finding(rest), None, "{rest:?}");
        let request = format!("POST / HTTP/1.1\r\n{rest}GET / HTTP/1.1\r\n\r\n");
        assert_eq!(requests(&client(request.as_bytes())), 2, "{rest:?}");
    }
    let bare = b"POST / HTTP/1.0\nContent-Length: 5\n\nhelloGET / HTTP/1.0\n\n";
    let seen = client(bare);
    assert_eq!((threats(&seen), requests(&seen)), (vec![], 2), "line feeds throughout");
}

#[test]
fn transfer_encoding_is_not_for_http_1_0() {
    let old = b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(threats(&client(old)), [(ThreatId::SMUGGLING, Client, OLD)]);
}

#[test]
fn a_framing_header_has_a_longest_line() {
    let spaces = " ".repeat(crate::bytes::MAX_LINE);
    let wanted = Some((ThreatId::SMUGGLING, Client, LONG.to_owned()));
    assert_eq!(finding(&format!("Content-Length:{spaces}5\r\n\r\n")), wanted);
    let extension = "x".repeat(crate::bytes::MAX_LINE);
    let chunk = format!("Transfer-Encoding: chunked\r\n\r\n5;{extension}\r\n");
    assert_eq!(finding(&chunk), Some((ThreatId::SMUGGLING, Client, CHUNK.to_owned())));
}

#[test]
fn responses_are_judged_too() {
    for (rest, message) in [
        ("Content-Length: 5\r\nContent-Length: 6\r\n\r\n", Some(TWO_LENGTHS)),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", Some(BOTH)),
        ("Transfer-Encoding: xchunked\r\n\r\n", Some(NOT_CHUNKED)),
        ("Transfer-Encoding: chunked\r\n\r\nzz\r\n", Some(CHUNK)),
        ("Transfer-Encoding: gzip\r\n\r\nuntil close", None),
        ("\r\nuntil close", None),
    ] {
        let response = format!("HTTP/1.1 200 OK\r\n{rest}");
        let flow: [(Side, &[u8]); 2] =
            [(Client, b"GET / HTTP/1.1\r\n\r\n"), (Server, response.as_bytes())];
        let wanted: Vec<_> = message
            .into_iter()
            .map(|text| (ThreatId::SMUGGLING, Server, text))
            .collect();
        assert_eq!(threats(&events(80, &flow)), wanted, "{rest:?}");
    }
}

#[test]
fn the_application_comes_before_the_finding() {
    let seen = client(b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n");
    assert_eq!(seen.first(), Some(&HTTP));
    assert_eq!(
        (seen.len(), requests(&seen)),
        (2, 0),
        "a head that is not understood is no request"
    );
}
