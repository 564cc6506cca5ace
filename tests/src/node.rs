//! The node: the bridge, and the command line that asks it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde::de::DeserializeOwned;

use crate::{
    binaries,
    cli::{Conversation, FlowSample, Rule, Session, Status, Threat, Violation, Workload},
    exchange::get,
    metrics::Metrics,
    netns::Namespace,
    pod::{COMMAND, Pod, START},
    process::{Process, run},
    wait::until,
    world::World,
};

/// Port of the bridge's metrics.
const METRICS_PORT: u16 = 15190;
/// How long the bridge may take to reach a proxy and program it.
const CONNECT: Duration = Duration::from_secs(40);

/// A node with its running bridge.
#[derive(Debug)]
pub struct Node {
    /// The node's network namespace.
    pub netns: Namespace,
    bridge: Option<Process>,
    dir: PathBuf,
    pods_dir: PathBuf,
    settings: Vec<(String, String)>,
}

impl Node {
    /// Starts the bridge with the world's mailboxes and an empty store.
    pub(crate) fn start(
        netns: Namespace,
        world: &World,
        settings: &[(&str, &str)],
    ) -> Result<Self> {
        let (dir, pods_dir) = (world.dir().join("node"), world.pods_dir());
        std::fs::create_dir_all(&dir)?;
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let settings = settings.iter().map(owned).collect();
        let mut node = Self { netns, bridge: None, dir, pods_dir, settings };
        node.start_bridge()?;
        Ok(node)
    }

    /// Starts the bridge on the store that is there, and waits until it answers.
    pub fn start_bridge(&mut self) -> Result<()> {
        ensure!(self.bridge.is_none(), "the bridge runs already");
        let mut command = self.netns.command(binaries::find("outrider-agent-bridge")?);
        command
            .arg("bridge")
            .env("OUTRIDER_PODS_DIR", &self.pods_dir)
            .env("OUTRIDER_BRIDGE_STORE", self.store())
            .env("OUTRIDER_BRIDGE_SOCKET", self.dir.join("api.sock"))
            .env("OUTRIDER_BRIDGE_GRPC_SOCKET", self.dir.join("grpc.sock"))
            .env("RUST_BACKTRACE", "1")
            .envs(self.settings.iter().cloned());
        let mut bridge = Process::spawn("the bridge", command, &self.dir.join("bridge.log"))?;
        bridge.ready(START, || self.status().map(drop))?;
        self.bridge = Some(bridge);
        Ok(())
    }

    /// `kill -9` of the bridge.
    pub fn kill_bridge(&mut self) -> Result<()> {
        self.bridge.take().context("no bridge runs")?.kill()
    }

    /// The running bridge.
    pub fn bridge(&mut self) -> Result<&mut Process> {
        self.bridge.as_mut().context("no bridge runs")
    }

    /// The bridge's store.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.dir.join("bridge.redb")
    }

    /// The files that the node's processes write their output to.
    #[must_use]
    pub fn logs(&self) -> Vec<PathBuf> {
        vec![self.dir.join("bridge.log")]
    }

    /// A command of the CLI, to be run on the node. It asks by the socket, as the node's root may.
    pub fn outrider(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = self.netns.limited(COMMAND, binaries::find("outrider")?);
        let socket = self.dir.join("api.sock");
        command
            .args(arguments)
            .env("OUTRIDER_BRIDGE", format!("unix:{}", socket.display()));
        Ok(command)
    }

    /// Runs the CLI on the node and returns what it prints.
    pub fn cli(&self, arguments: &[&str]) -> Result<String> {
        run(&mut self.outrider(arguments)?)
    }

    /// Runs the CLI with `--json` and reads one object a line.
    pub fn rows<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<Vec<T>> {
        let text = self.cli(&[arguments, &["--json"]].concat())?;
        text.lines()
            .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()))
            .collect()
    }

    /// `outrider conversations`.
    pub fn conversations(&self) -> Result<Vec<Conversation>> {
        self.rows(&["conversations"])
    }

    /// `outrider rules`.
    pub fn rules(&self) -> Result<Vec<Rule>> {
        self.rows(&["rules"])
    }

    /// `outrider violations`.
    pub fn violations(&self) -> Result<Vec<Violation>> {
        self.rows(&["violations"])
    }

    /// `outrider threats`.
    pub fn threats(&self) -> Result<Vec<Threat>> {
        self.rows(&["threats"])
    }

    /// `outrider workloads`.
    pub fn workloads(&self) -> Result<Vec<Workload>> {
        self.rows(&["workloads"])
    }

    /// `outrider flows`.
    pub fn flows(&self) -> Result<Vec<FlowSample>> {
        self.rows(&["flows"])
    }

    /// `outrider sessions`.
    pub fn sessions(&self, workload: &str) -> Result<Vec<Session>> {
        self.rows(&["sessions", workload])
    }

    /// `outrider status`.
    pub fn status(&self) -> Result<Status> {
        self.rows(&["status"])?.pop().context("no status")
    }

    /// `outrider mode set`: returns once the policy is stored and pushed.
    pub fn set_mode(&self, workload: &str, mode: &str) -> Result<String> {
        self.cli(&["mode", "set", workload, mode])
    }

    /// Waits until the bridge speaks to the proxies of all these pods.
    pub fn connected(&self, pods: &[&Pod]) -> Result<()> {
        until("the bridge to be connected to every proxy", CONNECT, || {
            let workloads = self.workloads()?;
            for pod in pods {
                let found = workloads
                    .iter()
                    .find(|workload| workload.name == pod.workload());
                let found = found.with_context(|| format!("no workload {}", pod.workload()))?;
                ensure!(found.proxy == "connected", "{found:?}");
                pod.healthy("ready")?;
            }
            Ok(())
        })
    }

    /// The bridge's metrics as they are now.
    pub fn metrics(&self) -> Result<Metrics> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, METRICS_PORT));
        let response = get(&self.netns, address, "/metrics")?;
        ensure!(response.status == 200, "/metrics: {response:?}");
        Metrics::parse(&response.body)
    }
}
