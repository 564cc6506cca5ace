//! What a packet is, without taking it in.

use std::net::SocketAddr;

use outrider_model::{FlowId, Side, ThreatId};

use super::{Engine, read};
use crate::{
    Ends, Frame,
    flow::Key,
    icmp,
    transport::{self, Body},
};

/// What one packet is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Peek<'a> {
    /// The flow it belongs to, if that is open.
    pub flow: Option<FlowId>,
    /// Who talks to whom, in that flow or in the one that it would open.
    pub ends: Ends,
    /// Who sent it.
    pub side: Side,
    /// What a UDP datagram carries, as far as it was captured; nothing of other protocols.
    pub payload: &'a [u8],
    /// What is wrong with it, as [`Event::Finding`](crate::Event::Finding) would say.
    pub finding: Option<(ThreatId, &'static str)>,
}

impl Engine {
    /// Says what a packet is, and changes nothing; `None` if it is none that can be read, or a fragment.
    #[must_use]
    pub fn peek<'a>(&self, frame: &Frame<'a>) -> Option<Peek<'a>> {
        let packet = read(frame).ok().flatten()?;
        if packet.piece.is_some() {
            return None;
        }
        let transport = transport::read(packet.proto, packet.payload, packet.length).ok()?;
        let (src, dst) = match transport.body {
            Body::Icmp(message) => {
                let role = icmp::role(packet.proto, &message);
                (SocketAddr::new(packet.src, role.id), SocketAddr::new(packet.dst, role.id))
            }
            _ => (
                SocketAddr::new(packet.src, transport.ports.0),
                SocketAddr::new(packet.dst, transport.ports.1),
            ),
        };
        let mut peek = Peek {
            flow: None,
            ends: Ends { client: src, server: dst, proto: packet.proto },
            side: Side::Client,
            payload: &[],
            finding: transport.finding,
        };
        match transport.body {
            Body::Icmp(message) => {
                let role = icmp::role(packet.proto, &message);
                self.place(&mut peek, (src, dst), role.request, role.is_reply);
                peek.finding = icmp::too_long(role, &message).or(peek.finding);
                if peek.flow.is_none() {
                    peek.ends.server.set_port(role.request);
                }
            }
            Body::Tcp(segment) => {
                let by_server = match (segment.flags.syn(), segment.flags.ack()) {
                    (true, ack) => ack,
                    (false, _) => self.servers.sent(packet.proto, src, dst),
                };
                self.place(&mut peek, (src, dst), 0, by_server);
            }
            Body::Datagram(payload, _) => {
                peek.payload = payload;
                let by_server = self.servers.sent(packet.proto, src, dst);
                self.place(&mut peek, (src, dst), 0, by_server);
            }
            Body::Other(_) => self.place(&mut peek, (src, dst), 0, false),
        }
        Some(peek)
    }

    /// Finds the flow, or tells which side would be its client.
    fn place(
        &self,
        peek: &mut Peek<'_>,
        (src, dst): (SocketAddr, SocketAddr),
        tag: u16,
        by_server: bool,
    ) {
        let key = Key::of(peek.ends.proto, src, dst, tag);
        peek.flow = self.table.find(&key);
        let known = peek.flow.and_then(|id| self.table.peek(id));
        if let Some(flow) = known {
            peek.ends = flow.record.ends;
            peek.side = if src == dst && by_server { Side::Server } else { flow.side_of(src) };
        } else if by_server {
            peek.ends = Ends { client: dst, server: src, ..peek.ends };
            peek.side = Side::Server;
        }
    }
}
