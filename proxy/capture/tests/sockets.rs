//! Sockets of a real namespace, seen without a capability.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside of a test function")]

mod net;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    time::Duration,
};

use net::{PEER, POD, at, in_pod, keep_only};
use outrider_capture::{
    InetSocket, RawKind, SocketEvents, SocketState, Sockets, Wanted, families, own_inodes,
    raw_sockets,
};
use outrider_model::IpProto;
use socket2::{Domain, Protocol, Socket, Type};

const UID: u32 = 4242;

fn all(sockets: &mut Sockets, proto: IpProto, bytes: bool) -> Vec<InetSocket> {
    let mut found = Vec::new();
    let wanted = Wanted { proto, states: &[], bytes };
    assert_eq!(sockets.look(wanted, |socket| found.push(socket)).unwrap(), 0);
    found
}

/// A process of another user that has dialled, and keeps the connection until it is told to end.
struct Stranger(Child);

impl Stranger {
    fn dial(ip: &str, port: u16) -> Self {
        let script = format!("exec 3<>/dev/tcp/{ip}/{port} && echo up && read");
        let mut child = Command::new("bash")
            .args(["-c", &script])
            .uid(UID)
            .gid(UID)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut up = [0; 3];
        child.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
        Self(child)
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

#[test]
fn shows_tcp_of_both_families_with_its_owner() {
    in_pod(|peer| async move {
        let make = |family: usize| {
            let server = peer.enter(|| TcpListener::bind(at(PEER[family], 7000)).unwrap());
            let stranger = Stranger::dial(PEER[family], 7000);
            let (mut accepted, _) = server.accept().unwrap();
            accepted.write_all(&[1; 100]).unwrap();
            (stranger, accepted)
        };
        let made = [make(0), make(1)];
        keep_only(&[]);
        let mut sockets = Sockets::open().unwrap();
        let found = all(&mut sockets, IpProto::TCP, true);
        assert_eq!(found.len(), 2, "{found:?}");
        for (one, (_stranger, accepted)) in found.iter().zip(&made) {
            assert_eq!((one.state, one.uid), (SocketState::ESTABLISHED, UID));
            assert_eq!(one.remote, accepted.local_addr().unwrap());
            assert_eq!(one.local, accepted.peer_addr().unwrap());
            assert_eq!((one.proto, one.interface), (IpProto::TCP, 0));
            assert!(one.inode != 0 && !own_inodes().unwrap().contains(&one.inode));
            assert_eq!(one.bytes.unwrap()[0], 1, "the SYN, which the peer has confirmed");
            assert_eq!(
                sockets
                    .find(IpProto::TCP, one.local, one.remote)
                    .unwrap()
                    .unwrap()
                    .inode,
                one.inode
            );
        }
    });
}

#[test]
fn shows_listeners_own_sockets_and_udp() {
    in_pod(|_peer| async move {
        keep_only(&[]);
        let mut sockets = Sockets::open().unwrap();
        let listener = TcpListener::bind("[::]:7001").unwrap();
        let near = UdpSocket::bind(at(POD[0], 6000)).unwrap();
        near.connect(at(PEER[0], 53)).unwrap();
        let free = UdpSocket::bind("[::]:6001").unwrap();
        let tcp = all(&mut sockets, IpProto::TCP, false);
        let [one] = tcp[..] else { panic!("{tcp:?}") };
        assert_eq!((one.state, one.local.port()), (SocketState::LISTEN, 7001));
        assert!(own_inodes().unwrap().contains(&one.inode));
        assert_eq!(one.bytes, None);
        let mut udp = all(&mut sockets, IpProto::UDP, false);
        udp.sort_by_key(|socket| socket.local.port());
        let seen: Vec<_> = udp
            .iter()
            .map(|one| (one.state, one.local, one.remote.port()))
            .collect();
        let want = [
            (SocketState::ESTABLISHED, near.local_addr().unwrap(), 53),
            (SocketState::CLOSED, free.local_addr().unwrap(), 0),
        ];
        assert_eq!(seen, want);
        // A client of the listener is found as the listener, nobody else's is found at all.
        let taker = sockets
            .find(IpProto::TCP, at(POD[1], 7001), at(PEER[1], 40_000))
            .unwrap();
        assert_eq!(taker.unwrap().state, SocketState::LISTEN);
        assert_eq!(
            sockets
                .find(IpProto::TCP, at(POD[0], 9), at(PEER[0], 9))
                .unwrap(),
            None
        );
        drop(listener);
    });
}

#[test]
fn a_connection_over_four_in_six_is_one_of_four() {
    in_pod(|_peer| async move {
        let server = TcpListener::bind("[::]:7002").unwrap();
        let client = TcpStream::connect("127.0.0.1:7002").unwrap();
        let accepted = server.accept().unwrap();
        let mut sockets = Sockets::open().unwrap();
        let found = all(&mut sockets, IpProto::TCP, false);
        let ends = |local: SocketAddr, remote: SocketAddr| {
            found
                .iter()
                .any(|one| (one.local, one.remote) == (local, remote))
        };
        let (near, far) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
        assert!(ends(near, far) && ends(far, near), "{found:?}");
        drop(accepted);
    });
}

#[test]
fn shows_raw_and_packet_sockets() {
    in_pod(|_peer| async move {
        let before = own_inodes().unwrap();
        let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(253))).unwrap();
        let raw6 = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).unwrap();
        let all = Protocol::from(libc::ETH_P_ALL.to_be() >> 16);
        let packet = Socket::new(Domain::PACKET, Type::RAW, Some(all)).unwrap();
        keep_only(&[]);
        let sockets = raw_sockets().unwrap();
        let seen: Vec<_> = sockets
            .found
            .iter()
            .map(|one| (one.kind, one.protocol))
            .collect();
        let want = [(RawKind::V4, 253), (RawKind::V6, 58), (RawKind::Packet, 3)];
        assert_eq!((&seen[..], sockets.unread), (&want[..], 0));
        let own = own_inodes().unwrap();
        assert!(sockets.found.iter().all(|one| own.contains(&one.inode)));
        assert!(sockets.found.iter().all(|one| !before.contains(&one.inode)));
        let count = |name: &str| {
            let families = families().unwrap();
            families
                .iter()
                .find(|family| family.0 == name)
                .map(|family| family.1)
        };
        assert_eq!((count("RAW"), count("PACKET"), count("PING")), (Some(1), Some(1), Some(0)));
        drop((raw, raw6, packet));
        assert!(raw_sockets().unwrap().found.is_empty());
    });
}

