//! Resets of live connections, with the numbers that the tap saw.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside of a test function")]

mod net;

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use caps::Capability;
use net::{PEER, POD, at, in_pod, keep_only};
use outrider_capture::{Injector, Tap, TapSettings};

/// One direction of a connection as last seen: who, to whom, what it acknowledged.
#[derive(Clone, Debug)]
struct Half {
    ips: (IpAddr, IpAddr),
    ports: (u16, u16),
    acknowledged: u32,
}

impl Half {
    fn read(frame: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_be_bytes(*frame.get(at..)?.first_chunk()?));
        let (ips, tcp) = match frame.get(12..14)? {
            [0x08, 0x00] if frame[23] == 6 => ((v4(frame, 26), v4(frame, 30)), 34),
            [0x86, 0xdd] if frame[20] == 6 => ((v6(frame, 22), v6(frame, 38)), 54),
            _ => return None,
        };
        let ports = word(tcp)?;
        let ports = ((ports >> 16) as u16, (ports & 0xffff) as u16);
        Some(Self { ips, ports, acknowledged: word(tcp + 8)? })
    }

    /// A reset to who sent this, from whom it was sent to.
    fn reset(&self) -> Vec<u8> {
        let mut tcp = vec![0; 20];
        tcp[0..2].copy_from_slice(&self.ports.1.to_be_bytes());
        tcp[2..4].copy_from_slice(&self.ports.0.to_be_bytes());
        tcp[4..8].copy_from_slice(&self.acknowledged.to_be_bytes());
        tcp[12] = 0x50;
        tcp[13] = 0x04;
        let (to, from) = (octets(self.ips.0), octets(self.ips.1));
        tcp = checked(&[&from[..], &to, &[0, 6, 0, 20]].concat(), tcp, 16);
        let header = if self.ips.0.is_ipv4() {
            vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]
        } else {
            vec![0x60, 0, 0, 0, 0, 20, 6, 64]
        };
        [header, from, to, tcp].concat()
    }
}

