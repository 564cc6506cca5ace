//! One small capture for each protocol and form of frame that no server of the corpus speaks.

use std::net::{IpAddr, SocketAddr};

use outrider_packet::build::{
    SYN, Talk, echo, ethernet, fragment, fragments, ip, tagged, tcp, udp,
};

use crate::{files::File, inspect};

const ETHERNET: u32 = 1;

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn padded(bytes: &[u8], length: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(length, 0);
    bytes
}

/// A question and its answer as datagrams of either family.
fn asked(port: u16, question: &[u8], answer: &[u8]) -> Vec<Vec<u8>> {
    let ends = [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")];
    let talk = ends.iter().flat_map(|(client, server)| {
        let client = SocketAddr::new(address(client), 40_000);
        let server = SocketAddr::new(address(server), port);
        [udp(client, server, question), udp(server, client, answer)]
    });
    talk.collect()
}

fn dhcp(kind: u8) -> Vec<u8> {
    let head = padded(&[1, 1, 6, 0], 236);
    [&head[..], &[0x63, 0x82, 0x53, 0x63, 53, 1, kind, 255]].concat()
}

fn applications() -> Vec<Vec<Vec<u8>>> {
    let ntp = |mode| [&padded(&[mode, 2, 6, 0xec], 40)[..], &[0xe8, 1, 2, 3, 4, 5, 6, 7]].concat();
    let quic = padded(&[0xc3, 0, 0, 0, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0x44, 0x96, 0x5a], 1200);
    let radius = |code| [&[code, 7, 0, 27][..], &[9; 16], b"\x01\x07alice"].concat();
    let name = b"\x04shop\x07example\0\0\x01\0\x01";
    let query = [&[0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], name].concat();
    let answer = [
        &[0, 7, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0][..],
        name,
        &[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7],
    ]
    .concat();
    let via = "Via: SIP/2.0/UDP x\r\n\r\n";
    vec![
        asked(67, &dhcp(1), &dhcp(2)),
        asked(123, &ntp(0x23), &ntp(0x24)),
        asked(69, b"\0\x01pxelinux.0\0octet\0", b"\0\x03\0\x01data"),
        asked(
            5060,
            format!("REGISTER sip:example.com SIP/2.0\r\n{via}").as_bytes(),
            format!("SIP/2.0 200 OK\r\n{via}").as_bytes(),
        ),
        asked(1812, &radius(1), &radius(2)),
        asked(514, b"<13>Nov 25 14:31:22 host app: text", b""),
        asked(443, &quic, &quic),
        asked(53, &query, &answer),
        asked(4711, b"nobody knows", b"what this is"),
    ]
}

/// What is neither TCP nor UDP.
fn others() -> Vec<Vec<Vec<u8>>> {
    let ends = [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")];
    let of = |proto: u8, bytes: &[u8]| -> Vec<Vec<u8>> {
        let both = ends.iter().flat_map(|(client, server)| {
            let (client, server) = (address(client), address(server));
            [ip(client, server, proto, bytes), ip(server, client, proto, bytes)]
        });
        both.collect()
    };
    let sctp = [&[0x9c, 0x40, 0x0b, 0x80][..], &[0; 8], &[1, 0, 0, 20], &[0; 16]].concat();
    let inside = ip(address("10.1.0.1"), address("10.1.0.2"), 17, &[0; 16]);
    let gre = [&[0, 0, 8, 0][..], &inside].concat();
    let lost = udp(at("10.0.0.1:40000"), at("10.0.0.2:9"), b"nobody listens");
    let unreachable = [&[3, 3, 0, 0, 0, 0, 0, 0][..], &lost].concat();
    let echoes = ends.iter().flat_map(|(client, server)| {
        let (client, server) = (address(client), address(server));
        [
            echo(client, server, false, (7, 1), b"abcdefgh"),
            echo(server, client, true, (7, 1), b"abcdefgh"),
        ]
    });
    vec![
        of(132, &sctp),
        of(47, &gre),
        of(50, &[7; 40]),
        of(2, &[0x16, 0, 0, 0, 224, 0, 0, 5]),
        of(253, b"an experiment"),
        vec![lost, ip(address("10.0.0.2"), address("10.0.0.1"), 1, &unreachable)],
        echoes.collect(),
    ]
}

/// Forms that an IP packet can have.
fn forms() -> Vec<Vec<Vec<u8>>> {
    let large = udp(at("10.0.0.1:40000"), at("10.0.0.2:4711"), &[7; 4000]);
    let overlapping = vec![
        fragment(large.get(..20).unwrap(), &[0; 24], 0, true),
        fragment(large.get(..20).unwrap(), &[1; 24], 1, false),
    ];
    let options = [17, 0, 1, 4, 0, 0, 0, 0];
    let behind = [&options[..], &[0x9c, 0x40, 0x12, 0x67, 0, 12, 0, 0], b"data"].concat();
    let extended = ip(address("fd00::1"), address("fd00::2"), 60, &behind);
    let pieces = [(0_u8, 1_u8), (24, 0)].map(|(offset, more)| {
        let head = [17, 0, 0, offset | more, 0, 0, 0, 9];
        let whole = [&[0x9c, 0x40, 0x12, 0x67, 0, 48, 0, 0][..], &[7; 40]].concat();
        let part = if offset == 0 { &whole[..24] } else { &whole[24..] };
        ip(address("fd00::1"), address("fd00::2"), 44, &[&head[..], part].concat())
    });
    let mut bare = tcp((40_000, 80), (1, 0), SYN, &[]);
    bare[12] = 0x60;
    bare.extend([2, 4, 0, 48]);
    vec![
        fragments(&large, 1480),
        overlapping,
        vec![extended],
        pieces.to_vec(),
        vec![ip(address("10.0.0.1"), address("10.0.0.2"), 6, &bare)],
    ]
}

fn web() -> Vec<Vec<u8>> {
    Talk::new(at("[fd00::1]:40000"), at("[fd00::2]:80"))
        .open()
        .client(b"GET / HTTP/1.1\r\nHost: made.example\r\n\r\n")
        .server(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        .close()
        .packets
}

/// Every one of them.
pub(crate) fn captures() -> Vec<File> {
    let framed = [applications(), others(), forms()]
        .concat()
        .into_iter()
        .map(|packets| {
            let frames = packets.iter().map(|packet| ethernet(packet));
            File::of(ETHERNET, frames.collect())
        });
    let behind = |link: u32, head: &'static [u8]| {
        let frames = web().into_iter().map(|packet| [head, &packet].concat());
        File::of(link, frames.collect())
    };
    let tags = web().iter().map(|packet| tagged(packet, &[1, 2])).collect();
    framed
        .chain([
            File::of(ETHERNET, tags),
            behind(101, &[]),
            behind(113, &[0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0, 0x86, 0xdd]),
            behind(276, &[0x86, 0xdd, 0, 0, 0, 0, 0, 2, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0]),
            behind(108, &[0, 0, 0, 24]),
        ])
        .collect()
}

#[test]
fn each_is_read_as_what_it_is() {
    let mut seen: Vec<String> = captures()
        .iter()
        .flat_map(|file| inspect(&file.plain()))
        .map(|row| format!("{} {}", row["proto"], row["app"]).replace('"', ""))
        .collect();
    seen.sort();
    seen.dedup();
    let datagrams = ["DHCP", "DNS", "NTP", "QUIC", "Radius", "SIP", "Syslog", "TFTP", "unknown"];
    let expected = ["esp unknown", "gre unknown", "icmp unknown", "icmpv6 unknown"]
        .into_iter()
        .chain(["igmp unknown", "ip/253 unknown", "sctp unknown", "tcp HTTP", "tcp unknown"])
        .map(str::to_owned)
        .chain(datagrams.map(|app| format!("udp {app}")));
    assert_eq!(seen, expected.collect::<Vec<_>>());
}
