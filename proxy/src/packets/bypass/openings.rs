//! Connections that begin on the wire, held against those of the proxy.

use std::{collections::HashMap, time::Duration};

use outrider_capture::{Frame, InetSocket, SocketState, Sockets};
use outrider_model::{Direction, IpProto};
use tokio::time::Instant;

use super::{
    known::{Known, OwnSockets},
    segment::Segment,
    trick::{Ends, Finding, Trick},
};

/// Connections without a leg that are held back at once; more are counted.
pub(crate) const MAX_OPENINGS: usize = 4096;
/// How long the proxy may take to say that a connection is its own.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes of a packet that are kept as evidence.
const MAX_PACKET: usize = 128;

/// Connections that began and are nobody's yet.
#[derive(Debug, Default)]
pub(super) struct Openings {
    waiting: HashMap<Ends, Opening>,
    /// Connections that were not looked into, because there were too many.
    pub(super) overflow: u64,
    /// Connections of which nobody can tell any more whether they were the proxy's.
    pub(super) undecided: u64,
}

#[derive(Debug)]
struct Opening {
    since: Instant,
    socket: Option<InetSocket>,
}

impl Openings {
    /// Looks at a segment on its way out of the pod: nothing else can be a way past the proxy.
    pub(super) fn look(
        &mut self,
        segment: &Segment<'_>,
        known: &Known,
        sockets: &mut Sockets,
    ) -> Option<Finding> {
        let ends = |direction| Ends { local: segment.source, remote: segment.target, direction };
        if segment.is_odd() {
            return Some(odd(segment, ends(Direction::Outbound)));
        }
        let (ends, answers) = match (segment.opens(), segment.answers()) {
            (true, _) => (ends(Direction::Outbound), false),
            (_, true) => (ends(Direction::Inbound), true),
            _ => return None,
        };
        // Whoever sends from a port of ours without being us is a trick; who answers there is not:
        // we have the port.
        if known.is_leg(ends.local, ends.remote)
            || (answers && known.is_own_port(ends.local.port()))
        {
            return None;
        }
        if known.uncaptured(&ends).is_some() {
            return Some(Finding::connection(Trick::Uncaptured, ends, None));
        }
        if self.waiting.contains_key(&ends) {
            return None;
        }
        let found = sockets
            .find(IpProto::TCP, ends.local, ends.remote)
            .ok()
            .flatten();
        match found {
            // Not yet, or no more, anybody's: the kernel does not say whose it was.
            Some(socket) if socket.inode == 0 => self.wait(ends, Some(socket)),
            // Somebody else's, and none of the proxy's ever has these ends.
            Some(socket)
                if socket.state != SocketState::LISTEN && !known.is_own_uid(socket.uid) =>
            {
                return Some(Finding::connection(Trick::Connection, ends, Some(&socket)));
            }
            Some(socket) if socket.state != SocketState::LISTEN => self.wait(ends, Some(socket)),
            // Redirected: the kernel answers in the name of the workload's port.
            _ if answers => {}
            _ => self.wait(ends, None),
        }
        None
    }

    fn wait(&mut self, ends: Ends, socket: Option<InetSocket>) {
        if self.waiting.len() >= MAX_OPENINGS {
            self.overflow = self.overflow.saturating_add(1);
            return;
        }
        self.waiting
            .insert(ends, Opening { since: Instant::now(), socket });
    }

    /// Judges those that nobody has claimed in time.
    pub(super) fn due(
        &mut self,
        known: &Known,
        sockets: &mut Sockets,
        mut each: impl FnMut(Finding),
    ) {
        let mut own = OwnSockets::default();
        let undecided = &mut self.undecided;
        self.waiting.retain(|ends, opening| {
            if known.is_leg(ends.local, ends.remote) {
                return false;
            }
            opening.look_again(*ends, sockets);
            let age = opening.since.elapsed();
            if age < PATIENCE {
                return true;
            }
            if !known.legs_are_whole(age) {
                *undecided = undecided.saturating_add(1);
                return false;
            }
            if let Some(finding) = unclaimed(*ends, opening.socket.as_ref(), known, &mut own) {
                each(finding);
            }
            false
        });
    }
}

impl Opening {
    /// Who takes a connection is known when it has been taken.
    fn look_again(&mut self, ends: Ends, sockets: &mut Sockets) {
        let nobodys = self.socket.is_some_and(|socket| socket.inode == 0);
        if !nobodys || ends.direction == Direction::Outbound {
            return;
        }
        let found = sockets
            .find(IpProto::TCP, ends.local, ends.remote)
            .ok()
            .flatten();
        if let Some(socket) = found.filter(|socket| socket.state != SocketState::LISTEN) {
            self.socket = Some(socket);
        }
    }
}

/// What a connection is that the proxy does not know.
fn unclaimed(
    ends: Ends,
    socket: Option<&InetSocket>,
    known: &Known,
    own: &mut OwnSockets,
) -> Option<Finding> {
    let trick = match socket {
        // Nobody took it, or it is over: only if the proxy's never have such a port it is a trick.
        Some(socket) if socket.inode == 0 && ends.direction == Direction::Inbound => {
            known.is_redirected().then_some(Trick::Connection)?
        }
        Some(socket) if socket.inode == 0 || !known.is_own_uid(socket.uid) => Trick::Connection,
        // Dialled or taken by the proxy, past the relay.
        Some(socket) if own.has(socket.inode) => return None,
        Some(_) => Trick::Identity,
        None if known.is_local(ends.local.ip()) => Trick::Connection,
        None => Trick::Forged,
    };
    Some(Finding::connection(trick, ends, socket))
}

fn odd(segment: &Segment<'_>, ends: Ends) -> Finding {
    let mut finding = Finding::connection(Trick::Flags, ends, None);
    finding.message = format!("TCP flags {:#04x} leave the pod", segment.flags);
    finding.evidence = segment.packet.iter().take(MAX_PACKET).copied().collect();
    finding
}

/// The TCP segment of a frame, if it can tell anything here, and whether it leaves the pod.
pub(super) fn segment<'a>(frame: &Frame<'a>) -> Option<(Segment<'a>, bool)> {
    if frame.loopback || frame.foreign {
        return None;
    }
    let segment = Segment::of(frame.link, frame.bytes)?;
    Some((segment, frame.direction == Direction::Outbound))
}
