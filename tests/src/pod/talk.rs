//! Packets that are not TCP, one way, and whether they arrive.

use std::{
    io::{ErrorKind, Read as _},
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use anyhow::{Context as _, Result};
use socket2::{Domain, Protocol, Socket, Type};

use super::Pod;

/// What is sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Datagrams to a port.
    Udp(u16),
    /// Echo requests.
    Ping,
    /// The beginning of an SCTP association with a port.
    Sctp(u16),
    /// Any other protocol of that number; 47 is GRE.
    Ip(u8),
}

impl Kind {
    /// Its protocol's number.
    #[must_use]
    pub fn number(self, v6: bool) -> u8 {
        match self {
            Self::Udp(_) => 17,
            Self::Ping if v6 => 58,
            Self::Ping => 1,
            Self::Sctp(_) => 132,
            Self::Ip(number) => number,
        }
    }

    /// Its name in rules and conversations.
    #[must_use]
    pub fn label(self, v6: bool) -> String {
        match self {
            Self::Udp(_) => "udp".to_owned(),
            Self::Ping if v6 => "icmpv6".to_owned(),
            Self::Ping => "icmp".to_owned(),
            Self::Sctp(_) => "sctp".to_owned(),
            Self::Ip(number) => format!("ip/{number}"),
        }
    }

    /// The port that rules and conversations name, 0 if there is none.
    #[must_use]
    pub fn port(self) -> u16 {
        match self {
            Self::Udp(port) | Self::Sctp(port) => port,
            Self::Ping | Self::Ip(_) => 0,
        }
    }
}

/// One flow from one pod to another: the same addresses and ports, and what identifies a ping, all its life. The
/// receiver is a raw socket: it gets a copy of what the kernel hands to this host behind all rules, put
/// together again if it was in fragments.
#[derive(Debug)]
pub struct Talk {
    /// Who, what and to whom, for messages.
    pub name: String,
    /// What is sent.
    pub kind: Kind,
    /// Whether by IPv6.
    pub v6: bool,
    sender: Socket,
    receiver: Socket,
    ends: (SocketAddr, SocketAddr),
    size: usize,
}

impl AsRef<Self> for Talk {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// Tells packets of this process apart.
static SENT: AtomicU32 = AtomicU32::new(1);
/// Bytes that a packet is recognised by.
const TOKEN: usize = 8;

impl Talk {
    /// Opens both ends. `from` is an address of the client, `size` the length of what is sent.
    pub fn open(
        (client, from): (&Pod, SocketAddr),
        server: &Pod,
        kind: Kind,
        size: usize,
    ) -> Result<Self> {
        let v6 = from.is_ipv6();
        let domain = Domain::for_address(from);
        let protocol = Protocol::from(i32::from(kind.number(v6)));
        let receiver = server
            .netns
            .enter(|| Ok(Socket::new(domain, Type::RAW, Some(protocol))?))?;
        receiver.set_nonblocking(true)?;
        receiver.bind(&server.at(v6, 0).into())?;
        let sender = client.netns.enter(|| {
            let kind = match kind {
                Kind::Udp(_) => (Type::DGRAM, None),
                _ => (Type::RAW, Some(protocol)),
            };
            let socket = Socket::new(domain, kind.0, kind.1)?;
            let port = if kind.0 == Type::DGRAM { from.port() } else { 0 };
            socket.set_reuse_address(true)?;
            socket.bind(&SocketAddr::new(from.ip(), port).into())?;
            Ok(socket)
        })?;
        let ends = (from, server.at(v6, kind.port()));
        let name = format!("{} {} of {size} bytes to {}", from, kind.label(v6), ends.1);
        Ok(Self { name, kind, v6, sender, receiver, ends, size })
    }

    /// Sends one packet; returns what it is recognised by. One that is dropped on its way out may be refused to the
    /// sender, or not: it counts as sent.
    pub fn send(&self) -> Result<[u8; TOKEN]> {
        let number = SENT.fetch_add(1, Relaxed);
        let token = [b"talk".as_slice(), &number.to_be_bytes()].concat();
        let mut body = token.repeat(self.size.div_ceil(TOKEN).max(1));
        body = match self.kind {
            Kind::Udp(_) => body,
            Kind::Ping => ping(body, self.ends.0.port(), self.v6),
            Kind::Sctp(port) => sctp(&body, self.ends.0.port(), port),
            Kind::Ip(_) => [&[0; 4], body.as_slice()].concat(),
        };
        let to = match self.kind {
            Kind::Udp(_) => self.ends.1,
            _ => SocketAddr::new(self.ends.1.ip(), 0),
        };
        match self.sender.send_to(&body, &to.into()) {
            Ok(_) => {}
            Err(error) if DROPPED.contains(&error.kind()) => {}
            Err(error) => return Err(error).with_context(|| self.name.clone()),
        }
        token.try_into().ok().context("eight bytes")
    }

    /// Takes what has arrived; whether the packet with that token is among it.
    pub fn has_arrived(&self, token: &[u8; TOKEN]) -> Result<bool> {
        let (mut found, mut buffer) = (false, vec![0; 65_536]);
        loop {
            match (&self.receiver).read(&mut buffer) {
                Ok(length) => found |= buffer[..length].windows(TOKEN).any(|part| part == token),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(found),
                Err(error) => return Err(error).with_context(|| self.name.clone()),
            }
        }
    }

    /// The client's address.
    #[must_use]
    pub fn client(&self) -> IpAddr {
        self.ends.0.ip()
    }

    /// The server's address.
    #[must_use]
    pub fn server(&self) -> IpAddr {
        self.ends.1.ip()
    }
}

/// What a sender is told of a packet that a rule drops, and of an error that came back for an earlier one.
const DROPPED: [ErrorKind; 3] =
    [ErrorKind::PermissionDenied, ErrorKind::ConnectionRefused, ErrorKind::HostUnreachable];

/// An echo request; for IPv6 the kernel fills the checksum in.
fn ping(body: Vec<u8>, identifier: u16, v6: bool) -> Vec<u8> {
    let [high, low] = identifier.to_be_bytes();
    let kind = if v6 { 128 } else { 8 };
    let mut packet = vec![kind, 0, 0, 0, high, low, 0, 1];
    packet.extend(body);
    if !v6 {
        let sum = packet.chunks(2).fold(0_u32, |sum, pair| {
            sum + u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))
        });
        let folded = (sum & 0xffff) + (sum >> 16);
        let folded = !((folded & 0xffff) + (folded >> 16));
        packet[2..4].copy_from_slice(&folded.to_be_bytes()[2..]);
    }
    packet
}

/// An INIT chunk with the body in a parameter that receivers skip.
fn sctp(body: &[u8], from: u16, to: u16) -> Vec<u8> {
    let length = |of: usize| u16::try_from(of).unwrap_or(u16::MAX).to_be_bytes();
    let parameter = [&[0xc0, 0xff], &length(4 + body.len())[..], body].concat();
    let init = [0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1];
    let chunk =
        [&[1, 0], &length(4 + init.len() + parameter.len())[..], &init, &parameter].concat();
    let ports = [from.to_be_bytes(), to.to_be_bytes()].concat();
    let mut packet = [&ports[..], &[0; 4], &[0; 4], &chunk].concat();
    let sum = crc32c(&packet);
    packet[8..12].copy_from_slice(&sum.to_le_bytes());
    packet
}

/// The checksum of SCTP (RFC 9260, appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            if sum & 1 == 1 { sum >> 1 ^ 0x82f6_3b78 } else { sum >> 1 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_sctp_is_the_one_of_its_standard() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }
}
