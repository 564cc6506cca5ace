//! The rules that fill the packet queue: what waits, what does not, and what becomes of it without a proxy.

use std::net::{IpAddr, SocketAddr};

use outrider_model::names::VERDICT_MARK;
use socket2::{Domain, Protocol, Socket, Type};

use crate::outcomes::{BACKENDS, whole_map};
use crate::world::addr::{OTHER_NET, PEER, POD, REMOTE};
use crate::world::probe::{self, Options};
use crate::world::queue::Reader;
use crate::world::{APP, Namespace, ROOT, World};
use crate::{compare, same};

/// The backends that have the queue on every kernel.
fn backends() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    BACKENDS.into_iter().take(2)
}

fn addr(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse::<IpAddr>().expect("address"), port)
}

/// Several datagrams of one flow from the pod, and of one from outside; the same by the excluded interface, and within
/// the pod.
pub(crate) fn flows(world: &World, family: usize) -> String {
    let [own_other, peer_other] = OTHER_NET.map(|addrs| addrs[family]);
    let mut text = String::new();
    for (from, to) in [
        (&world.pod, addr(REMOTE[family], 9000)),
        (&world.peer, addr(POD[family], 8080)),
        (&world.pod, addr(peer_other, 9000)),
        (&world.peer, addr(own_other, 8080)),
        (&world.pod, addr(POD[family], 8080)),
    ] {
        for source_port in [5410, 5410, 5410] {
            let options = Options { source_port, ..source(from, world, family, to) };
            let outcome = from.run(APP, move || probe::connect(to, options));
            text += &format!("{to}: {outcome}\n");
        }
    }
    text
}

fn source(from: &Namespace, world: &World, family: usize, to: SocketAddr) -> Options {
    let [own_other, peer_other] = OTHER_NET.map(|addrs| addrs[family]);
    let other = [own_other, peer_other].contains(&to.ip().to_string().as_str());
    let pod = from.name == world.pod.name;
    let ip = match (pod, other) {
        (true, false) => POD[family],
        (true, true) => own_other,
        (false, false) => REMOTE[family],
        (false, true) => peer_other,
    };
    Options::udp_from(ip, 0)
}

/// A process says that it has the verdict's mark.
pub(crate) fn forged(world: &World, family: usize) -> String {
    let to = addr(REMOTE[family], 9000);
    let options = Options { mark: Some(VERDICT_MARK), ..Options::udp() };
    let outcome = world.pod.run(ROOT, move || probe::connect(to, options));
    format!("{to} with the verdict's mark: {outcome}\n")
}

/// Packets that conntrack knows no flow for, both ways: an answer without a question, and a multicast router's.
pub(crate) fn without_a_flow(world: &World, family: usize) {
    let echo_reply: (u8, i32) = [(0, 1), (129, 58)][family];
    for (from, to) in [(&world.pod, REMOTE[family]), (&world.peer, POD[family])] {
        raw(from, echo_reply.1, &[echo_reply.0, 0, 0, 0, 0, 1, 0, 1], to);
    }
    if family == 0 {
        for (from, own) in [(&world.pod, POD[0]), (&world.peer, PEER[0])] {
            report(from, own);
        }
    }
}

/// Sends a packet of a protocol, its checksum wrong as it may be.
fn raw(from: &Namespace, protocol: i32, bytes: &[u8], to: &str) {
    let to = addr(to, 0);
    from.run(ROOT, || {
        let domain = Domain::for_address(to);
        let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(protocol)));
        socket
            .expect("raw")
            .send_to(bytes, &to.into())
            .expect("sent");
    });
}

/// Tells all hosts that the one at `own` is a member of a multicast group.
fn report(from: &Namespace, own: &str) {
    let own = own.parse().expect("address");
    let to = addr("224.0.0.1", 0);
    from.run(ROOT, || {
        let igmp = Protocol::from(2);
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(igmp)).expect("raw");
        socket.set_multicast_if_v4(&own).expect("interface");
        let report = [0x16, 0, 9, 4, 224, 0, 0, 251];
        socket.send_to(&report, &to.into()).expect("sent");
    });
}

#[test]
fn without_a_proxy_only_what_is_left_alone_passes_when_closed() {
    for (backend, chosen) in backends() {
        let Some(world) = World::new() else { return };
        eprintln!("{backend}");
        let settings =
            ["apply", "--queue", "closed", "--dns", "all", "--exclude-interfaces", "net1"];
        world.init_ok(&[&settings, chosen].concat());
        compare("outcomes/redirect-dns-queue-closed.txt", || whole_map(&world));
    }
}

