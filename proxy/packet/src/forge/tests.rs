use std::time::Duration;

use outrider_model::Side;
use proptest::prelude::*;

use super::*;
use crate::{
    Engine, Event, FlowEnd, Frame, Limits, LinkType,
    build::{self, Talk},
};

fn ends(v6: bool) -> (SocketAddr, SocketAddr) {
    if v6 {
        (SocketAddr::new("fd00::1".parse().unwrap(), 40_000), "[fd00::2]:443".parse().unwrap())
    } else {
        ("10.0.0.1:40000".parse().unwrap(), "10.0.0.2:443".parse().unwrap())
    }
}

/// Whether every checksum of a packet is right: what is added up, the sum included, gives all ones.
fn sums_are_right(packet: &[u8]) -> bool {
    let whole = |bytes: &[u8], before| fold(checked(bytes, before)) == [0, 0];
    if packet[0] >> 4 == 4 {
        let proto = packet[9];
        let before = match proto {
            1 => 0,
            _ => checked(&packet[12..20], u64::from(proto) + packet.len() as u64 - 20),
        };
        return whole(&packet[..20], 0) && whole(&packet[20..], before);
    }
    let before = checked(&packet[8..40], u64::from(packet[6]) + packet.len() as u64 - 40);
    whole(&packet[40..], before)
}

fn feed(engine: &mut Engine, packets: &[Vec<u8>]) -> Vec<String> {
    let mut events = Vec::new();
    for packet in packets {
        let frame = Frame {
            link: LinkType::Raw,
            at: Duration::from_secs(1),
            bytes: packet,
            wire: packet.len(),
        };
        engine.feed(&frame, &mut |event| events.push(format!("{event:?}")));
    }
    events
}

#[test]
fn a_segment_tells_what_both_ends_expect() {
    for v6 in [false, true] {
        let (client, server) = ends(v6);
        let talk = Talk::new(client, server).open().client(b"question").packet(
            false,
            build::FIN | build::ACK,
            b"answer",
        );
        let last = Glimpse::of(talk.packets.last().unwrap()).unwrap();
        assert_eq!((last.src, last.dst), (server, client));
        assert_eq!(last.end, last.seq.wrapping_add(7), "FIN counts");
        let [to_sender, to_receiver] = last.resets();
        assert!(sums_are_right(&to_sender) && sums_are_right(&to_receiver));
        let (one, other) = (Glimpse::of(&to_sender).unwrap(), Glimpse::of(&to_receiver).unwrap());
        assert_eq!((one.src, one.dst, Some(one.seq)), (client, server, last.ack));
        assert_eq!((other.src, other.dst, other.seq), (server, client, last.end));
        assert!(
            [one, other]
                .iter()
                .all(|reset| reset.rst && reset.forged && !last.forged)
        );
    }
}

#[test]
fn a_first_segment_is_refused() {
    let (client, server) = ends(false);
    let talk = Talk::new(client, server).packet(true, build::SYN, b"");
    let syn = Glimpse::of(&talk.packets[0]).unwrap();
    assert!(syn.syn && syn.ack.is_none());
    let [to_sender, to_receiver] = syn.resets().map(|reset| Glimpse::of(&reset).unwrap());
    assert_eq!((to_sender.seq, to_sender.ack), (0, Some(syn.seq.wrapping_add(1))));
    assert_eq!((to_receiver.seq, to_receiver.ack), (syn.seq.wrapping_add(1), None));
}

#[test]
fn the_engines_places_make_the_same_resets() {
    for v6 in [false, true] {
        let (client, server) = ends(v6);
        let talk = Talk::new(client, server)
            .open()
            .client(b"question")
            .server(b"answer");
        let mut engine = Engine::new(Limits::default());
        feed(&mut engine, &talk.packets);
        let flow = engine.flows().next().unwrap().flow;
        let place = engine.tcp(flow).unwrap();
        let last = Glimpse::of(talk.packets.last().unwrap()).unwrap();
        let at = Glimpse::at(client, server, place).unwrap();
        assert_eq!(at.resets(), last.resets());
        // The engine believes them: they are in the window, and end the flow.
        feed(&mut engine, &at.resets());
        let mut end = None;
        engine.finish(&mut |event| {
            if let Event::Closed(record) = event {
                end = Some(record.end);
            }
        });
        assert_eq!(end, Some(FlowEnd::Reset));
    }
}

