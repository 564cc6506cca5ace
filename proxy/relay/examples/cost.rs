//! What a relayed byte, exchange or connection costs, beside tokio's own copy loop.
//!
//! `cargo run --release -p outrider-relay --example cost` starts a proxy process for each of the two
//! (`relay`, `copy`), sends traffic through it over loopback, and prints the process's CPU seconds.
#![expect(clippy::print_stdout, reason = "a program for people")]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
};

use anyhow::{Context as _, Result};
use arc_swap::ArcSwap;
use outrider_dpi::DpiConfig;
use outrider_model::{Direction, FlowKey, IpProto, Mode};
use outrider_policy::{Network, PolicySpec, Snapshot};
use outrider_relay::{Delivery, PolicyView, Relay, RelaySettings};
use outrider_telemetry::{Registry, Telemetry};
use tokio_util::task::TaskTracker;

const BULK: usize = 1 << 30;
const EXCHANGES: usize = 100_000;
const CONNECTIONS: usize = 20_000;
const PARALLEL: usize = 50;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("proxy") => {
            let kind = args.next().context("which proxy")?;
            let target = args.next().context("where to")?.parse()?;
            proxy(&kind, target)
        }
        only => measure(only),
    }
}

/// Runs every workload, or the one named, through both proxies.
fn measure(only: Option<&str>) -> Result<()> {
    type Workload = fn(SocketAddr) -> Result<()>;
    let workloads: [(&str, Workload); 5] = [
        ("bulk, 1 stream, s/GiB", bulk),
        ("rr, 1 connection, s/100k", single),
        ("rr, 50 connections, s/100k", parallel),
        ("http, 50 connections, s/100k", web),
        ("conn, s/20k", connections),
    ];
    println!("{:<32} {:>8} {:>8} {:>7}", "CPU of the proxy", "copy", "relay", "ratio");
    for (name, workload) in workloads {
        if only.is_some_and(|only| !name.starts_with(only)) {
            continue;
        }
        let copy = cost("copy", workload)?;
        let relay = cost("relay", workload)?;
        println!("{name:<32} {copy:>8.3} {relay:>8.3} {:>7.2}", relay / copy);
    }
    Ok(())
}

fn cost(kind: &str, workload: fn(SocketAddr) -> Result<()>) -> Result<f64> {
    let server = serve()?;
    let mut proxy = Command::new(std::env::current_exe()?)
        .args(["proxy", kind, &server.to_string()])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(proxy.stdout.take().context("stdout")?).read_line(&mut line)?;
    let before = cpu(&proxy)?;
    let done = workload(line.trim().parse()?);
    let spent = cpu(&proxy)? - before;
    proxy.kill()?;
    proxy.wait()?;
    done.map(|()| spent)
}

/// User and system time of a process, in seconds.
fn cpu(child: &Child) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id()))?;
    let (_, fields) = stat.rsplit_once(')').context("stat")?;
    let ticks = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse::<f64>);
    Ok(ticks.sum::<Result<f64, _>>()? / 100.0)
}

/// Answers every read with as many bytes, or with an HTTP response if it looks like a request.
fn serve() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(stream));
        }
    });
    Ok(addr)
}

fn answer(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let response =
        [&b"HTTP/1.1 200 OK\r\nContent-Length: 1024\r\n\r\n"[..], &[b'x'; 1024]].concat();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            some if buffer.starts_with(b"GET ") && some < 1024 => stream.write_all(&response)?,
            some if some < 1024 => stream.write_all(&buffer[..some])?,
            _ => {}
        }
    }
}

fn bulk(proxy: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(proxy)?;
    let block = vec![0xa5; 256 * 1024];
    for _ in 0..BULK / block.len() {
        stream.write_all(&block)?;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    stream.read_to_end(&mut Vec::new())?;
    Ok(())
}

fn exchange(proxy: SocketAddr, count: usize, request: &[u8], response: usize) -> Result<()> {
    let mut stream = TcpStream::connect(proxy)?;
    stream.set_nodelay(true)?;
    let mut got = vec![0; response];
    for _ in 0..count {
        stream.write_all(request)?;
        stream.read_exact(&mut got)?;
    }
    Ok(())
}

fn single(proxy: SocketAddr) -> Result<()> {
    exchange(proxy, EXCHANGES, &[0xa5; 64], 64)
}

fn on_many(work: impl Fn() -> Result<()> + Send + Sync) -> Result<()> {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..PARALLEL).map(|_| scope.spawn(&work)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|_| anyhow::bail!("panic")))
    })
}

fn parallel(proxy: SocketAddr) -> Result<()> {
    on_many(|| exchange(proxy, EXCHANGES / PARALLEL, &[0xa5; 64], 64))
}

fn web(proxy: SocketAddr) -> Result<()> {
    let request = b"GET /index.html HTTP/1.1\r\nHost: web.example\r\nUser-Agent: cost\r\n\r\n";
    let response = b"HTTP/1.1 200 OK\r\nContent-Length: 1024\r\n\r\n".len() + 1024;
    on_many(|| exchange(proxy, EXCHANGES / PARALLEL, request, response))
}

fn connections(proxy: SocketAddr) -> Result<()> {
    on_many(|| (0..CONNECTIONS / PARALLEL).try_for_each(|_| exchange(proxy, 1, &[0xa5; 64], 64)))
}

fn proxy(kind: &str, target: SocketAddr) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let relay = relay()?;
    let copies = kind == "copy";
    runtime.block_on(async move {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        let tasks = TaskTracker::new();
        loop {
            let (downstream, client) = listener.accept().await?;
            downstream.set_nodelay(true)?;
            let key = FlowKey {
                client,
                server: target,
                proto: IpProto::TCP,
                direction: Direction::Inbound,
            };
            if copies {
                tasks.spawn(copy(downstream, target));
            } else {
                tasks.spawn(relay.clone().run(downstream, key, Delivery::to(target)));
            }
        }
    })
}

async fn copy(mut downstream: tokio::net::TcpStream, target: SocketAddr) -> std::io::Result<()> {
    let mut upstream = tokio::net::TcpStream::connect(target).await?;
    upstream.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut downstream, &mut upstream).await?;
    Ok(())
}

fn relay() -> Result<Relay> {
    let mode = Mode::Discover;
    let spec = PolicySpec {
        default_action: mode.default_action(),
        inbound: true,
        outbound: true,
        rules: Vec::new(),
        grace: false,
    };
    let snapshot = Snapshot::compile(Some(&spec), &Network::default())?;
    let view = PolicyView { snapshot, mode, managed: true, quarantined: false, version: 1 };
    let telemetry = Telemetry::new(&Registry::default())?;
    let policy = Arc::new(ArcSwap::from_pointee(view));
    Ok(Relay::new(RelaySettings::default(), policy, Arc::new(DpiConfig::default()), telemetry))
}
