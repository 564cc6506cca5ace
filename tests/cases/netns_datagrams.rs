//! What is not TCP, from end to end: seen by the tap, decided about by the queue, learned and listed like
//! connections, each packet once.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use outrider_tests::{Node, Pod, World, cli::Conversation, require_netns, scene::REPORTED, until};

/// A question for the address of `a`: DNS, whatever the port.
const QUESTION: &[u8] =
    b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01";
/// A port that says nothing about its application.
const PORT: u16 = 5301;
/// Flows by family.
const FLOWS: u64 = 4;
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(20);

/// Sends datagrams back, until it is dropped.
struct Echo {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Echo {
    fn start(pod: &Pod, port: u16) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for v6 in [false, true] {
            let at = pod.at(v6, port);
            let socket = pod.netns.enter(|| Ok(UdpSocket::bind(at)?))?;
            socket.set_read_timeout(Some(Duration::from_millis(50)))?;
            let stop = Arc::clone(&stop);
            threads.push(thread::spawn(move || {
                let mut buffer = [0; 2048];
                while !stop.load(Ordering::Relaxed) {
                    let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                    let _unreachable = socket.send_to(&buffer[..length], from);
                }
            }));
        }
        Ok(Self { stop, threads })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _panicked = thread.join();
        }
    }
}

/// One flow: so many questions, each answered.
fn ask(pod: &Pod, to: SocketAddr, questions: usize) -> Result<()> {
    let from = pod.at(to.is_ipv6(), 0);
    pod.netns.enter(|| {
        let socket = UdpSocket::bind(from)?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(ANSWER))?;
        for number in 0..questions {
            socket.send(QUESTION)?;
            let mut buffer = [0; 64];
            let length = socket
                .recv(&mut buffer)
                .with_context(|| format!("answer {number} of {to}"))?;
            ensure!(&buffer[..length] == QUESTION);
        }
        Ok(())
    })
}

/// The conversations of shop with web by a protocol.
fn between(node: &Node, proto: &str) -> Result<Vec<Conversation>> {
    let mut rows = node.conversations()?;
    rows.retain(|row| {
        (&*row.client, &*row.server, &*row.proto) == ("default/shop", "default/web", proto)
    });
    Ok(rows)
}

/// Waits until conversations of a protocol come to these sessions and bytes.
fn reported(node: &Node, proto: &str, app: &str, sessions: u64, bytes: u64) -> Result<()> {
    until("the reports to add up", REPORTED, || {
        let rows = between(node, proto)?;
        let sum = |of: fn(&Conversation) -> u64| rows.iter().map(of).sum::<u64>();
        let seen = (sum(|row| row.sessions), sum(|row| row.bytes));
        ensure!(seen == (sessions, bytes), "{seen:?}, wanted {:?}: {rows:#?}", (sessions, bytes));
        ensure!(rows.iter().all(|row| row.app == app && row.violations == 0), "{rows:#?}");
        Ok(())
    })
}

