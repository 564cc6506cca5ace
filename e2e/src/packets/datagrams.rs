//! Datagrams that policy allows: a stream after its verdict, and first packets, each beside a pod that has
//! no rule at all.

use std::{collections::BTreeMap, net::Ipv4Addr};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{PacketsArgs, sidecar};
use crate::{
    cpu,
    world::{CLIENT, POD, Running, Where, World},
};

/// Columns of the table of streams. A flood's cost counts, which does not depend on how busy the machine is
/// otherwise: CPU seconds per million datagrams of who sends and of the kernel, receiving included.
pub(super) const AFTER: &[&str] =
    &["Gbit/s", "sender+kernel s/M", "to no rules", "lost %", "sidecar CPU %"];
/// Columns of the table of first packets.
pub(super) const FIRST: &[&str] =
    &["median us", "to no rules", "p99 us", "unanswered", "sidecar us each"];

/// Datagrams a second of a stream: 1 Gbit/s.
const RATE: u32 = 125_000_000 / DATAGRAM;
/// The ways: how each is called, who sends, who gets it, and where.
const WAYS: [(&str, Where, Where, Ipv4Addr); 2] =
    [("in", Where::Client, Where::Pod, POD), ("out", Where::Pod, Where::Client, CLIENT)];
const SINK: u16 = 9998;
/// The column that a flood is judged by.
const COST: &str = "sender+kernel s/M";
/// Bytes of a datagram of a stream.
const DATAGRAM: u32 = 1400;
/// Where first packets go.
const ECHO: u16 = 7002;
/// How many of them.
const ASKED: u32 = 5000;

type Values = BTreeMap<String, f64>;

/// What stands in the pod.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Pod {
    NoRules,
    /// Redirect rules and a sidecar without a capability.
    Relay,
    /// The same with `NET_RAW`: packets are seen.
    Tap,
    /// The same with `NET_ADMIN` and queue rules, in Protect: packets are decided about.
    Queue,
}

const PODS: [(Pod, &str); 4] = [
    (Pod::NoRules, "no rules"),
    (Pod::Relay, "relay"),
    (Pod::Tap, "relay+tap"),
    (Pod::Queue, "relay+tap+queue"),
];

/// Streams in every pod.
pub(super) fn after(
    world: &World,
    args: &PacketsArgs,
    put: &mut dyn FnMut(&str, Values),
) -> Result<()> {
    let own = std::env::current_exe()?;
    for place in [Where::Client, Where::Pod] {
        world.output(place, "ip link set dev eth0 gso_max_segs 1")?;
    }
    let mut direct = BTreeMap::new();
    for (pod, name) in PODS {
        let sidecar = pod.start(world, args)?;
        for (way, from, to, at) in WAYS {
            let sink = format!("{} tool sink {at}:{SINK}", own.display());
            let send = format!(
                "{} tool flood {at}:{SINK} --payload {DATAGRAM} --seconds {}",
                own.display(),
                args.seconds
            );
            let reads = world.spawn_until_line(to, &format!("{sink} --read"))?;
            let stream = format!("1 Gbit/s {way}");
            let paced = format!("{send} --rate {RATE}");
            let mut values = stream_of(world, (from, &paced), to, sidecar.as_ref())
                .with_context(|| format!("{stream}, {name}"))?;
            compare(&mut values, &mut direct, (&stream, "Gbit/s"));
            put(&format!("{stream}, {name}"), values);
            drop(reads);
            let full = world.spawn_until_line(to, &sink)?;
            let stream = format!("flood {way}");
            let mut values = flood(world, (from, &send), args.seconds, sidecar.as_ref())
                .with_context(|| format!("{stream}, {name}"))?;
            compare(&mut values, &mut direct, (&stream, COST));
            put(&format!("{stream}, {name}"), values);
            drop(full);
        }
        pod.stop(world, args, sidecar)?;
    }
    Ok(())
}

/// Adds the ratio to what the same came to in the first pod.
fn compare(values: &mut Values, direct: &mut BTreeMap<String, f64>, (what, column): (&str, &str)) {
    let value = values.get(column).copied().unwrap_or_default();
    let first = *direct.entry(what.to_owned()).or_insert(value);
    values.insert("to no rules".into(), value / first);
}

/// Datagrams at a steady rate to somebody who reads them: how many arrive.
fn stream_of(
    world: &World,
    (from, command): (Where, &str),
    to: Where,
    sidecar: Option<&Running>,
) -> Result<Values> {
    let used = || sidecar.map_or(Ok(0), |sidecar| cpu::nanos(sidecar.pid()));
    let (before, read_before) = (used()?, datagrams_read(world, to)?);
    let told: Value = serde_json::from_str(&world.output(from, command)?)?;
    let (used, read) = (used()? - before, datagrams_read(world, to)? - read_before);
    let number = |name: &str| told[name].as_f64().context("the sender said nothing");
    let (sent, seconds) = (number("sent")?, number("seconds")?);
    let read = cpu::precise(read);
    Ok(Values::from([
        ("Gbit/s".into(), read * f64::from(DATAGRAM) * 8.0 / seconds / 1e9),
        ("lost %".into(), 100.0 - read * 100.0 / sent),
        ("sidecar CPU %".into(), cpu::precise(used) / 1e7 / seconds),
    ]))
}

