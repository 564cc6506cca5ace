//! One pod: its namespace, its mailbox, what runs in it.

mod clients;
mod servers;
pub mod talk;

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use outrider_model::names;
use serde_json::{Value, json};

pub use self::clients::Curl;
use crate::{
    binaries,
    exchange::{End, exchange, get},
    metrics::Metrics,
    netns::Namespace,
    process::{Process, run},
    world::World,
};

/// How long a process may take until it serves.
pub(crate) const START: Duration = Duration::from_secs(40);
/// How long a single command in a pod may take.
pub(crate) const COMMAND: Duration = Duration::from_secs(30);

/// What a pod is reached by.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
    /// The MAC address of its `eth0`, its identity on the ctrl wire.
    pub mac: String,
}

/// One pod. What runs in it ends when it is dropped.
#[derive(Debug)]
pub struct Pod {
    /// Its name, unique in the world; its namespace in Kubernetes' sense is `default`.
    pub name: String,
    /// Its network namespace.
    pub netns: Namespace,
    /// What it is reached by.
    pub addresses: Addresses,
    /// The directory of its two ctrl sockets.
    pub mailbox: PathBuf,
    /// What the node knows about it, out of the pod's reach.
    pub workload_file: PathBuf,
    dir: PathBuf,
    proxy: Option<Process>,
    servers: Vec<Process>,
}

impl Pod {
    /// Makes the pod's files: a mailbox that the proxy owns and the workload file beside it.
    pub(crate) fn create(
        name: &str,
        netns: Namespace,
        addresses: Addresses,
        world: &World,
    ) -> Result<Self> {
        let uid = format!("uid-{name}");
        let mailbox = world.pods_dir().join(&uid);
        let dir = world.dir().join(name);
        fs::create_dir_all(&dir)?;
        fs::create_dir(&mailbox)?;
        fs::set_permissions(&mailbox, fs::Permissions::from_mode(0o700))?;
        chown(&mailbox, Some(names::PROXY_UID), Some(names::PROXY_UID))?;
        let workload_file = world.pods_dir().join(format!("{uid}.json"));
        let Addresses { v4, v6, mac } = &addresses;
        let workload = json!({
            "uid": uid, "name": name, "namespace": "default", "service": name,
            "addresses": [v4, v6], "mac": mac, "labels": { "app": name },
        });
        fs::write(&workload_file, workload.to_string())?;
        let (name, proxy, servers) = (name.to_owned(), None, Vec::new());
        Ok(Self { name, netns, addresses, mailbox, workload_file, dir, proxy, servers })
    }

    /// `outrider-init apply` in the pod, as root: the redirect rules for both families.
    pub fn init(&self) -> Result<String> {
        self.init_with(&[])
    }

    /// The same with flags.
    pub fn init_with(&self, flags: &[&str]) -> Result<String> {
        let init = binaries::find("outrider-init")?;
        run(self.netns.limited(COMMAND, init).arg("apply").args(flags))
            .with_context(|| format!("outrider-init in {}", self.name))
    }

    /// Starts the proxy as its own user without any capability, and waits until it is alive.
    pub fn start_proxy(&mut self) -> Result<()> {
        self.start_proxy_with(&[])
    }

    /// The same with settings of the proxy's environment.
    pub fn start_proxy_with(&mut self, settings: &[(&str, &str)]) -> Result<()> {
        self.start_proxy_as("-all", settings)
    }

    /// The same with `NET_RAW` and nothing else.
    pub fn start_proxy_with_net_raw(&mut self, settings: &[(&str, &str)]) -> Result<()> {
        self.start_proxy_as("-all,+net_raw", settings)
    }

    /// The same with capabilities as `setpriv` writes them: `-all,+net_raw`.
    pub fn start_proxy_as(&mut self, capabilities: &str, settings: &[(&str, &str)]) -> Result<()> {
        ensure!(self.proxy.is_none(), "the proxy of {} runs already", self.name);
        let binary = self.reachable_copy("outrider-proxy")?;
        let id = names::PROXY_UID.to_string();
        let mut command = self.netns.command("setpriv");
        command
            .args(["--reuid", &id, "--regid", &id, "--clear-groups", "--no-new-privs"])
            .args(
                ["inh-caps", "ambient-caps", "bounding-set"]
                    .map(|set| format!("--{set}={capabilities}")),
            )
            .arg(binary)
            .env("OUTRIDER_CTRL_DIR", &self.mailbox)
            .env("RUST_BACKTRACE", "1")
            .envs(settings.iter().copied());
        let name = format!("the proxy of {}", self.name);
        let mut proxy = Process::spawn(&name, command, &self.log("proxy"))?;
        proxy.ready(START, || self.healthy("live"))?;
        self.proxy = Some(proxy);
        Ok(())
    }

