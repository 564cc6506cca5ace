//! Two network namespaces of a test's own, joined by a veth pair: `pod`, in which the test runs, and
//! `peer`.
#![allow(dead_code, reason = "each test uses its part of this")]

use std::{
    fs::File,
    io::Write,
    net::{SocketAddr, UdpSocket},
    process::{Command, Stdio},
    thread,
};

use nix::sched::{CloneFlags, setns, unshare};

/// Addresses of both ends, v4 and v6.
pub(crate) const POD: [&str; 2] = ["10.9.0.1", "fd09::1"];
pub(crate) const PEER: [&str; 2] = ["10.9.0.2", "fd09::2"];

/// The other end of the pair.
pub(crate) struct Peer(File);

impl Peer {
    /// Runs `work` on a thread in the peer's namespace: sockets made there stay there.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            setns(&self.0, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        };
        thread::scope(|scope| scope.spawn(inside).join().unwrap())
    }

    /// A UDP socket of the peer.
    pub(crate) fn udp(&self, address: &str) -> UdpSocket {
        self.enter(|| UdpSocket::bind(address).unwrap())
    }
}

/// Runs `test` in a fresh pod, inside a runtime. Without the privilege the test is skipped, which
/// `OUTRIDER_REQUIRE_NETNS=1` turns into a failure.
pub(crate) fn in_pod<F: Future<Output = ()>>(test: impl FnOnce(Peer) -> F + Send + 'static) {
    in_namespaces(|| make().map(|peer| [peer]), |[peer]| test(peer));
}

fn in_namespaces<const N: usize, F: Future<Output = ()>>(
    make: impl FnOnce() -> nix::Result<[Peer; N]> + Send + 'static,
    test: impl FnOnce([Peer; N]) -> F + Send + 'static,
) {
    let ran = thread::spawn(move || {
        let there = make().map_err(|error| error.to_string())?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let _alive = there.each_ref().map(|peer| peer.0.try_clone().unwrap());
        runtime.block_on(test(there));
        Ok::<(), String>(())
    });
    if let Err(why) = ran.join().unwrap() {
        let required = std::env::var("OUTRIDER_REQUIRE_NETNS");
        assert_ne!(required.as_deref(), Ok("1"), "no network namespace: {why}");
        eprintln!("SKIPPED: no network namespace: {why}");
    }
}

/// Runs `test` in a namespace between two peers: the first is behind the interface `out`, the second,
/// with the addresses of a pod, behind `in`. Neither has a way to the other.
pub(crate) fn in_middle<F: Future<Output = ()>>(
    test: impl FnOnce([Peer; 2]) -> F + Send + 'static,
) {
    in_namespaces(make_middle, test);
}

fn make_middle() -> nix::Result<[Peer; 2]> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    let middle = File::open("/proc/thread-self/ns/net").unwrap();
    quiet();
    let side = |here: &str, there, addresses| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        let peer = File::open("/proc/thread-self/ns/net").unwrap();
        quiet();
        run("ip", &["link", "set", "lo", "up"], "");
        let tid = std::fs::read_link("/proc/thread-self").unwrap();
        let tid = tid.file_name().unwrap().to_str().unwrap().to_owned();
        thread::scope(|scope| {
            let inside = || {
                setns(&middle, CloneFlags::CLONE_NEWNET).unwrap();
                let veth = ["link", "add", here, "type", "veth", "peer", "name", there];
                run("ip", &[&veth[..], &["netns", &tid]].concat(), "");
                run("ip", &["link", "set", here, "up"], "");
            };
            scope.spawn(inside).join().unwrap();
        });
        configure(there, addresses);
        run("ip", &["neigh", "flush", "nud", "permanent", "dev", there], "");
        Ok(Peer(peer))
    };
    let peers = [side("out", "eth1", PEER)?, side("in", "eth0", POD)?];
    setns(&middle, CloneFlags::CLONE_NEWNET)?;
    Ok(peers)
}

fn make() -> nix::Result<Peer> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    let pod = File::open("/proc/thread-self/ns/net").unwrap();
    unshare(CloneFlags::CLONE_NEWNET)?;
    let peer = File::open("/proc/thread-self/ns/net").unwrap();
    let tid = std::fs::read_link("/proc/thread-self").unwrap();
    let tid = tid.file_name().unwrap().to_str().unwrap().to_owned();
    quiet();
    run("ip", &["link", "set", "lo", "up"], "");
    setns(&pod, CloneFlags::CLONE_NEWNET)?;
    quiet();
    run("ip", &["link", "set", "lo", "up"], "");
    run("ip", &["link", "add", "eth0", "type", "veth", "peer", "name", "eth1"], "");
    setns(&peer, CloneFlags::CLONE_NEWNET)?;
    // The tool names a namespace by a task in it: this thread, which has just gone there.
    let to_peer = ["link", "set", "eth1", "netns", &tid];
    thread::scope(|scope| {
        let inside = || {
            setns(&pod, CloneFlags::CLONE_NEWNET).unwrap();
            run("ip", &to_peer, "");
            configure("eth0", POD);
        };
        scope.spawn(inside).join().unwrap();
    });
    configure("eth1", PEER);
    setns(&pod, CloneFlags::CLONE_NEWNET)?;
    neighbours();
    Ok(Peer(peer))
}

/// No address of its own making, no questions about duplicates: only what a test sends is seen.
fn quiet() {
    for (name, value) in
        [("addr_gen_mode", "1"), ("accept_dad", "0"), ("router_solicitations", "0")]
    {
        let path = format!("/proc/sys/net/ipv6/conf/default/{name}");
        if let Err(error) = std::fs::write(&path, value) {
            eprintln!("{path}: {error}");
        }
    }
}

fn configure(interface: &str, [v4, v6]: [&str; 2]) {
    let mac = if interface == "eth0" { MACS[0] } else { MACS[1] };
    run("ip", &["link", "set", interface, "address", mac, "up"], "");
    run("ip", &["addr", "add", &format!("{v4}/24"), "dev", interface], "");
    run("ip", &["addr", "add", &format!("{v6}/64"), "dev", interface, "nodad"], "");
    let (neighbours, mac) = if interface == "eth0" { (PEER, MACS[1]) } else { (POD, MACS[0]) };
    for neighbour in neighbours {
        run("ip", &["neigh", "replace", neighbour, "lladdr", mac, "dev", interface], "");
    }
}

/// Waits until both ends are up: a link that is still coming up loses packets.
fn neighbours() {
    for to in PEER {
        let answers = (0..30).any(|_| tried("ping", &["-q", "-c", "1", "-W", "0.3", to], ""));
        assert!(answers, "no way to {to}");
    }
}

/// Hardware addresses of pod and peer.
pub(crate) const MACS: [&str; 2] = ["02:00:00:00:00:01", "02:00:00:00:00:02"];

/// Runs a tool in this thread's namespace.
pub(crate) fn run(tool: &str, args: &[&str], input: &str) {
    assert!(tried(tool, args, input), "{tool} {args:?}");
}

fn tried(tool: &str, args: &[&str], input: &str) -> bool {
    let mut child = Command::new(tool)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    child.wait().unwrap().success()
}

/// An address with a port, as text that parses.
pub(crate) fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

/// Keeps of this thread's capabilities only these.
pub(crate) fn keep_only(capabilities: &[caps::Capability]) {
    let kept = capabilities.iter().copied().collect();
    caps::set(None, caps::CapSet::Effective, &kept).unwrap();
}
