//! What a pair of interfaces costs: the kernel's bridge, the pair's fast path and its ring, three times
//! each in turn, between two namespaces of its own. Needs root and iperf3. Prints a JSON object a run:
//! gigabits a second of one TCP stream, and microseconds of a UDP round trip.

use std::{
    io::Write,
    net::UdpSocket,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use nix::sched::{CloneFlags, unshare};
use outrider_capture::{Namespace, Pair, PairPath, PairVerdict};
use tokio::{sync::oneshot, time::Instant};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Round trips of a run.
const TRIPS: u32 = 20_000;

/// Both ends, by name.
struct Ends([String; 2]);

impl Drop for Ends {
    fn drop(&mut self) {
        for name in &self.0 {
            drop(Command::new("ip").args(["netns", "del", name]).status());
        }
    }
}

/// A child that does not outlive us.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn main() -> Result<(), Failure> {
    let ends = Ends(["network", "pod"].map(|end| format!("pair-{}-{end}", std::process::id())));
    unshare(CloneFlags::CLONE_NEWNET)?;
    for (name, (here, address)) in ends.0.iter().zip([("out", "10.9.0.2"), ("in", "10.9.0.1")]) {
        ip(&format!("netns add {name}"))?;
        ip(&format!("link add {here} type veth peer name eth0 netns {name}"))?;
        ip(&format!("link set {here} up"))?;
        ip(&format!("-n {name} link set eth0 up"))?;
        ip(&format!("-n {name} addr add {address}/24 dev eth0"))?;
    }
    let server = inside(&ends.0[1], "iperf3", &["-s"])
        .stdout(Stdio::null())
        .spawn()?;
    let _server = Server(server);
    let echo = Namespace::open(&format!("/run/netns/{}", ends.0[1]))?
        .enter(|| UdpSocket::bind("10.9.0.1:7"))??;
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((length, from)) = echo.recv_from(&mut buffer) {
            drop(echo.send_to(&buffer[..length], from));
        }
    });
    for _ in 0..3 {
        ip("link add br0 type bridge")?;
        ip("link set br0 up")?;
        ip("link set out master br0")?;
        ip("link set in master br0")?;
        report("bridge", &measure(&ends.0[0])?)?;
        ip("link del br0")?;
        for (label, path) in [("kernel", PairPath::Kernel), ("ring", PairPath::Ring)] {
            report(label, &beside(path, ends.0[0].clone())?)?;
        }
    }
    Ok(())
}

fn report(path: &str, (gigabits, trip): &(f64, f64)) -> Result<(), Failure> {
    let text = format!("{{\"path\":\"{path}\",\"gbit_s\":{gigabits:.2},\"trip_us\":{trip:.1}}}\n");
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

/// Measures with a pair between the ends.
fn beside(path: PairPath, from: String) -> Result<(f64, f64), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut pair = Pair::open("out", "in")?;
        pair.set_path(path)?;
        let (done, mut over) = oneshot::channel();
        thread::spawn(move || drop(done.send(measure(&from))));
        loop {
            tokio::select! {
                biased;
                result = &mut over => return result?,
                waited = pair.wait() => {
                    waited?;
                    pair.drain(|_| PairVerdict::Forward);
                }
            }
        }
    })
}

fn measure(from: &str) -> Result<(f64, f64), Failure> {
    let socket = Namespace::open(&format!("/run/netns/{from}"))?
        .enter(|| UdpSocket::bind("10.9.0.2:0"))??;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let trip = |count: u32| -> Result<Duration, Failure> {
        let start = Instant::now();
        for _ in 0..count {
            while socket.send_to(&[0; 64], "10.9.0.1:7").is_err()
                || socket.recv(&mut [0; 64]).is_err()
            {}
        }
        Ok(start.elapsed())
    };
    trip(100)?;
    let trips = trip(TRIPS)?;
    let output = inside(from, "iperf3", &["-c", "10.9.0.1", "-t", "3", "-J"]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let received = text
        .split("\"sum_received\"")
        .nth(1)
        .ok_or("iperf3 failed")?;
    let rate = received
        .split("\"bits_per_second\":")
        .nth(1)
        .ok_or("no rate")?;
    let rate: f64 = rate.split(',').next().unwrap_or_default().trim().parse()?;
    Ok((rate / 1e9, trips.as_secs_f64() * 1e6 / f64::from(TRIPS)))
}

fn inside(name: &str, tool: &str, args: &[&str]) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", name, tool]).args(args);
    command
}

fn ip(arguments: &str) -> Result<(), Failure> {
    let ok = Command::new("ip")
        .args(arguments.split(' '))
        .status()?
        .success();
    if ok { Ok(()) } else { Err(format!("ip {arguments}").into()) }
}
