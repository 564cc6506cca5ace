//! Resets for TCP that a pair may not take on: both ends learn at once what would time out otherwise.

use outrider_capture::{Frame, Pair};
use outrider_model::Direction;
use outrider_packet::forge::Glimpse;

/// Resets that go out once the frames that came have been looked at.
#[derive(Debug, Default)]
pub(super) struct Refusals(Vec<Refusal>);

#[derive(Debug, Eq, PartialEq)]
struct Refusal {
    /// By the end of the pair where frames of this direction come in.
    out_of: Direction,
    frame: Vec<u8>,
}

impl Refusals {
    /// A frame is dropped: if it is a segment, its sender is answered, and its receiver told if it may
    /// have the connection. Beyond so many at once they time out, like all that is dropped.
    pub(super) fn add(&mut self, frame: &Frame<'_>) {
        if self.0.len() >= MAX_AT_ONCE {
            return;
        }
        let Some(segment) = packet(frame.bytes).and_then(|(head, packet)| {
            let segment = Glimpse::of(packet)?;
            Some((head, segment)).filter(|_| !segment.rst && !segment.forged)
        }) else {
            return;
        };
        let (head, segment) = segment;
        let [to_sender, to_receiver] = segment.resets();
        let back = turned(head);
        self.0
            .push(Refusal { out_of: frame.direction, frame: [&back, &to_sender[..]].concat() });
        // Whoever gets a first SYN has no connection yet.
        if !segment.syn || segment.ack.is_some() {
            let out_of = match frame.direction {
                Direction::Inbound => Direction::Outbound,
                Direction::Outbound => Direction::Inbound,
            };
            self.0
                .push(Refusal { out_of, frame: [head, &to_receiver[..]].concat() });
        }
    }

    /// Sends what was put together; how many.
    pub(super) fn send(self, pair: &mut Pair) -> u64 {
        let sent = self.0.iter();
        let sent = sent.filter(|refusal| pair.send(refusal.out_of, &refusal.frame).is_ok());
        sent.count() as u64
    }
}

/// The head of an Ethernet frame, tags included, and the IP packet behind it.
fn packet(frame: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut at = ADDRESSES;
    for _ in 0..=MAX_TAGS {
        let kind = frame.get(at..)?.first_chunk().copied()?;
        at += KIND;
        match u16::from_be_bytes(kind) {
            IPV4 | IPV6 => return frame.split_at_checked(at),
            TAG | SERVICE_TAG => at += KIND,
            _ => return None,
        }
    }
    None
}

/// The head of an answer.
fn turned(head: &[u8]) -> Vec<u8> {
    let mut turned = head.to_vec();
    if let Some(addresses) = turned.get_mut(..ADDRESSES) {
        addresses.rotate_left(ADDRESSES / 2);
    }
    turned
}

/// Resets that one look at the rings sends at most.
const MAX_AT_ONCE: usize = 64;
/// Both addresses of a frame, in bytes.
const ADDRESSES: usize = 12;
/// A type, and as long a tag's content.
const KIND: usize = 2;
const MAX_TAGS: usize = 2;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const TAG: u16 = 0x8100;
const SERVICE_TAG: u16 = 0x88a8;

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, time::Duration};

    use outrider_capture::Link;
    use outrider_packet::forge::probe;

    use super::*;

    const CLIENT: &str = "10.0.0.9:4000";
    const SERVER: &str = "10.0.0.2:80";
    /// Of Ethernet, IP and TCP.
    const HEADERS: usize = 14 + 20 + 20;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// A segment of the client's, in a frame with so many tags; not a forged one.
    fn frame(tags: usize, flags: u8) -> Vec<u8> {
        let mut packet = probe(at(CLIENT), at(SERVER), 101, 7);
        packet[20 + 13] = flags;
        packet[20 + 18..20 + 20].fill(0);
        let mut frame = [[1; 6], [2; 6]].concat();
        for _ in 0..tags {
            frame.extend([0x81, 0x00, 0x00, 0x05]);
        }
        frame.extend([0x08, 0x00]);
        frame.extend(packet);
        frame
    }

    fn refused(bytes: &[u8]) -> Vec<Refusal> {
        let mut refusals = Refusals::default();
        refusals.add(&shown(bytes));
        refusals.0
    }

    fn shown(bytes: &[u8]) -> Frame<'_> {
        Frame {
            interface: 1,
            link: Link::Ethernet,
            direction: Direction::Inbound,
            at: Duration::ZERO,
            foreign: false,
            loopback: false,
            vlan: None,
            unfinished_checksum: false,
            wire: bytes.len(),
            bytes,
        }
    }

    #[test]
    fn both_ends_of_a_connection_are_told_whatever_the_tags() {
        for tags in 0..=MAX_TAGS {
            let (head, sent) = (14 + 4 * tags, frame(tags, 0x10));
            let refused = refused(&sent);
            let read = |refusal: &Refusal| Glimpse::of(&refusal.frame[head..]).unwrap();
            let [back, on] = refused.as_slice() else { panic!("{refused:?}") };
            assert_eq!((back.out_of, on.out_of), (Direction::Inbound, Direction::Outbound));
            assert_eq!(
                (&back.frame[..12], &on.frame[..12]),
                (&[[2; 6], [1; 6]].concat()[..], &sent[..12])
            );
            assert_eq!(back.frame[12..head], sent[12..head]);
            let (back, on) = (read(back), read(on));
            assert!(back.rst && on.rst);
            assert_eq!((back.src, back.dst, back.seq), (at(SERVER), at(CLIENT), 7));
            assert_eq!((on.src, on.dst, on.seq), (at(CLIENT), at(SERVER), 101));
        }
        assert_eq!(refused(&frame(MAX_TAGS + 1, 0x10)), []);
    }

    #[test]
    fn of_a_first_segment_only_its_sender_is_told_and_of_a_reset_nobody() {
        assert_eq!(refused(&frame(0, 0x02)).len(), 1);
        assert_eq!(refused(&frame(0, 0x12)).len(), 2);
        assert_eq!(refused(&frame(0, 0x04)), []);
        let whole = frame(0, 0x10);
        for cut in 0..HEADERS {
            assert_eq!(refused(&whole[..cut]), [], "cut at {cut}");
        }
    }

    #[test]
    fn a_flood_is_answered_in_part() {
        let sent = frame(0, 0x02);
        let mut refusals = Refusals::default();
        (0..MAX_AT_ONCE + 10).for_each(|_| refusals.add(&shown(&sent)));
        assert_eq!(refusals.0.len(), MAX_AT_ONCE);
    }
}
