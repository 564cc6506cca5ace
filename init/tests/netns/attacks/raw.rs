//! Segments and frames that no TCP stack made.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

use super::{PATIENCE, addr};
use crate::outcomes::BACKENDS;
use crate::world::addr::{POD, REMOTE};
use crate::world::{APP, Namespace, PROXY, ROOT, Sender, World};

/// Source port that marks our raw segments.
const RAW_PORT: u16 = 4242;

/// Source ports of what the peer sends.
const INVALID: [u16; 2] = [4290, 4291];
/// Source port of what a rule of someone else, where there is one, exempts from conntrack.
pub(crate) const UNTRACKED: u16 = 4299;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// The checksum of the internet.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let pair = |pair: &[u8]| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    let sum: u32 = bytes.chunks(2).map(pair).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    (!u16::try_from((folded & 0xffff) + (folded >> 16)).expect("folded")).to_be_bytes()
}

/// Pod and remote host of a family (0 is IPv4).
fn ends(family: usize) -> [IpAddr; 2] {
    [POD, REMOTE].map(|ips| ips[family].parse().expect("address"))
}

/// A TCP segment with a payload and a right checksum.
fn segment(family: usize, flags: u8, port: u16) -> Vec<u8> {
    segment_to(family, flags, (port, 9000))
}

/// The same to a port.
fn segment_to(family: usize, flags: u8, (from, to): (u16, u16)) -> Vec<u8> {
    let [source, destination] = ends(family);
    let mut bytes = Vec::new();
    bytes.extend(from.to_be_bytes());
    bytes.extend(to.to_be_bytes());
    bytes.extend([0, 0, 0, 1, 0, 0, 0, 1, 5 << 4, flags, 16, 0, 0, 0, 0, 0]);
    bytes.extend(b"secret");
    let length = u16::try_from(bytes.len()).expect("a short segment");
    let [high, low] = length.to_be_bytes();
    let pseudo = [octets(source), octets(destination), vec![0, 6, high, low], bytes.clone()];
    let sum = checksum(&pseudo.concat());
    bytes[16..18].copy_from_slice(&sum);
    bytes
}

/// The segment as a frame from the pod's device to the peer's.
fn frame(world: &World, family: usize, port: u16) -> Vec<u8> {
    let mac = |namespace: &Namespace| {
        let text = namespace.output("cat", &["/sys/class/net/eth0/address"]);
        let byte = |hex| u8::from_str_radix(hex, 16).expect("a MAC");
        text.trim().split(':').map(byte).collect::<Vec<u8>>()
    };
    let [source, destination] = ends(family);
    let segment = segment(family, SYN, port);
    let length = u16::try_from(segment.len()).expect("short");
    let header = if family == 0 {
        let [high, low] = (length + 20).to_be_bytes();
        let mut header = vec![0x45, 0, high, low, 0, 1, 0, 0, 64, 6, 0, 0];
        header.extend([octets(source), octets(destination)].concat());
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum);
        header
    } else {
        let [high, low] = length.to_be_bytes();
        [vec![0x60, 0, 0, 0, high, low, 6, 64], octets(source), octets(destination)].concat()
    };
    let kind = if family == 0 { vec![8, 0] } else { vec![0x86, 0xdd] };
    [mac(&world.peer), mac(&world.pod), kind, header, segment].concat()
}

/// A raw socket that sees every segment of a family that comes to its namespace.
fn watch(namespace: &Namespace, family: usize) -> Socket {
    let domain = [Domain::IPV4, Domain::IPV6][family];
    let raw = move || Socket::new(domain, Type::RAW, Some(Protocol::TCP)).expect("raw socket");
    let seen = namespace.run(ROOT, raw);
    seen.set_read_timeout(Some(PATIENCE)).expect("timeout");
    seen
}

