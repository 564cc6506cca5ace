//! A web server whose proxy may open packet sockets, a cache whose proxy may not, and a client.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use outrider_tests::{
    Node, Pod, World,
    process::{Process, output, run},
    until,
};
use serde_json::Value;

/// What a busy machine may take for anything here.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// Dropped in this order.
pub(crate) struct Stage {
    pub(crate) web: Pod,
    pub(crate) shop: Pod,
    _cache: Pod,
    pub(crate) node: Node,
    world: World,
}

impl Stage {
    pub(crate) fn build() -> Result<Self> {
        let mut world = World::new()?;
        let (mut web, shop, mut cache) =
            (world.pod("web")?, world.pod("shop")?, world.pod("cache")?);
        web.serve_nginx()?;
        web.init()?;
        web.start_proxy_with_net_raw(&[])?;
        cache.up()?;
        let node = world.start_node()?;
        node.connected(&[&web, &cache])?;
        Ok(Self { web, shop, _cache: cache, node, world })
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.world.dir().join(name)
    }

    pub(crate) fn socket(&self) -> String {
        self.node
            .store()
            .with_file_name("api.sock")
            .display()
            .to_string()
    }

    pub(crate) fn fetch(&self, v6: bool) -> Result<()> {
        let url = format!("http://{}/", self.web.at(v6, 80));
        self.shop.fetch(&url).map(drop)
    }

    /// Requests without end.
    pub(crate) fn traffic(&self) -> Result<Process> {
        let url = format!("http://{}/", self.web.at(false, 80));
        let script = format!("while :; do curl -s -o /dev/null -m 5 {url}; sleep 0.05; done");
        let mut command = self.shop.netns.command("sh");
        command.args(["-c", &script]);
        Process::spawn("traffic", command, &self.file("traffic.log"))
    }

    /// Large datagrams without end.
    pub(crate) fn flood(&self) -> Result<Process> {
        let script = format!("ping -q -i 0.01 -s 8000 {}", self.web.ip(false));
        let mut command = self.shop.netns.command("sh");
        command.args(["-c", &script]);
        Process::spawn("flood", command, &self.file("flood.log"))
    }

    /// Runs the CLI, and gives all that it says.
    pub(crate) fn outrider(&self, arguments: &[&str]) -> Result<String> {
        let outcome = output(&mut self.node.outrider(arguments)?)?;
        let said = [outcome.stdout, outcome.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        ensure!(outcome.status.success(), "{arguments:?}: {said}");
        Ok(said)
    }

    /// `outrider capture` that goes on.
    pub(crate) fn capture(&self, name: &str, arguments: &[&str]) -> Result<Process> {
        let mut command = self
            .node
            .netns
            .command(outrider_tests::binaries::find("outrider")?);
        command
            .args(["--bridge", &format!("unix:{}", self.socket()), "capture"])
            .args(arguments);
        Process::spawn(name, command, &self.file(&format!("{name}.log")))
    }

    fn captures(&self) -> Result<Vec<Value>> {
        let text = run(Command::new("curl")
            .args(["-sS", "-m", "10", "--unix-socket"])
            .args([&self.socket(), "http://localhost/v1/captures"]))?;
        Ok(serde_json::from_str(&text)?)
    }

    fn all_running(&self) -> Result<Vec<Value>> {
        let mut all = self.captures()?;
        all.retain(|one| one["state"] == "running");
        Ok(all)
    }

    /// Waits until so many captures run.
    pub(crate) fn running(&self, count: usize) -> Result<()> {
        until("captures to run", LONG, || {
            let running = self.all_running()?;
            let begun = running.iter().all(|one| one["bytes"].as_u64() > Some(0));
            ensure!(running.len() == count && begun, "{running:#?}");
            Ok(())
        })
    }

    /// Waits until one capture runs and has packets.
    pub(crate) fn packets_come(&self) -> Result<()> {
        until("packets to come", LONG, || {
            let running = self.all_running()?;
            let come = running.iter().any(|one| one["packets"].as_u64() > Some(20));
            ensure!(running.len() == 1 && come, "{running:#?}");
            Ok(())
        })
    }

    /// Waits until no capture runs, in the bridge and in the proxy.
    pub(crate) fn over(&mut self) -> Result<()> {
        self.running(0)?;
        self.proxy_captures_nothing()
    }

    /// Waits until the proxy has no thread for a capture.
    pub(crate) fn proxy_captures_nothing(&mut self) -> Result<()> {
        let pid = self.web.proxy()?.pid();
        until("the proxy to capture nothing", LONG, || {
            let mut names = Vec::new();
            for task in fs::read_dir(format!("/proc/{pid}/task"))? {
                names.push(fs::read_to_string(task?.path().join("comm")).unwrap_or_default());
            }
            ensure!(!names.iter().any(|name| name.trim() == "capture"), "{names:?}");
            Ok(())
        })
    }

    /// Packets of a file that tcpdump picks.
    pub(crate) fn tcpdump(&self, file: &Path, filter: &str) -> Result<usize> {
        let mut command = Command::new("tcpdump");
        let picked = run(command
            .args(["-n", "-r"])
            .arg(file)
            .args((!filter.is_empty()).then_some(filter)))
        .or_else(|error| {
            if format!("{error:#}").contains("truncated dump file") {
                // Cut off in the middle: what is before is read.
                output(Command::new("tcpdump").args(["-n", "-r"]).arg(file))
                    .map(|outcome| String::from_utf8_lossy(&outcome.stdout).into_owned())
            } else {
                Err(error)
            }
        })?;
        Ok(picked.lines().filter(|line| line.contains(':')).count())
    }

    /// Neither in the mailbox nor beside the store is a file of a capture.
    pub(crate) fn nothing_is_left(&self) -> Result<()> {
        // Another file may be written meanwhile, and gets its name when it is whole.
        until("nothing to be left", LONG, || self.is_nothing_left())
    }

    fn is_nothing_left(&self) -> Result<()> {
        let mut left = Vec::new();
        let store = self.node.store();
        let beside = store.parent().context("a directory")?;
        for dir in [self.web.mailbox.as_path(), beside] {
            for entry in fs::read_dir(dir)? {
                left.push(entry?.file_name().to_string_lossy().into_owned());
            }
        }
        left.retain(|name| !name.ends_with(".sock") && !name.starts_with("dp_client."));
        left.retain(|name| !["bridge.redb", "bridge.log", "policy.json"].contains(&name.as_str()));
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    }
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The Python with gRPC that `tests/setup.sh` makes.
pub(crate) fn python() -> Result<PathBuf> {
    let python = root().join("target/grpc-venv/bin/python");
    ensure!(python.exists(), "no {}: make setup", python.display());
    Ok(python)
}
