//! Sidecar proxies side by side in two network namespaces: what each costs per unit of work, and at what rate.
//!
//! `outrider-bench run` needs root, the tools that `make bench` installs, and the release build of outrider-proxy.
#![forbid(unsafe_code)]

mod cpu;
mod packets;
mod proxies;
mod report;
mod run;
mod tools;
mod workloads;
mod world;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

/// Measures sidecar proxies beside each other.
#[derive(Parser)]
#[command(version, about, long_about = None)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure and write the results.
    Run(RunArgs),
    /// Measure what is not TCP: seeing every packet, deciding about the first of each flow.
    Packets(packets::PacketsArgs),
    /// Print a results file as tables.
    Report {
        /// Written by `run`.
        results: PathBuf,
    },
    /// A load tool of the benchmark's own.
    #[command(subcommand, hide = true)]
    Tool(Tool),
}

/// What `run` measures.
#[derive(Args)]
struct RunArgs {
    /// Proxies, by name: direct, outrider, reference, envoy, haproxy.
    #[arg(long, value_delimiter = ',', default_value = "direct,outrider,reference,envoy,haproxy")]
    proxies: Vec<proxies::Proxy>,
    /// Workloads, by name.
    #[arg(long, value_delimiter = ',', default_value = "bulk,rr,short,http,memory")]
    workloads: Vec<workloads::Workload>,
    /// Repetitions, interleaved.
    #[arg(long, default_value_t = 3)]
    reps: u32,
    /// Seconds a measurement takes.
    #[arg(long, default_value_t = 3)]
    seconds: u32,
    /// The sidecar to measure.
    #[arg(long, env = "OUTRIDER_BENCH_PROXY", default_value = "target/release/outrider-proxy")]
    outrider: PathBuf,
    /// Envoy's binary; without one it is left out, and said so.
    #[arg(long, env = "OUTRIDER_BENCH_ENVOY", default_value = "envoy")]
    envoy: PathBuf,
    /// Where the results go, as JSON.
    #[arg(long, default_value = "target/bench.json")]
    out: PathBuf,
}

#[derive(Subcommand)]
enum Tool {
    /// Accept and send back what comes.
    Echo {
        /// Where to listen.
        listen: SocketAddr,
    },
    /// A transparent copy that looks at nothing: what terminating TCP costs at least with this runtime.
    Reference {
        /// Port to listen at.
        port: u16,
    },
    /// Send 64 bytes and wait for them, over and over; prints the count.
    PingPong {
        /// An echo server.
        server: SocketAddr,
        /// Connections at once.
        connections: u32,
        /// How long.
        seconds: u32,
    },
    /// Connect, exchange 64 bytes, close, over and over; prints the count.
    Short {
        /// An echo server.
        server: SocketAddr,
        /// Connections at once.
        connections: u32,
        /// How long.
        seconds: u32,
    },
    /// Send datagrams as fast as it goes, or as fast as told; prints what was sent and what it cost.
    Flood(tools::Flood),
    /// Bind a UDP port and say so.
    Sink {
        /// Where.
        listen: SocketAddr,
        /// Read what comes; otherwise nothing ever is.
        #[arg(long)]
        read: bool,
    },
    /// Send back every datagram.
    UdpEcho {
        /// Where.
        listen: SocketAddr,
    },
    /// Ask an echo server, each time from another port; prints how long that took.
    First {
        /// Whom.
        server: SocketAddr,
        /// How often.
        count: u32,
    },
    /// Open connections, exchange 64 bytes on each, print `held`, and keep them until the input ends.
    Hold {
        /// An echo server.
        server: SocketAddr,
        /// How many.
        connections: u32,
    },
}

fn main() -> ExitCode {
    match command(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("outrider-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn command(command: Command) -> Result<()> {
    match command {
        Command::Run(args) => run::run(&args),
        Command::Packets(args) => packets::run(&args),
        Command::Report { results } => report::print(&results),
        Command::Tool(Tool::Echo { listen }) => tools::echo(listen),
        Command::Tool(Tool::Reference { port }) => tools::reference(port),
        Command::Tool(Tool::PingPong { server, connections, seconds }) => {
            tools::ping_pong(server, connections, seconds)
        }
        Command::Tool(Tool::Short { server, connections, seconds }) => {
            tools::short(server, connections, seconds)
        }
        Command::Tool(Tool::Flood(what)) => tools::flood(&what),
        Command::Tool(Tool::Sink { listen, read }) => tools::sink(listen, read),
        Command::Tool(Tool::UdpEcho { listen }) => tools::udp_echo(listen),
        Command::Tool(Tool::First { server, count }) => tools::first(server, count),
        Command::Tool(Tool::Hold { server, connections }) => tools::hold(server, connections),
    }
}
