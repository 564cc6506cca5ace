//! The watch on real connections: it sees its own at once, and no others.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside of a test function")]

mod net;

use std::{
    io::Write,
    net::{TcpListener, TcpStream},
    time::Duration,
};

use caps::Capability;
use net::{PEER, at, in_pod, keep_only};
use outrider_capture::{MAX_WATCHED, WATCHED_BYTES, Watch};

/// A connection of the pod, and its two ports.
struct Talk {
    near: TcpStream,
    far: TcpStream,
    ports: (u16, u16),
}

fn talk(server: &TcpListener) -> Talk {
    let near = TcpStream::connect(server.local_addr().unwrap()).unwrap();
    let (far, _) = server.accept().unwrap();
    let ports = (near.local_addr().unwrap().port(), near.peer_addr().unwrap().port());
    Talk { near, far, ports }
}

/// The ports of every packet that comes until there are as many as wanted.
async fn collect(watch: &Watch, want: usize) -> Vec<(u16, u16)> {
    let mut found = Vec::new();
    let mut buffer = [0; WATCHED_BYTES];
    let all = async {
        while found.len() < want {
            watch.ready().await.unwrap();
            while let Some(packet) = watch.next(&mut buffer) {
                let tcp = if packet[0] >> 4 == 4 { 20 } else { 40 };
                let port = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
                found.push((port(tcp), port(tcp + 2)));
            }
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(10), all).await;
    waited.expect("packets come");
    found
}

#[test]
fn sees_its_connections_in_both_directions_and_no_others() {
    in_pod(|peer| async move {
        keep_only(&[Capability::CAP_NET_RAW, Capability::CAP_SYS_ADMIN]);
        for ip in PEER {
            let watch = Watch::open().unwrap();
            let server = peer.enter(|| TcpListener::bind(at(ip, 7000)).unwrap());
            let (mut own, mut other) = (talk(&server), talk(&server));
            let mut buffer = [0; WATCHED_BYTES];
            assert_eq!(watch.next(&mut buffer), None, "nothing before it is told what");
            watch.set(&[own.ports]).unwrap();
            other.near.write_all(b"left out").unwrap();
            own.near.write_all(b"out").unwrap();
            own.far.write_all(b"in").unwrap();
            let (out, back) = (own.ports, (own.ports.1, own.ports.0));
            let found = collect(&watch, 2).await;
            assert!(found.contains(&out) && found.contains(&back), "{found:?}");
            assert!(found.iter().all(|ports| [out, back].contains(ports)), "{found:?}");
            watch.set(&[]).unwrap();
            own.near.write_all(b"no more").unwrap();
            // What came before the filter did may still be there.
            while watch.next(&mut buffer).is_some() {}
            own.near.write_all(b"no more").unwrap();
            assert_eq!(watch.next(&mut buffer), None);
        }
    });
}

#[test]
fn watches_the_most_connections_and_refuses_one_more() {
    in_pod(|peer| async move {
        let watch = Watch::open().unwrap();
        let server = peer.enter(|| TcpListener::bind(at(PEER[0], 7000)).unwrap());
        let mut last = talk(&server);
        let mut ports: Vec<_> = (0..MAX_WATCHED).map(|_| (1, 2)).collect();
        ports[MAX_WATCHED - 1] = last.ports;
        watch.set(&ports).unwrap();
        last.near.write_all(b"seen").unwrap();
        assert_eq!(collect(&watch, 1).await[0], last.ports);
        ports.push((3, 4));
        assert_eq!(watch.set(&ports).unwrap_err().reason(), "setting");
    });
}

#[test]
fn names_the_capability_it_lacks() {
    in_pod(|_peer| async move {
        keep_only(&[]);
        let error = Watch::open().unwrap_err();
        assert_eq!(error.reason(), "capability");
        assert!(error.to_string().contains("NET_RAW"), "{error}");
    });
}
