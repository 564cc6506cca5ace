use std::sync::Arc;

use outrider_model::AppId;
use proptest::prelude::*;

use super::*;
use crate::{DatagramInspector, DpiConfig};

const C: Side = Side::Client;
const S: Side = Side::Server;
const ID: &[u8] = b"\x83\x94\xc8\xf0\x3e\x51\x57\x08";

/// The client's Initial packets of RFC 9001, appendix A.2, and RFC 9369, appendix A.2.
const RFC: [&str; 2] = [include_str!("rfc9001-a2.hex"), include_str!("rfc9369-a2.hex")];

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text
        .chars()
        .filter(|digit| !digit.is_whitespace())
        .collect();
    digits
        .chunks(2)
        .map(|two| u8::from_str_radix(&two.iter().collect::<String>(), 16).unwrap())
        .collect()
}

fn events(flow: &[(Side, Vec<u8>)]) -> Vec<Event> {
    let mut inspector = DatagramInspector::new(Arc::new(DpiConfig::default()), 443);
    let mut events = Vec::new();
    for (side, datagram) in flow {
        inspector.feed(*side, datagram, &mut events);
    }
    inspector.end(&mut events);
    events
}

fn from_client(datagrams: &[Vec<u8>]) -> Vec<Event> {
    events(
        &datagrams
            .iter()
            .map(|datagram| (C, datagram.clone()))
            .collect::<Vec<_>>(),
    )
}

fn named(name: &str) -> Vec<Event> {
    vec![Event::Sni(name.into()), Event::Alpn("h3".into()), Event::Application(AppId::QUIC)]
}

const NAMELESS: [Event; 1] = [Event::Application(AppId::QUIC)];

/// A client hello that offers h3 to a server, with an extension that makes it so much longer.
fn hello(name: &str, longer: usize) -> Vec<u8> {
    let block =
        |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat();
    let names = block(&[&[0][..], &block(name.as_bytes())].concat());
    let mut extensions = [&[0, 0][..], &block(&names)].concat();
    extensions.extend([&[0, 16][..], &block(&block(b"\x02h3"))].concat());
    extensions.extend([&[0xfa, 0xfa][..], &block(&vec![0; longer])].concat());
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    body.extend(block(&extensions));
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[1][..], &length[1..], &body].concat()
}

fn number(value: usize) -> [u8; 4] {
    (u32::try_from(value).unwrap() | 0x8000_0000).to_be_bytes()
}

fn crypto(message: &[u8], part: std::ops::Range<usize>) -> Vec<u8> {
    [&[6][..], &number(part.start), &number(part.len()), &message[part]].concat()
}

fn datagram(at: u32, frames: &[u8]) -> Vec<u8> {
    initial(ID, b"", at, frames).unwrap()
}

#[test]
fn opens_the_packets_of_the_standards() {
    for text in RFC {
        let seen = from_client(&[hex(text)]);
        let expected =
            [Event::Sni("example.com".into()), Event::Alpn("alpn".into()), NAMELESS[0].clone()];
        assert_eq!(seen, expected);
    }
}

#[test]
fn seals_as_the_standard_does() {
    let packet = hex(RFC[0]);
    let keys = Keys::of_client(header::Version::One, ID).unwrap();
    let long = Long::read(&packet).unwrap();
    let frames = keys.open(&long).unwrap();
    let header = [&[0xc3][..], &packet[1..long.number_at]].concat();
    assert_eq!(keys.seal(&header, 2, &frames), Some(packet));
}

#[test]
fn a_hello_over_datagrams_in_any_order_is_one() {
    let message = hello("shop.example", 2_000);
    let cuts = [0..600, 600..1_200, 1_200..message.len()];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let datagrams: Vec<_> = (0..)
            .zip(order)
            .map(|(at, cut)| datagram(at, &crypto(&message, cuts[cut].clone())))
            .collect();
        assert_eq!(from_client(&datagrams), named("shop.example"), "{order:?}");
        let answered: Vec<_> = datagrams
            .iter()
            .flat_map(|datagram| [(C, datagram.clone()), (S, vec![0xc0; 1_200])])
            .collect();
        assert_eq!(events(&answered), named("shop.example"), "{order:?}, answered between");
        let one = packets(&message, &order.map(|cut| cuts[cut].clone()));
        assert_eq!(from_client(&[one]), named("shop.example"), "{order:?}, in one datagram");
    }
}

