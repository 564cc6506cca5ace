//! What shop sends, and a count of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use outrider_tests::{Pod, Scene, exchange::exchange, wait::until};

/// Rounds of calls in Discover; each round is a connection of every kind and family.
const ROUNDS: u64 = 6;
/// How long one request may take before it counts as failed.
const REQUEST: Duration = Duration::from_secs(2);
/// Requests that must have gone well before and after something is changed.
const BATCH: u64 = 10;

/// Connections that were made, by server.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sent {
    pub(crate) http: u64,
    pub(crate) tls: u64,
    pub(crate) redis: u64,
}

impl Sent {
    /// Connections that web got.
    pub(crate) fn web(&self) -> u64 {
        self.http + self.tls
    }
}

/// Shop calls web by HTTP and HTTPS and cache by redis, over both families.
pub(crate) fn ordinary(scene: &Scene) -> Result<Sent> {
    let mut sent = Sent::default();
    for _ in 0..ROUNDS {
        for v6 in [false, true] {
            let web = scene.web.at(v6, 80);
            let page = scene.shop.fetch(&format!("http://{web}/"))?;
            ensure!(page == "hello from web\n", "web answered {page:?}");
            sent.http += 1;
            // A name to see in the TLS hello, resolved by hand: there is no DNS server here.
            let address = scene.web.ip(v6);
            let resolve = if v6 {
                format!("web.example:443:[{address}]")
            } else {
                format!("web.example:443:{address}")
            };
            let tls = scene
                .shop
                .curl(&["--resolve", &resolve, "https://web.example/1k"])?;
            ensure!(tls.code == 0 && tls.out.len() == 1024, "HTTPS: {tls:?}");
            sent.tls += 1;
            let cache = scene.cache.at(v6, 6379);
            let pong = scene.shop.redis_cli(cache, &["ping"])?;
            ensure!(pong.trim() == "PONG", "redis answered {pong:?}");
            sent.redis += 1;
        }
    }
    Ok(sent)
}

/// Requests that shop makes to both servers, one after another, until it is stopped.
pub(crate) struct Background {
    stop: Arc<AtomicBool>,
    good: Arc<AtomicU64>,
    worker: JoinHandle<Result<Sent>>,
}

impl Background {
    /// Starts, and waits until the first requests went well.
    pub(crate) fn start(scene: &Scene) -> Result<Self> {
        let (stop, good) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let client = Client {
            shop: scene.shop.netns.clone(),
            web: scene.web.at(false, 80),
            cache: scene.cache.at(true, 6379),
        };
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&good));
        let worker = thread::spawn(move || {
            let mut sent = Sent::default();
            while !stopped.load(Ordering::Relaxed) {
                client.redis()?;
                sent.redis += 1;
                client.http()?;
                sent.http += 1;
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok(sent)
        });
        let background = Self { stop, good, worker };
        background.goes_on()?;
        Ok(background)
    }

    /// Waits until more requests went well.
    pub(crate) fn goes_on(&self) -> Result<()> {
        let before = self.good.load(Ordering::Relaxed);
        until("shop's requests to go well", Duration::from_secs(10), || {
            let good = self.good.load(Ordering::Relaxed) - before;
            ensure!(!self.worker.is_finished(), "a request failed");
            ensure!(good >= BATCH, "{good} of {BATCH}");
            Ok(())
        })
    }

    /// Ends and tells how many went well; the first that failed is the error.
    pub(crate) fn finish(self) -> Result<Sent> {
        self.stop.store(true, Ordering::Relaxed);
        self.worker
            .join()
            .map_err(|_panic| anyhow!("the client panicked"))?
    }
}

struct Client {
    shop: outrider_tests::Namespace,
    web: std::net::SocketAddr,
    cache: std::net::SocketAddr,
}

impl Client {
    fn redis(&self) -> Result<()> {
        self.ask(self.cache, "PING\r\nQUIT\r\n", "+PONG")
    }

    fn http(&self) -> Result<()> {
        let request = "GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n";
        self.ask(self.web, request, "hello from web")
    }

    fn ask(&self, server: std::net::SocketAddr, send: &str, expect: &str) -> Result<()> {
        let seen = exchange(&self.shop, server, send.as_bytes(), REQUEST)?;
        let text = String::from_utf8_lossy(&seen.received);
        ensure!(text.contains(expect), "{server} answered {:?} {text:?}", seen.end);
        Ok(())
    }
}

/// Flows that a pod's proxy has taken in.
pub(crate) fn inbound(pod: &Pod) -> Result<u64> {
    count(pod, "outrider_flows_opened_total", &[("direction", "inbound")])
}

/// Flows that a pod's proxy has refused by policy.
pub(crate) fn refused(pod: &Pod) -> Result<u64> {
    let labels = [("direction", "inbound"), ("reason", "policy")];
    count(pod, "outrider_flows_refused_total", &labels)
}

fn count(pod: &Pod, family: &str, labels: &[(&str, &str)]) -> Result<u64> {
    let metrics = pod.metrics().with_context(|| pod.name.clone())?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small counter")]
    Ok(metrics.sum(family, labels) as u64)
}
