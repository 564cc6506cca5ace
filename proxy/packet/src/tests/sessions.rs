use std::time::Duration;

use outrider_model::{IpProto, Side};

use super::{Heard, client, run, run_at, server};
use crate::{
    Engine, Event, FlowEnd, Frame, Limits, LinkType,
    build::{
        ACK, FIN, PSH, RST, SYN, Talk, echo, ethernet, fragment, fragments, ip, tagged, tcp, udp,
    },
};

const HELLO: &[u8] = b"GET / HTTP/1.1\r\n\r\n";

fn talk() -> Talk {
    Talk::new(client(), server())
}

fn usual() -> Vec<Vec<u8>> {
    talk()
        .open()
        .client(HELLO)
        .server(&[b'x'; 5000])
        .close()
        .packets
}

#[test]
fn a_connection_is_one_flow_with_its_bytes_in_order() {
    let (heard, engine) = run(&usual());
    assert_eq!(heard.text(Side::Client), HELLO);
    assert_eq!(heard.text(Side::Server), [b'x'; 5000]);
    let record = heard.records[0];
    assert_eq!((record.ends.client, record.ends.server), (client(), server()));
    assert_eq!((record.client.bytes, record.server.bytes), (18, 5000));
    assert_eq!((record.end, record.established, record.mid_stream), (FlowEnd::Closed, true, false));
    assert_eq!((heard.ends, engine.counters().tcp_flows), (2, 1));
    assert_eq!((record.client.lost, record.server.repeated), (0, 0));
}

#[test]
fn v6_connections_are_the_same() {
    let ends = ("[fd00::1]:40000".parse().unwrap(), "[fd00::2]:80".parse().unwrap());
    let (heard, _) = run(&Talk::new(ends.0, ends.1)
        .open()
        .client(HELLO)
        .close()
        .packets);
    assert_eq!(heard.text(Side::Client), HELLO);
    assert_eq!(heard.records[0].ends.server, ends.1);
}

#[test]
fn neighbours_may_change_places_anywhere() {
    let packets = usual();
    for at in 0..packets.len() - 1 {
        let mut packets = packets.clone();
        packets.swap(at, at + 1);
        let (heard, _) = run(&packets);
        assert_eq!(heard.text(Side::Client), HELLO, "{at}");
        assert_eq!(heard.text(Side::Server), [b'x'; 5000], "{at}");
        let record = heard.records[0];
        assert_eq!((record.ends.client, record.mid_stream), (client(), false), "{at}");
    }
}

#[test]
fn everything_may_come_twice() {
    let packets: Vec<_> = usual()
        .into_iter()
        .flat_map(|packet| [packet.clone(), packet])
        .collect();
    let (heard, _) = run(&packets);
    assert_eq!(heard.text(Side::Server), [b'x'; 5000]);
    assert_eq!(heard.records[0].server.repeated, 5000);
    assert_eq!(heard.records[0].server.conflicting, 0);
}

#[test]
fn what_is_lost_is_said() {
    let mut packets = usual();
    packets.retain({
        let mut data = 0;
        move |packet| {
            data += usize::from(packet.len() > 1000);
            !(packet.len() > 1000 && data == 2)
        }
    });
    let (heard, _) = run(&packets);
    let text = heard.text(Side::Server);
    assert_eq!(text.len(), 5000);
    assert_eq!(text.iter().filter(|byte| **byte == b'?').count(), 1400);
    assert_eq!(heard.records[0].server.lost, 1400);
    assert_eq!(heard.records[0].server.bytes, 5000);
}

#[test]
fn a_connection_seen_from_the_middle_is_read_from_there() {
    let packets = usual();
    let (heard, _) = run(&packets[3..]);
    assert!(heard.records[0].mid_stream);
    assert_eq!(heard.records[0].ends.server, server(), "the smaller port");
    assert_eq!(heard.text(Side::Client), HELLO);
    let (heard, _) = run(&packets[4..]);
    assert_eq!(heard.text(Side::Server), [b'x'; 5000]);
}

