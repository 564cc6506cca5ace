//! One pod's mailbox directory, handled as the hostile place it is.
//!
//! The pod may put anything under any name at any moment: a symbolic link to another pod's socket,
//! a directory, a million files. So every name is resolved from the directory's descriptor, never
//! through a link, and what was looked at is what is used: a found socket is pinned by an `O_PATH`
//! descriptor, checked, and then reached through `/proc/self/fd`, which names the inode itself.

use std::{
    fs::Permissions,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::PermissionsExt, net::UnixDatagram as StdDatagram},
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, openat},
    sys::stat::{FileStat, Mode, SFlag, fstat},
    unistd::{UnlinkatFlags, unlinkat},
};
use tokio::net::UnixDatagram;

/// Names starting so are request sockets of a bridge, this one's or a dead one's.
const CLIENT_PREFIX: &str = "dp_client.";
/// Directory entries looked at when old request sockets are swept: a pod may make any number.
const MAX_SWEPT: usize = 4096;
/// Longest path that fits a socket address.
const MAX_SOCKET_PATH: usize = 107;

/// An open mailbox directory.
#[derive(Debug)]
pub struct MailboxDir {
    fd: OwnedFd,
    path: PathBuf,
    owner: u32,
}

impl MailboxDir {
    /// Opens `<root>/<uid>`; a symbolic link or anything but a directory is refused.
    ///
    /// # Errors
    /// What the system says, `ELOOP` or `ENOTDIR` for an odd entry.
    pub fn open(root: &Path, uid: &str) -> io::Result<Self> {
        let path = root.join(uid);
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_RDONLY;
        let fd = nix::fcntl::open(&path, flags, Mode::empty())?;
        let owner = fstat(&fd)?.st_uid;
        Ok(Self { fd, path, owner })
    }

    /// Whose it is, in our user namespace.
    #[must_use]
    pub fn owner(&self) -> u32 {
        self.owner
    }

    /// Removes `name`, whatever it is; a link is removed, not what it points to.
    ///
    /// # Errors
    /// What the system says, `EISDIR` for a directory.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match unlinkat(&self.fd, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes request sockets that an earlier bridge left behind.
    ///
    /// # Errors
    /// What the system says about reading the directory.
    pub fn sweep_clients(&self) -> io::Result<()> {
        let mut stale = Vec::new();
        for entry in std::fs::read_dir(proc_path(&self.fd))?.take(MAX_SWEPT) {
            if let Ok(name) = entry?.file_name().into_string()
                && name.starts_with(CLIENT_PREFIX)
            {
                stale.push(name);
            }
        }
        for name in stale {
            if let Err(error) = self.remove(&name) {
                tracing::debug!(%error, name, "an old request socket cannot be removed");
            }
        }
        Ok(())
    }

    /// Binds `name` anew and lets everyone who can reach the directory send to it.
    ///
    /// # Errors
    /// What the system says; the pod may have put a directory there.
    pub fn bind(&self, name: &str) -> io::Result<UnixDatagram> {
        self.remove(name)?;
        let direct = self.path.join(name);
        let socket = if direct.as_os_str().as_bytes().len() <= MAX_SOCKET_PATH {
            StdDatagram::bind(direct)?
        } else {
            StdDatagram::bind(self.by_descriptor(name))?
        };
        socket.set_nonblocking(true)?;
        // Before anybody else may send.
        super::peer::ask_for_senders(&socket)?;
        self.open_to_senders(name)?;
        UnixDatagram::from_std(socket)
    }

    /// Connects `socket` to the socket `name`, which must belong to the directory's owner.
    ///
    /// # Errors
    /// What the system says; `InvalidInput` when `name` is not the pod's own socket.
    pub fn connect(&self, socket: &UnixDatagram, name: &str) -> io::Result<()> {
        let (pinned, stat) = self.pin(name)?;
        if stat.st_uid != self.owner {
            return Err(odd(name, "belongs to somebody else"));
        }
        socket.connect(proc_path(&pinned))
    }

    /// Number of the socket behind `name`, which another one bound there would not have.
    ///
    /// # Errors
    /// What the system says; `InvalidInput` when it is not a socket.
    pub fn inode(&self, name: &str) -> io::Result<u64> {
        self.pin(name).map(|(_, stat)| stat.st_ino)
    }

    /// A freshly bound socket may be written by its owner only; the proxy has another uid. Whoever
    /// can reach it through a directory of mode 0700 may send.
    fn open_to_senders(&self, name: &str) -> io::Result<()> {
        let (pinned, stat) = self.pin(name)?;
        if stat.st_uid != nix::unistd::geteuid().as_raw() {
            return Err(odd(name, "was replaced while it was being bound"));
        }
        std::fs::set_permissions(proc_path(&pinned), Permissions::from_mode(0o666))
    }

    /// Takes hold of the socket inode behind `name`, without following a link.
    fn pin(&self, name: &str) -> io::Result<(OwnedFd, FileStat)> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let pinned = openat(&self.fd, name, flags, Mode::empty())?;
        let stat = fstat(&pinned)?;
        if stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFSOCK.bits() {
            Ok((pinned, stat))
        } else {
            Err(odd(name, "is not a socket"))
        }
    }

    fn by_descriptor(&self, name: &str) -> PathBuf {
        proc_path(&self.fd).join(name)
    }
}

fn proc_path(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

fn odd(name: &str, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{name} {what}"))
}

#[cfg(test)]
mod tests;
