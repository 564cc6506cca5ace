//! One block of the ring: frames one after the other, each behind a header of the kernel's.

use std::time::Duration;

use outrider_model::Direction;

use super::{Frame, Link};

/// Bytes that must stay free before each frame, for the tag that [`walk`] puts back.
pub(super) const TAG_BYTES: u32 = 4;

/// Shows every frame of a block, in order. Returns how many there were, and `false` if the block ended
/// before its frames did.
pub(super) fn walk(block: &mut [u8], visit: &mut impl FnMut(Frame<'_>)) -> (u64, bool) {
    let (Some(count), Some(first)) = (word(block, 12), word(block, 16)) else { return (0, false) };
    let mut rest = block.get_mut(first as usize..).unwrap_or_default();
    for seen in 0..count {
        let next = word(rest, 0).unwrap_or(0) as usize;
        let Some(frame) = frame(rest) else { return (u64::from(seen), false) };
        visit(frame);
        let last = seen + 1 == count;
        if !last && next < HEADER {
            return (u64::from(seen) + 1, false);
        }
        rest = rest.get_mut(next..).unwrap_or_default();
    }
    (u64::from(count), true)
}

/// Reads the header at the beginning of `slot`, and puts a tag back where the kernel took it.
fn frame(slot: &mut [u8]) -> Option<Frame<'_>> {
    let at = Duration::new(u64::from(word(slot, 4)?), word(slot, 8)?.min(999_999_999));
    let (captured, wire, status) = (word(slot, 12)?, word(slot, 16)?, word(slot, 20)?);
    let start = usize::from(half(slot, 24)?);
    let tag =
        (status & libc::TP_STATUS_VLAN_VALID != 0).then_some((word(slot, 32)?, half(slot, 36)?));
    let (interface, hardware) = (word(slot, ADDRESS + 4)?, half(slot, ADDRESS + 8)?);
    let kind = *slot.get(ADDRESS + 10)?;
    let end = start.checked_add(captured as usize)?;
    slot.get(start..end)?;
    let link = Link::from_hardware(hardware);
    let mut found = Frame {
        at,
        interface,
        direction: if kind == libc::PACKET_OUTGOING {
            Direction::Outbound
        } else {
            Direction::Inbound
        },
        foreign: kind == libc::PACKET_OTHERHOST,
        link,
        loopback: hardware == libc::ARPHRD_LOOPBACK,
        vlan: None,
        unfinished_checksum: status & libc::TP_STATUS_CSUMNOTREADY != 0,
        bytes: &[],
        wire: wire as usize,
    };
    let mut start = start;
    if let Some((tci, tpid)) = tag {
        let tci = u16::try_from(tci & 0xffff).unwrap_or_default();
        found.vlan = Some(tci & 0x0fff);
        let tpid = if status & libc::TP_STATUS_VLAN_TPID_VALID != 0 { tpid } else { 0x8100 };
        if link == Link::Ethernet && untag(slot, start, captured as usize, [tpid, tci]) {
            start -= TAG_BYTES as usize;
            found.wire += TAG_BYTES as usize;
        }
    }
    found.bytes = slot.get(start..end)?;
    Some(found)
}

/// Moves both addresses forward and writes the tag behind them. `false`: there is no room.
fn untag(slot: &mut [u8], start: usize, captured: usize, tag: [u16; 2]) -> bool {
    let Some(to) = start.checked_sub(TAG_BYTES as usize) else { return false };
    if captured < ADDRESSES || to < HEADER {
        return false;
    }
    slot.copy_within(start..start + ADDRESSES, to);
    let Some(room) = slot.get_mut(to + ADDRESSES..start + ADDRESSES) else { return false };
    let [tpid, tci] = tag.map(u16::to_be_bytes);
    room.copy_from_slice(&[tpid, tci].concat());
    true
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_ne_bytes(*bytes))
}

/// Where the frame's link-layer address structure stands behind its header.
const ADDRESS: usize = 48;
/// Header and address structure.
const HEADER: usize = ADDRESS + 20;
/// Both Ethernet addresses.
const ADDRESSES: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    /// A block with one tagged frame of 60 bytes, as the kernel writes it.
    fn block() -> Vec<u8> {
        let mut block = vec![0; 48];
        block[12..16].copy_from_slice(&1_u32.to_ne_bytes());
        block[16..20].copy_from_slice(&48_u32.to_ne_bytes());
        let mut slot = vec![0; 86 + 60];
        let status = libc::TP_STATUS_VLAN_VALID | libc::TP_STATUS_VLAN_TPID_VALID;
        for (at, value) in [(4, 7), (8, 9), (12, 60), (16, 60), (20, status), (32, 0x6005), (52, 3)]
        {
            slot[at..at + 4].copy_from_slice(&u32::to_ne_bytes(value));
        }
        for (at, value) in [(24, 86_u16), (36, 0x88a8), (56, libc::ARPHRD_ETHER)] {
            slot[at..at + 2].copy_from_slice(&value.to_ne_bytes());
        }
        slot[58] = libc::PACKET_OUTGOING;
        slot[86..98].copy_from_slice(b"destinsource");
        slot[98..100].copy_from_slice(&[0x08, 0x00]);
        block.extend(slot);
        block
    }

    #[test]
    fn puts_the_tag_back() {
        let mut frames = 0;
        let shown = walk(&mut block(), &mut |frame| {
            frames += 1;
            assert_eq!(frame.bytes.len(), 64);
            assert_eq!(frame.wire, 64);
            assert_eq!(&frame.bytes[..18], b"destinsource\x88\xa8\x60\x05\x08\x00");
            assert_eq!(frame.vlan, Some(5));
            assert_eq!(frame.direction, Direction::Outbound);
            assert_eq!((frame.at, frame.interface), (Duration::new(7, 9), 3));
        });
        assert_eq!((shown, frames), ((1, true), 1));
    }

    #[test]
    fn a_block_that_ends_early_is_said_to() {
        let whole = block();
        for cut in 0..whole.len() {
            let shown = walk(&mut whole[..cut].to_vec(), &mut |_| {});
            assert_eq!(shown, (0, false), "cut at {cut}");
        }
    }

    #[test]
    fn nonsense_is_no_panic() {
        for at in 0..block().len() {
            for value in [0x00, 0x7f, 0xff] {
                let mut block = block();
                block[at] = value;
                walk(&mut block, &mut |frame| assert!(frame.bytes.len() <= 64));
            }
        }
    }
}