#[test]
fn windows_without_a_seen_scale_are_as_large_as_can_be() {
    let mut packets = talk().open().packets;
    // The server's SYN was not captured, and nothing of 300 000 bytes is acknowledged.
    packets.remove(1);
    let mut sent = talk().open();
    sent.packets.clear();
    for _ in 0..300 {
        sent = sent.packet(false, PSH | ACK, &[b'w'; 1000]);
    }
    let first = sent.packets.remove(0);
    packets.extend(sent.packets);
    packets.push(first);
    let (heard, engine) = run(&packets);
    assert_eq!(engine.counters().stray, 0);
    assert_eq!(heard.text(Side::Server).len(), 300_000);
}

#[test]
fn resets_and_ends_open_nothing() {
    let packets = talk()
        .packet(true, RST, &[])
        .packet(true, FIN | ACK, &[])
        .packets;
    let (heard, engine) = run(&packets);
    assert_eq!((heard.records.len(), engine.counters().no_flow), (0, 2));
}

#[test]
fn a_reset_ends_a_flow_and_its_ports_may_be_used_again() {
    let refused = talk()
        .packet(true, SYN, &[])
        .packet(false, RST | ACK, &[])
        .packets;
    let (heard, _) = run(&refused);
    assert_eq!((heard.records[0].end, heard.records[0].established), (FlowEnd::Reset, false));
    let mut twice = usual();
    let mut second = talk().packet(true, PSH | ACK, &[0; 999]);
    second.packets.clear();
    twice.extend(second.open().client(HELLO).packets);
    let (heard, _) = run(&twice);
    assert_eq!(heard.records.len(), 2);
    assert_eq!(heard.records[1].client.bytes, 18);
}

#[test]
fn a_blind_reset_is_ignored() {
    let mut packets = talk().open().client(HELLO).packets;
    let blind = tcp((40_000, 80), (0x7000_0000, 0), RST, &[]);
    packets.push(ip(client().ip(), server().ip(), 6, &blind));
    let (heard, engine) = run(&packets);
    assert_eq!((heard.records[0].end, engine.counters().stray), (FlowEnd::Open, 1));
}

#[test]
fn handshakes_that_are_wrong_are_found() {
    let data = talk().packet(true, SYN, b"early").packets;
    assert_eq!(run(&data).0.findings[0].0, 2003);
    let mut split = talk()
        .packet(true, SYN, &[])
        .packet(false, SYN, &[])
        .packets;
    let again = tcp((80, 40_000), (77, u32::MAX - 2_999), SYN | ACK, &[]);
    split.push(ip(server().ip(), client().ip(), 6, &again));
    assert_eq!(run(&split).0.findings[0].0, 2004);
}

#[test]
fn silence_ends_flows_after_their_time() {
    for (packets, seconds) in [
        (talk().packet(true, SYN, &[]).packets, 20),
        (talk().open().packets, 1200),
        (talk().open().packet(true, FIN | ACK, &[]).packets, 90),
        (usual(), 15),
        (vec![udp(client(), server(), b"x")], 30),
        (vec![echo(client().ip(), server().ip(), false, (1, 1), b"x")], 5),
        (vec![ip(client().ip(), server().ip(), 47, b"x")], 15),
    ] {
        let mut engine = Engine::new(Limits::default());
        let mut heard = Heard::default();
        for bytes in &packets {
            let frame = Frame { link: LinkType::Raw, at: Duration::ZERO, bytes, wire: bytes.len() };
            engine.feed(&frame, &mut |event| heard.hear(event));
        }
        engine.advance(Duration::from_secs(seconds - 1), &mut |event| heard.hear(event));
        assert_eq!(engine.open(), 1, "{seconds}");
        engine.advance(Duration::from_secs(seconds), &mut |event| heard.hear(event));
        assert_eq!((engine.open(), heard.records.len()), (0, 1), "{seconds}");
    }
}

