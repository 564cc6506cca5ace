//! A pod whose packets wait in the queue, and its peers, which have no proxy.

use std::{
    net::{SocketAddr, UdpSocket},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    time::Duration,
};

use anyhow::{Result, bail, ensure};
use outrider_tests::{
    Node, Pod, World,
    pod::talk::{Kind, Talk},
    until,
};

/// A port that no application has by itself.
pub(crate) const PORT: u16 = 7_100;
/// Sessions with an unknown application that make a rule; here one an address.
pub(crate) const ADDRESSES: u8 = 5;
/// More than a packet of the link holds.
const FRAGMENTED: usize = 4_000;
/// What is sent, and how large it is.
pub(crate) const KINDS: [(Kind, usize); 7] = [
    (Kind::Udp(PORT), 64),
    (Kind::Udp(PORT + 1), FRAGMENTED),
    (Kind::Ping, 56),
    (Kind::Ping, FRAGMENTED),
    (Kind::Sctp(PORT + 2), 64),
    (Kind::Ip(47), 64),
    (Kind::Ip(253), 64),
];

/// Protocols and ports as rules and conversations name them, of both families.
pub(crate) fn labels() -> impl Iterator<Item = (String, u16)> {
    KINDS
        .into_iter()
        .flat_map(|(kind, _)| [false, true].map(|v6| (kind.label(v6), kind.port())))
}

/// Dropped in this order: what runs in the pods, the bridge, then the world around them.
pub(crate) struct Stage {
    pub(crate) web: Pod,
    pub(crate) shop: Pod,
    pub(crate) intruder: Pod,
    /// Nobody learned that web calls it. Not the intruder: most protocols have nothing that tells an answer from a
    /// question.
    pub(crate) far: Pod,
    pub(crate) node: Node,
    /// Ports that nobody answers on, but that are open.
    _open: Vec<UdpSocket>,
    _world: World,
}

impl Stage {
    /// Plays a case on a stage of its own; when it fails, the end of the proxy's log is shown.
    pub(crate) fn play(rule: &str, case: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let mut stage = Self::build(rule)?;
        let outcome = catch_unwind(AssertUnwindSafe(|| case(&mut stage)));
        if !matches!(outcome, Ok(Ok(()))) {
            for log in stage.web.logs()? {
                let text = std::fs::read_to_string(&log)?;
                let skip = text.lines().count().saturating_sub(20);
                let tail: Vec<_> = text.lines().skip(skip).collect();
                eprintln!("--- {}\n{}", log.display(), tail.join("\n"));
            }
        }
        drop(stage);
        outcome.unwrap_or_else(|panic| resume_unwind(panic))
    }

    fn build(rule: &str) -> Result<Self> {
        let mut world = World::new()?;
        let (mut web, shop) = (world.pod("web")?, world.pod("shop")?);
        let (intruder, far) = (world.pod("intruder")?, world.pod("far")?);
        for number in 1..ADDRESSES {
            for v6 in [false, true] {
                shop.add_address(address(&shop, v6, number).ip())?;
            }
        }
        web.init_with(&["--queue", rule])?;
        start_proxy(&mut web, rule)?;
        let node = world.start_node()?;
        node.connected(&[&web])?;
        let mut open = Vec::new();
        for pod in [&web, &far] {
            for port in [PORT, PORT + 1] {
                open.push(pod.netns.enter(|| Ok(UdpSocket::bind(("::", port))?))?);
            }
        }
        let stage = Self { web, shop, intruder, far, node, _open: open, _world: world };
        until("the queue to be read", Duration::from_secs(20), || {
            let metrics = stage.web.metrics()?;
            let tier = metrics.sum("outrider_tier", &[("tier", "relay+tap+queue")]);
            ensure!(tier == 1.0, "another tier");
            // Verdicts from before the policy are taken back after it is in force.
            let [policy, packets] = ["outrider_policy_version", "outrider_packets_policy_version"]
                .map(|gauge| metrics.sum(gauge, &[]));
            ensure!(policy == packets, "packets are at policy {packets} of {policy}");
            Ok(())
        })?;
        Ok(stage)
    }

