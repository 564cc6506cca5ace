//! Two interfaces joined: what comes over, what does not, and what is left behind.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside of a test function")]

mod net;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    process::Command,
    sync::Arc,
    thread,
    time::Duration,
};

use caps::Capability;
use net::{MACS, PEER, POD, Peer, at, in_middle, keep_only, run};
use outrider_capture::{Frame, Pair, PairCounters, PairPath, PairVerdict, Tap, TapSettings};
use outrider_model::Direction;
use tokio::sync::oneshot;

/// Forwards until `work`, on a thread of its own, has ended.
async fn pump<T: Send + 'static>(
    pair: &mut Pair,
    mut decide: impl FnMut(&Frame<'_>) -> PairVerdict,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (done, mut over) = oneshot::channel();
    thread::spawn(move || done.send(work()).map_err(drop).unwrap());
    loop {
        tokio::select! {
            biased;
            result = &mut over => return result.unwrap(),
            waited = pair.wait() => {
                waited.unwrap();
                pair.drain(&mut decide);
            }
        }
    }
}

fn forward(_: &Frame<'_>) -> PairVerdict {
    PairVerdict::Forward
}

fn shared([network, pod]: [Peer; 2]) -> (Arc<Peer>, Arc<Peer>) {
    (Arc::new(network), Arc::new(pod))
}

/// Pings the pod from the network; says whether it answered.
fn pings(network: &Peer, to: &str) -> bool {
    network.enter(|| {
        let ping = Command::new("ping")
            .args(["-q", "-c", "2", "-i", "0.2", "-W", "1", to])
            .output();
        ping.unwrap().status.success()
    })
}

/// Sends `length` bytes over TCP from one to the other, reads them back, and compares.
fn echoes(from: &Peer, to: &Peer, family: usize, inward: bool, length: usize) {
    let address = at(if inward { POD[family] } else { PEER[family] }, 7000);
    let listener = to.enter(|| TcpListener::bind(address).unwrap());
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut got = vec![0; length];
        stream.read_exact(&mut got).unwrap();
        stream.write_all(&got).unwrap();
    });
    let mut stream = from.enter(|| TcpStream::connect(address).unwrap());
    let mut number = 1_u32;
    let bytes: Vec<u8> = (0..length)
        .map(|_| {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            number.to_be_bytes()[0]
        })
        .collect();
    stream.write_all(&bytes).unwrap();
    let mut got = vec![0; length];
    stream.read_exact(&mut got).unwrap();
    assert!(got == bytes, "what came back is what was sent");
    server.join().unwrap();
}

/// Counters, and that they add up once the rings are empty.
fn settled(pair: &mut Pair) -> PairCounters {
    while pair.drain(forward) > 0 {}
    let counters = pair.counters().unwrap();
    let PairCounters { lost, forwarded, dropped, closed, copies, cut, too_long, unsent, .. } =
        counters;
    let all = lost + forwarded + dropped + closed + copies + cut + too_long + unsent;
    assert_eq!(counters.seen, all, "{counters:?}");
    counters
}

/// What traffic control has on both interfaces, and how many make them promiscuous.
fn left_behind() -> String {
    let tell = |args: &[&str], tool: &str| {
        String::from_utf8(Command::new(tool).args(args).output().unwrap().stdout).unwrap()
    };
    ["in", "out"]
        .map(|name| {
            let qdisc = tell(&["qdisc", "show", "dev", name], "tc");
            let link = tell(&["-d", "link", "show", name], "ip");
            let promiscuity = link.split("promiscuity ").nth(1).unwrap();
            format!("{name} {} {qdisc}", promiscuity.split(' ').next().unwrap())
        })
        .concat()
}

#[test]
fn bytes_come_over_whole_on_both_paths_and_both_families() {
    in_middle(|peers| async move {
        let (network, pod) = shared(peers);
        for path in [PairPath::Ring, PairPath::Kernel] {
            let mut pair = Pair::open("out", "in").unwrap();
            pair.set_path(path).unwrap();
            let (mut longest, mut inbound, mut outbound) = (0, 0, 0);
            let look = |frame: &Frame<'_>| {
                longest = longest.max(frame.bytes.len());
                match frame.direction {
                    Direction::Inbound => inbound += 1,
                    Direction::Outbound => outbound += 1,
                }
                PairVerdict::Forward
            };
            let (network, pod) = (Arc::clone(&network), Arc::clone(&pod));
            let work = move || {
                for family in [0, 1] {
                    assert!(pings(&network, POD[family]), "ARP, ND and ICMP pass");
                    echoes(&network, &pod, family, true, 8 << 20);
                    echoes(&pod, &network, family, false, 8 << 20);
                }
            };
            pump(&mut pair, look, work).await;
            assert!(longest > 20_000, "frames are not cut into segments: {longest}");
            assert!(inbound > 100 && outbound > 100, "{inbound} in, {outbound} out");
            let counters = settled(&mut pair);
            assert_eq!(counters.too_long + counters.unsent + counters.dropped, 0, "{counters:?}");
            match path {
                PairPath::Ring => assert_eq!(counters.copies, 0, "{counters:?}"),
                _ => assert_eq!(counters.forwarded, 0, "{counters:?}"),
            }
        }
    });
}

