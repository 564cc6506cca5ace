//! The store, lost and full: what is acknowledged is on disk, what cannot be written is not acknowledged, and a file that
//! cannot be read costs what it held and nothing else.

use std::time::Duration;

use outrider_model::PolicyAction;
use outrider_wire::{Connection, Connections, ext::Status, request::Request};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    events::Source,
    proxy::Proxy,
    reports::{batch, encode, row},
    world::{Killable, World},
};

/// How long one answer is waited for before a batch is sent again, as a proxy does.
const PATIENCE: Duration = Duration::from_secs(3);
/// Longest wait for anything.
const LONG: Duration = Duration::from_secs(60);
/// Sessions of each batch.
const SESSIONS: u32 = 5;

fn world() -> World {
    let world = World::new();
    world.pod("cache", 2);
    world.pod("shop", 3);
    world
}

/// Batch `seq`, to a port of its own if there are to be many rows.
fn datagrams(seq: u64, rows: u16) -> Vec<Vec<u8>> {
    // Nothing is learned from what is open.
    let known = row(SESSIONS, PolicyAction::Open);
    let at = |port| Connection { server_port: port, ..known };
    let all: Vec<_> = (0..rows).map(|part| at(known.server_port + part)).collect();
    let notes = Connections::split(&all).map(encode);
    batch(7, seq, &notes.collect::<Vec<_>>())
}

async fn tell(proxy: &Proxy, datagrams: &[Vec<u8>]) {
    for datagram in datagrams {
        proxy.tell(datagram).await;
    }
}

/// Sends a batch until it is acknowledged.
async fn deliver(proxy: &Proxy, seq: u64, rows: u16) {
    let until = Instant::now() + LONG;
    loop {
        tell(proxy, &datagrams(seq, rows)).await;
        if timeout(PATIENCE, proxy.hears_ack(seq)).await.is_ok() {
            return;
        }
        assert!(Instant::now() < until, "batch {seq} is never acknowledged");
    }
}

async fn sessions(bridge: &Killable) -> u64 {
    let seen = bridge.get("/v1/conversations").await;
    let rows = seen.as_array().unwrap().iter();
    rows.map(|row| row["sessions"].as_u64().unwrap()).sum()
}

#[tokio::test]
async fn kills_at_any_moment_of_a_transaction_lose_nothing_and_count_nothing_twice() {
    let world = world();
    let proxy = Proxy::start(&world.mailbox("cache"));
    let mut seq = 0;
    for delay in [0, 40, 90, 140, 190, 215] {
        let bridge = world.spawn().await;
        bridge.proxy_is("cache", "connected").await;
        for _ in 0..2 {
            seq += 1;
            deliver(&proxy, seq, 1).await;
        }
        // Whether this one is stored nobody knows: it is sent again to the next bridge.
        tell(&proxy, &datagrams(seq + 1, 1)).await;
        sleep(Duration::from_millis(delay)).await;
        bridge.kill().await;
    }
    let bridge = world.spawn().await;
    bridge.proxy_is("cache", "connected").await;
    seq += 1;
    deliver(&proxy, seq, 1).await;
    assert_eq!(sessions(&bridge).await, seq * u64::from(SESSIONS));
    assert_eq!(bridge.get("/v1/status").await["store"]["set_aside"], Value::Null);
    bridge.kill().await;
}

#[tokio::test]
async fn a_lost_store_is_said_and_what_proxies_still_hold_is_taken_in() {
    let world = world();
    let proxy = Proxy::start(&world.mailbox("cache"));
    let bridge = world.spawn().await;
    bridge.proxy_is("cache", "connected").await;
    deliver(&proxy, 1, 1).await;
    let protect = r#"{"mode":"protect"}"#;
    let path = "/v1/workloads/cache/mode";
    assert_eq!(bridge.ask("PUT", path, protect).await.0, 200);
    bridge.kill().await;
    let store = world.path().join("bridge.redb");
    let whole = std::fs::read(&store).unwrap();
    std::fs::write(&store, &whole[..whole.len() / 2]).unwrap();

    let bridge = world.spawn().await;
    let status = bridge.get("/v1/status").await;
    let aside = status["store"]["set_aside"].as_str().unwrap();
    assert_eq!(std::fs::read(aside).unwrap().len(), whole.len() / 2, "it is kept");
    bridge.proxy_is("cache", "connected").await;
    // Gone: what was acknowledged, and the mode. Taken in: what the proxy has not heard of yet.
    assert_eq!(sessions(&bridge).await, 0);
    assert_eq!(bridge.get("/v1/workloads").await[0]["mode"], "discover");
    deliver(&proxy, 2, 1).await;
    assert_eq!(sessions(&bridge).await, u64::from(SESSIONS));
    bridge.kill().await;
}

/// A bridge on a store that was cut in half, and what it says of it.
async fn after_a_loss(world: &World, bridge: Killable) -> Killable {
    bridge.kill().await;
    let store = world.path().join("bridge.redb");
    let whole = std::fs::read(&store).unwrap();
    std::fs::write(&store, &whole[..whole.len() / 2]).unwrap();
    let bridge = world.spawn().await;
    assert!(bridge.get("/v1/status").await["store"]["set_aside"].is_string());
    bridge
}

/// What a proxy says that enforces what a bridge gave it.
fn enforcing(mode: &str) -> Status {
    let (mode, policy) = (mode.to_owned(), "rules".to_owned());
    Status { version: "0.1.0".into(), mode, policy, managed: true, ..Status::default() }
}

