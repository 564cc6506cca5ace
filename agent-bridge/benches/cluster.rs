//! What the controller takes for a cluster: real objects in a real API server, simulated bridges.
//! `cargo bench -p outrider-agent-bridge --bench cluster`; `NODES`, `PODS` and `RULES` change its size.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a measurement that fails has no figures")]
#![expect(clippy::print_stdout, reason = "it prints a table")]
#![expect(clippy::large_futures, reason = "there is room")]

#[path = "../tests/apiserver/server.rs"]
#[expect(dead_code, reason = "tests need more")]
mod apiserver;
#[path = "../tests/cluster/bridge.rs"]
#[expect(dead_code, reason = "tests look closer")]
mod bridge;
#[path = "cluster/fleet.rs"]
mod fleet;
#[path = "cluster/memory.rs"]
mod memory;
#[path = "cluster/meter.rs"]
mod meter;
#[path = "../tests/cluster/world.rs"]
mod world;

use std::{sync::Arc, time::Duration};

use fleet::{Fleet, Shared};
use futures_util::{StreamExt, stream};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::{Api, ResourceExt, api::DeleteParams};
use meter::{HEAD, Meter, spread};
use outrider_agent_bridge::cluster::objects::NetworkRule;
use serde_json::json;
use tokio::time::{Instant, sleep};
use world::{Replica, World, eventually};

/// Requests to the API server at a time.
const AT_A_TIME: usize = 16;
/// Namespaces, and pods of one service.
const NAMESPACES: usize = 20;
const REPLICAS: usize = 20;
/// Rules of which the way is measured, and pods that come and go.
const MEASURED: usize = 100;
/// How long the API server is away.
const AWAY: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Default)]
struct Size {
    nodes: usize,
    pods: usize,
    rules: usize,
}

impl Size {
    fn services(&self) -> usize {
        self.pods / REPLICAS
    }
}

fn size(key: &str, default: usize) -> usize {
    std::env::var(key)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(measure());
}

async fn measure() {
    let size =
        Size { nodes: size("NODES", 200), pods: size("PODS", 10_000), rules: size("RULES", 1_000) };
    if std::env::var_os("MEMORY").is_some() {
        return memory::measure(&size);
    }
    let Some(world) = World::new().await else { return };
    let mut run = Run { world, size, shared: Arc::default(), ways: Vec::new() };
    let began = Instant::now();
    run.objects().await;
    let tokens = run.tokens().await;
    println!("{} nodes, {} pods made in {:.0?}\n{HEAD}", size.nodes, size.pods, began.elapsed());

    let mut one = run.world.replica("one");
    let mut meter = Meter::new();
    ready(&one).await;
    meter
        .row(&one, "start, all objects read, a plan made; by pod", size.pods)
        .await;
    let two = run.world.replica("two");
    let ca = run.world.authorities(2).await;
    let ports = [one.port, two.port];
    let mut fleet = Fleet::new(Arc::clone(&run.shared), &ports, &ca, &tokens);
    linked(&fleet, size.nodes).await;
    settled(&one).await;
    meter
        .row(&one, "all bridges linked; by bridge", size.nodes)
        .await;
    run.rules(&one, &mut meter).await;
    run.pods(&one, &mut meter).await;
    sleep(Duration::from_secs(60)).await;
    meter.row(&one, "nothing, a minute; by second", 60).await;
    run.api_server_away(&one, &fleet, &mut meter).await;

    let mut standby = Meter::new();
    standby
        .row(&two, "a standby, all that time; by pod", size.pods)
        .await;
    let (began, links) = (Instant::now(), run.links());
    one.kill();
    eventually("another leader", async || (run.links() >= links + size.nodes).then_some(())).await;
    println!(
        "\nleader killed: all bridges linked to the other after {:.1?}\n\n{HEAD}",
        began.elapsed()
    );
    settled(&two).await;
    standby
        .row(&two, "all bridges linked to the other; by bridge", size.nodes)
        .await;
    run.way("after the leader moved", 20).await;
    assert!(!fleet.is_broken(), "a simulated bridge ended");
    println!();
    run.ways.iter().for_each(|way| println!("{way}"));
}

