//! An Ethernet frame around the bytes a threat was found in. The threat log wants a packet: where the
//! bytes are only what one carried, headers are made up whose addresses, ports and payload are true.

use std::net::{IpAddr, SocketAddr};

use outrider_model::{Direction, IpProto, MacAddr, Side};
use outrider_telemetry::ThreatReport;

/// Builds the frame; its Ethernet address on the workload's side is `mac`, the peer's is zero.
#[must_use]
pub(crate) fn frame(report: &ThreatReport, mac: MacAddr) -> Vec<u8> {
    let (source, target) = ends(report);
    let macs = if towards_workload(report) { [mac, PEER] } else { [PEER, mac] };
    let mut frame = Vec::with_capacity(HEADERS_V6.saturating_add(report.evidence.len()));
    macs.iter().for_each(|mac| frame.extend(mac.0));
    if report.is_packet {
        frame.extend(if source.is_ipv4() { ETHERTYPE_V4 } else { ETHERTYPE_V6 });
        frame.extend(&report.evidence);
        return frame;
    }
    let segment = match report.proto {
        IpProto::TCP => segment(source, target, &report.evidence),
        IpProto::UDP => datagram(source, target, &report.evidence),
        _ => report.evidence.clone(),
    };
    match (source.ip(), target.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = [0_u8; 20];
            header[0] = 0x45;
            header[2..4].copy_from_slice(&length(segment.len().saturating_add(20)));
            header[6] = 0x40;
            header[8] = HOP_LIMIT;
            header[9] = report.proto.0;
            header[12..16].copy_from_slice(&from.octets());
            header[16..20].copy_from_slice(&to.octets());
            let sum = checksum(&[&header]);
            header[10..12].copy_from_slice(&sum);
            frame.extend(ETHERTYPE_V4);
            frame.extend(header);
        }
        (from, to) => {
            frame.extend(ETHERTYPE_V6);
            frame.extend([0x60, 0, 0, 0]);
            frame.extend(length(segment.len()));
            frame.extend([report.proto.0, HOP_LIMIT]);
            frame.extend(octets_v6(from));
            frame.extend(octets_v6(to));
        }
    }
    frame.extend(segment);
    frame
}

/// Source and target of the bytes that fired.
#[must_use]
pub(crate) fn ends(report: &ThreatReport) -> (SocketAddr, SocketAddr) {
    match report.side {
        Side::Client => (report.client, report.server),
        Side::Server => (report.server, report.client),
    }
}

/// Whether the bytes that fired went to the workload.
#[must_use]
pub(crate) fn towards_workload(report: &ThreatReport) -> bool {
    (report.direction == Direction::Inbound) == (report.side == Side::Client)
}

/// A TCP segment with the payload; sequence numbers are not known and zero.
fn segment(source: SocketAddr, target: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut segment = Vec::with_capacity(payload.len().saturating_add(20));
    segment.extend(source.port().to_be_bytes());
    segment.extend(target.port().to_be_bytes());
    segment.extend([0; 8]);
    segment.extend([0x50, PUSH_ACK]);
    segment.extend(u16::MAX.to_be_bytes());
    segment.extend([0; 4]);
    segment.extend(payload);
    let pseudo = pseudo_header(source.ip(), target.ip(), IpProto::TCP, segment.len());
    let sum = checksum(&[&pseudo, &segment]);
    segment[16..18].copy_from_slice(&sum);
    segment
}

fn datagram(source: SocketAddr, target: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::with_capacity(payload.len().saturating_add(8));
    datagram.extend(source.port().to_be_bytes());
    datagram.extend(target.port().to_be_bytes());
    datagram.extend(length(payload.len().saturating_add(8)));
    datagram.extend([0; 2]);
    datagram.extend(payload);
    let pseudo = pseudo_header(source.ip(), target.ip(), IpProto::UDP, datagram.len());
    let sum = checksum(&[&pseudo, &datagram]);
    datagram[6..8].copy_from_slice(&sum);
    datagram
}

fn pseudo_header(source: IpAddr, target: IpAddr, proto: IpProto, len: usize) -> Vec<u8> {
    let mut pseudo = Vec::with_capacity(40);
    match (source, target) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            pseudo.extend(from.octets());
            pseudo.extend(to.octets());
        }
        (from, to) => {
            pseudo.extend(octets_v6(from));
            pseudo.extend(octets_v6(to));
        }
    }
    pseudo.extend([0, proto.0]);
    pseudo.extend(length(len));
    pseudo
}

