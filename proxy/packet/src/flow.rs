//! One flow as the table keeps it.

use std::{
    hash::{Hash, Hasher},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use outrider_model::{FlowId, IpProto, Side};

use crate::{
    Ends, FlowEnd, FlowRecord, SidePlace, TcpPlace,
    icmp::Echoes,
    record::SideRecord,
    stream::{Chunk, Room, Stream},
    tcp::States,
};

/// What packets of both directions of a flow have in common, in as few words as it takes: it is hashed
/// for every packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Key {
    low: u128,
    high: u128,
    /// Both ports, the tag, the protocol and the family.
    rest: u64,
}

impl Key {
    /// `tag` tells apart what the addresses do not.
    pub(crate) fn of(proto: IpProto, src: SocketAddr, dst: SocketAddr, tag: u16) -> Self {
        let (src_ip, dst_ip) = (number(src.ip()), number(dst.ip()));
        let (low, high) = ((src_ip, src.port()), (dst_ip, dst.port()));
        let (low, high) = if low <= high { (low, high) } else { (high, low) };
        let [low_a, low_b] = low.1.to_be_bytes();
        let [high_a, high_b] = high.1.to_be_bytes();
        let [tag_a, tag_b] = tag.to_be_bytes();
        let rest = [low_a, low_b, high_a, high_b, tag_a, tag_b, proto.0, src.is_ipv6().into()];
        Self { low: low.0, high: high.0, rest: u64::from_be_bytes(rest) }
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.rest);
        state.write_u128(self.low);
        state.write_u128(self.high);
    }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// A flow that is open.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) key: Key,
    pub(crate) record: FlowRecord,
    /// Whom the client's packets come from; its port is the key's.
    pub(crate) client: SocketAddr,
    pub(crate) deadline: Duration,
    /// The earliest of its entries among the timers.
    pub(crate) scheduled: Duration,
    pub(crate) body: Body,
}

/// What is particular to a protocol.
#[derive(Debug)]
pub(crate) enum Body {
    Tcp(Box<Tcp>),
    Icmp(Echoes),
    Plain,
}

/// What is known of a TCP connection.
#[derive(Debug, Default)]
pub(crate) struct Tcp {
    pub(crate) states: States,
    pub(crate) client: Wing,
    pub(crate) server: Wing,
    pub(crate) packets: u64,
    /// A SYN that does not belong to this connection, and may begin the next one.
    pub(crate) other_syn: Option<u32>,
    pub(crate) reset: bool,
    pub(crate) split: bool,
}

/// What is known of one side of it.
#[derive(Debug, Default)]
pub(crate) struct Wing {
    pub(crate) stream: Stream,
    pub(crate) window: u64,
    /// Its SYN was seen.
    pub(crate) syn: bool,
    pub(crate) scale: Option<u8>,
}

impl Tcp {
    pub(crate) fn wings(&mut self, side: Side) -> (&mut Wing, &mut Wing) {
        match side {
            Side::Client => (&mut self.client, &mut self.server),
            Side::Server => (&mut self.server, &mut self.client),
        }
    }
}

impl Flow {
    pub(crate) fn new(
        flow: FlowId,
        key: Key,
        ends: Ends,
        client: SocketAddr,
        at: Duration,
    ) -> Self {
        Self {
            key,
            record: FlowRecord {
                flow,
                ends,
                mid_stream: false,
                established: true,
                first: at,
                last: at,
                end: FlowEnd::Open,
                client: SideRecord::default(),
                server: SideRecord::default(),
            },
            client,
            deadline: at,
            scheduled: Duration::MAX,
            body: Body::Plain,
        }
    }

    /// Which side a packet comes from.
    pub(crate) fn side_of(&self, src: SocketAddr) -> Side {
        if src == self.client { Side::Client } else { Side::Server }
    }

    /// Where the sides of a TCP connection are.
    pub(crate) fn tcp_place(&self) -> Option<TcpPlace> {
        let Body::Tcp(tcp) = &self.body else { return None };
        let place = |wing: &Wing, other: &Wing| {
            let (next, expected) = wing.stream.sequence()?;
            Some(SidePlace { next, expected, window: other.window })
        };
        Some(TcpPlace {
            client: place(&tcp.client, &tcp.server),
            server: place(&tcp.server, &tcp.client),
        })
    }

    /// Counts a packet.
    pub(crate) fn count(&mut self, side: Side, at: Duration, wire: usize) {
        self.record.last = self.record.last.max(at);
        let record = self.record.side_mut(side);
        record.packets = record.packets.saturating_add(1);
        record.wire_bytes = record.wire_bytes.saturating_add(wire as u64);
    }

    /// Gives out what is still held, and notes how the flow ended.
    pub(crate) fn end(
        &mut self,
        why: FlowEnd,
        room: &mut Room<'_>,
        out: &mut dyn FnMut(Side, Chunk<'_>),
    ) {
        self.record.end = why;
        let Body::Tcp(tcp) = &mut self.body else { return };
        for side in [Side::Client, Side::Server] {
            let (wing, _) = tcp.wings(side);
            let record = self.record.side_mut(side);
            wing.stream
                .flush(record, room, &mut |chunk| out(side, chunk));
        }
        if tcp.reset {
            self.record.end = FlowEnd::Reset;
        } else if tcp.states.is_over() {
            self.record.end = FlowEnd::Closed;
        }
    }
}
