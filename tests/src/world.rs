//! A node, its bridge and its pods' namespaces.

pub mod sweep;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result};

use crate::{
    netns::Namespace,
    node::Node,
    pod::{Addresses, Pod},
};

/// Number of worlds this process has made.
static MADE: AtomicU32 = AtomicU32::new(0);

/// First three octets of every pod's IPv4 address; the node is `.1`.
const NET4: &str = "10.71.0";
/// First half of every pod's IPv6 address; the node is `::1`.
const NET6: &str = "fd00:71:";
/// Host number of the first pod.
const FIRST_HOST: u8 = 10;

/// One node with its pods. Dropping it removes every namespace, process and file it made.
#[derive(Debug)]
pub struct World {
    prefix: String,
    dir: PathBuf,
    node: Namespace,
    hosts: u8,
}

impl World {
    /// Makes the node: a namespace with a bridge. First removes what dead processes left behind.
    pub fn new() -> Result<Self> {
        sweep::on_signals()?;
        sweep::leftovers()?;
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{}{}x{number}", sweep::PREFIX, std::process::id());
        let dir = sweep::claim(&prefix)?;
        let node = Namespace::create(&format!("{prefix}-node"))
            .context("making a network namespace (needs root and iproute2)")?;
        let world = Self { prefix, dir, node, hosts: 0 };
        world.build_node()?;
        Ok(world)
    }

    fn build_node(&self) -> Result<()> {
        let node = &self.node;
        node.ip("link add br0 type bridge forward_delay 0")?;
        quiet_ipv6(node, "br0")?;
        node.ip("link set br0 up")?;
        node.ip(&format!("addr add {NET4}.1/24 dev br0"))?;
        node.ip(&format!("-6 addr add {NET6}:1/64 dev br0 nodad"))?;
        // Frames between pods must not meet the node's rules twice.
        for family in ["iptables", "ip6tables"] {
            let _module_not_loaded =
                node.sysctl(&format!("net/bridge/bridge-nf-call-{family}"), "0");
        }
        fs::create_dir_all(self.pods_dir())?;
        Ok(())
    }

    /// Adds a pod: a namespace with `eth0` on the bridge, a mailbox and a workload file. Nothing runs
    /// in it yet.
    pub fn pod(&mut self, name: &str) -> Result<Pod> {
        let host = FIRST_HOST + self.hosts;
        let addresses = Addresses {
            v4: format!("{NET4}.{host}").parse()?,
            v6: format!("{NET6}:{host:x}").parse()?,
            mac: format!("0a:00:0a:47:00:{host:02x}"),
        };
        self.pod_at(name, addresses)
    }

    /// The same with addresses of its own, in networks of 24 and 64 bits whose host 1 is the way out.
    pub fn pod_at(&mut self, name: &str, addresses: Addresses) -> Result<Pod> {
        let host = FIRST_HOST + self.hosts;
        self.hosts += 1;
        let namespace = Namespace::create(&format!("{}-{name}", self.prefix))?;
        self.connect(&namespace, host, &addresses)?;
        Pod::create(name, namespace, addresses, self)
    }

    /// A veth pair: `eth0` inside, a port of the bridge outside.
    fn connect(&self, pod: &Namespace, host: u8, addresses: &Addresses) -> Result<()> {
        let Addresses { v4, v6, mac } = addresses;
        let inside = pod.name();
        self.node
            .ip(&format!("link add veth{host} type veth peer name eth0 netns {inside}"))?;
        self.node
            .ip(&format!("link set veth{host} master br0 up"))?;
        quiet_ipv6(pod, "eth0")?;
        pod.ip(&format!("link set eth0 address {mac} up"))?;
        pod.ip(&format!("addr add {v4}/24 dev eth0"))?;
        pod.ip(&format!("-6 addr add {v6}/64 dev eth0 nodad"))?;
        let [a, b, c, last] = v4.octets();
        if last != 1 {
            let [n, o, p, q, ..] = v6.segments();
            pod.ip(&format!("route add default via {a}.{b}.{c}.1"))?;
            pod.ip(&format!("-6 route add default via {n:x}:{o:x}:{p:x}:{q:x}::1"))?;
        }
        Ok(())
    }

    /// Starts the bridge on the node.
    pub fn start_node(&self) -> Result<Node> {
        self.start_node_with(&[])
    }

    /// The same with more settings of the bridge's environment.
    pub fn start_node_with(&self, settings: &[(&str, &str)]) -> Result<Node> {
        Node::start(self.node.clone(), self, settings)
    }

    /// The node's namespace.
    #[must_use]
    pub fn node(&self) -> &Namespace {
        &self.node
    }

    /// What every name of this world begins with.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Where this world keeps its files.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Root of the mailboxes.
    #[must_use]
    pub fn pods_dir(&self) -> PathBuf {
        self.dir.join("pods")
    }

    /// A file of this world, in a directory that any user may enter.
    pub fn file(&self, name: &str) -> Result<PathBuf> {
        let path = self.dir.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
            fs::set_permissions(parent, fs::Permissions::from_mode(0o755))?;
        }
        Ok(path)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        sweep::remove(&self.prefix);
    }
}

/// Addresses are usable at once: no duplicate address detection.
fn quiet_ipv6(namespace: &Namespace, interface: &str) -> Result<()> {
    namespace.sysctl(&format!("net/ipv6/conf/{interface}/accept_dad"), "0")
}
