//! What a change costs without an API server and without links: the resolver, what is published, and what nodes are
//! told of it, in memory. `MEMORY=1 NODES=5000 PODS=100000 RULES=10000 cargo bench … --bench cluster`.

use std::{collections::HashMap, hint::black_box, net::IpAddr, sync::Arc, time::Duration};

use outrider_agent_bridge::{
    cluster::objects::{ClusterNetworkRule, ClusterWorkloadMode, NetworkRule},
    controller::{
        interest::Known,
        plan::{Labels, NamedPort, Object, Pod, Service, Slice},
        published::{Change, Published, Touched},
        resolve::Resolver,
    },
};
use outrider_model::IpProto;
use serde_json::json;
use tokio::time::Instant;

use crate::{NAMESPACES, REPLICAS, Size, meter::process};

/// Changes of each kind.
const TURNS: usize = 200;

/// Prints a table.
pub(crate) fn measure(size: &Size) {
    let mut all = All { size: *size, ..All::default() };
    println!(
        "{} nodes, {} pods, {} rules, in memory\n\n| what | CPU ms | nodes told | CPU ms to tell them | bytes a node | RSS MiB |\n|---|--:|--:|--:|--:|--:|",
        size.nodes, size.pods, size.rules
    );
    (0..NAMESPACES).for_each(|at| all.namespace(at));
    (0..size.rules).for_each(|at| all.resolver.set_object(rule(size, at, 80)));
    (0..size.pods).for_each(|at| all.pod(at, 0));
    (0..size.services()).for_each(|at| all.service(at, REPLICAS));
    all.row("everything, from nothing", 1, |_, _| {});
    let pods = size.pods;
    all.row("a pod comes", TURNS, |all, at| all.pod(pods + at, 0));
    all.row("a pod has another address", TURNS, |all, at| all.pod(at * REPLICAS, 1));
    all.row("a pod goes", TURNS, |all, at| all.no_pod(pods + at));
    all.row("a backend of a Service goes", TURNS, |all, at| all.service(at, REPLICAS - 1));
    all.row("a backend of a Service comes", TURNS, |all, at| all.service(at, REPLICAS));
    all.row("a rule of a namespace comes", TURNS, |all, at| {
        all.resolver
            .set_object(rule(&all.size, all.size.rules + at, 80));
    });
    all.row("a rule of a namespace has another port", TURNS, |all, at| {
        all.resolver.set_object(rule(&all.size, at, 81));
    });
    all.row("a rule of the cluster comes", TURNS, |all, at| {
        all.resolver.set_object(cluster_rule(at));
    });
    all.row("a mode for all pods comes", 1, |all, _| {
        let object = json!({"metadata": {"name": "all"}, "spec": {"mode": "Monitor"}});
        let object: ClusterWorkloadMode = serde_json::from_value(object).unwrap();
        all.resolver
            .set_object(Object::ClusterMode(Arc::new(object)));
    });
    all.row("a pod comes, with that mode", TURNS, |all, at| all.pod(pods + at, 0));
}

#[derive(Default)]
struct All {
    size: Size,
    resolver: Resolver,
    change: Change,
    now: Published,
    known: HashMap<Arc<str>, Known>,
    labels: HashMap<usize, Arc<Labels>>,
    names: HashMap<String, Arc<str>>,
    slices: HashMap<usize, Arc<Slice>>,
}

impl All {
    /// Makes changes one by one; what each costs.
    fn row(&mut self, what: &str, turns: usize, mut change: impl FnMut(&mut Self, usize)) {
        let (mut plan, mut tell) = (Duration::ZERO, Duration::ZERO);
        let (mut nodes, mut updates, mut bytes) = (0, 0, 0);
        for at in 0..turns {
            change(self, at);
            let began = Instant::now();
            let touched = self.publish();
            plan += began.elapsed();
            let began = Instant::now();
            for node in self.concerned(&touched) {
                let known = self
                    .known
                    .entry(Arc::clone(&node))
                    .or_insert_with(Known::serving);
                nodes += 1;
                if let Some(update) = known.update(&node, &self.now, &[]) {
                    updates += 1;
                    bytes += prost::Message::encoded_len(&update);
                }
            }
            tell += began.elapsed();
        }
        let each = |time: Duration| time.as_secs_f64() * 1000.0 / turns as f64;
        let (_, memory) = process(std::process::id());
        println!(
            "| {what} | {:.2} | {} | {:.2} | {} | {memory:.0} |",
            each(plan),
            nodes / turns,
            each(tell),
            bytes / std::cmp::max(updates, 1),
        );
    }

