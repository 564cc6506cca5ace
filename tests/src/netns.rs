//! Network namespaces by name.

use std::{ffi::OsStr, fs::File, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context as _, Result, anyhow};
use nix::sched::{CloneFlags, setns};

use crate::{process::run, world::sweep::making};

/// Where iproute2 keeps named namespaces.
pub const DIRECTORY: &str = "/run/netns";

/// A named network namespace. Whoever made it removes it; see [`crate::world::sweep`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Namespace(String);

impl Namespace {
    /// Makes a namespace and brings its loopback up.
    pub fn create(name: &str) -> Result<Self> {
        let _making = making();
        run(Command::new("ip").args(["netns", "add", name]))?;
        let namespace = Self(name.to_owned());
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }

    /// Where it can be opened.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(DIRECTORY).join(&self.0)
    }

    /// Runs `ip` on it; the arguments have no spaces of their own.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        run(Command::new("ip")
            .args(["-n", &self.0])
            .args(arguments.split_ascii_whitespace()))
    }

    /// Sets a kernel parameter of the namespace, by its path below `/proc/sys`.
    pub fn sysctl(&self, path: &str, value: &str) -> Result<()> {
        let script = format!("echo {value} > /proc/sys/{path}");
        run(self.command("sh").args(["-c", &script])).map(drop)
    }

    /// A command that will run in the namespace, as root.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0]).arg(program);
        command
    }

    /// A command that will run in the namespace and is killed once `limit` has passed.
    pub fn limited(&self, limit: Duration, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.command("timeout");
        command
            .args(["--kill-after=2", &limit.as_secs().max(1).to_string()])
            .arg(program);
        command
    }

    /// Runs a shell script in the namespace and returns its output; fails as the script fails.
    pub fn sh(&self, limit: Duration, script: &str) -> Result<String> {
        run(self.limited(limit, "sh").args(["-c", script]))
    }

    /// Runs `work` on a thread of its own inside the namespace.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let path = self.path();
        std::thread::scope(|scope| {
            scope
                .spawn(move || {
                    let file =
                        File::open(&path).with_context(|| format!("opening {}", path.display()))?;
                    setns(file, CloneFlags::CLONE_NEWNET)?;
                    work()
                })
                .join()
                .map_err(|_panic| anyhow!("the work in {} panicked", self.0))?
        })
    }
}
