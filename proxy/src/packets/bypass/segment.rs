//! The little that must be known of a TCP segment on the wire.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use outrider_capture::Link;

/// A TCP segment that is no later fragment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Segment<'a> {
    /// Who sent it.
    pub source: SocketAddr,
    /// To whom.
    pub target: SocketAddr,
    /// FIN, SYN, RST, PSH, ACK and URG, from the lowest bit.
    pub flags: u8,
    /// It carries data.
    pub data: bool,
    /// The packet, as far as it was captured.
    pub packet: &'a [u8],
}

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
const FIN: u8 = 0x01;
/// VLAN tags that may come before the packet.
const MAX_TAGS: usize = 4;
/// Extension headers that may come before TCP.
const MAX_EXTENSIONS: usize = 8;

impl<'a> Segment<'a> {
    /// Finds it in a frame; `None` if the frame holds none.
    pub(crate) fn of(link: Link, frame: &'a [u8]) -> Option<Self> {
        let packet = match link {
            Link::Ethernet => network(frame)?,
            Link::Raw => frame,
            Link::Other(_) => return None,
        };
        match packet.first()? >> 4 {
            4 => Self::v4(packet),
            6 => Self::v6(packet),
            _ => None,
        }
    }

    /// It begins a connection, or is meant to look so.
    pub(crate) fn opens(&self) -> bool {
        self.flags & (SYN | ACK | RST | FIN) == SYN
    }

    /// It answers one that does.
    pub(crate) fn answers(&self) -> bool {
        self.flags & (SYN | ACK | RST | FIN) == SYN | ACK
    }

    /// No system sends such flags: conntrack does not understand them either.
    pub(crate) fn is_odd(&self) -> bool {
        let flags = self.flags & (SYN | ACK | RST | FIN);
        match (flags & SYN != 0, flags & RST != 0, flags & ACK != 0) {
            (true, _, _) => flags & (RST | FIN) != 0,
            (false, true, _) => self.data || flags & FIN != 0,
            (false, false, acknowledges) => !acknowledges,
        }
    }

    fn v4(packet: &'a [u8]) -> Option<Self> {
        let header = usize::from(packet.first()? & 0x0f) * 4;
        let later = u16::from_be_bytes(*packet.get(6..)?.first_chunk()?) & 0x1fff != 0;
        if *packet.get(9)? != TCP || later {
            return None;
        }
        let total = usize::from(u16::from_be_bytes(*packet.get(2..)?.first_chunk()?));
        let address =
            |at: usize| Some(IpAddr::V4(Ipv4Addr::from(*packet.get(at..)?.first_chunk()?)));
        Self::tcp(packet, (address(12)?, address(16)?), header, total)
    }

    fn v6(packet: &'a [u8]) -> Option<Self> {
        let total = usize::from(u16::from_be_bytes(*packet.get(4..)?.first_chunk()?)) + 40;
        let address = |at: usize| {
            let bytes = packet.get(at..)?.first_chunk::<16>()?;
            Some(IpAddr::V6(Ipv6Addr::from(*bytes)))
        };
        let (mut kind, mut at) = (*packet.get(6)?, 40);
        for _ in 0..MAX_EXTENSIONS {
            match kind {
                TCP => return Self::tcp(packet, (address(8)?, address(24)?), at, total),
                // Hop by hop, routing, destination: length in units of eight beyond the first.
                0 | 43 | 60 => {
                    let length = usize::from(*packet.get(at + 1)?);
                    kind = *packet.get(at)?;
                    at += (length + 1) * 8;
                }
                FRAGMENT => {
                    let place = u16::from_be_bytes(*packet.get(at + 2..)?.first_chunk()?);
                    if place & 0xfff8 != 0 {
                        return None;
                    }
                    kind = *packet.get(at)?;
                    at += 8;
                }
                _ => return None,
            }
        }
        None
    }

    fn tcp(packet: &'a [u8], ips: (IpAddr, IpAddr), at: usize, total: usize) -> Option<Self> {
        let header = packet.get(at..)?;
        let port = |at: usize| Some(u16::from_be_bytes(*header.get(at..)?.first_chunk()?));
        let length = usize::from(header.get(12)? >> 4) * 4;
        Some(Self {
            source: SocketAddr::new(ips.0, port(0)?),
            target: SocketAddr::new(ips.1, port(2)?),
            flags: header.get(13)? & 0x3f,
            data: total > at + length,
            packet,
        })
    }
}

