//! What all netlink messages have in common, bytes to values and back.

use std::io::{self, Read};

use socket2::{Domain, Protocol, Socket, Type};

/// Lengths of the headers of a message and of an attribute.
pub(crate) const HEADER: usize = 16;
pub(crate) const ATTRIBUTE: usize = 4;
/// Kind of the kernel's answer to a request.
pub(crate) const ERROR: u16 = 2;
/// Flags of a request.
pub(crate) const REQUEST: u16 = 1;
pub(crate) const ACKNOWLEDGE: u16 = 4;

/// Appends an attribute.
pub(crate) fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(ATTRIBUTE + value.len()).unwrap_or(u16::MAX);
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(aligned(body.len()), 0);
}

/// A message: header, and the body with its family's own header.
pub(crate) fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend([0; 4]);
    message.extend(body);
    message
}

/// Length with the padding behind it.
pub(crate) fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// A number in the machine's order.
pub(crate) fn native(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A number in the network's order.
pub(crate) fn network(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A netlink socket of this thread's network namespace.
pub(crate) fn open(protocol: i32) -> io::Result<Socket> {
    let domain = Domain::from(libc::AF_NETLINK);
    Socket::new(domain, Type::RAW, Some(Protocol::from(protocol)))
}

/// Sends a request that wants [`ACKNOWLEDGE`] and waits for the answer.
pub(crate) fn ask(mut socket: &Socket, request: &[u8]) -> io::Result<()> {
    socket.send(request)?;
    let mut answer = [0; 1024];
    let sequence = native(request, 8);
    for _ in 0..MAX_OTHERS {
        let length = socket.read(&mut answer)?;
        let answer = answer.get(..length).unwrap_or_default();
        let kind = answer.get(4..).and_then(|rest| rest.first_chunk());
        let is_answer = kind.is_some_and(|kind| u16::from_ne_bytes(*kind) == ERROR);
        if is_answer && native(answer, 8) == sequence {
            let error = native(answer, HEADER).unwrap_or_default().cast_signed();
            return if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-error)) };
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// Messages that may come before the answer to a request.
const MAX_OTHERS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_messages_say_their_length() {
        let mut body = Vec::new();
        attribute(&mut body, 3, b"abcde");
        attribute(&mut body, 4, &[]);
        assert_eq!(body.len(), 16);
        let message = message(20, REQUEST | ACKNOWLEDGE, 7, &body);
        assert_eq!(native(&message, 0), Some(32));
        assert_eq!(message[4..8], [20, 0, 5, 0].map(|byte: u8| byte));
        assert_eq!(native(&message, 8), Some(7));
        assert_eq!(native(&message, 30), None);
    }

    #[test]
    fn the_kernel_refuses_what_it_does_not_know() {
        let socket = open(libc::NETLINK_ROUTE).unwrap();
        let refused = ask(&socket, &message(libc::RTM_SETLINK, REQUEST | ACKNOWLEDGE, 1, &[0; 16]));
        assert!(refused.is_err());
    }
}
