//! Lists at their bounds: pages put together are the list, and a page takes little.

use std::{collections::BTreeSet, io::Write, time::Duration};

use outrider_model::PolicyAction;
use outrider_wire::{Connection, Connections};
use serde_json::Value;
use tokio::{net::UnixStream, time::Instant};

use crate::{
    proxy::Proxy,
    reports::{batch, encode, row},
    world::{World, exchange},
};

/// As many conversations as are kept.
const CONVERSATIONS: u16 = 32_768;
/// Rows of one datagram.
const ROWS: usize = 40;
/// Datagrams of one batch.
const BATCH: usize = 100;
/// Memory that pages may take together, in KiB.
const MOST_MEMORY: u64 = 32 * 1024;
/// Largest page: where it ends, and one more element.
const LARGEST: usize = (2 << 20) + 4096;

/// One page and the query of the next.
async fn page(world: &World, path: &str) -> (Vec<Value>, usize, Option<String>) {
    let mut stream = UnixStream::connect(world.path().join("api.sock"))
        .await
        .unwrap();
    let (head, page) = exchange(&mut stream, "GET", path, &[("host", "localhost")], "").await;
    let header = |name: &str| {
        let mut lines = head.lines();
        lines.find_map(|line| line.strip_prefix(name).map(str::to_owned))
    };
    let length = header("content-length: ").unwrap().parse().unwrap();
    let Value::Array(items) = page else { panic!("{head} {page}") };
    (items, length, header("outrider-next-cursor: "))
}

#[tokio::test]
async fn all_conversations_are_paged_in_little_time_and_memory() {
    let world = World::new();
    world.pod("cache", 2);
    world.pod("shop", 3);
    let proxy = Proxy::start(&world.mailbox("cache"));
    let bridge = world.spawn().await;
    bridge.proxy_is("cache", "connected").await;
    let ports: Vec<u16> = (1..=CONVERSATIONS).collect();
    let rows = |ports: &[u16]| {
        let row = |port: &u16| Connection { server_port: *port, ..row(1, PolicyAction::Open) };
        encode(Connections { rows: ports.iter().map(row).collect() })
    };
    let notes: Vec<_> = ports.chunks(ROWS).map(rows).collect();
    for (notes, seq) in notes.chunks(BATCH).zip(1..) {
        for datagram in batch(7, seq, notes) {
            proxy.tell(&datagram).await;
        }
        proxy.hears_ack(seq).await;
    }
    for limit in ["", "?limit=1000"] {
        bridge.forget_peak();
        let before = bridge.peak();
        let (mut seen, mut cursor, mut pages) = (BTreeSet::new(), None, 0);
        let (mut longest, mut largest) = (Duration::ZERO, 0);
        loop {
            let sign = if limit.is_empty() { "?" } else { "&" };
            let next = cursor.map(|cursor| format!("{sign}cursor={cursor}"));
            let path = format!("/v1/conversations{limit}{}", next.unwrap_or_default());
            let began = Instant::now();
            let (items, length, next) = page(&world, &path).await;
            longest = longest.max(began.elapsed());
            largest = largest.max(length);
            pages += 1;
            for item in items {
                assert!(seen.insert(item["port"].as_u64().unwrap()), "twice: {item}");
            }
            cursor = next;
            if cursor.is_none() {
                break;
            }
        }
        let grown = bridge.peak().saturating_sub(before);
        let found = format!("{pages} pages, {longest:?} and {largest} bytes at most, {grown} KiB");
        writeln!(std::io::stderr(), "{found} more").unwrap();
        assert_eq!(seen.len(), usize::from(CONVERSATIONS));
        assert!(largest <= LARGEST, "{largest}");
        assert!(grown < MOST_MEMORY, "{grown} KiB");
    }
    bridge.kill().await;
}
