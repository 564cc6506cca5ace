//! 500 proxies in front of one bridge, some of them hostile: who behaves loses nothing. `make bench`
//! has the figures.

#![cfg(test)]

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, ensure};
use outrider_tests::{
    crowd::{
        Crowd, Plan,
        member::Tally,
        mischief::Mischief,
        traffic::{Shape, Traffic},
    },
    until,
};

/// Proxies, as many as a large node has.
const SIZE: u32 = 500;
/// How long the reports may take; a machine that does nothing else takes some seconds.
const PATIENCE: Duration = Duration::from_secs(240);
/// What the bridge takes at most in front of so many with every table full, in KiB; see docs/bridge.md.
const MEMORY: u64 = 448 << 10;

#[test]
fn who_behaves_among_500_loses_nothing_to_those_who_do_not() -> Result<()> {
    let mischief: Vec<_> = Mischief::ALL.iter().copied().cycle().take(10).collect();
    let rows = 170;
    let crowd = Crowd::start(Plan {
        size: SIZE,
        foreign: 10,
        mischief,
        traffic: Traffic { peers: SIZE, rows, shape: Shape::Steady(8) },
        pace: Duration::from_secs(4),
        mode: "monitor",
    })?;
    crowd.go();
    until("everybody to have reported twice, and to be alive", PATIENCE, || {
        let done = |tally: &Tally| tally.waves() >= 2 && tally.keep_alives() >= 3;
        let waiting = crowd.tallies().iter().filter(|tally| !done(tally)).count();
        ensure!(waiting == 0, "{waiting} still wait");
        Ok(())
    })?;
    crowd.halt()?;
    crowd.never_parted()?;
    crowd.sums_are_exact()?;
    ensure!(crowd.tallies().iter().all(|tally| tally.unreadable() == 0), "requests are readable");
    let account = crowd.account()?;
    for reason in [
        "malformed",
        "unknown-kind",
        "foreign-mac",
        "incomplete-batch",
        "oversize-batch",
        "mailbox-full",
    ] {
        ensure!(account.dropped.contains_key(reason), "{reason}: {:?}", account.dropped);
    }
    bounded(&crowd, &account.dropped)
}

/// Every table that has a bound, by the reason that is counted at it.
const BOUNDS: [&str; 8] = [
    "conversations-full",
    "violations-full",
    "candidates-full",
    "rules-full",
    "threats-full",
    "samples-full",
    "names-full",
    "ports-full",
];

#[test]
fn with_every_table_full_the_memory_that_is_stated_is_enough() -> Result<()> {
    let crowd = Crowd::start(Plan {
        size: SIZE,
        foreign: 0,
        mischief: Vec::new(),
        traffic: Traffic { peers: SIZE, rows: 170, shape: Shape::Everything },
        pace: Duration::ZERO,
        mode: "discover",
    })?;
    crowd.go();
    until("every table to be full", PATIENCE, || {
        let account = crowd.account()?;
        let full = |reason: &&str| account.dropped.contains_key(*reason);
        ensure!(BOUNDS.iter().all(full), "{account:?}");
        Ok(())
    })?;
    let account = crowd.account()?;
    ensure!(account.conversations > 28_000 && account.rules > 20_000, "{account:?}");
    bounded(&crowd, &account.dropped)
}

fn bounded(crowd: &Crowd, dropped: &BTreeMap<String, u64>) -> Result<()> {
    let cost = crowd.cost()?;
    let (rows, harm) = (crowd.rows(), crowd.harm());
    eprintln!("{rows} rows, {harm} harmful datagrams, {cost:?}, dropped {dropped:?}");
    ensure!(cost.peak_kib < MEMORY, "{} KiB", cost.peak_kib);
    Ok(())
}
