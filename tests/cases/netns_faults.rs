//! Faults: a proxy or the bridge killed with -9 and started again. Other pods go on untouched, state
//! comes back, and counts still add up.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use outrider_tests::{
    Pod, Scene,
    exchange::{End, exchange},
    require_netns,
    scene::REPORTED,
    until,
};

/// What is not refused is answered within this time.
const ANSWER: Duration = Duration::from_secs(20);
/// How soon a bridge programs a proxy that is back.
const REPROGRAMMED: Duration = Duration::from_secs(40);

#[test]
fn a_killed_proxy_touches_no_other_pod_and_counts_add_up() -> Result<()> {
    require_netns!();
    Scene::play(|scene| {
        let web = scene.web.at(false, 80);
        calls(scene, web, 5)?;
        let before = scene.reported(&scene.web, 80, 5)?;
        let (cache, shop) = (scene.cache.at(false, 6379), scene.shop.netns.clone());
        let (stop, pings) = (AtomicBool::new(false), AtomicU64::new(0));
        let sent = thread::scope(|scope| -> Result<u64> {
            let other = scope.spawn(|| -> Result<u64> {
                let mut sent = 0;
                while !stop.load(Ordering::Relaxed) {
                    let seen = exchange(&shop, cache, b"PING\r\nQUIT\r\n", ANSWER)?;
                    ensure!(seen.received.starts_with(b"+PONG"), "ping {sent}: {seen:?}");
                    sent += 1;
                    pings.store(sent, Ordering::Relaxed);
                }
                Ok(sent)
            });
            let outcome = (|| {
                scene.web.kill_proxy()?;
                // Closed, not open: without its proxy the pod's traffic is refused, not let through.
                let seen = exchange(&scene.intruder.netns, web, b"GET / HTTP/1.0\r\n\r\n", ANSWER)?;
                ensure!(seen.received.is_empty() && seen.end != End::TimedOut, "{seen:?}");
                scene.web.start_proxy()?;
                scene.node.connected(&[&scene.web])?;
                let seen_so_far = pings.load(Ordering::Relaxed);
                until("more pings", ANSWER, || {
                    ensure!(pings.load(Ordering::Relaxed) > seen_so_far + 5);
                    Ok(())
                })
            })();
            stop.store(true, Ordering::Relaxed);
            let sent = other.join().ok().context("the client panicked")??;
            outcome.map(|()| sent)
        })?;
        calls(scene, web, 7)?;
        let after = scene.reported(&scene.web, 80, 12)?;
        ensure!(after == before / 5 * 12, "{after} bytes after 12 calls, {before} after 5");
        scene.reported(&scene.cache, 6379, sent).map(drop)
    })
}

#[test]
fn a_killed_proxy_that_comes_back_enforces_as_before() -> Result<()> {
    require_netns!();
    Scene::play(|scene| {
        let cache = scene.cache.at(false, 6379);
        scene.learn(&scene.cache, 6379, || scene.shop.redis_cli(cache, &["ping"]).map(drop))?;
        scene.node.set_mode("cache", "protect")?;
        // The last known policy is on disk: it holds before the bridge has said a word.
        scene.node.kill_bridge()?;
        scene.cache.kill_proxy()?;
        scene.cache.start_proxy()?;
        enforced(scene)?;
        scene.node.start_bridge()?;
        scene.node.connected(&scene.pods())?;
        enforced(scene)
    })
}

#[test]
fn a_killed_bridge_touches_no_traffic_forgets_nothing_and_counts_add_up() -> Result<()> {
    require_netns!();
    Scene::play(|scene| {
        let cache = scene.cache.at(false, 6379);
        scene.learn(&scene.cache, 6379, || scene.shop.redis_cli(cache, &["ping"]).map(drop))?;
        scene.node.set_mode("cache", "protect")?;
        let rules = scene.node.rules()?.len();
        scene.node.kill_bridge()?;
        enforced(scene)?;
        for _ in 0..6 {
            scene.shop.redis_cli(cache, &["ping"])?;
        }
        scene.node.start_bridge()?;
        ensure!(scene.node.rules()?.len() == rules, "rules were forgotten");
        let workloads = scene.node.workloads()?;
        let mode = workloads
            .iter()
            .find(|workload| workload.name == "default/cache");
        ensure!(mode.is_some_and(|workload| workload.mode == "protect"), "{workloads:?}");
        scene.node.connected(&scene.pods())?;
        enforced(scene)?;
        // 4 to learn, 1 in each look whether it is enforced, 6 while the bridge was away.
        scene.reported(&scene.cache, 6379, 4 + 1 + 6 + 1)?;
        refusals(scene, 2)
    })
}

#[test]
fn a_pod_that_comes_and_goes_is_noticed() -> Result<()> {
    require_netns!();
    Scene::play(|scene| {
        let mut late = scene.world.pod("late")?;
        late.up()?;
        scene.node.connected(&[&late])?;
        std::fs::remove_file(&late.workload_file)?;
        std::fs::remove_dir_all(&late.mailbox)?;
        drop(late);
        until("the workload to go", REPROGRAMMED, || {
            let workloads = scene.node.workloads()?;
            let late = workloads
                .iter()
                .find(|workload| workload.name == "default/late");
            ensure!(late.is_none_or(|workload| workload.proxy != "connected"), "{late:?}");
            Ok(())
        })
    })
}

/// Shop's HTTP calls to web, each a connection of its own and all alike.
fn calls(scene: &Scene, web: std::net::SocketAddr, count: u32) -> Result<()> {
    for _ in 0..count {
        let request = b"GET / HTTP/1.0\r\nHost: web\r\n\r\n";
        let seen = exchange(&scene.shop.netns, web, request, ANSWER)?;
        ensure!(
            seen.end == End::Closed && seen.received.ends_with(b"hello from web\n"),
            "{seen:?}"
        );
    }
    Ok(())
}

/// Shop gets through to cache, the intruder does not. One call each.
fn enforced(scene: &Scene) -> Result<()> {
    let cache = scene.cache.at(false, 6379);
    ensure!(scene.shop.redis_cli(cache, &["ping"])?.trim() == "PONG", "shop was refused");
    let seen = exchange(&scene.intruder.netns, cache, b"PING\r\n", ANSWER)?;
    ensure!(matches!(seen.end, End::Reset | End::Refused), "the intruder: {seen:?}");
    Ok(())
}

/// The intruder's refusals are counted exactly.
fn refusals(scene: &Scene, expected: u64) -> Result<()> {
    until("the refusals to add up", REPORTED, || {
        let rows = scene.node.violations()?;
        let mine = |pod: &Pod| pod.workload();
        let refused = rows
            .iter()
            .filter(|row| row.client == mine(&scene.intruder));
        let count: u64 = refused.map(|row| row.count).sum();
        ensure!(count == expected, "{count} refusals counted, {expected} were: {rows:?}");
        Ok(())
    })
}