#[test]
fn datagrams_and_echoes_are_flows_of_two_sides() {
    let dns = (client(), "10.0.0.9:53".parse().unwrap());
    let (a, b) = (client().ip(), server().ip());
    let six = ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap());
    let (heard, engine) = run(&[
        udp(dns.1, dns.0, b"answer"),
        udp(dns.0, dns.1, b"query"),
        echo(a, b, false, (7, 1), b"ping"),
        echo(b, a, true, (7, 1), b"ping"),
        echo(six.0, six.1, false, (9, 1), b"ping"),
        echo(six.1, six.0, true, (9, 1), b"ping"),
        ip(a, b, 132, &[0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0]),
    ]);
    let bytes: Vec<_> = heard
        .records
        .iter()
        .map(|record| (record.ends.proto, record.client.bytes, record.server.bytes))
        .collect();
    assert_eq!(
        bytes,
        [
            (IpProto::UDP, 5, 6),
            (IpProto::ICMP, 12, 12),
            (IpProto::ICMPV6, 12, 12),
            (IpProto::SCTP, 12, 0)
        ]
    );
    assert_eq!(heard.records[0].ends.server, dns.1);
    assert_eq!((heard.records[1].ends.client.port(), heard.records[1].ends.server.port()), (7, 8));
    assert_eq!(heard.records[3].ends.server.port(), 2);
    let counters = engine.counters();
    assert_eq!((counters.ipv4, counters.ipv6, counters.udp, counters.icmp), (5, 2, 2, 4));
}

#[test]
fn fragments_make_a_datagram_and_overlaps_a_finding() {
    let whole = udp(client(), server(), &[b'f'; 3000]);
    let mut parts = fragments(&whole, 1000);
    parts.rotate_left(1);
    let (heard, engine) = run(&parts);
    assert_eq!(heard.text(Side::Client), [b'f'; 3000]);
    assert_eq!((engine.counters().reassembled, engine.counters().fragments), (1, 4));
    let tear =
        [fragment(&whole[..20], &[0; 24], 0, true), fragment(&whole[..20], &[0; 8], 1, false)];
    let (heard, _) = run(&tear);
    assert_eq!(heard.findings[0].0, 2002);
    assert_eq!(heard.records[0].ends.client.ip(), client().ip());
}

#[test]
fn fragments_of_v6_are_joined_too() {
    let whole = udp("[fd00::1]:9".parse().unwrap(), "[fd00::2]:7".parse().unwrap(), &[b'6'; 100]);
    let (a, b) = ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap());
    let payload = &whole[40..];
    let part = |offset: usize, bytes: &[u8], more: u8| {
        let place = u16::try_from(offset).unwrap().to_be_bytes();
        let head = [17, 0, place[0], place[1] | more, 0, 0, 0, 5];
        ip(a, b, 44, &[&head[..], bytes].concat())
    };
    let (heard, _) = run(&[part(64, &payload[64..], 0), part(0, &payload[..64], 1)]);
    assert_eq!(heard.text(Side::Client), [b'6'; 100]);
}

#[test]
fn malformed_packets_are_found_at_their_flow() {
    let mut packets = talk().open().packets;
    packets.push(ip(client().ip(), server().ip(), 6, &tcp((40_000, 80), (1, 1), 0, &[])));
    packets.push(vec![0x45, 0, 0, 10]);
    let (heard, engine) = run(&packets);
    assert_eq!((heard.findings.len(), heard.records.len()), (2, 1));
    assert_eq!(engine.counters().malformed, 2);
}

#[test]
fn tags_and_cut_captures_are_no_obstacle() {
    let mut engine = Engine::new(Limits::default());
    let mut heard = Heard::default();
    for packet in usual() {
        let frame = tagged(&packet, &[5, 6]);
        assert_eq!(frame.len(), ethernet(&packet).len() + 8);
        let bytes = &frame[..frame.len().min(100)];
        let at = Duration::ZERO;
        let frame = Frame { link: LinkType::Ethernet, at, bytes, wire: frame.len() };
        engine.feed(&frame, &mut |event| heard.hear(event));
    }
    engine.finish(&mut |event| heard.hear(event));
    let record = heard.records[0];
    assert_eq!((record.server.bytes, record.server.lost), (5000, 5000 - 4 * (100 - 62)));
    assert_eq!(heard.text(Side::Client), HELLO);
}

