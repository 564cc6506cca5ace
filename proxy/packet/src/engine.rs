//! From a frame to events.

mod datagram;
mod peek;
mod segment;

pub use peek::Peek;

use std::{net::SocketAddr, time::Duration};

use outrider_model::{FlowId, IpProto, Side, ThreatId, bytes::Reader};

use crate::{
    Counters, Ends, Event, FlowEnd, FlowRecord, Limits, LinkType, TcpPlace,
    flow::{Flow, Key},
    fragment::{Fragments, Joined},
    ip::{self, Packet, Reject},
    link,
    servers::Servers,
    stream::{Chunk, Room, Tally},
    table::Table,
    transport::{self, Body},
};

/// Where events go.
type Out<'a> = &'a mut dyn FnMut(Event<'_>);

/// One captured frame.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// How it begins.
    pub link: LinkType,
    /// When it was seen, since any beginning; the same for all frames.
    pub at: Duration,
    /// What was captured of it.
    pub bytes: &'a [u8],
    /// How long it was on the wire.
    pub wire: usize,
}

impl<'a> Frame<'a> {
    /// The IP packet that it carries, as far as it was captured; nothing if it carries none.
    #[must_use]
    pub fn packet(&self) -> &'a [u8] {
        match link::carried(self.link, self.bytes) {
            Ok(link::Carried::V4(packet) | link::Carried::V6(packet)) => packet,
            _ => &[],
        }
    }
}

/// Takes frames, says what happens.
#[derive(Debug)]
pub struct Engine {
    limits: Limits,
    counters: Counters,
    /// The latest time that was seen: it never goes back.
    now: Duration,
    fragments: Fragments,
    table: Table,
    servers: Servers,
    /// Bytes that came too early, of all flows.
    held: usize,
    tally: Tally,
    last_flow: u64,
}

/// What is the same for all that a frame carries.
#[derive(Clone, Copy, Debug)]
struct Seen {
    src: SocketAddr,
    dst: SocketAddr,
    proto: IpProto,
    wire: usize,
}