/// The source ports of the segments that came, until none has come for a while or `enough` has.
fn arrivals(mut seen: &Socket, family: usize, enough: &dyn Fn(u16) -> bool) -> BTreeSet<u16> {
    let skip = [20, 0][family];
    let mut ports = BTreeSet::new();
    let mut packet = [0; 256];
    loop {
        match seen.read(&mut packet) {
            Ok(length) if length >= skip + 2 => {
                let port = u16::from_be_bytes([packet[skip], packet[skip + 1]]);
                ports.insert(port);
                if enough(port) {
                    return ports;
                }
            }
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return ports;
            }
            // An ICMP error about something that another probe sent.
            Err(_) => {}
        }
    }
}

/// Whether the remote host sees our segment after `send`.
fn arrives(world: &World, family: usize, send: impl FnOnce()) -> bool {
    let seen = watch(&world.peer, family);
    send();
    arrivals(&seen, family, &|port| port == RAW_PORT).contains(&RAW_PORT)
}

/// Sends a segment with these flags by a raw socket.
fn send_segment(from: &Namespace, sender: Sender, to: SocketAddr, segment: Vec<u8>) {
    // Opened as root; the owner that rules see is the user of the thread.
    let sent = from.run(sender, move || {
        let domain = Domain::for_address(to);
        let raw = Socket::new(domain, Type::RAW, Some(Protocol::TCP)).expect("raw socket");
        raw.send_to(&segment, &to.into())
    });
    // Dropped on the way out, which the sender is told of or not.
    drop(sent);
}

/// Whether a segment with these flags, sent by a raw socket, reaches the remote host.
fn segment_leaves(world: &World, sender: Sender, family: usize, flags: u8) -> bool {
    let (to, segment) = (addr(REMOTE[family], 0), segment(family, flags, RAW_PORT));
    arrives(world, family, || send_segment(&world.pod, sender, to, segment))
}

/// What becomes of raw segments and frames, as lines of an outcome map.
pub(crate) fn outcomes(world: &World, family: usize) -> String {
    let [remote, pod] = [REMOTE, POD].map(|ips| addr(ips[family], 0));
    let out = watch(&world.peer, family);
    let into = watch(&world.pod, family);
    let mut cases = Vec::new();
    let mut port = RAW_PORT;
    let mut next = |what: String| {
        port += 1;
        cases.push((port, what));
        port
    };
    for sender in [APP, PROXY] {
        for flags in [SYN, SYN | FIN, ACK] {
            let port = next(format!("{} sends flags {flags:#x} to {remote}", sender.name));
            send_segment(&world.pod, sender, remote, segment(family, flags, port));
        }
    }
    for (sender, way) in [(APP, WAYS[0]), (APP, WAYS[4]), (APP, WAYS[5]), (PROXY, WAYS[0])] {
        let port = next(format!("{} sends a frame to {remote}, {way:?}", sender.name));
        send_frame(world, sender, (family, port), way);
    }
    let mut inward = |port, what: &str, flags, to| {
        cases.push((port, format!("peer sends {what} to port {to}")));
        send_segment(&world.peer, ROOT, pod, segment_to(family, flags, (port, to)));
    };
    inward(INVALID[0], "an invalid segment", SYN | FIN, 9000);
    inward(INVALID[1], "an invalid segment", SYN | FIN, 15120);
    inward(UNTRACKED, "what someone took from conntrack", SYN, 9000);
    let mut seen = arrivals(&out, family, &|_| false);
    let arrived = arrivals(&into, family, &|port| port == UNTRACKED);
    seen.extend(arrived.intersection(&[INVALID[0], INVALID[1], UNTRACKED].into()));
    let line = |(port, what): &(u16, String)| format!("{what}: {}\n", seen.contains(port));
    cases.iter().map(line).collect()
}