#[test]
fn the_table_is_bounded_and_evictions_are_counted() {
    let limits = Limits { flows: 10, ..Limits::default() };
    let mut engine = Engine::new(limits);
    let mut heard = Heard::default();
    let mut feed = |bytes: &[u8], at: u64| {
        let at = Duration::from_millis(at);
        let frame = Frame { link: LinkType::Raw, at, bytes, wire: bytes.len() };
        engine.feed(&frame, &mut |event| heard.hear(event));
        assert!(engine.open() <= 10);
    };
    for packet in talk().open().packets {
        feed(&packet, 0);
    }
    for port in 1..=100_u16 {
        let syn = tcp((port, 9), (1, 0), SYN, &[]);
        feed(&ip(client().ip(), server().ip(), 6, &syn), port.into());
    }
    assert_eq!(engine.counters().evicted, 91);
    engine.finish(&mut |event| heard.hear(event));
    assert_eq!(heard.records.len(), 101, "each flow is reported once");
    let kept = heard
        .records
        .iter()
        .find(|record| record.ends.server == server())
        .unwrap();
    assert_eq!(kept.end, FlowEnd::Open, "who has shaken hands stays");
}

#[test]
fn time_that_goes_back_is_no_time() {
    let mut packets = usual();
    packets.extend(usual());
    let (heard, _) = run_at(&packets, Duration::ZERO);
    assert!(!heard.records.is_empty());
}

#[test]
fn open_flows_can_be_asked_where_they_are() {
    let mut engine = Engine::new(Limits::default());
    for packet in talk().open().client(HELLO).server(b"answer").packets {
        let frame =
            Frame { link: LinkType::Raw, at: Duration::ZERO, bytes: &packet, wire: packet.len() };
        engine.feed(&frame, &mut |_| {});
    }
    let records: Vec<_> = engine.flows().copied().collect();
    assert_eq!((records.len(), records[0].client.bytes, records[0].server.bytes), (1, 18, 6));
    let place = engine.tcp(records[0].flow).unwrap();
    let (client, server) = (place.client.unwrap(), place.server.unwrap());
    let first = u32::MAX - 2_999;
    assert_eq!((client.next, client.expected), (first.wrapping_add(18), first.wrapping_add(18)));
    assert_eq!((server.next, server.expected, server.window), (84, 84, 65_535));
}

#[test]
fn a_packet_can_be_told_without_being_taken_in() {
    let packets = [
        udp(client(), server(), b"question"),
        udp(server(), client(), b"answer"),
        echo(client().ip(), server().ip(), false, (7, 1), b"x"),
        echo(server().ip(), client().ip(), true, (7, 1), b"x"),
    ];
    let mut engine = Engine::new(Limits::default());
    for packet in &packets {
        let frame =
            Frame { link: LinkType::Raw, at: Duration::ZERO, bytes: packet, wire: packet.len() };
        let before = engine.counters();
        let peek = engine.peek(&frame).unwrap();
        assert_eq!(engine.counters(), before);
        let mut taken = None;
        engine.feed(&frame, &mut |event| {
            if let Event::Packet(record, side) = event {
                taken = Some((record.flow, record.ends, side));
            }
        });
        let (flow, ends, side) = taken.unwrap();
        assert_eq!((peek.ends, peek.side), (ends, side));
        assert_eq!(peek.flow.is_some(), side == Side::Server, "the first packet opens its flow");
        assert_eq!(engine.peek(&frame).unwrap().flow, Some(flow));
    }
    assert_eq!(
        engine.peek(&Frame { link: LinkType::Raw, at: Duration::ZERO, bytes: b"E", wire: 1 }),
        None
    );
    let piece = &fragments(&packets[0], 8)[0];
    let frame = Frame { link: LinkType::Raw, at: Duration::ZERO, bytes: piece, wire: piece.len() };
    assert_eq!(engine.peek(&frame), None, "its ports may be in another");
}
