//! One run: proxies interleaved, repetition by repetition, every second one backwards.

use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::{RunArgs, cpu, proxies::Proxy, report, workloads::Workload, world::World};

/// One measurement.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Sample {
    /// Which proxy.
    pub(crate) proxy: String,
    /// Which workload.
    pub(crate) workload: String,
    /// What a unit is.
    pub(crate) unit: String,
    /// Which repetition.
    pub(crate) rep: u32,
    /// The proxy's seconds of CPU a unit; for memory, MiB idle.
    pub(crate) cost: f64,
    /// Units a second; for memory, KiB a held connection.
    pub(crate) rate: f64,
}

/// Measures and writes the results.
pub(crate) fn run(args: &RunArgs) -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "namespaces need root: run as root");
    let mut usable = Vec::new();
    for proxy in &args.proxies {
        match proxy.missing(args) {
            None => usable.push(*proxy),
            Some(why) => eprintln!("left out: {}: {why}", proxy.name()),
        }
    }
    let world = World::start()?;
    let mut samples = Vec::new();
    for workload in &args.workloads {
        for rep in 0..args.reps {
            let mut order = usable.clone();
            if rep % 2 == 1 {
                order.reverse();
            }
            for proxy in order {
                let sample = measure(&world, args, *workload, proxy, rep)
                    .with_context(|| format!("{} behind {}", workload.name(), proxy.name()))?;
                eprintln!(
                    "{:>7} {:>10} {rep}: cost {:8.3} rate {:9.3}",
                    sample.workload, sample.proxy, sample.cost, sample.rate
                );
                samples.push(sample);
            }
        }
    }
    if let Some(parent) = args.out.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(&args.out, serde_json::to_vec_pretty(&samples)?)?;
    report::print(&args.out)
}

fn measure(
    world: &World,
    args: &RunArgs,
    workload: Workload,
    proxy: Proxy,
    rep: u32,
) -> Result<Sample> {
    let running = proxy.start(world, args)?;
    if workload != Workload::Memory {
        workload.run(world, 1, running.as_ref())?;
    }
    let cpu = || {
        running
            .as_ref()
            .map_or(Ok(0.0), |proxy| cpu::seconds(proxy.pid()))
    };
    let before = cpu()?;
    let measured = workload.run(world, args.seconds, running.as_ref())?;
    let spent = cpu()? - before;
    let (cost, rate) = match workload {
        Workload::Memory => (measured.seconds, measured.units),
        _ => (spent / measured.units, measured.units / measured.seconds),
    };
    Ok(Sample {
        proxy: proxy.name().into(),
        workload: workload.name().into(),
        unit: workload.unit().into(),
        rep,
        cost,
        rate,
    })
}

/// Samples by workload and proxy, in order of first appearance within each.
pub(crate) fn grouped(samples: &[Sample]) -> BTreeMap<(String, String), Vec<Sample>> {
    let mut groups: BTreeMap<_, Vec<Sample>> = BTreeMap::new();
    for sample in samples {
        let key = (sample.workload.clone(), sample.proxy.clone());
        groups.entry(key).or_default().push(sample.clone());
    }
    groups
}