    fn publish(&mut self) -> Touched {
        let mut change = std::mem::take(&mut self.change);
        change.plan = self.resolver.step();
        black_box(self.now.take(change, self.resolver.made()))
    }

    fn concerned(&mut self, touched: &Touched) -> Vec<Arc<str>> {
        if self.known.is_empty() || touched.all {
            return (0..self.size.nodes)
                .map(|at| self.name(format!("n{at}")))
                .collect();
        }
        touched.nodes.iter().cloned().collect()
    }

    fn name(&mut self, text: String) -> Arc<str> {
        let new = text.as_str().into();
        Arc::clone(self.names.entry(text).or_insert(new))
    }

    fn namespace(&mut self, at: usize) {
        let labels = Labels::from([("team".to_owned(), format!("t{}", at % 4))]);
        self.resolver
            .set_namespace(&format!("ns{at}"), &Arc::new(labels));
    }

    fn pod(&mut self, at: usize, turn: u8) {
        let (service, node) = (at / REPLICAS % self.size.services(), at % self.size.nodes);
        let own = || Labels::from([("app".to_owned(), format!("s{service}"))]);
        let labels = Arc::clone(
            self.labels
                .entry(service)
                .or_insert_with(|| Arc::new(own())),
        );
        let [.., b, c, d] = u32::try_from(at).unwrap().to_be_bytes();
        let pod = Arc::new(Pod {
            uid: format!("00000000-0000-0000-0000-{at:012}").into(),
            namespace: self.name(format!("ns{}", service % NAMESPACES)),
            name: format!("s{service}-{at}").into(),
            service: self.name(format!("s{service}")),
            node: self.name(format!("n{node}")),
            addresses: vec![IpAddr::from([10 + turn, b, c, d])],
            labels,
            managed: true,
        });
        self.resolver.set_pod(&pod);
        self.change.pods.insert(Arc::clone(&pod.uid), Some(pod));
    }

    /// A Service with its first pods.
    fn service(&mut self, at: usize, backends: usize) {
        let port = |port| NamedPort { name: "http".into(), proto: IpProto::TCP, port };
        let (namespace, name) =
            (self.name(format!("ns{}", at % NAMESPACES)), self.name(format!("s{at}")));
        let [.., c, d] = u32::try_from(at).unwrap().to_be_bytes();
        if !self.slices.contains_key(&at) {
            let service = Service {
                namespace: Arc::clone(&namespace),
                name: Arc::clone(&name),
                addresses: vec![IpAddr::from([172, 20, c, d])],
                ports: vec![port(80)],
                ..Service::default()
            };
            self.change.services.push((None, Some(Arc::new(service))));
        }
        let pods = at * REPLICAS..at * REPLICAS + backends;
        let addresses = pods.map(|pod| {
            let [.., b, c, d] = u32::try_from(pod).unwrap().to_be_bytes();
            IpAddr::from([10, b, c, d])
        });
        let slice = Arc::new(Slice {
            namespace,
            service: Arc::clone(&name),
            name,
            ports: vec![port(8080)],
            addresses: addresses.collect(),
        });
        let before = self.slices.insert(at, Arc::clone(&slice));
        self.change.slices.push((before, Some(slice)));
    }

    fn no_pod(&mut self, at: usize) {
        let uid: Arc<str> = format!("00000000-0000-0000-0000-{at:012}").into();
        self.resolver.remove_pod(&uid);
        self.change.pods.insert(uid, None);
    }
}

fn app(service: usize) -> serde_json::Value {
    json!({"podSelector": {"matchLabels": {"app": format!("s{service}")}}})
}

fn rule(size: &Size, at: usize, port: u16) -> Object {
    let services = size.services();
    let (service, peer) = (at % services, (at + NAMESPACES) % services);
    let object = json!({
        "metadata": {"name": format!("rule{at}"), "namespace": format!("ns{}", service % NAMESPACES)},
        "spec": {
            "target": app(service),
            "ingress": [{"name": "in", "action": "Allow", "ports": [format!("tcp/{port}")], "peers": [app(peer)]}],
        },
    });
    let object: NetworkRule = serde_json::from_value(object).unwrap();
    Object::Rule(Arc::new(object))
}

fn cluster_rule(at: usize) -> Object {
    let object = json!({
        "metadata": {"name": format!("rule{at}")},
        "spec": {
            "target": {"podSelector": {"matchLabels": {"app": format!("s{at}")}}, "namespaceSelector": {"matchLabels": {"team": "t1"}}},
            "ingress": [{"name": "in", "action": "Deny", "peers": [{"cidr": format!("10.0.{at}.0/24")}]}],
        },
    });
    let object: ClusterNetworkRule = serde_json::from_value(object).unwrap();
    Object::ClusterRule(Arc::new(object))
}
