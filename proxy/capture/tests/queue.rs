//! The packet queue behind real rules, v4 and v6: verdicts, marks, and what becomes of packets that
//! nobody decided about.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside of a test function")]

mod net;

use std::{net::UdpSocket, time::Duration};

use caps::Capability;
use net::{PEER, POD, Peer, at, in_pod, keep_only, run};
use outrider_capture::{Held, Queue, QueueCounters, QueueSettings, QueueVerdict};
use tokio::{sync::mpsc::Receiver, time::Instant};

const QUIC: u16 = 443;
/// Longest wait for anything.
const DEADLINE: Duration = Duration::from_secs(20);

/// Queues what the pod sends to the port, by both families.
fn fill(bypass: bool) {
    let bypass = if bypass { " --queue-bypass" } else { "" };
    let rules = format!(
        "*mangle\n-A OUTPUT -p udp --dport {QUIC} -j NFQUEUE --queue-num 5{bypass}\nCOMMIT\n"
    );
    run("iptables-restore", &[], &rules);
    run("ip6tables-restore", &[], &rules);
}

/// With more patience than a busy machine uses up between a packet and its verdict.
fn settings() -> QueueSettings {
    let patience = Duration::from_secs(10);
    QueueSettings { number: 5, patience, ..QueueSettings::default() }
}

/// One end in the pod and one at the peer, of one family.
fn pair(peer: &Peer, family: usize) -> (UdpSocket, UdpSocket) {
    let far = peer.udp(&at(PEER[family], QUIC).to_string());
    far.set_read_timeout(Some(DEADLINE)).unwrap();
    let near = UdpSocket::bind(at(POD[family], 0)).unwrap();
    near.connect(at(PEER[family], QUIC)).unwrap();
    (near, far)
}

/// Sends; a dropped packet is an error of some kernels' senders.
fn send(from: &UdpSocket, text: &str) {
    drop(from.send(text.as_bytes()));
}

