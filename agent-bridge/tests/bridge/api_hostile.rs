//! Clients of the API that mean no good: connections without end, requests without end, garbage.

use std::time::Duration;

use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    time::timeout,
};

use crate::{
    events::Source,
    world::{Running, World, exchange, http},
};

const PATIENCE: Duration = Duration::from_secs(20);
/// More than there are places.
const MANY: usize = 160;
/// SHA-256 of `change`.
const CHANGE: &str = "12ea12eace7d655f471ce55e34f89b1b77a3d9d05a445ca82877dd2235beaa51";

async fn sent_away(bridge: &Running, reason: &str) -> u64 {
    let stream = TcpStream::connect(("127.0.0.1", bridge.metrics.port())).await;
    let (_, text) = http(stream.unwrap(), "GET", "/metrics", "localhost", "").await;
    let name = format!("outrider_bridge_api_sent_away_total{{reason=\"{reason}\"}} ");
    let mut lines = text.as_str().unwrap().lines();
    let found = lines.find_map(|line| line.strip_prefix(&name));
    found.unwrap().parse().unwrap()
}

async fn honest(stream: impl AsyncReadExt + AsyncWriteExt + Unpin) {
    let asked = http(stream, "GET", "/v1/status", "localhost", "");
    assert_eq!(timeout(PATIENCE, asked).await.unwrap().0, 200);
}

#[tokio::test]
async fn connections_and_halves_of_requests_keep_nobody_out() {
    let world = World::new();
    let bridge = world.start().await;
    let socket = world.path().join("api.sock");
    // A listener stays through all of it.
    let mut source = Source::open(&world, "?kinds=mode", None).await;
    let (mut tcp, mut unix) = (Vec::new(), Vec::new());
    for number in 0..MANY {
        let half = ["", "GET", "GET /v1/status HTTP/1.1\r\nhost: loc"][number % 3].as_bytes();
        let mut stream = TcpStream::connect(bridge.api).await.unwrap();
        stream.write_all(half).await.unwrap();
        tcp.push(stream);
        let mut stream = UnixStream::connect(&socket).await.unwrap();
        stream.write_all(half).await.unwrap();
        unix.push(stream);
    }
    honest(TcpStream::connect(bridge.api).await.unwrap()).await;
    honest(UnixStream::connect(&socket).await.unwrap()).await;
    assert!(sent_away(&bridge, "made-room").await >= 2 * (MANY as u64 - 128));
    drop((tcp, unix));
    world.pod("cache", 2);
    bridge.proxy_is("cache", "never").await;
    let mode = "/v1/workloads/cache/mode";
    bridge.ask("PUT", mode, r#"{"mode":"protect"}"#).await;
    assert_eq!(source.next().await.unwrap().kind, "mode", "the listener was not sent away");
    bridge.stop().await;
}

#[tokio::test]
async fn the_health_port_has_so_many_places_too() {
    let world = World::new();
    let bridge = world.start().await;
    let mut held = Vec::new();
    for _ in 0..80 {
        held.push(
            TcpStream::connect(("127.0.0.1", bridge.metrics.port()))
                .await
                .unwrap(),
        );
    }
    assert!(sent_away(&bridge, "made-room").await >= 48);
    bridge.stop().await;
}

#[tokio::test]
async fn garbage_is_refused_and_harms_nobody() {
    let world = World::new();
    let bridge = world.start().await;
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(100_000));
    for garbage in
        ["\0\0\0\0\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "\x16\x03\x01\x02\0", long.as_str()]
    {
        let mut stream = TcpStream::connect(bridge.api).await.unwrap();
        drop(stream.write_all(garbage.as_bytes()).await);
        drop(stream.shutdown().await);
        let mut answer = Vec::new();
        drop(
            timeout(PATIENCE, stream.read_to_end(&mut answer))
                .await
                .unwrap(),
        );
        assert!(!String::from_utf8_lossy(&answer).contains(" 200 "), "{garbage:?}");
    }
    honest(TcpStream::connect(bridge.api).await.unwrap()).await;
    bridge.stop().await;
}

/// The beginning of a change with a body of that length.
fn head(length: usize, token: &str) -> String {
    format!(
        "PUT /v1/workloads/cache/mode HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    )
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, said: &str) -> String {
    drop(stream.write_all(said.as_bytes()).await);
    let mut answer = Vec::new();
    drop(
        timeout(PATIENCE, stream.read_to_end(&mut answer))
            .await
            .unwrap(),
    );
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_body_has_a_largest_size_and_a_longest_time() {
    use std::os::unix::fs::PermissionsExt;
    let mut world = World::new();
    let tokens = world.path().join("tokens");
    std::fs::write(&tokens, format!("ops write {CHANGE}\n")).unwrap();
    std::fs::set_permissions(&tokens, std::fs::Permissions::from_mode(0o600)).unwrap();
    world.set("OUTRIDER_BRIDGE_TOKENS", tokens.display().to_string());
    world.pod("cache", 2);
    let bridge = world.start().await;
    bridge.proxy_is("cache", "never").await;
    let connect = || async { TcpStream::connect(bridge.api).await.unwrap() };
    let large = head(20_000, "change") + &"a".repeat(20_000);
    let stalled = head(20, "change") + "{";
    let unknown = head(20, "guess") + "{";
    let (large, stalled, unknown) = tokio::join!(
        async { answer(connect().await, &large).await },
        async { answer(connect().await, &stalled).await },
        async { answer(connect().await, &unknown).await },
    );
    assert!(large.starts_with("HTTP/1.1 413"), "{large}");
    assert!(stalled.starts_with("HTTP/1.1 408"), "{stalled}");
    assert!(unknown.starts_with("HTTP/1.1 401"), "not waited for: {unknown}");
    let mut stream = UnixStream::connect(world.path().join("api.sock"))
        .await
        .unwrap();
    let headers = [("host", "localhost")];
    let (_, modes) = exchange(&mut stream, "GET", "/v1/workloads", &headers, "").await;
    assert_eq!(modes[0]["mode"], Value::from("discover"));
    bridge.stop().await;
}
