//! TPROXY from end to end: the workload sees its clients as they are. The proxy has `NET_RAW` and nothing
//! else.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use outrider_model::names;
use outrider_tests::{Namespace, Pod, World, require_netns, scene::REPORTED, until};

/// How long one answer may take, with a thousand others on their way.
const ANSWER: Duration = Duration::from_secs(20);
/// How soon sockets are gone after the last byte.
const GONE: Duration = Duration::from_secs(20);
/// Connections that are open at the same time, by family.
const CONNECTIONS: usize = 1000;

/// nginx behind TPROXY, and a client without a proxy.
fn transparent(world: &mut World, flags: &[&str], settings: &[(&str, &str)]) -> Result<(Pod, Pod)> {
    let (mut web, shop) = (world.pod("web")?, world.pod("shop")?);
    web.init_with(&[&["--mode", "tproxy"], flags].concat())?;
    web.start_proxy_with_net_raw(&[&[("OUTRIDER_PROXY_CAPTURE", "tproxy")], settings].concat())?;
    web.serve_nginx()?;
    Ok((web, shop))
}

/// Opens that many connections, and asks twice on each while all of them are open.
fn hold_and_ask(from: &Namespace, to: SocketAddr, connections: usize) -> Result<()> {
    from.enter(|| {
        let mut open = Vec::new();
        for number in 0..connections {
            let stream = TcpStream::connect_timeout(&to, ANSWER);
            let stream = stream.with_context(|| format!("connection {number} to {to}"))?;
            stream.set_read_timeout(Some(ANSWER))?;
            open.push(stream);
        }
        for round in 0..2 {
            for (number, stream) in open.iter_mut().enumerate() {
                ask(stream)
                    .with_context(|| format!("connection {number}, round {round}, to {to}"))?;
            }
        }
        Ok(())
    })
}

/// One request on a connection that stays open.
fn ask(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(b"GET /1k HTTP/1.1\r\nHost: web\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    while !answer.ends_with(b"xxxx") {
        let length = stream.read(&mut chunk)?;
        ensure!(length > 0, "closed after {:?}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&chunk[..length]);
    }
    ensure!(answer.starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&answer));
    Ok(())
}

/// Requests in nginx's log by the client that it saw.
fn clients(web: &Pod) -> Result<BTreeMap<String, usize>> {
    let mut clients = BTreeMap::new();
    for line in fs::read_to_string(web.file("nginx").join("access.log"))?.lines() {
        let client = line.split(' ').next().unwrap_or_default();
        *clients.entry(client.to_owned()).or_default() += 1;
    }
    Ok(clients)
}

/// Open descriptors of the proxy, and connections of the pod that somebody still holds.
fn held(web: &mut Pod) -> Result<(usize, usize)> {
    let fds = fs::read_dir(format!("/proc/{}/fd", web.proxy()?.pid()))?.count();
    let sockets = web.sh("ss -Htan | grep -cvE '^(TIME-WAIT|LISTEN)' || true")?;
    Ok((fds, sockets.trim().parse()?))
}

#[test]
fn nginx_logs_the_real_client_and_nothing_leaks() -> Result<()> {
    require_netns!();
    let mut world = World::new()?;
    let (mut web, shop) = transparent(&mut world, &[], &[])?;
    shop.fetch(&format!("http://{}/", web.at(false, 80)))?;
    let before = until("a quiet pod", GONE, || {
        let held = held(&mut web)?;
        ensure!(held.1 == 0, "{held:?}");
        Ok(held)
    })?;
    for v6 in [false, true] {
        hold_and_ask(&shop.netns, web.at(v6, 80), CONNECTIONS)?;
    }
    let mut seen = clients(&web)?;
    for v6 in [false, true] {
        let requests = seen.remove(&shop.ip(v6).to_string());
        let expected = CONNECTIONS * 2 + usize::from(!v6);
        ensure!(requests == Some(expected), "v6 {v6}: {requests:?}, and {seen:?}");
    }
    ensure!(seen.keys().all(|client| client == "127.0.0.1"), "{seen:?}");
    until("the sockets to go", GONE, || {
        let after = held(&mut web)?;
        ensure!(after.0 <= before.0 && after.1 == 0, "{before:?} before, {after:?} after");
        Ok(())
    })
}