    /// Starts web's proxy again.
    pub(crate) fn start_proxy(&mut self, rule: &str) -> Result<()> {
        start_proxy(&mut self.web, rule)
    }

    /// Packets of the queue that came to that end, by web's own count.
    pub(crate) fn queue(&self, outcome: &str) -> Result<f64> {
        let metrics = self.web.metrics()?;
        Ok(metrics.sum("outrider_queue_packets_total", &[("outcome", outcome)]))
    }

    /// Packets that the kernel dropped because the queue was full or the socket had no room: its own count.
    pub(crate) fn dropped(&self) -> Result<f64> {
        let table = self.web.sh("cat /proc/net/netfilter/nfnetlink_queue")?;
        let columns: Vec<f64> = table
            .split_ascii_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        let [_, _, _, _, _, full, lost, ..] = columns[..] else { bail!("another table: {table}") };
        Ok(full + lost)
    }
}

fn start_proxy(web: &mut Pod, rule: &str) -> Result<()> {
    web.start_proxy_as("-all,+net_raw,+net_admin", &[("OUTRIDER_PROXY_QUEUE_RULE", rule)])
}

/// An address of a pod, the first being its own, with a port that tells its flows apart.
fn address(pod: &Pod, v6: bool, number: u8) -> SocketAddr {
    let own = pod.at(v6, 6_000 + u16::from(number));
    match (own.ip(), number) {
        (_, 0) => own,
        (std::net::IpAddr::V4(ip), _) => {
            let [a, b, c, d] = ip.octets();
            SocketAddr::new([a, b, c, d + 100 + number].into(), own.port())
        }
        (std::net::IpAddr::V6(ip), _) => {
            let mut octets = ip.octets();
            octets[14] = number;
            SocketAddr::new(octets.into(), own.port())
        }
    }
}

/// A flow of each kind from each of a client's first addresses, of both families.
pub(crate) fn talks(client: &Pod, server: &Pod, addresses: u8) -> Result<Vec<Talk>> {
    let mut talks = Vec::new();
    for v6 in [false, true] {
        for number in 0..addresses {
            for (at, (kind, size)) in KINDS.into_iter().enumerate() {
                let mut from = address(client, v6, number);
                from.set_port(from.port() + 100 * u16::try_from(at)?);
                talks.push(Talk::open((client, from), server, kind, size)?);
            }
        }
    }
    Ok(talks)
}

/// Each sends a packet; returns the names of those that arrive within `patience`.
pub(crate) fn round<T: AsRef<Talk>>(talks: &[T], patience: Duration) -> Result<Vec<String>> {
    let sent: Vec<_> = talks
        .iter()
        .map(|talk| Ok((talk.as_ref(), talk.as_ref().send()?)))
        .collect::<Result<_>>()?;
    let mut missing = sent;
    let mut arrived = Vec::new();
    let waited = until("every packet", patience, || {
        let mut still = Vec::new();
        for (talk, token) in missing.drain(..) {
            if talk.has_arrived(&token)? {
                arrived.push(talk.name.clone());
            } else {
                still.push((talk, token));
            }
        }
        missing = still;
        ensure!(missing.is_empty(), "{} are missing", missing.len());
        Ok(())
    });
    drop(waited);
    Ok(arrived)
}

/// Fails unless a packet of each arrives; tries again until `within` has passed.
pub(crate) fn passes<T: AsRef<Talk>>(when: &str, talks: &[T], within: Duration) -> Result<()> {
    until(when, within, || {
        let arrived = round(talks, Duration::from_millis(200))?;
        let missing: Vec<_> = talks
            .iter()
            .map(|talk| &talk.as_ref().name)
            .filter(|name| !arrived.contains(name))
            .collect();
        ensure!(missing.is_empty(), "{when}: missing: {missing:#?}");
        Ok(())
    })
}
