//! What a frame costs the engine: flows that are known, streams in and out of order, fragments, floods of new flows.

use std::{hint::black_box, net::SocketAddr, time::Duration};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use outrider_packet::{
    Engine, Event, Frame, Limits, LinkType,
    build::{ACK, PSH, SYN, Talk, ethernet, fragments, ip, tcp, udp},
};

/// Frames of one iteration: more than the processor's caches hold would measure the memory instead.
const ROUND: u32 = 10_000;
/// Between two frames: a million a second.
const APART: Duration = Duration::from_micros(1);
/// Where the sequence number of TCP stands in an Ethernet frame with an IPv4 header without options.
const SEQUENCE: usize = 14 + 20 + 4;
/// Where the identification of a fragmented packet does.
const IDENTIFICATION: usize = 14 + 4;
/// Where source address and port do.
const SOURCE: usize = 14 + 12;
const PORT: usize = 14 + 20;

/// An engine as a tap has it, fed a frame after the other.
struct Running {
    engine: Engine,
    now: Duration,
    events: u64,
}

impl Running {
    fn new() -> Self {
        let engine = Engine::new(Limits::default());
        Self { engine, now: Duration::from_secs(1), events: 0 }
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.now += APART;
        let frame = Frame {
            link: LinkType::Ethernet,
            at: self.now,
            bytes: black_box(bytes),
            wire: bytes.len(),
        };
        let events = &mut self.events;
        self.engine.feed(&frame, &mut |event: Event<'_>| {
            black_box(&event);
            *events += 1;
        });
    }
}

fn client(number: u32) -> SocketAddr {
    let [_, _, high, low] = (number / 1_000).to_be_bytes();
    let port = 20_000 + u16::try_from(number % 1_000).unwrap_or_default();
    SocketAddr::from(([10, 1, high, low], port))
}

fn server() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 2], 4_000))
}

fn put(frame: &mut [u8], at: usize, bytes: &[u8]) {
    frame[at..at + bytes.len()].copy_from_slice(bytes);
}

fn known(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("known_flows");
    group.throughput(Throughput::Elements(ROUND.into()));
    for (name, flows) in [("udp_1", 1), ("udp_100", 100), ("udp_10000", ROUND)] {
        let frames: Vec<_> = (0..ROUND)
            .map(|number| ethernet(&udp(client(number % flows), server(), &[7; 64])))
            .collect();
        let mut running = Running::new();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for frame in &frames {
                    running.feed(frame);
                }
            });
        });
    }
    group.finish();
}

/// A connection that stands, with the client's next sequence number.
fn established(running: &mut Running) -> u32 {
    for packet in Talk::new(client(1), server()).open().packets {
        running.feed(&ethernet(&packet));
    }
    u32::MAX - 2_999
}

fn streams(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tcp");
    group.throughput(Throughput::Elements(ROUND.into()));
    let ports = (client(1).port(), server().port());
    for (name, payload) in [("64", 64_u16), ("1400", 1_400)] {
        let body = vec![7; payload.into()];
        let segment = tcp(ports, (0, 78), PSH | ACK, &body);
        let mut frame = ethernet(&ip(client(1).ip(), server().ip(), 6, &segment));
        for (order, steps) in [("in_order", [0, 1, 2, 3]), ("reordered", [1, 0, 3, 2])] {
            let mut running = Running::new();
            let mut next = established(&mut running);
            group.bench_function(format!("{order}_{name}"), |bencher| {
                bencher.iter(|| {
                    for _ in 0..ROUND / 4 {
                        for step in steps {
                            let at = next.wrapping_add(step * u32::from(payload));
                            put(&mut frame, SEQUENCE, &at.to_be_bytes());
                            running.feed(&frame);
                        }
                        next = next.wrapping_add(4 * u32::from(payload));
                    }
                });
            });
            assert_eq!(running.engine.counters().stray, 0);
        }
    }
    group.finish();
}

fn pieces(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fragments");
    let packet = udp(client(1), server(), &[7; 2_800]);
    let mut frames: Vec<_> = fragments(&packet, 1_400)
        .iter()
        .map(|part| ethernet(part))
        .collect();
    group.throughput(Throughput::Elements(ROUND.into()));
    let rounds = ROUND / u32::try_from(frames.len()).unwrap_or(1);
    let mut running = Running::new();
    let mut id = 0_u16;
    group.bench_function("of_1400_bytes", |bencher| {
        bencher.iter(|| {
            for _ in 0..rounds {
                id = id.wrapping_add(1);
                for frame in &mut frames {
                    put(frame, IDENTIFICATION, &id.to_be_bytes());
                    running.feed(frame);
                }
            }
        });
    });
    group.finish();
}

fn floods(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("new_flows");
    group.throughput(Throughput::Elements(ROUND.into()));
    let syn = tcp((1, 80), (9, 0), SYN, &[]);
    let from = client(0).ip();
    let kinds = [
        ("udp", ethernet(&udp(client(0), server(), &[7; 64]))),
        ("tcp_syn", ethernet(&ip(from, server().ip(), 6, &syn))),
    ];
    for (name, mut frame) in kinds {
        let mut running = Running::new();
        let mut number = 0_u32;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for _ in 0..ROUND {
                    number = number.wrapping_add(1);
                    let [a, b, c, d] = number.to_be_bytes();
                    put(&mut frame, SOURCE, &[10, a, b, c]);
                    put(&mut frame, PORT, &[0x80, d]);
                    running.feed(&frame);
                }
            });
        });
    }
    group.finish();
}

fn short() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .sample_size(20)
}

criterion_group! {
    name = benches;
    config = short();
    targets = known, streams, pieces, floods
}
criterion_main!(benches);
