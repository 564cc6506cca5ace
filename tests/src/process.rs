//! Processes of a world: started in a group of their own, output kept in files.

use std::{
    fs::File,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    errno::Errno,
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

use crate::{wait::until, world::sweep::making};

/// How much of a log an error message quotes.
const LOG_TAIL: usize = 2000;

/// A process that runs until it is stopped; dropping it kills its whole group.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` in a process group of its own; standard output and error are added to `log`.
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let out = File::options().create(true).append(true).open(log)?;
        let err = out.try_clone()?;
        let _making = making();
        let child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .with_context(|| format!("starting {name}: {command:?}"))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its output goes.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The end of its output, for error messages.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let start = text.len().saturating_sub(LOG_TAIL);
        String::from_utf8_lossy(&text[start..]).into_owned()
    }

    /// Fails when it has ended, quoting its log.
    pub fn check_running(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}): {}", self.name, self.log_tail()),
        }
    }

    /// Looks until `probe` succeeds; gives up at once when the process ends.
    pub fn ready(
        &mut self,
        deadline: Duration,
        mut probe: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        let name = self.name.clone();
        let outcome = until(&format!("{name} to be ready"), deadline, || {
            Ok(match self.check_running() {
                Ok(()) => Ok(probe()?),
                Err(ended) => Err(ended),
            })
        });
        outcome.with_context(|| format!("log of {name}: {}", self.log_tail()))?
    }

    /// Sends a signal to its group.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        match killpg(group(&self.child)?, signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("signalling {}", self.name)),
        }
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end and waits for its exit status.
    pub fn terminate(mut self, deadline: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        until(&format!("{} to end", self.name.clone()), deadline, || {
            self.child.try_wait()?.context("still running")
        })
    }

    /// Waits until it ends by itself.
    pub fn wait(mut self, deadline: Duration) -> Result<ExitStatus> {
        until(&format!("{} to end", self.name.clone()), deadline, || {
            self.child.try_wait()?.context("still running")
        })
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _gone_already = self.signal(Signal::SIGKILL);
            let _reaped = self.child.wait();
        }
    }
}

fn group(child: &Child) -> Result<Pid> {
    Ok(Pid::from_raw(i32::try_from(child.id())?))
}

/// Runs a command to its end, as a fallible step: an exit status other than 0 is an error that quotes
/// what the command wrote.
pub fn run(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    bail!("{command:?}: {}: {text}{errors}", output.status)
}

/// Runs a command to its end.
pub fn output(command: &mut Command) -> Result<Output> {
    command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("running {command:?}"))
}
