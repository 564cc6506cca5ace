//! The messages of the kernel's socket diagnostics, bytes to values and back (linux/inet_diag.h).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use outrider_model::IpProto;

use super::{InetSocket, SocketState, UNSPECIFIED, Wanted};
use crate::netlink::{self, REQUEST, message, native};

/// A question for sockets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Request {
    family: i32,
    proto: IpProto,
    extensions: u8,
    states: u32,
    /// The ends of the one that is asked for.
    ends: Option<(SocketAddr, SocketAddr)>,
}

impl Request {
    pub(super) fn all(family: i32, wanted: Wanted) -> Self {
        let states = wanted
            .states
            .iter()
            .fold(0, |mask, state| mask | 1_u32.checked_shl(state.0.into()).unwrap_or(0));
        let states = if states == 0 { u32::MAX } else { states };
        let extensions = if wanted.bytes { 1 << (INFO - 1) } else { 0 };
        Self { family, proto: wanted.proto, extensions, states, ends: None }
    }

    pub(super) fn one(proto: IpProto, local: SocketAddr, remote: SocketAddr) -> Self {
        let family = if local.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        Self { family, proto, extensions: 0, states: u32::MAX, ends: Some((local, remote)) }
    }

    pub(super) fn proto(&self) -> IpProto {
        self.proto
    }

    pub(super) fn is_for_one(&self) -> bool {
        self.ends.is_some()
    }

    pub(super) fn bytes(&self, sequence: u32) -> Vec<u8> {
        let flags = if self.is_for_one() { REQUEST } else { REQUEST | DUMP };
        let (local, remote) = self.ends.unwrap_or((UNSPECIFIED, UNSPECIFIED));
        let mut body =
            vec![u8::try_from(self.family).unwrap_or_default(), self.proto.0, self.extensions, 0];
        body.extend(self.states.to_ne_bytes());
        body.extend(local.port().to_be_bytes());
        body.extend(remote.port().to_be_bytes());
        body.extend(sixteen(local.ip()));
        body.extend(sixteen(remote.ip()));
        // Any interface, and no cookie.
        body.extend([0; 4]);
        body.extend([0xff; 8]);
        message(BY_FAMILY, flags, sequence, &body)
    }
}

