//! Frames made by hand, for tests and fuzzing: right where they should be, wrong on request.
//!
//! Checksums are left at zero: nobody here looks at them, as captures on the sending machine have
//! none either.

use std::net::{IpAddr, SocketAddr};

/// Flags of TCP.
pub const FIN: u8 = 0x01;
/// Begins.
pub const SYN: u8 = 0x02;
/// Resets.
pub const RST: u8 = 0x04;
/// Pushes.
pub const PSH: u8 = 0x08;
/// Acknowledges.
pub const ACK: u8 = 0x10;

/// Largest payload that [`Talk`] puts into one segment.
pub const SEGMENT: usize = 1_400;

/// An Ethernet frame around an IP packet.
#[must_use]
pub fn ethernet(packet: &[u8]) -> Vec<u8> {
    let kind = match packet.first().map(|first| first >> 4) {
        Some(6) => [0x86, 0xdd],
        _ => [0x08, 0x00],
    };
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2], &kind[..], packet].concat()
}

/// A frame with VLAN tags in front of its packet.
#[must_use]
pub fn tagged(packet: &[u8], tags: &[u16]) -> Vec<u8> {
    let plain = ethernet(packet);
    let (addresses, rest) = plain.split_at_checked(12).unwrap_or_default();
    let tags: Vec<u8> = tags
        .iter()
        .flat_map(|tag| [[0x81, 0x00], tag.to_be_bytes()].concat())
        .collect();
    [addresses, &tags, rest].concat()
}

/// An IP packet; its family is that of the addresses, which must be one.
#[must_use]
pub fn ip(src: IpAddr, dst: IpAddr, proto: u8, payload: &[u8]) -> Vec<u8> {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let [high, low] = size(payload.len().saturating_add(20));
            let head = [0x45, 0, high, low, 0, 1, 0x40, 0, 64, proto, 0, 0];
            [&head[..], &src.octets(), &dst.octets(), payload].concat()
        }
        _ => {
            let octets = |address: IpAddr| match address {
                IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                IpAddr::V6(v6) => v6.octets(),
            };
            let [high, low] = size(payload.len());
            let head = [0x60, 0, 0, 0, high, low, proto, 64];
            [&head[..], &octets(src), &octets(dst), payload].concat()
        }
    }
}

/// Fragments of an IPv4 packet without options; `size` bytes of payload each, a multiple of 8.
#[must_use]
pub fn fragments(packet: &[u8], size: usize) -> Vec<Vec<u8>> {
    let (head, payload) = packet.split_at_checked(20).unwrap_or_default();
    let step = (size / 8).max(1).saturating_mul(8);
    let count = payload.len().div_ceil(step);
    (0..count)
        .map(|at| {
            let from = at.saturating_mul(step);
            let rest = payload.get(from..).unwrap_or_default();
            let part = rest.get(..step).unwrap_or(rest);
            fragment(head, part, from / 8, at.saturating_add(1) < count)
        })
        .collect()
}

/// One fragment behind an IPv4 header; `offset` in units of 8 bytes.
#[must_use]
pub fn fragment(header: &[u8], part: &[u8], offset: usize, more: bool) -> Vec<u8> {
    let mut packet = [header, part].concat();
    let [high, low] = size(packet.len());
    let [offset_high, offset_low] = size(offset);
    let more = if more { 0x20 } else { 0 };
    let fields = [(2, high), (3, low), (6, offset_high | more), (7, offset_low)];
    for (at, value) in fields {
        if let Some(byte) = packet.get_mut(at) {
            *byte = value;
        }
    }
    packet
}

/// A TCP segment without options.
#[must_use]
pub fn tcp(ports: (u16, u16), (seq, ack): (u32, u32), flags: u8, payload: &[u8]) -> Vec<u8> {
    let (src, dst) = (ports.0.to_be_bytes(), ports.1.to_be_bytes());
    let rest = [0x50, flags, 0xff, 0xff, 0, 0, 0, 0];
    [&src[..], &dst, &seq.to_be_bytes(), &ack.to_be_bytes(), &rest, payload].concat()
}

