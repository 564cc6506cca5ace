//! Meters by real packets: floods and scans, reported once, stopped in Protect where they may be.

use std::{
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use outrider_tests::{Node, Pod, World, cli::Threat, require_netns, scene::REPORTED, until};

/// Limits that a test reaches quickly on a slow machine.
const SETTINGS: [(&str, &str); 3] = [
    ("OUTRIDER_PROXY_QUEUE_RULE", "closed"),
    ("OUTRIDER_PROXY_METER_SYN_FLOOD", "40/10/30"),
    ("OUTRIDER_PROXY_METER_ICMP_FLOOD", "40/5/30"),
];

/// A server behind a proxy that sees and decides about packets, its client, and their node.
struct Scene {
    web: Pod,
    shop: Pod,
    node: Node,
    _world: World,
}

impl Scene {
    fn build() -> Result<Self> {
        let mut world = World::new()?;
        let (mut web, mut shop) = (world.pod("web")?, world.pod("shop")?);
        web.init_with(&["--queue", "closed"])?;
        web.start_proxy_as("-all,+net_raw,+net_admin", &SETTINGS)?;
        web.serve_nginx()?;
        shop.up()?;
        let node = world.start_node()?;
        node.connected(&[&web, &shop])?;
        Ok(Self { web, shop, node, _world: world })
    }

    /// Connections from shop to web, one after the other; how many were reset or refused.
    fn connect(&self, to: &[SocketAddr]) -> Result<usize> {
        self.shop.netns.enter(|| {
            let mut refused = 0;
            for to in to {
                let Ok(stream) = TcpStream::connect_timeout(to, Duration::from_secs(2)) else {
                    refused += 1;
                    continue;
                };
                stream.set_read_timeout(Some(Duration::from_millis(100)))?;
                refused += usize::from(is_reset(&stream)?);
            }
            Ok(refused)
        })
    }

    /// The one threat of a number that is reported of web.
    fn threat(&self, id: u32) -> Result<Threat> {
        until("the threat", REPORTED, || {
            let mut threats = self.node.threats()?;
            threats.retain(|threat| threat.id == id && threat.workload == "default/web");
            match &threats[..] {
                [threat] => Ok(threat.clone()),
                other => bail!("{other:#?}"),
            }
        })
    }

    /// Shop calls and pings web until both are rules, and then nothing else may be.
    fn protect(&self) -> Result<()> {
        let url = format!("http://{}/", self.web.at(false, 80));
        for _ in 0..4 {
            self.shop.fetch(&url)?;
        }
        for _ in 0..6 {
            self.shop.sh(&self.ping(1, "1"))?;
        }
        until("the rules", REPORTED, || {
            let rules = self.node.rules()?;
            for ports in ["tcp/80", "icmp"] {
                let found = rules
                    .iter()
                    .any(|rule| rule.from == "nv.shop.default" && rule.ports == ports);
                ensure!(found, "no {ports} among {rules:#?}");
            }
            Ok(())
        })?;
        self.node.set_mode("web", "protect")?;
        until("Protect", REPORTED, || {
            let workloads = self.node.workloads()?;
            let web = workloads
                .iter()
                .find(|workload| workload.name == "default/web")
                .context("no web")?;
            ensure!(web.mode == "protect", "{web:?}");
            Ok(())
        })
    }

    fn ping(&self, count: u32, pause: &str) -> String {
        format!("ping -q -c {count} -i {pause} -W 1 {} || true", self.web.ip(false))
    }
}

/// Whether a connection was reset rather than kept.
fn is_reset(stream: &TcpStream) -> Result<bool> {
    match stream.peek(&mut [0]) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(false),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(true),
        Err(error) => Err(error.into()),
    }
}

#[test]
fn floods_are_reported_and_in_protect_they_are_stopped() -> Result<()> {
    require_netns!();
    let scene = Scene::build()?;
    let http = scene.web.at(false, 80);
    scene.protect()?;
    let refused = scene.connect(&[http; 60])?;
    ensure!((15..=25).contains(&refused), "{refused} of 60 refused, 40 are the limit");
    let threat = scene.threat(1001)?;
    ensure!((&*threat.name, &*threat.action) == ("TCP.SYN.Flood", "block"), "{threat:?}");
    ensure!(threat.client_ip == scene.shop.ip(false).to_string(), "{threat:?}");
    let refused = scene
        .web
        .metrics()?
        .sum("outrider_flows_refused_total", &[("reason", "syn-flood")]);
    ensure!(refused >= 15.0, "{refused} counted");
    let said = scene.shop.sh(&scene.ping(100, "0.01"))?;
    let lost = said
        .split(", ")
        .find_map(|part| part.strip_suffix("% packet loss"))
        .with_context(|| said.clone())?
        .parse::<f64>()?;
    ensure!((40.0..=65.0).contains(&lost), "{lost} % lost, 40 of 100 are the limit: {said}");
    let threat = scene.threat(1002)?;
    ensure!((&*threat.name, &*threat.action) == ("ICMP.Flood", "block"), "{threat:?}");
    Ok(())
}

#[test]
fn a_scan_is_reported_and_nothing_is_refused_in_discover() -> Result<()> {
    require_netns!();
    let scene = Scene::build()?;
    let ports: Vec<_> = (9_000..9_060)
        .map(|port| scene.web.at(false, port))
        .collect();
    scene.connect(&ports)?;
    let threat = scene.threat(3001)?;
    ensure!((&*threat.name, &*threat.action) == ("Network.Scan", "alert"), "{threat:?}");
    // So many connections are a flood too, and nothing more comes of it here.
    let threat = scene.threat(1001)?;
    ensure!(threat.action == "alert", "{threat:?}");
    let refused = scene.connect(&[scene.web.at(false, 80); 60])?;
    ensure!(refused == 0, "{refused} refused");
    Ok(())
}
