//! Raw and packet sockets of the pod that are not the proxy's.

use std::{collections::HashSet, io, time::Duration};

use outrider_capture::{RawKind, RawSocket, raw_sockets};
use tokio::time::Instant;

use super::{
    known::{Known, OwnSockets},
    trick::{Finding, Trick},
};

/// Own sockets are not listed more often: with thousands of connections that takes its time.
const PAUSE: Duration = Duration::from_secs(1);

/// Which raw sockets were there when last looked at.
#[derive(Debug, Default)]
pub(super) struct RawSockets {
    seen: HashSet<RawSocket>,
    listed: Option<Instant>,
}

impl RawSockets {
    /// Looks at the tables, which are short; says how many sockets were not read.
    pub(super) fn look(&mut self, known: &Known, each: impl FnMut(Finding)) -> io::Result<u64> {
        let now = raw_sockets()?;
        self.compare(&now.found, known, each);
        Ok(now.unread)
    }

    fn compare(&mut self, now: &[RawSocket], known: &Known, mut each: impl FnMut(Finding)) {
        self.seen.retain(|socket| now.contains(socket));
        let mut own = OwnSockets::default();
        for socket in now {
            if self.seen.contains(socket) {
                continue;
            }
            if known.is_own_uid(socket.uid) {
                let late = self.listed.is_some_and(|listed| listed.elapsed() < PAUSE);
                if late {
                    continue;
                }
                if own.has(socket.inode) {
                    self.seen.insert(*socket);
                    continue;
                }
            }
            self.seen.insert(*socket);
            each(found(socket));
        }
        if own.was_read() {
            self.listed = Some(Instant::now());
        }
    }
}

fn found(socket: &RawSocket) -> Finding {
    let (trick, what) = match socket.kind {
        RawKind::Packet => (Trick::PacketSocket, "packet socket, protocol"),
        RawKind::V4 => (Trick::RawSocket, "raw socket, IPv4, protocol"),
        RawKind::V6 => (Trick::RawSocket, "raw socket, IPv6, protocol"),
    };
    let message = format!("{what} {:#06x}", socket.protocol);
    let mut finding = Finding::plain(trick, message, format!("interface={}", socket.interface));
    finding.socket = Some((socket.uid, socket.inode));
    finding
}
