//! Frames made by hand, for what no server of ours sends.

use outrider_packet::build::{
    ACK, PSH, SYN, Talk, echo, ethernet, fragment, fragments, ip, tagged, tcp, udp,
};
use serde_json::{Value, json};

use crate::{files::File, inspect};

const RAW: u32 = 101;
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: made.example\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n";

fn talk() -> Talk {
    Talk::new("10.0.0.1:40000".parse().unwrap(), "10.0.0.2:80".parse().unwrap())
}

fn response() -> Vec<u8> {
    let mut response = RESPONSE.to_vec();
    response.resize(RESPONSE.len() + 5000, b'x');
    response
}

fn usual() -> Vec<Vec<u8>> {
    talk()
        .open()
        .client(REQUEST)
        .server(&response())
        .close()
        .packets
}

fn only(link: u32, frames: Vec<Vec<u8>>) -> Value {
    let mut rows = inspect(&File::of(link, frames).plain());
    assert_eq!(rows.len(), 1, "{rows:#?}");
    rows.remove(0)
}

fn expected() -> Value {
    json!({
        "proto": "tcp", "client": "10.0.0.1:40000", "server": "10.0.0.2:80", "app": "HTTP", "app_id": 1001,
        "host": "made.example", "sni": "", "threats": [],
        "client_bytes": REQUEST.len(), "server_bytes": response().len(),
    })
}

#[test]
fn every_link_type_gives_the_same_row() {
    let with = |head: &'static [u8]| {
        usual()
            .into_iter()
            .map(move |packet| [head, &packet].concat())
    };
    let vlan = |tags: &'static [u16]| {
        usual()
            .into_iter()
            .map(|packet| tagged(&packet, tags))
            .collect()
    };
    let frames: Vec<(u32, Vec<Vec<u8>>)> = vec![
        (RAW, usual()),
        (1, usual().iter().map(|packet| ethernet(packet)).collect()),
        (1, vlan(&[7])),
        (1, vlan(&[1, 2, 3, 4])),
        (113, with(&[0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0, 8, 0]).collect()),
        (276, with(&[8, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0]).collect()),
        (0, with(&[2, 0, 0, 0]).collect()),
        (108, with(&[0, 0, 0, 2]).collect()),
    ];
    for (link, frames) in frames {
        assert_eq!(only(link, frames), expected(), "link type {link}");
    }
}

#[test]
fn lost_bytes_are_said() {
    let mut packets = usual();
    let lost = packets
        .iter()
        .position(|packet| packet.len() > 1000)
        .unwrap();
    // The second full segment: the head of the response is in the first one.
    packets.remove(lost + 2);
    let row = only(RAW, packets);
    assert_eq!((&row["app"], &row["server_bytes"]), (&json!("HTTP"), &json!(response().len())));
    let notes = row["notes"].to_string();
    assert!(notes.contains("server: 1400 bytes were not captured"), "{notes}");
}

#[test]
fn a_reader_that_lost_its_place_stops_and_says_so() {
    let mut packets = usual();
    let head = packets
        .iter()
        .position(|packet| packet.len() > 1000)
        .unwrap();
    packets.remove(head);
    let row = only(RAW, packets);
    assert_eq!((&row["app"], &row["host"]), (&json!("HTTP"), &json!("made.example")));
    let notes = row["notes"].to_string();
    assert!(notes.contains("inspection stopped where bytes are missing"), "{notes}");
}

#[test]
fn a_capture_cut_by_its_snap_length_keeps_what_it_can() {
    let mut file = File::of(RAW, usual());
    file.records
        .iter_mut()
        .for_each(|record| record.bytes.truncate(96));
    let row = inspect(&file.plain()).remove(0);
    assert_eq!((&row["app"], &row["host"]), (&json!("HTTP"), &json!("made.example")));
    assert_eq!(row["server_bytes"], json!(response().len()));
    assert!(row["notes"].to_string().contains("bytes were not captured"), "{row}");
}

