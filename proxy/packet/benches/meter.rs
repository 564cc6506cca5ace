//! What a meter costs a packet.

use std::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use criterion::{Criterion, criterion_group, criterion_main};
use outrider_packet::{MeterKind, Meters};

fn source(number: u32) -> IpAddr {
    Ipv4Addr::from(number).into()
}

fn meters(c: &mut Criterion) {
    let fresh = || Meters::new(|kind| Some(kind.default_limit()));
    let mut meters = fresh();
    let mut packet = 0_u32;
    let mut enter = |meters: &mut Meters, sources: u32| {
        packet = packet.wrapping_add(1);
        let now = Duration::from_micros(packet.into());
        let peer = source(packet % sources);
        black_box(meters.enter(MeterKind::SynFlood, peer, now))
    };
    c.bench_function("one peer", |b| b.iter(|| enter(&mut meters, 1)));
    let mut meters = fresh();
    c.bench_function("a thousand peers", |b| b.iter(|| enter(&mut meters, 1_000)));
    let mut meters = fresh();
    c.bench_function("spoofed peers, table full", |b| b.iter(|| enter(&mut meters, u32::MAX)));
    let mut meters = fresh();
    let mut port = 0_u16;
    c.bench_function("scan", |b| {
        b.iter(|| {
            port = port.wrapping_add(1);
            black_box(meters.tried(source(1), (source(2), port).into(), Duration::ZERO))
        });
    });
}

criterion_group!(benches, meters);
criterion_main!(benches);
