//! What one bridge does in front of many proxies: rows a second, CPU, memory, how long it takes. A
//! table for docs/performance.md on standard output.
#![forbid(unsafe_code)]

use std::{io::Write as _, time::Duration};

use anyhow::Result;
use outrider_tests::crowd::{
    Crowd, Plan,
    mischief::Mischief,
    traffic::{Shape, Traffic},
};
use tokio::time::Instant;

/// Proxies.
const SIZE: u32 = 500;

/// One line of the table.
struct Case {
    name: &'static str,
    shape: Shape,
    rows: u32,
    pace: Duration,
    harm: usize,
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments.next().map_or(Ok(10), |text| text.parse())?;
    let only = arguments.next();
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "| what | rows/s | CPU s per million rows | of it in the kernel | of one core | \
         MiB at most | slowest acknowledgement, ms | transactions/s |\n|---|--:|--:|--:|--:|--:|--:|--:|"
    )?;
    for case in cases() {
        if only.as_ref().is_none_or(|only| case.name.contains(only)) {
            writeln!(out, "{}", measure(&case, Duration::from_secs(seconds))?)?;
        }
    }
    Ok(())
}

fn cases() -> Vec<Case> {
    let at = |name, shape, rows, pace| Case {
        name,
        shape,
        rows,
        pace: Duration::from_secs(pace),
        harm: 0,
    };
    vec![
        at("100 000 rows/s asked, 8 conversations a pod", Shape::Steady(8), 1_200, 6),
        at("100 000 rows/s asked, 60 conversations a pod", Shape::Steady(60), 1_200, 6),
        at("ceiling, 8 conversations a pod", Shape::Steady(8), 400, 0),
        at("ceiling, 60 conversations a pod", Shape::Steady(60), 400, 0),
        at("ceiling, told by the clients' ends", Shape::Clients(60), 400, 0),
        at("ceiling, every row a new conversation", Shape::Fresh, 400, 0),
        at("ceiling, everything at its bound", Shape::Everything, 170, 0),
        at("ceiling, every row a violation", Shape::Violating(60), 400, 0),
        Case { harm: 16, ..at("50 000 rows/s asked, 16 do harm", Shape::Steady(8), 600, 6) },
    ]
}

fn measure(case: &Case, time: Duration) -> Result<String> {
    let crowd = Crowd::start(Plan {
        size: SIZE,
        foreign: 0,
        mischief: Mischief::ALL
            .iter()
            .copied()
            .cycle()
            .take(case.harm)
            .collect(),
        traffic: Traffic { peers: SIZE, rows: case.rows, shape: case.shape },
        pace: case.pace,
        mode: "discover",
    })?;
    crowd.go();
    // Rules are learned and buffers grown at first.
    std::thread::sleep(case.pace.max(Duration::from_secs(3)));
    let (before, rows, commits) = (crowd.cost()?, crowd.rows(), crowd.account()?.store.commits);
    let begin = Instant::now();
    std::thread::sleep(time.max(case.pace * 2));
    let took = begin.elapsed().as_secs_f64();
    let (cost, commits) = (crowd.cost()? - before, crowd.account()?.store.commits - commits);
    let rows = u32::try_from(crowd.rows() - rows)?;
    let account = crowd.account()?;
    let tallies = crowd.tallies();
    let slowest = tallies.iter().map(|tally| tally.slowest()).max();
    let repeated: u64 = tallies.iter().map(|tally| tally.repeated()).sum();
    eprintln!(
        "{}: {} conversations, {} rules, repeated {repeated}, harm {}, dropped {:?}",
        case.name,
        account.conversations,
        account.rules,
        crowd.harm(),
        account.dropped
    );
    crowd.halt()?;
    crowd.never_parted()?;
    if !matches!(case.shape, Shape::Fresh | Shape::Everything) {
        crowd.sums_are_exact()?;
    }
    let cpu = cost.cpu.as_secs_f64();
    Ok(format!(
        "| {} | {:.0} | {:.2} | {:.0} % | {:.0} % | {} | {} | {:.1} |",
        case.name,
        f64::from(rows) / took,
        cpu / f64::from(rows) * 1e6,
        cost.system.as_secs_f64() / cpu * 100.0,
        cpu / took * 100.0,
        cost.peak_kib / 1024,
        slowest.unwrap_or_default(),
        f64::from(u32::try_from(commits)?) / took,
    ))
}
