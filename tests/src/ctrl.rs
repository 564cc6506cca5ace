//! A bare client of a proxy's ctrl socket: sends what it is given, well formed or not.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, net::UnixDatagram},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use outrider_model::names;
use outrider_wire::{Reply, Session};

use crate::until;

/// The longest datagram of the protocol.
const MAX_DATAGRAM: usize = 8192;
/// How long a proxy may take from being ready to taking requests, on a busy machine.
const START: Duration = Duration::from_secs(20);
/// How long a reply may take.
const REPLY: Duration = Duration::from_secs(20);

/// A bound datagram socket, connected to a proxy's requests socket as the node agent does it.
#[derive(Debug)]
pub struct Ctrl {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Ctrl {
    /// Connects to the proxy of a mailbox; one that has just started may be ready for traffic before it takes requests.
    pub fn connect(mailbox: &Path) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = mailbox.join(format!("dp_client.t{}-{number}", std::process::id()));
        let socket = UnixDatagram::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
        let proxy = mailbox.join(names::DP_LISTEN);
        until("the proxy to take requests", START, || {
            socket
                .connect(&proxy)
                .with_context(|| format!("connecting {}", proxy.display()))
        })?;
        socket.set_read_timeout(Some(REPLY))?;
        Ok(Self { socket, path })
    }

    /// Sends one datagram.
    pub fn send(&self, datagram: &[u8]) -> Result<()> {
        let sent = self.socket.send(datagram)?;
        ensure!(sent == datagram.len(), "sent {sent} of {} bytes", datagram.len());
        Ok(())
    }

    /// Sends one datagram and waits for one in return.
    pub fn request(&self, datagram: &[u8]) -> Result<Vec<u8>> {
        self.send(datagram)?;
        self.receive()
    }

    /// The proxy's live sessions.
    pub fn sessions(&self) -> Result<Vec<Session>> {
        self.send(br#"{"ctrl_list_session":{}}"#)?;
        let mut sessions = Vec::new();
        loop {
            match Reply::decode_exact(&self.receive()?)? {
                Reply::SessionList(list) if list.more => sessions.extend(list.sessions),
                Reply::SessionList(_) => return Ok(sessions),
                other => bail!("a session list was asked for, and this came: {other:?}"),
            }
        }
    }

    /// Waits for one datagram.
    pub fn receive(&self) -> Result<Vec<u8>> {
        let mut reply = vec![0; MAX_DATAGRAM];
        let length = self.socket.recv(&mut reply).context("no reply")?;
        reply.truncate(length);
        Ok(reply)
    }

    /// Sends a keep-alive and checks its answer: everything sent before has been handled then.
    pub fn keep_alive(&self, number: u32) -> Result<()> {
        let request = format!("{{\"ctrl_keep_alive\":{{\"seq_num\":{number}}}}}");
        let reply = self.request(request.as_bytes())?;
        let [a, b, c, d] = number.to_be_bytes();
        ensure!(reply == [10, 0, 0, 8, a, b, c, d], "keep-alive answered by {reply:?}");
        Ok(())
    }
}

impl Drop for Ctrl {
    fn drop(&mut self) {
        let _removed = fs::remove_file(&self.path);
    }
}