    /// Gives the pod one more address, which the node knows too: before the bridge starts.
    pub fn add_address(&self, address: IpAddr) -> Result<()> {
        let (length, flags) = if address.is_ipv6() { (64, " nodad") } else { (24, "") };
        self.netns
            .ip(&format!("addr add {address}/{length} dev eth0{flags}"))?;
        let mut workload: Value = serde_json::from_str(&fs::read_to_string(&self.workload_file)?)?;
        let addresses = workload["addresses"].as_array_mut();
        addresses.context("a list")?.push(json!(address));
        fs::write(&self.workload_file, workload.to_string())?;
        Ok(())
    }

    /// Rules and proxy: after this the pod's traffic is redirected.
    pub fn up(&mut self) -> Result<()> {
        self.init()?;
        self.start_proxy()
    }

    /// The user 1771 may not be able to enter the build directory: what it runs lies here.
    fn reachable_copy(&self, binary: &str) -> Result<PathBuf> {
        let built = binaries::find(binary)?;
        let dir = self.dir.with_file_name("bin");
        fs::create_dir_all(&dir)?;
        let copy = dir.join(binary);
        if !copy.exists() {
            fs::copy(&built, &copy)?;
        }
        Ok(copy)
    }

    /// `kill -9` of the proxy.
    pub fn kill_proxy(&mut self) -> Result<()> {
        self.proxy.take().context("no proxy runs")?.kill()
    }

    /// Waits until the proxy ends by itself.
    pub fn wait_for_proxy(&mut self, deadline: Duration) -> Result<ExitStatus> {
        self.proxy.take().context("no proxy runs")?.wait(deadline)
    }

    /// The running proxy.
    pub fn proxy(&mut self) -> Result<&mut Process> {
        self.proxy
            .as_mut()
            .with_context(|| format!("no proxy runs in {}", self.name))
    }

    /// Whether `/healthz/<check>` answers 200.
    pub fn healthy(&self, check: &str) -> Result<()> {
        let response = get(&self.netns, self.health(), &format!("/healthz/{check}"))?;
        ensure!(response.status == 200, "/healthz/{check}: {response:?}");
        Ok(())
    }

    /// The proxy's metrics as they are now.
    pub fn metrics(&self) -> Result<Metrics> {
        let response = get(&self.netns, self.health(), "/metrics")?;
        ensure!(response.status == 200, "/metrics: {response:?}");
        Metrics::parse(&response.body)
    }

    /// The proxy's `/status`.
    pub fn status(&self) -> Result<serde_json::Value> {
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, names::ADMIN_PORT));
        let response = get(&self.netns, admin, "/status")?;
        ensure!(response.status == 200, "/status: {response:?}");
        Ok(serde_json::from_str(&response.body)?)
    }

    fn health(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, names::HEALTH_PORT))
    }

    /// Its address of a family.
    #[must_use]
    pub fn ip(&self, v6: bool) -> IpAddr {
        if v6 { self.addresses.v6.into() } else { self.addresses.v4.into() }
    }

    /// Its address of a family with a port.
    #[must_use]
    pub fn at(&self, v6: bool, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip(v6), port)
    }

    /// Its workload's name as the CLI shows it.
    #[must_use]
    pub fn workload(&self) -> String {
        format!("default/{}", self.name)
    }

    /// A file of this pod.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn log(&self, process: &str) -> PathBuf {
        self.file(&format!("{process}.log"))
    }

    /// The files that this pod's processes write their output to.
    pub fn logs(&self) -> Result<Vec<PathBuf>> {
        let is_log = |path: &Path| path.extension().is_some_and(|extension| extension == "log");
        let paths = fs::read_dir(&self.dir)?.flatten().map(|entry| entry.path());
        Ok(paths.filter(|path| is_log(path)).collect())
    }

    /// Fails unless something accepts connections there.
    fn accepts(&self, address: SocketAddr) -> Result<()> {
        let seen = exchange(&self.netns, address, b"", Duration::from_millis(50))?;
        ensure!(seen.end != End::Refused, "nothing listens on {address}");
        Ok(())
    }
}
