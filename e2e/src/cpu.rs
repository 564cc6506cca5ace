//! What a process costs: seconds of CPU and resident memory, read from `/proc` (proc(5)).

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

/// User and system seconds of a process and of its children that ended.
pub(crate) fn seconds(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).context(path)?;
    let after = text.rsplit_once(')').map_or("", |(_, after)| after);
    // Fields 14 to 17 of proc(5), counted from the one behind the command name, which is field 3.
    let ticks: u64 = after
        .split_whitespace()
        .skip(11)
        .take(4)
        .flat_map(str::parse::<u64>)
        .sum();
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.unwrap_or(100);
    Ok(precise(ticks) / precise(u64::try_from(per_second)?))
}

/// Nanoseconds on a CPU of all threads that a process has.
pub(crate) fn nanos(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/task");
    let mut sum = 0_u64;
    for task in fs::read_dir(&path).context(path)? {
        // A thread may end while this reads.
        let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        let first = text.split_whitespace().next().unwrap_or("0");
        sum = sum.saturating_add(first.parse()?);
    }
    Ok(sum)
}

/// The kernel's threads that take packets when no process is there to be charged.
pub(crate) fn softirq_threads() -> Result<Vec<u32>> {
    let name = |pid: u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let pids =
        fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    Ok(pids
        .filter(|pid| name(*pid).starts_with("ksoftirqd/"))
        .collect())
}

/// Resident memory of a process, in KiB.
pub(crate) fn resident_kib(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(Path::new(&path)).context(path)?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap_or_default();
    Ok(line.split_whitespace().next().unwrap_or("0").parse()?)
}

/// A count as a floating-point number; counts here stay far below 2^53.
pub(crate) fn precise(count: u64) -> f64 {
    let high = u32::try_from(count >> 32).unwrap_or(u32::MAX);
    let low = u32::try_from(count & 0xffff_ffff).unwrap_or(u32::MAX);
    f64::from(high) * 4_294_967_296.0 + f64::from(low)
}
