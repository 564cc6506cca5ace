//! Traffic in: redirected TCP connections, copies of frames.
//!
//! A [`Listener`] takes both families on one port, in either [`CaptureMode`]. What it hands out says
//! where the client wanted to go and whether a redirect rule brought it here at all: a connection
//! that was dialled straight at the listener has no original destination and must not be relayed.
//!
//! For what is not TCP, or did not cross the proxy: a [`Tap`] shows a copy of every frame, a [`Queue`]
//! hands out packets that wait for a verdict, [`Conntrack`] takes verdicts back that the kernel keeps, an
//! [`Injector`] sends packets of our own making. None of them reads what is inside. [`Sockets`] and
//! [`SocketEvents`] show which sockets the pod has. [`receive_letter`] takes a descriptor with a datagram. The only `unsafe` of the project is in the module `sys`.

mod conntrack;
mod error;
mod listener;
mod namespace;
mod netlink;
mod origin;
mod pair;
mod queue;
mod raw;
mod sockets;
mod sys;
mod tap;
mod watch;

pub use conntrack::Conntrack;
pub use error::CaptureError;
pub use listener::{Accepted, Listener};
pub use namespace::Namespace;
pub use pair::{Pair, PairCounters, PairPath, PairVerdict};
pub use queue::{
    Held, KernelCounters, MAX_QUEUE_BYTES, MAX_QUEUE_LENGTH, Queue, QueueCounters, QueueSettings,
    QueueVerdict, Queued,
};
pub use raw::{Injector, MAX_INJECTED};
pub use sockets::{
    InetSocket, MAX_RAW_SOCKETS, MAX_SOCKETS, RawKind, RawSocket, RawSockets, SocketEvents,
    SocketState, Sockets, Wanted, families, own_inodes, raw_sockets,
};
pub use sys::{Letter, receive_letter};
pub use tap::{
    Filter, Frame, Link, MAX_FILTER_PORTS, MAX_RING_BYTES, Tap, TapCounters, TapSettings,
};
pub use watch::{MAX_WATCHED, WATCHED_BYTES, Watch};

/// How traffic reaches a listener, and how one connection did.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum CaptureMode {
    /// The nat table rewrote the destination; conntrack remembers the original.
    #[default]
    Redirect,
    /// Nothing was rewritten: the local address is the original destination. Needs `NET_RAW` or
    /// `NET_ADMIN` for the transparent socket, which takes redirected connections too.
    Tproxy,
}

impl CaptureMode {
    /// The closed label of logs and metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Redirect => "redirect",
            Self::Tproxy => "tproxy",
        }
    }
}
