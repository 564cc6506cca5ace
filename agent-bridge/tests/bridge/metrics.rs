//! `/metrics` and the health port: well formed, and true.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use outrider_model::PolicyAction;
use outrider_wire::Connections;
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::{
    events::Source,
    proxy::{Manner, Proxy},
    reports::{batch, encode, row},
    world::{Running, World, http},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// Samples by their text before the value.
pub(crate) type Samples = BTreeMap<String, f64>;

async fn scrape(bridge: &Running, path: &str) -> (u16, String) {
    let stream = TcpStream::connect(("127.0.0.1", bridge.metrics.port()))
        .await
        .unwrap();
    let (status, text) = http(stream, "GET", path, "localhost", "").await;
    (status, text.as_str().unwrap().to_owned())
}

pub(crate) async fn samples(bridge: &Running) -> Samples {
    let (status, text) = scrape(bridge, "/metrics").await;
    assert_eq!(status, 200);
    lint(&text)
}

/// What `promtool check metrics` looks for, and that labels come from closed sets.
fn lint(text: &str) -> Samples {
    let (mut help, mut types) = (BTreeSet::new(), BTreeMap::new());
    let mut found = Samples::new();
    for line in text.lines() {
        let words: Vec<_> = line.splitn(4, ' ').collect();
        match words.as_slice() {
            ["#", "HELP", name, about] => {
                assert!(about.ends_with('.') && help.insert(*name), "{line}");
            }
            ["#", "TYPE", name, kind] => {
                assert!(help.contains(name) && types.insert(*name, *kind).is_none(), "{line}");
                assert_eq!(*kind == "counter", name.ends_with("_total"), "{line}");
                assert!(name.starts_with("outrider_"), "{line}");
                let words: Vec<_> = name.split('_').collect();
                for unit in ["ms", "milliseconds", "minutes", "kilobytes", "mib", "percent"] {
                    assert!(!words.contains(&unit), "{line}: not a base unit");
                }
            }
            _ => {
                let (name, value) = line.rsplit_once(' ').unwrap();
                let family = name.split('{').next().unwrap();
                let parts = ["_bucket", "_sum", "_count"];
                let base = parts.iter().find_map(|part| family.strip_suffix(part));
                let known = base.filter(|base| types.get(base) == Some(&"histogram"));
                assert!(types.contains_key(known.unwrap_or(family)), "{line}");
                labels(name).for_each(|value| closed(value, line));
                assert!(
                    found
                        .insert(name.to_owned(), value.parse().unwrap())
                        .is_none(),
                    "{line}"
                );
            }
        }
    }
    found
}

fn labels(name: &str) -> impl Iterator<Item = &str> {
    name.split('"').skip(1).step_by(2)
}

fn closed(value: &str, line: &str) {
    let letters = |byte: u8| byte.is_ascii_lowercase() || b"-+".contains(&byte);
    let is_bound = value == "+Inf" || value.parse::<f64>().is_ok();
    assert!(is_bound || (!value.is_empty() && value.bytes().all(letters)), "{line}");
    assert!(value.parse::<IpAddr>().is_err(), "{line}");
}

/// What `every_number_is_true` comes to.
const TRUE: [(&str, f64); 24] = [
    ("outrider_bridge_workloads", 2.0),
    ("outrider_bridge_proxies{state=\"connected\"}", 1.0),
    ("outrider_bridge_proxies{state=\"down\"}", 0.0),
    ("outrider_bridge_proxies{state=\"never\"}", 1.0),
    ("outrider_bridge_proxy_tiers{tier=\"unsaid\"}", 1.0),
    ("outrider_bridge_proxy_tiers{tier=\"relay+tap\"}", 0.0),
    ("outrider_bridge_workload_modes{mode=\"protect\"}", 1.0),
    ("outrider_bridge_workload_modes{mode=\"discover\"}", 1.0),
    ("outrider_bridge_rules", 1.0),
    ("outrider_bridge_learned_rules{mode=\"protect\"}", 1.0),
    ("outrider_bridge_learned_rules{mode=\"discover\"}", 0.0),
    ("outrider_bridge_policy_lagging_proxies", 0.0),
    ("outrider_bridge_policy_lag_seconds", 0.0),
    ("outrider_bridge_mailboxes_refused{reason=\"workload-file\"}", 1.0),
    ("outrider_bridge_mailboxes_refused{reason=\"no-directory\"}", 1.0),
    ("outrider_bridge_mailboxes_refused{reason=\"mac\"}", 0.0),
    ("outrider_bridge_event_listeners", 1.0),
    ("outrider_bridge_ready", 1.0),
    ("outrider_bridge_received_total{kind=\"batches\"}", 2.0),
    ("outrider_bridge_received_total{kind=\"rows\"}", 2.0),
    ("outrider_bridge_sessions_total", 5.0),
    ("outrider_export_spooled{sink=\"webhook\"}", 1.0),
    ("outrider_export_sent_total{sink=\"webhook\"}", 0.0),
    ("outrider_bridge_export_sinks_failing", 1.0),
];

/// What goes on meanwhile.
const AT_LEAST_ONE: [&str; 7] = [
    "outrider_bridge_policy_generation",
    "outrider_bridge_store_bytes",
    "outrider_bridge_commits_total",
    "outrider_bridge_commit_seconds_count",
    "outrider_export_retries_total{sink=\"webhook\"}",
    "outrider_export_failing{sink=\"webhook\"}",
    "outrider_export_last_error_timestamp_seconds{sink=\"webhook\"}",
];

#[tokio::test]
async fn every_number_is_true() {
    let mut world = World::new();
    world.set("OUTRIDER_EXPORT_WEBHOOK", "http://127.0.0.1:1/?secret=hunter2");
    world.pod("cache", 2);
    world.pod("shop", 3);
    std::fs::write(world.path().join("pods/odd.json"), "{").unwrap();
    std::fs::create_dir(world.mailbox("odd")).unwrap();
    std::fs::write(world.path().join("pods/alone.json"), "{}").unwrap();
    let proxy = Proxy::start(&world.mailbox("cache"));
    let bridge = world.start().await;
    bridge.proxy_is("cache", "connected").await;
    bridge.proxy_is("shop", "never").await;
    for datagram in batch(7, 1, &[encode(Connections { rows: vec![row(4, PolicyAction::Learn)] })])
    {
        proxy.tell(&datagram).await;
    }
    proxy.hears_ack(1).await;
    let (_, set) = bridge
        .ask("PUT", "/v1/workloads/cache/mode", r#"{"mode":"protect"}"#)
        .await;
    assert_eq!(set["pushed"], 1, "{set}");
    // The rule that the row made is compiled a second later; then nothing moves any more.
    bridge
        .until("/v1/status", |status| status["rules"] == 1 && status["coverage"]["lagging"] == 0)
        .await;
    for datagram in batch(7, 2, &[encode(Connections { rows: vec![row(1, PolicyAction::Deny)] })]) {
        proxy.tell(&datagram).await;
    }
    proxy.hears_ack(2).await;
    bridge
        .until("/v1/status", |status| status["export"][0]["failures"].as_u64() > Some(0))
        .await;
    let _listener = Source::open(&world, "", None).await;
    let found = samples(&bridge).await;
    for (name, value) in TRUE {
        assert_eq!(found.get(name), Some(&value), "{name}");
    }
    for name in AT_LEAST_ONE {
        assert!(found[name] >= 1.0, "{name}");
    }
    let status = bridge.get("/v1/status").await;
    let error = status["export"][0]["last_error"].as_str().unwrap();
    assert!(!error.is_empty() && !error.contains("hunter2"), "{error}");
    bridge.stop().await;
}

#[tokio::test]
async fn a_proxy_that_does_not_take_its_policy_is_seen_to_lag() {
    let world = World::new();
    world.pod("cache", 2);
    let proxy = Proxy::start(&world.mailbox("cache"));
    let bridge = world.start().await;
    bridge.proxy_is("cache", "connected").await;
    proxy.behave(Manner::Silent);
    let body = r#"{"mode":"protect"}"#;
    let set = bridge.ask("PUT", "/v1/workloads/cache/mode", body);
    let lagging = async {
        while samples(&bridge).await["outrider_bridge_policy_lagging_proxies"] != 1.0 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    let (_, seen) = tokio::join!(set, timeout(PATIENCE, lagging));
    seen.unwrap();
    // It misses its keep-alive: what is not connected does not lag.
    bridge.proxy_is("cache", "down").await;
    let found = samples(&bridge).await;
    assert_eq!(found["outrider_bridge_policy_lagging_proxies"], 0.0);
    assert_eq!(found["outrider_bridge_proxies{state=\"down\"}"], 1.0);
    bridge.stop().await;
}

#[tokio::test]
async fn health_is_served() {
    let world = World::new();
    let bridge = world.start().await;
    bridge
        .until("/v1/status", |status| status["not_ready"].is_null())
        .await;
    for path in ["/healthz", "/healthz/live", "/healthz/ready"] {
        assert_eq!(scrape(&bridge, path).await, (200, "ok\n".into()), "{path}");
    }
    bridge.stop().await;
}
