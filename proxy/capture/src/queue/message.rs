//! The messages of the kernel's packet queue, bytes to values and back.

use std::io;

use super::QueueVerdict;
use crate::netlink::{self, ACKNOWLEDGE, REQUEST, network};

/// A packet that waits in the kernel for a verdict.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Queued {
    /// Number in its queue, one more than the packet's before.
    pub(super) id: u32,
    /// Netfilter hook that it waits at: 1 is input, 2 forward, 3 output.
    pub hook: u8,
    /// Its mark.
    pub mark: u32,
    /// Number of the interface that it came in by, 0 if none.
    pub inward: u32,
    /// Number of the interface that it is to leave by, 0 if none.
    pub outward: u32,
    /// Owner of the socket that sent it, if the kernel says so: on the way out only.
    pub uid: Option<u32>,
    /// The IP packet, the first bytes of it if it is longer than what is copied.
    pub bytes: Vec<u8>,
    /// Length of the whole packet.
    pub length: usize,
}

/// What one message says.
#[derive(Debug)]
pub(super) enum Message {
    Packet(Queued),
    /// The answer to a request; number 0 is consent.
    Answer {
        request: u32,
        error: i32,
    },
    /// Cut, or of another kind.
    Unknown,
}

/// Reads every message of a datagram.
pub(super) fn read(datagram: &[u8], mut each: impl FnMut(Message)) {
    netlink::messages(datagram, |message| {
        each(message.and_then(one).unwrap_or(Message::Unknown));
    });
}

fn one(message: netlink::Message<'_>) -> Option<Message> {
    if let Some(error) = message.answer() {
        return Some(Message::Answer { request: message.sequence, error });
    }
    if message.kind != QUEUE << 8 | PACKET {
        return None;
    }
    packet(message.body.get(GENERIC..)?).map(Message::Packet)
}

fn packet(attributes: &[u8]) -> Option<Queued> {
    let (mut packet, mut has_id) = (Queued::default(), false);
    let mut cut_from = None;
    netlink::attributes(attributes, |kind, value| {
        match i32::from(kind) {
            libc::NFQA_PACKET_HDR => {
                packet.id = network(value, 0)?;
                packet.hook = *value.get(6)?;
                has_id = true;
            }
            libc::NFQA_MARK => packet.mark = network(value, 0)?,
            libc::NFQA_IFINDEX_INDEV => packet.inward = network(value, 0)?,
            libc::NFQA_IFINDEX_OUTDEV => packet.outward = network(value, 0)?,
            libc::NFQA_UID => packet.uid = Some(network(value, 0)?),
            libc::NFQA_CAP_LEN => cut_from = Some(network(value, 0)?),
            libc::NFQA_PAYLOAD => packet.bytes = value.to_vec(),
            _ => {}
        }
        Some(())
    })?;
    packet.length = cut_from.map_or(packet.bytes.len(), |length| length as usize);
    has_id.then_some(packet)
}

/// Takes the queue over and sets it up, in one step.
pub(super) fn bind(queue: u16, length: u32, copy: u32, open: bool) -> Vec<u8> {
    let params = [&copy.to_be_bytes()[..], &[COPY_PACKET]].concat();
    let flags = libc::NFQA_CFG_F_GSO | libc::NFQA_CFG_F_UID_GID;
    let mut body = Vec::new();
    attribute(&mut body, libc::NFQA_CFG_CMD, &[BIND, 0, 0, 0]);
    attribute(&mut body, libc::NFQA_CFG_PARAMS, &params);
    attribute(&mut body, libc::NFQA_CFG_QUEUE_MAXLEN, &length.to_be_bytes());
    flagged(&mut body, flags | libc::NFQA_CFG_F_FAIL_OPEN, flags | fail_open(open));
    request(queue, libc::NFQNL_MSG_CONFIG, ACKNOWLEDGE, &body)
}

/// Gives the queue up, as if nobody had ever read it. What waits is dropped.
pub(super) fn unbind(queue: u16) -> Vec<u8> {
    let mut body = Vec::new();
    attribute(&mut body, libc::NFQA_CFG_CMD, &[UNBIND, 0, 0, 0]);
    request(queue, libc::NFQNL_MSG_CONFIG, 0, &body)
}

/// Says what becomes of packets for which the kernel has no room.
pub(super) fn set_open(queue: u16, open: bool) -> Vec<u8> {
    let mut body = Vec::new();
    flagged(&mut body, libc::NFQA_CFG_F_FAIL_OPEN, fail_open(open));
    request(queue, libc::NFQNL_MSG_CONFIG, 0, &body)
}

/// Says what becomes of one packet.
pub(super) fn verdict(queue: u16, id: u32, verdict: QueueVerdict, mark: Option<u32>) -> Vec<u8> {
    let number = match verdict {
        QueueVerdict::Accept => libc::NF_ACCEPT,
        QueueVerdict::Drop => libc::NF_DROP,
        QueueVerdict::Repeat => libc::NF_REPEAT,
    };
    let mut body = Vec::new();
    let header = [number.to_be_bytes(), id.to_be_bytes()].concat();
    attribute(&mut body, libc::NFQA_VERDICT_HDR, &header);
    if let Some(mark) = mark {
        attribute(&mut body, libc::NFQA_MARK, &mark.to_be_bytes());
    }
    request(queue, libc::NFQNL_MSG_VERDICT, 0, &body)
}

