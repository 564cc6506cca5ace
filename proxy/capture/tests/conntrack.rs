//! Forgetting flows by their mark, with the kernel's own table, v4 and v6.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside of a test function")]

mod net;

use std::net::{TcpListener, TcpStream, UdpSocket};

use caps::Capability;
use net::{PEER, POD, at, in_pod, keep_only, run};
use outrider_capture::Conntrack;

const VERDICT: u32 = 0x0100_0000;

/// Marks flows by their port: the verdict with another bit, another bit alone; 7003 gets none. TCP to port 80 is
/// redirected to 8080.
fn mark_flows() {
    let rules = "*nat\n-A OUTPUT -p tcp --dport 80 -j REDIRECT --to-ports 8080\nCOMMIT\n\
                 *mangle\n\
                 -A OUTPUT -p udp --dport 7001 -j CONNMARK --or-mark 0x01000010\n\
                 -A OUTPUT -p udp --dport 7002 -j CONNMARK --or-mark 0x10\n\
                 COMMIT\n";
    run("iptables-restore", &[], rules);
    run("ip6tables-restore", &[], rules);
}

/// How many flows each port has.
fn flows() -> Vec<String> {
    let table = std::fs::read_to_string("/proc/thread-self/net/nf_conntrack").unwrap();
    let ports = ["dport=7001", "dport=7002", "dport=7003", "dport=80 "];
    ports
        .map(|port| {
            let lines = table.lines().filter(|line| line.contains(port));
            format!("{port}: {}", lines.count())
        })
        .to_vec()
}

#[test]
fn only_marked_flows_go_of_both_families() {
    in_pod(|peer| async move {
        mark_flows();
        let mut kept = Vec::new();
        for family in [0, 1] {
            for port in [7001, 7002, 7003] {
                let far = peer.udp(&at(PEER[family], port).to_string());
                let near = UdpSocket::bind(at(POD[family], 0)).unwrap();
                near.send_to(b"hello", at(PEER[family], port)).unwrap();
                far.recv(&mut [0; 16]).unwrap();
                kept.push((near, far));
            }
        }
        let listener = TcpListener::bind("[::]:8080").unwrap();
        let translated = TcpStream::connect(at(PEER[0], 80)).unwrap();
        let also = TcpStream::connect(at(PEER[1], 80)).unwrap();
        let all = ["dport=7001: 2", "dport=7002: 2", "dport=7003: 2", "dport=80 : 2"];
        assert_eq!(flows(), all);
        let conntrack = Conntrack::open().unwrap();
        conntrack.forget(0x0200_0000).unwrap();
        assert_eq!(flows(), all, "nobody has that mark");
        conntrack.forget(VERDICT).unwrap();
        let rest = ["dport=7001: 0", "dport=7002: 2", "dport=7003: 2", "dport=80 : 2"];
        assert_eq!(flows(), rest);
        let (near, far) = &kept[0];
        near.send_to(b"again", at(PEER[0], 7001)).unwrap();
        far.recv(&mut [0; 16]).unwrap();
        assert_eq!(flows()[0], "dport=7001: 1", "the next packet is the first of a new flow");
        conntrack.forget(VERDICT).unwrap();
        assert_eq!(flows(), rest);
        drop((listener, translated, also));
    });
}

#[test]
fn no_mark_is_refused() {
    in_pod(|_peer| async move {
        let error = Conntrack::open().unwrap().forget(0).unwrap_err();
        assert_eq!(error.reason(), "setting");
    });
}

#[test]
fn takes_net_admin_and_names_it() {
    in_pod(|_peer| async move {
        keep_only(&[Capability::CAP_NET_RAW]);
        let conntrack = Conntrack::open().unwrap();
        let error = conntrack.forget(VERDICT).unwrap_err();
        assert_eq!(error.reason(), "capability");
        assert!(error.to_string().contains("NET_ADMIN"), "{error}");
        keep_only(&[Capability::CAP_NET_ADMIN]);
        conntrack
            .forget(VERDICT)
            .expect_err("who opened it counts too");
        Conntrack::open().unwrap().forget(VERDICT).unwrap();
    });
}