/// Datagrams that programs in there have read so far, by the kernel's count (RFC 4113, udpInDatagrams).
fn datagrams_read(world: &World, place: Where) -> Result<u64> {
    let text = world.output(place, "cat /proc/net/snmp")?;
    let mut udp = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = udp.next().zip(udp.next()).context("no UDP counters")?;
    let mut both = names.split_whitespace().zip(values.split_whitespace());
    let found = both.find(|(name, _)| *name == "InDatagrams");
    Ok(found.context("no count of datagrams")?.1.parse()?)
}

/// Datagrams as fast as they can be sent, to a socket that is full: what each costs.
fn flood(
    world: &World,
    (from, command): (Where, &str),
    seconds: u32,
    sidecar: Option<&Running>,
) -> Result<Values> {
    let threads = cpu::softirq_threads()?;
    let kernel = || {
        let mut all = threads.iter().map(|pid| cpu::nanos(*pid));
        all.try_fold(0, |sum, one| Ok::<u64, anyhow::Error>(sum + one?))
    };
    let used = || sidecar.map_or(Ok(0), |sidecar| cpu::nanos(sidecar.pid()));
    let (before, kernel_before) = (used()?, kernel()?);
    let told: Value = serde_json::from_str(&world.output(from, command)?)?;
    let (used, kernel) = (used()? - before, kernel()? - kernel_before);
    let number = |name: &str| told[name].as_f64().context("the sender said nothing");
    let (sent, cpu_ns) = (number("sent")?, number("cpu_ns")?);
    let bits = sent * f64::from(DATAGRAM) * 8.0;
    Ok(Values::from([
        ("Gbit/s".into(), bits / number("seconds")? / 1e9),
        (COST.into(), (cpu_ns + cpu::precise(kernel)) / sent / 1e3),
        ("sidecar CPU %".into(), cpu::precise(used) / 1e7 / f64::from(seconds)),
    ]))
}

/// Questions in every pod.
pub(super) fn first(
    world: &World,
    args: &PacketsArgs,
    put: &mut dyn FnMut(&str, Values),
) -> Result<()> {
    let own = std::env::current_exe()?;
    let own = own.display();
    let echo = format!("{own} tool udp-echo {POD}:{ECHO}");
    let echo = world.spawn_until_line(Where::Pod, &echo)?;
    let mut direct = BTreeMap::new();
    for (pod, name) in PODS {
        let sidecar = pod.start(world, args)?;
        let used = || {
            sidecar
                .as_ref()
                .map_or(Ok(0), |sidecar| cpu::nanos(sidecar.pid()))
        };
        world.output(Where::Client, &format!("{own} tool first {POD}:{ECHO} 200"))?;
        let before = used()?;
        let text =
            world.output(Where::Client, &format!("{own} tool first {POD}:{ECHO} {ASKED}"))?;
        let used = cpu::precise(used()? - before) / 1e3;
        let told: Value = serde_json::from_str(&text)?;
        let number = |name: &str| told[name].as_f64().context("a figure is missing");
        let mut values = Values::from([
            ("median us".into(), number("median_ns")? / 1e3),
            ("p99 us".into(), number("p99_ns")? / 1e3),
            ("unanswered".into(), number("unanswered")?),
            ("sidecar us each".into(), used / f64::from(ASKED)),
        ]);
        ensure!(number("unanswered")? < f64::from(ASKED), "{name}: nothing was answered");
        compare(&mut values, &mut direct, ("first", "median us"));
        put(name, values);
        pod.stop(world, args, sidecar)?;
    }
    drop(echo);
    Ok(())
}

impl Pod {
    /// Rules, sidecar and policy; everything is in force when this returns.
    fn start(self, world: &World, args: &PacketsArgs) -> Result<Option<Running>> {
        let init = args.init.display();
        let (flags, capabilities, settings): (&str, &str, &[(&str, &str)]) = match self {
            Self::NoRules => return Ok(None),
            Self::Relay => ("", "-all", &[]),
            Self::Tap => ("", "-all,+net_raw", &[]),
            Self::Queue => (
                "--queue closed",
                "-all,+net_raw,+net_admin",
                &[("OUTRIDER_PROXY_QUEUE_RULE", "closed")],
            ),
        };
        world.output(Where::Pod, &format!("{init} apply {flags}"))?;
        let sidecar = sidecar::start(world, &args.outrider, capabilities, settings)?;
        sidecar::protect(world)?;
        Ok(Some(sidecar))
    }

    fn stop(self, world: &World, args: &PacketsArgs, sidecar: Option<Running>) -> Result<()> {
        if self != Self::NoRules {
            drop(sidecar);
            let init = args.init.display();
            world.output(Where::Pod, &format!("{init} cleanup"))?;
        }
        Ok(())
    }
}
