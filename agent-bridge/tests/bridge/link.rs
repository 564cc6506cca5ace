//! Connecting, keeping alive, programming, pushing.

use std::time::Duration;

use outrider_model::PolicyAction;
use outrider_wire::request::Request;
use serde_json::json;

use crate::{
    proxy::{Manner, Proxy},
    world::{World, mac},
};

#[tokio::test]
async fn a_proxy_is_connected_programmed_and_greeted() {
    let world = World::new();
    world.pod("cache", 2);
    let proxy = Proxy::start(&world.mailbox("cache"));
    let bridge = world.start().await;
    bridge.proxy_is("cache", "connected").await;
    let heard = proxy.heard();
    assert!(matches!(heard[0], Request::KeepAlive(asked) if asked.seq_num == 1), "{heard:?}");
    let policy = proxy.policy().unwrap();
    assert_eq!(policy.macs[..], [mac(2)]);
    assert_eq!(policy.default_action.known(), Some(PolicyAction::Learn));
    assert_eq!(policy.grace, Some(false));
    let greeted =
        |request: &Request| matches!(request, Request::OutriderHello(hello) if hello.acks);
    assert!(greeted(&heard[1]), "before it is told anything: {heard:?}");
    assert!(heard.iter().skip(2).any(greeted), "and once it has its policy");
    bridge.stop().await;
    assert!(
        !world
            .mailbox("cache")
            .join(format!("dp_client.{}", std::process::id()))
            .exists()
    );
}

#[tokio::test]
async fn a_foreign_data_path_is_served_without_extensions() {
    let world = World::new();
    world.pod("cache", 2);
    let _proxy = Proxy::start_as(&world.mailbox("cache"), Manner::Foreign);
    let bridge = world.start().await;
    bridge.proxy_is("cache", "connected").await;
    let workloads = bridge.get("/v1/workloads").await;
    assert!(workloads[0].get("proxy_version").is_none(), "{workloads}");
    bridge.stop().await;
}

#[tokio::test]
async fn a_proxy_that_needs_long_for_its_policy_is_waited_for() {
    let world = World::new();
    world.pod("cache", 2);
    let proxy = Proxy::start(&world.mailbox("cache"));
    proxy.is_deaf_to(&[false, true, true]);
    let bridge = world.start().await;
    bridge.proxy_is("cache", "connected").await;
    let heard = proxy.heard();
    let keys: Vec<_> = heard.iter().map(Request::key).collect();
    let hellos = keys.iter().filter(|key| **key == "ctrl_outrider_hello");
    assert_eq!(hellos.count(), 4, "{keys:?}");
    assert_eq!(proxy.times("ctrl_cfg_policy").len(), 1, "told once: {keys:?}");
    bridge.stop().await;
}

#[tokio::test]
async fn a_proxy_that_answers_the_hello_late_is_known_then() {
    let world = World::new();
    world.pod("cache", 2);
    let proxy = Proxy::start(&world.mailbox("cache"));
    proxy.is_deaf_to(&[true, true]);
    let bridge = world.start().await;
    bridge.proxy_is("cache", "connected").await;
    bridge
        .until("/v1/workloads", |all| all[0]["proxy_version"] == "0.1.0")
        .await;
    assert_eq!(proxy.times("ctrl_outrider_hello").len(), 3);
    bridge.stop().await;
}

#[tokio::test]
async fn a_silent_proxy_is_not_connected_and_holds_nobody_up() {
    let world = World::new();
    world.pod("cache", 2);
    world.pod("web", 3);
    let silent = Proxy::start_as(&world.mailbox("cache"), Manner::Silent);
    let _proxy = Proxy::start(&world.mailbox("web"));
    let bridge = world.start().await;
    bridge.proxy_is("web", "connected").await;
    bridge.proxy_is("cache", "never").await;
    assert!(silent.policy().is_none(), "nothing is said to who does not answer");
    bridge.stop().await;
}

