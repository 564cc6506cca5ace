//! What a pod waits for: `outrider-init apply` of a fresh namespace, IPv4 and IPv6, beside the same rules with one
//! process each. Root; `cargo bench -p outrider-init`. Medians of interleaved rounds, one line a backend.

use std::io::{self, Write};
use std::process::Command;
use std::time::{Duration, SystemTime};

use outrider_init::plan::{Family, Plan};
use outrider_init::render::iptables::{Leftovers, restore_input};
use outrider_init::render::nft::{Place, ruleset};
use outrider_init::settings::Settings;

const INIT: &str = env!("CARGO_BIN_EXE_outrider-init");
const NAMESPACE: &str = "outrider-bench-init";
/// Rounds of each way.
const ROUNDS: usize = 9;

/// A way to install the rules: arguments of init, and the commands that do the same one by one.
struct Way {
    name: &'static str,
    arguments: &'static [&'static str],
    commands: Vec<Vec<String>>,
}

fn main() -> io::Result<()> {
    let plan = Plan::new(&Settings::default());
    let tables = ["iptables-nft", "ip6tables-nft"];
    let legacy = ["iptables-legacy", "ip6tables-legacy"];
    let ways = [
        Way {
            name: "iptables over nf_tables",
            arguments: &["--iptables-variant", "nft"],
            commands: iptables(&plan, tables),
        },
        Way {
            name: "legacy iptables",
            arguments: &["--iptables-variant", "legacy"],
            commands: iptables(&plan, legacy),
        },
        Way { name: "nft", arguments: &["--backend", "nft"], commands: nft(&plan) },
    ];
    let mut out = io::stdout();
    for way in ways {
        let mut ours = Vec::new();
        let mut single = Vec::new();
        for _ in 0..ROUNDS {
            ours.push(in_namespace(|| run(INIT, &[&["apply"], way.arguments].concat()))?);
            single.push(in_namespace(|| {
                way.commands.iter().try_for_each(|command| {
                    let (program, arguments) = command.split_first().expect("a program");
                    run(program, arguments)
                })
            })?);
        }
        let [ours, single] = [ours, single].map(median);
        let processes = way.commands.len();
        let ratio = single.as_secs_f64() / ours.as_secs_f64();
        writeln!(
            out,
            "{}: {:.1} ms; one process a rule ({processes}): {:.1} ms; {ratio:.1} times",
            way.name,
            ours.as_secs_f64() * 1e3,
            single.as_secs_f64() * 1e3,
        )?;
    }
    Ok(())
}

/// Each line of the restore tools' input as a command of its own.
fn iptables(plan: &Plan, tools: [&str; 2]) -> Vec<Vec<String>> {
    let mut commands = Vec::new();
    for (family, tool) in Family::ALL.into_iter().zip(tools) {
        let mut table = String::new();
        for line in restore_input(plan, family, &Leftovers::default()).lines() {
            let words = if let Some(name) = line.strip_prefix('*') {
                name.clone_into(&mut table);
                continue;
            } else if let Some(chain) = line.strip_prefix(':') {
                format!("-N {}", chain.split(' ').next().unwrap_or_default())
            } else if line.starts_with('-') {
                line.to_owned()
            } else {
                continue;
            };
            let words = words.split(' ').map(str::to_owned);
            commands.push(
                [tool.to_owned(), "-t".to_owned(), table.clone()]
                    .into_iter()
                    .chain(words)
                    .collect(),
            );
        }
    }
    commands
}

/// The tables and chains in one call, then each rule in one of its own.
fn nft(plan: &Plan) -> Vec<Vec<String>> {
    let place = Place { devices: vec!["eth0".to_owned()], occupied: false };
    let text = ruleset(plan, &place);
    let (mut frame, mut rules) = (String::new(), Vec::new());
    let (mut table, mut chain) = (String::new(), String::new());
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("table ") {
            name.trim_end_matches(" {").clone_into(&mut table);
        } else if let Some(name) = line.strip_prefix("chain ") {
            name.trim_end_matches(" {").clone_into(&mut chain);
        } else if !line.starts_with("type ") && !line.starts_with(['#', '}']) {
            rules.push(format!("add rule {table} {chain} {line}"));
            continue;
        }
        frame += &format!("{line}\n");
    }
    let call = |text: String| vec!["nft".to_owned(), text];
    [call(frame)]
        .into_iter()
        .chain(rules.into_iter().map(call))
        .collect()
}

/// The time that `work` takes in a fresh namespace.
fn in_namespace(work: impl FnOnce() -> io::Result<()>) -> io::Result<Duration> {
    let ip = |arguments: &str| {
        let words: Vec<&str> = arguments.split(' ').collect();
        Command::new("ip").args(words).status().map(drop)
    };
    ip(&format!("netns add {NAMESPACE}"))?;
    ip(&format!("-n {NAMESPACE} link set lo up"))?;
    ip(&format!("-n {NAMESPACE} link add eth0 type veth peer name eth9"))?;
    let start = SystemTime::now();
    let worked = work();
    let took = start.elapsed().unwrap_or_default();
    ip(&format!("netns del {NAMESPACE}"))?;
    worked.map(|()| took)
}

/// Runs a program in the namespace.
fn run(program: &str, arguments: &[impl AsRef<std::ffi::OsStr>]) -> io::Result<()> {
    let net = format!("--net=/run/netns/{NAMESPACE}");
    let output = Command::new("nsenter")
        .arg(net)
        .arg(program)
        .args(arguments)
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