/// The answer to the request that [`bind`] makes, if the datagram holds it.
pub(super) fn answer(message: &Message) -> Option<io::Result<()>> {
    match message {
        Message::Answer { request: BIND_REQUEST, error: 0 } => Some(Ok(())),
        Message::Answer { request: BIND_REQUEST, error } => {
            Some(Err(io::Error::from_raw_os_error(*error)))
        }
        _ => None,
    }
}

fn request(queue: u16, kind: i32, flags: u16, body: &[u8]) -> Vec<u8> {
    let kind = QUEUE << 8 | u16::try_from(kind).unwrap_or_default();
    let sequence = if flags == ACKNOWLEDGE { BIND_REQUEST } else { 0 };
    let mut whole = vec![0, 0];
    whole.extend(queue.to_be_bytes());
    whole.extend(body);
    netlink::message(kind, REQUEST | flags, sequence, &whole)
}

fn flagged(body: &mut Vec<u8>, mask: i32, flags: i32) {
    attribute(body, libc::NFQA_CFG_MASK, &mask.to_be_bytes());
    attribute(body, libc::NFQA_CFG_FLAGS, &flags.to_be_bytes());
}

fn attribute(body: &mut Vec<u8>, kind: i32, value: &[u8]) {
    netlink::attribute(body, u16::try_from(kind).unwrap_or_default(), value);
}

fn fail_open(open: bool) -> i32 {
    if open { libc::NFQA_CFG_F_FAIL_OPEN } else { 0 }
}

/// Length of the header of this family's messages.
const GENERIC: usize = 4;
/// Kinds of messages.
const QUEUE: u16 = 3;
const PACKET: u16 = 0;
/// The only request that is answered.
const BIND_REQUEST: u32 = 1;
const BIND: u8 = 1;
const UNBIND: u8 = 2;
const COPY_PACKET: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram() -> Vec<u8> {
        let mut body = Vec::new();
        attribute(&mut body, libc::NFQA_PACKET_HDR, &[0, 0, 0, 7, 8, 0, 3]);
        attribute(&mut body, libc::NFQA_MARK, &[0, 0, 6, 0xeb]);
        attribute(&mut body, libc::NFQA_IFINDEX_OUTDEV, &[0, 0, 0, 2]);
        attribute(&mut body, libc::NFQA_UID, &[0, 0, 6, 0xeb]);
        attribute(&mut body, libc::NFQA_CAP_LEN, &[0, 0, 1, 0]);
        attribute(&mut body, libc::NFQA_PAYLOAD, b"E packet");
        request(5, libc::NFQNL_MSG_PACKET, 0, &body)
    }

    fn packets(datagram: &[u8]) -> Vec<Queued> {
        let mut found = Vec::new();
        read(datagram, |message| {
            if let Message::Packet(packet) = message {
                found.push(packet);
            }
        });
        found
    }

    #[test]
    fn reads_a_packet() {
        let want = Queued {
            id: 7,
            hook: 3,
            mark: 0x6eb,
            inward: 0,
            outward: 2,
            uid: Some(1771),
            bytes: b"E packet".to_vec(),
            length: 256,
        };
        assert_eq!(packets(&datagram()), std::slice::from_ref(&want));
        assert_eq!(packets(&datagram().repeat(2)), [want.clone(), want]);
    }

    #[test]
    fn a_cut_datagram_is_unknown() {
        let whole = datagram();
        for cut in 0..whole.len() {
            assert!(packets(&whole[..cut]).is_empty(), "cut at {cut}");
        }
    }

    #[test]
    fn nonsense_is_no_panic() {
        for at in 0..datagram().len() {
            for value in [0x00, 0x7f, 0xff] {
                let mut datagram = datagram();
                datagram[at] = value;
                packets(&datagram);
            }
        }
    }

    #[test]
    fn a_verdict_is_as_the_kernel_wants_it() {
        let bytes = verdict(5, 7, QueueVerdict::Repeat, Some(0x6eb));
        let want = [
            &36_u32.to_ne_bytes()[..],
            &0x301_u16.to_ne_bytes(),
            &1_u16.to_ne_bytes(),
            &[0; 8],
            &[0, 0, 0, 5],
            &12_u16.to_ne_bytes(),
            &2_u16.to_ne_bytes(),
            &[0, 0, 0, 4, 0, 0, 0, 7],
            &8_u16.to_ne_bytes(),
            &3_u16.to_ne_bytes(),
            &[0, 0, 6, 0xeb],
        ];
        let mut want = want.concat();
        let length = u32::try_from(want.len()).unwrap();
        want[0..4].copy_from_slice(&length.to_ne_bytes());
        assert_eq!(bytes, want);
    }
}
