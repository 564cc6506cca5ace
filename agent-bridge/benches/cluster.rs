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
#[path = "../tests/cluster/world.rs"]
#[expect(dead_code, reason = "tests look closer")]
mod world;

use std::{collections::HashMap, sync::Arc, time::Duration};

use bridge::{Bridge, Heard};
use futures_util::{StreamExt, stream};
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::Api;
use outrider_agent_bridge::cluster::objects::NetworkRule;
use parking_lot::Mutex;
use serde_json::json;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use world::{Replica, World, eventually};

/// Requests to the API server at a time.
const AT_A_TIME: usize = 16;
/// Namespaces, and pods of one service.
const NAMESPACES: usize = 20;
const REPLICAS: usize = 20;
/// Rules of which the way is measured.
const MEASURED: usize = 100;

/// When each rule reached a bridge first, by its object.
type Seen = Arc<Mutex<HashMap<String, Instant>>>;

struct Size {
    nodes: usize,
    pods: usize,
    rules: usize,
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
    let Some(world) = World::new().await else { return };
    let began = Instant::now();
    objects(&world, &size).await;
    let tokens = tokens(&world, &size).await;
    println!("{} nodes, {} pods made in {:.0?}", size.nodes, size.pods, began.elapsed());
    println!(
        "| what | seconds | CPU s | RSS MiB | API calls | updates | bytes |\n|---|--:|--:|--:|--:|--:|--:|"
    );

    let seen = Seen::default();
    let mut replica = world.replica("one");
    let mut meter = Meter::new();
    ready(&replica).await;
    meter.row(&replica, "start, all objects read").await;
    let ca = world.authorities(1).await;
    let mut links = link_all(&replica, &ca, &tokens, &seen).await;
    meter.row(&replica, "all bridges linked").await;

    let ways = rules(&world, &size, &seen, &replica, &mut meter).await;
    each((0..100).collect(), async |at| {
        pod(&world, &size, size.pods + at).await;
    })
    .await;
    sleep(Duration::from_secs(2)).await;
    meter.row(&replica, "100 pods added").await;
    let again = Bridge::link(replica.port, &ca, &tokens[0], "n0")
        .await
        .unwrap();
    meter.row(&replica, "one bridge linked again").await;
    drop(again);
    sleep(Duration::from_secs(60)).await;
    meter.row(&replica, "a minute of nothing").await;

    replica.kill();
    links.abort_all();
    let mut replica = world.replica("one");
    let mut meter = Meter::new();
    ready(&replica).await;
    meter.row(&replica, "killed and started again").await;
    let links = link_all(&replica, &ca_of(&world).await, &tokens, &seen).await;
    meter.row(&replica, "all bridges linked again").await;
    let [before, after] = ways.map(spread);
    println!("\nfrom `create` of a rule to the update at the bridge: {before}");
    println!("the same with {} rules in force: {after}", size.rules);
    drop(links);
    replica.kill();
}

/// Applies rules; says how long each was on its way, with few and with many in force.
async fn rules(
    world: &World,
    size: &Size,
    seen: &Seen,
    replica: &Replica,
    meter: &mut Meter,
) -> [Vec<Duration>; 2] {
    let services = size.pods / REPLICAS;
    let before = way(world, seen, services, 0..MEASURED).await;
    meter
        .row(replica, &format!("{MEASURED} rules, one after another"))
        .await;
    let all: Vec<_> = (MEASURED..size.rules).collect();
    each(all, async |at| rule(world, services, at).await).await;
    eventually("all rules", async || {
        let seen = seen.lock().len();
        (seen >= size.rules).then_some(())
    })
    .await;
    settled(replica).await;
    meter
        .row(replica, &format!("{} more at once, statuses written", size.rules - MEASURED))
        .await;
    let after = way(world, seen, services, size.rules..size.rules + MEASURED).await;
    settled(replica).await;
    meter
        .row(replica, &format!("{MEASURED} more, one after another"))
        .await;

    [before, after]
}

async fn ca_of(world: &World) -> String {
    world.authorities(2).await
}

/// Does something for each, several at a time.
async fn each(all: Vec<usize>, one: impl AsyncFn(usize)) {
    let one = &one;
    stream::iter(all)
        .for_each_concurrent(AT_A_TIME, |at| async move { one(at).await })
        .await;
}

async fn objects(world: &World, size: &Size) {
    for at in 0..NAMESPACES {
        let namespace = json!({"metadata": {"name": format!("ns{at}")}});
        world
            .create::<Namespace>(Api::all(world.client.clone()), namespace)
            .await;
    }
    each((0..size.nodes).collect(), async |at| {
        let cidr = format!("10.{}.{}.0/24", 16 + at / 256, at % 256);
        let node = json!({"metadata": {"name": format!("n{at}")}, "spec": {"podCIDR": cidr, "podCIDRs": [cidr]}});
        world.create::<Node>(Api::all(world.client.clone()), node).await;
    })
    .await;
    each((0..size.pods).collect(), async |at| pod(world, size, at).await).await;
}

