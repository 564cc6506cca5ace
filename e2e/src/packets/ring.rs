//! Small packets as fast as this machine sends them: what it costs to look at each, and whether the
//! losses that are counted are those that happened.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::{PacketsArgs, sidecar};
use crate::{
    cpu,
    world::{POD, Running, Where, World},
};

/// Columns of the table. Times are CPU seconds per million packets; `unaccounted` is what was sent
/// and is neither among the shown nor among the lost.
pub(super) const COLUMNS: &[&str] =
    &["sent/s", "sent", "shown", "lost", "unaccounted", "reader s/M", "sender+kernel s/M"];

/// Where the packets go.
const PORT: u16 = 9999;
/// Bytes of payload, which make a frame of 64 bytes.
const PAYLOAD: usize = 22;
const FRAME: usize = 64;
/// A queue's number.
const QUEUE: u16 = 5;
/// What is still on its way to a reader arrives within this.
const SETTLE: Duration = Duration::from_millis(1500);
/// How long a reader is stopped, and when.
const STOPPED: Duration = Duration::from_millis(300);

type Values = BTreeMap<String, f64>;

/// Who looks.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Who {
    Nothing,
    Tap,
    /// The same, stopped for a while in the middle: losses that must be counted.
    TapStopped,
    /// The sidecar in its tier `tap`: every packet goes through its engine into a session.
    Outrider,
    Tcpdump,
    /// Every packet waits for a verdict.
    QueueForAll,
}

const ALL: [(Who, &str); 6] = [
    (Who::Nothing, "nothing"),
    (Who::Tap, "tap"),
    (Who::TapStopped, "tap, stopped"),
    (Who::Outrider, "outrider, tap"),
    (Who::Tcpdump, "tcpdump"),
    (Who::QueueForAll, "queue for all"),
];

/// Measures each reader once.
pub(super) fn run(
    world: &World,
    args: &PacketsArgs,
    put: &mut dyn FnMut(&str, Values),
) -> Result<()> {
    // Nothing but the flood may cross: its sum has to come out even.
    for place in [Where::Client, Where::Pod] {
        world.output(place, "sysctl -qw net.ipv6.conf.all.disable_ipv6=1")?;
    }
    world.output(Where::Client, "ip link set dev eth0 gso_max_segs 1")?;
    world.output(Where::Client, &format!("ping -q -c 1 {POD}"))?;
    let own = std::env::current_exe()?;
    let sink = format!("{} tool sink {POD}:{PORT}", own.display());
    let sink = world.spawn_until_line(Where::Pod, &sink)?;
    for (who, name) in ALL {
        let values = measure(world, args, who).with_context(|| name.to_owned())?;
        put(name, values);
    }
    drop(sink);
    Ok(())
}

fn measure(world: &World, args: &PacketsArgs, who: Who) -> Result<Values> {
    queue_rules(world, who == Who::QueueForAll)?;
    let reader = start(world, args, who)?;
    let threads = cpu::softirq_threads()?;
    let kernel = || {
        threads
            .iter()
            .try_fold(0, |sum, pid| Ok::<u64, anyhow::Error>(sum + cpu::nanos(*pid)?))
    };
    let used = || {
        reader
            .as_ref()
            .map_or(Ok(0), |reader| cpu::nanos(reader.pid()))
    };
    let (before, kernel_before) = (used()?, kernel()?);
    let own = std::env::current_exe()?;
    let flood = format!(
        "{} tool flood {POD}:{PORT} --payload {PAYLOAD} --seconds {}",
        own.display(),
        args.seconds
    );
    let sent: Value = std::thread::scope(|scope| {
        let sender = scope.spawn(|| world.output(Where::Client, &flood));
        if who == Who::TapStopped
            && let Some(reader) = &reader
        {
            std::thread::sleep(Duration::from_secs(1));
            reader.signal(Signal::SIGSTOP)?;
            std::thread::sleep(STOPPED);
            reader.signal(Signal::SIGCONT)?;
        }
        let Ok(text) = sender.join() else { bail!("the sender's thread has panicked") };
        Ok(serde_json::from_str(&text?)?)
    })?;
    std::thread::sleep(SETTLE);
    let (used, kernel) = (used()? - before, kernel()? - kernel_before);
    let told = reader
        .map(|reader| counts(world, who, reader))
        .transpose()?;
    queue_rules(world, false)?;
    let number = |name: &str| sent[name].as_f64().context("the sender said nothing");
    let (packets, seconds, cpu_ns) = (number("sent")?, number("seconds")?, number("cpu_ns")?);
    let mut values = Values::from([
        ("sent".into(), packets),
        ("sent/s".into(), packets / seconds),
        ("sender+kernel s/M".into(), (cpu_ns + cpu::precise(kernel)) / packets / 1000.0),
    ]);
    if let Some([shown, lost]) = told {
        values.insert("shown".into(), shown);
        values.insert("lost".into(), lost);
        values.insert("unaccounted".into(), packets - shown - lost);
        values.insert("reader s/M".into(), cpu::precise(used) / shown / 1000.0);
    }
    Ok(values)
}

/// Starts who looks; it looks when this returns.
fn start(world: &World, args: &PacketsArgs, who: Who) -> Result<Option<Running>> {
    let reader = args.reader.display();
    let command = match who {
        Who::Nothing => return Ok(None),
        Who::Tap | Who::TapStopped => format!("{reader} tap eth0 {FRAME}"),
        Who::Tcpdump => "tcpdump -i eth0 -n -Z root -w /dev/null udp 2>&1".into(),
        Who::QueueForAll => format!("{reader} queue {QUEUE}"),
        Who::Outrider => {
            let settings = [("OUTRIDER_PROXY_CAPTURE", "none")];
            return sidecar::start(world, &args.outrider, "-all,+net_raw", &settings).map(Some);
        }
    };
    world.spawn_until_line(Where::Pod, &command).map(Some)
}

/// Ends who looks; what it was shown and what it lost.
fn counts(world: &World, who: Who, reader: Running) -> Result<[f64; 2]> {
    if who == Who::Outrider {
        let metrics = sidecar::metrics(world)?;
        drop(reader);
        let shown = metrics.sum("outrider_packets_total{kind=\"udp\"}");
        return Ok([shown, metrics.sum("outrider_tap_frames_lost_total")]);
    }
    let text = reader.finish()?;
    if who == Who::Tcpdump {
        let number = |what: &str| {
            let line = text.lines().find(|line| line.contains(what));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok())
                .with_context(|| format!("tcpdump does not say {what}: {text}"))
        };
        return Ok([number("packets captured")?, number("dropped by kernel")?]);
    }
    let line = text.lines().find(|line| line.starts_with('{'));
    let told: Value = serde_json::from_str(line.context("the reader said nothing")?)?;
    let number = |name: &str| told[name].as_f64().context("a count is missing");
    ensure!(
        number("seen")? == number("shown")? + number("lost")?,
        "the reader's own sum does not come out: {told}"
    );
    Ok([number("counted")?, number("lost")?])
}

fn queue_rules(world: &World, on: bool) -> Result<()> {
    world.output(Where::Pod, "iptables -w -F INPUT")?;
    if on {
        let rule = format!("-A INPUT -p udp --dport {PORT} -j NFQUEUE --queue-num {QUEUE}");
        world.output(Where::Pod, &format!("iptables -w {rule}"))?;
    }
    Ok(())
}
