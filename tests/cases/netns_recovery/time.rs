//! How long it takes from a connection's beginning to its line in `outrider conversations`.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _, stderr},
    net::TcpStream,
    sync::{
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use outrider_tests::require_netns;
use tokio::time::Instant;

use super::{PATIENCE, Scene, ports::Ports};

/// Connections are reported every 6 s, and the bridge takes a second more at most.
const PROMISED: Duration = Duration::from_secs(7);
/// What a machine with other work on its two cores may add.
const BUSY: Duration = Duration::from_secs(10);
/// One connection each.
const PORTS: std::ops::Range<u16> = 7001..7061;
/// Time between two of them: all of them take longer than one report's time.
const PACE: Duration = Duration::from_millis(130);
/// Set to 1 to hold the figures against the promise itself, on a machine with nothing else to do.
const STRICT: &str = "OUTRIDER_RECOVERY_STRICT";

const KINDS: [&str; 3] = ["short", "long-lived", "idle"];

#[test]
fn a_connection_is_listed_within_the_reports_time_and_a_second() -> Result<()> {
    require_netns!();
    let scene = Scene::build(0)?;
    let _ports = Ports::serve(&scene.calm, PORTS)?;
    let (began, beginnings) = mpsc::channel();
    let is_over = AtomicBool::new(false);
    let listed = thread::scope(|scope| {
        let clients = scope.spawn(|| scene.shop.netns.enter(|| connect(&scene, &began, &is_over)));
        let listed = look(&scene);
        is_over.store(true, Relaxed);
        clients.join().ok().context("the clients panicked")??;
        listed
    })?;
    drop(began);
    let mut took: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
    for (port, at) in beginnings {
        let seen = listed.get(&port).context("a port")?;
        let kind = KINDS[usize::from(port) % KINDS.len()];
        let times = took.entry(kind).or_default();
        times.push(seen.saturating_duration_since(at));
    }
    let limit =
        if std::env::var(STRICT).is_ok_and(|set| set == "1") { PROMISED } else { PROMISED + BUSY };
    for (kind, times) in &mut took {
        times.sort();
        let at = |part: usize| times[(times.len() - 1) * part / 100];
        let _reader_went = writeln!(
            stderr(),
            "{kind}: {} connections, p50 {:?}, p99 {:?}, longest {:?}",
            times.len(),
            at(50),
            at(99),
            at(100)
        );
        ensure!(at(100) <= limit, "{kind}: {:?}", at(100));
    }
    Ok(())
}

/// Opens one connection after the other; those that live on do until all is over.
fn connect(
    scene: &Scene,
    began: &mpsc::Sender<(u16, Instant)>,
    is_over: &AtomicBool,
) -> Result<()> {
    let mut living: Vec<(bool, TcpStream)> = Vec::new();
    for port in PORTS {
        began.send((port, Instant::now()))?;
        let mut stream = TcpStream::connect(scene.calm.at(false, port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        match KINDS[usize::from(port) % KINDS.len()] {
            "short" => {
                request(&mut stream)?;
                ensure!(stream.read(&mut [0; 256])? > 0);
            }
            kind => living.push((kind == "long-lived", stream)),
        }
        talk(&mut living)?;
        thread::sleep(PACE);
    }
    while !is_over.load(Relaxed) {
        talk(&mut living)?;
        thread::sleep(PACE);
    }
    Ok(())
}

fn request(stream: &mut TcpStream) -> Result<()> {
    Ok(stream.write_all(b"GET / HTTP/1.1\r\nHost: calm\r\n\r\n")?)
}

/// Those that talk say something and hear an answer.
fn talk(living: &mut [(bool, TcpStream)]) -> Result<()> {
    for (_, stream) in living.iter_mut().filter(|(talks, _)| *talks) {
        request(stream)?;
        ensure!(stream.read(&mut [0; 256])? > 0);
    }
    Ok(())
}

/// Asks for conversations until each port has its line; when it was first seen.
fn look(scene: &Scene) -> Result<BTreeMap<u16, Instant>> {
    let mut listed = BTreeMap::new();
    let deadline = Instant::now() + PACE * 100 + PATIENCE;
    while listed.len() < PORTS.len() {
        ensure!(Instant::now() < deadline, "{} of {} are listed", listed.len(), PORTS.len());
        let rows = scene.node.conversations()?;
        let now = Instant::now();
        let ends = (scene.shop.workload(), scene.calm.workload());
        for row in rows {
            let is_ours = (&row.client, &row.server) == (&ends.0, &ends.1);
            if is_ours && PORTS.contains(&row.port) {
                listed.entry(row.port).or_insert(now);
            }
        }
    }
    Ok(listed)
}