#[test]
fn raw_segments_do_not_leave() {
    for (backend, chosen) in BACKENDS {
        let Some(world) = World::new() else { return };
        for family in [0, 1] {
            assert!(segment_leaves(&world, ROOT, family, SYN | FIN), "the probe itself must work");
        }
        world.init_ok(&[&["apply"], chosen].concat());
        for family in [0, 1] {
            for flags in [SYN, SYN | FIN, RST, RST | ACK, ACK, FIN, 0] {
                let leaves = segment_leaves(&world, ROOT, family, flags);
                assert!(!leaves, "{backend}, family {family}: flags {flags:#x}");
            }
        }
    }
}

/// How a frame is sent by a packet socket.
#[derive(Clone, Copy, Debug)]
struct Way {
    /// What the sender says that the frame is.
    protocol: u16,
    mark: u32,
    bypass: &'static str,
}

/// The frame's own protocol, and others that a guard may believe.
const WAYS: [Way; 7] = [
    Way { protocol: 0x0800, mark: 0, bypass: "" },
    Way { protocol: 0x0800, mark: 0, bypass: "bypass" },
    Way { protocol: 0x0800, mark: 0x6eb, bypass: "" },
    Way { protocol: 0x0800, mark: 0x5ec4e7, bypass: "bypass" },
    Way { protocol: 0x0806, mark: 0, bypass: "" },
    Way { protocol: 0x86dd, mark: 0, bypass: "bypass" },
    Way { protocol: 0, mark: 0, bypass: "" },
];

/// Sends a frame, `at` family and source port, by a packet socket.
fn send_frame(world: &World, sender: Sender, at: (usize, u16), way: Way) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/netns/attacks/frame.py");
    let (family, port) = at;
    // Each family has its own number; the others are lies in either.
    let protocol = match (family, way.protocol) {
        (1, 0x0800) => 0x86dd,
        (1, 0x86dd) => 0x0800,
        (_, protocol) => protocol,
    };
    let bytes = frame(world, family, port);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let (protocol, mark) = (protocol.to_string(), way.mark.to_string());
    let uid = sender.uid.to_string();
    let arguments = [script, &uid, "eth0", &hex, &protocol, &mark, way.bypass];
    world.pod.output("python3", &arguments);
}

/// Whether the frame reaches the remote host.
fn frame_leaves(world: &World, sender: Sender, family: usize, way: Way) -> bool {
    arrives(world, family, || send_frame(world, sender, (family, RAW_PORT), way))
}

#[test]
fn packet_sockets_are_stopped_at_the_devices() {
    let secret = ["--secret-mark", "0x5ec4e7"];
    for guard in ["tcp", "all"] {
        let Some(world) = World::new() else { return };
        for family in [0, 1] {
            for way in WAYS.iter().take(2) {
                assert!(frame_leaves(&world, APP, family, *way), "the probe itself must work");
            }
        }
        let settings = ["apply", "--backend", "nft", "--guard", guard];
        world.init_ok(&[&settings, &secret[..]].concat());
        for family in [0, 1] {
            for sender in [APP, ROOT] {
                for way in WAYS {
                    let leaves = frame_leaves(&world, sender, family, way);
                    assert!(!leaves, "guard {guard}, {sender:?}, family {family}: {way:?}");
                }
            }
            // The uid alone is not enough; the uid and the secret are the proxy.
            assert!(!frame_leaves(&world, PROXY, family, WAYS[0]), "guard {guard}: uid alone");
            assert!(frame_leaves(&world, PROXY, family, WAYS[3]), "guard {guard}: the proxy");
        }
    }
}

/// What the documents say that only the nft backend closes.
#[test]
fn packet_sockets_pass_where_devices_have_no_hook() {
    for (backend, chosen) in BACKENDS.iter().filter(|(backend, _)| *backend != "nft") {
        let Some(world) = World::new() else { return };
        world.init_ok(&[&["apply", "--guard", "all"], *chosen].concat());
        let leaves = frame_leaves(&world, APP, 0, WAYS[0]);
        assert!(leaves, "{backend} closes more than docs/init.md says: correct the list there");
    }
}
