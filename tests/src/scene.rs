//! The scene that the demo and most cases play in: a node, web, cache, shop and an intruder.

use std::{
    io::{Write as _, stderr},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use crate::{cli::Conversation, node::Node, pod::Pod, wait::until, world::World};

/// Reports leave a proxy every 6 s; some may wait for an acknowledgement first.
pub const REPORTED: Duration = Duration::from_secs(40);
/// Lines of each log that are shown when a case fails.
const LOG_LINES: usize = 15;

/// Dropped in this order: what runs in the pods, the bridge, then the world around them.
#[derive(Debug)]
pub struct Scene {
    /// Runs nginx.
    pub web: Pod,
    /// Runs redis.
    pub cache: Pod,
    /// A client of both.
    pub shop: Pod,
    /// In no rule.
    pub intruder: Pod,
    /// The node with its bridge.
    pub node: Node,
    /// Everything around.
    pub world: World,
}

impl Scene {
    /// Brings everything up: rules, proxies, servers, the bridge connected to every proxy. Nothing is
    /// learned yet and nothing enforced.
    pub fn build() -> Result<Self> {
        let mut world = World::new()?;
        let (mut web, mut cache) = (world.pod("web")?, world.pod("cache")?);
        let (mut shop, mut intruder) = (world.pod("shop")?, world.pod("intruder")?);
        for pod in [&mut web, &mut cache, &mut shop, &mut intruder] {
            pod.up()?;
        }
        web.serve_nginx()?;
        cache.serve_redis()?;
        let node = world.start_node()?;
        let scene = Self { web, cache, shop, intruder, node, world };
        scene.node.connected(&scene.pods())?;
        Ok(scene)
    }

    /// Plays a case in a scene of its own; when it fails, the ends of all logs are shown first.
    pub fn play(case: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let mut scene = Self::build()?;
        let outcome = catch_unwind(AssertUnwindSafe(|| case(&mut scene)));
        if !matches!(outcome, Ok(Ok(()))) {
            let _reader_went = write!(stderr(), "{}", scene.logs());
        }
        drop(scene);
        outcome.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// All pods.
    #[must_use]
    pub fn pods(&self) -> [&Pod; 4] {
        [&self.web, &self.cache, &self.shop, &self.intruder]
    }

    /// The ends of the logs of everything that runs.
    #[must_use]
    pub fn logs(&self) -> String {
        let mut logs = self.node.logs();
        logs.extend(
            self.pods()
                .iter()
                .flat_map(|pod| pod.logs().unwrap_or_default()),
        );
        let mut text = String::new();
        for path in logs {
            let log = std::fs::read_to_string(&path).unwrap_or_default();
            let skip = log.lines().count().saturating_sub(LOG_LINES);
            let tail: Vec<_> = log.lines().skip(skip).collect();
            text += &format!("--- {}\n{}\n", path.display(), tail.join("\n"));
        }
        text
    }

    /// Waits until shop's conversations with a server on a port sum up to exactly this many sessions,
    /// and returns their sum of bytes.
    pub fn reported(&self, server: &Pod, port: u16, sessions: u64) -> Result<u64> {
        until("the reports to add up", REPORTED, || {
            let rows = self.between(&self.shop, server, port)?;
            let sum: u64 = rows.iter().map(|row| row.sessions).sum();
            ensure!(sum == sessions, "{sum} sessions, {sessions} were made: {rows:#?}");
            Ok(rows.iter().map(|row| row.bytes).sum())
        })
    }

    /// The same for sessions and bytes.
    pub fn reported_exactly(
        &self,
        server: &Pod,
        port: u16,
        sessions: u64,
        bytes: u64,
    ) -> Result<()> {
        until("the bytes to add up", REPORTED, || {
            let seen = self.reported(server, port, sessions)?;
            ensure!(seen == bytes, "{seen} bytes, {bytes} were sent");
            Ok(())
        })
    }

    /// Batches of reports that the bridge has taken from a pod's proxy.
    pub fn batches(&self, pod: &Pod) -> Result<f64> {
        Ok(pod
            .metrics()?
            .sum("outrider_ctrl_batches_acknowledged_total", &[]))
    }

    /// Does something that shop's and a server's proxies both report, and waits until the bridge has
    /// taken a report from both: what is not there then will not come.
    pub fn reported_by_both(&self, server: &Pod, act: impl FnOnce() -> Result<()>) -> Result<()> {
        let ends = [&self.shop, server];
        let before = [self.batches(ends[0])?, self.batches(ends[1])?];
        act()?;
        until("both ends' reports", REPORTED, || {
            for (pod, before) in ends.into_iter().zip(before) {
                ensure!(self.batches(pod)? > before, "nothing yet from {}", pod.name);
            }
            Ok(())
        })
    }

    /// The conversations of a client with a server on a port.
    pub fn between(&self, client: &Pod, server: &Pod, port: u16) -> Result<Vec<Conversation>> {
        let ends = (client.workload(), server.workload());
        let mut rows = self.node.conversations()?;
        rows.retain(|row| row.port == port && (&row.client, &row.server) == (&ends.0, &ends.1));
        Ok(rows)
    }

    /// Shop calls a server's port often enough to make it a rule, and waits for the rule.
    pub fn learn(&self, server: &Pod, port: u16, call: impl Fn() -> Result<()>) -> Result<()> {
        for _ in 0..4 {
            call()?;
        }
        let (to, ports) = (format!("nv.{}.default", server.name), format!("tcp/{port}"));
        until("the rule", REPORTED, || {
            let rules = self.node.rules()?;
            let found = rules
                .iter()
                .any(|rule| rule.from == "nv.shop.default" && rule.to == to && rule.ports == ports);
            found
                .then_some(())
                .with_context(|| format!("no rule to {to} {ports}: {rules:?}"))
        })
    }
}
