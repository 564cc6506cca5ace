//! Network namespaces other than the process's own.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, ErrorKind},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Component, Path},
    thread,
};

use nix::{
    sched::{CloneFlags, setns},
    sys::statfs::{NSFS_MAGIC, fstatfs},
};
use tokio::runtime::Handle;

use crate::CaptureError;

/// A network namespace that was found by its path.
#[derive(Debug)]
pub struct Namespace {
    file: File,
    own: bool,
}

impl Namespace {
    /// Opens the namespace of a process, `/proc/<pid>/ns/net`, or one that has a name, `/run/netns/<name>`,
    /// and the like: `docs/capture.md` has the list. No other path is looked at.
    ///
    /// # Errors
    /// It is no such path, there is nothing, it is no namespace, or the process may not see it.
    pub fn open(path: &str) -> Result<Self, CaptureError> {
        let place = Place::of(Path::new(path)).ok_or(CaptureError::NamespacePath)?;
        let link = if place == Place::Named { libc::O_NOFOLLOW } else { 0 };
        let file = File::options()
            .read(true)
            .custom_flags(link | libc::O_NONBLOCK)
            .open(path)
            .map_err(|source| missing_or_failed("open", source))?;
        let failed = |source| CaptureError::Namespace { step: "look at it", source };
        let kind = fstatfs(&file).map_err(|errno| failed(errno.into()))?;
        if kind.filesystem_type() != NSFS_MAGIC {
            return Err(failed(ErrorKind::InvalidInput.into()));
        }
        let (it, ours) = (file.metadata(), std::fs::metadata(OWN));
        let (it, ours) = (it.map_err(failed)?, ours.map_err(failed)?);
        Ok(Self { file, own: (it.dev(), it.ino()) == (ours.dev(), ours.ino()) })
    }

    /// Whether it was the namespace of the thread that opened it.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.own
    }

    /// Does `work` inside, on a thread that ends there. A [`Tap`](crate::Tap), [`Pair`](crate::Pair) or
    /// [`Queue`](crate::Queue) that is opened there stays there and can be used from anywhere. Needs
    /// `SYS_ADMIN`.
    ///
    /// # Errors
    /// The process may not enter, it is no network namespace, or there is no thread left.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, CaptureError> {
        let runtime = Handle::try_current().ok();
        let failed = |step| move |source| CaptureError::Namespace { step, source };
        let inside = move || {
            let entered = setns(&self.file, CloneFlags::CLONE_NEWNET);
            entered.map_err(|errno| missing_or_failed("enter", errno.into()))?;
            let _runtime = runtime.as_ref().map(Handle::enter);
            Ok(work())
        };
        thread::scope(|scope| {
            let thread = thread::Builder::new().name("namespace".to_owned());
            let thread = thread
                .spawn_scoped(scope, inside)
                .map_err(failed("start a thread"))?;
            let ended = thread.join();
            ended.unwrap_or_else(|_| Err(failed("work in it")(ErrorKind::Other.into())))
        })
    }
}

/// Where paths of namespaces are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Place {
    /// A link of the kernel's.
    Process,
    /// A file that somebody has mounted the namespace on.
    Named,
}

impl Place {
    fn of(path: &Path) -> Option<Self> {
        if path.as_os_str().len() > MAX_PATH {
            return None;
        }
        let parts = path.components().map(|part| match part {
            Component::RootDir => Some(OsStr::new("/")),
            Component::Normal(name) => Some(name),
            _ => None,
        });
        let parts: Option<Vec<_>> = parts.collect();
        let parts: Option<Vec<_>> = parts?.into_iter().map(OsStr::to_str).collect();
        match parts?[..] {
            ["/", "proc", pid, "ns", "net"] | ["/", "host", "proc", pid, "ns", "net"] => {
                is_process(pid).then_some(Self::Process)
            }
            ["/", "run", "netns", _]
            | ["/", "var", "run", "netns", _]
            | ["/", "run", "docker", "netns", _]
            | ["/", "var", "run", "docker", "netns", _] => Some(Self::Named),
            _ => None,
        }
    }
}

fn is_process(pid: &str) -> bool {
    pid == "self" || pid.bytes().all(|byte| byte.is_ascii_digit())
}

fn missing_or_failed(step: &'static str, source: io::Error) -> CaptureError {
    let failed = |source| CaptureError::Namespace { step, source };
    let what = "another network namespace";
    CaptureError::or_missing(
        "SYS_ADMIN and, for other users' processes, SYS_PTRACE",
        what,
        source,
        failed,
    )
}

const OWN: &str = "/proc/thread-self/ns/net";
/// Length of a path at most.
const MAX_PATH: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_paths_that_agents_name_and_no_other() {
        let long = format!("/run/netns/{}", "x".repeat(MAX_PATH));
        for path in ["/proc/4321/ns/net", "/host/proc/1/ns/net", "/proc/self/ns/net"] {
            assert_eq!(Place::of(Path::new(path)), Some(Place::Process), "{path}");
        }
        for path in ["/var/run/netns/blue", "/run/netns/cni-1", "/var/run/docker/netns/1a2b"] {
            assert_eq!(Place::of(Path::new(path)), Some(Place::Named), "{path}");
        }
        for path in [
            "",
            "net",
            "/proc/1/ns/mnt",
            "/proc/1/root/ns/net",
            "/proc/../proc/1/ns/net",
            "/proc/thread-self/ns/net",
            "/etc/passwd",
            "/dev/tty",
            "/run/netns",
            "/run/netns/../x",
            "/run/netns/a/b",
            "proc/1/ns/net",
            &long,
        ] {
            assert_eq!(Namespace::open(path).unwrap_err().reason(), "namespace", "{path}");
        }
    }

    #[test]
    fn knows_its_own() {
        assert!(Namespace::open("/proc/self/ns/net").unwrap().is_own());
        let error = Namespace::open("/proc/4194999/ns/net").unwrap_err();
        assert_eq!(error.reason(), "namespace", "{error}");
    }
}