/// Datagrams and echoes from shop to web, of which web's proxy sees every packet.
fn play(flags: &[&str], capabilities: &str, settings: &[(&str, &str)], tier: &str) -> Result<()> {
    let mut world = World::new()?;
    let (mut web, mut shop) = (world.pod("web")?, world.pod("shop")?);
    web.init_with(flags)?;
    web.start_proxy_as(capabilities, settings)?;
    shop.up()?;
    let node = world.start_node()?;
    node.connected(&[&web, &shop])?;
    ensure!(web.metrics()?.sum("outrider_tier", &[("tier", tier)]) == 1.0, "not in tier {tier}");
    let _echo = Echo::start(&web, PORT)?;
    for v6 in [false, true] {
        for _ in 0..FLOWS {
            ask(&shop, web.at(v6, PORT), 3)?;
        }
        let ping = format!("ping -c 2 -i 0.2 -W 2 {}", web.ip(v6));
        shop.sh(&ping)?;
    }
    until("the live sessions", REPORTED, || {
        let sessions = node.sessions("web")?;
        let port = format!(":{PORT}");
        let listed = sessions
            .iter()
            .filter(|session| session.server.ends_with(&port) && session.app == "DNS")
            .count() as u64;
        ensure!(listed == 2 * FLOWS, "{listed} listed: {sessions:#?}");
        Ok(())
    })?;
    let bytes = 2 * FLOWS * 3 * 2 * QUESTION.len() as u64;
    reported(&node, "udp", "DNS", 2 * FLOWS, bytes)?;
    // An echo has eight bytes of header and 56 of payload.
    until("the echoes", REPORTED, || {
        let rows = [between(&node, "icmp")?, between(&node, "icmpv6")?].concat();
        let sessions: u64 = rows.iter().map(|row| row.sessions).sum();
        let bytes: u64 = rows.iter().map(|row| row.bytes).sum();
        ensure!((sessions, bytes) == (2, 2 * 2 * 2 * 64), "{rows:#?}");
        ensure!(rows.iter().all(|row| row.port == 0), "{rows:#?}");
        Ok(())
    })?;
    let metrics = web.metrics()?;
    let udp = metrics.sum("outrider_packet_sessions_total", &[("proto", "udp")]);
    ensure!(udp == (2 * FLOWS) as f64, "{udp} sessions counted");
    let lost = metrics.sum("outrider_tap_frames_lost_total", &[]);
    ensure!(lost == 0.0, "{lost} frames were lost");
    Ok(())
}

#[test]
fn datagrams_are_seen_with_net_raw_alone() -> Result<()> {
    require_netns!();
    play(&[], "-all,+net_raw", &[], "relay+tap")
}

#[test]
fn datagrams_that_wait_for_a_verdict_are_counted_once() -> Result<()> {
    require_netns!();
    play(
        &["--queue", "closed"],
        "-all,+net_raw,+net_admin",
        &[("OUTRIDER_PROXY_QUEUE_RULE", "closed")],
        "relay+tap+queue",
    )
}

#[test]
fn datagrams_are_decided_about_without_a_tap() -> Result<()> {
    require_netns!();
    let settings = [("OUTRIDER_PROXY_QUEUE_RULE", "closed")];
    let mut world = World::new()?;
    let (mut web, shop) = (world.pod("web")?, world.pod("shop")?);
    web.init_with(&["--queue", "closed"])?;
    web.start_proxy_as("-all,+net_admin", &settings)?;
    ensure!(
        web.metrics()?
            .sum("outrider_tier", &[("tier", "relay+queue")])
            == 1.0
    );
    let _echo = Echo::start(&web, PORT)?;
    ask(&shop, web.at(false, PORT), 3)?;
    let metrics = web.metrics()?;
    ensure!(metrics.sum("outrider_packet_sessions_total", &[("proto", "udp")]) == 1.0);
    ensure!(metrics.sum("outrider_queue_verdicts_total", &[("verdict", "allow")]) >= 1.0);
    Ok(())
}

#[test]
fn a_proxy_that_ends_reports_its_sessions_first() -> Result<()> {
    require_netns!();
    let mut world = World::new()?;
    let (mut web, shop) = (world.pod("web")?, world.pod("shop")?);
    web.init()?;
    web.start_proxy_as("-all,+net_raw", &[])?;
    let node = world.start_node()?;
    node.connected(&[&web])?;
    let _echo = Echo::start(&web, PORT)?;
    ask(&shop, web.at(false, PORT), 3)?;
    // Long before a report is due.
    web.proxy()?.signal(Signal::SIGTERM)?;
    reported(&node, "udp", "DNS", 1, 3 * 2 * QUESTION.len() as u64)?;
    until("the proxy's end", REPORTED, || {
        ensure!(web.proxy()?.has_ended()?, "it goes on");
        Ok(())
    })?;
    let log = web.proxy()?.log().to_owned();
    ensure!(std::fs::read_to_string(log)?.contains("packets are no longer looked at"));
    Ok(())
}
