//! TCP segments.

use std::net::SocketAddr;

use outrider_model::{FlowId, IpProto, Side, ThreatId};

use super::{Engine, Out, Seen, event};
use crate::{
    Event, FlowEnd, FlowRecord,
    flow::{Body, Flow, Key, Tcp},
    stream::{Room, Sent},
    tcp::States,
    transport::Segment,
};

/// Window scale where a SYN was not seen: the largest there is.
const UNKNOWN_SCALE: u8 = 14;
/// A window that every segment is allowed: acknowledgements may come late.
const LEAST_WINDOW: u64 = 65_535;

/// What to do with a segment.
enum Course {
    /// It belongs to the flow.
    Go,
    /// It begins a new flow in place of the one that has its ports.
    Replace,
    /// It belongs to nothing.
    Ignore,
}

impl Engine {
    /// Keeps the TCP flow between two ends, of which somebody else knows that it is there, as if a segment
    /// of it had passed now; whether there is one.
    pub fn keep_tcp(&mut self, one: SocketAddr, other: SocketAddr) -> bool {
        let Some(id) = self.table.find(&Key::of(IpProto::TCP, one, other, 0)) else { return false };
        if let Some(flow) = self.table.get(id)
            && let Body::Tcp(tcp) = &flow.body
            && !tcp.states.is_over()
        {
            let until = self.now.saturating_add(tcp.states.patience());
            self.table.keep(id, until);
        }
        true
    }

