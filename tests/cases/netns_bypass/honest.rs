//! A pod that goes no way past its proxy, and is busy.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use outrider_model::names;
use outrider_tests::{Namespace, Pod, World, exchange::get, require_netns};

/// Connections of each client.
const CONNECTIONS: usize = 500;
/// How long the proxies stand still under load.
const STOPPED: Duration = Duration::from_secs(4);
/// Two looks at the sockets and the wait for late registration.
const SETTLED: Duration = Duration::from_secs(7);

/// Many connections one after the other, each with one request.
fn many(from: &Namespace, to: SocketAddr) -> Result<()> {
    from.enter(|| {
        for _ in 0..CONNECTIONS {
            let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(20))?;
            stream.set_read_timeout(Some(Duration::from_secs(20)))?;
            stream.write_all(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer)?;
            ensure!(answer.starts_with(b"HTTP/1.1 200"), "{}", answer.len());
        }
        Ok(())
    })
}

/// Connections to where nobody listens, and ones that are given up at once.
fn refused(from: &Namespace, to: SocketAddr) -> Result<()> {
    from.enter(|| {
        for _ in 0..CONNECTIONS {
            let _refused = TcpStream::connect_timeout(&to, Duration::from_secs(5));
        }
        Ok(())
    })
}

fn findings(pod: &Pod) -> Result<(f64, f64)> {
    let metrics = pod.metrics()?;
    let undecided = metrics.sum("outrider_bypass_undecided_total", &[]);
    Ok((metrics.sum("outrider_bypass_findings_total", &[]), undecided))
}

/// The proxies stand still while connections come, and register them late.
fn stand_still(shop: &mut Pod, web: &mut Pod, node: &Namespace) -> Result<()> {
    let pids = [shop.proxy()?.pid(), web.proxy()?.pid()];
    let pids = pids.map(|pid| Pid::from_raw(pid.try_into().unwrap_or(0)));
    pids.iter()
        .try_for_each(|pid| kill(*pid, Signal::SIGSTOP))?;
    thread::scope(|scope| -> Result<()> {
        let work = [
            scope.spawn(|| many(&shop.netns, web.at(false, 80))),
            scope.spawn(|| many(node, web.at(false, 80))),
        ];
        thread::sleep(STOPPED);
        pids.iter()
            .try_for_each(|pid| kill(*pid, Signal::SIGCONT))?;
        work.into_iter()
            .try_for_each(|work| work.join().map_err(|_panic| anyhow::anyhow!("panic"))?)
    })?;
    Ok(())
}

/// Rules and tapping proxies.
fn up(init: &[&str], settings: &[(&str, &str)], pods: [&mut Pod; 2]) -> Result<()> {
    for pod in pods {
        pod.init_with(init)?;
        pod.start_proxy_with_net_raw(settings)?;
    }
    Ok(())
}

/// Everything that honest pods do, at once. `server` is asked for names and answers nobody.
fn busy([shop, web, half]: [&Pod; 3], node: &Namespace, server: &str) -> Result<()> {
    thread::scope(|scope| -> Result<()> {
        let work = [
            scope.spawn(move || many(&shop.netns, web.at(false, 80))),
            scope.spawn(move || many(&shop.netns, web.at(true, 80))),
            scope.spawn(move || many(node, web.at(false, 80))),
            scope.spawn(move || refused(&shop.netns, web.at(false, 81))),
            scope.spawn(move || {
                for transport in ["+tcp", "+notcp"].repeat(10) {
                    let ask =
                        format!("dig @{server} {transport} +time=1 +tries=1 web.example || true");
                    shop.sh(&ask)?;
                }
                Ok(())
            }),
            scope.spawn(move || refused(node, web.at(true, 81))),
            scope.spawn(move || {
                half.netns.enter(|| {
                    for _ in 0..5 {
                        let limit = Duration::from_millis(500);
                        let _never = TcpStream::connect_timeout(&web.at(false, 80), limit);
                    }
                    Ok(())
                })
            }),
            scope.spawn(move || {
                for v6 in [false, true].repeat(20) {
                    let health = web.at(v6, names::HEALTH_PORT);
                    ensure!(get(node, health, "/healthz/live")?.status == 200, "not alive");
                }
                Ok(())
            }),
        ];
        work.into_iter()
            .try_for_each(|work| work.join().map_err(|_panic| anyhow::anyhow!("panic"))?)
    })
}

fn honest(init: &[&str], settings: &[(&str, &str)]) -> Result<()> {
    let mut world = World::new()?;
    let (mut shop, mut web) = (world.pod("shop")?, world.pod("web")?);
    let half = world.pod("half")?;
    // Nobody answers there: the proxy's own dials are refused.
    let server = half.ip(false).to_string();
    let dns = [("OUTRIDER_PROXY_DNS", "on"), ("OUTRIDER_PROXY_DNS_SERVERS", server.as_str())];
    let settings = [settings, &dns].concat();
    up(&[init, &["--dns", "all"]].concat(), &settings, [&mut shop, &mut web])?;
    web.serve_nginx()?;
    let node = world.start_node()?;
    node.connected(&[&shop, &web])?;
    // It never confirms: the connection stays half open at the server.
    half.sh("iptables -A INPUT -p tcp --tcp-flags SYN,ACK SYN,ACK -j DROP")?;
    let idle = shop
        .netns
        .enter(|| Ok(TcpStream::connect(web.at(false, 80))?))?;
    busy([&shop, &web, &half], world.node(), &server)?;
    stand_still(&mut shop, &mut web, world.node())?;
    // What does not happen cannot be waited for.
    thread::sleep(SETTLED);
    let asked = shop.metrics()?.sum("outrider_dns_queries_total", &[]);
    ensure!(asked > 0.0, "the proxy's own dials were not tried");
    for pod in [&shop, &web] {
        let (found, undecided) = findings(pod)?;
        ensure!(found == 0.0, "{}: {found} findings: {:?}", pod.name, pod.logs());
        ensure!(undecided == 0.0, "{}: {undecided} undecided", pod.name);
    }
    drop((idle, node));
    Ok(())
}

#[test]
fn of_an_honest_pod_nothing_is_found() -> Result<()> {
    require_netns!();
    honest(&[], &[])
}

#[test]
fn of_an_honest_pod_behind_tproxy_nothing_is_found() -> Result<()> {
    require_netns!();
    honest(&["--mode", "tproxy"], &[("OUTRIDER_PROXY_CAPTURE", "tproxy")])
}
