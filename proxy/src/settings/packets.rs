//! What is settled about packets: who looks at them, who decides about them.

use std::{str::FromStr, time::Duration};

use outrider_policy::IpNet;

use super::Reader;

/// How traffic is put before the listeners.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CaptureChoice {
    /// Either way, as each connection comes; by TPROXY only with the capability for it.
    Auto,
    /// The kernel rewrites the destination.
    Redirect,
    /// The kernel hands over connections to foreign addresses. An error without the capability for it.
    Tproxy,
    /// Not at all: there are no listeners, and connections are seen as packets or not at all.
    None,
}

impl FromStr for CaptureChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "redirect" => Ok(Self::Redirect),
            "tproxy" => Ok(Self::Tproxy),
            "none" => Ok(Self::None),
            _ => Err("one of auto, redirect, tproxy, none".to_owned()),
        }
    }
}

/// How packets are dealt with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PacketSettings {
    /// What is asked for.
    pub choice: PacketsChoice,
    /// What the pod's queue rules do when nobody answers; `None` if there are no such rules.
    pub queue_rule: Option<QueueRule>,
    /// TCP ports that the redirect rules leave out, at most [`MAX_UNCAPTURED`]: their segments are seen
    /// as packets.
    pub uncaptured: Vec<u16>,
    /// Networks that they leave out, at most [`MAX_UNCAPTURED`]: connections to and from there are no
    /// way past the proxy.
    pub uncaptured_networks: Vec<IpNet>,
    /// Time between two looks at the pod's sockets, where nothing else may be seen: 0.1 s to 1 min.
    pub observe_interval: Duration,
}

impl PacketSettings {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let networks = reader.optional::<Networks>("OUTRIDER_PROXY_UNCAPTURED_NETWORKS");
        Self {
            choice: reader.or("OUTRIDER_PROXY_PACKETS", PacketsChoice::Auto),
            queue_rule: reader.optional("OUTRIDER_PROXY_QUEUE_RULE"),
            observe_interval: interval(reader),
            uncaptured: ports(reader, "OUTRIDER_PROXY_UNCAPTURED_PORTS"),
            uncaptured_networks: networks.map_or_else(Vec::new, |networks| networks.0),
        }
    }
}

/// A list of ports, none unless it is set.
pub(super) fn ports(reader: &mut Reader<'_>, key: &str) -> Vec<u16> {
    reader
        .optional::<Ports>(key)
        .map_or_else(Vec::new, |ports| ports.0)
}

fn interval(reader: &mut Reader<'_>) -> Duration {
    const KEY: &str = "OUTRIDER_PROXY_OBSERVE_INTERVAL";
    let interval = reader.span(KEY, Duration::from_secs(1));
    if !(Duration::from_millis(100)..=Duration::from_secs(60)).contains(&interval) {
        reader
            .errors
            .push(format!("{KEY}={interval:?}: between 100ms and 1m"));
    }
    interval
}

/// What is done with packets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PacketsChoice {
    /// Whatever the process's rights and the pod's rules allow.
    Auto,
    /// Nothing.
    Off,
    /// They are seen. An error without the capability for it.
    Tap,
    /// They are seen and decided about. An error without the capabilities for it.
    Queue,
}

impl FromStr for PacketsChoice {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            "tap" => Ok(Self::Tap),
            "queue" => Ok(Self::Queue),
            _ => Err("one of auto, off, tap, queue"),
        }
    }
}

/// What the pod's queue rules do with a packet when no proxy answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum QueueRule {
    /// Let it pass.
    Open,
    /// Drop it.
    Closed,
}

impl QueueRule {
    /// The closed label of logs and the status.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }
}

impl FromStr for QueueRule {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "open" => Ok(Self::Open),
            "closed" => Ok(Self::Closed),
            _ => Err("one of open, closed"),
        }
    }
}

/// Ports joined by commas.
struct Ports(Vec<u16>);

impl FromStr for Ports {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WANTED: &str = "up to 64 ports like 22,5432";
        let ports = text.split(',').map(|word| word.trim().parse::<u16>());
        let mut ports: Vec<_> = ports.collect::<Result<_, _>>().map_err(|_number| WANTED)?;
        ports.sort_unstable();
        ports.dedup();
        if ports.len() > MAX_UNCAPTURED || ports.contains(&0) {
            Err(WANTED)
        } else {
            Ok(Self(ports))
        }
    }
}

/// Networks joined by commas.
struct Networks(Vec<IpNet>);

impl FromStr for Networks {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WANTED: &str = "up to 64 networks like 10.96.0.0/12,fd00::/8";
        let networks = text.split(',').map(|word| word.trim().parse::<IpNet>());
        let networks: Vec<_> = networks
            .collect::<Result<_, _>>()
            .map_err(|_network| WANTED)?;
        if networks.len() > MAX_UNCAPTURED { Err(WANTED) } else { Ok(Self(networks)) }
    }
}

/// Ports that the redirect rules may leave out, as many as a tap's filter may name.
pub const MAX_UNCAPTURED: usize = outrider_capture::MAX_FILTER_PORTS;
