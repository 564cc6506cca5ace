//! What people ask for, in the kernel: the frames that a filter lets through are those that tcpdump
//! picks from a file of all of them.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside of a test function")]

mod net;

use std::{
    io::Write as _,
    net::{TcpListener, TcpStream, UdpSocket},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use net::{MACS, PEER, POD, Peer, at, in_pod, run};
use outrider_capture::{Filter, Frame, Tap, TapSettings};
use outrider_model::PacketFilter;
use tokio::time::{sleep, timeout};

/// A connection's last segments come within this time after it was closed.
const SILENCE: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(20);

const FILTERS: [&str; 38] = [
    "ip",
    "ip6",
    "arp",
    "tcp",
    "udp",
    "icmp",
    "icmp6",
    "sctp",
    "proto 89",
    "proto 44",
    "host 10.9.0.1",
    "host 10.9.0.2 and udp",
    "host fd09::2",
    "src host 10.9.0.1",
    "dst host 10.9.0.1",
    "src host fd09::2",
    "dst fd09::2",
    "net 10.9.0.0/30",
    "net 10.0.0.0/8 and not icmp",
    "net fd00::/8",
    "net fd09::/64 and tcp",
    "src net fd09::2/127",
    "net fd0a::/16",
    "port 5000",
    "tcp port 5001",
    "udp port 5000 or 5001",
    "src port 5000",
    "dst port 5000",
    "portrange 5000-5001",
    "udp dst portrange 4999-5000",
    "ip and port 5000",
    "ip6 and port 5000",
    "sctp port 5000",
    "port 5000 and not host 10.9.0.1",
    "not (port 5000 or port 5001)",
    "ip6 or arp and host 10.9.0.2",
    "!arp && !icmp6 && (ip || port 5000)",
    "src 10.9.0.1 and dst port 5000 or src fd09::2 and src port 5001",
];

/// With a block for every frame: nobody reads meanwhile, and on a busy machine each may come in a block of its own.
fn tap(packets: PacketFilter) -> Tap {
    let filter = Filter::Matching { packets, loopback: false };
    let settings = TapSettings { filter, block_bytes: 8192, blocks: 128, ..TapSettings::default() };
    Tap::open(&settings).unwrap()
}

/// All frames that were seen, but those of the kernel's own making, which come whenever they like.
async fn drain(tap: &mut Tap) -> Vec<Vec<u8>> {
    let mut frames: Vec<Vec<u8>> = Vec::new();
    let mut keep = |frame: Frame<'_>| frames.push(frame.bytes.to_vec());
    loop {
        let counters = tap.counters().unwrap();
        if counters.seen == counters.shown {
            assert_eq!(counters.lost, 0);
            break;
        }
        timeout(DEADLINE, tap.wait(&mut keep))
            .await
            .unwrap()
            .unwrap();
    }
    frames.retain(|frame| !frame.starts_with(&[0x33, 0x33]));
    frames
}

/// Everything that a filter may ask for, both ways.
fn traffic(peer: &Peer) {
    for family in [0, 1] {
        let far = peer.udp(&at(PEER[family], 5000).to_string());
        let near = UdpSocket::bind(at(POD[family], 5001)).unwrap();
        for length in [8, 4000] {
            near.send_to(&vec![1; length], at(PEER[family], 5000))
                .unwrap();
            far.send_to(&vec![2; length], at(POD[family], 5001))
                .unwrap();
        }
        let listener = TcpListener::bind(at(POD[family], 5001)).unwrap();
        let client = peer.enter(|| TcpStream::connect(at(POD[family], 5001)).unwrap());
        drop((client, listener));
        run("ping", &["-q", "-c", "1", "-W", "5", PEER[family]], "");
    }
}

/// An Ethernet frame from the pod to the peer, with this type and rest.
fn frame(kind: u16, rest: &[u8]) -> Vec<u8> {
    let macs = [MACS[1], MACS[0]].map(|mac| {
        let bytes = mac.split(':').map(|byte| u8::from_str_radix(byte, 16));
        bytes.collect::<Result<Vec<_>, _>>().unwrap()
    });
    [&macs.concat()[..], &kind.to_be_bytes(), rest].concat()
}

/// An IPv4 packet of a protocol, from the pod to the peer, that begins with ports 5000 and 7.
fn packet(proto: u8) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 40, 0, 1, 0, 0, 64, proto, 0, 0];
    packet.extend([10, 9, 0, 1, 10, 9, 0, 2]);
    packet.extend([0x13, 0x88, 0, 7]);
    packet.resize(40, 0);
    packet
}

fn pcap(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        file.extend(word.to_le_bytes());
    }
    for frame in frames {
        let length = u32::try_from(frame.len()).unwrap();
        for word in [0, 0, length, length] {
            file.extend(word.to_le_bytes());
        }
        file.extend(frame);
    }
    file
}

/// What tcpdump picks, frame for frame.
fn picked(all: &Path, filter: &str) -> Vec<u8> {
    let output = Command::new("tcpdump")
        .args(["--nano", "-r", all.to_str().unwrap(), "-w", "-", filter])
        .stderr(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "tcpdump {filter:?}");
    output.stdout
}

fn records(mut file: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    file = file.get(24..).unwrap_or_default();
    while let Some(length) = file.get(8..12) {
        let length = u32::from_le_bytes(length.try_into().unwrap()) as usize;
        frames.push(file[16..16 + length].to_vec());
        file = &file[16 + length..];
    }
    frames
}

#[test]
fn lets_through_what_tcpdump_picks() {
    in_pod(|peer| async move {
        let mut taps = FILTERS.map(|text| tap(text.parse().unwrap()));
        let mut all = tap(PacketFilter::everything());
        traffic(&peer);
        let on_eth0 = TapSettings { interface: Some("eth0".into()), ..TapSettings::default() };
        let sender = Tap::open(&on_eth0).unwrap();
        let arp = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &[2; 6], &[10, 9, 0, 1], &[0; 6], &[10, 9, 0, 2]];
        sender.send(&frame(0x0806, &arp.concat())).unwrap();
        sender.send(&frame(0x0800, &packet(132))).unwrap();
        sender.send(&frame(0x0800, &packet(89))).unwrap();
        sleep(SILENCE).await;
        // All at one time: seconds later the kernel asks by itself whether the other end is still there.
        let frames = drain(&mut all).await;
        let mut shown = Vec::new();
        for tap in &mut taps {
            shown.push(drain(tap).await);
        }
        let mut file = tempfile();
        file.1.write_all(&pcap(&frames)).unwrap();
        let mut none = Vec::new();
        for (text, shown) in FILTERS.iter().zip(shown) {
            let want = records(&picked(&file.0, text));
            assert!(shown == want, "{text}: {} frames, {} picked", shown.len(), want.len());
            none.extend(want.is_empty().then_some(*text));
        }
        std::fs::remove_file(&file.0).unwrap();
        assert_eq!(none, ["net fd0a::/16"], "every other filter has something to find");
    });
}

fn tempfile() -> (std::path::PathBuf, std::fs::File) {
    let path = std::env::temp_dir().join(format!("outrider-filter-{}.pcap", std::process::id()));
    let file = std::fs::File::create(&path).unwrap();
    (path, file)
}
