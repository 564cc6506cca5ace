//! One frame of the ring, behind the kernel's header and what the hardware was to do about the frame.

use std::time::Duration;

use outrider_model::Direction;

use crate::{Frame, Link};

/// Bytes that must stay free before each frame, for the tag that is put back.
pub(super) const TAG_BYTES: usize = 4;
/// Length of what stands before a frame that is received or sent: its offloads.
pub(super) const OFFLOADS: usize = 10;

/// What the kernel says of a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Header {
    /// Where the frame begins in its slot.
    start: usize,
    captured: usize,
    wire: usize,
    /// The frame is in the socket's queue, whole.
    pub(super) queued: bool,
    unfinished_checksum: bool,
    at: Duration,
    /// The tag that the kernel took off: protocol and control information.
    tag: Option<[u16; 2]>,
    interface: u32,
    hardware: u16,
    foreign: bool,
}

impl Header {
    /// Reads the header at the beginning of a slot.
    pub(super) fn read(slot: &[u8]) -> Option<Self> {
        let status = word(slot, 0)?;
        let tpid =
            if status & libc::TP_STATUS_VLAN_TPID_VALID != 0 { half(slot, 26)? } else { VLAN };
        let tagged = status & libc::TP_STATUS_VLAN_VALID != 0;
        Some(Self {
            start: usize::from(half(slot, 12)?),
            captured: word(slot, 8)? as usize,
            wire: word(slot, 4)? as usize,
            queued: status & libc::TP_STATUS_COPY != 0,
            unfinished_checksum: status & libc::TP_STATUS_CSUMNOTREADY != 0,
            at: Duration::new(u64::from(word(slot, 16)?), word(slot, 20)?.min(999_999_999)),
            tag: if tagged { Some([tpid, half(slot, 24)?]) } else { None },
            interface: word(slot, ADDRESS + 4)?,
            hardware: half(slot, ADDRESS + 8)?,
            foreign: *slot.get(ADDRESS + 10)? == libc::PACKET_OTHERHOST,
        })
    }

    /// The frame in its slot with its offloads in front; `None` if it is not whole.
    pub(super) fn in_slot<'a>(&self, slot: &'a mut [u8]) -> Option<&'a mut [u8]> {
        let end = self.start.checked_add(self.captured)?;
        let whole = self.captured == self.wire && self.start >= ADDRESS + OFFLOADS;
        self.tagged(slot.get_mut(..end)?, self.start)
            .filter(|_| whole)
    }

    /// The frame as it was received from the socket's queue into `buffer`, behind [`TAG_BYTES`] free
    /// bytes; `None` if it is not whole.
    pub(super) fn in_buffer<'a>(
        &self,
        buffer: &'a mut [u8],
        received: usize,
    ) -> Option<&'a mut [u8]> {
        let end = TAG_BYTES.checked_add(received)?;
        let whole = received.checked_sub(OFFLOADS)? == self.wire;
        self.tagged(buffer.get_mut(..end)?, TAG_BYTES + OFFLOADS)
            .filter(|_| whole)
    }

    /// Puts the tag back that the kernel took off the frame at `start`; the offloads before the frame
    /// move along.
    fn tagged<'a>(&self, bytes: &'a mut [u8], start: usize) -> Option<&'a mut [u8]> {
        let from = start.checked_sub(OFFLOADS)?;
        let Some(tag) = self.tag else { return bytes.get_mut(from..) };
        let to = from.checked_sub(TAG_BYTES)?;
        let behind = start.checked_add(ADDRESSES)?;
        bytes.get(from..behind)?;
        bytes.copy_within(from..behind, to);
        let [tpid, tci] = tag.map(u16::to_be_bytes);
        let room = bytes.get_mut(behind.checked_sub(TAG_BYTES)?..behind)?;
        room.copy_from_slice(&[tpid, tci].concat());
        let bytes = bytes.get_mut(to..)?;
        move_checksum(bytes)?;
        Some(bytes)
    }

    /// What `bytes`, the frame with its offloads, is shown as.
    pub(super) fn frame<'a>(&self, bytes: &'a [u8], direction: Direction) -> Frame<'a> {
        let bytes = bytes.get(OFFLOADS..).unwrap_or_default();
        Frame {
            at: self.at,
            interface: self.interface,
            direction,
            foreign: self.foreign,
            link: Link::from_hardware(self.hardware),
            loopback: self.hardware == libc::ARPHRD_LOOPBACK,
            vlan: self.tag.map(|[_, tci]| tci & 0x0fff),
            unfinished_checksum: self.unfinished_checksum,
            bytes,
            wire: bytes.len(),
        }
    }
}

