//! Packets of our own making: resets, probes, and errors that say "prohibited".
//!
//! Whoever takes resets seriously (RFC 5961) takes only one with exactly the number it expects next.
//! Every segment tells that number for both of its ends, so [`Glimpse::resets`] needs nothing but the
//! last segment that was seen; where none comes, a [`probe`] makes an end send one.

use std::net::{IpAddr, SocketAddr};

use outrider_model::{IpProto, bytes::Reader};

use crate::{
    SidePlace, TcpPlace,
    ip::{self, Packet},
    link::{self, Carried},
    transport::{self, Body},
};

/// Length of a packet that is made here: what every IPv6 link carries, so nothing is fragmented.
pub const MAX_FORGED: usize = 1_280;
/// Length of an ICMPv4 error that is made here (RFC 1812, 4.3.2.3).
pub const MAX_ICMPV4_ERROR: usize = 576;

/// What one TCP segment says about its two ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Glimpse {
    /// Who sent it.
    pub src: SocketAddr,
    /// To whom.
    pub dst: SocketAddr,
    /// The number of its first byte.
    pub seq: u32,
    /// The number behind its last byte, SYN and FIN counted.
    pub end: u32,
    /// What its sender expects next; a first SYN does not say.
    pub ack: Option<u32>,
    /// It begins a connection.
    pub syn: bool,
    /// It resets the connection.
    pub rst: bool,
    /// It was made here.
    pub forged: bool,
}

impl Glimpse {
    /// Looks at the beginning of an IP packet, headers included. `None`: it is no TCP segment, or no
    /// whole one, or its length does not stand in its header.
    #[must_use]
    pub fn of(packet: &[u8]) -> Option<Self> {
        let packet = read(packet)?;
        let transport = transport::read(packet.proto, packet.payload, packet.length).ok()?;
        let Body::Tcp(segment) = transport.body else { return None };
        let flags = segment.flags;
        let marks = u32::from(flags.syn()).wrapping_add(flags.fin().into());
        let length = u32::try_from(segment.length).ok()?;
        let mut urgent = Reader::new(packet.payload);
        urgent.take(URGENT_AT)?;
        Some(Self {
            src: SocketAddr::new(packet.src, transport.ports.0),
            dst: SocketAddr::new(packet.dst, transport.ports.1),
            seq: segment.seq,
            end: segment.seq.wrapping_add(length).wrapping_add(marks),
            ack: flags.ack().then_some(segment.ack),
            syn: flags.syn(),
            rst: flags.rst(),
            forged: urgent.be16() == Some(SIGNATURE) && !flags.urg(),
        })
    }

    /// The segment that the client might have sent last. `None`: nothing was seen of the client.
    #[must_use]
    pub fn at(client: SocketAddr, server: SocketAddr, place: TcpPlace) -> Option<Self> {
        let SidePlace { next, .. } = place.client?;
        Some(Self {
            src: client,
            dst: server,
            seq: next,
            end: next,
            ack: place.server.map(|server| server.next),
            syn: false,
            rst: false,
            forged: false,
        })
    }

    /// Resets for both ends, the sender's first: each is what the other end would send now.
    #[must_use]
    pub fn resets(&self) -> [Vec<u8>; 2] {
        let to_sender = segment(self.dst, self.src, (self.ack.unwrap_or(0), Some(self.end)), RST);
        let to_receiver = segment(self.src, self.dst, (self.end, self.ack), RST);
        [to_sender, to_receiver]
    }
}

/// A segment from `src` that makes `dst` answer with its true numbers, if it has the connection, and
/// with a reset if it has not. `next` is what `src` would send next, `ack` what it would expect; any
/// number will do for a connection of which nothing is known.
///
/// It carries one byte that `dst` has long had: an answer to one that carries none may be held back.
#[must_use]
pub fn probe(src: SocketAddr, dst: SocketAddr, next: u32, ack: u32) -> Vec<u8> {
    segment(src, dst, (next.wrapping_sub(1), Some(ack)), 0)
}

/// An error for who sent this packet, in the name of whom it was sent to: "administratively
/// prohibited". `None`: the packet is one that no error may answer (RFC 1812, 4.3.2.7; RFC 4443, 2.4):
/// another error, a fragment that is not the first, or to or from an address that is not one host's.
#[must_use]
pub fn prohibited(packet: &[u8]) -> Option<Vec<u8>> {
    let read = ip::read(carried(packet)?, packet.len()).ok()??;
    let one_host = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => !v4.is_unspecified() && !v4.is_broadcast() && !v4.is_multicast(),
        IpAddr::V6(v6) => !v6.is_unspecified() && !v6.is_multicast(),
    };
    let first = read.piece.is_none_or(|piece| piece.offset == 0);
    if !first || !one_host(read.src) || !one_host(read.dst) || is_icmp_error(&read) {
        return None;
    }
    let (head, max) = match read.src {
        IpAddr::V4(_) => ([3, 13, 0, 0, 0, 0, 0, 0], MAX_ICMPV4_ERROR.saturating_sub(V4_HEADER)),
        IpAddr::V6(_) => ([1, 1, 0, 0, 0, 0, 0, 0], MAX_FORGED.saturating_sub(V6_HEADER)),
    };
    let room = max.saturating_sub(head.len());
    let quoted = packet.get(..room).unwrap_or(packet);
    let proto = if read.src.is_ipv4() { IpProto::ICMP } else { IpProto::ICMPV6 };
    wrap(read.dst, read.src, proto, [&head[..], quoted].concat(), 2)
}