#[test]
fn a_verdict_stops_frames_on_the_ring() {
    in_middle(|peers| async move {
        let (network, pod) = shared(peers);
        let mut pair = Pair::open("out", "in").unwrap();
        pair.set_path(PairPath::Ring).unwrap();
        let denied = |frame: &Frame<'_>| {
            if frame.bytes.ends_with(b"denied") { PairVerdict::Drop } else { PairVerdict::Forward }
        };
        for family in [0, 1] {
            let (network, pod) = (Arc::clone(&network), Arc::clone(&pod));
            let got = pump(&mut pair, denied, move || {
                let near = pod.udp(&at(POD[family], 5000).to_string());
                let far = network.udp(&at(PEER[family], 6000).to_string());
                for text in ["denied", "allowed"] {
                    far.send_to(text.as_bytes(), at(POD[family], 5000)).unwrap();
                }
                near.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                let mut got = [0; 16];
                let length = near.recv(&mut got).unwrap();
                got[..length].to_vec()
            });
            assert_eq!(got.await, b"allowed");
        }
        assert_eq!(settled(&mut pair).dropped, 2);
    });
}

#[test]
fn a_closed_pair_forwards_nothing_whatever_it_did_before() {
    in_middle(|peers| async move {
        let (network, _pod) = shared(peers);
        let mut pair = Pair::open("out", "in").unwrap();
        for path in [PairPath::Closed, PairPath::Ring, PairPath::Kernel] {
            pair.set_path(path).unwrap();
            let there = Arc::clone(&network);
            if path != PairPath::Closed {
                // Who asked in vain for the pod's address asks again within a second.
                let answers = move || (0..10).any(|_| pings(&there, POD[0]));
                assert!(pump(&mut pair, forward, answers).await, "{path:?}");
            }
            pair.set_path(PairPath::Closed).unwrap();
            let there = Arc::clone(&network);
            assert!(!pump(&mut pair, forward, move || pings(&there, POD[0])).await, "{path:?}");
        }
        assert!(settled(&mut pair).closed > 0);
    });
}

#[test]
fn a_live_connection_survives_every_change_of_the_path() {
    in_middle(|peers| async move {
        let (network, pod) = shared(peers);
        let mut pair = Pair::open("out", "in").unwrap();
        pair.set_path(PairPath::Kernel).unwrap();
        let (done, mut over) = oneshot::channel();
        thread::spawn(move || {
            echoes(&network, &pod, 0, true, 64 << 20);
            done.send(()).unwrap();
        });
        let mut change = tokio::time::interval(Duration::from_millis(20));
        let mut changes = 0;
        loop {
            tokio::select! {
                biased;
                ended = &mut over => break ended.unwrap(),
                _ = change.tick() => {
                    changes += 1;
                    let next = if changes % 2 == 0 { PairPath::Kernel } else { PairPath::Ring };
                    pair.set_path(next).unwrap();
                }
                waited = pair.wait() => {
                    waited.unwrap();
                    pair.drain(forward);
                }
            }
        }
        assert!(changes > 2, "{changes}");
        settled(&mut pair);
    });
}

#[test]
fn nothing_is_left_behind() {
    in_middle(|_peers| async move {
        let before = left_behind();
        let mut pair = Pair::open("out", "in").unwrap();
        pair.set_path(PairPath::Kernel).unwrap();
        assert!(left_behind().contains("ingress"), "{}", left_behind());
        assert!(left_behind().contains("out 1"), "{}", left_behind());
        drop(pair);
        assert_eq!(left_behind(), before);
        // What a process that died has left is found and removed by the next.
        let mut dead = Pair::open("out", "in").unwrap();
        dead.set_path(PairPath::Kernel).unwrap();
        std::mem::forget(dead);
        let next = Pair::open("out", "in").unwrap();
        assert!(!left_behind().contains("ingress"), "{}", left_behind());
        drop(next);
        // What somebody else has there stays.
        run("tc", &["qdisc", "add", "dev", "in", "ingress"], "");
        let mut pair = Pair::open("out", "in").unwrap();
        pair.set_path(PairPath::Kernel).unwrap();
        drop(pair);
        assert!(left_behind().contains("ingress"), "{}", left_behind());
    });
}

