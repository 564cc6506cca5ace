//! A pod that does what it should not to the mailbox itself; what it may say is in `spoof`.

use std::os::unix::fs::symlink;

use outrider_model::PolicyAction;
use outrider_wire::{Connection, Connections, request::Request};
use tokio::net::UnixDatagram;

use crate::{
    proxy::Proxy,
    reports::{encode, row},
    world::{World, mac},
};

#[tokio::test]
async fn a_link_to_another_pods_socket_leads_nowhere() {
    let world = World::new();
    world.pod("victim", 2);
    world.pod("thief", 9);
    let victim = Proxy::start(&world.mailbox("victim"));
    symlink(
        world.mailbox("victim").join("dp_listen.sock"),
        world.mailbox("thief").join("dp_listen.sock"),
    )
    .unwrap();
    let bridge = world.start().await;
    bridge.proxy_is("victim", "connected").await;
    // The thief's link has ticked several times while the victim's fell idle and was asked.
    victim.forget_heard();
    victim
        .hears(|request| matches!(request, Request::KeepAlive(_)).then_some(()))
        .await;
    bridge.proxy_is("thief", "never").await;
    let policies = victim
        .heard()
        .into_iter()
        .filter_map(|request| match request {
            Request::CfgPolicy(policy) => Some(policy),
            _ => None,
        });
    assert!(
        policies
            .into_iter()
            .all(|policy| policy.macs[..] == [mac(2)])
    );
    bridge.stop().await;
}

#[tokio::test]
async fn a_removed_socket_comes_back() {
    let world = World::new();
    world.pod("cache", 2);
    let proxy = Proxy::start(&world.mailbox("cache"));
    let bridge = world.start().await;
    bridge.proxy_is("cache", "connected").await;
    std::fs::remove_file(world.mailbox("cache").join("ctrl_listen.sock")).unwrap();
    proxy
        .tell(&encode(Connections { rows: vec![row(1, PolicyAction::Learn)] }))
        .await;
    bridge
        .until("/v1/conversations", |all| all[0]["sessions"] == 1)
        .await;
    bridge.stop().await;
}

#[tokio::test]
async fn a_mailbox_that_cannot_be_used_is_said() {
    let world = World::new();
    world.pod("cache", 2);
    std::fs::create_dir(world.mailbox("cache").join("ctrl_listen.sock")).unwrap();
    let bridge = world.start().await;
    let status = bridge
        .until("/v1/status", |status| status["refused"][0].is_string())
        .await;
    assert!(
        status["refused"][0]
            .as_str()
            .unwrap()
            .starts_with("cache: "),
        "{status}"
    );
    std::fs::remove_dir(world.mailbox("cache").join("ctrl_listen.sock")).unwrap();
    bridge
        .until("/v1/status", |status| status["refused"] == serde_json::json!([]))
        .await;
    bridge.stop().await;
}

/// The socket is read whatever the node is busy with, as far as its budget goes, so a flood ends in rows,
/// counted drops and a sender that waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_ends_in_rows_or_counted_drops() {
    const DATAGRAMS: u64 = 1500;
    let world = World::new();
    world.pod("cache", 2);
    let _proxy = Proxy::start(&world.mailbox("cache"));
    let bridge = world.start().await;
    bridge.proxy_is("cache", "connected").await;
    let rows: Vec<Connection> = (0..85).map(|_| row(1, PolicyAction::Learn)).collect();
    let datagram = encode(Connections { rows });
    let socket = UnixDatagram::unbound().unwrap();
    for _ in 0..DATAGRAMS {
        socket
            .send_to(&datagram, world.mailbox("cache").join("ctrl_listen.sock"))
            .await
            .unwrap();
    }
    bridge
        .until("/v1/status", |status| {
            let taken = status["received"]["rows"].as_u64().unwrap_or_default() / 85;
            let full = |why: &str| status["dropped"][why].as_u64().unwrap_or_default();
            taken + full("mailbox-full") + full("node-full") == DATAGRAMS
        })
        .await;
    bridge.proxy_is("cache", "connected").await;
    bridge.stop().await;
}
