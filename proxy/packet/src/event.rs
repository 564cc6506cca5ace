//! What an engine says.

use std::net::SocketAddr;

use outrider_model::{FlowId, IpProto, Side, ThreatId};

use crate::FlowRecord;

/// Who talks to whom.
///
/// ICMP has no ports: the client's is the identifier, the server's is code and type of the request
/// as one number. Protocols without ports have zeros.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Ends {
    /// Who opened the flow.
    pub client: SocketAddr,
    /// Who was meant.
    pub server: SocketAddr,
    /// The IP protocol.
    pub proto: IpProto,
}

/// Something seen, in the order in which it happened as far as that can be known.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A flow began, or its first packet was seen.
    Opened {
        /// The flow.
        flow: FlowId,
        /// Who talks to whom.
        ends: Ends,
        /// Its beginning was not seen.
        mid_stream: bool,
    },
    /// The next bytes of one side: in order for TCP, one datagram at a time for UDP.
    Data {
        /// The flow.
        flow: FlowId,
        /// Who sent them.
        side: Side,
        /// What was sent.
        bytes: &'a [u8],
    },
    /// The next bytes of one side passed and were not seen.
    Lost {
        /// The flow.
        flow: FlowId,
        /// Who sent them.
        side: Side,
        /// How many.
        bytes: u64,
    },
    /// One side sent its last byte.
    Ended {
        /// The flow.
        flow: FlowId,
        /// Which side.
        side: Side,
    },
    /// A detector fired. Whether it is on is for the caller to decide.
    Finding {
        /// The flow, if the packet could be read far enough to know it.
        flow: Option<FlowId>,
        /// Who sent it.
        side: Side,
        /// What was found.
        id: ThreatId,
        /// For people.
        message: &'static str,
    },
    /// A packet of a flow was taken in, after all else that is said of it: what the flow comes to now.
    Packet(&'a FlowRecord, Side),
    /// A flow is over, or was silent for too long. Nothing more comes of it.
    Closed(&'a FlowRecord),
}
