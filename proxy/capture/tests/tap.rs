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
