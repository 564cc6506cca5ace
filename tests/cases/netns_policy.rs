//! Learned, then enforced: what policy lets through, refuses and cuts.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use outrider_model::names;
use outrider_tests::{
    Namespace, Pod, Scene,
    exchange::{End, exchange, get},
    require_netns,
    scene::REPORTED,
    until,
};
use tokio::time::Instant;

/// A newly denied flow is cut within a second of the push; the rest is what a machine with other work on its two cores
/// may add.
const CUT: Duration = Duration::from_secs(6);
/// A refusal comes at once.
const REFUSED: Duration = Duration::from_secs(20);

#[test]
fn a_newly_denied_live_flow_is_cut_within_a_second() -> Result<()> {
    require_netns!();
    Scene::play(|scene| {
        let cache = scene.cache.at(false, 6379);
        scene.learn(&scene.cache, 6379, || scene.shop.redis_cli(cache, &["ping"]).map(drop))?;
        let mut allowed = Held::open(&scene.shop.netns, cache)?;
        let mut denied = Held::open(&scene.intruder.netns, cache)?;
        ensure!(allowed.ping()? && denied.ping()?, "Discover blocks nothing");
        let pushed = Instant::now();
        let waiting = std::thread::spawn(move || denied.wait_for_end(pushed));
        scene.node.set_mode("cache", "protect")?;
        let returned = pushed.elapsed();
        let (end, took) = waiting.join().ok().context("the client panicked")??;
        ensure!(end == End::Reset, "cut by {end:?}");
        ensure!(took <= returned + CUT, "cut after {took:?}, the push took {returned:?}");
        ensure!(allowed.ping()?, "the allowed flow was cut");
        violation(scene, &scene.intruder, &scene.cache, 6379)?;
        let cut = scene
            .cache
            .metrics()?
            .sum("outrider_policy_cut_flows_total", &[]);
        ensure!(cut == 1.0, "{cut} flows were cut");
        Ok(())
    })
}

#[test]
fn an_unknown_client_is_refused_at_once_in_protect_and_reported_in_monitor() -> Result<()> {
    require_netns!();
    Scene::play(|scene| {
        for v6 in [false, true] {
            let cache = scene.cache.at(v6, 6379);
            scene.learn(&scene.cache, 6379, || scene.shop.redis_cli(cache, &["ping"]).map(drop))?;
        }
        scene.node.set_mode("cache", "monitor")?;
        let pong = scene
            .intruder
            .redis_cli(scene.cache.at(false, 6379), &["ping"])?;
        ensure!(pong.trim() == "PONG", "Monitor blocked: {pong}");
        let row = violation(scene, &scene.intruder, &scene.cache, 6379)?;
        ensure!(row.0 == "violate", "{row:?}");
        scene.node.set_mode("cache", "protect")?;
        for v6 in [false, true] {
            let cache = scene.cache.at(v6, 6379);
            let seen = exchange(&scene.intruder.netns, cache, b"PING\r\n", REFUSED)?;
            ensure!(matches!(seen.end, End::Reset | End::Refused), "v6 {v6}: {seen:?}");
            ensure!(seen.received.is_empty(), "data came back: {seen:?}");
            ensure!(scene.shop.redis_cli(cache, &["ping"])?.trim() == "PONG");
        }
        until("the refusals", REPORTED, || {
            let rows = scene.node.violations()?;
            let denied = rows
                .iter()
                .filter(|row| row.action == "deny" && row.port == 6379);
            let count: u64 = denied.map(|row| row.count).sum();
            ensure!(count == 2, "{count} refusals counted: {rows:?}");
            Ok(())
        })
    })
}

