//! What a process of the pod may try to get past the proxy, and what becomes of it.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::outcomes::BACKENDS;
use crate::world::addr::{POD, REMOTE};
use crate::world::probe::{self, Options};
use crate::world::{APP, PROXY, ROOT, Sender, World};

/// How long a packet may take to the peer.
const PATIENCE: Duration = Duration::from_millis(300);

/// Source port that marks our raw segments.
const RAW_PORT: u16 = 4242;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

fn addr(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().expect("address"), port)
}

/// A TCP segment with a payload and a right checksum.
fn segment(source: Ipv4Addr, destination: Ipv4Addr, flags: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(RAW_PORT.to_be_bytes());
    bytes.extend(9000_u16.to_be_bytes());
    bytes.extend([0, 0, 0, 1, 0, 0, 0, 1, 5 << 4, flags, 16, 0, 0, 0, 0, 0]);
    bytes.extend(b"secret");
    let length = u16::try_from(bytes.len()).expect("a short segment");
    let pseudo = [&source.octets()[..], &destination.octets(), &[0, 6], &length.to_be_bytes()];
    let sum: u32 = [pseudo.concat(), bytes.clone()]
        .concat()
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).expect("folded");
    bytes[16..18].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

/// Whether a raw segment with these flags reaches the remote host.
fn raw_segment_leaves(world: &World, sender: Sender, flags: u8) -> bool {
    let [source, destination] =
        [POD[0], REMOTE[0]].map(|text| text.parse::<Ipv4Addr>().expect("address"));
    let raw = || Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP)).expect("raw socket");
    let seen = world.peer.run(ROOT, raw);
    seen.set_read_timeout(Some(PATIENCE)).expect("timeout");
    // The socket is opened as root and sends as its owner is seen: by the user of the thread.
    let sent = world.pod.run(sender, move || {
        raw().send_to(&segment(source, destination, flags), &addr(REMOTE[0], 0).into())
    });
    if sent.is_err() {
        return false;
    }
    let mut packet = [0; 256];
    loop {
        match (&seen).read(&mut packet) {
            Ok(length) if packet[20..length].starts_with(&RAW_PORT.to_be_bytes()) => return true,
            Ok(_) => {}
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
                return false;
            }
        }
    }
}

#[test]
fn raw_segments_do_not_leave() {
    for (backend, chosen) in BACKENDS {
        let Some(world) = World::new() else { return };
        assert!(raw_segment_leaves(&world, ROOT, SYN | FIN), "the probe itself must work");
        world.init_ok(&[&["apply"], chosen].concat());
        for flags in [SYN, SYN | FIN, RST, RST | ACK, ACK, FIN, 0] {
            assert!(!raw_segment_leaves(&world, ROOT, flags), "{backend}: flags {flags:#x}");
        }
    }
}

#[test]
fn a_mark_does_not_make_a_proxy() {
    for (backend, chosen) in BACKENDS {
        for mode in ["redirect", "tproxy"] {
            let Some(world) = World::new() else { return };
            world.init_ok(&[&["apply", "--mode", mode], chosen].concat());
            let marked = Options::borrowing(POD[0]);
            let outcome = world
                .pod
                .run(ROOT, || probe::connect(addr(REMOTE[0], 9000), marked));
            assert!(!outcome.contains("remote"), "{backend}, {mode}: {outcome}");
        }
    }
}

#[test]
fn the_proxys_uid_is_not_enough_where_a_secret_mark_is_asked_for() {
    for (backend, chosen) in BACKENDS {
        let Some(world) = World::new() else { return };
        world.init_ok(&[&["apply", "--secret-mark", "0x5ec4e7"], chosen].concat());
        let to = addr(REMOTE[0], 9000);
        let impersonator = world
            .pod
            .run(PROXY, || probe::connect(to, Options::default()));
        assert!(impersonator.starts_with("proxy:15101"), "{backend}: {impersonator}");
        let secret = Options { mark: Some(0x5ec4e7), ..Options::default() };
        let proxy = world.pod.run(PROXY, move || probe::connect(to, secret));
        assert!(proxy.starts_with("remote"), "{backend}: {proxy}");
        let thief = world.pod.run(ROOT, move || probe::connect(to, secret));
        assert!(thief.starts_with("proxy:15101"), "{backend}: {thief}");
    }
}

#[test]
fn the_health_port_is_no_door_for_the_workload() {
    for (backend, chosen) in BACKENDS {
        let Some(world) = World::without_listeners() else { return };
        probe::serve(&world.pod, APP, "app", 15120);
        world.init_ok(&[&["apply"], chosen].concat());
        for pod in POD {
            let to = addr(pod, 15120);
            let outcome = world
                .peer
                .run(ROOT, || probe::connect(to, Options::default()));
            assert_eq!(outcome, "nothing", "{backend}");
        }
    }
}

#[test]
fn older_connections_do_not_go_on_past_the_rules() {
    for (backend, chosen) in BACKENDS {
        for guard in ["tcp", "off"] {
            let Some(world) = World::without_listeners() else { return };
            let listener = world
                .peer
                .run(ROOT, || TcpListener::bind("192.0.2.10:7000"));
            let listener = listener.expect("bind");
            let mut client = world
                .pod
                .run(APP, || TcpStream::connect("192.0.2.10:7000"))
                .expect("nothing is captured yet");
            let (mut server, _) = listener.accept().expect("accept");
            server.set_read_timeout(Some(PATIENCE)).expect("timeout");
            let mut bytes = [0; 8];
            client.write_all(b"before").expect("still direct");
            assert_eq!(server.read(&mut bytes).expect("still direct"), 6);

            world.init_ok(&[&["apply", "--guard", guard], chosen].concat());
            // Written, and either never acknowledged or answered by a reset.
            client.write_all(b"after").expect("the buffer takes it");
            let arrived = server.read(&mut bytes).unwrap_or(0);
            assert_eq!(arrived, 0, "{backend}, guard {guard}: the flow went on");
        }
    }
}

#[test]
fn the_guard_for_everything_stops_udp_and_icmp() {
    for (backend, chosen) in BACKENDS {
        let Some(world) = World::new() else { return };
        for remote in REMOTE {
            world.pod.output("ping", &["-c", "1", "-W", "1", remote]);
        }
        world.init_ok(&[&["apply", "--guard", "all"], chosen].concat());
        for remote in REMOTE {
            let to = addr(remote, 9000);
            let outcome = world.pod.run(ROOT, || probe::connect(to, Options::udp()));
            assert!(!outcome.contains("remote"), "{backend}: {outcome}");
            let ping = world.pod.exec("ping", &["-c", "1", "-W", "1", remote]);
            assert!(!ping.status.success(), "{backend}: {remote} answered a ping");
        }
        // Neighbours still find each other.
        world
            .pod
            .output("ip", &["neighbour", "flush", "dev", "eth0"]);
        let to: IpAddr = REMOTE[1].parse().expect("address");
        let to = SocketAddr::new(to, 9000);
        let outcome = world
            .pod
            .run(PROXY, || probe::connect(to, Options::default()));
        assert!(outcome.starts_with("remote"), "{backend}: {outcome}");
    }
}
