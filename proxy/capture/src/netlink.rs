//! What all netlink messages have in common, bytes to values and back.

use std::{
    io::{self, Read},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

/// Lengths of the headers of a message and of an attribute.
const HEADER: usize = 16;
const ATTRIBUTE: usize = 4;
/// Kind of the kernel's answer to a request.
const ERROR: u16 = 2;
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
fn aligned(length: usize) -> usize {
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

/// A message that was received.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    /// What it is.
    pub(crate) kind: u16,
    /// Number of the request that it belongs to.
    pub(crate) sequence: u32,
    /// What is behind the header.
    pub(crate) body: &'a [u8],
}

impl Message<'_> {
    /// The kernel's error number, positive and 0 for consent, if this is its answer to a request.
    pub(crate) fn answer(&self) -> Option<i32> {
        let error = native(self.body, 0).filter(|_| self.kind == ERROR)?;
        Some(error.cast_signed().saturating_neg())
    }
}

/// Shows every message of a datagram; `None` is the rest of one that is cut.
pub(crate) fn messages<'a>(mut datagram: &'a [u8], mut each: impl FnMut(Option<Message<'a>>)) {
    while !datagram.is_empty() {
        let Some((message, length)) = first(datagram) else { return each(None) };
        each(Some(message));
        datagram = datagram.get(aligned(length)..).unwrap_or_default();
    }
}

fn first(datagram: &[u8]) -> Option<(Message<'_>, usize)> {
    let length = native(datagram, 0)? as usize;
    let body = datagram.get(HEADER..length)?;
    let kind = u16::from_ne_bytes(*datagram.get(4..)?.first_chunk()?);
    Some((Message { kind, sequence: native(datagram, 8)?, body }, length))
}

/// Shows kind and value of every attribute; `None` if one is cut, or is nothing to `each`.
pub(crate) fn attributes<'a>(
    mut bytes: &'a [u8],
    mut each: impl FnMut(u16, &'a [u8]) -> Option<()>,
) -> Option<()> {
    while let Some(length) = bytes.first_chunk() {
        let length = usize::from(u16::from_ne_bytes(*length));
        let value = bytes.get(ATTRIBUTE..length)?;
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?);
        each(kind & KIND, value)?;
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
    }
    Some(())
}

/// A netlink socket of this thread's network namespace.
pub(crate) fn open(protocol: i32) -> io::Result<Socket> {
    let domain = Domain::from(libc::AF_NETLINK);
    Socket::new(domain, Type::RAW, Some(Protocol::from(protocol)))
}

/// Asks the kernel for changes, one at a time.
#[derive(Debug)]
pub(crate) struct Asker {
    socket: Socket,
    /// Number of the last request: a late answer is not taken for the next one's.
    sequence: u32,
}

