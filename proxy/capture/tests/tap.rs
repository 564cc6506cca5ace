//! The tap on real interfaces: what it sees, what it leaves out, what it says it lost.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside of a test function")]

mod net;

use std::{
    net::{TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use caps::Capability;
use net::{MACS, PEER, POD, at, in_pod, keep_only, run};
use outrider_capture::{Filter, Link, Tap, TapSettings};
use outrider_model::Direction::{self, Inbound, Outbound};

/// What a test keeps of a frame.
#[derive(Clone, Debug)]
struct Seen {
    direction: Direction,
    loopback: bool,
    vlan: Option<u16>,
    bytes: Vec<u8>,
}

impl Seen {
    /// EtherType and IP protocol.
    fn kind(&self) -> (u16, u8) {
        let kind = u16::from_be_bytes([self.bytes[12], self.bytes[13]]);
        let at = if kind == 0x86dd { 20 } else { 23 };
        (kind, self.bytes.get(at).copied().unwrap_or_default())
    }

    fn carries(&self, text: &[u8]) -> bool {
        self.bytes.windows(text.len()).any(|part| part == text)
    }
}

/// Shows frames until there are as many as wanted that `pick` picks.
async fn collect(tap: &mut Tap, want: usize, pick: impl Fn(&Seen) -> bool) -> Vec<Seen> {
    let mut found: Vec<Seen> = Vec::new();
    let all = async {
        while found.len() < want {
            let keep = |frame: outrider_capture::Frame<'_>| {
                assert_eq!(frame.link, Link::Ethernet);
                assert_eq!(frame.wire, frame.bytes.len());
                let seen = Seen {
                    direction: frame.direction,
                    loopback: frame.loopback,
                    vlan: frame.vlan,
                    bytes: frame.bytes.to_vec(),
                };
                if pick(&seen) {
                    found.push(seen);
                }
            };
            tap.wait(keep).await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(10), all)
        .await
        .expect("frames come");
    found
}

fn on(interface: &str) -> TapSettings {
    TapSettings { interface: Some(interface.to_owned()), ..TapSettings::default() }
}

#[test]
fn sees_udp_and_icmp_of_both_families_in_both_directions() {
    in_pod(|peer| async move {
        let mut tap = Tap::open(&on("eth0")).unwrap();
        for family in [0, 1] {
            let far = peer.udp(&at(PEER[family], 5000).to_string());
            let near = UdpSocket::bind(at(POD[family], 6000)).unwrap();
            near.send_to(b"question", at(PEER[family], 5000)).unwrap();
            far.send_to(b"answer", at(POD[family], 6000)).unwrap();
            run("ping", &["-q", "-c", "1", "-W", "5", PEER[family]], "");
            let frames = collect(&mut tap, 4, |frame| matches!(frame.kind().1, 17 | 1 | 58)).await;
            let (kind, icmp) = [(0x0800, 1), (0x86dd, 58)][family];
            let want = [(Outbound, 17), (Inbound, 17), (Outbound, icmp), (Inbound, icmp)];
            for (frame, (direction, proto)) in frames.iter().zip(want) {
                assert_eq!((frame.direction, frame.kind()), (direction, (kind, proto)));
            }
            assert!(frames[0].carries(b"question") && frames[1].carries(b"answer"));
        }
    });
}

#[test]
fn a_tap_of_all_interfaces_sees_loopback_once() {
    in_pod(|_peer| async move {
        let mut tap = Tap::open(&TapSettings::default()).unwrap();
        let server = UdpSocket::bind("127.0.0.1:5000").unwrap();
        UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .send_to(b"to myself", "127.0.0.1:5000")
            .unwrap();
        let near = UdpSocket::bind(at(POD[0], 6000)).unwrap();
        near.send_to(b"to the peer", at(PEER[0], 5000)).unwrap();
        let last = collect(&mut tap, 2, |frame| frame.carries(b"to ")).await;
        assert!(last[0].loopback && last[0].direction == Inbound);
        assert!(!last[1].loopback && last[1].direction == Outbound);
        drop(server);
    });
}

#[test]
fn a_frame_comes_with_its_vlan_tag() {
    in_pod(|peer| async move {
        let mut tap = Tap::open(&on("eth0")).unwrap();
        let mut frame = Vec::new();
        for mac in MACS {
            let bytes = mac
                .split(':')
                .map(|byte| u8::from_str_radix(byte, 16).unwrap());
            frame.extend(bytes);
        }
        frame.extend([0x81, 0x00, 0x60, 0x2a, 0x08, 0x00]);
        frame.extend([0x45; 60]);
        let sent = frame.clone();
        let (sender, runtime) = (sent.clone(), tokio::runtime::Handle::current());
        peer.enter(|| {
            let _inside = runtime.enter();
            let out = Tap::open(&on("eth1")).unwrap();
            out.send(&sender).unwrap();
        });
        let frames = collect(&mut tap, 1, |frame| frame.bytes[12] != 0x86).await;
        assert_eq!(frames[0].vlan, Some(42));
        assert_eq!(frames[0].bytes, sent);
    });
}

#[test]
fn the_filter_leaves_proxied_tcp_out() {
    in_pod(|peer| async move {
        for family in [0, 1] {
            let kept = peer.enter(|| TcpListener::bind(at(PEER[family], 7000)).unwrap());
            let left = peer.enter(|| TcpListener::bind(at(PEER[family], 7001)).unwrap());
            let near = UdpSocket::bind(at(POD[family], 0)).unwrap();
            for (filter, want) in [
                (Filter::Everything, [true, true]),
                (Filter::NoTcp, [false, false]),
                (Filter::NoTcpOf(vec![9, 7001]), [true, false]),
                (Filter::NoTcpBut(vec![7000, 9]), [true, false]),
            ] {
                let mut tap =
                    Tap::open(&TapSettings { filter: filter.clone(), ..on("eth0") }).unwrap();
                for server in [&kept, &left] {
                    drop(TcpStream::connect(server.local_addr().unwrap()).unwrap());
                    drop(server.accept().unwrap());
                }
                near.send_to(b"the end", at(PEER[family], 9)).unwrap();
                let mut seen = [false, false];
                let mut over = false;
                while !over {
                    let look = |frame: outrider_capture::Frame<'_>| {
                        let at = if family == 0 { 34 } else { 54 };
                        let port = |at| u16::from_be_bytes([frame.bytes[at], frame.bytes[at + 1]]);
                        seen[0] |= port(at) == 7000 || port(at + 2) == 7000;
                        seen[1] |= port(at) == 7001 || port(at + 2) == 7001;
                        over |= frame.bytes.ends_with(b"the end");
                    };
                    tap.wait(look).await.unwrap();
                }
                assert_eq!(seen, want, "{filter:?}, family {family}");
                assert_eq!(tap.counters().unwrap().lost, 0);
            }
        }
    });
}

/// A frame with a TCP segment from port 40000: its flags, where it goes, how many options and data.
fn segment(family: usize, flags: u8, port: u16, data: u16, options: bool) -> Vec<u8> {
    let header: u16 = if options { 32 } else { 20 };
    let mut frame = vec![0; 12];
    if family == 0 {
        // With options of its own, so that the place of the TCP header must be computed.
        frame.extend([0x08, 0x00, 0x46, 0]);
        frame.extend((24 + header + data).to_be_bytes());
        frame.extend([0, 0, 0, 0, 64, 6, 0, 0, 10, 9, 0, 1, 10, 9, 0, 2, 1, 1, 1, 0]);
    } else {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend((header + data).to_be_bytes());
        frame.extend([6, 64]);
        frame.extend([0; 32]);
    }
    frame.extend(40_000_u16.to_be_bytes());
    frame.extend(port.to_be_bytes());
    frame.extend([0; 8]);
    frame.extend([u8::try_from(header).unwrap() << 2, flags]);
    frame.resize(frame.len() + usize::from(header - 14 + data), 0);
    frame
}

#[test]
fn openings_and_what_no_honest_end_sends_are_seen() {
    let [fin, syn, rst, psh, ack, urg] = [1_u8, 2, 4, 8, 16, 32];
    let cases = [
        (syn, 7001, 0, true),
        (syn | ack, 7001, 0, true),
        (syn | fin, 7001, 0, true),
        (syn | rst, 7001, 0, true),
        (0, 7001, 5, true),
        (fin, 7001, 0, true),
        (fin | psh | urg, 7001, 0, true),
        (rst, 7001, 1, true),
        (rst | ack, 7001, 700, true),
        (rst, 7001, 0, false),
        (rst | ack, 7001, 0, false),
        (ack, 7001, 0, false),
        (ack | psh, 7001, 700, false),
        (ack | fin, 7001, 0, false),
        (ack | psh, 7000, 700, true),
        (rst, 7000, 0, true),
    ];
    in_pod(move |_peer| async move {
        let sender = Tap::open(&on("eth0")).unwrap();
        for (family, options) in [(0, false), (0, true), (1, false), (1, true)] {
            let filter = Filter::Openings(vec![9, 7000]);
            let mut tap = Tap::open(&TapSettings { filter, ..on("eth0") }).unwrap();
            let frames = cases
                .iter()
                .map(|(flags, port, data, _)| segment(family, *flags, *port, *data, options));
            let frames: Vec<_> = frames.collect();
            frames.iter().for_each(|frame| sender.send(frame).unwrap());
            // Whatever is no TCP is seen: the end.
            let near = UdpSocket::bind(at(POD[family], 0)).unwrap();
            near.send_to(b"the end", at(PEER[family], 9)).unwrap();
            let mut want: Vec<_> = frames
                .iter()
                .zip(&cases)
                .filter(|(_, case)| case.3)
                .map(|(frame, _)| frame.clone())
                .collect();
            let seen =
                collect(&mut tap, want.len() + 1, |frame| matches!(frame.kind().1, 6 | 17)).await;
            let last = seen.last().unwrap();
            assert!(last.carries(b"the end"));
            want.push(last.bytes.clone());
            let seen: Vec<_> = seen.into_iter().map(|seen| seen.bytes).collect();
            assert_eq!(seen, want, "family {family}, options {options}");
        }
    });
}

#[test]
fn fragments_are_seen_by_the_filter_of_openings() {
    in_pod(|_peer| async move {
        let filter = Filter::Openings(Vec::new());
        let mut tap = Tap::open(&TapSettings { filter, ..on("eth0") }).unwrap();
        let sender = Tap::open(&on("eth0")).unwrap();
        let mut fragment = segment(0, 16, 7001, 100, false);
        fragment[20] = 0x20;
        sender.send(&fragment).unwrap();
        let seen = collect(&mut tap, 1, |_| true).await;
        assert_eq!(seen[0].bytes, fragment);
    });
}

#[test]
fn a_filter_is_replaced_while_the_tap_runs() {
    in_pod(|peer| async move {
        let mut tap = Tap::open(&TapSettings { filter: Filter::NoTcp, ..on("eth0") }).unwrap();
        let server = peer.enter(|| TcpListener::bind(at(PEER[0], 7000)).unwrap());
        drop(TcpStream::connect(server.local_addr().unwrap()).unwrap());
        let near = UdpSocket::bind(at(POD[0], 6000)).unwrap();
        near.send_to(b"the end", at(PEER[0], 9)).unwrap();
        let first = collect(&mut tap, 1, |frame| matches!(frame.kind().1, 6 | 17)).await;
        assert!(first[0].carries(b"the end"), "no TCP passed");
        tap.set_filter(&Filter::Everything).unwrap();
        drop(TcpStream::connect(server.local_addr().unwrap()).unwrap());
        collect(&mut tap, 3, |frame| frame.kind() == (0x0800, 6)).await;
    });
}

#[test]
fn counted_loss_is_the_loss_that_happened() {
    const SENT: u64 = 50_000;
    in_pod(|_peer| async move {
        let tiny = TapSettings { block_bytes: 4096, blocks: 2, ..on("eth0") };
        let mut tap = Tap::open(&tiny).unwrap();
        let near = UdpSocket::bind(at(POD[0], 6000)).unwrap();
        near.connect(at(PEER[0], 9)).unwrap();
        let mut shown = 0;
        for number in 0..SENT {
            // The peer answers that nobody listens there, which a connected socket is told.
            while near.send(&number.to_be_bytes()).is_err() {}
            if number % 1000 == 0 {
                tap.drain(|frame| shown += u64::from(frame.direction == Outbound));
            }
        }
        tap.set_filter(&Filter::NoTcp).unwrap();
        let idle = Duration::from_millis(100);
        let mut others = 0;
        loop {
            let count = |frame: outrider_capture::Frame<'_>| {
                shown += u64::from(frame.direction == Outbound);
                others += u64::from(frame.direction == Inbound);
            };
            if tokio::time::timeout(idle, tap.wait(count)).await.is_err() {
                break;
            }
        }
        let counters = tap.counters().unwrap();
        assert!(counters.lost > SENT / 2, "the ring was tiny: {counters:?}");
        assert!(counters.full > 0, "{counters:?}");
        assert_eq!(counters.seen, counters.shown + counters.lost, "{counters:?}");
        assert!(shown + counters.lost >= SENT, "{shown} shown, {others} answers, {counters:?}");
        assert_eq!(counters.torn, 0);
    });
}

