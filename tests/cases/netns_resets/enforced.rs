//! The proxy itself, without any redirect: what policy denies ends, what it allows goes on.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Result, ensure};
use outrider_tests::{Namespace, Pod, World, require_netns, scene::REPORTED, until};
use tokio::time::Instant;

use super::{
    Talk,
    host::{Host, Traffic},
    lives, show_within, untouched,
};

/// The port that policy comes to allow, and one that nobody learns.
const ALLOWED: u16 = 7001;
const DENIED: u16 = 7002;
/// From the push to the end of denied connections, on top of what the push itself takes.
const CUT: Duration = Duration::from_secs(1);

/// The same of those that were silent since before the proxy began, with the push.
const SILENT: Duration = Duration::from_secs(3);

/// Opens connections from one namespace to a server of another pod.
fn open(
    from: &Namespace,
    server: &TcpListener,
    hosts: &[Host; 2],
    traffics: &[Traffic],
) -> Result<Vec<Talk>> {
    let address = server.local_addr()?;
    let connect = || -> Result<TcpStream> { from.enter(|| Ok(TcpStream::connect(address)?)) };
    let mut talks = Vec::new();
    for traffic in traffics {
        let far = connect()?;
        let (near, client) = server.accept()?;
        let ends = [hosts[0].own(near, *traffic)?, hosts[1].own(far, *traffic)?];
        talks.push(Talk { addresses: [address, client], ends });
    }
    Ok(talks)
}

fn listen(pod: &Pod, v6: bool, port: u16) -> Result<TcpListener> {
    let at: SocketAddr = pod.at(v6, port);
    pod.netns.enter(|| Ok(TcpListener::bind(at)?))
}

#[test]
fn what_policy_denies_ends_and_what_it_allows_goes_on() -> Result<()> {
    require_netns!();
    let mut world = World::new()?;
    let (mut near, shop) = (world.pod("near")?, world.pod("shop")?);
    let intruder = world.pod("intruder")?;
    near.start_proxy_with_net_raw(&[("OUTRIDER_PROXY_CAPTURE", "none")])?;
    let node = world.start_node()?;
    node.connected(&[&near])?;
    let hosts = [Host::start()?, Host::start()?];
    let (mut allowed, mut denied, mut listeners) = (Vec::new(), Vec::new(), Vec::new());
    for v6 in [false, true] {
        let (open_port, closed_port) = (listen(&near, v6, ALLOWED)?, listen(&near, v6, DENIED)?);
        allowed.extend(open(&shop.netns, &open_port, &hosts, &[Traffic::Chatting; 6])?);
        // What carries nothing is not learned.
        denied.extend(open(&intruder.netns, &closed_port, &hosts, &[Traffic::Idle; 24])?);
        listeners.push(closed_port);
    }
    // Nor is what one connection does alone. It comes last: so much in so little time fills the ring.
    denied.extend(open(&intruder.netns, &listeners[0], &hosts, &[Traffic::Busy])?);
    until("the rule", REPORTED, || {
        let rules = node.rules()?;
        let ports = format!("tcp/{ALLOWED}");
        let found = rules
            .iter()
            .any(|rule| rule.from == "nv.shop.default" && rule.ports == ports);
        ensure!(found, "{rules:?}");
        Ok(())
    })?;
    let before = denied
        .iter()
        .flat_map(|talk| &talk.ends)
        .filter(|end| end.over().is_some());
    ensure!(before.count() == 0, "Discover ends nothing");
    let pushed = Instant::now();
    node.set_mode("near", "protect")?;
    let limit = pushed.elapsed() + CUT;
    show_within(limit, "Denied by the proxy", lives(&denied, pushed)?)?;
    untouched(&allowed)?;
    until("the counters", REPORTED, || {
        let metrics = near.metrics()?;
        let count = |outcome| metrics.sum("outrider_resets_total", &[("outcome", outcome)]);
        ensure!(count("done") >= 49.0, "{} done", count("done"));
        ensure!(count("alive") + count("overflow") + count("silent") == 0.0);
        Ok(())
    })?;
    // What comes now is refused before it is a connection, or ends as soon as it is one.
    for v6 in [false, true] {
        let server = listen(&near, v6, DENIED + 1)?;
        let address = server.local_addr()?;
        let tried = intruder.netns.enter(|| {
            let Ok(mut stream) = TcpStream::connect(address) else { return Ok(None) };
            stream.set_read_timeout(Some(REPORTED))?;
            Ok(std::io::Read::read(&mut stream, &mut [0; 1]).ok())
        })?;
        ensure!(tried.is_none(), "it was not reset: {tried:?}");
    }
    Ok(())
}

