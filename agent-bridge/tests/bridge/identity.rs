//! Who speaks, and what the ends of a flow are called.

use std::{net::Ipv4Addr, os::unix::net::UnixDatagram as StdDatagram};

use outrider_model::{AppId, IpProto, PolicyAction};
use outrider_wire::{
    AppPort, AppUpdate, Connection, ConnectionFlags, Connections, EtherType, IpFqdnRelease,
    IpFqdnUpdate, Notification, Text,
};
use serde_json::json;
use tokio::process::Command;

use crate::{
    proxy::{Manner, Proxy},
    reports::{encode, row},
    world::{World, mac},
};

const FAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// From pod 2 to the outside, as pod 2 sees it.
fn outside(proto: IpProto, port: u16) -> Vec<u8> {
    let row = Connection {
        epmac: mac(2),
        server_port: port,
        client_ip: std::net::IpAddr::from([10, 0, 0, 2]).into(),
        server_ip: std::net::IpAddr::from(FAR).into(),
        ether_type: EtherType::IPV4,
        flags: ConnectionFlags::EXTERNAL,
        ip_proto: proto,
        sessions: 1,
        bytes: 10,
        first_seen_at: 100,
        last_seen_at: 200,
        policy_action: PolicyAction::Learn.into(),
        ..Connection::default()
    };
    encode(Connections { rows: vec![row] })
}

#[tokio::test]
async fn names_and_listening_ports_are_kept_and_shown() {
    let world = World::new();
    world.pod("cache", 2);
    let proxy = Proxy::start(&world.mailbox("cache"));
    let bridge = world.start().await;
    bridge.proxy_is("cache", "connected").await;
    let port = AppPort {
        port: 6379,
        proto: AppId::REDIS,
        server: AppId::UNKNOWN,
        application: AppId::REDIS,
        ip_proto: IpProto::TCP,
    };
    let named = IpFqdnUpdate { ip: FAR, name: Text::cut("pay.example") };
    let odd = IpFqdnUpdate { ip: Ipv4Addr::new(192, 0, 2, 2), name: Text::cut("a\u{1b}[2J") };
    let told: [Notification; 3] =
        [AppUpdate { mac: mac(2), ports: vec![port] }.into(), named.into(), odd.into()];
    for note in told {
        proxy.tell(&encode(note)).await;
    }
    proxy.tell(&outside(IpProto::TCP, 443)).await;
    proxy.tell(&outside(IpProto::ICMP, 0)).await;
    proxy.tell(&encode(IpFqdnRelease { ip: FAR })).await;
    let all = bridge
        .until("/v1/conversations", |all| all.as_array().unwrap().len() == 2)
        .await;
    for (one, proto) in all.as_array().unwrap().iter().zip(["icmp", "tcp"]) {
        assert_eq!(one["proto"], proto, "{all}");
        assert_eq!(
            (&one["server"], &one["server_class"]),
            (&json!("pay.example"), &json!("external-name"))
        );
        assert_eq!(one["client_class"], "workload");
    }
    let status = bridge
        .until("/v1/status", |status| status["received"]["names"] == 3)
        .await;
    assert_eq!(status["dropped"]["bad-row"], 1, "{status}");
    let workloads = bridge.get("/v1/workloads").await;
    let listens = json!([{"proto": "tcp", "port": 6379, "app": "Redis", "server": ""}]);
    assert_eq!(workloads[0]["ports"], listens, "{workloads}");
    assert_eq!(
        (&workloads[0]["rules_full"], &workloads[0]["rules_left_out"]),
        (&json!(false), &json!(0))
    );
    bridge.stop().await;
}

/// Not a test of its own: what the other process runs.
#[test]
fn tells_when_asked() {
    let Ok(path) = std::env::var("OUTRIDER_TEST_TELL") else { return };
    let lie = encode(Connections { rows: vec![row(1000, PolicyAction::Deny)] });
    StdDatagram::unbound().unwrap().send_to(&lie, path).unwrap();
}

#[tokio::test]
async fn a_second_process_does_not_speak_for_the_pod() {
    let world = World::new();
    world.pod("cache", 2);
    let proxy = Proxy::start(&world.mailbox("cache"));
    let bridge = world.start().await;
    bridge.proxy_is("cache", "connected").await;
    let told = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "identity::tells_when_asked"])
        .env("OUTRIDER_TEST_TELL", world.mailbox("cache").join("ctrl_listen.sock"))
        .output()
        .await
        .unwrap();
    assert!(told.status.success(), "{told:?}");
    bridge
        .until("/v1/status", |status| status["dropped"]["foreign-peer"] == 1)
        .await;
    proxy
        .tell(&encode(Connections { rows: vec![row(2, PolicyAction::Learn)] }))
        .await;
    let all = bridge
        .until("/v1/conversations", |all| all[0]["sessions"].is_u64())
        .await;
    assert_eq!((&all[0]["sessions"], &all[0]["violations"]), (&json!(2), &json!(0)), "{all}");
    bridge.stop().await;
}

/// Not a test of its own: another process that answers in the proxy's place.
#[tokio::test]
async fn answers_when_asked() {
    let Ok(mailbox) = std::env::var("OUTRIDER_TEST_ANSWER") else { return };
    let _proxy = Proxy::start(mailbox.as_ref());
    let read = || std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    tokio::task::spawn_blocking(read).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_second_process_does_not_answer_for_the_pod() {
    let world = World::new();
    world.pod("cache", 2);
    let mailbox = world.mailbox("cache");
    let proxy = Proxy::start_as(&mailbox, Manner::Silent);
    let bridge = world.start().await;
    proxy
        .tell(&encode(Connections { rows: vec![row(2, PolicyAction::Learn)] }))
        .await;
    bridge
        .until("/v1/conversations", |all| all[0]["sessions"] == 2)
        .await;
    let other = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "identity::answers_when_asked"])
        .env("OUTRIDER_TEST_ANSWER", &mailbox)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    bridge
        .until("/v1/status", |status| status["dropped"]["foreign-peer"].as_u64() >= Some(2))
        .await;
    bridge.proxy_is("cache", "never").await;
    drop((other, proxy));
    let _proxy = Proxy::start(&mailbox);
    bridge.proxy_is("cache", "connected").await;
    bridge.stop().await;
}