#[test]
fn disorder_repeats_and_conflicts_are_said() {
    let mut packets = usual();
    let data: Vec<_> = (0..packets.len())
        .filter(|at| packets[*at].len() > 1000)
        .collect();
    packets.swap(data[0], data[1]);
    packets.push(packets[data[0]].clone());
    let row = only(RAW, packets);
    let notes = row["notes"].to_string();
    assert!(notes.contains("server: 1 segments came out of order"), "{notes}");
    assert!(notes.contains("server: 1400 bytes were sent again"), "{notes}");
    let early = [
        talk().open().packets,
        [(3, "DEF"), (3, "DEX"), (0, "abc")]
            .into_iter()
            .map(|(at, text)| {
                let seq = (u32::MAX - 3_000 + 1).wrapping_add(at);
                let segment = tcp((40_000, 80), (seq, 78), PSH | ACK, text.as_bytes());
                ip([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 6, &segment)
            })
            .collect(),
    ];
    let notes = only(RAW, early.concat())["notes"].to_string();
    assert!(notes.contains("client: 1 bytes were sent again and differed"), "{notes}");
}

#[test]
fn a_flow_without_its_beginning_is_read_from_the_next_request_on() {
    let packets = talk()
        .open()
        .client(b"rest of something\r\n")
        .server(b"xyz")
        .client(REQUEST)
        .packets;
    let row = only(RAW, packets[3..].to_vec());
    assert_eq!((&row["app"], &row["host"]), (&json!("HTTP"), &json!("made.example")));
    assert!(
        row["notes"]
            .to_string()
            .contains("its beginning was not captured"),
        "{row}"
    );
}

#[test]
fn threats_of_packets_are_shown_at_their_flow() {
    let (a, b) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    let whole = udp("10.0.0.1:9".parse().unwrap(), "10.0.0.2:7".parse().unwrap(), &[0; 64]);
    let mss = {
        let mut segment = tcp((40_000, 80), (1, 0), SYN, &[]);
        segment[12] = 0x60;
        segment.extend([2, 4, 0, 48]);
        ip(a, b, 6, &segment)
    };
    for (frames, id, name) in [
        (vec![ip(a, b, 6, &tcp((1, 2), (3, 4), 0x29, &[]))], 2001, "Invalid.Packet.Format"),
        (
            vec![
                fragment(&whole[..20], &[0; 24], 0, true),
                fragment(&whole[..20], &[1; 24], 1, false),
            ],
            2002,
            "IP.Fragment.Teardrop",
        ),
        (vec![mss], 2025, "TCP.SACK.DDoS.With.Small.MSS"),
        (fragments(&echo(a, b, false, (1, 1), &[0; 40_000]), 1480), 2006, "Ping.Death"),
    ] {
        assert_eq!(only(RAW, frames)["threats"], json!([{ "id": id, "name": name }]));
    }
}

#[test]
fn applications_over_udp_are_known_by_their_bytes() {
    let mut dhcp = vec![1, 1, 6, 0];
    dhcp.resize(236, 0);
    dhcp.extend([0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255]);
    let mut quic = vec![0xc3, 0, 0, 0, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0x44, 0x96];
    quic.resize(1200, 0x5a);
    let mut ntp = vec![0x23, 0, 6, 0xec];
    ntp.resize(40, 0);
    ntp.extend([0xe8, 1, 2, 3, 4, 5, 6, 7]);
    let radius = [&[1, 7, 0, 27][..], &[9; 16], b"\x01\x07alice"].concat();
    for (app, id, bytes) in [
        ("DHCP", 1005, &dhcp[..]),
        ("NTP", 1006, &ntp),
        ("TFTP", 1007, b"\0\x01pxelinux.0\0octet\0"),
        ("SIP", 1010, b"REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP x\r\n\r\n"),
        ("QUIC", 1900, &quic),
        ("Radius", 2015, &radius),
        ("Syslog", 2018, b"<13>Nov 25 14:31:22 host app: text"),
        ("unknown", 0, b"nobody knows"),
    ] {
        let packet =
            udp("[fd00::1]:40000".parse().unwrap(), "[fd00::2]:4711".parse().unwrap(), bytes);
        let row = only(RAW, vec![packet]);
        assert_eq!((&row["app"], &row["app_id"]), (&json!(app), &json!(id)), "{row}");
        assert_eq!(row["server"], "[fd00::2]:4711");
    }
}
