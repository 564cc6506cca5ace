//! What inspection costs a flow that is already recognised, and a flow from its first byte on.

use std::{hint::black_box, sync::Arc, time::Duration};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use outrider_dpi::{DpiConfig, Event, FlowInspector, Need};
use outrider_model::Side::{self, Client, Server};

const REQUEST: &[u8] = b"GET /api/v1/items/42?fields=name,price HTTP/1.1\r\nHost: shop.example\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/115.0\r\n\
    Accept: application/json\r\nAccept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef\r\n\r\n";

const RESPONSE_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\n\
    Date: Wed, 25 Nov 2026 13:26:47 GMT\r\nContent-Type: application/json\r\n\
    Content-Length: 1024\r\nConnection: keep-alive\r\nETag: \"6b06e216-260\"\r\n\r\n";

const SHORT_REQUEST: &[u8] = b"GET /1k HTTP/1.1\r\nHost: 10.0.0.2:8080\r\n\r\n";

const GET: &[u8] = b"*2\r\n$3\r\nGET\r\n$16\r\nkey:000000000042\r\n";

/// A flow in the middle of its life, after `start`.
struct Running {
    inspector: FlowInspector,
    events: Vec<Event>,
}

impl Running {
    fn after(start: &[(Side, &[u8])]) -> Self {
        let inspector = FlowInspector::new(Arc::new(DpiConfig::default()), 80);
        let mut running = Self { inspector, events: Vec::with_capacity(64) };
        for (side, bytes) in start {
            running.feed(*side, bytes);
        }
        running
    }

    fn feed(&mut self, side: Side, bytes: &[u8]) -> Need {
        self.events.clear();
        let interest = self
            .inspector
            .feed(side, black_box(bytes), &mut self.events);
        black_box(&self.events);
        interest.of(side)
    }
}

/// A recorded flow of the corpus.
fn recorded(text: &str) -> Vec<(Side, Vec<u8>)> {
    let digit = |byte: &u8| {
        char::from(*byte)
            .to_digit(16)
            .map_or(0, |value| value.to_le_bytes()[0])
    };
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(side, digits)| {
            let bytes = digits.as_bytes().chunks_exact(2);
            let bytes = bytes
                .map(|pair| digit(&pair[0]) << 4 | digit(&pair[1]))
                .collect();
            (if side == "C" { Client } else { Server }, bytes)
        })
        .collect()
}

fn http(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("http");
    let response = [RESPONSE_HEAD, &[b'x'; 1024]].concat();
    group.throughput(Throughput::Elements(1));
    for (name, request) in [("request_280_bytes", REQUEST), ("request_45_bytes", SHORT_REQUEST)] {
        let mut flow = Running::after(&[(Client, request), (Server, &response)]);
        group.bench_function(name, |bencher| bencher.iter(|| flow.feed(Client, request)));
    }
    let mut flow = Running::after(&[(Client, SHORT_REQUEST), (Server, &response)]);
    group.bench_function("request_and_response_1_kib", |bencher| {
        bencher.iter(|| (flow.feed(Client, SHORT_REQUEST), flow.feed(Server, &response)));
    });
    let mut flow = Running::after(&[(Client, REQUEST)]);
    group.bench_function("request_in_16_byte_chunks", |bencher| {
        bencher.iter(|| {
            for chunk in REQUEST.chunks(16) {
                flow.feed(Client, chunk);
            }
        });
    });
    group.bench_function("first_request", |bencher| {
        bencher.iter_batched_ref(
            || Running::after(&[]),
            |flow| flow.feed(Client, REQUEST),
            BatchSize::SmallInput,
        );
    });
    group.finish();
    let mut group = criterion.benchmark_group("http_bytes");
    let chunked = [&b"10000\r\n"[..], &[b'x'; 0x10000], b"\r\n"].concat();
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    group.throughput(Throughput::Bytes(chunked.len() as u64));
    let mut flow = Running::after(&[(Client, SHORT_REQUEST), (Server, head)]);
    group.bench_function("chunks_of_64_kib_fed", |bencher| {
        bencher.iter(|| flow.feed(Server, &chunked));
    });
    group.finish();
}

fn redis(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("redis");
    group.throughput(Throughput::Elements(1));
    let mut flow = Running::after(&[(Client, GET)]);
    group.bench_function("get", |bencher| bencher.iter(|| flow.feed(Client, GET)));
    let pipeline = GET.repeat(16);
    group.throughput(Throughput::Elements(16));
    group.bench_function("pipeline_of_16", |bencher| bencher.iter(|| flow.feed(Client, &pipeline)));
    group.finish();
}

fn tls(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tls");
    let flow = recorded(include_str!("../corpus/tls1_2-openssl.flow"));
    group.throughput(Throughput::Elements(1));
    group.bench_function("handshake_to_the_end_of_interest", |bencher| {
        bencher.iter_batched_ref(
            || Running::after(&[]),
            |running| {
                for (side, bytes) in &flow {
                    running.feed(*side, bytes);
                }
            },
            BatchSize::SmallInput,
        );
    });
    // Records before encryption, which is the only time that records are walked.
    let hello = flow
        .first()
        .map(|(_, bytes)| bytes.clone())
        .unwrap_or_default();
    let record = [&[22, 3, 3, 0x40, 0][..], &[0; 0x4000]].concat();
    let records = record.repeat(4);
    group.throughput(Throughput::Bytes(records.len() as u64));
    let mut running = Running::after(&[(Client, &hello)]);
    group.bench_function("records_of_16_kib_walked", |bencher| {
        bencher.iter(|| running.feed(Client, &records));
    });
    group.finish();
}

fn unknown(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("unknown");
    group.throughput(Throughput::Elements(1));
    group.bench_function("given_up", |bencher| {
        bencher.iter_batched_ref(
            || Running::after(&[]),
            |flow| {
                flow.feed(Client, b"\x00\x00\x00\x1a\x00\x12\x00\x03\x00\x00\x00\x01\x00\x05admin")
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn short() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
}

criterion_group! {
    name = benches;
    config = short();
    targets = http, redis, tls, unknown
}
criterion_main!(benches);
