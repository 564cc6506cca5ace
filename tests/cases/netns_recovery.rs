//! Proxies and the bridge killed with -9 in every order while traffic goes on. Who is not killed serves every
//! request; afterwards sessions and bytes add up to what the clients did, and what a killed proxy had not
//! reported is no more than it did since it was last heard.

#[path = "netns_recovery/away.rs"]
mod away;
#[path = "netns_recovery/load.rs"]
mod load;
#[path = "netns_recovery/ports.rs"]
mod ports;
#[path = "netns_recovery/time.rs"]
mod time;

use std::{
    io::{Write as _, stderr},
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use outrider_tests::{
    Node, Pod, World,
    exchange::{End, exchange},
    metrics::Metrics,
    require_netns, until,
};

use self::load::{Clock, Kind, Ledger, Load};

/// Reports come every 6 s, and a bridge that comes back needs some more to be found: on a machine as busy as may be.
const PATIENCE: Duration = Duration::from_secs(40);
/// What is refused is refused at once.
const REFUSED: Duration = Duration::from_secs(20);
/// Exchanges that go through between two faults, to see that traffic never stops.
const GOES_ON: u64 = 25;
/// Where a connection says that all before it was reported: nginx listens there too.
const MARK: u16 = 443;

/// A node, one pod that nobody harms, five whose proxies are killed, and one that calls them all.
struct Scene {
    calm: Pod,
    victims: Vec<Pod>,
    shop: Pod,
    node: Node,
    /// Goes last.
    _world: World,
}

impl Scene {
    fn build(victims: usize) -> Result<Self> {
        let mut world = World::new()?;
        let (mut calm, mut shop) = (world.pod("calm")?, world.pod("shop")?);
        calm.init()?;
        let capture = [("OUTRIDER_PROXY_CAPTURE", "redirect")];
        calm.start_proxy_with_net_raw(&capture)?;
        calm.serve_nginx()?;
        shop.up()?;
        let victims: Vec<_> = (1..=victims)
            .map(|number| {
                let mut pod = world.pod(&format!("victim{number}"))?;
                pod.up()?;
                pod.serve_nginx()?;
                Ok(pod)
            })
            .collect::<Result<_>>()?;
        let node = world.start_node()?;
        let scene = Self { calm, victims, shop, node, _world: world };
        scene.connected()?;
        Ok(scene)
    }

    /// Waits until the bridge speaks to every proxy.
    fn connected(&self) -> Result<()> {
        let all: Vec<_> = [&self.calm, &self.shop]
            .into_iter()
            .chain(&self.victims)
            .collect();
        until("everybody to be connected", PATIENCE, || self.node.connected(&all))
    }

    /// Sessions and bytes of shop with a pod, as `outrider conversations` has them.
    fn told(&self, server: &Pod, proto: &str, port: u16) -> Result<(u64, u64)> {
        let mut rows = self.node.conversations()?;
        let ends = (self.shop.workload(), server.workload());
        rows.retain(|row| (&row.client, &row.server) == (&ends.0, &ends.1));
        rows.retain(|row| row.proto == proto && row.port == port);
        let sessions = rows.iter().map(|row| row.sessions).sum();
        Ok((sessions, rows.iter().map(|row| row.bytes).sum()))
    }

    /// Waits until what was told comes to exactly this.
    fn adds_up(&self, server: &Pod, proto: &str, port: u16, did: (u64, u64)) -> Result<()> {
        until("the sums", PATIENCE, || {
            let told = self.told(server, proto, port)?;
            ensure!(told == did, "{}: {told:?} told, {did:?} were", server.name);
            Ok(())
        })
    }

    /// Has each victim's clients at work until they have done something.
    fn loads(&self, may_break: bool) -> Result<Vec<Load>> {
        let kinds = [Kind::Kept, Kind::New];
        let start = |pod| Load::start(&self.shop, pod, &kinds, may_break);
        let loads: Vec<_> = self.victims.iter().map(start).collect();
        for load in &loads {
            goes_on(load)?;
        }
        Ok(loads)
    }
}

/// Waits until clients have got through so often again.
fn goes_on(load: &Load) -> Result<()> {
    let before = load.ledger.sessions();
    until("traffic to go on", PATIENCE, || {
        load.goes_on()?;
        let since = load.ledger.sessions() - before;
        ensure!(since >= GOES_ON, "{since} sessions since");
        Ok(())
    })
}

fn stop_all(loads: Vec<Load>) -> Result<Vec<Arc<Ledger>>> {
    loads.into_iter().map(Load::stop).collect()
}

/// Kills the bridge in the middle of a transaction: as soon as the store's file has changed again.
fn kill_in_a_commit(node: &mut Node) -> Result<()> {
    let store = node.store();
    let written = || -> Result<SystemTime> { Ok(std::fs::metadata(&store)?.modified()?) };
    let before = written()?;
    until("a transaction", PATIENCE, || {
        // Closely: a transaction takes a few milliseconds.
        let looks = (0..10_000)
            .map(|_| written())
            .find(|at| at.as_ref().is_ok_and(|at| *at != before));
        looks.context("no transaction yet")?
    })?;
    node.kill_bridge()
}

/// Without its proxy a pod's connections are refused, not let through.
fn is_closed(scene: &Scene, pod: &Pod) -> Result<()> {
    let request = b"GET / HTTP/1.0\r\n\r\n";
    let seen = exchange(&scene.shop.netns, pod.at(false, 80), request, REFUSED)?;
    ensure!(seen.received.is_empty() && seen.end != End::TimedOut, "{}: {seen:?}", pod.name);
    Ok(())
}

/// Kills a proxy after it has sent a batch and before that is acknowledged. Says how many sessions were
/// in it at least.
fn kill_unacknowledged(scene: &mut Scene, victim: usize, ledger: &Ledger) -> Result<u64> {
    let counts = |pod: &Pod| -> Result<(f64, f64)> {
        let metrics = pod.metrics()?;
        let sent = metrics.sum("outrider_ctrl_sent_total", &[("socket", "notification")]);
        Ok((metrics.sum("outrider_ctrl_batches_acknowledged_total", &[]), sent))
    };
    let pod = &scene.victims[victim];
    let before = counts(pod)?;
    // None is under way after an acknowledgement, and the next one has all that was done before it.
    let (done, sent) = until("an acknowledgement", PATIENCE, || {
        let done = ledger.sessions();
        let (acknowledged, sent) = counts(pod)?;
        ensure!(acknowledged > before.0, "none yet");
        Ok((done, sent))
    })?;
    scene.node.bridge()?.signal(Signal::SIGSTOP)?;
    until("the next batch to be sent", PATIENCE, || {
        let now = counts(pod)?.1;
        ensure!(now >= sent + 3.0, "{now} datagrams, {sent} before");
        Ok(())
    })?;
    scene.victims[victim].kill_proxy()?;
    scene.node.bridge()?.signal(Signal::SIGCONT)?;
    Ok(done)
}

/// The orders in which they are killed. What each leaves behind is looked at in the end.
fn faults(scene: &mut Scene, calm: &Load, loads: &[Load]) -> Result<u64> {
    let calm_goes_on = || goes_on(calm);
    // The bridge; the bridge twice in a row, and in a transaction.
    scene.node.kill_bridge()?;
    calm_goes_on()?;
    scene.node.start_bridge()?;
    scene.node.kill_bridge()?;
    scene.node.start_bridge()?;
    scene.connected()?;
    kill_in_a_commit(&mut scene.node)?;
    calm_goes_on()?;
    scene.node.start_bridge()?;
    scene.connected()?;
    // A proxy; another whose batch is unacknowledged.
    scene.victims[0].kill_proxy()?;
    is_closed(scene, &scene.victims[0])?;
    let in_batch = kill_unacknowledged(scene, 1, &loads[1].ledger)?;
    calm_goes_on()?;
    for victim in 0..2 {
        scene.victims[victim].start_proxy()?;
    }
    // A proxy and then the bridge, the bridge and then a proxy: one of both each.
    scene.victims[2].kill_proxy()?;
    scene.node.kill_bridge()?;
    calm_goes_on()?;
    scene.victims[3].kill_proxy()?;
    is_closed(scene, &scene.victims[3])?;
    for victim in 2..4 {
        scene.victims[victim].start_proxy()?;
    }
    calm_goes_on()?;
    scene.node.start_bridge()?;
    // Both at once.
    let Scene { node, victims, .. } = scene;
    thread::scope(|scope| {
        let proxy = scope.spawn(|| victims[4].kill_proxy());
        let bridge = node.kill_bridge();
        proxy.join().ok().context("killing panicked")?.and(bridge)
    })?;
    is_closed(scene, &scene.victims[4])?;
    calm_goes_on()?;
    scene.node.start_bridge()?;
    scene.victims[4].start_proxy()?;
    scene.connected()?;
    calm_goes_on()?;
    Ok(in_batch)
}

#[test]
fn kills_in_every_order_stop_no_traffic_and_sums_add_up() -> Result<()> {
    require_netns!();
    let mut scene = Scene::build(5)?;
    let played = play(&mut scene);
    if played.is_err() {
        let status = scene.calm.status().map(|status| format!("{status:#}"));
        let metrics = scene.calm.metrics();
        let log = scene.node.bridge().map(|bridge| bridge.log_tail());
        let _reader_went = writeln!(stderr(), "{metrics:?} {status:?} {log:?}");
    }
    played
}

fn play(scene: &mut Scene) -> Result<()> {
    let _clock = Clock::start(&scene.calm)?;
    let tcp = Load::start(&scene.shop, &scene.calm, &[Kind::Kept, Kind::New], false);
    let udp = Load::start(&scene.shop, &scene.calm, &[Kind::Clock], false);
    // What is reported now is safe from here on.
    let before = stop_all(scene.loads(false)?)?;
    for (pod, did) in scene.victims.iter().zip(&before) {
        scene.adds_up(pod, "tcp", 80, (did.sessions(), did.bytes()))?;
    }
    let loads = scene.loads(true)?;
    let in_batch = faults(scene, &tcp, &loads)?;
    let during = stop_all(loads)?;
    let after = stop_all(scene.loads(false)?)?;
    let (tcp, udp) = (tcp.stop()?, udp.stop()?);
    scene.adds_up(&scene.calm, "tcp", 80, (tcp.sessions(), tcp.bytes()))?;
    let unseen = lost(&scene.calm.metrics()?);
    if unseen == 0.0 {
        scene.adds_up(&scene.calm, "udp", load::NTP, (udp.sessions(), udp.bytes()))?;
    }
    for (number, pod) in scene.victims.iter().enumerate() {
        let [before, during, after] = [&before, &during, &after].map(|did| &did[number]);
        let in_batch = if number == 1 { in_batch } else { 0 };
        let least = before.sessions() + in_batch + after.sessions();
        let did = before.sessions() + during.sessions() + after.sessions();
        marked(scene, pod)?;
        let told = scene.told(pod, "tcp", 80)?.0;
        let most = did + during.broken();
        ensure!((least..=most).contains(&told), "{}: {told} of {least} to {most}", pod.name);
        let _reader_went =
            writeln!(stderr(), "{}: {told} of {did} told, {} broke", pod.name, during.broken());
    }
    counters(scene, tcp.sessions() + udp.sessions(), unseen)
}

/// A connection to another port, once it was reported: so was all before it.
fn marked(scene: &Scene, pod: &Pod) -> Result<()> {
    exchange(&scene.shop.netns, pod.at(false, MARK), b"GET / HTTP/1.0\r\n\r\n", REFUSED)?;
    until("the mark", PATIENCE, || {
        let seen = scene.told(pod, "tcp", MARK)?.0;
        ensure!(seen == 1, "{seen} marks");
        Ok(())
    })
}

/// Frames that the kernel did not show to the tap of a pod, because the machine was too busy: whose flow they
/// were nobody knows.
fn lost(metrics: &Metrics) -> f64 {
    metrics.sum("outrider_tap_frames_lost_total", &[])
}

/// What the proxy that nobody harmed and the bridge counted themselves says the same.
fn counters(scene: &Scene, did: u64, unseen: f64) -> Result<()> {
    let metrics = scene.calm.metrics()?;
    let opened = metrics.sum("outrider_flows_opened_total", &[("direction", "inbound")]);
    ensure!(opened <= did as f64 && opened + unseen >= did as f64, "{opened} of {did} flows");
    let dropped = [
        ("report_rows_dropped", None),
        ("report_sessions_dropped", None),
        ("report_threats_dropped", None),
        // A reply to a bridge that is gone is no report.
        ("ctrl_lost", Some(("reason", "notice-overflow"))),
        ("ctrl_lost", Some(("reason", "encoding"))),
    ];
    for (family, reason) in dropped {
        let count = metrics.sum(&format!("outrider_{family}_total"), reason.as_slice());
        ensure!(count == 0.0, "{family} {reason:?}: {count}");
    }
    let told: u64 = scene
        .node
        .conversations()?
        .iter()
        .map(|row| row.sessions)
        .sum();
    let summed = scene
        .node
        .metrics()?
        .sum("outrider_bridge_sessions_total", &[]);
    ensure!(summed == told as f64, "{summed} sessions counted by the bridge, {told} listed");
    Ok(())
}