/// A frame from the network to the pod, with these tags.
fn tagged(tags: &[[u8; 4]]) -> Vec<u8> {
    let mac = |text: &str| -> Vec<u8> {
        text.split(':')
            .map(|byte| u8::from_str_radix(byte, 16).unwrap())
            .collect()
    };
    let mut frame = [mac(MACS[0]), mac(MACS[1])].concat();
    frame.extend(tags.concat());
    frame.extend([0x08, 0x00]);
    frame.extend([0x45; 60]);
    frame
}

#[test]
fn tags_come_over_whole() {
    in_middle(|peers| async move {
        let (network, pod) = shared(peers);
        let on =
            |name: &str| TapSettings { interface: Some(name.into()), ..TapSettings::default() };
        let runtime = tokio::runtime::Handle::current();
        let open = |peer: &Peer, name| {
            peer.enter(|| {
                let _inside = runtime.enter();
                Tap::open(&on(name)).unwrap()
            })
        };
        let (sender, mut receiver) = (open(&network, "eth1"), open(&pod, "eth0"));
        for path in [PairPath::Ring, PairPath::Kernel] {
            let mut pair = Pair::open("out", "in").unwrap();
            pair.set_path(path).unwrap();
            let customer = [0x81, 0x00, 0x60, 0x2a];
            let service = [0x88, 0xa8, 0x00, 0x07];
            for tags in [&[customer][..], &[service, customer], &[]] {
                let sent = tagged(tags);
                sender.send(&sent).unwrap();
                let mut found = false;
                let mut shown = false;
                while !found {
                    let seen = |frame: Frame<'_>| found |= frame.bytes == sent;
                    tokio::select! {
                        biased;
                        waited = pair.wait() => {
                            waited.unwrap();
                            pair.drain(|frame| {
                                shown |= frame.bytes == sent;
                                PairVerdict::Forward
                            });
                        }
                        waited = receiver.wait(seen) => drop(waited.unwrap()),
                    }
                }
                assert!(shown, "{path:?} {tags:?}");
            }
        }
    });
}

#[test]
fn a_flood_is_counted_to_the_last_frame() {
    const SENT: u64 = 30_000;
    in_middle(|peers| async move {
        let (network, _pod) = shared(peers);
        let mut pair = Pair::open("out", "in").unwrap();
        pair.set_path(PairPath::Ring).unwrap();
        let there = Arc::clone(&network);
        pump(&mut pair, forward, move || assert!(pings(&there, POD[0]))).await;
        let far: UdpSocket = network.udp(&at(PEER[0], 6000).to_string());
        // Nobody takes frames out meanwhile.
        for number in 0..SENT {
            while far.send_to(&number.to_be_bytes(), at(POD[0], 9)).is_err() {}
        }
        let counters = settled(&mut pair);
        assert!(counters.seen >= SENT && counters.lost > SENT / 2, "{counters:?}");
    });
}

#[test]
fn names_what_is_missing() {
    in_middle(|_peers| async move {
        for (outer, inner) in [("out", "none"), ("none", "in")] {
            let error = Pair::open(outer, inner).unwrap_err();
            assert_eq!(error.reason(), "pair", "{error}");
        }
        assert_eq!(Pair::open("in", "in").unwrap_err().reason(), "setting");
        let mut pair = Pair::open("out", "in").unwrap();
        run("ip", &["link", "del", "in"], "");
        let gone = tokio::time::timeout(Duration::from_secs(10), async {
            loop {
                if let Err(error) = pair.wait().await {
                    return error;
                }
                pair.drain(forward);
            }
        });
        assert_eq!(gone.await.unwrap().reason(), "pair");
        keep_only(&[Capability::CAP_NET_RAW]);
        let error = Pair::open("out", "lo").unwrap_err();
        assert_eq!(error.reason(), "capability", "{error}");
        keep_only(&[]);
        let error = Pair::open("out", "lo").unwrap_err();
        assert_eq!(error.reason(), "capability", "{error}");
    });
}