fn sixteen(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => {
            let mut bytes = [0; 16];
            if let Some(head) = bytes.first_chunk_mut() {
                *head = v4.octets();
            }
            bytes
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// What one message says.
#[derive(Debug)]
pub(super) enum Message {
    Socket(InetSocket),
    /// The answer is over, with this error or none.
    End(i32),
    /// Cut, or of another kind.
    Unknown,
}

/// Reads every message of a datagram, with the number of the question that it answers.
pub(super) fn read(datagram: &[u8], mut each: impl FnMut(u32, Message)) {
    netlink::messages(datagram, |message| {
        let sequence = message.map_or(0, |message| message.sequence);
        each(sequence, message.and_then(one).unwrap_or(Message::Unknown));
    });
}

fn one(message: netlink::Message<'_>) -> Option<Message> {
    match message.kind {
        DONE => Some(Message::End(0)),
        BY_FAMILY => socket(message.body).map(Message::Socket),
        _ => message.answer().map(Message::End),
    }
}

fn socket(body: &[u8]) -> Option<InetSocket> {
    let (family, state) = (*body.first()?, *body.get(1)?);
    let port = |at: usize| Some(u16::from_be_bytes(*body.get(at..)?.first_chunk()?));
    let mut socket = InetSocket {
        proto: IpProto(0),
        state: SocketState(state),
        local: SocketAddr::new(address(family, body.get(8..)?)?, port(4)?),
        remote: SocketAddr::new(address(family, body.get(24..)?)?, port(6)?),
        interface: native(body, 40)?,
        uid: native(body, 64)?,
        inode: native(body, 68)?,
        queues: [native(body, 56)?, native(body, 60)?],
        bytes: None,
    };
    netlink::attributes(body.get(FIXED..)?, |kind, value| {
        match kind {
            PROTOCOL => socket.proto = IpProto(*value.first()?),
            // An older kernel's is shorter.
            INFO => {
                socket.bytes = long(value, 120)
                    .zip(long(value, 128))
                    .map(|(to, from)| [to, from])
            }
            _ => {}
        }
        Some(())
    })?;
    Some(socket)
}

fn address(family: u8, bytes: &[u8]) -> Option<IpAddr> {
    match i32::from(family) {
        libc::AF_INET => Some(Ipv4Addr::from(*bytes.first_chunk()?).into()),
        libc::AF_INET6 => {
            let ip = Ipv6Addr::from(*bytes.first_chunk::<16>()?);
            Some(IpAddr::from(ip).to_canonical())
        }
        _ => None,
    }
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Length of what is said of every socket.
const FIXED: usize = 72;
/// Kinds of messages, and a flag.
const DONE: u16 = 3;
const BY_FAMILY: u16 = 20;
const DUMP: u16 = 0x300;
/// Attributes: `tcp_info`, and the protocol.
const INFO: u16 = 2;
const PROTOCOL: u16 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram() -> Vec<u8> {
        let mut body = vec![2, 1, 0, 0, 0x9c, 0x40, 0, 80];
        body.extend([10, 9, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        body.extend([10, 9, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        body.extend(3_u32.to_ne_bytes());
        body.extend([0; 8 + 4]);
        body.extend(5_u32.to_ne_bytes());
        body.extend(128_u32.to_ne_bytes());
        body.extend(4242_u32.to_ne_bytes());
        body.extend(77_u32.to_ne_bytes());
        let mut info = vec![0; 136];
        info[120..128].copy_from_slice(&1001_u64.to_ne_bytes());
        info[128..136].copy_from_slice(&51_u64.to_ne_bytes());
        for (kind, value) in [(PROTOCOL, &[6][..]), (INFO, &info)] {
            netlink::attribute(&mut body, kind, value);
        }
        message(BY_FAMILY, 0, 5, &body)
    }

    fn sockets(datagram: &[u8]) -> Vec<InetSocket> {
        let mut found = Vec::new();
        read(datagram, |_, message| {
            if let Message::Socket(socket) = message {
                found.push(socket);
            }
        });
        found
    }

    #[test]
    fn reads_a_socket() {
        let want = InetSocket {
            proto: IpProto::TCP,
            state: SocketState::ESTABLISHED,
            local: "10.9.0.1:40000".parse().unwrap(),
            remote: "10.9.0.2:80".parse().unwrap(),
            interface: 3,
            uid: 4242,
            inode: 77,
            queues: [5, 128],
            bytes: Some([1001, 51]),
        };
        assert_eq!(sockets(&datagram()), [want]);
        assert_eq!(sockets(&datagram().repeat(2)), [want, want]);
    }

    #[test]
    fn a_cut_datagram_has_no_socket() {
        let whole = datagram();
        for cut in 0..whole.len() {
            assert!(sockets(&whole[..cut]).is_empty(), "cut at {cut}");
        }
    }

    #[test]
    fn nonsense_is_no_panic() {
        for at in 0..datagram().len() {
            for value in [0x00, 0x7f, 0xff] {
                let mut datagram = datagram();
                datagram[at] = value;
                sockets(&datagram);
            }
        }
    }

    #[test]
    fn an_address_of_four_in_six_is_of_four() {
        let mut bytes = [0; 16];
        bytes[10..].copy_from_slice(&[0xff, 0xff, 10, 9, 0, 1]);
        assert_eq!(address(10, &bytes).unwrap().to_string(), "10.9.0.1");
        assert_eq!(address(40, &bytes), None);
    }

    #[test]
    fn a_question_is_as_the_kernel_wants_it() {
        let states = &[SocketState::ESTABLISHED, SocketState::LISTEN];
        let wanted = Wanted { proto: IpProto::TCP, states, bytes: true };
        let bytes = Request::all(libc::AF_INET, wanted).bytes(7);
        assert_eq!(bytes.len(), 72);
        assert_eq!(bytes[..4], 72_u32.to_ne_bytes());
        assert_eq!(bytes[16..19], [2, 6, 2]);
        assert_eq!(bytes[20..24], (1_u32 << 1 | 1 << 10).to_ne_bytes());
    }
}
