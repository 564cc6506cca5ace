//! What a look-up and a compilation cost, by number of rules.

use std::{hint::black_box, net::IpAddr, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use outrider_model::{AppId, Direction, IpProto, Mode, PolicyAction, RuleId};
use outrider_policy::{
    AddrSpec, AppKnowledge, AppRule, Network, PolicySpec, Query, RuleSpec, Snapshot,
};

const SIZES: [u32; 3] = [100, 10_000, 100_000];

/// A number without pattern for each `at`.
fn scatter(at: u32) -> u32 {
    let mixed = (at ^ (at >> 16)).wrapping_mul(0x045d_9f3b);
    (mixed ^ (mixed >> 15)).wrapping_mul(0x045d_9f3b)
}

fn peer(at: u32) -> IpAddr {
    if at.is_multiple_of(2) {
        IpAddr::from((0x0a00_0000 | (scatter(at) & 0x00ff_ffff)).to_be_bytes())
    } else {
        IpAddr::from((0xfd_u128 << 120 | u128::from(scatter(at))).to_be_bytes())
    }
}

fn local(peer: IpAddr) -> IpAddr {
    if peer.is_ipv4() { [10, 200, 0, 9].into() } else { [0xfd00, 0, 0, 0, 0, 0, 0, 9].into() }
}

/// Eight rules in ten name one peer, one a subnet, one everyone on a port; every fourth asks for
/// the application.
fn rule(at: u32) -> RuleSpec {
    let address = peer(at);
    let client = match (at % 10, address) {
        (9, _) => AddrSpec::Any,
        (8, IpAddr::V4(v4)) => {
            let base = v4.to_bits() & !0xff;
            AddrSpec::Range(
                IpAddr::from(base.to_be_bytes()),
                IpAddr::from((base | 0xff).to_be_bytes()),
            )
        }
        _ => AddrSpec::one(address),
    };
    let port = u16::try_from(1_024 + scatter(at) % 40_000).unwrap_or(80);
    let id = RuleId(10_001 + at);
    let asks = at.is_multiple_of(4);
    RuleSpec {
        id,
        client,
        server: AddrSpec::Any,
        ports: (port, if at % 50 == 7 { port + 100 } else { port }),
        proto: if at.is_multiple_of(3) { None } else { Some(IpProto::TCP) },
        action: if asks { PolicyAction::CheckApp } else { PolicyAction::Allow },
        direction: Direction::Inbound,
        fqdn: None,
        vhost: false,
        apps: if asks {
            vec![AppRule { app: AppId::HTTP, action: PolicyAction::Allow, rule: id }]
        } else {
            Vec::new()
        },
    }
}

fn spec(rules: u32) -> PolicySpec {
    PolicySpec {
        default_action: PolicyAction::Deny,
        inbound: true,
        outbound: true,
        rules: (0..rules).map(rule).collect(),
        grace: false,
    }
}

fn network() -> Network {
    let nets = ["10.0.0.0/8", "fd00::/8"];
    Network {
        internal: nets.iter().filter_map(|net| net.parse().ok()).collect(),
        ..Network::default()
    }
}

/// Half of them meet a rule, half meet none.
fn queries(rules: u32) -> Vec<Query<'static>> {
    (0..4_096)
        .map(|at| {
            let rule_at = scatter(at) % rules;
            let client = peer(rule_at);
            let port = if at.is_multiple_of(2) { rule(rule_at).ports.0 } else { 80 };
            Query {
                client,
                server: local(client),
                port,
                proto: IpProto::TCP,
                direction: Direction::Inbound,
                app: AppKnowledge::Known(AppId::HTTP),
                host: None,
                mode: Mode::Protect,
            }
        })
        .collect()
}

fn decide(c: &mut Criterion) {
    let mut group = c.benchmark_group("decide");
    group
        .measurement_time(Duration::from_secs(3))
        .warm_up_time(Duration::from_secs(1));
    for rules in SIZES {
        let Ok(snapshot) = Snapshot::compile(Some(&spec(rules)), &network()) else { return };
        let queries = queries(rules);
        group.throughput(Throughput::Elements(queries.len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(rules), &queries, |b, queries| {
            b.iter(|| {
                for query in queries {
                    black_box(snapshot.decide(query));
                }
            });
        });
    }
    group.finish();
}

fn compile(c: &mut Criterion) {
    let mut group = c.benchmark_group("compile");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(3));
    for rules in SIZES {
        let (spec, network) = (spec(rules), network());
        group.bench_with_input(BenchmarkId::from_parameter(rules), &spec, |b, spec| {
            b.iter(|| black_box(Snapshot::compile(Some(spec), &network)));
        });
    }
    group.finish();
}

criterion_group!(benches, decide, compile);
criterion_main!(benches);
