//! A pod and a peer: two network namespaces joined by a veth pair, and probes from any user in either.
//! Everything goes when the world is dropped.

pub(crate) mod probe;

use std::fs::File;
use std::net::SocketAddr;
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
            let thread = scope.spawn(|| {
                self.enter(sender);
                work()
            });
            thread.join().expect("a probe does not panic")
        })
    }

    /// Moves the calling thread here; its sockets are owned by `sender`.
    pub(crate) fn enter(&self, sender: Sender) {
        let file = File::open(PathBuf::from("/run/netns").join(&self.name)).expect("namespace");
        setns(file, CloneFlags::CLONE_NEWNET).expect("setns");
        setfsgid(Gid::from_raw(sender.gid));
        setfsuid(Uid::from_raw(sender.uid));
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
    /// Builds the world, or says loudly that it can't.
    pub(crate) fn new() -> Option<Self> {
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
        world.listen();
        world.warm_up();
        Some(world)
    }

    fn connect(&self) {
        let (pod, peer) = (&self.pod.name, &self.peer.name);
        ip(&format!("link add eth0 netns {pod} type veth peer name eth0 netns {peer}"));
        for (name, addrs) in [(pod, addr::POD), (peer, addr::PEER)] {
            // Addresses come at once and without duplicate detection, which would change the picture later.
            ip(&format!("-n {name} link set eth0 addrgenmode none"));
            ip(&format!("-n {name} address add {}/24 dev eth0", addrs[0]));
            ip(&format!("-n {name} address add {}/64 dev eth0 nodad", addrs[1]));
            ip(&format!("-n {name} link set eth0 up"));
        }
        ip(&format!("-n {peer} address add {}/32 dev lo", addr::REMOTE[0]));
        ip(&format!("-n {peer} address add {}/128 dev lo nodad", addr::REMOTE[1]));
        ip(&format!("-n {pod} route add default via {}", addr::PEER[0]));
        ip(&format!("-n {pod} -6 route add default via {}", addr::PEER[1]));
    }

    fn listen(&self) {
        for port in [15101, 15106] {
            probe::serve(&self.pod, PROXY, "proxy", port);
        }
        probe::serve(&self.pod, PROXY, "health", 15120);
        for port in [8080, 8081] {
            probe::serve(&self.pod, APP, "app", port);
        }
        for port in [8080, 9000, 9001] {
            probe::serve(&self.peer, ROOT, "remote", port);
        }
    }

    /// Waits until both know each other's link addresses: neighbour discovery must not be part of an outcome.
    fn warm_up(&self) {
        for family in 0..2 {
            let remote = SocketAddr::new(addr::REMOTE[family].parse().expect("address"), 9000);
            let pod = SocketAddr::new(addr::POD[family].parse().expect("address"), 8080);
            for (from, to) in [(&self.pod, remote), (&self.peer, pod)] {
                let reached = |_| {
                    from.run(ROOT, || probe::connect(to, None))
                        .contains(" from ")
                };
                assert!((0..ATTEMPTS).any(reached), "{to} is not reachable");
            }
        }
    }

    /// Runs outrider-init in the pod; it must succeed. Returns what it printed.
    pub(crate) fn init_ok(&self, arguments: &[&str]) -> String {
        self.pod
            .output(env!("CARGO_BIN_EXE_outrider-init"), arguments)
    }

    /// The rules in force, of both families and both builds of the tools, without times and counters.
    pub(crate) fn rules(&self) -> String {
        let mut text = String::new();
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
