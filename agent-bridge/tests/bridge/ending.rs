//! Pods that wait for nothing but their classic proxy: it is told to end.

use std::path::Path;

use outrider_wire::{
    ext::{Instance, Status, Stop},
    request::Request,
};
use serde_json::{Value, json};

use crate::{
    pods::{ApiServer, pod},
    proxy::{Manner, Proxy},
    world::World,
};

/// Uids, in the order in which the bridge goes through them.
const FOREIGN: &str = "6b1f8a52-0b0e-4d62-9c53-5d2f3ad0c901";
const OLD: &str = "6b1f8a52-0b0e-4d62-9c53-5d2f3ad0c902";
const JOB: &str = "6b1f8a52-0b0e-4d62-9c53-5d2f3ad0c903";

/// The pod of a Job whose work is in `state`.
fn job(name: &str, uid: &str, address: &str, state: &Value) -> Value {
    let mut pod = pod(name, uid, Some(address));
    pod["spec"]["restartPolicy"] = "OnFailure".into();
    let status = |name: &str, state: &Value| {
        json!({ "name": name, "ready": false, "restartCount": 0, "image": "", "imageID": "",
            "state": state })
    };
    let proxy = status("outrider-proxy", &json!({ "running": {} }));
    pod["status"]["containerStatuses"] = json!([proxy, status("app", state)]);
    pod
}

fn done() -> Value {
    json!({ "terminated": { "exitCode": 0 } })
}

fn mailbox(world: &World, uid: &str) -> std::path::PathBuf {
    let mailbox = world.mailbox(uid);
    std::fs::create_dir_all(&mailbox).unwrap();
    // As the bridge gives it away.
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(&mailbox, Some(1771), Some(1771)).unwrap();
    }
    mailbox
}

/// A proxy that announces that it knows how to end.
fn proxy(mailbox: &Path, instance: u64) -> Proxy {
    let proxy = Proxy::start(mailbox);
    let instance = Instance(instance);
    proxy.says(&Status { instance, stops: true, version: "0.1.0".into(), ..Status::default() });
    proxy
}

fn stop(request: &Request) -> Option<Stop> {
    match request {
        Request::OutriderStop(stop) => Some(*stop),
        _ => None,
    }
}

#[tokio::test]
async fn the_proxy_of_a_job_is_told_to_end_once_the_work_has() {
    let mut world = World::new();
    let server = ApiServer::start(&mut world).await;
    let failed = json!({ "terminated": { "exitCode": 1 } });
    server.put("pods", job("job", JOB, "10.0.0.7", &failed));
    let first = proxy(&mailbox(&world, JOB), 7);
    let bridge = world.start().await;
    bridge.proxy_is("job", "connected").await;
    assert!(first.heard().iter().all(|heard| stop(heard).is_none()), "the work is tried again");
    server.put("pods", job("job", JOB, "10.0.0.7", &done()));
    assert_eq!(first.hears(stop).await, Stop { instance: Instance(7) });
    first.forget_heard();
    first
        .hears(|heard| matches!(heard, Request::KeepAlive(_)).then_some(()))
        .await;
    assert!(first.heard().iter().all(|heard| stop(heard).is_none()), "once over a connection");
    // A bridge that was away when the work ended says it when it is back.
    bridge.stop().await;
    drop(first);
    let second = proxy(&mailbox(&world, JOB), 8);
    let bridge = world.start().await;
    assert_eq!(second.hears(stop).await, Stop { instance: Instance(8) });
    bridge.stop().await;
}

#[tokio::test]
async fn a_data_path_that_does_not_announce_it_is_never_told_to_end() {
    let mut world = World::new();
    let server = ApiServer::start(&mut world).await;
    server.put("pods", job("foreign", FOREIGN, "10.0.0.5", &done()));
    server.put("pods", job("old", OLD, "10.0.0.6", &done()));
    server.put("pods", job("job", JOB, "10.0.0.7", &done()));
    let foreign = Proxy::start_as(&mailbox(&world, FOREIGN), Manner::Foreign);
    let old = Proxy::start(&mailbox(&world, OLD));
    let bridge = world.start().await;
    bridge.proxy_is("foreign", "connected").await;
    bridge.proxy_is("old", "connected").await;
    // Behind them in every round, and found after them.
    let proxy = proxy(&mailbox(&world, JOB), 7);
    proxy.hears(stop).await;
    for silent in [foreign, old] {
        silent.forget_heard();
        silent
            .hears(|heard| matches!(heard, Request::KeepAlive(_)).then_some(()))
            .await;
        assert!(silent.heard().iter().all(|heard| stop(heard).is_none()));
    }
    bridge.stop().await;
}
