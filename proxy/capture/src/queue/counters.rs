//! What a queue counts, and what the kernel counts of it.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::atomic::{AtomicU64, Ordering},
};

/// Packets since the queue was opened. Every one that was `received` ends in one of `decided`,
/// `undecided`, `overflow` and `stalled`, or still waits.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct QueueCounters {
    /// Came from the kernel.
    pub received: u64,
    /// Got their verdict from who decides.
    pub decided: u64,
    /// Were let go by who decides without a verdict: the mode decided.
    pub undecided: u64,
    /// Found no room on the way to who decides: the mode decided.
    pub overflow: u64,
    /// Waited longer than the patience: the mode decided.
    pub stalled: u64,
    /// Verdicts that came after that.
    pub late: u64,
    /// Never came, because the kernel had no memory for them: the mode decided.
    pub lost: u64,
    /// Requests or verdicts that the kernel refused.
    pub refused: u64,
    /// Messages that made no sense.
    pub malformed: u64,
    /// The kernel's own figures, which only root may read.
    pub kernel: Option<KernelCounters>,
}

/// What the kernel says of a queue.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct KernelCounters {
    /// Packets that wait for a verdict.
    pub waiting: u64,
    /// Dropped because as many waited as may.
    pub full: u64,
    /// Dropped because the socket had no room.
    pub lost: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) received: AtomicU64,
    pub(super) decided: AtomicU64,
    pub(super) undecided: AtomicU64,
    pub(super) overflow: AtomicU64,
    pub(super) stalled: AtomicU64,
    pub(super) late: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) malformed: AtomicU64,
}

impl Counts {
    pub(super) fn snapshot(&self, kernel: Option<KernelCounters>) -> QueueCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        QueueCounters {
            received: read(&self.received),
            decided: read(&self.decided),
            undecided: read(&self.undecided),
            overflow: read(&self.overflow),
            stalled: read(&self.stalled),
            late: read(&self.late),
            lost: read(&self.lost),
            refused: read(&self.refused),
            malformed: read(&self.malformed),
            kernel,
        }
    }
}

pub(super) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

/// Reads the kernel's table again, whichever namespace this thread is in.
pub(super) fn read(table: &File) -> io::Result<String> {
    let mut text = Vec::new();
    let mut part = [0; 4096];
    loop {
        let length = table.read_at(&mut part, text.len() as u64)?;
        if length == 0 || text.len() > MAX_TABLE {
            return Ok(String::from_utf8_lossy(&text).into_owned());
        }
        text.extend(part.get(..length).unwrap_or_default());
    }
}

/// Finds a queue in the kernel's table: number, owner, waiting, copy mode, copy range, dropped
/// because it was full, dropped because the socket was.
pub(super) fn of_kernel(table: &str, queue: u16) -> Option<KernelCounters> {
    let line = table.lines().find_map(|line| {
        let columns: Vec<u64> = line
            .split_whitespace()
            .map_while(|text| text.parse().ok())
            .collect();
        (columns.first() == Some(&u64::from(queue))).then_some(columns)
    })?;
    let [_, _, waiting, _, _, full, lost, ..] = line[..] else { return None };
    Some(KernelCounters { waiting, full, lost })
}

/// Length of the table at most: a line for each of 65 536 queues.
const MAX_TABLE: usize = 8 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_queue_in_the_kernels_table() {
        let table = "    5  31337     3 2 65531     4     5       12  1\n    6 1 0 2 1 0 0 0 1\n";
        let want = KernelCounters { waiting: 3, full: 4, lost: 5 };
        assert_eq!(of_kernel(table, 5), Some(want));
        assert_eq!(of_kernel(table, 6), Some(KernelCounters::default()));
        assert_eq!(of_kernel(table, 7), None);
        assert_eq!(of_kernel("5 1 2", 5), None);
    }
}
