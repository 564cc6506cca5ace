//! Netlink requests, byte by byte, and the socket that asks them.

use std::io;
use std::net::Ipv6Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

use crate::plan::{Family, PolicyRoute, RULE_PREFERENCE};

/// `lo` is the first interface of every network namespace.
const LO: u32 = 1;

/// Length of a netlink header.
const HEADER: usize = 16;

/// Room for an answer: a header, an error number, and our own header back.
const ANSWER: usize = 4096;

/// A socket to one part of the kernel.
pub(super) struct Socket(OwnedFd);

impl Socket {
    pub(super) fn route() -> io::Result<Self> {
        Self::open(SockProtocol::NetlinkRoute)
    }

    pub(super) fn netfilter() -> io::Result<Self> {
        Self::open(SockProtocol::NetlinkNetFilter)
    }

    fn open(protocol: SockProtocol) -> io::Result<Self> {
        let family = AddressFamily::Netlink;
        Ok(Self(socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?))
    }

    /// Sends a request and waits for the kernel's yes or no.
    pub(super) fn ask(&self, message: &Message) -> io::Result<()> {
        acknowledged(&self.exchange(message)?)
    }

    /// Sends a question for one object; the answer is the object, or that there is none.
    pub(super) fn exists(&self, message: &Message) -> io::Result<bool> {
        let answer = self.exchange(message)?;
        if kind_of(&answer) != Some(libc::NLMSG_ERROR) {
            return Ok(true);
        }
        match acknowledged(&answer) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            other => other.map(|()| true),
        }
    }

    fn exchange(&self, message: &Message) -> io::Result<Vec<u8>> {
        let fd = self.0.as_raw_fd();
        sendto(fd, &message.bytes(), &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        let mut answer = vec![0; ANSWER];
        let length = recv(fd, &mut answer, MsgFlags::empty())?;
        answer.truncate(length);
        Ok(answer)
    }
}

/// Reads the kernel's answer: an error message with number 0 is a yes.
fn acknowledged(answer: &[u8]) -> io::Result<()> {
    let unexpected = || io::Error::new(io::ErrorKind::InvalidData, "unexpected netlink answer");
    let kind = answer
        .get(4..6)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u16::from_ne_bytes);
    if kind.map(i32::from) != Some(libc::NLMSG_ERROR) {
        return Err(unexpected());
    }
    let number = answer
        .get(HEADER..HEADER + 4)
        .and_then(|bytes| bytes.try_into().ok());
    match number.map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(number) => Err(io::Error::from_raw_os_error(number.saturating_neg())),
        None => Err(unexpected()),
    }
}

fn kind_of(answer: &[u8]) -> Option<i32> {
    let bytes = answer.get(4..6)?.try_into().ok()?;
    Some(i32::from(u16::from_ne_bytes(bytes)))
}

/// A request without its header.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Message {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

/// Flags of a request that makes something new.
pub(super) const NEW: i32 = libc::NLM_F_CREATE | libc::NLM_F_EXCL;

impl Message {
    pub(super) fn add_address(addr: Ipv6Addr) -> Self {
        Self::address(libc::RTM_NEWADDR, NEW, addr)
    }

    pub(super) fn remove_address(addr: Ipv6Addr) -> Self {
        Self::address(libc::RTM_DELADDR, 0, addr)
    }

    pub(super) fn add_route(family: Family, route: PolicyRoute) -> Self {
        Self::route(libc::RTM_NEWROUTE, NEW, family, route)
    }

    pub(super) fn remove_route(family: Family, route: PolicyRoute) -> Self {
        Self::route(libc::RTM_DELROUTE, 0, family, route)
    }

    pub(super) fn add_rule(family: Family, route: PolicyRoute) -> Self {
        Self::rule(libc::RTM_NEWRULE, NEW, family, route)
    }

    pub(super) fn remove_rule(family: Family, route: PolicyRoute) -> Self {
        Self::rule(libc::RTM_DELRULE, 0, family, route)
    }