/// Fills in the checksum at `at`, over what the protocol puts before it.
fn checked(before: &[u8], mut body: Vec<u8>, at: usize) -> Vec<u8> {
    let covered = [before, &body].concat();
    let sum: u32 = covered
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    let sum = !u16::try_from(folded).unwrap();
    body[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    body
}

/// "Port unreachable" for an IP packet, from whom it was sent to.
fn unreachable(packet: &[u8]) -> Vec<u8> {
    let (length, part) = (u16::try_from(packet.len() + 8).unwrap(), packet.len());
    if packet[0] >> 4 == 4 {
        let icmp = checked(&[], [&[3, 3, 0, 0, 0, 0, 0, 0][..], packet].concat(), 2);
        let [high, low] = (length + 20).to_be_bytes();
        let header = [0x45, 0, high, low, 0, 0, 0x40, 0, 64, 1, 0, 0];
        return [&header[..], &packet[16..20], &packet[12..16], &icmp].concat();
    }
    let addresses = [&packet[24..40], &packet[8..24]].concat();
    let [high, low] = length.to_be_bytes();
    let before = [&addresses[..], &[0, 0, high, low, 0, 0, 0, 58]].concat();
    let icmp = checked(&before, [&[1, 4, 0, 0, 0, 0, 0, 0][..], &packet[..part]].concat(), 2);
    [&[0x60, 0, 0, 0, high, low, 58, 64][..], &addresses, &icmp].concat()
}

fn v4(frame: &[u8], at: usize) -> IpAddr {
    <[u8; 4]>::try_from(&frame[at..at + 4]).unwrap().into()
}

fn v6(frame: &[u8], at: usize) -> IpAddr {
    <[u8; 16]>::try_from(&frame[at..at + 16]).unwrap().into()
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// Waits for the end of a connection, whatever it is.
fn ends_with(stream: &mut TcpStream) -> ErrorKind {
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    stream.read(&mut [0; 16]).unwrap_err().kind()
}

#[test]
fn resets_both_ends_of_a_live_connection() {
    in_pod(|peer| async move {
        keep_only(&[Capability::CAP_NET_RAW, Capability::CAP_SYS_ADMIN]);
        let eth0 = TapSettings { interface: Some("eth0".to_owned()), ..TapSettings::default() };
        for family in [0, 1] {
            let mut tap = Tap::open(&eth0).unwrap();
            let server = peer.enter(|| TcpListener::bind(at(PEER[family], 7000)).unwrap());
            let mut near = TcpStream::connect(server.local_addr().unwrap()).unwrap();
            let (mut far, _) = server.accept().unwrap();
            let mut bystander = TcpStream::connect(server.local_addr().unwrap()).unwrap();
            let (mut other, _) = server.accept().unwrap();
            near.write_all(b"ping").unwrap();
            far.read_exact(&mut [0; 4]).unwrap();
            far.write_all(b"pong!").unwrap();
            near.read_exact(&mut [0; 5]).unwrap();
            near.write_all(b"done").unwrap();
            far.read_exact(&mut [0; 4]).unwrap();
            far.write_all(b"over").unwrap();
            near.read_exact(&mut [0; 4]).unwrap();
            let mut halves: [Option<Half>; 2] = [None, None];
            let own = near.local_addr().unwrap().port();
            let pod: IpAddr = POD[family].parse().unwrap();
            // The last data of each side, acknowledged, in either order.
            let (mut client, mut data) = (0, 0);
            while data < 2 {
                let look = |frame: outrider_capture::Frame<'_>| {
                    let Some(half) = Half::read(frame.bytes) else { return };
                    if half.ports.0 != own && half.ports.1 != own {
                        return;
                    }
                    let from_pod = half.ips.0 == pod;
                    data += usize::from(frame.bytes.ends_with(b"done"));
                    data += usize::from(frame.bytes.ends_with(b"over"));
                    client += usize::from(from_pod);
                    halves[usize::from(!from_pod)] = Some(half);
                };
                tap.wait(look).await.unwrap();
            }
            assert!(client > 0);
            let mut halves = halves.map(Option::unwrap);
            // The pod has read "over" since, whether it has said so already or not.
            if let Some(end) = last_ack(&halves[0], &mut tap).await {
                halves[0].acknowledged = end;
            }
            let injector = Injector::open(Some(0x6eb)).unwrap();
            for half in &halves {
                injector.send(&half.reset(), 0).unwrap();
            }
            assert_eq!(ends_with(&mut near), ErrorKind::ConnectionReset, "pod, {family}");
            assert_eq!(ends_with(&mut far), ErrorKind::ConnectionReset, "peer, {family}");
            bystander.write_all(b"alive").unwrap();
            other.read_exact(&mut [0; 5]).unwrap();
        }
    });
}

/// The acknowledgement that the pod's kernel may still send, 40 ms after the last data.
async fn last_ack(half: &Half, tap: &mut Tap) -> Option<u32> {
    let mut last = None;
    let wait = async {
        while last.is_none() {
            let look = |frame: outrider_capture::Frame<'_>| {
                let found = Half::read(frame.bytes).filter(|found| found.ports == half.ports);
                last = found.map(|found| found.acknowledged).or(last);
            };
            tap.wait(look).await.unwrap();
        }
    };
    drop(tokio::time::timeout(Duration::from_millis(300), wait).await);
    last
}

#[test]
fn an_unreachable_port_ends_a_datagrams_wait() {
    in_pod(|peer| async move {
        let eth0 = TapSettings { interface: Some("eth0".to_owned()), ..TapSettings::default() };
        for family in [0, 1] {
            let mut tap = Tap::open(&eth0).unwrap();
            let silent = peer.udp(&at(PEER[family], 5000).to_string());
            let near = UdpSocket::bind(at(POD[family], 0)).unwrap();
            near.connect(silent.local_addr().unwrap()).unwrap();
            near.send(b"is anybody there").unwrap();
            let mut packet = Vec::new();
            while packet.is_empty() {
                let look = |frame: outrider_capture::Frame<'_>| {
                    if frame.bytes.ends_with(b"there") {
                        packet = frame.bytes[14..].to_vec();
                    }
                };
                tap.wait(look).await.unwrap();
            }
            let injector = Injector::open(None).unwrap();
            injector.send(&unreachable(&packet), 0).unwrap();
            near.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let error = near.recv(&mut [0; 16]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "family {family}");
        }
    });
}

#[test]
fn names_the_capability_it_lacks() {
    in_pod(|_peer| async move {
        keep_only(&[]);
        let error = Injector::open(None).unwrap_err();
        assert_eq!(error.reason(), "capability");
        assert!(error.to_string().contains("NET_RAW"), "{error}");
    });
}
