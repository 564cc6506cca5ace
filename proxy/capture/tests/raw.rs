//! Resets of live connections, with the numbers that the tap saw.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside of a test function")]

mod net;

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, TcpListener, TcpStream},
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
        let pseudo = [&from[..], &to, &[0, 6, 0, 20], &tcp].concat();
        let sum: u32 = pseudo
            .chunks(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        let folded = (folded & 0xffff) + (folded >> 16);
        tcp[16..18].copy_from_slice(&(!u16::try_from(folded).unwrap()).to_be_bytes());
        let header = if self.ips.0.is_ipv4() {
            vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]
        } else {
            vec![0x60, 0, 0, 0, 0, 20, 6, 64]
        };
        [header, from, to, tcp].concat()
    }
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
fn names_the_capability_it_lacks() {
    in_pod(|_peer| async move {
        keep_only(&[]);
        let error = Injector::open(None).unwrap_err();
        assert_eq!(error.reason(), "capability");
        assert!(error.to_string().contains("NET_RAW"), "{error}");
    });
}
