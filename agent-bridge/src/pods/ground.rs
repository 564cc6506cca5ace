//! The pods' mailbox directories: given to their proxies, and taken away when the pods are gone.
//!
//! The kubelet makes a directory as root's when it mounts it, so it is made here first if there is time, and
//! given to the proxy in any case, by descriptor and never through a link. Only directories of pods that the API
//! server names are touched.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::UnixDatagram,
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open, openat},
    sys::stat::{Mode, fchmod, fstat, mkdirat},
    unistd::{Gid, Uid, UnlinkatFlags, fchown, geteuid, unlinkat},
};
use outrider_model::names;

/// Who may enter a mailbox: its owner.
const MODE: Mode = Mode::S_IRWXU;
/// Entries of a directory that are looked at before it is removed.
const MAX_ENTRIES: usize = 64;
/// Entries of the root that are looked at for directories without a pod.
const MAX_DIRECTORIES: usize = 4096;
/// Length of a pod's uid.
const UID_LENGTH: usize = 36;

/// Why a directory is not given to its proxy, or not removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GroundError {
    /// It belongs to neither the proxy nor us, so who made it is not known.
    #[error("belongs to uid {0}, neither to the proxy nor to the kubelet")]
    Foreign(u32),
    /// It holds what neither a proxy nor a bridge puts there.
    #[error("holds {0:?}, which is nobody's here; it stays")]
    Holds(OsString),
    /// A proxy listens in it.
    #[error("is in use")]
    Alive,
    /// A link, a file, or what the system says.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<Errno> for GroundError {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// The root of the mailboxes, and whose they are to be.
#[derive(Clone, Debug)]
pub(crate) struct Ground {
    root: PathBuf,
    owner: u32,
}

impl Ground {
    /// Mailboxes below `root`. A bridge that is not root can give nothing away: they are its own then.
    pub(crate) fn new(root: PathBuf) -> Self {
        let own = geteuid();
        let owner = if own.is_root() { names::PROXY_UID } else { own.as_raw() };
        Self { root, owner }
    }

    /// Makes the root, if it is not there.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn lay(&self) -> io::Result<()> {
        std::fs::create_dir_all(&self.root)
    }

    /// Makes the directory of a pod unless it is there, and gives it to the proxy. Of the same pod twice is once.
    ///
    /// # Errors
    /// When it is a link or no directory, or somebody else's.
    pub(crate) fn prepare(&self, uid: &str) -> Result<(), GroundError> {
        let root = self.open_root()?;
        match mkdirat(&root, uid, MODE) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let found = open_below(&root, uid)?;
        let stat = fstat(&found)?;
        let is_ours = stat.st_uid == geteuid().as_raw();
        if stat.st_uid != self.owner && !is_ours {
            return Err(GroundError::Foreign(stat.st_uid));
        }
        // Nobody but us and the owner could have changed it in between, and the owner may.
        if Mode::from_bits_truncate(stat.st_mode) != MODE {
            fchmod(&found, MODE)?;
        }
        if stat.st_uid != self.owner || stat.st_gid != self.owner && is_ours {
            fchown(&found, Some(Uid::from_raw(self.owner)), Some(Gid::from_raw(self.owner)))?;
        }
        Ok(())
    }

    /// Directories that are called as pods are.
    pub(crate) fn uids(&self) -> BTreeSet<String> {
        let Ok(entries) = std::fs::read_dir(&self.root) else { return BTreeSet::new() };
        entries
            .take(MAX_DIRECTORIES)
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| is_pod_uid(name))
            .collect()
    }

    /// Removes a directory and what a proxy and a bridge leave in it.
    ///
    /// # Errors
    /// When it holds anything else, or the system says so; nothing is removed from one that holds something foreign.
    pub(crate) fn remove(&self, uid: &str) -> Result<(), GroundError> {
        let root = self.open_root()?;
        let found = match open_below(&root, uid) {
            Err(Errno::ENOENT) => return Ok(()),
            other => other?,
        };
        let own = leftovers(&found)?;
        let listener = format!("/proc/self/fd/{}/{}", found.as_raw_fd(), names::DP_LISTEN);
        if UnixDatagram::unbound()?.connect(listener).is_ok() {
            return Err(GroundError::Alive);
        }
        for name in own {
            match unlinkat(&found, name.as_os_str(), UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        unlinkat(&root, uid, UnlinkatFlags::RemoveDir).map_err(GroundError::from)
    }

    fn open_root(&self) -> Result<OwnedFd, Errno> {
        open(&self.root, OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
    }
}

/// A directory below another one; a link is refused.
fn open_below(root: &impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_RDONLY;
    openat(root, Path::new(name), flags, Mode::empty())
}

/// What is in a directory, if all of it is a proxy's or a bridge's.
fn leftovers(directory: &OwnedFd) -> Result<Vec<OsString>, GroundError> {
    let mut own = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/self/fd/{}", directory.as_raw_fd()))? {
        let entry = entry?;
        let name = entry.file_name();
        if own.len() == MAX_ENTRIES || entry.file_type()?.is_dir() || !is_own(&name) {
            return Err(GroundError::Holds(name));
        }
        own.push(name);
    }
    Ok(own)
}

fn is_own(name: &OsString) -> bool {
    let Some(name) = name.to_str() else { return false };
    [names::CTRL_LISTEN, names::DP_LISTEN, "policy.json", "policy.json.new"].contains(&name)
        || name.starts_with("dp_client.")
}

/// Whether a name has the form of a pod's uid: a UUID, or the 32 digits of a static pod.
pub(crate) fn is_pod_uid(name: &str) -> bool {
    let bytes = name.as_bytes();
    let dash = |at: usize| bytes.len() == UID_LENGTH && [8, 13, 18, 23].contains(&at);
    let fits = |(at, byte): (usize, &u8)| {
        if dash(at) { *byte == b'-' } else { byte.is_ascii_hexdigit() }
    };
    matches!(bytes.len(), UID_LENGTH | 32) && bytes.iter().enumerate().all(fits)
}

#[cfg(test)]
mod tests;