#[test]
fn taps_of_a_fanout_group_share_the_flows() {
    in_pod(|_peer| async move {
        let settings = TapSettings { fanout: Some(7), ..on("eth0") };
        let mut taps = [Tap::open(&settings).unwrap(), Tap::open(&settings).unwrap()];
        for port in 6000..6064 {
            let near = UdpSocket::bind(at(POD[0], port)).unwrap();
            near.send_to(b"flow", at(PEER[0], 9)).unwrap();
        }
        let mut shown = [0, 0];
        while shown.iter().sum::<u64>() < 64 {
            for (tap, shown) in taps.iter_mut().zip(&mut shown) {
                let count = |frame: outrider_capture::Frame<'_>| {
                    *shown +=
                        u64::from(frame.bytes.ends_with(b"flow") && frame.direction == Outbound);
                };
                // Nothing for a while is no failure: the other one may have it.
                drop(tokio::time::timeout(Duration::from_millis(50), tap.wait(count)).await);
            }
        }
        assert_eq!(shown.iter().sum::<u64>(), 64, "each frame once: {shown:?}");
        assert!(shown.iter().all(|count| *count > 0), "{shown:?}");
    });
}

#[test]
fn runs_with_net_raw_alone_and_names_it_when_it_is_missing() {
    in_pod(|_peer| async move {
        keep_only(&[Capability::CAP_NET_RAW]);
        let mut tap = Tap::open(&on("eth0")).unwrap();
        let near = UdpSocket::bind(at(POD[0], 6000)).unwrap();
        near.send_to(b"seen", at(PEER[0], 9)).unwrap();
        collect(&mut tap, 1, |frame| frame.carries(b"seen")).await;
        keep_only(&[]);
        let error = Tap::open(&on("eth0")).unwrap_err();
        assert_eq!(error.reason(), "capability");
        assert!(error.to_string().contains("NET_RAW"), "{error}");
    });
}

#[test]
fn says_that_the_interface_is_not_there_or_has_gone() {
    in_pod(|_peer| async move {
        let error = Tap::open(&on("eth9")).unwrap_err();
        assert!(error.to_string().contains("interface"), "{error}");
        let mut tap = Tap::open(&on("eth0")).unwrap();
        run("ip", &["link", "del", "eth0"], "");
        let gone = tokio::time::timeout(Duration::from_secs(10), async {
            loop {
                if let Err(error) = tap.wait(|_| {}).await {
                    return error;
                }
            }
        });
        assert_eq!(gone.await.unwrap().reason(), "tap");
    });
}
