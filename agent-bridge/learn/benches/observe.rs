//! What taking in rows and compiling policy cost.

use std::{
    collections::BTreeMap,
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use outrider_learn::{Learner, Row, Settings, Workload};
use outrider_model::{AppId, IpProto, PolicyAction, RuleId, Severity, ThreatId};

const PODS: u32 = 100;

fn address(pod: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0002 + pod).into()
}

fn learner() -> Learner {
    let mut learner = Learner::new(Settings::default());
    for pod in 0..PODS {
        let entered = learner.directory_mut().enter(Workload {
            uid: format!("3f0c2a52-6f1f-4d53-9a0e-{pod:012}").into(),
            name: format!("default/service-{pod}-6d5f9c7b8-x2v4q"),
            namespace: "default".into(),
            service: format!("service-{pod}"),
            addresses: vec![address(pod)],
            mac: None,
            labels: BTreeMap::new(),
            managed: true,
        });
        black_box(entered.is_ok());
    }
    learner
}

/// Rows between `pods` pods and as many clients each.
fn rows(count: u32, clients: u32) -> Vec<Row> {
    (0..count)
        .map(|at| Row {
            reporter: format!("3f0c2a52-6f1f-4d53-9a0e-{:012}", at % PODS).into(),
            inbound: true,
            client: address(at / PODS % clients),
            client_port: Some(40_000),
            server: address(at % PODS),
            port: 8080,
            proto: IpProto::TCP,
            app: AppId::HTTP,
            action: PolicyAction::Learn,
            rule: RuleId(0),
            bytes: 1_000,
            sessions: 3,
            violations: 0,
            first_seen: 1,
            last_seen: u64::from(at),
            threat: ThreatId::default(),
            severity: Severity::None,
        })
        .collect()
}

fn observe(c: &mut Criterion) {
    let mut group = c.benchmark_group("observe");
    group.sample_size(20);
    for (name, clients) in [("known", 50), ("flood", 2_000)] {
        let rows = rows(100_000, clients);
        group.throughput(Throughput::Elements(rows.len() as u64));
        group.bench_function(name, |b| {
            let mut learner = learner();
            b.iter(|| rows.iter().filter(|row| learner.observe(row)).count());
        });
    }
    group.finish();
}

fn compile(c: &mut Criterion) {
    c.bench_function("compile 100 pods, 5 000 rules", |b| {
        let mut learner = learner();
        for row in rows(5_000, 50) {
            learner.observe(&row);
        }
        b.iter(|| learner.compile_changed().len());
    });
}

criterion_group!(benches, observe, compile);
criterion_main!(benches);
