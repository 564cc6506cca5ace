//! What a process takes, and how long things are on their way.

use std::time::Duration;

use tokio::time::Instant;

use crate::world::Replica;

/// What a process took since the last row.
pub(crate) struct Meter {
    at: Instant,
    cpu: f64,
    counts: [f64; 3],
}

impl Meter {
    pub(crate) fn new() -> Self {
        Self { at: Instant::now(), cpu: 0.0, counts: [0.0; 3] }
    }

    /// From now on.
    pub(crate) async fn skip(&mut self, replica: &Replica) {
        let (cpu, _) = process(replica.child.id());
        *self = Self { at: Instant::now(), cpu, counts: counts(replica).await };
    }

    /// One line; what was counted is divided by so many events too.
    pub(crate) async fn row(&mut self, replica: &Replica, what: &str, events: usize) {
        let (cpu, memory) = process(replica.child.id());
        let now = counts(replica).await;
        let [calls, updates, bytes] = [0, 1, 2].map(|at| now[at] - self.counts[at]);
        let used = cpu - self.cpu;
        #[expect(clippy::cast_precision_loss, reason = "it is no more than thousands")]
        let each = events.max(1) as f64;
        println!(
            "| {what} | {:.1} | {used:.2} | {:.2} | {memory:.0} | {calls:.0} | {:.2} | {updates:.0} | {:.0} |",
            self.at.elapsed().as_secs_f64(),
            used * 1000.0 / each,
            calls / each,
            if updates > 0.0 { bytes / updates } else { 0.0 },
        );
        (self.at, self.cpu, self.counts) = (Instant::now(), cpu, now);
    }
}

/// Above all rows.
pub(crate) const HEAD: &str = "| what | seconds | CPU s | CPU ms an event | RSS MiB | API calls | an event | updates | bytes an update |\n\
    |---|--:|--:|--:|--:|--:|--:|--:|--:|";

async fn counts(replica: &Replica) -> [f64; 3] {
    let text = replica.get("/metrics").await.unwrap_or_default();
    [
        "outrider_controller_api_calls_total",
        "outrider_controller_updates_total",
        "outrider_controller_update_bytes_total",
    ]
    .map(|family| {
        let rows = text.lines().filter(|line| line.starts_with(family));
        rows.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    })
}

/// Middle and end of some times.
pub(crate) fn spread(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)];
    format!("p50 {:.0?}, p99 {:.0?}, most {:.0?}", at(50), at(99), at(100))
}

/// CPU seconds and resident MiB of a process.
pub(crate) fn process(pid: u32) -> (f64, f64) {
    let read =
        |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let stat = read("stat");
    let fields: Vec<_> = stat
        .rsplit(") ")
        .next()
        .unwrap_or_default()
        .split(' ')
        .collect();
    let ticks = |at: usize| {
        fields
            .get(at)
            .and_then(|text| text.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    let resident = read("status");
    let resident = resident
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"));
    let resident =
        resident.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok());
    ((ticks(11) + ticks(12)) / 100.0, resident.unwrap_or(0.0) / 1024.0)
}
