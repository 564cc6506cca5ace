//! The workloads: what is done, and how much of it one unit is.

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::{
    cpu,
    world::{ECHO, HTTP, IPERF, POD, Running, Where, World},
};

/// What the client does.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Workload {
    /// One TCP stream as fast as it goes.
    Bulk,
    /// 64 bytes there and back on 50 connections.
    Rr,
    /// 64 bytes there and back, a connection each.
    Short,
    /// HTTP/1.1, 1 KiB answers on 50 connections.
    Http,
    /// Resident memory, idle and with 1 000 held connections.
    Memory,
}

/// What one measurement yields.
pub(crate) struct Measured {
    /// Units done: GB, or 100 000 operations; for memory, KiB.
    pub(crate) units: f64,
    /// Seconds it took.
    pub(crate) seconds: f64,
}

/// Connections of the request workloads.
const CONNECTIONS: u32 = 50;
/// Operations that make a unit.
const OPERATIONS: f64 = 100_000.0;
/// Connections held for the memory figure.
const HELD: u32 = 1000;

impl Workload {
    /// Its name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bulk => "bulk",
            Self::Rr => "rr",
            Self::Short => "short",
            Self::Http => "http",
            Self::Memory => "memory",
        }
    }

    /// What a unit is.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Bulk => "GB",
            Self::Memory => "KiB",
            _ => "100k",
        }
    }

    /// Runs it once.
    pub(crate) fn run(
        self,
        world: &World,
        seconds: u32,
        proxy: Option<&Running>,
    ) -> Result<Measured> {
        let own = std::env::current_exe()?;
        let own = own.display();
        match self {
            Self::Bulk => bulk(world, seconds),
            Self::Rr => counted(
                world,
                seconds,
                &format!("{own} tool ping-pong {POD}:{ECHO} {CONNECTIONS} {seconds}"),
            ),
            Self::Short => {
                counted(world, seconds, &format!("{own} tool short {POD}:{ECHO} 8 {seconds}"))
            }
            Self::Http => http(world, seconds),
            Self::Memory => memory(world, proxy, &format!("{own} tool hold {POD}:{ECHO} {HELD}")),
        }
    }
}

fn counted(world: &World, seconds: u32, command: &str) -> Result<Measured> {
    let count: u64 = world.output(Where::Client, command)?.trim().parse()?;
    Ok(Measured { units: cpu::precise(count) / OPERATIONS, seconds: seconds.into() })
}

fn bulk(world: &World, seconds: u32) -> Result<Measured> {
    let text =
        world.output(Where::Client, &format!("iperf3 -J -c {POD} -p {IPERF} -t {seconds}"))?;
    let report: serde_json::Value = serde_json::from_str(&text)?;
    let bytes = report["end"]["sum_received"]["bytes"]
        .as_f64()
        .context("iperf3 said no bytes")?;
    Ok(Measured { units: bytes / 1e9, seconds: seconds.into() })
}

fn http(world: &World, seconds: u32) -> Result<Measured> {
    let command = format!("wrk -t 1 -c {CONNECTIONS} -d {seconds}s http://{POD}:{HTTP}/1k");
    let text = world.output(Where::Client, &command)?;
    anyhow::ensure!(!text.contains("Non-2xx") && !text.contains("Socket errors"), "{text}");
    let line = text
        .lines()
        .find(|line| line.contains(" requests in "))
        .context("wrk said nothing")?;
    let count: u64 = line.split_whitespace().next().unwrap_or_default().parse()?;
    Ok(Measured { units: cpu::precise(count) / OPERATIONS, seconds: seconds.into() })
}

/// KiB a held connection as the units, MiB idle in the place of the seconds.
fn memory(world: &World, proxy: Option<&Running>, command: &str) -> Result<Measured> {
    let Some(proxy) = proxy else { return Ok(Measured { units: 0.0, seconds: 0.0 }) };
    let idle = cpu::resident_kib(proxy.pid())?;
    let held = world.spawn_until_line(Where::Client, command)?;
    let full = cpu::resident_kib(proxy.pid())?;
    drop(held);
    Ok(Measured {
        units: cpu::precise(full.saturating_sub(idle)) / f64::from(HELD),
        seconds: cpu::precise(idle) / 1024.0,
    })
}
