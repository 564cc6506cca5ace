//! IPv4 and IPv6 headers, extension headers included.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use outrider_model::{IpProto, bytes::Reader};

use crate::link::Carried;

/// Extension headers that one packet may carry.
pub(crate) const MAX_EXTENSIONS: usize = 8;

/// Why a packet cannot be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Reject {
    /// The capture has only the beginning of it.
    Cut,
    /// It contradicts itself.
    Malformed(&'static str),
}

impl Reject {
    /// A frame that ends inside its link header.
    pub(crate) const CUT_LINK: Self = Self::Malformed("frame ends in its link header");
}

/// One IP packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Packet<'a> {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) proto: IpProto,
    /// Behind the headers, as far as it was captured.
    pub(crate) payload: &'a [u8],
    /// Bytes of the payload on the wire.
    pub(crate) length: usize,
    pub(crate) piece: Option<Piece>,
}

/// Which part of a fragmented packet this is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Piece {
    pub(crate) id: u32,
    pub(crate) offset: usize,
    pub(crate) more: bool,
}

/// Reads the header of a carried packet that had `wire` bytes on the wire, padding included.
pub(crate) fn read(carried: Carried<'_>, wire: usize) -> Result<Option<Packet<'_>>, Reject> {
    match carried {
        Carried::V4(packet) => v4(packet, wire).map(Some),
        Carried::V6(packet) => v6(packet, wire).map(Some),
        Carried::NotIp => Ok(None),
    }
}

/// A header field that is not there: because the capture is cut, or because it never was.
fn missing(captured: usize, wire: usize, what: &'static str) -> Reject {
    if captured < wire { Reject::Cut } else { Reject::Malformed(what) }
}

fn v4(packet: &[u8], wire: usize) -> Result<Packet<'_>, Reject> {
    let short = missing(packet.len(), wire, "IPv4 header is cut");
    let header: [u8; 20] = Reader::new(packet).array().ok_or(short)?;
    let [first, _, len_a, len_b, id_a, id_b, off_a, off_b, _, proto, _, _, addresses @ ..] = header;
    let [s0, s1, s2, s3, d0, d1, d2, d3] = addresses;
    if first >> 4 != 4 {
        return Err(Reject::Malformed("IPv4 packet of another version"));
    }
    let header = usize::from(first & 0x0f).saturating_mul(4);
    let total = match u16::from_be_bytes([len_a, len_b]) {
        // Left to the network card by the kernel that sent it.
        0 => wire,
        total => usize::from(total),
    };
    if header < 20 || total < header {
        return Err(Reject::Malformed("IPv4 header length"));
    }
    if total > wire {
        return Err(Reject::Malformed("IPv4 total length exceeds the frame"));
    }
    let inside = packet.get(..total).unwrap_or(packet);
    let payload = inside.get(header..).ok_or(short)?;
    let offset = u16::from_be_bytes([off_a, off_b]);
    let piece = Piece {
        id: u16::from_be_bytes([id_a, id_b]).into(),
        offset: usize::from(offset & 0x1fff).saturating_mul(8),
        more: offset & 0x2000 != 0,
    };
    Ok(Packet {
        src: Ipv4Addr::new(s0, s1, s2, s3).into(),
        dst: Ipv4Addr::new(d0, d1, d2, d3).into(),
        proto: IpProto(proto),
        payload,
        length: total.saturating_sub(header),
        piece: (piece.more || piece.offset > 0).then_some(piece),
    })
}

fn v6(packet: &[u8], wire: usize) -> Result<Packet<'_>, Reject> {
    let short = missing(packet.len(), wire, "IPv6 header is cut");
    let mut reader = Reader::new(packet);
    let first = reader.be32().ok_or(short)?;
    let length = usize::from(reader.be16().ok_or(short)?);
    let [next, _hops] = reader.array().ok_or(short)?;
    let src: [u8; 16] = reader.array().ok_or(short)?;
    let dst: [u8; 16] = reader.array().ok_or(short)?;
    if first >> 28 != 6 {
        return Err(Reject::Malformed("IPv6 packet of another version"));
    }
    let available = wire.saturating_sub(V6_HEADER);
    // Zero: a jumbogram, or left to the network card.
    let length = if length == 0 { available } else { length };
    if length > available {
        return Err(Reject::Malformed("IPv6 payload length exceeds the frame"));
    }
    let inside = reader.rest().get(..length).unwrap_or(reader.rest());
    let behind = extensions(next, inside, length, false)?;
    Ok(Packet {
        src: Ipv6Addr::from(src).into(),
        dst: Ipv6Addr::from(dst).into(),
        proto: IpProto(behind.proto),
        payload: behind.payload,
        length: behind.length,
        piece: behind.piece,
    })
}

/// What stands behind extension headers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Behind<'a> {
    pub(crate) proto: u8,
    pub(crate) payload: &'a [u8],
    pub(crate) length: usize,
    piece: Option<Piece>,
}