    pub(super) fn add_note(table: u32) -> Self {
        Self::note(libc::RTM_NEWROUTE, NEW, table)
    }

    pub(super) fn remove_note(table: u32) -> Self {
        Self::note(libc::RTM_DELROUTE, 0, table)
    }

    /// A route that is never used: it is there while a change of rules is not over, whoever dies meanwhile.
    fn note(kind: u16, flags: i32, table: u32) -> Self {
        const DESTINATION: u16 = 1;
        const TABLE: u16 = 15;
        const STATIC: u8 = 4;
        const UNIVERSE: u8 = 0;
        const BLACKHOLE: u8 = 6;
        // A documentation address that nobody has.
        const NOWHERE: [u8; 4] = [192, 0, 2, 171];
        let mut body = vec![family_number(Family::V4), 32, 0, 0, 0, STATIC, UNIVERSE, BLACKHOLE];
        body.extend([0; 4]);
        attribute(&mut body, DESTINATION, &NOWHERE);
        attribute(&mut body, TABLE, &table.to_ne_bytes());
        Self { kind, flags: request(flags), body }
    }

    /// Deleting conntrack entries without saying which deletes all of this namespace.
    pub(super) fn flush_conntrack() -> Self {
        const DELETE: u16 = 2;
        let subsystem = u16::try_from(libc::NFNL_SUBSYS_CTNETLINK).unwrap_or(1);
        // Any family, version 0, no resource.
        Self { kind: subsystem << 8 | DELETE, flags: request(0), body: vec![0; 4] }
    }

    /// Asks to be the reader of a packet queue, and for what is known of each packet: without that none is queued.
    pub(super) fn bind_queue(number: u16) -> Self {
        const CONFIG: u16 = 2;
        const COMMAND: u16 = 1;
        const PARAMETERS: u16 = 2;
        const BIND: u8 = 1;
        const WHAT_IS_KNOWN: u8 = 1;
        let subsystem = u16::try_from(libc::NFNL_SUBSYS_QUEUE).unwrap_or(3);
        let mut body = vec![0, 0];
        body.extend(number.to_be_bytes());
        attribute(&mut body, COMMAND, &[BIND, 0, 0, 0]);
        attribute(&mut body, PARAMETERS, &[0, 0, 0, 0, WHAT_IS_KNOWN]);
        Self { kind: subsystem << 8 | CONFIG, flags: request(0), body }
    }

    /// The question for an nf_tables table by name.
    pub(super) fn table(family: u8, name: &str) -> Self {
        const GET_TABLE: u16 = 1;
        const NAME: u16 = 1;
        let subsystem = u16::try_from(libc::NFNL_SUBSYS_NFTABLES).unwrap_or(10);
        let mut body = vec![family, 0, 0, 0];
        let mut text = name.as_bytes().to_vec();
        text.push(0);
        attribute(&mut body, NAME, &text);
        Self { kind: subsystem << 8 | GET_TABLE, flags: QUESTION, body }
    }

    fn address(kind: u16, flags: i32, addr: Ipv6Addr) -> Self {
        const LOCAL: u16 = 2;
        const HOST_SCOPE: u8 = 254;
        const NO_DUPLICATE_DETECTION: u8 = 2;
        let mut body = vec![family_number(Family::V6), 128, NO_DUPLICATE_DETECTION, HOST_SCOPE];
        body.extend(LO.to_ne_bytes());
        attribute(&mut body, LOCAL, &addr.octets());
        Self { kind, flags: request(flags), body }
    }

    fn route(kind: u16, flags: i32, family: Family, route: PolicyRoute) -> Self {
        const OUT_INTERFACE: u16 = 4;
        const TABLE: u16 = 15;
        const STATIC: u8 = 4;
        const HOST_SCOPE: u8 = 254;
        const LOCAL: u8 = 2;
        // Destination and source of length 0 are the default route; the table is in its attribute.
        let mut body = vec![family_number(family), 0, 0, 0, 0, STATIC, HOST_SCOPE, LOCAL];
        body.extend([0; 4]);
        attribute(&mut body, TABLE, &route.table.to_ne_bytes());
        attribute(&mut body, OUT_INTERFACE, &LO.to_ne_bytes());
        Self { kind, flags: request(flags), body }
    }

