//! Removing worlds: at the end, on a signal, and what a killed process left behind.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Once,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    netns::DIRECTORY,
    process::{output, run},
    wait::until,
};

/// What the name of every namespace of every world begins with; the process id follows.
pub const PREFIX: &str = "or";
/// One directory a world, named as its prefix. It outlives a killed process and tells whose it was.
pub const STATE: &str = "/var/lib/outrider-tests";
/// Inside a world's directory: process id and start time of who made it.
const OWNER: &str = "owner";
/// How long killed processes may take to go.
const DEATH: Duration = Duration::from_secs(20);

/// Worlds of this process that a signal has to remove.
static WORLDS: Mutex<Vec<String>> = Mutex::new(Vec::new());
/// Held for reading while something is made; taken for good by the signal that removes everything.
static MAKING: RwLock<()> = RwLock::new(());

/// Nothing is removed by a signal while this lives, and nothing is made after it.
pub(crate) fn making() -> RwLockReadGuard<'static, ()> {
    MAKING.read()
}

/// Makes a world's directory and remembers the world for clean-up.
pub fn claim(prefix: &str) -> Result<PathBuf> {
    let dir = Path::new(STATE).join(prefix);
    fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    let own = std::process::id();
    let started = start_time(own).context("reading /proc/self/stat")?;
    fs::write(dir.join(OWNER), format!("{own} {started}"))?;
    WORLDS.lock().push(prefix.to_owned());
    Ok(dir)
}

/// Kills every process in a world's namespaces, and removes the namespaces and files. Whatever cannot
/// be removed is left to the next start.
pub fn remove(prefix: &str) {
    let names = namespaces(prefix);
    let gone = until("a world's processes to go", DEATH, || {
        let pids: Vec<_> = names.iter().flat_map(|name| pids(name)).collect();
        for pid in &pids {
            let _gone_already = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        if pids.is_empty() { Ok(()) } else { anyhow::bail!("{pids:?} still run") }
    });
    if gone.is_err() {
        return;
    }
    for name in &names {
        let _left = run(Command::new("ip").args(["netns", "delete", name]));
    }
    let _left = fs::remove_dir_all(Path::new(STATE).join(prefix));
    WORLDS.lock().retain(|world| world != prefix);
}

/// Removes the worlds of processes that are gone.
pub fn leftovers() -> Result<()> {
    let Ok(entries) = fs::read_dir(STATE) else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        if !owner_lives(&entry.path()) {
            remove(&entry.file_name().to_string_lossy());
        }
    }
    Ok(())
}

/// From now on, SIGINT and SIGTERM remove this process's worlds before it ends.
pub fn on_signals() -> Result<()> {
    static ONCE: Once = Once::new();
    let mut started = Ok(());
    ONCE.call_once(|| started = watch());
    started
}

fn watch() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            let number = runtime.block_on(async {
                tokio::select! {
                    biased;
                    _ = interrupt.recv() => Signal::SIGINT as i32,
                    _ = terminate.recv() => Signal::SIGTERM as i32,
                }
            });
            let worlds = WORLDS.lock().clone();
            for world in worlds {
                remove(&world);
            }
            std::process::exit(128 + number);
        })?;
    Ok(())
}

/// The namespaces of a world.
fn namespaces(prefix: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(DIRECTORY) else { return Vec::new() };
    let own = format!("{prefix}-");
    entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(&own))
        .collect()
}

/// The processes in a namespace; threads of ours that entered it are not for us to kill.
fn pids(name: &str) -> Vec<i32> {
    let listed = output(Command::new("ip").args(["netns", "pids", name]));
    let text = listed.map(|output| output.stdout).unwrap_or_default();
    let own = std::process::id();
    String::from_utf8_lossy(&text)
        .split_ascii_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .filter(|pid: &i32| pid.unsigned_abs() != own)
        .collect()
}

/// Whether the process that made a world still runs: same id, same start time. A directory without
/// an owner's file is being made or being removed right now; its name tells by whom.
fn owner_lives(dir: &Path) -> bool {
    let Ok(text) = fs::read_to_string(dir.join(OWNER)) else {
        return owner_in_name(dir).is_some_and(|pid| start_time(pid).is_some());
    };
    let Some((pid, started)) = text.split_once(' ') else { return false };
    pid.parse()
        .is_ok_and(|pid| start_time(pid).is_some_and(|now| now == started))
}

fn owner_in_name(dir: &Path) -> Option<u32> {
    let name = dir.file_name()?.to_str()?;
    name.strip_prefix(PREFIX)?.split_once('x')?.0.parse().ok()
}

/// When a process started, in the kernel's ticks: the 22nd field of its `stat`, the 20th behind the
/// name.
fn start_time(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(19).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_a_living_owner_from_a_dead_one() {
        let dir = tempfile::tempdir().unwrap();
        let own = std::process::id();
        let started = start_time(own).unwrap();
        fs::write(dir.path().join(OWNER), format!("{own} {started}")).unwrap();
        assert!(owner_lives(dir.path()));
        fs::write(dir.path().join(OWNER), format!("{own} 1")).unwrap();
        assert!(!owner_lives(dir.path()));
        fs::write(dir.path().join(OWNER), "no number").unwrap();
        assert!(!owner_lives(dir.path()));
    }
}
