//! What a process of the pod may try to get past the proxy, and what becomes of it.

pub(crate) mod raw;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::outcomes::BACKENDS;
use crate::world::addr::{POD, REMOTE};
use crate::world::probe::{self, Options};
use crate::world::{APP, PROXY, ROOT, Sender, World};

/// How long a packet may take to the peer.
const PATIENCE: Duration = Duration::from_millis(300);
/// How long an answer may take that has to come.
const ANSWER: Duration = Duration::from_secs(20);

fn addr(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().expect("address"), port)
}

#[test]
fn a_mark_does_not_make_a_proxy() {
    for (backend, chosen) in BACKENDS {
        for mode in ["redirect", "tproxy"] {
            let Some(world) = World::new() else { return };
            world.init_ok(&[&["apply", "--mode", mode], chosen].concat());
            for family in [0, 1] {
                let marked = Options::borrowing(POD[family]);
                let outcome = world
                    .pod
                    .run(ROOT, || probe::connect(addr(REMOTE[family], 9000), marked));
                assert!(!outcome.contains("remote"), "{backend}, {mode}: {outcome}");
            }
        }
    }
}

#[test]
fn the_proxys_uid_is_not_enough_where_a_secret_mark_is_asked_for() {
    for (backend, chosen) in BACKENDS {
        let Some(world) = World::new() else { return };
        world.init_ok(&[&["apply", "--secret-mark", "0x5ec4e7"], chosen].concat());
        for remote in REMOTE {
            let to = addr(remote, 9000);
            let impersonator = world
                .pod
                .run(PROXY, || probe::connect(to, Options::default()));
            assert!(impersonator.starts_with("proxy:15101"), "{backend}: {impersonator}");
            let secret = Options { mark: Some(0x5ec4e7), ..Options::default() };
            let proxy = world.pod.run(PROXY, move || probe::connect(to, secret));
            assert!(proxy.starts_with("remote"), "{backend}: {proxy}");
            let thief = world.pod.run(ROOT, move || probe::connect(to, secret));
            assert!(thief.starts_with("proxy:15101"), "{backend}: {thief}");
        }
    }
}

/// A group is easier to join than a user, so the proxy's is nobody's pass: not as the first group, which is what a
/// setgid program has, and not as a further one.
#[test]
fn the_proxys_group_opens_nothing() {
    for (backend, chosen) in BACKENDS {
        let Some(world) = World::new() else { return };
        world.init_ok(&[&["apply"], chosen].concat());
        let member = Sender { name: "member", uid: APP.uid, gid: PROXY.gid };
        for remote in REMOTE {
            let to = addr(remote, 9000);
            let outcome = world
                .pod
                .run(member, || probe::connect(to, Options::default()));
            assert!(outcome.starts_with("proxy:15101"), "{backend}: {outcome}");
            let further = format!("--groups={}", PROXY.gid);
            let talk = format!("exec 3<>/dev/tcp/{remote}/9000; cat <&3");
            let user = ["--reuid=1000", "--regid=1000", &further, "bash", "-c", &talk];
            let outcome = world.pod.output("setpriv", &user);
            assert!(outcome.starts_with("proxy:15101"), "{backend}: {outcome}");
        }
    }
}

#[test]
fn multipath_tcp_is_captured() {
    for (backend, chosen) in BACKENDS {
        let Some(world) = World::new() else { return };
        world.init_ok(&[&["apply"], chosen].concat());
        for remote in REMOTE {
            let to = addr(remote, 9000);
            let outcome = world.pod.run(APP, move || {
                let protocol = Some(Protocol::MPTCP);
                let socket = Socket::new(Domain::for_address(to), Type::STREAM, protocol)?;
                socket.set_read_timeout(Some(ANSWER))?;
                socket.connect_timeout(&to.into(), ANSWER)?;
                let mut text = String::new();
                (&socket).read_to_string(&mut text).map(|_| text)
            });
            let outcome = outcome.expect("MPTCP is in the kernel");
            assert!(outcome.starts_with("proxy:15101"), "{backend}: {outcome}");
        }
    }
}

/// Who was there first has the port; what it answers does not leave.
#[test]
fn who_takes_the_proxys_ports_answers_nobody() {
    for (backend, chosen) in BACKENDS {
        for mode in ["redirect", "tproxy"] {
            let Some(world) = World::without_listeners() else { return };
            for port in [15101, 15106, 15153, 15100] {
                probe::serve(&world.pod, APP, "app", port);
            }
            world.init_ok(&[&["apply", "--mode", mode], chosen].concat());
            for pod in POD {
                for port in [8080, 15100, 15101, 15106, 15153] {
                    let to = addr(pod, port);
                    let outcome = world
                        .peer
                        .run(ROOT, || probe::connect(to, Options::default()));
                    assert!(!outcome.contains("from"), "{backend}, {mode}, {port}: {outcome}");
                }
            }
        }
    }
}

