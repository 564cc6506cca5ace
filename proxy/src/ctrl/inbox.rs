//! `dp_listen.sock`: bound when the directory is there, and bound again if the file goes away.

use std::{
    fs, io,
    os::{
        fd::OwnedFd,
        unix::{
            fs::{FileTypeExt as _, PermissionsExt as _},
            net,
        },
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use outrider_capture::receive_letter;
use tokio::{io::Interest, net::UnixDatagram};
use tracing::{info, warn};

/// The socket that requests come to.
#[derive(Debug)]
pub(crate) struct Inbox {
    path: PathBuf,
    socket: Option<UnixDatagram>,
    /// The same socket for replies. One client's full queue says nothing about another's, so that
    /// the runtime's idea of "writable" must not stand in between.
    replies: Option<net::UnixDatagram>,
    /// What came with the last datagram.
    descriptor: Option<OwnedFd>,
    warned: bool,
}

impl Inbox {
    /// An inbox that is not bound yet.
    #[must_use]
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, socket: None, replies: None, descriptor: None, warned: false }
    }

    /// Binds, removing what an earlier life has left. Without a directory there is no bridge
    /// either: traffic flows all the same, and [`Self::keep`] tries again.
    pub(crate) fn bind(&mut self) {
        match bind(&self.path) {
            Ok((socket, replies)) => {
                info!(path = %self.path.display(), "listening for requests");
                (self.socket, self.replies) = (Some(socket), Some(replies));
                self.warned = false;
            }
            Err(error) if !self.warned => {
                warn!(%error, path = %self.path.display(), "no ctrl socket, trying again");
                self.warned = true;
            }
            Err(_told) => {}
        }
    }

    /// Binds again if the socket's file is gone, or never was.
    pub(crate) fn keep(&mut self) {
        if self.socket.is_none() || fs::symlink_metadata(&self.path).is_err() {
            self.bind();
        }
    }

    /// Where replies go out, if it is bound; sending never waits.
    #[must_use]
    pub(crate) fn replies(&self) -> Option<&net::UnixDatagram> {
        self.replies.as_ref()
    }

    /// Takes one datagram and the path it came from; for ever while not bound. Cancel safe.
    pub(crate) async fn receive(
        &mut self,
        buffer: &mut [u8],
    ) -> io::Result<(usize, Option<Arc<Path>>)> {
        let Some(socket) = &self.socket else { return std::future::pending().await };
        let receive = || receive_letter(socket, buffer);
        let letter = socket.async_io(Interest::READABLE, receive).await?;
        self.descriptor = letter.descriptor;
        Ok((letter.length, letter.from.map(|from| self.here(&from))))
    }

    /// The descriptor that came with the last datagram, once.
    pub(crate) fn take_descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptor.take()
    }

    /// Where a client is found from here. It is named by the path it was bound at, which in another
    /// mount of our directory, as the node sees it, is not ours: there its file name counts.
    fn here(&self, from: &Path) -> Arc<Path> {
        let beside = from.file_name().map(|name| self.path.with_file_name(name));
        let is_socket = |path: &PathBuf| {
            fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
        };
        match beside.filter(|beside| beside != from && is_socket(beside)) {
            Some(beside) => beside.into(),
            None => from.into(),
        }
    }

    /// Closes and removes the file.
    pub(crate) fn close(&mut self) {
        self.replies = None;
        if self.socket.take().is_some()
            && let Err(error) = fs::remove_file(&self.path)
        {
            warn!(%error, path = %self.path.display(), "socket file stays");
        }
    }
}

fn bind(path: &Path) -> io::Result<(UnixDatagram, net::UnixDatagram)> {
    match fs::symlink_metadata(path) {
        Ok(file) if file.file_type().is_socket() => fs::remove_file(path)?,
        Ok(_) => return Err(io::Error::other("a file that is no socket is in the way")),
        Err(_absent) => {}
    }
    let socket = net::UnixDatagram::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    socket.set_nonblocking(true)?;
    let replies = socket.try_clone()?;
    Ok((UnixDatagram::from_std(socket)?, replies))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_in_another_mount_of_the_directory_is_found_beside_us() {
        let ours = tempfile::tempdir().unwrap();
        let inbox = Inbox::new(ours.path().join("dp_listen.sock"));
        let _client = net::UnixDatagram::bind(ours.path().join("dp_client.7")).unwrap();
        let named = Path::new("/run/outrider/pods/uid/dp_client.7");
        assert_eq!(*inbox.here(named), ours.path().join("dp_client.7"));
    }

    #[test]
    fn a_client_elsewhere_keeps_its_name_and_a_link_beside_us_is_no_client() {
        let (ours, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let inbox = Inbox::new(ours.path().join("dp_listen.sock"));
        let elsewhere = other.path().join("dp_client.7");
        let _client = net::UnixDatagram::bind(&elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, ours.path().join("dp_client.7")).unwrap();
        assert_eq!(*inbox.here(&elsewhere), elsewhere);
    }
}
