//! HTTP/2 flows by hand; recorded ones are in the corpus.

use outrider_model::{
    AppId,
    Side::{Client, Server},
};

use super::{MAX_BLOCK, PREFACE};
use crate::{
    Event, FlowInspector, Need,
    testing::{all_on, events, seen},
};

const HTTP: Event = Event::Application(AppId::HTTP);

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `:authority: example.com` as a literal that is indexed, after `:method: GET`.
const BLOCK: &[u8] = b"\x82\x41\x0bexample.com\x84";

fn settings() -> Vec<u8> {
    frame(4, 0, 0, &[0, 3, 0, 0, 0, 100])
}

fn client(frames: &[Vec<u8>]) -> Vec<Event> {
    let stream = [PREFACE.to_vec(), settings(), frames.concat()].concat();
    events(8080, &[(Client, &stream)])
}

fn host() -> Event {
    Event::Host("example.com".into())
}

#[test]
fn is_http_at_the_preface() {
    assert_eq!(events(8080, &[(Client, PREFACE)]), [HTTP]);
    assert_eq!(events(8080, &[(Client, &PREFACE[..23])]), [Event::Unidentified]);
    let wrong = PREFACE.map(|byte| if byte == b'S' { b's' } else { byte });
    assert_eq!(events(8080, &[(Client, &wrong)]), [Event::Unidentified]);
}

#[test]
fn says_the_host_of_the_first_request_and_counts_all() {
    let seen = client(&[
        frame(1, 5, 1, BLOCK),
        frame(0, 1, 1, b"data"),
        frame(1, 4, 3, BLOCK),
        frame(1, 5, 3, b"trailers"),
        frame(1, 5, 2, BLOCK),
        frame(1, 5, 5, BLOCK),
    ]);
    let count = Event::Request;
    assert_eq!(seen, [HTTP, count.clone(), host(), count.clone(), count]);
}

#[test]
fn reads_padded_prioritised_and_continued_blocks() {
    let padded = [&[4, 0, 0, 0, 0, 15][..], BLOCK, &[0; 4]].concat();
    assert!(client(&[frame(1, 0x2c, 1, &padded)]).contains(&host()));
    let (first, rest) = BLOCK.split_at(5);
    let (second, third) = rest.split_at(3);
    let parts =
        [frame(1, 0, 1, first), frame(9, 0, 1, second), frame(9, 0, 1, b""), frame(9, 4, 1, third)];
    assert!(client(&parts).contains(&host()));
    let interrupted = client(&[frame(1, 0, 1, first), frame(0, 0, 1, b""), frame(9, 4, 1, rest)]);
    assert!(!interrupted.contains(&host()));
}

#[test]
fn reads_every_form_of_a_header() {
    let huffman = b"\x41\x88\x2f\x91\xd3\x5d\x05\x5c\x87\xa7";
    assert!(client(&[frame(1, 4, 1, huffman)]).contains(&host()));
    for block in [
        &b"\x01\x0bexample.com"[..],
        b"\x11\x0bExample.com",
        b"\x00\x0a:authority\x0fexample.com:443",
        b"\x40\x04host\x0bexample.com",
        b"\x3f\xe1\x1f\x66\x0bexample.com",
        b"\x0f\x17\x0bexample.com",
    ] {
        let seen = client(&[frame(1, 4, 1, block)]);
        assert_eq!(seen.len(), 3, "{block:?} {seen:?}");
    }
    for block in [
        &b""[..],
        b"\x41",
        b"\x41\x0bexample",
        b"\x41\x7f\xff\xff\xff\xff\x01example",
        b"\xff\xff\xff\xff\xff\xff\xff",
        b"\x41\x83\xff\xff\xff",
        b"\xbe\xc0",
        b"\x7e\x01x",
    ] {
        let seen = client(&[frame(1, 4, 1, block)]);
        assert_eq!(seen, [HTTP, Event::Request], "{block:?}");
    }
}

#[test]
fn names_the_server_software_of_the_first_response() {
    let response = frame(1, 4, 1, b"\x88\x76\x0cnginx/1.22.1");
    let server = [settings(), frame(4, 1, 0, b""), response].concat();
    let request = [PREFACE.to_vec(), settings(), frame(1, 5, 1, BLOCK)].concat();
    let flow = [(Client, &*request), (Server, &*server)];
    let seen = events(8080, &flow);
    assert_eq!(seen.last(), Some(&Event::ServerSoftware(AppId::NGINX)));
    let mut inspector = FlowInspector::new(all_on(), 8080);
    inspector.feed(Client, &request, &mut Vec::new());
    let interest = inspector.feed(Server, &server, &mut Vec::new());
    assert_eq!((interest.client, interest.server), (Need::Bytes, Need::Nothing));
}

#[test]
fn a_block_that_is_too_long_has_no_host() {
    let half = vec![0x84; MAX_BLOCK / 2];
    let fits = [frame(1, 0, 1, &half), frame(9, 4, 1, BLOCK)];
    assert!(client(&fits).contains(&host()));
    let long = [
        frame(1, 0, 1, &half),
        frame(9, 0, 1, &half),
        frame(9, 4, 1, BLOCK),
        frame(1, 5, 3, BLOCK),
    ];
    let stream = [PREFACE.to_vec(), settings(), long.concat()].concat();
    let seen = seen(&all_on(), 8080, &[(Client, &stream), (Server, &stream[24..])]);
    assert_eq!(seen.events, [HTTP, Event::Request, Event::Request]);
    assert!(seen.held <= MAX_BLOCK, "{}", seen.held);
}

#[test]
fn what_is_no_frame_ends_the_reading() {
    let stream = [PREFACE.to_vec(), frame(1, 5, 1, BLOCK), settings()].concat();
    assert_eq!(events(8080, &[(Client, &stream)]), [HTTP], "settings come first");
    let mut inspector = FlowInspector::new(all_on(), 8080);
    let interest = inspector.feed(Client, &stream, &mut Vec::new());
    assert_eq!((interest.client, interest.server), (Need::Nothing, Need::Bytes));
}

#[test]
fn data_is_opaque() {
    let mut inspector = FlowInspector::new(all_on(), 8080);
    let mut events = Vec::new();
    let data = &frame(0, 0, 1, &[0; 1000])[..109];
    let stream = [PREFACE.to_vec(), settings(), data.to_vec()].concat();
    assert_eq!(inspector.feed(Client, &stream, &mut events).client, Need::Skip(900));
    assert_eq!(inspector.skip(Client, 900, &mut events).client, Need::Bytes);
    assert_eq!(inspector.held(), 0);
}