#[test]
fn what_is_older_than_the_proxy_and_silent_ends_too() -> Result<()> {
    require_netns!();
    let mut world = World::new()?;
    let (mut near, shop) = (world.pod("near")?, world.pod("shop")?);
    let hosts = [Host::start()?, Host::start()?];
    let mut talks = Vec::new();
    for v6 in [false, true] {
        let server = listen(&near, v6, DENIED)?;
        talks.extend(open(&shop.netns, &server, &hosts, &[Traffic::Idle; 4])?);
        let server = listen(&shop, v6, DENIED)?;
        talks.extend(open(&near.netns, &server, &hosts, &[Traffic::Idle; 4])?);
    }
    near.start_proxy_with_net_raw(&[("OUTRIDER_PROXY_CAPTURE", "none")])?;
    let node = world.start_node()?;
    node.connected(&[&near])?;
    until("sessions of all", REPORTED, || {
        let metrics = near.metrics()?;
        let found = metrics.sum("outrider_packet_sessions_total", &[("proto", "tcp")]);
        ensure!(found >= 16.0, "{found} sessions");
        Ok(())
    })?;
    let pushed = Instant::now();
    node.set_mode("near", "protect")?;
    show_within(SILENT, "Denied, older than the proxy and silent", lives(&talks, pushed)?)
}

/// A socket of a pod that talks to one address.
fn datagrams(pod: &Pod, to: SocketAddr) -> Result<UdpSocket> {
    pod.netns.enter(|| {
        let socket = UdpSocket::bind((pod.ip(to.is_ipv6()), 0))?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(CUT))?;
        Ok(socket)
    })
}

#[test]
fn the_workload_hears_of_its_dropped_datagrams_and_nobody_else_does() -> Result<()> {
    require_netns!();
    let mut world = World::new()?;
    let (mut near, shop) = (world.pod("near")?, world.pod("shop")?);
    near.init_with(&["--queue", "closed"])?;
    let rule = [("OUTRIDER_PROXY_QUEUE_RULE", "closed")];
    near.start_proxy_as("-all,+net_raw,+net_admin", &rule)?;
    let node = world.start_node()?;
    node.connected(&[&near])?;
    node.set_mode("near", "protect")?;
    for (v6, told) in [(false, ErrorKind::HostUnreachable), (true, ErrorKind::PermissionDenied)] {
        let open = [&near, &shop].map(|pod| {
            let at = pod.at(v6, DENIED);
            pod.netns.enter(|| Ok(UdpSocket::bind(at)?))
        });
        let [_near, far] = open;
        let asked = datagrams(&near, far?.local_addr()?)?;
        until("Protect to be in force", REPORTED, || {
            let sent = Instant::now();
            asked.send(b"question")?;
            let error = asked.recv(&mut [0; 16]).err().map(|error| error.kind());
            ensure!(error == Some(told), "{error:?}");
            eprintln!("v6 {v6}: told after {:.1?}", sent.elapsed());
            Ok(())
        })?;
        let stranger = datagrams(&shop, near.at(v6, DENIED))?;
        stranger.send(b"question")?;
        let error = stranger.recv(&mut [0; 16]).err().map(|error| error.kind());
        ensure!(error == Some(ErrorKind::WouldBlock), "a stranger was told: {error:?}");
    }
    until("the counter", REPORTED, || {
        let sent = near
            .metrics()?
            .sum("outrider_packets_sent_total", &[("kind", "error")]);
        ensure!(sent >= 2.0, "{sent} errors");
        Ok(())
    })
}
