//! TCP, UDP, ICMP and SCTP headers, and what is wrong with them.

use outrider_model::{IpProto, ThreatId, bytes::Reader};

use crate::ip::Reject;

/// A TCP segment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Segment<'a> {
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: Flags,
    pub(crate) window: u16,
    /// Of a SYN.
    pub(crate) scale: Option<u8>,
    pub(crate) payload: &'a [u8],
    /// Bytes of the payload on the wire.
    pub(crate) length: usize,
}

/// The six classic flags.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Flags(pub(crate) u8);

impl Flags {
    pub(crate) fn fin(self) -> bool {
        self.0 & FIN != 0
    }

    pub(crate) fn syn(self) -> bool {
        self.0 & SYN != 0
    }

    pub(crate) fn rst(self) -> bool {
        self.0 & RST != 0
    }

    pub(crate) fn ack(self) -> bool {
        self.0 & ACK != 0
    }

    pub(crate) fn urg(self) -> bool {
        self.0 & URG != 0
    }
}

/// What an IP packet carries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Body<'a> {
    Tcp(Segment<'a>),
    /// UDP: what it carries, and how much that was on the wire.
    Datagram(&'a [u8], usize),
    Icmp(Icmp<'a>),
    /// Anything else: its length.
    Other(usize),
}

/// An ICMP message of either family.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Icmp<'a> {
    pub(crate) kind: u8,
    pub(crate) code: u8,
    pub(crate) id: u16,
    pub(crate) sequence: u16,
    pub(crate) payload: &'a [u8],
    pub(crate) length: usize,
}

/// What a packet carries, with its ports and what is suspicious about it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Transport<'a> {
    pub(crate) ports: (u16, u16),
    pub(crate) body: Body<'a>,
    pub(crate) finding: Option<(ThreatId, &'static str)>,
}

/// TCP over MSS below this is an attack on the sender's memory.
const SMALL_MSS: u16 = 256;
/// The largest window scale there is (RFC 7323).
const MAX_SCALE: u8 = 14;

/// Reads what an IP packet carries; `length` bytes of it were on the wire.
pub(crate) fn read(proto: IpProto, payload: &[u8], length: usize) -> Result<Transport<'_>, Reject> {
    let plain = |ports, body| Ok(Transport { ports, body, finding: None });
    match proto {
        IpProto::TCP => tcp(payload, length),
        IpProto::UDP => {
            let (ports, body) = udp(payload, length)?;
            plain(ports, body)
        }
        IpProto::ICMP | IpProto::ICMPV6 => plain((0, 0), icmp(payload, length)?),
        IpProto::SCTP => {
            let mut reader = Reader::new(payload);
            let short = missing(payload, length, "SCTP header is cut");
            let ports = (reader.be16().ok_or(short)?, reader.be16().ok_or(short)?);
            reader.take(8).ok_or(short)?;
            plain(ports, Body::Other(length))
        }
        _ => plain((0, 0), Body::Other(length)),
    }
}

fn missing(captured: &[u8], wire: usize, what: &'static str) -> Reject {
    if captured.len() < wire { Reject::Cut } else { Reject::Malformed(what) }
}

fn udp(bytes: &[u8], wire: usize) -> Result<((u16, u16), Body<'_>), Reject> {
    let short = missing(bytes, wire, "UDP header is cut");
    let mut reader = Reader::new(bytes);
    let ports = (reader.be16().ok_or(short)?, reader.be16().ok_or(short)?);
    let length = usize::from(reader.be16().ok_or(short)?);
    reader.be16().ok_or(short)?;
    // Zero: longer than the field can say.
    let length = if length == 0 { wire } else { length };
    if length < UDP_HEADER || length > wire {
        return Err(Reject::Malformed("UDP length"));
    }
    let length = length.saturating_sub(UDP_HEADER);
    let payload = reader.rest().get(..length).unwrap_or(reader.rest());
    Ok((ports, Body::Datagram(payload, length)))
}

fn icmp(bytes: &[u8], wire: usize) -> Result<Body<'_>, Reject> {
    let short = missing(bytes, wire, "ICMP header is cut");
    let mut reader = Reader::new(bytes);
    let [kind, code, _, _] = reader.array().ok_or(short)?;
    let (id, sequence) = match reader.be32() {
        Some(word) => {
            let [a, b, c, d] = word.to_be_bytes();
            (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
        }
        None => return Err(short),
    };
    let length = wire.saturating_sub(ICMP_HEADER);
    Ok(Body::Icmp(Icmp { kind, code, id, sequence, payload: reader.rest(), length }))
}

fn tcp(bytes: &[u8], wire: usize) -> Result<Transport<'_>, Reject> {
    let short = missing(bytes, wire, "TCP header is cut");
    let mut reader = Reader::new(bytes);
    let ports = (reader.be16().ok_or(short)?, reader.be16().ok_or(short)?);
    let (seq, ack) = (reader.be32().ok_or(short)?, reader.be32().ok_or(short)?);
    let [offset, flags] = reader.array().ok_or(short)?;
    let window = reader.be16().ok_or(short)?;
    reader.be32().ok_or(short)?;
    let header = usize::from(offset >> 4).saturating_mul(4);
    if header < TCP_HEADER || header > wire {
        return Err(Reject::Malformed("TCP header length"));
    }
    let flags = Flags(flags & 0x3f);
    if ILLEGAL.contains(&flags.0) {
        return Err(Reject::Malformed("TCP flags"));
    }
    let options = reader
        .take(header.saturating_sub(TCP_HEADER))
        .ok_or(short)?;
    let options = read_options(options)?;
    if options.stamps == Some((0, 0)) && flags.ack() && !flags.syn() {
        return Err(Reject::Malformed("TCP time stamps of zero"));
    }
    let small = options.mss.is_some_and(|mss| (1..SMALL_MSS).contains(&mss));
    let length = wire.saturating_sub(header);
    let segment =
        Segment { seq, ack, flags, window, scale: options.scale, payload: reader.rest(), length };
    Ok(Transport {
        ports,
        body: Body::Tcp(segment),
        finding: small.then_some((ThreatId::SMALL_MSS, "TCP MSS option below 256")),
    })
}