#[test]
fn nothing_changes_when_open_or_allowed_by_a_proxy() {
    for (backend, chosen) in backends() {
        let Some(world) = World::new() else { return };
        eprintln!("{backend}");
        world.init_ok(&[&["apply", "--queue", "open"], chosen].concat());
        compare("outcomes/redirect.txt", || whole_map(&world));
        for guard in ["tcp", "all"] {
            world.init_ok(&[&["apply", "--queue", "closed", "--guard", guard], chosen].concat());
            let reader = Reader::start(&world.pod);
            compare("outcomes/redirect.txt", || whole_map(&world));
            assert!(reader.seen() > 0);
        }
    }
}

#[test]
fn one_packet_of_a_flow_waits() {
    for (backend, chosen) in backends() {
        let Some(world) = World::new() else { return };
        let settings = ["apply", "--queue", "closed", "--exclude-interfaces", "net1"];
        world.init_ok(&[&settings, chosen].concat());
        for family in [0, 1] {
            let reader = Reader::start(&world.pod);
            let outcomes = flows(&world, family);
            assert_eq!(reader.seen(), 2, "{backend}: {outcomes}");
            forged(&world, family);
            assert_eq!(reader.seen(), 3, "{backend}: the mark is nobody's to set");
            raw(&world.pod, 58, b"\x88\0\0\0\0\0\0\0a payload", REMOTE[1]);
            assert_eq!(reader.seen(), 3, "a hole that docs/init.md names");
        }
    }
}

#[test]
fn leaves_when_it_is_not_asked_for_any_more() {
    for (backend, chosen) in backends() {
        let Some(world) = World::new() else { return };
        world.init_ok(&[&["apply"], chosen].concat());
        let without = world.rules();
        world.init_ok(&[&["apply", "--queue", "closed"], chosen].concat());
        let report = world.init_ok(&[&["apply", "--queue", "closed"], chosen].concat());
        assert!(report.contains("unchanged"), "{backend}: {report}");
        world.init_ok(&[&["apply"], chosen].concat());
        same(backend, &without, &world.rules());
        world.init_ok(&[&["apply", "--queue", "open"], chosen].concat());
        world.init_ok(&["cleanup"]);
        assert!(!world.rules().contains("OUTRIDER"), "{backend}: {}", world.rules());
    }
}

#[test]
fn nft_has_it_or_says_what_to_do() {
    let Some(world) = World::without_listeners() else { return };
    world.init_ok(&["apply", "--backend", "nft"]);
    let before = world.rules();
    let output = world.init(&["apply", "--backend", "nft", "--queue", "closed"]);
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(5), "{error}");
        assert!(error.contains("--backend iptables"), "{error}");
        same("what was in force stays", &before, &world.rules());
    }
}

#[test]
fn verify_proves_it_and_names_what_someone_broke() {
    let sabotage = [
        ("iptables", "OUTPUT", "IPv4: what is not TCP waits for the proxy, outbound"),
        ("ip6tables", "OUTPUT", "IPv6: what is not TCP waits for the proxy, outbound"),
        ("iptables", "INPUT", "IPv4, IPv6: what is not TCP waits for the proxy, inbound"),
        ("ip6tables", "INPUT", "IPv4, IPv6: what is not TCP waits for the proxy, inbound"),
    ];
    let Some(world) = World::without_listeners() else { return };
    world.init_ok(&["apply", "--queue", "closed"]);
    let found = world.init_ok(&["verify", "--queue", "closed"]);
    let holds = found.lines().filter(|line| line.starts_with("ok ")).count();
    assert_eq!(holds, 17, "{found}");
    let reader = Reader::start(&world.pod);
    let found = world.init_ok(&["verify", "--queue", "closed"]);
    assert_eq!(found.matches("waits for the proxy").count(), 3, "with a reader: {found}");
    assert!(!found.contains("unproved"), "{found}");
    drop(reader);
    for (tool, chain, broken) in sabotage {
        world
            .pod
            .output(tool, &["-I", chain, "-p", "udp", "-j", "ACCEPT"]);
        let output = world.init(&["verify", "--queue", "closed"]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(6), "{error}");
        assert!(error.contains(&format!("BROKEN    {broken}")), "{broken}:\n{error}");
        world.init_ok(&["apply", "--queue", "closed"]);
        world.init_ok(&["verify", "--queue", "closed"]);
    }
}