#[test]
fn tells_of_connections_that_end_with_what_they_carried() {
    in_pod(|peer| async move {
        let servers =
            [0, 1].map(|family| peer.enter(|| TcpListener::bind(at(PEER[family], 7000)).unwrap()));
        keep_only(&[]);
        let mut events = SocketEvents::open().unwrap();
        let mut want = Vec::new();
        for server in servers {
            let mut near = TcpStream::connect(server.local_addr().unwrap()).unwrap();
            let (mut far, address) = server.accept().unwrap();
            near.write_all(&[1; 1000]).unwrap();
            far.read_exact(&mut [0; 1000]).unwrap();
            far.write_all(&[2; 50]).unwrap();
            near.read_exact(&mut [0; 50]).unwrap();
            drop(far);
            assert_eq!(near.read(&mut [0]).unwrap(), 0);
            want.push((address, Some([1002, 51])));
        }
        let udp = UdpSocket::bind(at(POD[0], 6000)).unwrap();
        udp.connect(at(PEER[0], 9)).unwrap();
        drop(udp);
        want.push((at(POD[0], 6000), None));
        let mut seen = Vec::new();
        let all = async {
            while seen.len() < want.len() {
                let mut keep = |one: InetSocket| seen.push((one.local, one.bytes));
                events.wait(&mut keep).await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(10), all)
            .await
            .unwrap();
        seen.sort_by_key(|one| want.iter().position(|want| want.0 == one.0));
        assert_eq!(seen, want);
        assert_eq!(events.lost(), 0);
    });
}