#[test]
fn what_a_transparent_proxy_saw_is_learned_as_usual() -> Result<()> {
    require_netns!();
    let mut world = World::new()?;
    let (web, mut shop) = transparent(&mut world, &[], &[])?;
    shop.up()?;
    let node = world.start_node()?;
    node.connected(&[&web, &shop])?;
    for v6 in [false, true] {
        for _ in 0..3 {
            shop.fetch(&format!("http://{}/", web.at(v6, 80)))?;
        }
    }
    until("the rule", REPORTED, || {
        let rules = node.rules()?;
        let found = rules.iter().any(|rule| {
            (rule.from.as_str(), rule.to.as_str()) == ("nv.shop.default", "nv.web.default")
                && rule.app == "HTTP"
        });
        ensure!(found, "{rules:?}");
        Ok(())
    })?;
    let seen = clients(&web)?;
    for v6 in [false, true] {
        ensure!(seen.get(&shop.ip(v6).to_string()) == Some(&3), "{seen:?}");
    }
    Ok(())
}

/// Rules of either kind feed the same listener; which it was shows in the client that nginx sees.
#[test]
fn without_being_told_the_proxy_takes_what_comes() -> Result<()> {
    require_netns!();
    let mut world = World::new()?;
    let (mut web, shop) = (world.pod("web")?, world.pod("shop")?);
    web.start_proxy_with_net_raw(&[])?;
    web.serve_nginx()?;
    for (mode, clients_seen) in [
        ("redirect", ["127.0.0.6", "::6"]),
        (
            "tproxy",
            [false, true]
                .map(|v6| shop.ip(v6).to_string())
                .each_ref()
                .map(String::as_str),
        ),
    ] {
        web.init_with(&["--mode", mode])?;
        for v6 in [false, true] {
            shop.fetch(&format!("http://{}/", web.at(v6, 80)))?;
        }
        let seen = clients(&web)?;
        ensure!(clients_seen.iter().all(|client| seen.contains_key(*client)), "{mode}: {seen:?}");
    }
    Ok(())
}

#[test]
fn a_hairpin_is_redirected_and_arrives() -> Result<()> {
    require_netns!();
    let mut world = World::new()?;
    let (web, _shop) = transparent(&mut world, &[], &[])?;
    let before = clients(&web)?;
    let uid = names::PROXY_UID;
    for v6 in [false, true] {
        let url = format!("http://{}/", web.at(v6, 80));
        web.sh(&format!("setpriv --reuid {uid} --clear-groups curl -fsS --noproxy '*' {url}"))?;
    }
    let mut seen = clients(&web)?;
    seen.retain(|client, _| !before.contains_key(client));
    ensure!(seen.keys().eq(["127.0.0.6", "::6"]), "{seen:?}");
    Ok(())
}

#[test]
fn with_a_secret_mark_everything_of_the_proxy_still_passes() -> Result<()> {
    require_netns!();
    for mode in ["redirect", "tproxy"] {
        let mut world = World::new()?;
        let (mut web, mut shop) = (world.pod("web")?, world.pod("shop")?);
        for pod in [&mut web, &mut shop] {
            pod.init_with(&["--mode", mode, "--secret-mark", "0x5ec4e7"])?;
            pod.start_proxy_with_net_raw(&[("OUTRIDER_MARK", "0x5ec4e7")])?;
        }
        web.serve_nginx()?;
        for v6 in [false, true] {
            let (nginx, health) = (web.at(v6, 80), web.at(v6, names::HEALTH_PORT));
            shop.fetch(&format!("http://{nginx}/")).context(mode)?;
            // From a namespace without rules, as a kubelet does it.
            let live = format!("http://{health}/healthz/live");
            let node = world.node();
            node.sh(ANSWER, &format!("curl -fsS --max-time 5 --noproxy '*' '{live}'"))
                .context(mode)?;
        }
        let seen = web.metrics()?.sum("outrider_flows_opened_total", &[]);
        ensure!(seen >= 2.0, "{mode}: {seen} flows crossed web's proxy");
    }
    Ok(())
}

#[test]
fn without_the_capability_the_proxy_says_which_one_it_lacks() -> Result<()> {
    require_netns!();
    let mut world = World::new()?;
    let mut web = world.pod("web")?;
    let refused = web.start_proxy_with(&[("OUTRIDER_PROXY_CAPTURE", "tproxy")]);
    let error = format!("{:#}", refused.err().context("started without NET_RAW")?);
    ensure!(error.contains("NET_RAW") && error.contains("transparent"), "{error}");
    Ok(())
}

#[test]
fn a_killed_proxy_lets_nothing_through_and_its_successor_goes_on() -> Result<()> {
    require_netns!();
    let mut world = World::new()?;
    let (mut web, shop) = transparent(&mut world, &[], &[])?;
    web.kill_proxy()?;
    for v6 in [false, true] {
        let url = format!("http://{}/", web.at(v6, 80));
        let curl = shop.curl(&["--max-time", "1", &url])?;
        ensure!(matches!(curl.code, 7 | 28), "{curl:?}");
    }
    web.start_proxy_with_net_raw(&[])?;
    for v6 in [false, true] {
        shop.fetch(&format!("http://{}/", web.at(v6, 80)))?;
    }
    Ok(())
}