/// Whether it is an ICMP message that no ICMP message may answer: of ICMPv4 only the queries may.
fn is_icmp_error(packet: &Packet<'_>) -> bool {
    let kind = packet.payload.first().copied();
    match packet.proto {
        IpProto::ICMP => !matches!(kind, Some(8 | 13 | 15 | 17)),
        IpProto::ICMPV6 => kind.is_none_or(|kind| kind < 128 || kind == 137),
        _ => false,
    }
}

/// Reads a packet whose end may be missing.
fn read(packet: &[u8]) -> Option<Packet<'_>> {
    const NO_LENGTH: usize = 1 << 20;
    let found = ip::read(carried(packet)?, NO_LENGTH).ok()??;
    (found.piece.is_none() && found.length <= usize::from(u16::MAX)).then_some(found)
}

fn carried(packet: &[u8]) -> Option<Carried<'_>> {
    link::carried(link::LinkType::Raw, packet).ok()
}

/// A segment without options; only a reset or one byte, never a window. The urgent pointer, which means
/// nothing without its flag, tells it from what others send.
fn segment(src: SocketAddr, dst: SocketAddr, numbers: (u32, Option<u32>), flags: u8) -> Vec<u8> {
    let (seq, ack) = numbers;
    let flags = flags | if ack.is_some() { ACK } else { 0 };
    let mut bytes = Vec::with_capacity(MAX_SEGMENT);
    bytes.extend(src.port().to_be_bytes());
    bytes.extend(dst.port().to_be_bytes());
    bytes.extend(seq.to_be_bytes());
    bytes.extend(ack.unwrap_or(0).to_be_bytes());
    bytes.extend([5 << 4, flags, 0, 0, 0, 0]);
    bytes.extend(SIGNATURE.to_be_bytes());
    if flags & RST == 0 {
        bytes.push(0);
    }
    // Both addresses are of one family wherever a connection was seen; otherwise nobody gets it.
    wrap(src.ip(), dst.ip(), IpProto::TCP, bytes, CHECKSUM_AT).unwrap_or_default()
}

/// Puts an IP header before `body` and the checksum at `at` into it.
fn wrap(src: IpAddr, dst: IpAddr, proto: IpProto, mut body: Vec<u8>, at: usize) -> Option<Vec<u8>> {
    let length = u16::try_from(body.len()).ok()?;
    let (mut head, addresses, pseudo) = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let [high, low] = u16::try_from(body.len().checked_add(V4_HEADER)?)
                .ok()?
                .to_be_bytes();
            let head = vec![0x45, 0, high, low, 0, 0, DO_NOT_FRAGMENT, 0, HOPS, proto.0, 0, 0];
            (head, [src.octets(), dst.octets()].concat(), proto != IpProto::ICMP)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let [high, low] = length.to_be_bytes();
            let head = vec![0x60, 0, 0, 0, high, low, proto.0, HOPS];
            (head, [src.octets(), dst.octets()].concat(), true)
        }
        _ => return None,
    };
    let before = if pseudo {
        checked(&addresses, u64::from(length).saturating_add(proto.0.into()))
    } else {
        0
    };
    let sum = fold(checked(&body, before));
    body.get_mut(at..)?
        .first_chunk_mut::<2>()?
        .copy_from_slice(&sum);
    head.extend(addresses);
    if src.is_ipv4() {
        let sum = fold(checked(&head, 0));
        head.get_mut(10..)?
            .first_chunk_mut::<2>()?
            .copy_from_slice(&sum);
    }
    head.extend(body);
    Some(head)
}

/// Adds up 16-bit words (RFC 1071).
fn checked(bytes: &[u8], before: u64) -> u64 {
    bytes.chunks(2).fold(before, |sum, pair| {
        let mut word = [0; 2];
        for (to, from) in word.iter_mut().zip(pair) {
            *to = *from;
        }
        sum.saturating_add(u16::from_be_bytes(word).into())
    })
}

fn fold(mut sum: u64) -> [u8; 2] {
    while sum > 0xffff {
        sum = (sum & 0xffff).saturating_add(sum >> 16);
    }
    let [.., high, low] = sum.to_be_bytes();
    [!high, !low]
}

const V4_HEADER: usize = 20;
const V6_HEADER: usize = 40;
const MAX_SEGMENT: usize = 21;
const CHECKSUM_AT: usize = 16;
const URGENT_AT: usize = 18;
/// What stands where the urgent pointer is of segments that are made here.
const SIGNATURE: u16 = 0x6eb1;
const DO_NOT_FRAGMENT: u8 = 0x40;
const HOPS: u8 = 64;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

#[cfg(test)]
mod tests;
