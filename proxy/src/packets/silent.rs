//! TCP connections of which the tap has seen nothing, because they are older than the proxy and silent: the
//! kernel's list of sockets names them. Where nothing is relayed they become sessions like any other, so
//! that they are listed, judged and reset.

use std::{collections::HashSet, net::SocketAddr, time::Duration};

use outrider_capture::{CaptureError, InetSocket, SocketState, Sockets, Wanted};
use outrider_model::IpProto;
use tokio::time::Instant;
use tracing::debug;

use super::{observe, watch::Watch};
use crate::context::SharedContext;

/// How often sockets are looked at, at most.
const PAUSE: Duration = Duration::from_secs(2);
/// The same when one was seen that the next look will judge.
const SHORT_PAUSE: Duration = Duration::from_millis(500);
/// A look may take one part in so many of the time.
const SHARE: u32 = 50;

/// Looks for connections that the engine does not know.
#[derive(Debug)]
pub(crate) struct Silent {
    context: SharedContext,
    sockets: Sockets,
    /// Not known when last looked at. What has just begun may still be in the ring.
    suspects: HashSet<Key>,
    next: Instant,
}

/// One socket, not to be confused with a later one of the same addresses.
type Key = (SocketAddr, SocketAddr, u32);

impl Silent {
    /// Looks for the first time when it is first asked to.
    ///
    /// # Errors
    /// The kernel does not show the pod's sockets.
    pub(crate) fn new(context: SharedContext) -> Result<Self, CaptureError> {
        let sockets = Sockets::open()?;
        Ok(Self { context, sockets, suspects: HashSet::new(), next: Instant::now() })
    }

    /// Looks if it is time to. It blocks while the kernel looks through its tables.
    pub(crate) fn look(&mut self, watch: &mut Watch) {
        let started = Instant::now();
        if started < self.next {
            return;
        }
        let mut seen = Vec::new();
        let wanted = Wanted { proto: IpProto::TCP, states: &STATES, bytes: false };
        match self.sockets.look(wanted, |socket| seen.push(socket)) {
            Ok(unread) => self.context.packets.bypass().unread.inc_by(unread),
            Err(error) => debug!(%error, "sockets cannot be looked at"),
        }
        self.take(&seen, watch);
        let pause = if self.suspects.is_empty() { PAUSE } else { SHORT_PAUSE };
        self.next = started + pause.max(started.elapsed() * SHARE);
    }

    /// Has the engine take in what it did not know at the last look and does not know now.
    pub(super) fn take(&mut self, seen: &[InetSocket], watch: &mut Watch) {
        let is = |socket: &&InetSocket, state| socket.state == state;
        let listens: HashSet<u16> = seen
            .iter()
            .filter(|socket| is(socket, SocketState::LISTEN))
            .map(|socket| socket.local.port())
            .collect();
        let before = std::mem::take(&mut self.suspects);
        let pod = self.context.identity.load();
        for socket in seen
            .iter()
            .filter(|socket| !is(socket, SocketState::LISTEN))
        {
            let InetSocket { local, remote, inode, .. } = *socket;
            if !pod.is_local(local.ip()) || !observe::is_news(socket, &self.context) {
                continue;
            }
            let (key, serves) = ((local, remote, inode), listens.contains(&local.port()));
            let again = before.contains(&key);
            if watch.knows_tcp((local, remote), serves, again) {
                continue;
            }
            if again {
                // There is no room for it.
                self.context.packets.bypass().unread.inc();
            } else {
                self.suspects.insert(key);
            }
        }
    }
}

/// Connections on which bytes may still come or go.
const STATES: [SocketState; 3] =
    [SocketState::ESTABLISHED, SocketState::CLOSE_WAIT, SocketState::LISTEN];