impl Engine {
    /// Starts with nothing known.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            counters: Counters::default(),
            now: Duration::ZERO,
            fragments: Fragments::new(limits.fragmented, limits.fragment_bytes),
            table: Table::new(limits.flows),
            servers: Servers::new(limits.servers),
            held: 0,
            tally: Tally::default(),
            last_flow: 0,
        }
    }

    /// Takes the next frame.
    pub fn feed(&mut self, frame: &Frame<'_>, out: &mut dyn FnMut(Event<'_>)) {
        self.advance(frame.at, out);
        let wire = frame.wire.max(frame.bytes.len());
        self.counters.frames = self.counters.frames.saturating_add(1);
        self.counters.bytes = self.counters.bytes.saturating_add(wire as u64);
        match read(frame) {
            Ok(Some(packet)) => self.packet(&packet, wire, out),
            Ok(None) => self.counters.not_ip = self.counters.not_ip.saturating_add(1),
            Err(Reject::CUT_LINK) if frame.bytes.len() < frame.wire => {
                self.reject(Reject::Cut, None, out);
            }
            Err(reject) => self.reject(reject, None, out),
        }
    }

    /// Lets time pass: flows that were silent for too long end.
    pub fn advance(&mut self, now: Duration, out: &mut dyn FnMut(Event<'_>)) {
        self.now = self.now.max(now);
        while let Some(flow) = self.table.expired(self.now) {
            self.close(flow, FlowEnd::Silent, out);
        }
    }

    /// No more frames will come: every flow ends.
    pub fn finish(&mut self, out: &mut dyn FnMut(Event<'_>)) {
        for flow in self.table.take_all() {
            self.close(flow, FlowEnd::Open, out);
        }
        self.fragments.clear();
    }

    /// This endpoint is a server, whichever side is seen first.
    pub fn learn_server(&mut self, proto: IpProto, server: SocketAddr) {
        self.servers.learn(proto, server);
    }

    /// Totals so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters {
            fragments_given_up: self.fragments.evicted,
            segments_held: self.tally.held,
            segments_freed: self.tally.freed,
            ..self.counters
        }
    }

    /// Flows that are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.table.len()
    }

    /// Bytes of payload that are held: fragments, and what came too early.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.saturating_add(self.fragments.held().1)
    }

    /// The flows that are open, as far as they have come.
    pub fn flows(&self) -> impl Iterator<Item = &FlowRecord> {
        self.table.records()
    }

    /// Where the two sides of an open TCP connection are.
    #[must_use]
    pub fn tcp(&self, flow: FlowId) -> Option<TcpPlace> {
        self.table.peek(flow)?.tcp_place()
    }

    fn packet(&mut self, packet: &Packet<'_>, wire: usize, out: Out<'_>) {
        let family = match packet.src {
            std::net::IpAddr::V4(_) => &mut self.counters.ipv4,
            std::net::IpAddr::V6(_) => &mut self.counters.ipv6,
        };
        *family = family.saturating_add(1);
        let Some(piece) = packet.piece else {
            return self.whole(packet, wire, out);
        };
        self.counters.fragments = self.counters.fragments.saturating_add(1);
        match self.fragments.join(packet, piece, self.now) {
            Joined::Dropped if packet.payload.len() < packet.length => {
                self.counters.cut = self.counters.cut.saturating_add(1);
            }
            Joined::Held | Joined::Dropped => {}
            Joined::Whole(bytes) => {
                self.counters.reassembled = self.counters.reassembled.saturating_add(1);
                self.joined(packet, &bytes, wire, out);
            }
            Joined::Overlap => {
                self.find(packet, ThreatId::TEARDROP, "overlapping IP fragments", out);
            }
            Joined::Malformed(what) => self.reject(Reject::Malformed(what), Some(packet), out),
        }
    }

    /// A packet whose last missing fragment has come.
    fn joined(&mut self, last: &Packet<'_>, bytes: &[u8], wire: usize, out: Out<'_>) {
        let whole = Packet { payload: bytes, length: bytes.len(), piece: None, ..*last };
        if last.src.is_ipv4() {
            return self.whole(&whole, wire, out);
        }
        match ip::extensions(last.proto.0, bytes, bytes.len(), true) {
            Ok(behind) => {
                let proto = IpProto(behind.proto);
                let (payload, length) = (behind.payload, behind.length);
                self.whole(&Packet { proto, payload, length, ..whole }, wire, out);
            }
            Err(reject) => self.reject(reject, Some(&whole), out),
        }
    }

    fn whole(&mut self, packet: &Packet<'_>, wire: usize, out: Out<'_>) {
        let transport = match transport::read(packet.proto, packet.payload, packet.length) {
            Ok(transport) => transport,
            Err(reject) => return self.reject(reject, Some(packet), out),
        };
        let seen = Seen {
            src: SocketAddr::new(packet.src, transport.ports.0),
            dst: SocketAddr::new(packet.dst, transport.ports.1),
            proto: packet.proto,
            wire,
        };
        let counter = match transport.body {
            Body::Tcp(_) => &mut self.counters.tcp,
            Body::Datagram(..) => &mut self.counters.udp,
            Body::Icmp(_) => &mut self.counters.icmp,
            Body::Other(_) => &mut self.counters.other,
        };
        *counter = counter.saturating_add(1);
        match transport.body {
            Body::Tcp(segment) => self.segment(seen, &segment, out),
            Body::Datagram(payload, length) => self.datagram(seen, payload, length, out),
            Body::Icmp(message) => self.icmp(seen, &message, out),
            Body::Other(length) => self.other(seen, length, out),
        }
        if let Some((id, message)) = transport.finding {
            self.find(packet, id, message, out);
        }
    }

    /// A packet that cannot be read.
    fn reject(&mut self, reject: Reject, packet: Option<&Packet<'_>>, out: Out<'_>) {
        match (reject, packet) {
            (Reject::Cut, _) => self.counters.cut = self.counters.cut.saturating_add(1),
            (Reject::Malformed(message), packet) => {
                self.counters.malformed = self.counters.malformed.saturating_add(1);
                match packet {
                    Some(packet) => self.find(packet, ThreatId::INVALID_PACKET, message, out),
                    None => {
                        let side = Side::Client;
                        out(Event::Finding {
                            flow: None,
                            side,
                            id: ThreatId::INVALID_PACKET,
                            message,
                        });
                    }
                }
            }
        }
    }

    /// Reports something about a packet, at the flow it belongs to or at one of its own.
    fn find(&mut self, packet: &Packet<'_>, id: ThreatId, message: &'static str, out: Out<'_>) {
        let ports = match (packet.proto, packet.piece) {
            (IpProto::TCP | IpProto::UDP | IpProto::SCTP, None) => {
                let mut reader = Reader::new(packet.payload);
                reader.be16().zip(reader.be16()).unwrap_or_default()
            }
            _ => (0, 0),
        };
        let (proto, wire) = (packet.proto, 0);
        let src = SocketAddr::new(packet.src, ports.0);
        let dst = SocketAddr::new(packet.dst, ports.1);
        let key = Key::of(proto, src, dst, 0);
        let known = self.table.find(&key);
        let flow = known.unwrap_or_else(|| {
            let seen = Seen { src, dst, proto, wire };
            self.open_plain(seen, key, self.servers.sent(proto, src, dst), out)
        });
        let Some(found) = self.table.get(flow) else { return };
        let side = found.side_of(src);
        if known.is_none() {
            found.count(side, self.now, packet.length);
            out(Event::Packet(&found.record, side));
            self.table.keep(flow, self.now.saturating_add(OTHER_TIME));
        }
        out(Event::Finding { flow: Some(flow), side, id, message });
    }

    /// Opens a flow whose ports are what they say.
    fn open_plain(&mut self, seen: Seen, key: Key, by_server: bool, out: Out<'_>) -> FlowId {
        let (client, server) = if by_server { (seen.dst, seen.src) } else { (seen.src, seen.dst) };
        let ends = Ends { client, server, proto: seen.proto };
        self.open_flow(key, ends, client, false, out)
    }

    fn open_flow(
        &mut self,
        key: Key,
        ends: Ends,
        client: SocketAddr,
        mid_stream: bool,
        out: Out<'_>,
    ) -> FlowId {
        while self.table.is_full()
            && let Some(flow) = self.table.evict()
        {
            self.counters.evicted = self.counters.evicted.saturating_add(1);
            self.close(flow, FlowEnd::Evicted, out);
        }
        let counter = match ends.proto {
            IpProto::TCP => &mut self.counters.tcp_flows,
            IpProto::UDP => &mut self.counters.udp_flows,
            IpProto::ICMP | IpProto::ICMPV6 => &mut self.counters.icmp_flows,
            _ => &mut self.counters.other_flows,
        };
        *counter = counter.saturating_add(1);
        self.last_flow = self.last_flow.saturating_add(1);
        let id = FlowId(self.last_flow);
        let mut flow = Flow::new(id, key, ends, client, self.now);
        flow.record.mid_stream = mid_stream;
        self.table.add(id, flow);
        out(Event::Opened { flow: id, ends, mid_stream });
        id
    }

    fn close(&mut self, mut flow: Flow, why: FlowEnd, out: Out<'_>) {
        let id = flow.record.flow;
        let mut room = Room {
            by_side: self.limits.held_by_side,
            used: &mut self.held,
            total: self.limits.held,
            tally: &mut self.tally,
        };
        flow.end(why, &mut room, &mut |side, chunk| out(event(id, side, chunk)));
        out(Event::Closed(&flow.record));
    }
}

/// Reads the headers of a frame up to IP's.
fn read<'a>(frame: &Frame<'a>) -> Result<Option<Packet<'a>>, Reject> {
    let carried = link::carried(frame.link, frame.bytes)?;
    let inside = match carried {
        link::Carried::V4(packet) | link::Carried::V6(packet) => packet.len(),
        link::Carried::NotIp => 0,
    };
    let before = frame.bytes.len().saturating_sub(inside);
    let wire = frame.wire.max(frame.bytes.len());
    ip::read(carried, wire.saturating_sub(before))
}

/// A chunk of a flow as an event.
fn event(flow: FlowId, side: Side, chunk: Chunk<'_>) -> Event<'_> {
    match chunk {
        Chunk::Bytes(bytes) => Event::Data { flow, side, bytes },
        Chunk::Lost(bytes) => Event::Lost { flow, side, bytes },
        Chunk::End => Event::Ended { flow, side },
    }
}

/// How long flows of other protocols may be silent.
const OTHER_TIME: Duration = Duration::from_secs(15);