struct Run {
    world: World,
    size: Size,
    shared: Arc<Shared>,
    /// How long rules were on their way.
    ways: Vec<String>,
}

impl Run {
    fn links(&self) -> usize {
        self.shared.links.load(std::sync::atomic::Ordering::Relaxed)
    }

    async fn objects(&self) {
        for at in 0..NAMESPACES {
            let namespace = json!({"metadata": {"name": format!("ns{at}")}});
            self.world
                .create::<Namespace>(Api::all(self.world.client.clone()), namespace)
                .await;
        }
        each(0..self.size.nodes, async |at| {
            let cidr = format!("10.{}.{}.0/24", 16 + at / 256, at % 256);
            let node = json!({"metadata": {"name": format!("n{at}")}, "spec": {"podCIDR": cidr, "podCIDRs": [cidr]}});
            self.world.create::<Node>(Api::all(self.world.client.clone()), node).await;
        })
        .await;
        each(0..self.size.pods, async |at| self.pod(at).await).await;
    }

    fn place(&self, at: usize) -> (String, String, String) {
        let (service, node) = (at / REPLICAS, at % self.size.nodes);
        (format!("ns{}", service % NAMESPACES), format!("s{service}-{at}"), format!("n{node}"))
    }

    /// Pods of a service are on as many nodes.
    async fn pod(&self, at: usize) {
        let (namespace, name, node) = self.place(at);
        let (on, turn) = (at % self.size.nodes, at / self.size.nodes);
        let ip = format!("10.{}.{}.{}", 16 + on / 256, on % 256, 2 + turn % 250);
        let pod = self.world.pod(&namespace, &name, &node, &ip).await;
        let mut pods = self.shared.pods.lock();
        pods.entry(node).or_default().extend(pod.uid());
    }

    async fn no_pod(&self, at: usize) {
        let (namespace, name, node) = self.place(at);
        let pods = self.world.of::<Pod>(&namespace);
        let gone = pods
            .delete(&name, &DeleteParams::default().grace_period(0))
            .await;
        let uid = gone.unwrap().left().and_then(|pod| pod.uid());
        if let Some(own) = self.shared.pods.lock().get_mut(&node) {
            own.retain(|one| Some(one) != uid.as_ref());
        }
    }

    async fn tokens(&self) -> Vec<String> {
        let made = stream::iter(0..self.size.nodes)
            .map(|at| async move { self.world.token("outrider-bridge", &format!("n{at}")).await });
        made.buffered(AT_A_TIME).collect().await
    }

    /// The rule that lets one service's pods be reached by another's of its namespace.
    async fn rule(&self, at: usize) {
        let services = self.size.services();
        let (service, peer) = (at % services, (at + NAMESPACES) % services);
        let labels = |service: usize| json!({"podSelector": {"matchLabels": {"app": format!("s{service}")}}});
        let object = json!({
            "metadata": {"name": format!("rule{at}")},
            "spec": {
                "target": labels(service),
                "ingress": [{"name": "in", "action": "Allow", "ports": ["tcp/80"], "peers": [labels(peer)]}],
            },
        });
        let namespace = format!("ns{}", service % NAMESPACES);
        self.world
            .create::<NetworkRule>(self.world.of(&namespace), object)
            .await;
    }

