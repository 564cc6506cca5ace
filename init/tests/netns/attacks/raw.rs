//! Segments and frames that no TCP stack made.

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

use super::{PATIENCE, addr};
use crate::outcomes::BACKENDS;
use crate::world::addr::{POD, REMOTE};
use crate::world::{APP, PROXY, ROOT, Sender, World};

/// Source port that marks our raw segments.
const RAW_PORT: u16 = 4242;

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
fn segment(family: usize, flags: u8) -> Vec<u8> {
    let [source, destination] = ends(family);
    let mut bytes = Vec::new();
    bytes.extend(RAW_PORT.to_be_bytes());
    bytes.extend(9000_u16.to_be_bytes());
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
fn frame(world: &World, family: usize, flags: u8) -> Vec<u8> {
    let mac = |namespace: &crate::world::Namespace| {
        let text = namespace.output("cat", &["/sys/class/net/eth0/address"]);
        let byte = |hex| u8::from_str_radix(hex, 16).expect("a MAC");
        text.trim().split(':').map(byte).collect::<Vec<u8>>()
    };
    let [source, destination] = ends(family);
    let segment = segment(family, flags);
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

/// Whether the remote host sees one of our segments after `send`.
fn arrives(world: &World, family: usize, send: impl FnOnce()) -> bool {
    let (domain, skip) = [(Domain::IPV4, 20), (Domain::IPV6, 0)][family];
    let raw = || Socket::new(domain, Type::RAW, Some(Protocol::TCP)).expect("raw socket");
    let seen = world.peer.run(ROOT, raw);
    seen.set_read_timeout(Some(PATIENCE)).expect("timeout");
    send();
    let mut packet = [0; 256];
    loop {
        match (&seen).read(&mut packet) {
            Ok(length) if packet[skip..length].starts_with(&RAW_PORT.to_be_bytes()) => return true,
            Ok(_) => {}
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
                return false;
            }
        }
    }
}

/// Whether a segment with these flags, sent by a raw socket, reaches the remote host.
fn segment_leaves(world: &World, sender: Sender, family: usize, flags: u8) -> bool {
    let domain = [Domain::IPV4, Domain::IPV6][family];
    let to: SocketAddr = addr(REMOTE[family], 0);
    arrives(world, family, || {
        // Opened as root; the owner that rules see is the user of the thread.
        let sent = world.pod.run(sender, move || {
            let raw = Socket::new(domain, Type::RAW, Some(Protocol::TCP)).expect("raw socket");
            raw.send_to(&segment(family, flags), &to.into())
        });
        // Dropped on the way out, which the sender is told of or not.
        drop(sent);
    })
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

/// Whether the frame reaches the remote host.
fn frame_leaves(world: &World, sender: Sender, family: usize, way: Way) -> bool {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/netns/attacks/frame.py");
    // Each family has its own number; the others are lies in either.
    let protocol = match (family, way.protocol) {
        (1, 0x0800) => 0x86dd,
        (1, 0x86dd) => 0x0800,
        (_, protocol) => protocol,
    };
    let bytes = frame(world, family, SYN);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    arrives(world, family, || {
        let (protocol, mark) = (protocol.to_string(), way.mark.to_string());
        let uid = sender.uid.to_string();
        let arguments = [script, &uid, "eth0", &hex, &protocol, &mark, way.bypass];
        let told = world.pod.output("python3", &arguments);
        eprintln!("{way:?}: {told}");
    })
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