#[test]
fn without_its_proxy_a_pod_is_closed() {
    for (backend, chosen) in BACKENDS {
        for mode in ["redirect", "tproxy"] {
            let Some(world) = World::without_listeners() else { return };
            probe::serve(&world.pod, APP, "app", 8080);
            for guard in ["tcp", "off"] {
                world.init_ok(&[&["apply", "--mode", mode, "--guard", guard], chosen].concat());
                for pod in POD {
                    let to = addr(pod, 8080);
                    let outcome = world
                        .peer
                        .run(ROOT, || probe::connect(to, Options::default()));
                    assert!(!outcome.contains("app"), "{backend}, {mode}, {guard}: {outcome}");
                }
            }
        }
    }
}

/// Other meshes exempt the address that their nodes send health checks from.
#[test]
fn no_source_address_is_exempt() {
    for (backend, chosen) in BACKENDS {
        let Some(world) = World::new() else { return };
        let magic = ["169.254.7.127", "fd16:9254:7127:1337:ffff:ffff:ffff:ffff"];
        for (family, prefix) in [32, 128].into_iter().enumerate() {
            let address = format!("{}/{prefix}", magic[family]);
            world
                .peer
                .output("ip", &["address", "add", &address, "dev", "lo"]);
            let route = ["route", "add", &address, "via", crate::world::addr::PEER[family]];
            world.pod.output("ip", &route);
        }
        world.init_ok(&[&["apply"], chosen].concat());
        for family in [0, 1] {
            let to = addr(POD[family], 8080);
            let options = Options::from_source(magic[family]);
            let outcome = world.peer.run(ROOT, move || probe::connect(to, options));
            assert!(outcome.starts_with("proxy:15106"), "{backend}: {outcome}");
        }
    }
}

#[test]
fn the_health_port_is_no_door_for_the_workload() {
    for (backend, chosen) in BACKENDS {
        let Some(world) = World::without_listeners() else { return };
        probe::serve(&world.pod, APP, "app", 15120);
        world.init_ok(&[&["apply"], chosen].concat());
        for pod in POD {
            let to = addr(pod, 15120);
            let outcome = world
                .peer
                .run(ROOT, || probe::connect(to, Options::default()));
            assert_eq!(outcome, "nothing", "{backend}");
        }
    }
}

#[test]
fn older_connections_do_not_go_on_past_the_rules() {
    for (backend, chosen) in BACKENDS {
        for guard in ["tcp", "off"] {
            let Some(world) = World::without_listeners() else { return };
            let listener = world
                .peer
                .run(ROOT, || TcpListener::bind("192.0.2.10:7000"));
            let listener = listener.expect("bind");
            let mut client = world
                .pod
                .run(APP, || TcpStream::connect("192.0.2.10:7000"))
                .expect("nothing is captured yet");
            let (mut server, _) = listener.accept().expect("accept");
            server.set_read_timeout(Some(PATIENCE)).expect("timeout");
            let mut bytes = [0; 8];
            client.write_all(b"before").expect("still direct");
            assert_eq!(server.read(&mut bytes).expect("still direct"), 6);

            world.init_ok(&[&["apply", "--guard", guard], chosen].concat());
            // Written, and either never acknowledged or answered by a reset.
            client.write_all(b"after").expect("the buffer takes it");
            let arrived = server.read(&mut bytes).unwrap_or(0);
            assert_eq!(arrived, 0, "{backend}, guard {guard}: the flow went on");
        }
    }
}

#[test]
fn the_guard_for_everything_stops_udp_and_icmp() {
    for (backend, chosen) in BACKENDS {
        let Some(world) = World::new() else { return };
        for remote in REMOTE {
            world.pod.output("ping", &["-c", "1", "-W", "1", remote]);
        }
        world.init_ok(&[&["apply", "--guard", "all"], chosen].concat());
        for remote in REMOTE {
            let to = addr(remote, 9000);
            let outcome = world.pod.run(ROOT, || probe::connect(to, Options::udp()));
            assert!(!outcome.contains("remote"), "{backend}: {outcome}");
            let ping = world.pod.exec("ping", &["-c", "1", "-W", "1", remote]);
            assert!(!ping.status.success(), "{backend}: {remote} answered a ping");
        }
        // Neighbours still find each other.
        world
            .pod
            .output("ip", &["neighbour", "flush", "dev", "eth0"]);
        let to: IpAddr = REMOTE[1].parse().expect("address");
        let to = SocketAddr::new(to, 9000);
        let outcome = world
            .pod
            .run(PROXY, || probe::connect(to, Options::default()));
        assert!(outcome.starts_with("remote"), "{backend}: {outcome}");
    }
}