/// Options that matter here.
#[derive(Clone, Copy, Debug, Default)]
struct Options {
    mss: Option<u16>,
    scale: Option<u8>,
    stamps: Option<(u32, u32)>,
}

fn read_options(bytes: &[u8]) -> Result<Options, Reject> {
    const WRONG: Reject = Reject::Malformed("TCP options");
    let mut options = Options::default();
    let mut reader = Reader::new(bytes);
    while let Some(kind) = reader.u8() {
        match kind {
            0 => break,
            1 => continue,
            _ => {}
        }
        let length = reader.u8().ok_or(WRONG)?.checked_sub(2).ok_or(WRONG)?;
        let mut value = Reader::new(reader.take(length.into()).ok_or(WRONG)?);
        match (kind, length) {
            (2, 2) => options.mss = value.be16(),
            (3, 1) => options.scale = value.u8().map(|scale| scale.min(MAX_SCALE)),
            (8, 8) => options.stamps = value.be32().zip(value.be32()),
            (2 | 3 | 8, _) => return Err(WRONG),
            _ => {}
        }
    }
    Ok(options)
}

const UDP_HEADER: usize = 8;
const ICMP_HEADER: usize = 8;
const TCP_HEADER: usize = 20;
const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
const URG: u8 = 0x20;
/// No system sends these; scanners do.
const ILLEGAL: [u8; 10] = [0, 0x20, 0x01, 0x08, 0x09, 0x28, 0x03, 0x29, 0x3b, 0x3f];

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
        let words = u8::try_from(5 + options.len() / 4).unwrap();
        let mut bytes =
            vec![0, 80, 1, 2, 0, 0, 0, 1, 0, 0, 0, 2, words << 4, flags, 1, 0, 0, 0, 0, 0];
        bytes.extend(options);
        bytes.extend(payload);
        bytes
    }

    fn of(bytes: &[u8]) -> Result<Transport<'_>, Reject> {
        read(IpProto::TCP, bytes, bytes.len())
    }

    #[test]
    fn reads_a_segment_and_its_options() {
        let options = [2, 4, 5, 0xb4, 1, 3, 3, 200, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        let bytes = segment(SYN, &options, b"hi");
        let read = of(&bytes).unwrap();
        assert_eq!((read.ports, read.finding), ((80, 258), None));
        let Body::Tcp(segment) = read.body else { panic!("{read:?}") };
        assert_eq!((segment.seq, segment.ack, segment.window), (1, 2, 256));
        assert_eq!((segment.scale, segment.payload, segment.length), (Some(14), &b"hi"[..], 2));
    }

    #[test]
    fn a_small_mss_is_found() {
        for (mss, found) in [(0_u16, false), (1, true), (255, true), (256, false)] {
            let [high, low] = mss.to_be_bytes();
            let bytes = segment(SYN, &[2, 4, high, low], b"");
            assert_eq!(of(&bytes).unwrap().finding.is_some(), found, "{mss}");
        }
    }

    #[test]
    fn refuses_what_no_system_sends() {
        for flags in ILLEGAL {
            assert!(
                matches!(of(&segment(flags, &[], b"")), Err(Reject::Malformed(_))),
                "{flags:#x}"
            );
        }
        for options in [&[8, 1, 0, 0][..], &[8, 40, 0, 0], &[3, 4, 0, 0], &[1, 1, 1, 8]] {
            assert!(matches!(of(&segment(ACK, options, b"")), Err(Reject::Malformed(_))));
        }
        let zero = [8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1];
        assert!(of(&segment(ACK, &zero, b"")).is_err());
        assert!(of(&segment(SYN, &zero, b"")).is_ok());
        let mut offset = segment(ACK, &[], b"");
        offset[12] = 0x40;
        assert!(of(&offset).is_err());
        offset[12] = 0x60;
        assert!(of(&offset).is_err());
    }

    #[test]
    fn a_cut_header_is_no_contradiction() {
        let bytes = segment(ACK, &[1, 1, 1, 1], b"data");
        for cut in 0..24 {
            assert_eq!(read(IpProto::TCP, &bytes[..cut], bytes.len()), Err(Reject::Cut));
            assert!(matches!(of(&bytes[..cut]), Err(Reject::Malformed(_))), "{cut}");
        }
    }

    #[test]
    fn udp_says_how_long_it_is() {
        let bytes = [0, 1, 0, 2, 0, 10, 0, 0, 7, 8, 9];
        let read = |bytes: &'static [u8]| super::read(IpProto::UDP, bytes, bytes.len());
        let datagram = read(bytes.to_vec().leak()).unwrap();
        assert_eq!((datagram.ports, datagram.body), ((1, 2), Body::Datagram(&[7, 8], 2)));
        assert!(read(&[0, 1, 0, 2, 0, 7, 0, 0, 7]).is_err());
        assert!(read(&[0, 1, 0, 2, 0, 10, 0, 0, 7]).is_err());
        assert!(read(&[0, 1, 0, 2, 0, 0, 0, 0, 7]).is_ok());
    }
}
