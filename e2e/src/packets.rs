//! What is not TCP: the cost of seeing every packet, of deciding about every one, and about the first of
//! each flow only.

mod datagrams;
mod ring;
mod sidecar;

use std::{collections::BTreeMap, fs, io::Write as _, path::PathBuf};

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::{report::median, world::World};

/// What `packets` measures.
#[derive(Args)]
pub(crate) struct PacketsArgs {
    /// Parts, by name.
    #[arg(long, value_delimiter = ',', default_value = "ring,after,first")]
    parts: Vec<Part>,
    /// Repetitions, interleaved.
    #[arg(long, default_value_t = 3)]
    reps: u32,
    /// Seconds a measurement takes.
    #[arg(long, default_value_t = 3)]
    seconds: u32,
    /// A reader of packets that does nothing with them: outrider-capture's example.
    #[arg(long, default_value = "target/release/examples/reader")]
    reader: PathBuf,
    /// The sidecar to measure.
    #[arg(long, env = "OUTRIDER_BENCH_PROXY", default_value = "target/release/outrider-proxy")]
    outrider: PathBuf,
    /// What installs the rules.
    #[arg(long, env = "OUTRIDER_BENCH_INIT", default_value = "target/release/outrider-init")]
    init: PathBuf,
    /// Where the results go, as JSON.
    #[arg(long, default_value = "target/bench-packets.json")]
    out: PathBuf,
}

/// A thing to measure.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Part {
    /// Small packets as fast as this machine sends them, and who reads them.
    Ring,
    /// A stream of datagrams after its verdict, beside a pod without any rule.
    After,
    /// Questions from ports that are new, one at a time.
    First,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Ring => "ring",
            Self::After => "after",
            Self::First => "first",
        }
    }

    /// Columns of its table, in order.
    fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Ring => ring::COLUMNS,
            Self::After => datagrams::AFTER,
            Self::First => datagrams::FIRST,
        }
    }
}

/// One measurement.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Row {
    /// Which part.
    part: String,
    /// Who was measured.
    who: String,
    /// Which repetition.
    rep: u32,
    /// What was measured, by name.
    #[serde(flatten)]
    values: BTreeMap<String, f64>,
}

/// Measures and writes the results.
pub(crate) fn run(args: &PacketsArgs) -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "namespaces need root: run as root");
    let world = World::start()?;
    let mut rows = Vec::new();
    for part in &args.parts {
        for rep in 0..args.reps {
            let put = &mut |who: &str, values| {
                let row = Row { part: part.name().into(), who: who.into(), rep, values };
                eprintln!("{:>6} {who:>12} {rep}: {:.3?}", row.part, row.values);
                rows.push(row);
            };
            match part {
                Part::Ring => ring::run(&world, args, put)?,
                Part::After => datagrams::after(&world, args, put)?,
                Part::First => datagrams::first(&world, args, put)?,
            }
        }
    }
    if let Some(parent) = args.out.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(&args.out, serde_json::to_vec_pretty(&rows)?)?;
    print(&rows)
}

/// Prints medians, a table a part.
pub(crate) fn print(rows: &[Row]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    for part in Part::value_variants() {
        let of: Vec<_> = rows.iter().filter(|row| row.part == part.name()).collect();
        if of.is_empty() {
            continue;
        }
        let columns = part.columns();
        writeln!(out, "\n| {} | {} |", part.name(), columns.join(" | "))?;
        writeln!(out, "|---|{}", "--:|".repeat(columns.len()))?;
        let mut order: Vec<&str> = Vec::new();
        for row in &of {
            if !order.contains(&row.who.as_str()) {
                order.push(&row.who);
            }
        }
        for who in order {
            let cell = |column: &&str| {
                let values = of.iter().filter(|row| row.who == who);
                let found: Vec<f64> = values
                    .filter_map(|row| row.values.get(*column).copied())
                    .collect();
                if found.is_empty() { String::new() } else { said(median(found.into_iter())) }
            };
            let cells: Vec<_> = columns.iter().map(cell).collect();
            writeln!(out, "| {who} | {} |", cells.join(" | "))?;
        }
    }
    Ok(())
}

/// A figure with as many digits as it deserves.
fn said(value: f64) -> String {
    let whole = value.abs() >= 100.0 || value.fract() == 0.0;
    if whole { format!("{value:.0}") } else { format!("{value:.3}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_one_flat_object() {
        let values = BTreeMap::from([("sent".to_owned(), 3.0)]);
        let row = Row { part: "ring".into(), who: "tap".into(), rep: 1, values };
        let text = serde_json::to_string(&row).unwrap();
        assert_eq!(text, r#"{"part":"ring","who":"tap","rep":1,"sent":3.0}"#);
        let back: Row = serde_json::from_str(&text).unwrap();
        assert_eq!(back.values, row.values);
    }
}