/// Its policy, and whether it was told to observe only, as a proxy heard last.
fn told(proxy: &Proxy) -> (bool, Option<bool>) {
    let heard = proxy.heard();
    let mut taps = heard.iter().filter_map(|request| match request {
        Request::CfgMac(asked) => asked.tap,
        _ => None,
    });
    (proxy.policy().is_some(), taps.next_back())
}

#[tokio::test]
async fn a_lost_store_opens_no_protected_pod() {
    let world = world();
    let protected = Proxy::start(&world.mailbox("cache"));
    let learning = Proxy::start(&world.mailbox("shop"));
    let bridge = world.spawn().await;
    for name in ["cache", "shop"] {
        bridge.proxy_is(name, "connected").await;
    }
    let path = "/v1/workloads/cache/mode";
    assert_eq!(bridge.ask("PUT", path, r#"{"mode":"protect"}"#).await.0, 200);
    protected.says(&enforcing("protect"));
    learning.says(&enforcing("discover"));
    protected.forget_heard();
    // It is busy when the next bridge comes.
    protected.is_deaf_to(&[true, true]);
    let mut bridge = after_a_loss(&world, bridge).await;
    let mut source = Source::open(&world, "?kinds=mode,policy", Some("1-0.0.0.0.0")).await;
    // A restart in between loses none of it.
    for again in [false, true] {
        if again {
            bridge.kill().await;
            protected.forget_heard();
            bridge = world.spawn().await;
        }
        for name in ["cache", "shop"] {
            bridge.proxy_is(name, "connected").await;
        }
        let all = bridge.get("/v1/workloads").await;
        assert_eq!((&all[0]["mode"], &all[0]["rules_kept"]), (&json!("protect"), &json!(true)));
        assert_eq!((&all[1]["mode"], &all[1]["rules_kept"]), (&json!("discover"), &json!(false)));
        assert_eq!(bridge.get("/v1/status").await["rules_kept"], json!(["default/cache"]));
        assert_eq!(told(&protected), (false, Some(false)), "its rules stay, its mode too");
        if !again {
            let mut seen = Vec::new();
            while seen.len() < 2 {
                let event = source.next().await.unwrap();
                if event.data["workload"] == "default/cache" {
                    seen.push((event.kind, event.data));
                }
            }
            assert_eq!((seen[0].0.as_str(), &seen[0].1["mode"]), ("mode", &json!("protect")));
            assert_eq!((seen[1].0.as_str(), &seen[1].1["state"]), ("policy", &json!("kept")));
        }
    }
    // Somebody decides: the rules are this bridge's from now on.
    assert_eq!(bridge.ask("PUT", path, r#"{"mode":"discover"}"#).await.0, 200);
    assert_eq!(told(&protected), (true, Some(true)));
    assert_eq!(bridge.get("/v1/status").await["rules_kept"], json!([]));
    bridge.kill().await;
}

#[tokio::test]
async fn a_proxy_without_a_policy_or_in_a_store_that_knows_is_not_asked() {
    let world = world();
    let proxy = Proxy::start(&world.mailbox("cache"));
    // By its own settings only.
    proxy.says(&Status { policy: "default".into(), ..enforcing("protect") });
    let bridge = world.spawn().await;
    bridge.proxy_is("cache", "connected").await;
    assert_eq!(told(&proxy), (true, Some(true)));
    proxy.says(&enforcing("protect"));
    // What is acknowledged is stored, and what came before it.
    deliver(&proxy, 1, 1).await;
    bridge.kill().await;
    proxy.forget_heard();
    let bridge = world.spawn().await;
    bridge.proxy_is("cache", "connected").await;
    assert_eq!(told(&proxy), (true, Some(true)), "the store knows better");
    bridge.kill().await;
}

#[tokio::test]
async fn a_full_disk_stops_acknowledgements_and_nothing_else() {
    let world = world();
    let proxy = Proxy::start(&world.mailbox("cache"));
    let bridge = world.spawn_ignoring("XFSZ").await;
    bridge.proxy_is("cache", "connected").await;
    deliver(&proxy, 1, 1).await;
    // No file may grow beyond what the store has now: as if the disk were full.
    let size = std::fs::metadata(world.path().join("bridge.redb"))
        .unwrap()
        .len();
    let limit = |soft: &str| {
        let limit = format!("--fsize={soft}:unlimited");
        let pid = format!("--pid={}", bridge.pid());
        let done = std::process::Command::new("prlimit")
            .args([pid, limit])
            .status();
        assert!(done.unwrap().success());
    };
    limit(&size.to_string());
    proxy.forget_heard();
    let mut seq = 1;
    let failing = bridge.until("/v1/status", |status| !status["store"]["failing"].is_null());
    let fill = async {
        loop {
            seq += 1;
            tell(&proxy, &datagrams(seq, 1500)).await;
            sleep(Duration::from_millis(300)).await;
        }
    };
    tokio::select! {
        () = fill => {}
        _ = failing => {}
    }
    // It answers, and the link stays.
    assert!(sessions(&bridge).await > u64::from(SESSIONS));
    bridge.proxy_is("cache", "connected").await;
    assert!(
        timeout(Duration::from_secs(1), proxy.hears_ack(seq))
            .await
            .is_err()
    );
    limit("unlimited");
    deliver(&proxy, seq, 1500).await;
    let status = bridge.get("/v1/status").await;
    assert_eq!(status["store"]["failing"], Value::Null);
    let before = sessions(&bridge).await;
    bridge.kill().await;
    let bridge = world.spawn().await;
    assert_eq!(sessions(&bridge).await, before, "all of it was stored");
    bridge.kill().await;
}
