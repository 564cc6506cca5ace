//! What stands before the IP header.

use outrider_model::bytes::Reader;

use crate::ip::Reject;

/// How a capture's frames begin. The numbers are those of capture files.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum LinkType {
    /// Ethernet, with or without VLAN tags.
    Ethernet,
    /// BSD loopback: an address family in the byte order of who captured.
    Loopback,
    /// An IP packet and nothing before it.
    Raw,
    /// Linux "cooked", as of the device `any` of older tools.
    Cooked,
    /// Linux "cooked", version 2.
    Cooked2,
}

impl LinkType {
    /// The type with that number, if its frames can be decoded.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        match number {
            0 | 108 => Some(Self::Loopback),
            1 => Some(Self::Ethernet),
            12 | 14 | 101 | 228 | 229 => Some(Self::Raw),
            113 => Some(Self::Cooked),
            276 => Some(Self::Cooked2),
            _ => None,
        }
    }
}

/// VLAN tags that one frame may carry.
pub(crate) const MAX_TAGS: usize = 4;

/// What a frame carries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Carried<'a> {
    V4(&'a [u8]),
    V6(&'a [u8]),
    NotIp,
}

/// Finds the IP packet in a frame.
pub(crate) fn carried(link: LinkType, frame: &[u8]) -> Result<Carried<'_>, Reject> {
    let mut reader = Reader::new(frame);
    match link {
        LinkType::Ethernet => reader.take(12).ok_or(Reject::CUT_LINK)?,
        LinkType::Cooked => reader.take(14).ok_or(Reject::CUT_LINK)?,
        LinkType::Cooked2 => {
            let kind = reader.be16().ok_or(Reject::CUT_LINK)?;
            reader.take(18).ok_or(Reject::CUT_LINK)?;
            return tagged(kind, reader);
        }
        LinkType::Loopback => return loopback(reader),
        LinkType::Raw => return Ok(by_version(reader.rest())),
    };
    let kind = reader.be16().ok_or(Reject::CUT_LINK)?;
    tagged(kind, reader)
}

/// Goes through the VLAN tags behind an EtherType.
fn tagged(mut kind: u16, mut reader: Reader<'_>) -> Result<Carried<'_>, Reject> {
    for _ in 0..=MAX_TAGS {
        match kind {
            0x0800 => return Ok(Carried::V4(reader.rest())),
            0x86dd => return Ok(Carried::V6(reader.rest())),
            0x8100 | 0x88a8 | 0x9100 => {
                reader.be16().ok_or(Reject::CUT_LINK)?;
                kind = reader.be16().ok_or(Reject::CUT_LINK)?;
            }
            _ => return Ok(Carried::NotIp),
        }
    }
    Err(Reject::Malformed("too many VLAN tags"))
}

/// The families of IPv6 differ between systems; the packet itself says which it is.
fn loopback(mut reader: Reader<'_>) -> Result<Carried<'_>, Reject> {
    let family = reader.array::<4>().ok_or(Reject::CUT_LINK)?;
    let family = u32::from_be_bytes(family).min(u32::from_le_bytes(family));
    match family {
        2 | 10 | 24 | 28 | 30 => Ok(by_version(reader.rest())),
        _ => Ok(Carried::NotIp),
    }
}

fn by_version(packet: &[u8]) -> Carried<'_> {
    match packet.first().map(|first| first >> 4) {
        Some(4) => Carried::V4(packet),
        Some(6) => Carried::V6(packet),
        _ => Carried::NotIp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: &[u8] = &[0x45, 0, 0, 20];

    fn ethernet(tags: usize) -> Vec<u8> {
        let mut frame = vec![0; 12];
        for _ in 0..tags {
            frame.extend([0x81, 0, 0, 5]);
        }
        frame.extend([8, 0]);
        frame.extend(V4);
        frame
    }

    #[test]
    fn finds_the_packet_behind_every_header() {
        let cooked = [&[0; 14], &[8, 0][..], V4].concat();
        let cooked2 = [&[8, 0], &[0; 18][..], V4].concat();
        for (link, frame) in [
            (LinkType::Ethernet, ethernet(0)),
            (LinkType::Ethernet, ethernet(MAX_TAGS)),
            (LinkType::Cooked, cooked),
            (LinkType::Cooked2, cooked2),
            (LinkType::Loopback, [&[2, 0, 0, 0], V4].concat()),
            (LinkType::Loopback, [&[0, 0, 0, 2], V4].concat()),
            (LinkType::Raw, V4.to_vec()),
        ] {
            assert_eq!(carried(link, &frame), Ok(Carried::V4(V4)), "{link:?}");
            for cut in 0..frame.len() - V4.len() {
                assert_ne!(carried(link, &frame[..cut]), Ok(Carried::V4(V4)), "{link:?} at {cut}");
            }
        }
    }

    #[test]
    fn tags_have_a_limit() {
        let frame = ethernet(MAX_TAGS + 1);
        assert!(matches!(carried(LinkType::Ethernet, &frame), Err(Reject::Malformed(_))));
    }

    #[test]
    fn leaves_other_protocols_alone() {
        let arp = [&[0; 12], &[8, 6][..], V4].concat();
        assert_eq!(carried(LinkType::Ethernet, &arp), Ok(Carried::NotIp));
        assert_eq!(carried(LinkType::Raw, &[0x15]), Ok(Carried::NotIp));
        assert_eq!(LinkType::from_number(105), None);
    }
}
