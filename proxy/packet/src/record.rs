//! One flow's summary.

use std::time::Duration;

use outrider_model::{FlowId, Side};

use crate::Ends;

/// How a flow ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FlowEnd {
    /// Both sides said so.
    Closed,
    /// One side reset it.
    Reset,
    /// It was silent for too long.
    Silent,
    /// It went because the table was full.
    Evicted,
    /// It was open when the last frame had been fed.
    Open,
}

/// What one side sent.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SideRecord {
    /// Packets.
    pub packets: u64,
    /// Bytes of the frames they came in.
    pub wire_bytes: u64,
    /// Bytes of payload: each byte of a TCP stream once, seen or not.
    pub bytes: u64,
    /// Those of `bytes` that were not seen.
    pub lost: u64,
    /// Bytes of TCP that were sent again.
    pub repeated: u64,
    /// TCP segments that came before an earlier one.
    pub early: u64,
    /// Bytes that were sent again and differed from what was sent first.
    pub conflicting: u64,
}

/// Where one side of a TCP connection is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SidePlace {
    /// Sequence number of the next byte that was not yet seen in order.
    pub next: u32,
    /// Sequence number that the other side expects next, by its last acknowledgement.
    pub expected: u32,
    /// How much the other side will take from there.
    pub window: u64,
}

/// Where both sides of a TCP connection are: what a reset needs to know. A side of which nothing was
/// seen has none.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TcpPlace {
    /// The client's bytes.
    pub client: Option<SidePlace>,
    /// The server's bytes.
    pub server: Option<SidePlace>,
}

/// A flow from its first packet to its last.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FlowRecord {
    /// The flow.
    pub flow: FlowId,
    /// Who talked to whom.
    pub ends: Ends,
    /// Its beginning was not seen.
    pub mid_stream: bool,
    /// The TCP handshake was seen through; always for other protocols.
    pub established: bool,
    /// When the first packet was seen.
    pub first: Duration,
    /// When the last one was.
    pub last: Duration,
    /// How it ended.
    pub end: FlowEnd,
    /// What the client sent.
    pub client: SideRecord,
    /// What the server sent.
    pub server: SideRecord,
}

impl FlowRecord {
    /// What one side sent.
    #[must_use]
    pub fn side(&self, side: Side) -> &SideRecord {
        match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        }
    }

    pub(crate) fn side_mut(&mut self, side: Side) -> &mut SideRecord {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }
}