    /// Waits until a rule is with all bridges that it concerns; says since when.
    async fn everywhere(&self, at: usize) -> Instant {
        let (object, bridges) = (format!("rule{at}"), REPLICAS.min(self.size.nodes));
        loop {
            if let Some(came) = self
                .shared
                .came(&object)
                .filter(|came| came.bridges >= bridges)
            {
                return came.last;
            }
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits until a rule's status says that all proxies run it.
    async fn enforced(&self, at: usize) {
        let rules = self
            .world
            .of::<NetworkRule>(&format!("ns{}", at % self.size.services() % NAMESPACES));
        let name = format!("rule{at}");
        eventually("a status", async || {
            let status = rules.get(&name).await.ok()?.status?;
            let mut conditions = status.conditions.iter();
            conditions
                .any(|one| one.kind == "Enforced" && one.status == "True")
                .then_some(())
        })
        .await;
    }

    /// Some rules, one after another: how long each is on its way.
    async fn way(&mut self, when: &str, count: usize) {
        let (mut told, mut said) = (Vec::new(), Vec::new());
        let first = self.shared.came.lock().len();
        for at in first..first + count {
            let began = Instant::now();
            self.rule(at).await;
            told.push(self.everywhere(at).await.saturating_duration_since(began));
            self.enforced(at).await;
            said.push(began.elapsed());
        }
        self.ways.push(format!(
            "{when}: from `create` of a rule to the last of its bridges {}; until its status says so {}",
            spread(told),
            spread(said)
        ));
    }

    async fn rules(&mut self, replica: &Replica, meter: &mut Meter) {
        let all = self.size.rules;
        self.way("no rules", MEASURED).await;
        meter
            .row(replica, "rules, one after another; by rule", MEASURED)
            .await;
        each(MEASURED..all, async |at| self.rule(at).await).await;
        for at in MEASURED..all {
            self.everywhere(at).await;
        }
        settled(replica).await;
        meter
            .row(replica, &format!("{} more at once; by rule", all - MEASURED), all - MEASURED)
            .await;
        self.way(&format!("{all} rules"), MEASURED).await;
        meter
            .row(replica, "more, one after another; by rule", MEASURED)
            .await;
    }

    /// Pods come and go.
    async fn pods(&self, replica: &Replica, meter: &mut Meter) {
        each(0..MEASURED, async |at| self.no_pod(at).await).await;
        each(self.size.pods..self.size.pods + MEASURED, async |at| self.pod(at).await).await;
        settled(replica).await;
        meter
            .row(replica, "pods gone and others come, 16 at a time; by pod", 2 * MEASURED)
            .await;
        for at in 0..MEASURED {
            self.pod(at).await;
            sleep(Duration::from_millis(100)).await;
        }
        settled(replica).await;
        meter
            .row(replica, "pods come, one after another; by pod", MEASURED)
            .await;
    }

    async fn api_server_away(&mut self, replica: &Replica, fleet: &Fleet, meter: &mut Meter) {
        self.world.server.pause();
        sleep(AWAY).await;
        assert_eq!(fleet.linked(), self.size.nodes, "links stay");
        meter
            .row(replica, "the API server is away; by second", 30)
            .await;
        let (began, links) = (Instant::now(), self.links());
        self.world.server.resume().await;
        eventually("a leader that is sure", async || {
            (replica.status().await["standing"] == "leading").then_some(())
        })
        .await;
        println!(
            "\nthe API server is back: {} links anew, sure after {:.1?}\n\n{HEAD}",
            self.links() - links,
            began.elapsed()
        );
        settled(replica).await;
        meter
            .row(replica, "it is back, watches begin again; by pod", self.size.pods)
            .await;
        self.way("after the API server was away", 20).await;
        meter.skip(replica).await;
    }
}

/// Does something for each, several at a time.
async fn each(all: std::ops::Range<usize>, one: impl AsyncFn(usize)) {
    let one = &one;
    stream::iter(all)
        .for_each_concurrent(AT_A_TIME, |at| async move { one(at).await })
        .await;
}

async fn ready(replica: &Replica) {
    eventually("the controller", async || {
        let status = replica.status().await;
        (status["standing"] == "leading" && status["not_ready"].is_null()).then_some(())
    })
    .await;
}

async fn linked(fleet: &Fleet, nodes: usize) {
    eventually("all links", async || (fleet.linked() == nodes).then_some(())).await;
}

async fn settled(replica: &Replica) {
    sleep(Duration::from_secs(3)).await;
    eventually("the last write", async || {
        (replica.status().await["writes_waiting"] == 0).then_some(())
    })
    .await;
}