#[tokio::test]
async fn a_proxy_that_comes_back_is_programmed_from_nothing() {
    let world = World::new();
    world.pod("cache", 2);
    let first = Proxy::start(&world.mailbox("cache"));
    let bridge = world.start().await;
    bridge.proxy_is("cache", "connected").await;
    drop(first);
    bridge.proxy_is("cache", "down").await;
    let second = Proxy::start(&world.mailbox("cache"));
    bridge.proxy_is("cache", "connected").await;
    let keys: Vec<_> = second.heard().iter().map(Request::key).collect();
    let first = ["ctrl_keep_alive", "ctrl_outrider_hello", "ctrl_keep_alive", "ctrl_set_debug"];
    assert_eq!(keys[..4], first);
    let policy = second.policy().unwrap();
    assert_eq!(policy.command.0, 1, "added, not modified");
    let again = second.hears(|request| match request {
        Request::KeepAlive(asked) => Some(asked.seq_num),
        _ => None,
    });
    assert!(again.await > 1, "numbers go on over reconnects");
    bridge.stop().await;
}

#[tokio::test]
async fn a_proxy_that_stops_answering_is_down_and_programmed_again_later() {
    let world = World::new();
    world.pod("cache", 2);
    let proxy = Proxy::start(&world.mailbox("cache"));
    let bridge = world.start().await;
    bridge.proxy_is("cache", "connected").await;
    proxy.behave(Manner::Silent);
    bridge.proxy_is("cache", "down").await;
    proxy.forget_heard();
    proxy.behave(Manner::Proper);
    bridge.proxy_is("cache", "connected").await;
    assert_eq!(proxy.policy().unwrap().command.0, 1);
    bridge.stop().await;
}

#[tokio::test]
async fn an_idle_link_is_asked_every_four_seconds() {
    let world = World::new();
    world.pod("cache", 2);
    let proxy = Proxy::start(&world.mailbox("cache"));
    let bridge = world.start().await;
    bridge.proxy_is("cache", "connected").await;
    proxy.forget_heard();
    let asked = async {
        while proxy.times("ctrl_keep_alive").len() < 3 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), asked)
        .await
        .unwrap();
    let times = proxy.times("ctrl_keep_alive");
    // Four seconds apart as they were sent: a busy machine hears one of them late.
    let apart = (times[2] - times[0]).as_secs_f64();
    assert!((6.0..14.0).contains(&apart), "{apart} s");
    bridge.stop().await;
}

#[tokio::test]
async fn a_mode_is_set_once_the_proxies_have_it() {
    let world = World::new();
    world.pod("cache", 2);
    world.pod("absent", 3);
    let proxy = Proxy::start(&world.mailbox("cache"));
    let bridge = world.start().await;
    bridge.proxy_is("cache", "connected").await;
    proxy.forget_heard();
    let protect = json!({"mode": "protect"}).to_string();
    let (status, reply) = bridge
        .ask("PUT", "/v1/workloads/cache/mode", &protect)
        .await;
    assert_eq!(status, 200, "{reply}");
    assert_eq!((&reply["pushed"], &reply["mode"]), (&json!(1), &json!("protect")));
    let policy = proxy.policy().unwrap();
    assert_eq!(policy.default_action.known(), Some(PolicyAction::Deny));
    assert_eq!(policy.command.0, 2);
    let enforced =
        |request: &Request| matches!(request, Request::CfgMac(c) if c.tap == Some(false));
    assert!(proxy.heard().iter().any(enforced));
    let (_, reply) = bridge
        .ask("PUT", "/v1/workloads/default/absent/mode", &protect)
        .await;
    assert_eq!((&reply["pushed"], &reply["absent"]), (&json!(0), &json!(1)), "{reply}");
    bridge.stop().await;
}

#[tokio::test]
async fn a_workload_that_is_removed_is_let_go() {
    let world = World::new();
    world.pod("cache", 2);
    let proxy = Proxy::start(&world.mailbox("cache"));
    let bridge = world.start().await;
    bridge.proxy_is("cache", "connected").await;
    world.remove_workload_file("cache");
    bridge
        .until("/v1/workloads", |all| all.as_array().unwrap().is_empty())
        .await;
    proxy
        .hears(|request| match request {
            Request::DelMac(gone) if gone.mac == mac(2) => Some(()),
            _ => None,
        })
        .await;
    bridge.stop().await;
}
