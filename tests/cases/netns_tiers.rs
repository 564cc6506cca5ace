//! Each tier of docs/packets.md with the capabilities that the page names and no other; each capability
//! taken away: the proxy falls to the tier that the page says, tells why, and goes on.

use std::{
    fs,
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use outrider_tests::{Pod, World, require_netns, until};

/// What a proxy may take to see and say something.
const TOLD: Duration = Duration::from_secs(30);
/// An echo that takes longer does not come.
const ECHO: Duration = Duration::from_secs(3);
const PORT: u16 = 4711;

/// Capabilities by name, with their numbers in linux/capability.h.
const NET_ADMIN: (&str, u32) = ("net_admin", 12);
const NET_RAW: (&str, u32) = ("net_raw", 13);

/// One row of the page's table.
struct Tier {
    label: &'static str,
    /// The redirect rules are installed.
    relay: bool,
    /// And those of the queue.
    queue: bool,
    capabilities: &'static [(&'static str, u32)],
    /// Where it falls without each of them, in their order.
    without: &'static [&'static str],
}

const TIERS: [Tier; 5] = [
    Tier { label: "relay", relay: true, queue: false, capabilities: &[], without: &[] },
    Tier {
        label: "relay+tap",
        relay: true,
        queue: false,
        capabilities: &[NET_RAW],
        without: &["relay"],
    },
    Tier {
        label: "relay+tap+queue",
        relay: true,
        queue: true,
        capabilities: &[NET_RAW, NET_ADMIN],
        without: &["relay+queue", "relay+tap"],
    },
    Tier {
        label: "tap",
        relay: false,
        queue: false,
        capabilities: &[NET_RAW],
        without: &["observe"],
    },
    Tier { label: "observe", relay: false, queue: false, capabilities: &[], without: &[] },
];

impl Tier {
    /// A pod as the tier wants it, with a web server and an echo of datagrams.
    fn pod(&self, world: &mut World, name: &str) -> Result<Pod> {
        let mut pod = world.pod(name)?;
        pod.serve_nginx()?;
        if self.relay {
            pod.init_with(if self.queue { &["--queue", "closed"] } else { &[] })?;
        }
        Ok(pod)
    }

    fn start(&self, pod: &mut Pod, capabilities: &[(&str, u32)]) -> Result<()> {
        let set: String = capabilities
            .iter()
            .map(|(name, _)| format!(",+{name}"))
            .collect();
        let mut settings = Vec::new();
        if !self.relay {
            settings.push(("OUTRIDER_PROXY_CAPTURE", "none"));
        }
        if self.queue {
            settings.push(("OUTRIDER_PROXY_QUEUE_RULE", "closed"));
        }
        pod.start_proxy_as(&format!("-all{set}"), &settings)
    }
}

/// Whether a datagram to the pod's echo comes back, over either family.
fn echoes(from: &Pod, pod: &Pod) -> Result<[bool; 2]> {
    let mut back = [false; 2];
    for (v6, back) in [false, true].into_iter().zip(&mut back) {
        let at: SocketAddr = pod.at(v6, PORT);
        let server = pod.netns.enter(|| Ok(UdpSocket::bind(at)?))?;
        let any = if v6 { "[::]:0" } else { "0.0.0.0:0" };
        let client = from.netns.enter(|| Ok(UdpSocket::bind(any)?))?;
        for socket in [&server, &client] {
            socket.set_read_timeout(Some(ECHO))?;
        }
        client.send_to(b"anybody", at)?;
        let mut buffer = [0; 64];
        let Ok((length, asker)) = server.recv_from(&mut buffer) else { continue };
        server.send_to(&buffer[..length], asker)?;
        *back = client.recv_from(&mut buffer).is_ok();
    }
    Ok(back)
}

/// What the tier of that name is for, shown; and that the proxy still runs.
fn does_its_job(pod: &mut Pod, shop: &Pod, tier: &Tier, label: &str) -> Result<()> {
    let status = pod.status()?;
    ensure!(status["tier"] == label, "{} in place of {label}", status["tier"]);
    let metrics = pod.metrics()?;
    ensure!(metrics.sum("outrider_tier", &[("tier", label)]) == 1.0);
    ensure!(metrics.sum("outrider_tier", &[]) == 1.0, "one tier at a time");
    for v6 in [false, true] {
        shop.fetch(&format!("http://{}/", pod.at(v6, 80)))?;
    }
    // Closed rules and nobody who reads the queue: what is not TCP does not pass.
    let reads = label.ends_with("queue");
    let passes = !tier.queue || reads;
    ensure!(echoes(shop, pod)? == [passes; 2], "datagrams pass: {passes}");
    until(&format!("what {label} sees"), TOLD, || {
        let metrics = pod.metrics()?;
        let flows = metrics.sum("outrider_flows_opened_total", &[]);
        ensure!(flows >= 2.0, "{flows} flows");
        let seen = metrics.sum("outrider_packets_total", &[("kind", "udp")]);
        let looks = label.contains("tap") || reads;
        ensure!((seen >= 2.0) == looks, "{seen} datagrams seen");
        let decided = metrics.sum("outrider_queue_packets_total", &[("outcome", "decided")]);
        ensure!((decided >= 2.0) == reads, "{decided} packets decided about");
        Ok(())
    })?;
    pod.proxy()?.check_running()
}

