//! Who answers whom, and what they saw: one reviewed map a set of settings, the same for every backend.

use std::net::{IpAddr, SocketAddr};
use std::thread;

use crate::compare;
use crate::world::addr::{OTHER_NET, PEER, POD, REMOTE, REMOTE_EXCLUDED};
use crate::world::probe::{self, Options};
use crate::world::{APP, BATCH, Namespace, PROXY, ROOT, Sender, World};

/// Every way to install the same rules.
pub(crate) const BACKENDS: [(&str, &[&str]); 3] = [
    ("iptables over nf_tables", &["--iptables-variant", "nft"]),
    ("legacy iptables", &["--iptables-variant", "legacy"]),
    ("nft", &["--backend", "nft"]),
];

/// One flow of an outcome map.
struct Probe<'a> {
    from: &'a Namespace,
    sender: Sender,
    to: SocketAddr,
    options: Options,
}

impl Probe<'_> {
    fn line(&self) -> String {
        let (to, options) = (self.to, self.options);
        let outcome = self
            .from
            .run(self.sender, move || probe::connect(to, options));
        let name = self.sender.name;
        format!("{name} > {to}{options}: {outcome}\n")
    }
}

/// Probes at the same time: most of a probe is waiting.
const AT_ONCE: usize = 80;

/// Runs all probes; one line each, in their order.
fn run(probes: &[Probe<'_>]) -> String {
    let mut map = String::new();
    for some in probes.chunks(AT_ONCE) {
        map += &thread::scope(|scope| {
            let running: Vec<_> = some
                .iter()
                .map(|probe| scope.spawn(|| probe.line()))
                .collect();
            let lines = running.into_iter();
            lines
                .map(|line| line.join().expect("a probe does not panic"))
                .collect::<String>()
        });
    }
    map
}

/// The probes of one family (0 is IPv4).
fn probes(world: &World, family: usize) -> Vec<Probe<'_>> {
    let (loopback, delivery) = [("127.0.0.1", "127.0.0.6"), ("::1", "::6")][family];
    let (pod, remote, peer) = (POD[family], REMOTE[family], PEER[family]);
    let [own_other, peer_other] = OTHER_NET.map(|addrs| addrs[family]);
    let inside = |sender: Sender, to: &str, port, options| Probe {
        from: &world.pod,
        sender,
        to: addr(to, port),
        options,
    };
    let mut probes = Vec::new();
    for sender in [APP, ROOT, BATCH, PROXY] {
        let targets = [
            (remote, 9000),
            (remote, 9001),
            (remote, 9),
            (REMOTE_EXCLUDED[family], 9000),
            (peer, 9000),
            (peer_other, 9000),
            (pod, 8080),
            (pod, 15101),
            (pod, 15106),
            (loopback, 8080),
            (loopback, 9),
            (loopback, 15106),
            (remote, 53),
        ];
        for (to, port) in targets {
            probes.push(inside(sender, to, port, Options::default()));
        }
        probes.push(inside(sender, pod, 8080, Options::from_source(delivery)));
        for (to, port) in [(remote, 9000), (remote, 53), (loopback, 53)] {
            probes.push(inside(sender, to, port, Options::udp()));
        }
    }
    probes.push(inside(PROXY, pod, 8080, Options::borrowing(peer)));
    let outside = |to, port, options| Probe {
        from: &world.peer,
        sender: PEER_ROOT,
        to: addr(to, port),
        options,
    };
    for port in [8080, 8081, 9, 15106, 15101, 15100, 15120] {
        probes.push(outside(pod, port, Options::default()));
    }
    probes.push(outside(own_other, 8080, Options::default()));
    probes.push(outside(pod, 8080, Options::udp()));
    probes
}

/// Root of the peer.
const PEER_ROOT: Sender = Sender { name: "peer", ..ROOT };

fn addr(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse::<IpAddr>().expect("address"), port)
}

/// The outcome map of both families.
pub(crate) fn whole_map(world: &World) -> String {
    let (v4, v6) = thread::scope(|scope| {
        let v6 = scope.spawn(|| run(&probes(world, 1)));
        (run(&probes(world, 0)), v6.join().expect("a probe does not panic"))
    });
    format!("# IPv4\n{v4}# IPv6\n{v6}")
}

/// Applies with every backend, and compares the map with the one file.
fn check(file: &str, arguments: &[&str]) {
    for (backend, chosen) in BACKENDS {
        let Some(world) = World::new() else { return };
        eprintln!("{backend}");
        world.init_ok(&[&["apply"], chosen, arguments].concat());
        compare(&format!("outcomes/{file}.txt"), || whole_map(&world));
    }
}

/// Every kind of exclusion at once.
const EXCLUSIONS: [&str; 10] = [
    "--exclude-inbound-ports",
    "8081",
    "--exclude-outbound-ports",
    "9001",
    "--exclude-outbound-cidrs",
    "198.51.100.0/24,2001:db8:8::/48",
    "--exclude-interfaces",
    "net1",
    "--exclude-groups",
    "2000",
];

/// Every kind of list at once.
const LISTS: [&str; 8] = [
    "--inbound-ports",
    "8080,15000-15999",
    "--outbound-ports",
    "9000",
    "--outbound-cidrs",
    "192.0.2.0/24,2001:db8::/48",
    "--groups",
    "1000,0",
];

#[test]
fn redirect() {
    check("redirect", &[]);
}

#[test]
fn redirect_with_exclusions() {
    check("redirect-exclusions", &EXCLUSIONS);
}

#[test]
fn redirect_with_lists() {
    check("redirect-lists", &LISTS);
}

#[test]
fn redirect_with_dns_and_the_guard_for_everything() {
    check("redirect-dns-guard-all", &["--dns", "all", "--guard", "all"]);
}

#[test]
fn tproxy() {
    check("tproxy", &["--mode", "tproxy"]);
}

#[test]
fn tproxy_with_exclusions() {
    check("tproxy-exclusions", &[&["--mode", "tproxy"], &EXCLUSIONS[..]].concat());
}

#[test]
fn tproxy_with_lists_and_dns() {
    check("tproxy-lists-dns", &[&["--mode", "tproxy", "--dns", "all"], &LISTS[..]].concat());
}
