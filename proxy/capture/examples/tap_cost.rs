//! What a copied packet costs: the tap beside tcpdump and beside nothing, three times each in turn, on
//! a veth pair of its own. Needs root and tcpdump. Prints a JSON object a run: CPU nanoseconds a packet
//! of who reads and of who sends (the kernel copies on the sender's time), and what was lost.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::UdpSocket,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use nix::{
    sched::{CloneFlags, unshare},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use outrider_capture::{Filter, Tap, TapSettings};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Packets a run, and the bytes that each carries.
const PACKETS: u64 = 400_000;
const PAYLOAD: [u8; 64] = [0x5a; 64];

/// What the one who reads has used and seen.
struct Reading {
    cpu: u64,
    seen: u64,
    lost: u64,
}

fn main() -> Result<(), Failure> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    for command in [
        "link set lo up",
        "link add eth0 type veth peer name eth1",
        "link set eth1 up",
        "link set eth0 up",
        "addr add 10.9.0.1/24 dev eth0",
        "neigh replace 10.9.0.2 lladdr 02:00:00:00:00:02 dev eth0",
    ] {
        if !Command::new("ip")
            .args(command.split(' '))
            .status()?
            .success()
        {
            return Err(format!("ip {command}").into());
        }
    }
    for _ in 0..3 {
        report("nothing", flood()?, None)?;
        let (sent, read) = beside_tap(Filter::Everything)?;
        report("tap", sent, Some(&read))?;
        let (sent, read) = beside_tcpdump()?;
        report("tcpdump", sent, Some(&read))?;
    }
    Ok(())
}

fn report(reader: &str, sender: u64, read: Option<&Reading>) -> Result<(), Failure> {
    let sender = sender / PACKETS;
    let text = match read {
        None => format!("{{\"reader\":\"{reader}\",\"sender_ns\":{sender}}}\n"),
        Some(read) => format!(
            "{{\"reader\":\"{reader}\",\"sender_ns\":{sender},\"reader_ns\":{},\"seen\":{},\"lost\":{}}}\n",
            read.cpu / read.seen.max(1),
            read.seen,
            read.lost
        ),
    };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

/// Sends every packet; returns the CPU time that it took.
fn flood() -> Result<u64, Failure> {
    let socket = UdpSocket::bind("10.9.0.1:0")?;
    socket.connect("10.9.0.2:9")?;
    let before = cpu("/proc/thread-self")?;
    for _ in 0..PACKETS {
        socket.send(&PAYLOAD)?;
    }
    Ok(cpu("/proc/thread-self")? - before)
}

fn beside_tap(filter: Filter) -> Result<(u64, Reading), Failure> {
    let over = Arc::new(AtomicBool::new(false));
    let (told, ready) = std::sync::mpsc::channel();
    let stop = Arc::clone(&over);
    let reader = thread::spawn(move || -> Result<Reading, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let interface = Some("eth0".to_owned());
            let mut tap = Tap::open(&TapSettings { interface, filter, ..TapSettings::default() })?;
            told.send(())?;
            let before = cpu("/proc/thread-self")?;
            let (mut seen, mut bytes) = (0, 0);
            while !stop.load(Ordering::Relaxed) {
                let count = |frame: outrider_capture::Frame<'_>| bytes += frame.bytes.len();
                let idle = Duration::from_millis(100);
                if let Ok(shown) = tokio::time::timeout(idle, tap.wait(count)).await {
                    seen += shown?;
                }
            }
            std::hint::black_box(bytes);
            let cpu = cpu("/proc/thread-self")? - before;
            Ok(Reading { cpu, seen, lost: tap.counters()?.lost })
        })
    });
    ready.recv()?;
    let sent = flood()?;
    thread::sleep(Duration::from_millis(200));
    over.store(true, Ordering::Relaxed);
    let read = reader
        .join()
        .map_err(|_panic| "the tap's thread has panicked")??;
    Ok((sent, read))
}

fn beside_tcpdump() -> Result<(u64, Reading), Failure> {
    let mut child = Command::new("tcpdump")
        .args(["-i", "eth0", "-n", "-Z", "root", "-w", "/dev/null"])
        .stderr(Stdio::piped())
        .spawn()?;
    let result = watch(&mut child);
    if result.is_err() {
        child.kill()?;
    }
    child.wait()?;
    result
}

fn watch(child: &mut Child) -> Result<(u64, Reading), Failure> {
    let mut lines = BufReader::new(child.stderr.take().ok_or("no messages")?).lines();
    let mut next = |part: &str| -> Result<String, Failure> {
        for line in lines.by_ref() {
            let line = line?;
            if line.contains(part) {
                return Ok(line);
            }
        }
        Err(format!("tcpdump does not say {part}").into())
    };
    next("listening on")?;
    let process = format!("/proc/{}", child.id());
    let before = cpu(&process)?;
    let sent = flood()?;
    thread::sleep(Duration::from_millis(1200));
    let cpu = cpu(&process)? - before;
    kill(Pid::from_raw(child.id().try_into()?), Signal::SIGINT)?;
    let seen = number(&next("packets captured")?);
    next("received by filter")?;
    let lost = number(&next("dropped by kernel")?);
    Ok((sent, Reading { cpu, seen, lost }))
}

fn number(line: &str) -> u64 {
    line.split_whitespace()
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap_or(0)
}

/// Nanoseconds on a CPU.
fn cpu(task: &str) -> Result<u64, Failure> {
    let text = fs::read_to_string(format!("{task}/schedstat"))?;
    Ok(text
        .split(' ')
        .next()
        .ok_or("no time in schedstat")?
        .parse()?)
}