    /// Opens the flow of a TCP connection that is there and of which no segment was seen: one whose
    /// beginning is missing, and so far everything else. `None`: there is one, or no room for one more.
    pub fn adopt_tcp(
        &mut self,
        one: SocketAddr,
        other: SocketAddr,
        out: &mut dyn FnMut(Event<'_>),
    ) -> Option<FlowId> {
        let (proto, key) = (IpProto::TCP, Key::of(IpProto::TCP, one, other, 0));
        if self.table.is_full() || self.table.find(&key).is_some() {
            return None;
        }
        let by_server = self.servers.sent(proto, one, other);
        let (client, server) = if by_server { (other, one) } else { (one, other) };
        let id = self.open_flow(key, crate::Ends { client, server, proto }, client, true, out);
        let states = States::MID_STREAM;
        self.table.get(id)?.body = Body::Tcp(Box::new(Tcp { states, ..Tcp::default() }));
        let until = self.now.saturating_add(states.patience());
        self.table.keep(id, until);
        Some(id)
    }

    /// Takes a TCP segment.
    pub(super) fn segment(&mut self, seen: Seen, segment: &Segment<'_>, out: Out<'_>) {
        let key = Key::of(seen.proto, seen.src, seen.dst, 0);
        let known = self.table.find(&key);
        let course = known
            .and_then(|id| self.table.get(id))
            .map(|flow| course(flow, flow.side_of(seen.src), segment));
        let id = match (known, course) {
            (Some(_), Some(Course::Ignore)) => {
                self.counters.stray = self.counters.stray.saturating_add(1);
                return;
            }
            (Some(id), Some(Course::Go)) => id,
            (Some(id), Some(Course::Replace)) => {
                if let Some(flow) = self.table.remove(id) {
                    self.close(flow, FlowEnd::Silent, out);
                }
                self.open_tcp(seen, key, segment, out)
            }
            _ if segment.flags.rst() || segment.flags.fin() && segment.length == 0 => {
                self.counters.no_flow = self.counters.no_flow.saturating_add(1);
                return;
            }
            _ => self.open_tcp(seen, key, segment, out),
        };
        self.apply(id, seen, segment, out);
    }

    /// Opens a flow with its first segment that was seen.
    fn open_tcp(&mut self, seen: Seen, key: Key, segment: &Segment<'_>, out: Out<'_>) -> FlowId {
        let flags = segment.flags;
        let by_server = match (flags.syn(), flags.ack()) {
            (true, ack) => ack,
            (false, _) => self.servers.sent(seen.proto, seen.src, seen.dst),
        };
        let (client, server) = if by_server { (seen.dst, seen.src) } else { (seen.src, seen.dst) };
        let ends = crate::Ends { client, server, proto: seen.proto };
        let id = self.open_flow(key, ends, client, !flags.syn(), out);
        if let Some(flow) = self.table.get(id) {
            let states = if flags.syn() { States::NEW } else { States::MID_STREAM };
            let mut tcp = Tcp { states, ..Tcp::default() };
            if flags.ack() {
                let (_, other) = tcp.wings(flow.side_of(seen.src));
                other.stream.start(segment.ack);
            }
            flow.record.established = !flags.syn();
            flow.body = Body::Tcp(Box::new(tcp));
        }
        id
    }

    /// Takes a segment of a flow.
    fn apply(&mut self, id: FlowId, seen: Seen, segment: &Segment<'_>, out: Out<'_>) {
        let Some(flow) = self.table.get(id) else { return };
        let side = flow.side_of(seen.src);
        flow.count(side, self.now, seen.wire);
        let record = &mut flow.record;
        let Body::Tcp(tcp) = &mut flow.body else { return };
        let finding =
            |threat, message| Event::Finding { flow: Some(id), side, id: threat, message };
        tcp.packets = tcp.packets.saturating_add(1);
        if segment.flags.syn() && segment.length > 0 {
            out(finding(ThreatId::SYN_WITH_DATA, "SYN with data"));
        }
        if tcp.states.advance(side, segment.flags).split && !tcp.split {
            tcp.split = true;
            out(finding(ThreatId::SPLIT_HANDSHAKE, "handshake in an order no server uses"));
        }
        if segment.flags.syn() && record.mid_stream {
            record.mid_stream = false;
        }
        if !record.established && tcp.states.is_established() && !segment.flags.rst() {
            record.established = true;
            self.servers.learn(seen.proto, record.ends.server);
        }
        let mut room = Room {
            by_side: self.limits.held_by_side,
            used: &mut self.held,
            total: self.limits.held,
            tally: &mut self.tally,
        };
        let taken = stream(tcp, record, side, segment, &mut room, out);
        if !taken {
            self.counters.stray = self.counters.stray.saturating_add(1);
        }
        out(Event::Packet(record, side));
        let until = self.now.saturating_add(tcp.states.patience());
        self.table.keep(id, until);
    }
}

/// Moves both streams on; whether the segment was near enough to be taken.
fn stream(
    tcp: &mut Tcp,
    record: &mut FlowRecord,
    side: Side,
    segment: &Segment<'_>,
    room: &mut Room<'_>,
    out: Out<'_>,
) -> bool {
    let (flow, flags, packets) = (record.flow, segment.flags, tcp.packets);
    let (own, other) = tcp.wings(side);
    if flags.syn() {
        own.syn = true;
        own.scale = segment.scale;
        own.window = segment.window.into();
    } else {
        let scale = match own.scale.zip(other.scale) {
            _ if !own.syn || !other.syn => UNKNOWN_SCALE,
            Some((scale, _)) => scale,
            None => 0,
        };
        own.window = u64::from(segment.window).wrapping_shl(scale.into());
    }
    if flags.ack() {
        other.stream.acknowledge(segment.ack);
    }
    let mut taken = true;
    if flags.rst() {
        tcp.reset = true;
    } else {
        let seq = if flags.syn() { segment.seq.wrapping_add(1) } else { segment.seq };
        let sent = Sent {
            seq,
            payload: segment.payload,
            length: segment.length,
            fin: flags.fin(),
            window: other.window.max(LEAST_WINDOW),
        };
        let side_record = record.side_mut(side);
        taken = own
            .stream
            .take(&sent, side_record, room, &mut |chunk| out(event(flow, side, chunk)));
    }
    for side in [Side::Client, Side::Server] {
        let (wing, _) = tcp.wings(side);
        let side_record = record.side_mut(side);
        wing.stream
            .settle(packets, side_record, room, &mut |chunk| out(event(flow, side, chunk)));
    }
    taken
}

/// Decides whether a segment belongs to the flow that has its ports.
fn course(flow: &mut Flow, side: Side, segment: &Segment<'_>) -> Course {
    let Body::Tcp(tcp) = &mut flow.body else { return Course::Replace };
    let flags = segment.flags;
    let over = tcp.states.is_over();
    let first = segment.seq.wrapping_add(1);
    let asked = tcp.other_syn;
    let (own, other) = tcp.wings(side);
    if flags.rst() {
        let window = other.window.max(LEAST_WINDOW);
        return if own.stream.is_near(segment.seq, window) { Course::Go } else { Course::Ignore };
    }
    if !flags.syn() {
        return Course::Go;
    }
    let known =
        own.stream.started_at(first) && (!flags.ack() || other.stream.started_at(segment.ack));
    if known {
        Course::Go
    } else if over && !flags.ack() {
        Course::Replace
    } else if flags.ack() && asked == Some(segment.ack.wrapping_sub(1)) {
        // The peer took the SYN that did not belong: what was here before is gone.
        Course::Replace
    } else {
        if !flags.ack() {
            tcp.other_syn = Some(segment.seq);
        }
        Course::Ignore
    }
}