    fn rule(kind: u16, flags: i32, family: Family, route: PolicyRoute) -> Self {
        const PREFERENCE: u16 = 6;
        const MARK: u16 = 10;
        const TABLE: u16 = 15;
        const MASK: u16 = 16;
        const TO_TABLE: u8 = 1;
        let mut body = vec![family_number(family), 0, 0, 0, 0, 0, 0, TO_TABLE];
        body.extend([0; 4]);
        attribute(&mut body, PREFERENCE, &RULE_PREFERENCE.to_ne_bytes());
        attribute(&mut body, MARK, &route.mark.to_ne_bytes());
        attribute(&mut body, MASK, &u32::MAX.to_ne_bytes());
        attribute(&mut body, TABLE, &route.table.to_ne_bytes());
        Self { kind, flags: request(flags), body }
    }

    /// A request with a body of its own.
    pub(super) fn new(kind: u16, flags: i32, body: Vec<u8>) -> Self {
        Self { kind, flags: request(flags), body }
    }

    /// The request with its header.
    fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(HEADER + self.body.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(HEADER + self.body.len());
        bytes.extend(length.to_ne_bytes());
        bytes.extend(self.kind.to_ne_bytes());
        bytes.extend(self.flags.to_ne_bytes());
        // Sequence number and port: one question at a time, the kernel fills in the port.
        bytes.extend([0; 8]);
        bytes.extend(&self.body);
        bytes
    }
}

/// Flags of a question that its answer acknowledges.
const QUESTION: u16 = 1;

fn request(flags: i32) -> u16 {
    u16::try_from(libc::NLM_F_REQUEST | libc::NLM_F_ACK | flags).unwrap_or(u16::MAX)
}

fn family_number(family: Family) -> u8 {
    let number = match family {
        Family::V4 => libc::AF_INET,
        Family::V6 => libc::AF_INET6,
    };
    u8::try_from(number).unwrap_or_default()
}

/// Appends an attribute, padded to a multiple of four.
pub(super) fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    const PREFIX: usize = 4;
    let length = u16::try_from(PREFIX + value.len()).unwrap_or(u16::MAX);
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(PREFIX), 0);
}

#[cfg(test)]
mod tests {
    use super::{Message, acknowledged};
    use crate::plan::{DELIVERY_V6, Family, PolicyRoute};

    #[test]
    fn writes_lengths_that_add_up() {
        let route = PolicyRoute { mark: 0x6eb, table: 171 };
        let messages = [
            Message::add_address(DELIVERY_V6),
            Message::add_route(Family::V4, route),
            Message::remove_rule(Family::V6, route),
            Message::add_note(171),
            Message::flush_conntrack(),
            Message::table(1, "outrider"),
            Message::bind_queue(171),
        ];
        for message in messages {
            let bytes = message.bytes();
            assert_eq!(bytes[..4], u32::try_from(bytes.len()).unwrap().to_ne_bytes());
            assert_eq!(bytes.len() % 4, 0, "{message:?}");
        }
    }

    #[test]
    fn reads_yes_no_and_nonsense() {
        let mut answer = vec![0; 36];
        answer[4..6].copy_from_slice(&2_u16.to_ne_bytes());
        assert!(acknowledged(&answer).is_ok());
        answer[16..20].copy_from_slice(&(-17_i32).to_ne_bytes());
        assert_eq!(acknowledged(&answer).unwrap_err().raw_os_error(), Some(17));
        for cut in 0..20 {
            assert!(acknowledged(&answer[..cut]).is_err(), "cut at {cut}");
        }
    }
}
