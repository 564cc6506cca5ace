//! What is not TCP.

use std::{net::SocketAddr, time::Duration};

use outrider_model::Side;

use super::{Engine, OTHER_TIME, Out, Seen};
use crate::{
    Ends, Event,
    flow::{Body, Key},
    icmp::{self, Echoes},
    transport::Icmp,
};

/// How long a UDP flow may be silent.
const UDP_TIME: Duration = Duration::from_secs(30);
/// How long an ICMP flow may be.
const ICMP_TIME: Duration = Duration::from_secs(5);

impl Engine {
    /// Takes a UDP datagram of which `length` bytes were on the wire.
    pub(super) fn datagram(&mut self, seen: Seen, payload: &[u8], length: usize, out: Out<'_>) {
        let key = Key::of(seen.proto, seen.src, seen.dst, 0);
        let id = self.table.find(&key).unwrap_or_else(|| {
            let by_server = self.servers.sent(seen.proto, seen.src, seen.dst);
            self.open_plain(seen, key, by_server, out)
        });
        let Some(flow) = self.table.get(id) else { return };
        let side = flow.side_of(seen.src);
        if side == Side::Server && flow.record.client.packets > 0 && flow.record.server.packets == 0
        {
            self.servers.learn(seen.proto, flow.record.ends.server);
        }
        flow.count(side, self.now, seen.wire);
        let lost = length.saturating_sub(payload.len()) as u64;
        let record = flow.record.side_mut(side);
        record.bytes = record.bytes.saturating_add(length as u64);
        record.lost = record.lost.saturating_add(lost);
        out(Event::Data { flow: id, side, bytes: payload });
        if lost > 0 {
            out(Event::Lost { flow: id, side, bytes: lost });
        }
        out(Event::Packet(&flow.record, side));
        self.table.keep(id, self.now.saturating_add(UDP_TIME));
    }

    /// Takes an ICMP message.
    pub(super) fn icmp(&mut self, seen: Seen, message: &Icmp<'_>, out: Out<'_>) {
        let role = icmp::role(seen.proto, message);
        let src = SocketAddr::new(seen.src.ip(), role.id);
        let dst = SocketAddr::new(seen.dst.ip(), role.id);
        let key = Key::of(seen.proto, src, dst, role.request);
        let id = self.table.find(&key).unwrap_or_else(|| {
            let (client, server) = if role.is_reply { (dst, src) } else { (src, dst) };
            let server = SocketAddr::new(server.ip(), role.request);
            let ends = Ends { client, server, proto: seen.proto };
            self.open_flow(key, ends, client, false, out)
        });
        let Some(flow) = self.table.get(id) else { return };
        // An address that pings itself is on both sides: the message tells which one speaks.
        let side = match (src == dst, role.is_reply) {
            (true, true) => Side::Server,
            (true, false) => Side::Client,
            (false, _) => flow.side_of(src),
        };
        flow.count(side, self.now, seen.wire);
        let bytes = message.length.saturating_add(8) as u64;
        let record = flow.record.side_mut(side);
        record.bytes = record.bytes.saturating_add(bytes);
        if matches!(flow.body, Body::Plain) {
            flow.body = Body::Icmp(Echoes::default());
        }
        if let Body::Icmp(echoes) = &mut flow.body
            && let Some((threat, message)) = echoes.look(role, message)
        {
            out(Event::Finding { flow: Some(id), side, id: threat, message });
        }
        out(Event::Packet(&flow.record, side));
        self.table.keep(id, self.now.saturating_add(ICMP_TIME));
    }

    /// Takes a packet of any other protocol.
    pub(super) fn other(&mut self, seen: Seen, length: usize, out: Out<'_>) {
        let key = Key::of(seen.proto, seen.src, seen.dst, 0);
        let id = self
            .table
            .find(&key)
            .unwrap_or_else(|| self.open_plain(seen, key, false, out));
        let Some(flow) = self.table.get(id) else { return };
        let side = flow.side_of(seen.src);
        flow.count(side, self.now, seen.wire);
        let record = flow.record.side_mut(side);
        record.bytes = record.bytes.saturating_add(length as u64);
        out(Event::Packet(&flow.record, side));
        self.table.keep(id, self.now.saturating_add(OTHER_TIME));
    }
}