#[test]
fn a_probe_carries_one_byte_that_was_long_sent() {
    for v6 in [false, true] {
        let (client, server) = ends(v6);
        let talk = Talk::new(client, server).open().client(b"question");
        let mut engine = Engine::new(Limits::default());
        feed(&mut engine, &talk.packets);
        let flow = engine.flows().next().unwrap().flow;
        let next = engine.tcp(flow).unwrap().client.unwrap().next;
        let packet = probe(client, server, next, 78);
        assert!(sums_are_right(&packet));
        let seen = Glimpse::of(&packet).unwrap();
        assert_eq!((seen.seq, seen.end), (next.wrapping_sub(1), next));
        assert!(seen.forged && !seen.rst && seen.ack == Some(78));
        let events = feed(&mut engine, &[packet]);
        assert!(events.iter().all(|event| event.starts_with("Packet(")), "{events:?}");
        let sent = *engine.flows().next().unwrap().side(Side::Client);
        assert_eq!((sent.bytes, sent.repeated), (8, 1));
    }
}

#[test]
fn looks_at_no_other_packet() {
    let (client, server) = ends(false);
    assert_eq!(Glimpse::of(&build::udp(client, server, b"datagram")), None);
    let talk = Talk::new(client, server).packet(true, build::ACK, &[0; 100]);
    let whole = &talk.packets[0];
    for cut in 0..40 {
        assert_eq!(Glimpse::of(&whole[..cut]), None, "cut at {cut}");
    }
    let cut = Glimpse::of(&whole[..40]).unwrap();
    assert_eq!(cut, Glimpse::of(whole).unwrap(), "the header tells the length");
    for piece in build::fragments(whole, 64) {
        assert_eq!(Glimpse::of(&piece), None);
    }
    let mut endless = whole.clone();
    endless[2..4].fill(0);
    assert_eq!(Glimpse::of(&endless), None, "longer than its header can say");
}

#[test]
fn prohibits_a_datagram_of_either_family() {
    for (v6, proto, first, max) in [(false, 1, [3, 13], 576), (true, 58, [1, 1], 1_280)] {
        let (client, server) = ends(v6);
        let head = if v6 { 40 } else { 20 };
        for payload in [&[7; 10][..], &[7; 2_000]] {
            let datagram = build::udp(client, server, payload);
            let error = prohibited(&datagram).unwrap();
            assert!(sums_are_right(&error));
            assert_eq!(error.len(), max.min(datagram.len() + head + 8));
            let read = ip::read(carried(&error).unwrap(), error.len())
                .unwrap()
                .unwrap();
            assert_eq!((read.src, read.dst), (server.ip(), client.ip()));
            assert_eq!((read.proto.0, &read.payload[..2]), (proto, &first[..]));
            assert_eq!(&read.payload[8..], &datagram[..error.len() - head - 8]);
            assert_eq!(prohibited(&error), None, "an error is not answered with one");
        }
    }
}

#[test]
fn errors_are_for_single_hosts_and_first_fragments() {
    let (client, server) = ends(false);
    let whole = build::udp(client, server, &[0; 100]);
    let pieces = build::fragments(&whole, 64);
    assert!(prohibited(&pieces[0]).is_some());
    assert_eq!(prohibited(&pieces[1]), None);
    for (src, dst) in [
        ("0.0.0.0:68", "255.255.255.255:67"),
        ("10.0.0.1:1", "224.0.0.251:5353"),
        ("[::]:546", "[ff02::1:2]:547"),
        ("[fd00::1]:1", "[ff02::fb]:5353"),
    ] {
        let packet = build::udp(src.parse().unwrap(), dst.parse().unwrap(), b"");
        assert_eq!(prohibited(&packet), None, "{src} to {dst}");
    }
    let ping = build::echo(client.ip(), server.ip(), false, (1, 1), b"");
    assert!(prohibited(&ping).is_some(), "a query may be answered");
    let pong = build::echo(client.ip(), server.ip(), true, (1, 1), b"");
    assert_eq!(prohibited(&pong), None);
    for cut in 0..20 {
        assert_eq!(prohibited(&whole[..cut]), None, "cut at {cut}");
    }
}

proptest! {
    #[test]
    fn whatever_is_made_can_be_read_back(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        (v6, seq, ack) in (any::<bool>(), any::<u32>(), any::<u32>()),
    ) {
        let (client, server) = ends(v6);
        let made = probe(client, server, seq, ack);
        prop_assert!(sums_are_right(&made));
        let seen = Glimpse::of(&made).unwrap();
        prop_assert_eq!((seen.end, seen.ack), (seq, Some(ack)));
        for packet in [bytes.clone(), build::udp(client, server, &bytes)] {
            if let Some(error) = prohibited(&packet) {
                prop_assert!(error.len() <= MAX_FORGED && sums_are_right(&error));
            }
            if let Some(seen) = Glimpse::of(&packet) {
                for reset in seen.resets() {
                    prop_assert!(Glimpse::of(&reset).is_some_and(|reset| reset.rst));
                }
            }
        }
    }
}