/// A UDP datagram in its packet.
#[must_use]
pub fn udp(src: SocketAddr, dst: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let length = size(payload.len().saturating_add(8));
    let (from, to) = (src.port().to_be_bytes(), dst.port().to_be_bytes());
    ip(src.ip(), dst.ip(), 17, &[&from[..], &to, &length, &[0, 0], payload].concat())
}

/// An ICMP echo of either family in its packet.
#[must_use]
pub fn echo(src: IpAddr, dst: IpAddr, reply: bool, (id, seq): (u16, u16), data: &[u8]) -> Vec<u8> {
    let (proto, kind) = match (src.is_ipv4(), reply) {
        (true, false) => (1, 8),
        (true, true) => (1, 0),
        (false, false) => (58, 128),
        (false, true) => (58, 129),
    };
    let head = [kind, 0, 0, 0];
    let message = [&head[..], &id.to_be_bytes(), &seq.to_be_bytes(), data].concat();
    ip(src, dst, proto, &message)
}

fn size(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}

/// A TCP connection, packet by packet.
#[derive(Clone, Debug)]
pub struct Talk {
    client: SocketAddr,
    server: SocketAddr,
    client_seq: u32,
    server_seq: u32,
    /// The packets so far.
    pub packets: Vec<Vec<u8>>,
}

impl Talk {
    /// Before the first SYN; sequence numbers are about to wrap.
    #[must_use]
    pub fn new(client: SocketAddr, server: SocketAddr) -> Self {
        let (client_seq, server_seq) = (u32::MAX.wrapping_sub(3_000), 77);
        Self { client, server, client_seq, server_seq, packets: Vec::new() }
    }

    /// The three packets of a handshake.
    #[must_use]
    pub fn open(mut self) -> Self {
        self.push(true, SYN, &[]);
        self.push(false, SYN | ACK, &[]);
        self.push(true, ACK, &[]);
        self
    }

    /// The client sends, the server acknowledges.
    #[must_use]
    pub fn client(self, bytes: &[u8]) -> Self {
        self.send(true, bytes)
    }

    /// The server sends, the client acknowledges.
    #[must_use]
    pub fn server(self, bytes: &[u8]) -> Self {
        self.send(false, bytes)
    }

    /// Both sides end.
    #[must_use]
    pub fn close(mut self) -> Self {
        self.push(true, FIN | ACK, &[]);
        self.push(false, FIN | ACK, &[]);
        self.push(true, ACK, &[]);
        self
    }

    /// One segment of the client or the server with these flags.
    #[must_use]
    pub fn packet(mut self, by_client: bool, flags: u8, bytes: &[u8]) -> Self {
        self.push(by_client, flags, bytes);
        self
    }

    fn send(mut self, by_client: bool, bytes: &[u8]) -> Self {
        for part in bytes.chunks(SEGMENT) {
            self.push(by_client, PSH | ACK, part);
            self.push(!by_client, ACK, &[]);
        }
        self
    }

    fn push(&mut self, by_client: bool, flags: u8, bytes: &[u8]) {
        let ends = u32::from(flags & (SYN | FIN) != 0);
        let sent = u32::try_from(bytes.len())
            .unwrap_or(u32::MAX)
            .wrapping_add(ends);
        let (src, dst, own, other) = if by_client {
            (self.client, self.server, &mut self.client_seq, self.server_seq)
        } else {
            (self.server, self.client, &mut self.server_seq, self.client_seq)
        };
        let ack = if flags & ACK == 0 { 0 } else { other };
        let segment = tcp((src.port(), dst.port()), (*own, ack), flags, bytes);
        *own = own.wrapping_add(sent);
        self.packets.push(ip(src.ip(), dst.ip(), 6, &segment));
    }
}
