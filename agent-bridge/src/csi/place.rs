//! Where a volume goes: a pod's mailbox is bound to the one path below the kubelet's directory that is meant for it.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::stat::{Mode, fstat},
};
use thiserror::Error;

use crate::{
    inject::MAILBOX,
    pods::ground::{Ground, GroundError, is_pod_uid},
};

/// Mounts that may lie over one another at one place.
const MAX_LAYERS: usize = 16;

/// Why there is no volume.
#[derive(Debug, Error)]
pub(crate) enum PlaceError {
    /// The path is not where the kubelet puts such a volume of that pod.
    #[error("{0}: not <kubelet>/pods/<uid>/volumes/kubernetes.io~csi/outrider-mailbox/mount")]
    Elsewhere(String),
    /// What is there is not ours to take.
    #[error("{0}: holds something else")]
    Taken(String),
    /// The mailbox is not to be had.
    #[error("mailbox directory {0}")]
    Ground(#[from] GroundError),
    /// What the system says.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl From<Errno> for PlaceError {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// Makes and undoes the mounts.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    pods: PathBuf,
    kubelet: PathBuf,
    ground: Ground,
}

impl Places {
    /// Mailboxes below `pods`, volumes below `kubelet`.
    pub(crate) fn new(pods: PathBuf, kubelet: PathBuf) -> Self {
        Self { ground: Ground::new(pods.clone()), pods, kubelet }
    }

    /// Mounts the mailbox of a pod; once it is, again is nothing.
    ///
    /// # Errors
    /// When the path is another pod's or no volume's, or the system refuses.
    pub(crate) fn publish(&self, uid: &str, target: &str) -> Result<(), PlaceError> {
        if self.owner(target)? != uid {
            return Err(PlaceError::Elsewhere(target.to_owned()));
        }
        self.ground.lay()?;
        self.ground.prepare(uid)?;
        let mailbox = directory(&self.pods.join(uid))?;
        match std::fs::create_dir(target) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.into()),
            _ => {}
        }
        let place = directory(Path::new(target))?;
        if is_same(&mailbox, &place)? {
            return Ok(());
        }
        if std::fs::read_dir(target)?.next().is_some() {
            return Err(PlaceError::Taken(target.to_owned()));
        }
        let at = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
        let none: Option<&str> = None;
        mount(Some(at(&mailbox).as_str()), at(&place).as_str(), none, MsFlags::MS_BIND, none)?;
        let flags = MsFlags::MS_BIND
            | MsFlags::MS_REMOUNT
            | MsFlags::MS_NOSUID
            | MsFlags::MS_NODEV
            | MsFlags::MS_NOEXEC;
        // By name now: what was opened lies below the mount.
        mount(none, target, none, flags, none)?;
        Ok(())
    }

    /// Undoes it; of what is not there nothing is undone. The mailbox goes too, if nobody uses it.
    ///
    /// # Errors
    /// When the path is no volume's, or the system refuses.
    pub(crate) fn unpublish(&self, target: &str) -> Result<(), PlaceError> {
        let uid = self.owner(target)?;
        for _ in 0..MAX_LAYERS {
            match umount2(target, MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH) {
                Ok(()) => {}
                Err(Errno::EINVAL | Errno::ENOENT) => break,
                Err(error) => return Err(error.into()),
            }
        }
        match std::fs::remove_dir(target) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        if let Err(error) = self.ground.remove(uid) {
            tracing::debug!(%error, uid, "the mailbox directory stays for now");
        }
        Ok(())
    }

    /// The uid in a path, if it is one of a volume of ours.
    fn owner<'t>(&self, target: &'t str) -> Result<&'t str, PlaceError> {
        let elsewhere = || PlaceError::Elsewhere(target.to_owned());
        let below = Path::new(target)
            .strip_prefix(&self.kubelet)
            .ok()
            .ok_or_else(elsewhere)?;
        let mut parts = below.components().map(|part| match part {
            Component::Normal(name) => name.to_str(),
            _ => None,
        });
        let mut next = || parts.next().flatten();
        let (pods, uid) = (next(), next());
        let rest = [next(), next(), next(), next()];
        let is_ours = pods == Some("pods")
            && rest == ["volumes", "kubernetes.io~csi", MAILBOX, "mount"].map(Some)
            && parts.next().is_none()
            && !target.contains("//")
            && !target.contains("/./");
        uid.filter(|uid| is_ours && is_pod_uid(uid))
            .ok_or_else(elsewhere)
    }
}

/// A directory that is no link.
fn directory(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_PATH;
    open(path, flags, Mode::empty())
}

fn is_same(one: &OwnedFd, other: &OwnedFd) -> Result<bool, Errno> {
    let (one, other) = (fstat(one)?, fstat(other)?);
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

#[cfg(test)]
mod tests;
