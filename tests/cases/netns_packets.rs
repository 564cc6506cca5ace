//! What is not TCP, in the tier `relay+tap+queue`: seen, learned, reported, denied, allowed again, by protocol, by
//! family, and in fragments; and what becomes of it while nobody reads the queue.

#[path = "netns_packets/scene.rs"]
mod scene;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use outrider_tests::{
    Pod,
    pod::talk::{Kind, Talk},
    require_netns,
    scene::REPORTED,
    until,
};
use tokio::time::Instant;

use self::scene::{ADDRESSES, KINDS, PORT, Stage, passes, round, talks};

/// Policy is in force within a second of its push; the rest is what a machine with other work on its two cores may add.
const SWAP: Duration = Duration::from_secs(6);
/// A packet that is not there by then was dropped.
const SOON: Duration = Duration::from_millis(300);
/// Datagrams that are looked at before a flow counts as unidentified, and some.
const ROUNDS: usize = 10;

#[test]
fn every_protocol_is_seen_learned_reported_denied_and_allowed_again() -> Result<()> {
    require_netns!();
    Stage::play("closed", |stage| {
        let shop = talks(&stage.shop, &stage.web, ADDRESSES)?;
        let intruder = talks(&stage.intruder, &stage.web, 1)?;
        let outbound = talks(&stage.web, &stage.far, 1)?;
        for _ in 0..ROUNDS {
            passes("in Discover", &shop, SWAP)?;
        }
        passes("in Discover", &intruder, SWAP)?;
        passes("in Discover", &outbound, SWAP)?;
        are_seen(stage, &shop)?;
        are_learned(stage, &stage.shop)?;

        are_cut(stage, &intruder, &outbound)?;
        passes("as it was learned", &shop, SWAP)?;
        are_refused(stage, &stage.intruder, &stage.web)?;
        are_refused(stage, &stage.web, &stage.far)?;

        let flows: Vec<&Talk> = intruder.iter().chain(&outbound).collect();
        stage.node.set_mode("web", "monitor")?;
        let pushed = Instant::now();
        passes("in Monitor, the same flows", &flows, SWAP)?;
        ensure!(pushed.elapsed() <= SWAP, "allowed after {:?}", pushed.elapsed());
        are_cut(stage, &intruder, &outbound)
    })
}

/// Each flow is in the list of sessions.
fn are_seen(stage: &Stage, talks: &[Talk]) -> Result<()> {
    until("the sessions", SWAP, || {
        let rows = stage.node.sessions("web")?;
        for talk in talks {
            let of = |end: &str, ip: std::net::IpAddr| {
                let ip = if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
                end.starts_with(&format!("{ip}:"))
            };
            let found = rows
                .iter()
                .filter(|row| of(&row.client, talk.client()) && of(&row.server, talk.server()))
                .count();
            ensure!(found >= KINDS.len(), "{found} sessions as {}: {rows:#?}", talk.name);
        }
        Ok(())
    })
}

/// Each protocol has its conversation and its rule.
fn are_learned(stage: &Stage, client: &Pod) -> Result<()> {
    until("conversations and rules", REPORTED, || {
        let (rows, rules) = (stage.node.conversations()?, stage.node.rules()?);
        for (proto, port) in scene::labels() {
            let row = rows.iter().find(|row| {
                row.client == client.workload() && row.proto == proto && row.port == port
            });
            let row = row.with_context(|| format!("no {proto} {port} among {rows:#?}"))?;
            ensure!(row.server == stage.web.workload() && row.bytes > 0, "{row:?}");
            let ports = if port == 0 { proto } else { format!("{proto}/{port}") };
            let rule = rules.iter().find(|rule| rule.ports == ports);
            let rule = rule.with_context(|| format!("no {ports} of {row:?} among {rules:#?}"))?;
            ensure!(rule.from == "nv.shop.default" && rule.learned, "{rule:?}");
        }
        Ok(())
    })
}

/// Protect ends flows that no rule allows, which were allowed until then, within a second: the kernel's verdicts are
/// taken back.
fn are_cut(stage: &Stage, inbound: &[Talk], outbound: &[Talk]) -> Result<()> {
    let flows: Vec<&Talk> = inbound.iter().chain(outbound).collect();
    passes("before Protect", &flows, SWAP)?;
    stage.node.set_mode("web", "protect")?;
    let pushed = Instant::now();
    let mut last = Duration::ZERO;
    until("the denied flows to end", SWAP + SOON, || {
        let arrived = round(&flows, Duration::from_millis(100))?;
        if !arrived.is_empty() {
            last = pushed.elapsed();
        }
        ensure!(arrived.is_empty(), "still arriving: {arrived:#?}");
        Ok(())
    })?;
    ensure!(last <= SWAP, "the last one arrived {last:?} after the push");
    let late = round(&flows, SOON)?;
    ensure!(late.is_empty(), "these came back: {late:#?}");
    Ok(())
}

