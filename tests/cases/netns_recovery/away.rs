//! The bridge is away for longer than proxies have room for.

use std::{
    io::{Read as _, Write as _, stderr},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Result, ensure};
use outrider_tests::{require_netns, until};
use tokio::time::Instant;

use super::{
    PATIENCE, Scene, goes_on,
    load::{self, Clock, Kind, Load},
    ports::Ports,
};

/// How many seconds it is away; by default longer than a proxy waits for an acknowledgement, and two reports.
const AWAY: &str = "OUTRIDER_RECOVERY_AWAY";
const SHORT: u64 = 14;
/// Rows that the victim's proxy has room for.
const ROOM: &str = "64";
/// Kinds of flows of the victim while the bridge is away.
const PORTS: std::ops::Range<u16> = 7001..7101;

#[test]
fn a_bridge_that_is_away_costs_no_flow_that_is_not_counted() -> Result<()> {
    require_netns!();
    let away = std::env::var(AWAY).ok().and_then(|text| text.parse().ok());
    let away = Duration::from_secs(away.unwrap_or(SHORT));
    let mut scene = Scene::build(1)?;
    let _clock = Clock::start(&scene.calm)?;
    scene.victims[0].kill_proxy()?;
    scene.victims[0].start_proxy_with(&[("OUTRIDER_PROXY_REPORT_ROWS", ROOM)])?;
    scene.connected()?;
    let _ports = Ports::serve(&scene.victims[0], PORTS)?;
    let tcp = Load::start(&scene.shop, &scene.calm, &[Kind::Kept, Kind::New], false);
    let udp = Load::start(&scene.shop, &scene.calm, &[Kind::Clock], false);
    goes_on(&tcp)?;
    scene.node.kill_bridge()?;
    let since = Instant::now();
    scene.shop.netns.enter(|| {
        for port in PORTS {
            let mut stream = TcpStream::connect(scene.victims[0].at(false, port))?;
            stream.write_all(b"GET / HTTP/1.1\r\nHost: victim\r\n\r\n")?;
            stream.set_read_timeout(Some(PATIENCE))?;
            ensure!(stream.read(&mut [0; 256])? > 0, "{port}");
        }
        Ok(())
    })?;
    until("the bridge to have been away long enough", away + PATIENCE, || {
        tcp.goes_on()?;
        udp.goes_on()?;
        ensure!(since.elapsed() >= away);
        Ok(())
    })?;
    goes_on(&tcp)?;
    scene.node.start_bridge()?;
    scene.connected()?;
    let (tcp, udp) = (tcp.stop()?, udp.stop()?);
    scene.adds_up(&scene.calm, "tcp", 80, (tcp.sessions(), tcp.bytes()))?;
    if super::lost(&scene.calm.metrics()?) == 0.0 {
        scene.adds_up(&scene.calm, "udp", load::NTP, (udp.sessions(), udp.bytes()))?;
    }
    let dropped = until("told and dropped to add up", PATIENCE, || told_or_dropped(&scene))?;
    let _reader_went = writeln!(
        stderr(),
        "away for {away:?}: {} connections and {} datagram flows of {} bytes told; of {} kinds with \
         room for {ROOM}, {dropped} were dropped and counted",
        tcp.sessions(),
        udp.sessions(),
        tcp.bytes() + udp.bytes(),
        PORTS.len(),
    );
    Ok(())
}

/// What the bridge lists of the victim's flows and what its proxy counts as dropped are all of them.
fn told_or_dropped(scene: &Scene) -> Result<u64> {
    let mut told = 0;
    for row in scene.node.conversations()? {
        if row.server == scene.victims[0].workload() && PORTS.contains(&row.port) {
            told += row.sessions;
        }
    }
    let status = scene.victims[0].status()?;
    let dropped = status["dropped"]["sessions"].as_u64().unwrap_or(0);
    ensure!(told + dropped == PORTS.len() as u64, "{told} told, {dropped} dropped");
    ensure!(dropped > 0, "there was room for all");
    Ok(dropped)
}
