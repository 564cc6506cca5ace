//! What a proxy costs: its share of the machine's CPU time and its memory, in slots of 5 s, as far
//! as `/proc` shows its process.

use std::{collections::VecDeque, convert::Infallible, path::Path, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval};

use super::peer::Gate;

/// Time between two looks.
const SLOT: Duration = Duration::from_secs(5);
/// Slots of the windows that are asked for: 5 s, 1 min, 5 min.
const WINDOWS: [usize; 3] = [1, 12, 60];
/// Slots that are kept.
const MAX_SLOTS: usize = 60;

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Usage {
    /// When it started: another process has another time.
    pub(crate) start: u64,
    /// CPU time in ticks.
    pub(crate) busy: u64,
    /// Bytes in memory.
    pub(crate) memory: u64,
}

/// Averages over a window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Average {
    /// Share of the time of all CPUs, 0 to 1.
    pub(crate) cpu: f64,
    /// Bytes.
    pub(crate) memory: u64,
}

/// The last five minutes of one proxy.
#[derive(Debug, Default)]
pub(crate) struct Load(Mutex<Slots>);

#[derive(Debug, Default)]
struct Slots {
    /// What was used at the last look, by the process and by the machine.
    before: Option<(Usage, u64)>,
    kept: VecDeque<Average>,
}

impl Load {
    /// Averages over the last 5 s, 1 min, 5 min; 0 if the process is not seen.
    pub(crate) fn averages(&self) -> [Average; 3] {
        let slots = self.0.lock();
        WINDOWS.map(|size| {
            let count = slots.kept.len().min(size).max(1);
            let last = slots.kept.iter().rev().take(size);
            let (cpu, memory) = last.fold((0.0, 0u64), |(cpu, memory), one| {
                (cpu + one.cpu, memory.saturating_add(one.memory))
            });
            let slots = u32::try_from(count).unwrap_or(u32::MAX);
            Average { cpu: cpu / f64::from(slots), memory: memory / u64::from(slots) }
        })
    }

    /// Takes in a look: what the process and the machine have used so far.
    fn note(&self, seen: Option<(Usage, u64)>) {
        let mut slots = self.0.lock();
        let Some((now, machine)) = seen else {
            *slots = Slots::default();
            return;
        };
        if let Some((then, machine_then)) = slots.before.replace((now, machine)) {
            let is_same = then.start == now.start;
            let busy = if is_same { now.busy.saturating_sub(then.busy) } else { now.busy };
            if slots.kept.len() == MAX_SLOTS {
                slots.kept.pop_front();
            }
            let cpu = share(busy, machine.saturating_sub(machine_then));
            slots.kept.push_back(Average { cpu, memory: now.memory });
        }
    }
}

/// Looks every 5 s, for as long as it is polled.
pub(super) async fn follow(load: Arc<Load>, gate: Gate) -> Infallible {
    let mut ticker = interval(SLOT);
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticker.tick().await;
        load.note(gate.usage().zip(machine(Path::new("/proc/stat"))));
    }
}

fn share(part: u64, whole: u64) -> f64 {
    let small = |number: u64| f64::from(u32::try_from(number).unwrap_or(u32::MAX));
    if whole == 0 { 0.0 } else { (small(part) / small(whole)).min(1.0) }
}

/// Ticks that all CPUs spent, idle ones included.
fn machine(stat: &Path) -> Option<u64> {
    /// Of the numbers, those after these are counted among them already.
    const COUNTED: usize = 8;
    let text = std::fs::read_to_string(stat).ok()?;
    let numbers = text.lines().next()?.strip_prefix("cpu ")?;
    let ticks = numbers.split_ascii_whitespace().take(COUNTED);
    ticks.map(|one| one.parse::<u64>().ok()).sum()
}

/// Reads `stat` and `status` of a process; its start time is known.
pub(super) fn usage(start: u64, stat: &str, status: &str) -> Option<Usage> {
    // The name in brackets may hold anything, brackets too.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let memory = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?
        .trim()
        .strip_suffix(" kB")?
        .parse::<u64>()
        .ok()?;
    Some(Usage { start, busy: user.saturating_add(system), memory: memory.saturating_mul(1024) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(start: u64, busy: u64, memory: u64) -> Usage {
        Usage { start, busy, memory }
    }

    #[test]
    fn windows_are_averages_of_their_slots() {
        let load = Load::default();
        assert_eq!(load.averages(), [Average::default(); 3]);
        load.note(Some((used(1, 100, 10), 1000)));
        assert_eq!(load.averages()[0], Average::default(), "there is nothing to compare with");
        load.note(Some((used(1, 300, 20), 2000)));
        load.note(Some((used(1, 300, 40), 3000)));
        let [last, minute, five_minutes] = load.averages();
        assert_eq!((last.cpu, last.memory), (0.0, 40));
        assert_eq!((minute.cpu, minute.memory), (0.1, 30));
        assert_eq!(minute, five_minutes);
        for at in 0..100 {
            load.note(Some((used(1, 300, 40), 4000 + at)));
        }
        assert_eq!(load.0.lock().kept.len(), MAX_SLOTS);
        load.note(None);
        assert_eq!(load.averages(), [Average::default(); 3], "it is not seen any more");
    }

    #[test]
    fn a_new_process_begins_at_its_own_beginning() {
        let load = Load::default();
        load.note(Some((used(1, 900, 1), 1000)));
        load.note(Some((used(2, 50, 1), 2000)));
        assert_eq!(load.averages()[0].cpu, 0.05);
    }

    #[test]
    fn this_process_uses_memory_and_the_machine_has_time() {
        let read = |name| std::fs::read_to_string(Path::new("/proc/self").join(name)).unwrap();
        let found = usage(7, &read("stat"), &read("status")).unwrap();
        assert!(found.start == 7 && found.memory > 1 << 16, "{found:?}");
        assert!(machine(Path::new("/proc/stat")).unwrap() > found.busy);
        assert_eq!(usage(7, "1 (a) b) R", "VmRSS: 1 kB"), None);
        let stat = "1 (a) b) R 1 2 3 4 5 6 7 8 9 10 30 12 13";
        assert_eq!(usage(7, stat, "VmRSS:\t  2 kB\n"), Some(used(7, 42, 2048)));
    }
}
