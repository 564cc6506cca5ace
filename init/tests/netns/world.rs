//! A pod and a peer: two network namespaces joined by a veth pair, and probes from any user in either.
//! Everything goes when the world is dropped.

pub(crate) mod probe;
pub(crate) mod queue;

use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use nix::sched::{CloneFlags, setns};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};

/// Addresses of the world.
pub(crate) mod addr {
    /// The pod.
    pub(crate) const POD: [&str; 2] = ["10.77.0.2", "fd77::2"];
    /// The peer on the same link.
    pub(crate) const PEER: [&str; 2] = ["10.77.0.1", "fd77::1"];
    /// A host behind the peer.
    pub(crate) const REMOTE: [&str; 2] = ["192.0.2.10", "2001:db8::10"];
    /// A host behind the peer, in networks that some settings exclude.
    pub(crate) const REMOTE_EXCLUDED: [&str; 2] = ["198.51.100.10", "2001:db8:8::10"];
    /// The second network, `net1`: pod and peer.
    pub(crate) const OTHER_NET: [[&str; 2]; 2] =
        [["10.78.0.2", "fd78::2"], ["10.78.0.1", "fd78::1"]];
}

/// Who opens a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sender {
    /// Name in outcome maps.
    pub(crate) name: &'static str,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

pub(crate) const ROOT: Sender = Sender { name: "root", uid: 0, gid: 0 };
pub(crate) const APP: Sender = Sender { name: "app", uid: 1000, gid: 1000 };
pub(crate) const BATCH: Sender = Sender { name: "batch", uid: 1001, gid: 2000 };
pub(crate) const PROXY: Sender = Sender { name: "proxy", uid: 1771, gid: 1771 };

/// Connections to try before a world is given up.
const ATTEMPTS: usize = 10;

/// A network namespace with a name of its own.
#[derive(Debug)]
pub(crate) struct Namespace {
    pub(crate) name: String,
}

impl Namespace {
    fn new(role: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ori-{role}-{}-{number}", std::process::id());
        ip(&format!("netns add {name}"));
        ip(&format!("-n {name} link set lo up"));
        Self { name }
    }

    /// Does `work` on a thread of its own in this namespace, with sockets owned by `sender`.
    pub(crate) fn run<T: Send>(&self, sender: Sender, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let enter = self.entrance(sender);
            let thread = scope.spawn(|| {
                enter();
                work()
            });
            thread.join().expect("a probe does not panic")
        })
    }

    /// What moves a thread here, with sockets owned by `sender`.
    pub(crate) fn entrance(&self, sender: Sender) -> impl FnOnce() + Send + use<> {
        let path = PathBuf::from("/run/netns").join(&self.name);
        move || {
            let file = File::open(path).expect("namespace");
            setns(file, CloneFlags::CLONE_NEWNET).expect("setns");
            setfsgid(Gid::from_raw(sender.gid));
            setfsuid(Uid::from_raw(sender.uid));
        }
    }

    /// Runs a program here.
    pub(crate) fn exec(&self, program: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.name, program])
            .args(arguments);
        command.output().expect("ip")
    }

    /// Runs a program here that must succeed, and returns what it printed.
    pub(crate) fn output(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.exec(program, arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {error}");
        String::from_utf8(output.stdout).expect("text")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Nothing can be done about a failure here, and a panic would hide the test's own.
        drop(
            Command::new("ip")
                .args(["netns", "del", &self.name])
                .status(),
        );
    }
}

/// The pod and its peer, with their listeners running.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) pod: Namespace,
    pub(crate) peer: Namespace,
}

impl World {
    /// Builds the world with its listeners, or says loudly that it can't.
    pub(crate) fn new() -> Option<Self> {
        let world = Self::without_listeners()?;
        probe::serve(&world.pod, PROXY, "health", 15120);
        world.listen();
        world.warm_up();
        Some(world)
    }

    /// The same, but over IPv6 somebody else was on the health port first.
    pub(crate) fn with_squatter() -> Option<Self> {
        let world = Self::without_listeners()?;
        probe::serve_at(&world.pod, PROXY, "health", "0.0.0.0:15120");
        probe::serve_at(&world.pod, APP, "squatter", "[::]:15120");
        world.listen();
        world.warm_up();
        Some(world)
    }

    /// Builds the world without any listener, or says loudly that it can't.
    pub(crate) fn without_listeners() -> Option<Self> {
        let able = Uid::effective().is_root()
            && Command::new("ip")
                .arg("-V")
                .output()
                .is_ok_and(|output| output.status.success())
            && Command::new("iptables-restore").arg("-V").output().is_ok();
        if !able {
            assert!(
                std::env::var_os("OUTRIDER_REQUIRE_NETNS").is_none_or(|value| value != "1"),
                "network namespaces are required: run as root with iproute2 and iptables"
            );
            eprintln!("SKIPPED: needs root, iproute2 and iptables; nothing was proved");
            return None;
        }
        let world = Self { pod: Namespace::new("pod"), peer: Namespace::new("peer") };
        world.connect();
        Some(world)
    }

