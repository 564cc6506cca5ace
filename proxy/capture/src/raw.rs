//! Packets of our own making, into the network and to the workload itself.

use std::{
    io,
    net::{IpAddr, SocketAddr, SocketAddrV6},
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::CaptureError;

/// Sends whole IP packets, TCP resets and ICMP errors for the most part. Needs `NET_RAW`.
///
/// The kernel routes a packet by its destination and takes its source as it is: one to an address of
/// the pod itself is delivered there, whoever it says it is from.
#[derive(Debug)]
pub struct Injector {
    v4: Socket,
    /// Absent where the kernel has no IPv6.
    v6: Option<Socket>,
}

/// Length of a packet that can be sent: an error or a reset is short, and nothing is fragmented.
pub const MAX_INJECTED: usize = 1280;

impl Injector {
    /// Opens the sockets. What they send carries `mark`, so that the pod's rules leave it alone.
    ///
    /// # Errors
    /// There is no capability.
    pub fn open(mark: Option<u32>) -> Result<Self, CaptureError> {
        let v4 = open(Domain::IPV4, mark).map_err(missing_or_failed)?;
        let v6 = match open(Domain::IPV6, mark) {
            Ok(socket) => Some(socket),
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => None,
            Err(error) => return Err(missing_or_failed(error)),
        };
        Ok(Self { v4, v6 })
    }

    /// Sends a packet, its header included. `interface` is where a link-local destination is a
    /// neighbour, 0 for any other. The header checksum of an IPv4 packet is filled in, no other.
    ///
    /// # Errors
    /// It is no packet, too long, has no route, or the device has no room for it at the moment.
    pub fn send(&self, packet: &[u8], interface: u32) -> Result<(), CaptureError> {
        let destination = destination(packet)?;
        let (socket, address) = match destination {
            IpAddr::V4(_) => (&self.v4, SocketAddr::new(destination, 0)),
            IpAddr::V6(ip) => {
                let missing = || CaptureError::Send(io::ErrorKind::Unsupported.into());
                let address = SocketAddrV6::new(ip, 0, 0, interface);
                (self.v6.as_ref().ok_or_else(missing)?, address.into())
            }
        };
        let sent = socket.send_to(packet, &address.into());
        sent.map(drop).map_err(CaptureError::Send)
    }
}

/// A raw socket of the protocol "raw" receives nothing and sends packets with their headers.
fn open(domain: Domain, mark: Option<u32>) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
    socket.set_nonblocking(true)?;
    if let Some(mark) = mark {
        socket.set_mark(mark)?;
    }
    Ok(socket)
}

fn missing_or_failed(source: io::Error) -> CaptureError {
    CaptureError::net_raw("raw socket", source, CaptureError::Send)
}

/// Where the packet goes, if its header is whole and says its length rightly.
fn destination(packet: &[u8]) -> Result<IpAddr, CaptureError> {
    let refuse = |why| Err(CaptureError::Unsendable(why));
    if packet.len() > MAX_INJECTED {
        return refuse("longer than 1280 bytes");
    }
    let version = packet.first().map_or(0, |byte| byte >> 4);
    let field = |at: usize| packet.get(at..).and_then(|rest| rest.first_chunk::<2>());
    let (length, ip) = match version {
        4 => {
            let address = packet.get(16..).and_then(|rest| rest.first_chunk::<4>());
            (
                field(2).map(|length| u16::from_be_bytes(*length)),
                address.map(|ip| IpAddr::from(*ip)),
            )
        }
        6 => {
            let address = packet.get(24..).and_then(|rest| rest.first_chunk::<16>());
            let payload = field(4).map(|length| u16::from_be_bytes(*length));
            (
                payload.and_then(|payload| payload.checked_add(40)),
                address.map(|ip| IpAddr::from(*ip)),
            )
        }
        _ => return refuse("neither IPv4 nor IPv6"),
    };
    match (length, ip) {
        (Some(length), Some(ip)) if usize::from(length) == packet.len() => Ok(ip),
        (Some(_), Some(_)) => refuse("its header gives another length"),
        _ => refuse("its header is cut"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(length: usize) -> Vec<u8> {
        let mut packet = vec![0; length];
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
        packet[16..20].copy_from_slice(&[10, 0, 0, 1]);
        packet
    }

    #[test]
    fn finds_the_destination_of_both_families() {
        assert_eq!(destination(&v4(40)).unwrap().to_string(), "10.0.0.1");
        let mut v6 = vec![0; 60];
        v6[0] = 0x60;
        v6[5] = 20;
        v6[39] = 1;
        assert_eq!(destination(&v6).unwrap().to_string(), "::1");
    }

    #[test]
    fn refuses_what_is_no_packet() {
        for cut in 0..40 {
            assert_eq!(destination(&v4(40)[..cut]).unwrap_err().reason(), "unsendable");
        }
        assert_eq!(destination(&[0x55; 40]).unwrap_err().reason(), "unsendable");
    }

    #[test]
    fn takes_the_longest_and_refuses_one_byte_more() {
        destination(&v4(MAX_INJECTED)).unwrap();
        assert_eq!(destination(&v4(MAX_INJECTED + 1)).unwrap_err().reason(), "unsendable");
    }
}