impl Asker {
    /// In this thread's network namespace, of a kernel that may take `patience` for each.
    pub(crate) fn open(protocol: i32, patience: Duration) -> io::Result<Self> {
        let socket = open(protocol)?;
        socket.set_read_timeout(Some(patience))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Sends a request and waits until it is carried out or refused.
    pub(crate) fn ask(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let flags = REQUEST | ACKNOWLEDGE | flags;
        self.socket
            .send(&message(kind, flags, self.sequence, body))?;
        let mut buffer = [0; ANSWER];
        for _ in 0..MAX_OTHERS {
            let length = self.socket.read(&mut buffer)?;
            let mut answer = None;
            messages(buffer.get(..length).unwrap_or_default(), |message| {
                let own = message.filter(|message| message.sequence == self.sequence);
                answer = answer.or(own.and_then(|message| message.answer()));
            });
            match answer {
                Some(0) => return Ok(()),
                Some(error) => return Err(io::Error::from_raw_os_error(error)),
                None => {}
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}

/// Messages that may come before the answer to a request.
const MAX_OTHERS: usize = 64;
/// Room for an answer: an error with the request's header, or with all of it.
const ANSWER: usize = 1024;
/// Bits of an attribute's kind; the others are flags.
const KIND: u16 = 0x3fff;

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

    /// Kinds and bodies of the messages of a datagram, and whether it is cut.
    fn read(datagram: &[u8]) -> (Vec<(u16, u32, Vec<u8>)>, bool) {
        let (mut found, mut cut) = (Vec::new(), false);
        messages(datagram, |message| match message {
            Some(message) => found.push((message.kind, message.sequence, message.body.to_vec())),
            None => cut = true,
        });
        (found, cut)
    }

    #[test]
    fn reads_what_it_writes_up_to_a_cut() {
        let (one, two) = (message(20, 0, 7, b"abcde"), message(21, 0, 8, b""));
        let mut datagram = one.clone();
        datagram.resize(aligned(one.len()), 0);
        let second = datagram.len();
        datagram.extend(&two);
        let want = [(20, 7, b"abcde".to_vec()), (21, 8, Vec::new())];
        for cut in 0..=datagram.len() {
            let whole = usize::from(cut >= one.len()) + usize::from(cut >= datagram.len());
            let (found, is_cut) = read(&datagram[..cut]);
            assert_eq!(found, want[..whole], "cut at {cut}");
            let ends = cut == 0 || (one.len()..=second).contains(&cut) || cut == datagram.len();
            assert_eq!(is_cut, !ends, "cut at {cut}");
        }
        for length in 0..16_u32 {
            datagram[..4].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(read(&datagram), (Vec::new(), true), "length {length}");
        }
    }

    #[test]
    fn reads_attributes_without_their_flags() {
        let mut body = Vec::new();
        attribute(&mut body, 0x8003, b"abcde");
        attribute(&mut body, 4, &[]);
        let mut found = Vec::new();
        let whole = attributes(&body, |kind, value| {
            found.push((kind, value));
            Some(())
        });
        assert_eq!(whole, Some(()));
        assert_eq!(found, [(3, &b"abcde"[..]), (4, &[])]);
        assert_eq!(attributes(&body, |_, _| None), None);
        // Less than 2 bytes are no attribute; what has no room for its length is cut.
        for cut in [2, 3, 8, 14] {
            assert_eq!(attributes(&body[..cut], |_, _| Some(())), None, "cut at {cut}");
        }
        for length in 0..4 {
            body[0] = length;
            assert_eq!(attributes(&body, |_, _| Some(())), None, "length {length}");
        }
    }

    #[test]
    fn reads_consent_refusal_and_nonsense() {
        let answer = |kind, body: &[u8]| Message { kind, sequence: 1, body }.answer();
        let refusal = (-libc::EPERM).to_ne_bytes();
        assert_eq!(answer(2, &[0; 20]), Some(0));
        assert_eq!(answer(2, &refusal), Some(libc::EPERM));
        for cut in 0..4 {
            assert_eq!(answer(2, &refusal[..cut]), None, "cut at {cut}");
        }
        assert_eq!(answer(3, &[0; 20]), None);
    }

    /// An asker whose kernel is the socket.
    fn asker(sequence: u32) -> (Asker, Socket) {
        let (socket, kernel) = Socket::pair(Domain::UNIX, Type::DGRAM, None).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        (Asker { socket, sequence }, kernel)
    }

    #[test]
    fn a_late_answer_is_not_the_next_ones() {
        let (mut asker, kernel) = asker(u32::MAX);
        let refusal = (-libc::EPERM).to_ne_bytes();
        kernel.send(&message(ERROR, 0, u32::MAX, &refusal)).unwrap();
        kernel.send(b"nonsense").unwrap();
        kernel.send(&message(ERROR, 0, 0, &[0; 4])).unwrap();
        asker.ask(1, 0, b"").unwrap();
        kernel.send(&message(ERROR, 0, 1, &refusal)).unwrap();
        let refused = asker.ask(1, 0, b"").unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
    }

    #[test]
    fn a_kernel_that_says_something_else_or_nothing_is_given_up() {
        let (mut asker, kernel) = asker(0);
        assert_eq!(asker.ask(1, 0, b"").unwrap_err().kind(), io::ErrorKind::WouldBlock);
        // As many as a socket of this kind holds; the others follow as they are read.
        let feed = std::thread::spawn(move || {
            for _ in 0..=MAX_OTHERS {
                kernel.send(&message(ERROR, 0, 1, &[0; 4])).unwrap();
            }
            kernel
        });
        assert_eq!(asker.ask(1, 0, b"").unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(asker.socket.read(&mut [0; ANSWER]).unwrap(), 20);
        drop(feed.join().unwrap());
    }

    #[test]
    fn the_kernel_refuses_what_it_does_not_know() {
        let mut asker = Asker::open(libc::NETLINK_ROUTE, Duration::from_secs(2)).unwrap();
        assert!(asker.ask(libc::RTM_SETLINK, 0, &[0; 16]).is_err());
    }
}