/// Goes through the extension headers in front of `bytes`, which had `length` bytes on the wire;
/// `whole` if they were put together from fragments.
pub(crate) fn extensions(
    first: u8,
    bytes: &[u8],
    length: usize,
    whole: bool,
) -> Result<Behind<'_>, Reject> {
    let short = missing(bytes.len(), length, "IPv6 extension header is cut");
    let mut reader = Reader::new(bytes);
    let mut next = first;
    for at in 0..=MAX_EXTENSIONS {
        let payload = reader.rest();
        let gone = bytes.len().saturating_sub(payload.len());
        let length = length.saturating_sub(gone);
        let behind = Behind { proto: next, payload, length, piece: None };
        match next {
            HOP_BY_HOP if at > 0 || whole => {
                return Err(Reject::Malformed("hop-by-hop header is not the first"));
            }
            FRAGMENT if whole => return Err(Reject::Malformed("fragment of a fragment")),
            FRAGMENT => {
                let [following, _, off_a, off_b] = reader.array().ok_or(short)?;
                let id = reader.be32().ok_or(short)?;
                let offset = u16::from_be_bytes([off_a, off_b]);
                let piece = Piece { id, offset: (offset & 0xfff8).into(), more: offset & 1 != 0 };
                next = following;
                if piece.more || piece.offset > 0 {
                    let length = length.saturating_sub(8);
                    let payload = reader.rest();
                    return Ok(Behind { proto: next, payload, length, piece: Some(piece) });
                }
            }
            HOP_BY_HOP | ROUTING | DESTINATION | AUTHENTICATION | MOBILITY | HIP | SHIM => {
                let [following, size] = reader.array().ok_or(short)?;
                let size = usize::from(size);
                let size = match next {
                    AUTHENTICATION => size.saturating_add(2).saturating_mul(4),
                    _ => size.saturating_add(1).saturating_mul(8),
                };
                reader.take(size.saturating_sub(2)).ok_or(short)?;
                next = following;
            }
            _ => return Ok(behind),
        }
    }
    Err(Reject::Malformed("too many IPv6 extension headers"))
}

const V6_HEADER: usize = 40;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;
const MOBILITY: u8 = 135;
const HIP: u8 = 139;
const SHIM: u8 = 140;

#[cfg(test)]
mod tests {
    use super::*;

    fn v4_packet() -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 24, 0, 7, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        packet.extend(b"data");
        packet
    }

    fn v6_packet(next: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        let mut packet = vec![0x60, 0, 0, 0, length[0], length[1], next, 64];
        packet.extend([0xfd; 32]);
        packet.extend(rest);
        packet
    }

    #[test]
    fn reads_v4_and_leaves_padding_out() {
        let mut packet = v4_packet();
        packet.extend([0; 10]);
        let read = v4(&packet, packet.len()).unwrap();
        assert_eq!((read.payload, read.length, read.piece), (&b"data"[..], 4, None));
        assert_eq!(read.src, IpAddr::from([10, 0, 0, 1]));
    }

    #[test]
    fn a_length_that_was_left_to_the_network_card_is_the_frames() {
        let mut packet = v4_packet();
        packet[3] = 0;
        assert_eq!(v4(&packet, packet.len()).unwrap().length, 4);
        let mut packet = v6_packet(6, b"data");
        packet[5] = 0;
        let read = v6(&packet, packet.len()).unwrap();
        assert_eq!((read.payload, read.length), (&b"data"[..], 4));
    }

    #[test]
    fn tells_a_cut_capture_from_a_contradiction() {
        let packet = v4_packet();
        for cut in 0..packet.len() {
            let here = &packet[..cut];
            if cut < 20 {
                assert_eq!(v4(here, packet.len()), Err(Reject::Cut));
            } else {
                let read = v4(here, packet.len()).unwrap();
                assert_eq!((read.payload.len(), read.length), (cut - 20, 4));
            }
            assert!(matches!(v4(here, cut), Err(Reject::Malformed(_))));
        }
    }

    #[test]
    fn refuses_headers_that_contradict_themselves() {
        for (at, value) in [(0, 0x65), (0, 0x44), (3, 19), (3, 25)] {
            let mut packet = v4_packet();
            packet[at] = value;
            assert!(matches!(v4(&packet, packet.len()), Err(Reject::Malformed(_))), "byte {at}");
        }
    }

    #[test]
    fn extension_headers_are_passed_in_order() {
        let options = [DESTINATION, 0, 1, 4, 0, 0, 0, 0];
        let last = [17, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let packet = v6_packet(HOP_BY_HOP, &[&options[..], &last, b"data"].concat());
        let read = v6(&packet, packet.len()).unwrap();
        assert_eq!((read.proto, read.payload, read.length), (IpProto::UDP, &b"data"[..], 4));
        let wrong =
            v6_packet(DESTINATION, &[&[HOP_BY_HOP, 0, 1, 4, 0, 0, 0, 0][..], &last].concat());
        assert!(matches!(v6(&wrong, wrong.len()), Err(Reject::Malformed(_))));
    }

    #[test]
    fn extension_headers_have_a_limit() {
        let one = [DESTINATION, 0, 1, 4, 0, 0, 0, 0];
        let most = v6_packet(
            DESTINATION,
            &[&one.repeat(MAX_EXTENSIONS - 1)[..], &[17, 0, 1, 4, 0, 0, 0, 0]].concat(),
        );
        assert_eq!(v6(&most, most.len()).unwrap().proto, IpProto::UDP);
        let many = v6_packet(DESTINATION, &one.repeat(MAX_EXTENSIONS + 1));
        assert_eq!(
            v6(&many, many.len()),
            Err(Reject::Malformed("too many IPv6 extension headers"))
        );
    }

    #[test]
    fn an_atomic_fragment_is_a_whole_packet() {
        let packet = v6_packet(FRAGMENT, &[17, 0, 0, 0, 0, 0, 0, 9, 1, 2]);
        assert_eq!(v6(&packet, packet.len()).unwrap().piece, None);
        let packet = v6_packet(FRAGMENT, &[17, 0, 0, 9, 0, 0, 0, 9, 1, 2]);
        let read = v6(&packet, packet.len()).unwrap();
        assert_eq!(read.piece, Some(Piece { id: 9, offset: 8, more: true }));
        assert_eq!((read.payload, read.length), (&[1, 2][..], 2));
    }
}