fn octets_v6(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn length(len: usize) -> [u8; 2] {
    u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes()
}

/// The Internet checksum (RFC 1071). Parts but the last have an even length.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u64 = words
        .map(|word| match word {
            [high, low] => u64::from(u16::from_be_bytes([*high, *low])),
            [high] => u64::from(u16::from_be_bytes([*high, 0])),
            _ => 0,
        })
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!u16::try_from(sum).unwrap_or(0)).to_be_bytes()
}

const PEER: MacAddr = MacAddr([0; 6]);
const ETHERTYPE_V4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_V6: [u8; 2] = [0x86, 0xdd];
const HOP_LIMIT: u8 = 64;
const PUSH_ACK: u8 = 0x18;
/// Headers of the larger family: Ethernet, IPv6, TCP.
const HEADERS_V6: usize = 14 + 40 + 20;

/// Length of the headers before the payload.
#[must_use]
pub(crate) fn headers(report: &ThreatReport) -> usize {
    let v4 = report.client.is_ipv4() && report.server.is_ipv4();
    let transport = match report.proto {
        _ if report.is_packet => return 14,
        IpProto::TCP => 20,
        IpProto::UDP => 8,
        _ => 0,
    };
    transport + if v4 { 14 + 20 } else { 14 + 40 }
}

#[cfg(test)]
mod tests {
    use outrider_model::{AppId, ThreatId};

    use super::*;

    const MAC: MacAddr = MacAddr([0x0a, 0x58, 0, 0, 0, 2]);

    fn report(client: &str, server: &str, direction: Direction, side: Side) -> ThreatReport {
        ThreatReport {
            id: ThreatId::SMUGGLING,
            direction,
            side,
            client: client.parse().unwrap(),
            server: server.parse().unwrap(),
            proto: IpProto::TCP,
            app: AppId::HTTP,
            enforced: false,
            stopped: false,
            message: String::new(),
            evidence: b"GET / HTTP/1.1".to_vec(),
            is_packet: false,
            length: 14,
            count: 1,
            reported_at: 0,
        }
    }

    #[test]
    fn a_v4_frame_carries_addresses_ports_payload_and_valid_checksums() {
        let report = report("10.0.0.9:4000", "10.0.0.2:80", Direction::Inbound, Side::Client);
        let frame = frame(&report, MAC);
        assert_eq!(frame.len(), headers(&report) + 14);
        assert_eq!(frame[..6], MAC.0, "towards the workload");
        assert_eq!(frame[12..14], ETHERTYPE_V4);
        assert_eq!(frame[26..34], [10, 0, 0, 9, 10, 0, 0, 2]);
        assert_eq!(frame[34..38], [0x0f, 0xa0, 0, 80]);
        assert_eq!(&frame[54..], b"GET / HTTP/1.1");
        assert_eq!(checksum(&[&frame[14..34]]), [0, 0]);
        let pseudo =
            pseudo_header(report.client.ip(), report.server.ip(), IpProto::TCP, frame.len() - 34);
        assert_eq!(checksum(&[&pseudo, &frame[34..]]), [0, 0]);
    }

    #[test]
    fn a_v6_frame_does_too() {
        let report = report("[fd00::9]:4000", "[fd00::2]:80", Direction::Inbound, Side::Server);
        let frame = frame(&report, MAC);
        assert_eq!(frame[6..12], MAC.0, "from the workload");
        assert_eq!(frame[12..14], ETHERTYPE_V6);
        assert_eq!(frame[54..58], [0, 80, 0x0f, 0xa0]);
        let pseudo =
            pseudo_header(report.server.ip(), report.client.ip(), IpProto::TCP, frame.len() - 54);
        assert_eq!(checksum(&[&pseudo, &frame[54..]]), [0, 0]);
    }

    #[test]
    fn says_which_way_the_bytes_went() {
        use {Direction::*, Side::*};
        for (direction, side, towards) in [
            (Inbound, Client, true),
            (Inbound, Server, false),
            (Outbound, Client, false),
            (Outbound, Server, true),
        ] {
            let report = report("10.0.0.9:1", "10.0.0.2:2", direction, side);
            assert_eq!(towards_workload(&report), towards);
        }
    }
}