/// Each protocol has its violation.
fn are_refused(stage: &Stage, client: &Pod, server: &Pod) -> Result<()> {
    until("the violations", REPORTED, || {
        let rows = stage.node.violations()?;
        for (proto, port) in scene::labels() {
            let ends = (client.workload(), server.workload());
            let mut of = rows.iter().filter(|row| {
                (&row.client, &row.server, row.port) == (&ends.0, &ends.1, port)
                    && row.action == "deny"
            });
            ensure!(of.any(|row| row.count > 0), "no {proto} {port} among {rows:#?}");
        }
        Ok(())
    })
}

#[test]
fn a_dead_reader_is_what_the_rule_says() -> Result<()> {
    require_netns!();
    Stage::play("closed", |stage| {
        let old = talks(&stage.shop, &stage.web, 1)?;
        passes("in Discover", &old, SWAP)?;
        stage.web.kill_proxy()?;
        passes("with a verdict that the kernel keeps", &old, SWAP)?;
        // Nobody has decided about the intruder's.
        let new = talks(&stage.intruder, &stage.web, 1)?;
        let passed = round(&new, SOON)?;
        ensure!(passed.is_empty(), "closed, without a reader: {passed:#?}");
        stage.web.init_with(&["--queue", "open"])?;
        passes("open, without a reader", &new, SWAP)?;
        stage.web.init_with(&["--queue", "closed"])?;
        let passed = round(&new, SOON)?;
        ensure!(passed.is_empty(), "closed again: {passed:#?}");
        stage.start_proxy("closed")?;
        until("the queue to be read again", REPORTED, || passes("read", &new, SWAP))
    })
}

#[test]
fn a_stalled_reader_is_what_the_mode_says() -> Result<()> {
    require_netns!();
    Stage::play("closed", |stage| {
        for (mode, is_open) in [("monitor", true), ("protect", false)] {
            stage.node.set_mode("web", mode)?;
            let probe = talks(&stage.intruder, &stage.web, 1)?;
            until("the mode", SWAP, || {
                let arrived = round(&probe, SOON)?.len();
                ensure!(arrived == if is_open { probe.len() } else { 0 }, "{arrived} pass");
                Ok(())
            })?;
            let before = [stage.dropped()?, stage.queue("received")?];
            let from = stage.shop.at(is_open, if is_open { 7_001 } else { 7_002 });
            let talk = Talk::open((&stage.shop, from), &stage.web, Kind::Udp(PORT), 64)?;
            stage.web.proxy()?.signal(Signal::SIGSTOP)?;
            // More than the kernel holds for the queue.
            let mut arrived = 0;
            for _ in 0..FLOOD {
                let token = talk.send()?;
                arrived += usize::from(talk.has_arrived(&token)?);
            }
            stage.web.proxy()?.signal(Signal::SIGCONT)?;
            ensure!((arrived > 0) == is_open, "{mode}: {arrived} of {FLOOD} passed");
            until("the rest to be decided about", REPORTED, || {
                let now = [stage.dropped()?, stage.queue("received")?];
                let [full, came] = [now[0] - before[0], now[1] - before[1]];
                ensure!(came > 0.0, "{mode}: nothing came");
                if is_open {
                    ensure!(full == 0.0 && came < FLOOD.into(), "{full} dropped, {came} came");
                } else {
                    let all = full + came;
                    ensure!(full > 0.0 && all >= FLOOD.into(), "{full} dropped, {came} came");
                }
                let ends = ["decided", "undecided", "overflow", "stalled"];
                let ends: f64 = ends
                    .iter()
                    .map(|end| stage.queue(end))
                    .sum::<Result<f64>>()?;
                let received = stage.queue("received")?;
                ensure!(received == ends, "{received} came, {ends} have an end");
                Ok(())
            })?;
        }
        Ok(())
    })
}

/// Datagrams, more than the kernel keeps for a queue.
const FLOOD: u32 = 3_000;