    fn connect(&self) {
        let (pod, peer) = (&self.pod.name, &self.peer.name);
        let [pod_other, peer_other] = addr::OTHER_NET;
        for (link, pod_addrs, peer_addrs) in
            [("eth0", addr::POD, addr::PEER), ("net1", pod_other, peer_other)]
        {
            ip(&format!("link add {link} netns {pod} type veth peer name {link} netns {peer}"));
            for (name, addrs, number) in [(pod, pod_addrs, 2), (peer, peer_addrs, 1)] {
                // Addresses come at once, without duplicate detection, which would change the picture later.
                ip(&format!("-n {name} link set {link} addrgenmode none"));
                ip(&format!("-n {name} address add {}/24 dev {link}", addrs[0]));
                ip(&format!("-n {name} address add {}/64 dev {link} nodad", addrs[1]));
                ip(&format!("-n {name} address add fe80::{number}/64 dev {link} nodad"));
                ip(&format!("-n {name} link set {link} up"));
            }
        }
        for remote in [addr::REMOTE, addr::REMOTE_EXCLUDED] {
            ip(&format!("-n {peer} address add {}/32 dev lo", remote[0]));
            ip(&format!("-n {peer} address add {}/128 dev lo nodad", remote[1]));
        }
        ip(&format!("-n {pod} route add default via {}", addr::PEER[0]));
        ip(&format!("-n {pod} -6 route add default via {}", addr::PEER[1]));
    }

    fn listen(&self) {
        for port in [15101, 15106] {
            probe::serve(&self.pod, PROXY, "proxy", port);
        }
        probe::serve_udp(&self.pod, PROXY, "dns", "127.0.0.1:15153");
        probe::serve_udp(&self.pod, PROXY, "dns", "[::1]:15153");
        probe::serve(&self.pod, PROXY, "dns", 15153);
        for port in [8080, 8081] {
            probe::serve(&self.pod, APP, "app", port);
        }
        for addr in ["127.0.0.1:53", "[::1]:53", "10.77.0.2:8080", "[fd77::2]:8080"] {
            probe::serve_udp(&self.pod, APP, "app", addr);
        }
        for port in [53, 8080, 9000, 9001] {
            probe::serve(&self.peer, ROOT, "remote", port);
        }
        let [pod_other, peer_other] =
            addr::OTHER_NET.map(|ips| ips.map(|ip| ip.parse::<IpAddr>().expect("address")));
        for ip in pod_other {
            let addr = SocketAddr::new(ip, 8080).to_string();
            probe::serve_udp(&self.pod, APP, "app", &addr);
        }
        for ip in peer_other {
            let addr = SocketAddr::new(ip, 9000).to_string();
            probe::serve_udp(&self.peer, ROOT, "remote", &addr);
        }
        for port in [53, 9000] {
            for ip in addr::REMOTE {
                let ip: IpAddr = ip.parse().expect("address");
                let addr = SocketAddr::new(ip, port).to_string();
                probe::serve_udp(&self.peer, ROOT, "remote", &addr);
            }
        }
    }

    /// Nobody knows a link address any more.
    pub(crate) fn flush_neighbours(&self) {
        for namespace in [&self.pod, &self.peer] {
            namespace.output("ip", &["neighbour", "flush", "all"]);
        }
    }

    /// Neighbours have to be found again, each by the other; then they are known.
    pub(crate) fn forget_neighbours(&self) {
        self.flush_neighbours();
        for family in 0..2 {
            for (from, to) in [(&self.pod, addr::PEER[family]), (&self.peer, addr::POD[family])] {
                from.exec("ping", &["-c", "1", "-W", "0.1", to]);
            }
        }
    }

    /// Waits until both know each other's link addresses: neighbour discovery must not be part of an outcome.
    fn warm_up(&self) {
        for family in 0..2 {
            let [own_other, peer_other] = addr::OTHER_NET.map(|addrs| addrs[family]);
            for (from, to, port) in [
                (&self.pod, addr::REMOTE[family], 9000),
                (&self.pod, peer_other, 9000),
                (&self.peer, addr::POD[family], 8080),
                (&self.peer, own_other, 8080),
            ] {
                let to = SocketAddr::new(to.parse().expect("address"), port);
                let reached = |_| {
                    from.run(ROOT, || probe::connect(to, probe::Options::default()))
                        .contains(" from ")
                };
                assert!((0..ATTEMPTS).any(reached), "{to} is not reachable");
            }
        }
    }

    /// Runs outrider-init in the pod.
    pub(crate) fn init(&self, arguments: &[&str]) -> Output {
        self.pod
            .exec(env!("CARGO_BIN_EXE_outrider-init"), arguments)
    }

    /// Runs outrider-init in the pod; it must succeed. Returns what it printed.
    pub(crate) fn init_ok(&self, arguments: &[&str]) -> String {
        self.pod
            .output(env!("CARGO_BIN_EXE_outrider-init"), arguments)
    }

    /// The rules in force, of both families and both builds of the tools, without times and counters.
    pub(crate) fn rules(&self) -> String {
        let mut text = String::new();
        text.push_str(&self.pod.output("nft", &["list", "tables"]));
        for family in ["inet", "netdev"] {
            if text.contains(&format!("{family} outrider")) {
                text += &self
                    .pod
                    .output("nft", &["list", "table", family, "outrider"]);
            }
        }
        for tool in ["iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy"] {
            let saved = self.pod.output(&format!("{tool}-save"), &[]);
            let lines = saved.lines().filter(|line| !line.starts_with('#'));
            text.push_str(&format!("# {tool}\n"));
            for line in lines {
                text.push_str(line.split(" [").next().unwrap_or_default());
                text.push('\n');
            }
        }
        text
    }
}

/// Runs `ip`; it must succeed.
pub(crate) fn ip(arguments: &str) {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .expect("ip");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {error}");
}
