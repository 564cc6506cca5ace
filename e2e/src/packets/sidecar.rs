//! The sidecar in the pod, with the capabilities that a tier takes.

use std::{
    fs,
    os::unix::{fs::chown, net::UnixDatagram},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    proxies::{OUTRIDER_UID, readable},
    world::{POD, Running, Where, World},
};

/// Its mailbox, in the world's directory.
const CTRL: &str = "packets-ctrl";
/// Where it tells how it is.
const HEALTH: &str = "http://127.0.0.1:15120";
/// How long it may take until it is ready.
const START: Duration = Duration::from_secs(10);

/// A scrape of its metrics.
pub(super) struct Metrics(String);

impl Metrics {
    /// The sum of the samples whose name begins so.
    pub(super) fn sum(&self, name: &str) -> f64 {
        let samples = self.0.lines().filter(|line| line.starts_with(name));
        samples
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }
}

/// Starts it with capabilities as setpriv names them, `-all,+net_raw`, and waits until it is ready.
pub(super) fn start(
    world: &World,
    binary: &Path,
    capabilities: &str,
    settings: &[(&str, &str)],
) -> Result<Running> {
    let binary = readable(world, binary)?;
    let ctrl = world.dir.join(CTRL);
    fs::create_dir_all(&ctrl)?;
    chown(&ctrl, Some(OUTRIDER_UID), Some(OUTRIDER_UID))?;
    let settings: Vec<_> = settings
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let sets: Vec<_> = ["inh-caps", "ambient-caps", "bounding-set"]
        .iter()
        .map(|set| format!("--{set}={capabilities}"))
        .collect();
    let command = format!(
        "env OUTRIDER_CTRL_DIR={} {} setpriv --reuid {OUTRIDER_UID} --regid {OUTRIDER_UID} \
         --clear-groups --no-new-privs {} {binary}",
        ctrl.display(),
        settings.join(" "),
        sets.join(" ")
    );
    let running = world.spawn(Where::Pod, &command, "sidecar")?;
    let end = Instant::now() + START;
    while Instant::now() < end {
        let asked = format!("curl -sf {HEALTH}/healthz/ready");
        if world.output(Where::Pod, &asked).is_ok() {
            return Ok(running);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let log = fs::read_to_string(world.dir.join("sidecar.log")).unwrap_or_default();
    bail!("the sidecar is not ready after {START:?}: {log}")
}

/// Puts the pod in Protect, with rules that allow all TCP and UDP of version 4, in and out.
pub(super) fn protect(world: &World) -> Result<()> {
    let mac = world.output(Where::Pod, "cat /sys/class/net/eth0/address")?;
    let mac = mac.trim();
    let rule = |id: u32, proto: u32, inbound: bool| {
        let pod = POD.to_string();
        let (anybody, last) = ("0.0.0.0", "255.255.255.255");
        let (client, server) = if inbound {
            ([anybody, last], [pod.as_str(), &pod])
        } else {
            ([pod.as_str(), &pod], [anybody, last])
        };
        json!({ "id": id, "sip": client[0], "sipr": client[1], "dip": server[0], "dipr": server[1],
                "port": 0, "portr": 65_535, "proto": proto, "action": 2, "ingress": inbound })
    };
    let rules = [rule(1, 6, true), rule(2, 6, false), rule(3, 17, true), rule(4, 17, false)];
    let requests = [
        json!({ "ctrl_add_mac": { "iface": "eth0", "mac": mac, "ucmac": "", "bcmac": "",
                "oldmac": "", "pmac": "", "pips": null } }),
        json!({ "ctrl_cfg_mac": { "macs": [mac], "tap": false } }),
        json!({ "ctrl_cfg_policy": { "cmd": 1, "flag": 3, "defact": 7, "dir": 3, "mac": [mac],
                "rules": rules, "grace": false } }),
    ];
    let ctrl = world.dir.join(CTRL);
    let own = ctrl.join("dp_client.bench");
    fs::remove_file(&own).ok();
    let socket = UnixDatagram::bind(&own)?;
    let proxy = ctrl.join("dp_listen.sock");
    for request in requests {
        socket.send_to(request.to_string().as_bytes(), &proxy)?;
    }
    let end = Instant::now() + START;
    while Instant::now() < end {
        if metrics(world)?.sum("outrider_policy_rules") >= 1.0 {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("no policy is in force after {START:?}")
}

/// Its metrics as they are now.
pub(super) fn metrics(world: &World) -> Result<Metrics> {
    let text = world.output(Where::Pod, &format!("curl -sf {HEALTH}/metrics"));
    text.map(Metrics).context("the sidecar's metrics")
}