#[test]
fn a_probe_is_answered_where_policy_denies_who_asks() -> Result<()> {
    const PROBES: &str = r#"[{"ask":"http/80/","seconds":10},{"ask":"http/81/","seconds":10}]"#;
    require_netns!();
    Scene::play(|scene| {
        scene.node.set_mode("web", "protect")?;
        scene.web.kill_proxy()?;
        scene
            .web
            .start_proxy_with(&[("OUTRIDER_PROXY_PROBES", PROBES)])?;
        for v6 in [false, true] {
            let at = |port| scene.web.at(v6, port);
            let from = &scene.intruder.netns;
            // A proxy that was killed before it wrote the mode down begins with the one before, until the bridge speaks.
            until("the intruder to be refused", REPORTED, || {
                let seen = exchange(from, at(80), b"GET / HTTP/1.0\r\n\r\n", REFUSED)?;
                ensure!(seen.received.is_empty(), "data came back: {seen:?}");
                Ok(())
            })?;
            for (path, wanted) in [("http/80/", 200), ("http/81/", 502), ("http/80/other", 404)] {
                let answer = get(from, at(names::HEALTH_PORT), &format!("/healthz/app/{path}"))?;
                ensure!(answer.status == wanted, "v6 {v6} {path}: {answer:?}");
                ensure!(!answer.body.contains("html"), "what it says: {answer:?}");
            }
        }
        Ok(())
    })
}

#[test]
fn another_application_on_an_allowed_port_is_stopped_in_protect() -> Result<()> {
    require_netns!();
    Scene::play(|scene| {
        let cache = scene.cache.at(false, 6379);
        scene.learn(&scene.cache, 6379, || scene.shop.redis_cli(cache, &["ping"]).map(drop))?;
        scene.node.set_mode("cache", "protect")?;
        ensure!(scene.shop.redis_cli(cache, &["ping"])?.trim() == "PONG");
        // Redis answers HTTP by an error and closes: in Protect the request must never reach it.
        let request = b"GET / HTTP/1.1\r\nHost: cache\r\n\r\n";
        let seen = exchange(&scene.shop.netns, cache, request, REFUSED)?;
        ensure!(seen.end != End::TimedOut, "{seen:?}");
        let text = String::from_utf8_lossy(&seen.received);
        ensure!(!text.contains("ERR") && !text.contains("PONG"), "redis answered: {text}");
        let row = violation(scene, &scene.shop, &scene.cache, 6379)?;
        ensure!(row.0 == "deny", "{row:?}");
        Ok(())
    })
}

/// A connection to redis that is kept open.
struct Held(TcpStream);

impl Held {
    fn open(netns: &Namespace, server: SocketAddr) -> Result<Self> {
        let stream = netns.enter(|| Ok(TcpStream::connect(server)?))?;
        stream.set_read_timeout(Some(REFUSED))?;
        Ok(Self(stream))
    }

    /// Whether redis answers on it.
    fn ping(&mut self) -> Result<bool> {
        self.0.write_all(b"PING\r\n")?;
        let mut answer = [0; 7];
        self.0.read_exact(&mut answer)?;
        Ok(&answer == b"+PONG\r\n")
    }

    /// Waits, silent, until the other side ends it.
    fn wait_for_end(mut self, since: Instant) -> Result<(End, Duration)> {
        self.0.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut byte = [0];
        let end = match self.0.read(&mut byte) {
            Ok(0) => End::Closed,
            Ok(_) => bail!("data on a silent connection"),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => End::Reset,
            Err(_) => End::TimedOut,
        };
        Ok((end, since.elapsed()))
    }
}

/// Waits until traffic between two pods shows as a violation; returns its action and reason.
fn violation(scene: &Scene, client: &Pod, server: &Pod, port: u16) -> Result<(String, String)> {
    until("the violation", REPORTED, || {
        let rows = scene.node.violations()?;
        let ends = (client.workload(), server.workload());
        let row = rows
            .iter()
            .find(|row| (&row.client, &row.server, row.port) == (&ends.0, &ends.1, port))
            .with_context(|| format!("none among {rows:?}"))?;
        ensure!(row.count > 0 && !row.reason.is_empty(), "{row:?}");
        Ok((row.action.clone(), row.reason.clone()))
    })
}