#[test]
fn what_is_kept_of_a_hello_is_said_until_it_is_whole() {
    let message = hello("shop.example", 2_000);
    let mut inspector = DatagramInspector::new(Arc::new(DpiConfig::default()), 443);
    let mut held = Vec::new();
    for (at, part) in (0..).zip([0..600, 1_200..1_800, 600..1_200, 1_800..message.len()]) {
        inspector.feed(C, &datagram(at, &crypto(&message, part)), &mut Vec::new());
        held.push(inspector.held());
    }
    assert_eq!(held, [600, 1_800, 1_800, 0]);
}

/// One datagram with a packet for each part, behind one of another kind.
fn packets(message: &[u8], parts: &[std::ops::Range<usize>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (at, part) in (0..).zip(parts) {
        bytes.extend(datagram(at, &crypto(message, part.clone())));
        // 0-RTT: a header like an Initial's without the token.
        bytes.extend([0xd0, 0, 0, 0, 1, 0, 0, 0x40, 20]);
        bytes.extend([9; 20]);
    }
    bytes
}

#[test]
fn a_server_that_is_seen_first_is_no_matter() {
    let message = hello("shop.example", 0);
    let whole = datagram(0, &crypto(&message, 0..message.len()));
    assert_eq!(events(&[(S, whole.clone()), (C, whole)]), named("shop.example"));
}

#[test]
fn other_frames_are_passed_over() {
    let message = hello("shop.example", 0);
    let acks = [&[1, 0, 2, 9, 0, 1, 0, 2, 3][..], &[3, 9, 0, 0, 0, 1, 2, 3]].concat();
    let frames = [&acks[..], &crypto(&message, 0..message.len())].concat();
    assert_eq!(from_client(&[datagram(0, &frames)]), named("shop.example"));
    let unknown = [&[0x1c][..], &crypto(&message, 0..message.len())].concat();
    assert_eq!(from_client(&[datagram(0, &unknown)]), NAMELESS);
}

#[test]
fn a_client_starts_again_after_a_retry() {
    let (first, second) = (hello("shop.example", 800), hello("other.example", 800));
    let asked = datagram(0, &crypto(&first, 0..500));
    let again = initial(b"another", b"token", 1, &crypto(&second, 0..second.len())).unwrap();
    assert_eq!(from_client(&[asked, again]), named("other.example"));
}

#[test]
fn what_cannot_be_opened_is_quic_without_names() {
    let message = hello("shop.example", 0);
    let whole = datagram(0, &crypto(&message, 0..message.len()));
    let mut wrong = whole.clone();
    *wrong.last_mut().unwrap() ^= 1;
    assert_eq!(from_client(&[wrong, whole.clone()]), NAMELESS);
    assert_eq!(events(&[(S, whole.clone()), (C, vec![0x40; 1_200])]), NAMELESS);
    assert_eq!(events(&[(S, whole.clone())]), NAMELESS);
    let mut draft = whole;
    draft[1..5].copy_from_slice(&[0xff, 0, 0, 0x1d]);
    assert_eq!(from_client(&[draft]), NAMELESS);
}

#[test]
fn what_is_repeated_stays_as_it_was() {
    let (first, second) = (hello("shop.example", 0), hello("evil.example", 0));
    let half = first.len() / 2;
    let frames = [
        crypto(&first, half..first.len()),
        crypto(&second, 10..second.len()),
        crypto(&first, 0..half),
    ];
    let seen = from_client(&[datagram(0, &frames.concat())]);
    let mut mixed = second[..half].to_vec();
    mixed[..10].copy_from_slice(&first[..10]);
    mixed.extend(&first[half..]);
    let (name, _) = tls::names(&mixed);
    assert_eq!(seen.first(), name.map(Event::Sni).as_ref());
}

#[test]
fn a_hello_has_a_limit() {
    let most = tls::MAX_HELLO - hello("shop.example", 0).len();
    for (longer, expected) in [(most, named("shop.example")), (most + 1, NAMELESS.to_vec())] {
        let message = hello("shop.example", longer);
        let parts = message.len().div_ceil(4_000);
        let datagrams: Vec<_> = (0..parts)
            .map(|at| {
                let part = at * 4_000..message.len().min((at + 1) * 4_000);
                datagram(u32::try_from(at).unwrap(), &crypto(&message, part))
            })
            .collect();
        assert_eq!(from_client(&datagrams), expected);
    }
}

#[test]
fn pieces_have_a_limit() {
    let message = hello("shop.example", 400);
    let every_second = |pieces: usize| -> Vec<u8> {
        (0..pieces)
            .flat_map(|at| crypto(&message, at * 2..at * 2 + 1))
            .collect()
    };
    let rest = crypto(&message, 0..message.len());
    let most = [every_second(64), rest.clone()].concat();
    assert_eq!(from_client(&[datagram(0, &most)]), named("shop.example"));
    let more = datagram(0, &every_second(65));
    assert_eq!(from_client(&[more, datagram(1, &rest)]), NAMELESS);
}

#[test]
fn datagrams_and_their_packets_have_a_limit() {
    let message = hello("shop.example", 0);
    let start = datagram(0, &crypto(&message, 0..9));
    let whole = datagram(1, &crypto(&message, 0..message.len()));
    for (wait, expected) in
        [(MAX_DATAGRAMS - 1, named("shop.example")), (MAX_DATAGRAMS, NAMELESS.to_vec())]
    {
        let mut datagrams = vec![start.clone(); wait.into()];
        datagrams.push(whole.clone());
        assert_eq!(from_client(&datagrams), expected, "{wait}");
    }
    for (packets, expected) in
        [(MAX_PACKETS - 1, named("shop.example")), (MAX_PACKETS, NAMELESS.to_vec())]
    {
        let mut bytes: Vec<u8> = (0..packets)
            .flat_map(|at| datagram(u32::try_from(at).unwrap(), &[1; 40]))
            .collect();
        bytes.extend(&whole);
        assert_eq!(from_client(&[bytes]), expected, "{packets}");
    }
}

#[test]
fn hostile_headers_are_survived() {
    let message = hello("shop.example", 0);
    let whole = datagram(0, &crypto(&message, 0..message.len()));
    for at in 0..40 {
        for value in [0, 1, 0x3f, 0x40, 0x7f, 0x80, 0xc0, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] = value;
            from_client(&[bytes.clone(), whole.clone()]);
            from_client(&[whole[..LEAST_FIRST].to_vec(), bytes]);
        }
    }
    for cut in 0..whole.len() {
        from_client(&[whole[..cut].to_vec()]);
    }
}