/// Pods of a service are on as many nodes.
async fn pod(world: &World, size: &Size, at: usize) {
    let (service, node) = (at / REPLICAS, at % size.nodes);
    let turn = at / size.nodes;
    let ip = format!("10.{}.{}.{}", 16 + node / 256, node % 256, 2 + turn % 250);
    let namespace = format!("ns{}", service % NAMESPACES);
    world
        .pod(&namespace, &format!("s{service}-{at}"), &format!("n{node}"), &ip)
        .await;
}

async fn tokens(world: &World, size: &Size) -> Vec<String> {
    let made = stream::iter(0..size.nodes)
        .map(|at| async move { world.token("outrider-bridge", &format!("n{at}")).await });
    made.buffered(AT_A_TIME).collect().await
}

/// The rule that lets one service's pods be reached by another's of its namespace.
async fn rule(world: &World, services: usize, at: usize) {
    let (service, peer) = (at % services, (at + NAMESPACES) % services);
    let labels =
        |service: usize| json!({"podSelector": {"matchLabels": {"app": format!("s{service}")}}});
    let object = json!({
        "metadata": {"name": format!("rule{at}")},
        "spec": {
            "target": labels(service),
            "ingress": [{"name": "in", "action": "Allow", "ports": ["tcp/80"], "peers": [labels(peer)]}],
        },
    });
    world
        .create::<NetworkRule>(world.of(&format!("ns{}", service % NAMESPACES)), object)
        .await;
}

/// Times of rules, one after another, until the first bridge has them.
async fn way(
    world: &World,
    seen: &Seen,
    services: usize,
    which: std::ops::Range<usize>,
) -> Vec<Duration> {
    let mut times = Vec::new();
    for at in which {
        let began = Instant::now();
        rule(world, services, at).await;
        let name = format!("/rule{at}/");
        let came = loop {
            let found = seen
                .lock()
                .iter()
                .find(|(known, _)| known.contains(&name))
                .map(|(_, at)| *at);
            match found {
                Some(at) => break at,
                None => sleep(Duration::from_millis(1)).await,
            }
        };
        times.push(came.saturating_duration_since(began));
    }
    times
}

fn spread(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)];
    format!("p50 {:.0?}, p99 {:.0?}", at(50), at(99))
}

async fn link_all(replica: &Replica, ca: &str, tokens: &[String], seen: &Seen) -> JoinSet<()> {
    let bridges = stream::iter(tokens.iter().enumerate()).map(|(at, token)| async move {
        let node = format!("n{at}");
        eventually("a link", async || Bridge::link(replica.port, ca, token, &node).await.ok()).await
    });
    let bridges: Vec<_> = bridges.buffer_unordered(AT_A_TIME).collect().await;
    let mut links = JoinSet::new();
    for mut bridge in bridges {
        let seen = Arc::clone(seen);
        let heard: Heard = Arc::new(move |update| {
            let mut seen = seen.lock();
            for rule in &update.rules {
                seen.entry(rule.origin.clone()).or_insert_with(Instant::now);
            }
        });
        bridge.heard = Some(heard);
        links.spawn(async move { while bridge.next().await {} });
    }
    links
}

async fn ready(replica: &Replica) {
    eventually("the controller", async || {
        let status = replica.status().await;
        (status["standing"] == "leading" && status["not_ready"].is_null()).then_some(())
    })
    .await;
}

async fn settled(replica: &Replica) {
    sleep(Duration::from_secs(2)).await;
    eventually("the last write", async || {
        (replica.status().await["writes_waiting"] == 0).then_some(())
    })
    .await;
}

/// What a process took since the last row.
struct Meter {
    at: Instant,
    cpu: f64,
    counts: [f64; 3],
}

impl Meter {
    fn new() -> Self {
        Self { at: Instant::now(), cpu: 0.0, counts: [0.0; 3] }
    }

    async fn row(&mut self, replica: &Replica, what: &str) {
        let (cpu, memory) = process(replica.child.id());
        let text = replica.get("/metrics").await.unwrap_or_default();
        let counts = [
            "outrider_controller_api_calls_total",
            "outrider_controller_updates_total",
            "outrider_controller_update_bytes_total",
        ]
        .map(|family| sum(&text, family));
        println!(
            "| {what} | {:.1} | {:.2} | {memory:.0} | {:.0} | {:.0} | {:.0} |",
            self.at.elapsed().as_secs_f64(),
            cpu - self.cpu,
            counts[0] - self.counts[0],
            counts[1] - self.counts[1],
            counts[2] - self.counts[2],
        );
        (self.at, self.cpu, self.counts) = (Instant::now(), cpu, counts);
    }
}

fn sum(text: &str, family: &str) -> f64 {
    let rows = text.lines().filter(|line| line.starts_with(family));
    rows.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// CPU seconds and resident MiB of a process.
fn process(pid: u32) -> (f64, f64) {
    let read =
        |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let stat = read("stat");
    let fields: Vec<_> = stat
        .rsplit(") ")
        .next()
        .unwrap_or_default()
        .split(' ')
        .collect();
    let ticks = |at: usize| {
        fields
            .get(at)
            .and_then(|text| text.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    let resident = read("status");
    let resident = resident
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"));
    let resident =
        resident.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok());
    ((ticks(11) + ticks(12)) / 100.0, resident.unwrap_or(0.0) / 1024.0)
}