/// The next text that arrives.
fn next(at: &UdpSocket) -> String {
    let mut buffer = [0; 2048];
    let length = at.recv(&mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

fn nothing(at: &UdpSocket) {
    at.set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    at.recv(&mut [0; 16]).unwrap_err();
    at.set_read_timeout(Some(DEADLINE)).unwrap();
}

async fn held(from: &mut Receiver<Held>) -> Held {
    let next = tokio::time::timeout(DEADLINE, from.recv());
    next.await.expect("a packet is queued").unwrap()
}

/// Waits until the counters are as wanted.
fn until(queue: &Queue, done: impl Fn(&QueueCounters) -> bool) -> QueueCounters {
    let begun = Instant::now();
    loop {
        let counters = queue.counters();
        if done(&counters) {
            return counters;
        }
        assert!(begun.elapsed() < DEADLINE, "{counters:?}");
        std::thread::yield_now();
    }
}

#[test]
fn without_a_reader_the_rule_decides() {
    in_pod(|peer| async move {
        for (bypass, passes) in [(false, false), (true, true)] {
            fill(bypass);
            for family in [0, 1] {
                let (near, far) = pair(&peer, family);
                send(&near, "nobody reads");
                if passes {
                    assert_eq!(next(&far), "nobody reads");
                } else {
                    nothing(&far);
                }
            }
            run("iptables", &["-t", "mangle", "-F"], "");
            run("ip6tables", &["-t", "mangle", "-F"], "");
        }
    });
}

#[test]
fn a_verdict_passes_or_drops_the_packet() {
    in_pod(|peer| async move {
        fill(false);
        let (queue, mut packets) = Queue::open(&settings()).unwrap();
        for family in [0, 1] {
            let (near, far) = pair(&peer, family);
            send(&near, "to be dropped");
            let packet = held(&mut packets).await;
            assert!(packet.packet().bytes.ends_with(b"to be dropped"));
            assert_eq!(packet.packet().length, packet.packet().bytes.len());
            assert_eq!(packet.packet().bytes[0] >> 4, [4, 6][family]);
            assert_eq!(packet.packet().hook, 3);
            assert_ne!(packet.packet().outward, 0);
            assert_eq!(packet.packet().uid, Some(0));
            packet.decide(QueueVerdict::Drop, None);
            send(&near, "to be passed");
            held(&mut packets).await.decide(QueueVerdict::Accept, None);
            assert_eq!(next(&far), "to be passed");
        }
        let counters = queue.counters();
        assert_eq!((counters.received, counters.decided), (4, 4), "{counters:?}");
        assert_eq!((counters.lost, counters.refused, counters.malformed), (0, 0, 0));
        assert_eq!(counters.kernel.unwrap().waiting, 0);
    });
}

#[test]
fn a_mark_kept_for_the_flow_spares_the_queue_the_rest() {
    in_pod(|peer| async move {
        let rules = format!(
            "*mangle\n\
             -A OUTPUT -m mark --mark 0x10 -j CONNMARK --save-mark\n\
             -A OUTPUT -m connmark --mark 0x10 -j ACCEPT\n\
             -A OUTPUT -p udp --dport {QUIC} -j NFQUEUE --queue-num 5\n\
             COMMIT\n"
        );
        run("iptables-restore", &[], &rules);
        run("ip6tables-restore", &[], &rules);
        let (queue, mut packets) = Queue::open(&settings()).unwrap();
        for family in [0, 1] {
            let (near, far) = pair(&peer, family);
            send(&near, "first");
            held(&mut packets)
                .await
                .decide(QueueVerdict::Repeat, Some(0x10));
            assert_eq!(next(&far), "first");
            for text in ["second", "third"] {
                send(&near, text);
                assert_eq!(next(&far), text);
            }
        }
        assert_eq!(queue.counters().received, 2, "one packet of each flow");
    });
}

#[test]
fn a_stalled_reader_is_counted_and_the_mode_decides() {
    in_pod(|peer| async move {
        fill(false);
        let patience = Duration::from_millis(100);
        let (queue, mut packets) = Queue::open(&QueueSettings { patience, ..settings() }).unwrap();
        let (near, far) = pair(&peer, 0);
        send(&near, "closed");
        let late = held(&mut packets).await;
        until(&queue, |counters| counters.stalled == 1);
        nothing(&far);
        late.decide(QueueVerdict::Accept, None);
        assert_eq!(queue.counters().late, 1);
        queue.set_open(true).unwrap();
        send(&near, "open");
        let late = held(&mut packets).await;
        assert_eq!(next(&far), "open");
        drop(late);
        let counters = until(&queue, |counters| counters.stalled == 2);
        assert_eq!((counters.decided, counters.undecided), (0, 0), "{counters:?}");
    });
}

#[test]
fn an_overflow_is_counted_and_the_mode_decides() {
    in_pod(|peer| async move {
        fill(false);
        let small = QueueSettings { waiting: 2, open: true, ..settings() };
        let (queue, mut packets) = Queue::open(&small).unwrap();
        let (near, far) = pair(&peer, 1);
        for number in 0..5 {
            send(&near, &number.to_string());
        }
        for number in 2..5 {
            assert_eq!(next(&far), number.to_string(), "found no room");
        }
        until(&queue, |counters| counters.overflow == 3);
        held(&mut packets).await.decide(QueueVerdict::Accept, None);
        assert_eq!(next(&far), "0");
        drop(held(&mut packets).await);
        assert_eq!(next(&far), "1", "let go without a verdict, open");
        let counters = queue.counters();
        let ends = [counters.decided, counters.undecided, counters.overflow, counters.stalled];
        assert_eq!(ends, [1, 1, 3, 0]);
        assert_eq!(counters.received, ends.iter().sum::<u64>());
    });
}

#[test]
fn a_full_kernel_queue_is_counted_by_the_kernel() {
    in_pod(|peer| async move {
        fill(false);
        let small = QueueSettings { length: 2, ..settings() };
        let (queue, mut packets) = Queue::open(&small).unwrap();
        let (near, far) = pair(&peer, 0);
        for number in 0..5 {
            send(&near, &number.to_string());
        }
        assert_eq!(queue.counters().kernel.unwrap().full, 3);
        for number in ["0", "1"] {
            held(&mut packets).await.decide(QueueVerdict::Accept, None);
            assert_eq!(next(&far), number);
        }
        nothing(&far);
    });
}

#[test]
fn a_full_kernel_queue_lets_pass_when_open() {
    in_pod(|peer| async move {
        fill(false);
        let small = QueueSettings { length: 2, open: true, ..settings() };
        let (_queue, mut packets) = Queue::open(&small).unwrap();
        let (near, far) = pair(&peer, 1);
        for number in 0..4 {
            send(&near, &number.to_string());
        }
        assert_eq!([next(&far), next(&far)], ["2", "3"]);
        held(&mut packets).await.decide(QueueVerdict::Accept, None);
        assert_eq!(next(&far), "0");
    });
}

#[test]
fn a_reader_that_ends_settles_what_waits() {
    in_pod(|peer| async move {
        fill(false);
        let open = QueueSettings { open: true, ..settings() };
        let (queue, mut packets) = Queue::open(&open).unwrap();
        let (near, far) = pair(&peer, 0);
        send(&near, "waits");
        let packet = held(&mut packets).await;
        drop(queue);
        assert_eq!(next(&far), "waits");
        send(&near, "after");
        nothing(&far);
        let (_queue, _packets) = Queue::open(&open).expect("it is free, though a packet is held");
        drop(packet);
    });
}

#[test]
fn a_second_reader_is_refused() {
    in_pod(|_peer| async move {
        let (_queue, _packets) = Queue::open(&settings()).unwrap();
        let error = Queue::open(&settings()).unwrap_err();
        assert!(matches!(error.reason(), "queue" | "capability"), "{error}");
    });
}

#[test]
fn takes_net_admin_and_names_it() {
    in_pod(|_peer| async move {
        keep_only(&[Capability::CAP_NET_RAW]);
        let error = Queue::open(&settings()).unwrap_err();
        assert_eq!(error.reason(), "capability");
        assert!(error.to_string().contains("NET_ADMIN"), "{error}");
        keep_only(&[Capability::CAP_NET_ADMIN]);
        drop(Queue::open(&settings()).unwrap());
    });
}