proptest! {
    #[test]
    fn cuts_and_order_never_matter(
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        keys in prop::collection::vec(any::<u32>(), 21),
        overlap in 0_usize..50,
        datagrams in 1_usize..10,
    ) {
        let message = hello("shop.example", 1_500);
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(message.len())).collect();
        cuts.extend([0, message.len()]);
        cuts.sort_unstable();
        let mut parts: Vec<_> = cuts.windows(2).map(|two| two[0].saturating_sub(overlap)..two[1]).zip(keys).collect();
        parts.sort_by_key(|(_, key)| *key);
        let each = parts.len().div_ceil(datagrams);
        let sent: Vec<_> = (0..)
            .zip(parts.chunks(each))
            .map(|(at, parts)| {
                let frames: Vec<_> = parts.iter().flat_map(|(part, _)| crypto(&message, part.clone())).collect();
                datagram(at, &frames)
            })
            .collect();
        prop_assert_eq!(from_client(&sent), named("shop.example"));
    }

    /// Frames that are what a client chose to send, in packets that open.
    #[test]
    fn any_frames_are_survived(frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 1..14)) {
        let datagrams: Vec<_> = (0..).zip(&frames).map(|(at, frames)| datagram(at, frames)).collect();
        let seen = from_client(&datagrams);
        prop_assert_eq!(seen.last(), Some(&NAMELESS[0]));
    }
}
