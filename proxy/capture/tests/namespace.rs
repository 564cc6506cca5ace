//! Another namespace, entered: what is opened there works from here.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside of a test function")]

mod net;

use std::{fs::File, net::UdpSocket, os::fd::AsRawFd, time::Duration};

use caps::Capability;
use net::{PEER, POD, Peer, at, in_pod, keep_only, run};
use outrider_capture::{Namespace, Queue, QueueSettings, QueueVerdict, Tap, TapSettings};

/// A path of the peer's namespace, by a process that is there until it is killed.
struct Guest(std::process::Child);

impl Guest {
    fn of(peer: &Peer) -> Self {
        Self(peer.enter(|| {
            std::process::Command::new("sleep")
                .arg("600")
                .spawn()
                .unwrap()
        }))
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn a_tap_that_was_opened_inside_shows_what_passes_there() {
    in_pod(|peer| async move {
        let guest = Guest::of(&peer);
        let there = Namespace::open(&guest.path()).unwrap();
        assert!(!there.is_own());
        let settings = TapSettings { interface: Some("eth1".into()), ..TapSettings::default() };
        assert!(Tap::open(&settings).is_err(), "no such interface here");
        let mut tap = there.enter(|| Tap::open(&settings)).unwrap().unwrap();
        let near = UdpSocket::bind(at(POD[0], 6000)).unwrap();
        near.send_to(b"from the pod", at(PEER[0], 9)).unwrap();
        let mut found = false;
        while !found {
            let look = |frame: outrider_capture::Frame<'_>| {
                found |= frame.bytes.ends_with(b"from the pod");
            };
            let waited = tokio::time::timeout(Duration::from_secs(5), tap.wait(look)).await;
            waited.unwrap().unwrap();
        }
    });
}

#[test]
fn a_queue_that_was_opened_inside_decides_there() {
    in_pod(|peer| async move {
        let guest = Guest::of(&peer);
        let there = Namespace::open(&guest.path()).unwrap();
        let rules = "*filter\n-A INPUT -p udp --dport 7000 -j NFQUEUE --queue-num 5\nCOMMIT\n";
        peer.enter(|| run("iptables-restore", &["--noflush"], rules));
        let settings = QueueSettings { number: 5, ..QueueSettings::default() };
        let opened = there.enter(|| Queue::open(&settings)).unwrap();
        let (queue, mut packets) = opened.unwrap();
        let far = peer.udp(&at(PEER[0], 7000).to_string());
        far.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let near = UdpSocket::bind(at(POD[0], 6000)).unwrap();
        for (text, verdict) in [("denied", QueueVerdict::Drop), ("allowed", QueueVerdict::Accept)] {
            near.send_to(text.as_bytes(), at(PEER[0], 7000)).unwrap();
            let held = packets.recv().await.unwrap();
            assert!(held.packet().bytes.ends_with(text.as_bytes()));
            held.decide(verdict, None);
        }
        let mut got = [0; 16];
        let length = far.recv(&mut got).unwrap();
        assert_eq!(&got[..length], b"allowed");
        let kernel = queue
            .counters()
            .kernel
            .expect("the table of the other namespace");
        assert_eq!(kernel.waiting, 0);
    });
}

#[test]
fn names_what_is_missing() {
    in_pod(|peer| async move {
        let guest = Guest::of(&peer);
        let there = Namespace::open(&guest.path()).unwrap();
        keep_only(&[Capability::CAP_NET_RAW]);
        let error = there.enter(|| ()).unwrap_err();
        assert_eq!(error.reason(), "capability", "{error}");
        assert!(error.to_string().contains("SYS_ADMIN"), "{error}");
    });
}

#[test]
fn a_file_of_another_kind_is_none() {
    in_pod(|_peer| async move {
        let name = format!("/run/netns/outrider-test-{}", std::process::id());
        std::fs::create_dir_all("/run/netns").unwrap();
        let file = File::create(&name).unwrap();
        let error = Namespace::open(&name).unwrap_err();
        assert_eq!(error.reason(), "namespace", "{error}");
        std::fs::remove_file(&name).unwrap();
        let link = format!("/proc/self/fd/{}", file.as_raw_fd());
        std::os::unix::fs::symlink(link, &name).unwrap();
        assert_eq!(Namespace::open(&name).unwrap_err().reason(), "namespace");
        std::fs::remove_file(&name).unwrap();
    });
}