/// The process has these capabilities and can get no other.
fn has_exactly(pod: &mut Pod, capabilities: &[(&str, u32)]) -> Result<()> {
    let want: u64 = capabilities.iter().map(|(_, number)| 1_u64 << number).sum();
    let status = fs::read_to_string(format!("/proc/{}/status", pod.proxy()?.pid()))?;
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let line = status.lines().find_map(|line| line.strip_prefix(set));
        let mask = line
            .and_then(|line| line.strip_prefix(":\t"))
            .context(set)?;
        ensure!(u64::from_str_radix(mask, 16)? == want, "{set} is {mask}, not {want:x}");
    }
    Ok(())
}

#[test]
fn each_tier_does_its_job_with_what_the_page_names_and_nothing_else() -> Result<()> {
    require_netns!();
    for tier in &TIERS {
        let mut world = World::new()?;
        let (mut pod, shop) = (tier.pod(&mut world, "web")?, world.pod("shop")?);
        tier.start(&mut pod, tier.capabilities)?;
        has_exactly(&mut pod, tier.capabilities).context(tier.label)?;
        does_its_job(&mut pod, &shop, tier, tier.label).context(tier.label)?;
        let log = fs::read_to_string(pod.proxy()?.log())?;
        let warnings: Vec<_> = log.lines().filter(|line| line.contains("WARN")).collect();
        ensure!(warnings.is_empty(), "{}: {warnings:#?}", tier.label);
    }
    Ok(())
}

#[test]
fn without_a_capability_the_proxy_falls_to_the_tier_that_the_page_says_and_tells_why() -> Result<()>
{
    require_netns!();
    for tier in &TIERS {
        for (missing, label) in tier.capabilities.iter().zip(tier.without) {
            let mut world = World::new()?;
            let (mut pod, shop) = (tier.pod(&mut world, "web")?, world.pod("shop")?);
            let left: Vec<_> = tier
                .capabilities
                .iter()
                .filter(|one| *one != missing)
                .copied()
                .collect();
            tier.start(&mut pod, &left)?;
            let case = format!("{} without {}", tier.label, missing.0);
            has_exactly(&mut pod, &left).context(case.clone())?;
            does_its_job(&mut pod, &shop, tier, label).context(case.clone())?;
            let status = pod.status()?;
            let reasons = status["rights"]["cannot"].to_string();
            let name = missing.0.to_uppercase();
            ensure!(reasons.contains(&name), "{case}: it says {reasons}");
            let log = fs::read_to_string(pod.proxy()?.log())?;
            ensure!(log.contains(&format!("needs {name}")), "{case}: {log}");
        }
    }
    Ok(())
}

#[test]
fn what_is_asked_for_by_name_and_cannot_be_had_stops_the_start() -> Result<()> {
    require_netns!();
    for (asked, capabilities, lacks) in [
        ("tap", "-all", "NET_RAW"),
        ("queue", "-all,+net_raw", "NET_ADMIN"),
        ("queue", "-all,+net_admin", "NET_RAW"),
    ] {
        let mut world = World::new()?;
        let mut pod = world.pod("web")?;
        let started = pod.start_proxy_as(capabilities, &[("OUTRIDER_PROXY_PACKETS", asked)]);
        let error = format!("{:#}", started.err().context("it started")?);
        ensure!(error.contains(lacks), "{asked} with {capabilities}: {error}");
    }
    Ok(())
}

/// Packet sockets of the proxy's user in the pod.
fn taps(pod: &Pod) -> Result<usize> {
    let all = pod
        .netns
        .enter(|| Ok(fs::read_to_string("/proc/thread-self/net/packet")?))?;
    let user = outrider_model::names::PROXY_UID.to_string();
    let of_user = |line: &&str| line.split_whitespace().nth(7) == Some(&user);
    Ok(all.lines().filter(of_user).count())
}

#[test]
fn ready_means_that_requests_and_packets_are_taken() -> Result<()> {
    require_netns!();
    let mut world = World::new()?;
    let [_, tier, ..] = &TIERS;
    let mut pod = tier.pod(&mut world, "early")?;
    for _ in 0..5 {
        tier.start(&mut pod, tier.capabilities)?;
        until("the proxy to be ready", TOLD, || pod.healthy("ready"))?;
        let requests = std::os::unix::net::UnixDatagram::unbound()?;
        let socket = pod.mailbox.join(outrider_model::names::DP_LISTEN);
        requests.connect(&socket).context("requests are taken")?;
        ensure!(taps(&pod)? > 0, "packets are looked at");
        pod.kill_proxy()?;
    }
    Ok(())
}