/// What stands behind the Ethernet header, if it is IP.
fn network(frame: &[u8]) -> Option<&[u8]> {
    let mut rest = frame.get(12..)?;
    for _ in 0..=MAX_TAGS {
        let kind = u16::from_be_bytes(*rest.first_chunk()?);
        match kind {
            0x0800 | 0x86dd => return rest.get(2..),
            0x8100 | 0x88a8 | 0x9100 => rest = rest.get(4..)?,
            _ => return None,
        }
    }
    None
}

const TCP: u8 = 6;
const FRAGMENT: u8 = 44;

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(flags: u8, data: u16) -> Vec<u8> {
        let mut packet = vec![0x45, 0];
        packet.extend((40 + data).to_be_bytes());
        packet.extend([0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 2, 10, 0, 0, 9]);
        packet.extend([0x9c, 0x40, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, flags]);
        packet.resize(usize::from(40 + data), 0);
        packet
    }

    #[test]
    fn reads_both_families_with_tags_and_extension_headers() {
        let packet = v4(SYN, 0);
        let frame = [&[0; 12][..], &[0x81, 0, 0, 5, 0x88, 0xa8, 0, 6, 0x08, 0], &packet].concat();
        let segment = Segment::of(Link::Ethernet, &frame).unwrap();
        assert_eq!(segment.source, "10.0.0.2:40000".parse().unwrap());
        assert_eq!(segment.target, "10.0.0.9:80".parse().unwrap());
        assert!(segment.opens() && !segment.data && !segment.answers() && !segment.is_odd());
        let mut six = vec![0x60, 0, 0, 0, 0, 8 + 20, 0, 64];
        six.extend([0; 15]);
        six.push(1);
        six.extend([0; 15]);
        six.push(2);
        six.extend([6, 0, 0, 0, 0, 0, 0, 0]);
        six.extend(&v4(SYN | ACK, 0)[20..]);
        let segment = Segment::of(Link::Raw, &six).unwrap();
        assert_eq!(segment.source, "[::1]:40000".parse().unwrap());
        assert!(segment.answers() && !segment.is_odd() && !segment.data);
    }

    #[test]
    fn knows_what_no_system_sends() {
        for (flags, data, odd) in [
            (0, 0, true),
            (FIN, 0, true),
            (0x29, 0, true),
            (SYN | FIN, 0, true),
            (SYN | RST, 0, true),
            (RST, 5, true),
            (RST | ACK, 5, true),
            (SYN, 0, false),
            (SYN, 5, false),
            (SYN | ACK, 0, false),
            (RST, 0, false),
            (RST | ACK, 0, false),
            (ACK, 5, false),
            (FIN | ACK, 0, false),
        ] {
            let packet = v4(flags, data);
            let segment = Segment::of(Link::Raw, &packet).unwrap();
            assert_eq!(segment.is_odd(), odd, "{flags:#x} {data}");
        }
    }

    #[test]
    fn a_cut_frame_or_nonsense_is_none_and_no_panic() {
        let frame = [&[0; 12][..], &[0x08, 0], &v4(SYN, 0)].concat();
        for cut in 0..48 {
            assert_eq!(Segment::of(Link::Ethernet, &frame[..cut]), None, "cut at {cut}");
        }
        for at in 0..frame.len() {
            for value in [0x00, 0x6f, 0xff] {
                let mut frame = frame.clone();
                frame[at] = value;
                let _any = Segment::of(Link::Ethernet, &frame);
            }
        }
        let tags = [&[0; 12][..], &[0x81, 0, 0, 0].repeat(5), &[0x08, 0], &v4(SYN, 0)].concat();
        assert_eq!(Segment::of(Link::Ethernet, &tags), None, "more tags than are read");
        let mut later = v4(SYN, 0);
        later[7] = 1;
        assert_eq!(Segment::of(Link::Raw, &later), None);
    }
}