/// A checksum that is still to be filled in begins one tag further on.
fn move_checksum(offloads: &mut [u8]) -> Option<()> {
    if *offloads.first()? & NEEDS_CHECKSUM != 0 {
        let start = half(offloads, CHECKSUM_START)?.saturating_add(4);
        let room = offloads.get_mut(CHECKSUM_START..CHECKSUM_START + 2)?;
        room.copy_from_slice(&start.to_ne_bytes());
    }
    Some(())
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

const VLAN: u16 = 0x8100;
/// Where the link-layer address structure stands behind a slot's header.
const ADDRESS: usize = 32;
/// Both Ethernet addresses.
const ADDRESSES: usize = 12;
/// The offloads' flag for a checksum that is to be filled in, and where they say from where.
const NEEDS_CHECKSUM: u8 = 1;
const CHECKSUM_START: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    const START: usize = 80;

    /// A slot with a tagged frame of 60 bytes whose checksum is to be filled in, as the kernel
    /// writes it.
    fn slot() -> Vec<u8> {
        let mut slot = vec![0; 2048];
        let status = libc::TP_STATUS_VLAN_VALID | libc::TP_STATUS_VLAN_TPID_VALID;
        for (at, value) in [(0, status | 1), (4, 60), (8, 60), (16, 7), (20, 9), (36, 3)] {
            slot[at..at + 4].copy_from_slice(&u32::to_ne_bytes(value));
        }
        for (at, value) in [(12, 80_u16), (24, 0x6005), (26, 0x88a8), (40, libc::ARPHRD_ETHER)] {
            slot[at..at + 2].copy_from_slice(&value.to_ne_bytes());
        }
        slot[42] = libc::PACKET_OTHERHOST;
        slot[START - OFFLOADS] = NEEDS_CHECKSUM;
        slot[START - 4..START - 2].copy_from_slice(&34_u16.to_ne_bytes());
        slot[START..START + 12].copy_from_slice(b"destinsource");
        slot[START + 12..START + 14].copy_from_slice(&[0x08, 0x00]);
        slot
    }

    #[test]
    fn puts_the_tag_back_and_moves_the_checksum() {
        let mut slot = slot();
        let header = Header::read(&slot).unwrap();
        let bytes = header.in_slot(&mut slot).unwrap();
        assert_eq!(bytes.len(), OFFLOADS + 64);
        assert_eq!(half(bytes, CHECKSUM_START), Some(38));
        let frame = header.frame(bytes, Direction::Inbound);
        assert_eq!(&frame.bytes[..18], b"destinsource\x88\xa8\x60\x05\x08\x00");
        assert_eq!((frame.vlan, frame.wire, frame.foreign), (Some(5), 64, true));
        assert_eq!((frame.at, frame.interface), (Duration::new(7, 9), 3));
    }

    #[test]
    fn a_queued_frame_is_read_like_one_in_its_slot() {
        let mut slot = slot();
        let header = Header::read(&slot).unwrap();
        let mut buffer = vec![0; TAG_BYTES];
        buffer.extend(&slot[START - OFFLOADS..START + 60]);
        let in_slot = header.in_slot(&mut slot).unwrap().to_vec();
        assert_eq!(header.in_buffer(&mut buffer, 70).unwrap(), in_slot);
        assert_eq!(header.in_buffer(&mut buffer, 69), None, "cut");
        assert_eq!(header.in_buffer(&mut buffer, 9), None, "not even the offloads");
        assert_eq!(header.in_buffer(&mut buffer, 71), None, "more than there is");
    }

    #[test]
    fn a_frame_that_did_not_fit_is_not_whole() {
        let mut slot = slot();
        slot[4..8].copy_from_slice(&3000_u32.to_ne_bytes());
        let header = Header::read(&slot).unwrap();
        assert_eq!(header.in_slot(&mut slot), None);
    }

    #[test]
    fn nonsense_is_no_panic() {
        for at in 0..START + 16 {
            for value in [0x00, 0x7f, 0xff] {
                let mut slot = slot();
                slot[at] = value;
                let header = Header::read(&slot).unwrap();
                if let Some(bytes) = header.in_slot(&mut slot) {
                    header.frame(bytes, Direction::Inbound);
                }
            }
        }
        for cut in 0..START + 60 {
            let mut slot = slot()[..cut].to_vec();
            let header = Header::read(&slot);
            assert!(header.is_none_or(|header| header.in_slot(&mut slot).is_none()));
        }
    }
}
