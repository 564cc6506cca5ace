//! What a process has cost: CPU and memory, from `/proc` (proc(5)).

use std::{fs, ops::Sub, time::Duration};

use anyhow::{Context as _, Result};
use nix::unistd::{SysconfVar, sysconf};

/// A process's account since it started, or between two looks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Time on a CPU, in user mode and in the kernel.
    pub cpu: Duration,
    /// Of that, in the kernel.
    pub system: Duration,
    /// Most memory that was ever resident, in KiB.
    pub peak_kib: u64,
    /// Memory that is resident, in KiB.
    pub resident_kib: u64,
}

impl Cost {
    /// What `pid` has cost.
    pub fn of(pid: u32) -> Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let fields = stat.rsplit_once(')').context("no stat")?.1;
        // Fields 14 and 15, counted from the one behind the name, which is field 3.
        let mut ticks = fields.split_whitespace().skip(11).map(str::parse::<u64>);
        let mut next = || ticks.next().context("too few fields")?.context("no number");
        let (user, system) = (next()?, next()?);
        let second = u64::try_from(sysconf(SysconfVar::CLK_TCK)?.unwrap_or(100))?.max(1);
        let time = |ticks: u64| Duration::from_millis(ticks * 1000 / second);
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
            number.with_context(|| format!("no {name}"))
        };
        Ok(Self {
            cpu: time(user + system),
            system: time(system),
            peak_kib: kib("VmHWM:")?,
            resident_kib: kib("VmRSS:")?,
        })
    }
}

impl Sub for Cost {
    type Output = Self;

    /// What was spent between two looks; memory as at the later one.
    fn sub(self, earlier: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            system: self.system.saturating_sub(earlier.system),
            ..self
        }
    }
}
