//! Pods that the API server names, against one that lists and watches as it does.

use std::{os::unix::fs::MetadataExt as _, path::Path, sync::Arc};

use axum::{
    Json, Router,
    body::Body,
    extract::{RawQuery, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::get,
};
use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch};

use crate::world::{Running, World, mac};

pub(crate) const WEB: &str = "6b1f8a52-0b0e-4d62-9c53-5d2f3ad0c901";
const SHOP: &str = "6b1f8a52-0b0e-4d62-9c53-5d2f3ad0c902";
const BARE: &str = "6b1f8a52-0b0e-4d62-9c53-5d2f3ad0c903";

/// An API server with pods, nodes and Services.
#[derive(Clone)]
pub(crate) struct ApiServer(Arc<Shared>);

struct Shared {
    /// By resource and name.
    objects: Mutex<std::collections::BTreeMap<(String, String), Value>>,
    /// All that ever changed, by resource. A list's version is one more than how many came before it.
    events: watch::Sender<Vec<(String, Value)>>,
    down: std::sync::atomic::AtomicBool,
}

impl ApiServer {
    /// Starts it; `world`'s bridge asks it for the pods of node `here`.
    pub(crate) async fn start(world: &mut World) -> Self {
        let shared = Shared {
            objects: Mutex::default(),
            events: watch::Sender::default(),
            down: false.into(),
        };
        let server = Self(Arc::new(shared));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let routes = Router::new()
            .route("/api/v1/{resource}", get(answer))
            .with_state(server.clone());
        #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{ "name": "it", "cluster": { "server": url } }],
            "users": [{ "name": "it", "user": {} }],
            "contexts": [{ "name": "it", "context": { "cluster": "it", "user": "it" } }],
        });
        let path = world.path().join("kubeconfig");
        std::fs::write(&path, config.to_string()).unwrap();
        world.set("OUTRIDER_BRIDGE_KUBE", path.display().to_string());
        world.set("OUTRIDER_BRIDGE_NODE", "here");
        server
    }

    pub(crate) fn put(&self, resource: &str, mut object: Value) {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let key = (resource.to_owned(), name);
        let mut objects = self.0.objects.lock();
        let kind = if objects.contains_key(&key) { "MODIFIED" } else { "ADDED" };
        self.0.events.send_modify(|events| {
            object["metadata"]["resourceVersion"] = (events.len() + 2).to_string().into();
            events.push((resource.into(), json!({ "type": kind, "object": object })));
        });
        objects.insert(key, object);
    }

    pub(crate) fn delete(&self, resource: &str, name: &str) {
        let key = (resource.to_owned(), name.to_owned());
        let mut objects = self.0.objects.lock();
        let mut object = objects.remove(&key).unwrap();
        self.0.events.send_modify(|events| {
            object["metadata"]["resourceVersion"] = (events.len() + 2).to_string().into();
            events.push((resource.into(), json!({ "type": "DELETED", "object": object })));
        });
    }

    pub(crate) fn is_down(&self, down: bool) {
        self.0
            .down
            .store(down, std::sync::atomic::Ordering::Relaxed);
    }
}

async fn answer(
    State(server): State<ApiServer>,
    axum::extract::Path(resource): axum::extract::Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    if server.0.down.load(std::sync::atomic::Ordering::Relaxed) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let query = query.unwrap_or_default();
    match resource.as_str() {
        "pods" => assert!(query.contains("spec.nodeName%3Dhere"), "{query}"),
        "nodes" => assert!(query.contains("metadata.name%3Dhere"), "{query}"),
        _ => {}
    }
    if query.contains("watch=true") {
        // Behind the list that was given, however long ago that was.
        let since = query
            .split('&')
            .find_map(|part| part.strip_prefix("resourceVersion="));
        let since = since.unwrap().parse::<usize>().unwrap() - 1;
        let events = server.0.events.subscribe();
        let lines = stream::unfold((events, since), move |(mut events, told)| {
            let resource = resource.clone();
            async move {
                let (of, event) = events.wait_for(|all| all.len() > told).await.ok()?[told].clone();
                let line = if of == resource { format!("{event}\n") } else { String::new() };
                Some((Ok::<_, std::io::Error>(line), (events, told + 1)))
            }
        });
        // An answer's head goes out with its first bytes.
        let first = stream::once(async { Ok(String::from("\n")) });
        return Body::from_stream(first.chain(lines)).into_response();
    }
    let objects = server.0.objects.lock();
    let items: Vec<_> = objects
        .iter()
        .filter(|((of, _), _)| *of == resource)
        .map(|(_, object)| object.clone())
        .collect();
    let version = (server.0.events.borrow().len() + 1).to_string();
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": items,
        "metadata": { "resourceVersion": version } });
    Json(list).into_response()
}

/// A pod with a proxy.
pub(crate) fn pod(name: &str, uid: &str, address: Option<&str>) -> Value {
    let addresses: Vec<_> = address.into_iter().map(|ip| json!({ "ip": ip })).collect();
    json!({
        "metadata": { "name": name, "namespace": "default", "uid": uid, "labels": { "app": name } },
        "spec": { "nodeName": "here", "volumes": [{ "name": "outrider-mailbox" }],
            "containers": [{ "name": "app" }, { "name": "outrider-proxy" }] },
        "status": { "phase": "Running", "podIPs": addresses },
    })
}

fn mailbox(world: &World, uid: &str) -> std::path::PathBuf {
    world.path().join("pods").join(uid)
}

/// It is the proxy's, or ours if we cannot give anything away.
fn is_given(mailbox: &Path) -> bool {
    let own = nix::unistd::geteuid().as_raw();
    let owner = if own == 0 { 1771 } else { own };
    mailbox
        .symlink_metadata()
        .is_ok_and(|found| found.uid() == owner && found.mode() & 0o777 == 0o700)
}

/// The workloads' names, once they are these.
async fn workloads(bridge: &Running, names: &[&str]) -> Value {
    let of = |all: &Value| -> Vec<String> {
        let all = all.as_array().unwrap().iter();
        all.map(|one| one["name"].as_str().unwrap().to_owned())
            .collect()
    };
    bridge.until("/v1/workloads", |all| of(all) == names).await
}

#[tokio::test]
async fn pods_of_the_node_are_workloads_as_they_come_and_go() {
    let mut world = World::new();
    let server = ApiServer::start(&mut world).await;
    server.put("pods", pod("web", WEB, Some("10.0.0.7")));
    let mut bare = pod("bare", BARE, Some("10.0.0.9"));
    bare["spec"]["volumes"] = json!([]);
    server.put("pods", bare);
    let bridge = world.start().await;
    let all = workloads(&bridge, &["default/web"]).await;
    assert_eq!(all[0]["group"], "nv.web.default");
    assert!(all[0]["mac"].as_str().unwrap().starts_with("02:"), "{all}");
    assert!(is_given(&mailbox(&world, WEB)));
    assert!(!mailbox(&world, BARE).exists());
    // Its mailbox is there before it has an address.
    server.put("pods", pod("shop", SHOP, None));
    let given = async {
        while !is_given(&mailbox(&world, SHOP)) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), given)
        .await
        .unwrap();
    server.put("pods", pod("shop", SHOP, Some("10.0.0.8")));
    workloads(&bridge, &["default/web", "default/shop"]).await;
    // Files go on to count, beside the API server's pods.
    world.pod("cache", 2);
    workloads(&bridge, &["default/web", "default/shop", "default/cache"]).await;
    server.delete("pods", "web");
    workloads(&bridge, &["default/shop", "default/cache"]).await;
    let status = bridge.get("/v1/status").await;
    assert_eq!(status["kubernetes"], json!({ "node": "here", "pods_from": "server" }));
    bridge.stop().await;
}

#[tokio::test]
async fn while_the_api_server_is_away_the_store_says_who_is_here() {
    let mut world = World::new();
    let server = ApiServer::start(&mut world).await;
    server.put("pods", pod("web", WEB, Some("10.0.0.7")));
    server.put("pods", pod("shop", SHOP, Some("10.0.0.8")));
    let bridge = world.start().await;
    workloads(&bridge, &["default/web", "default/shop"]).await;
    bridge.stop().await;
    server.is_down(true);
    let bridge = world.start().await;
    workloads(&bridge, &["default/web", "default/shop"]).await;
    let status = bridge
        .until("/v1/status", |status| !status["kubernetes"]["failing"].is_null())
        .await;
    assert_eq!(status["kubernetes"]["pods_from"], "store");
    assert!(status["not_ready"].is_null(), "{status}");
    // Meanwhile one of them was deleted.
    server.delete("pods", "web");
    server.is_down(false);
    workloads(&bridge, &["default/shop"]).await;
    bridge
        .until("/v1/status", |status| status["kubernetes"]["pods_from"] == "server")
        .await;
    bridge.stop().await;
}

#[tokio::test]
async fn a_bridge_that_never_heard_the_api_server_is_not_ready() {
    let mut world = World::new();
    let server = ApiServer::start(&mut world).await;
    server.is_down(true);
    let bridge = world.start().await;
    bridge
        .until("/v1/status", |status| {
            status["not_ready"]
                .as_str()
                .is_some_and(|why| why.contains("API server"))
        })
        .await;
    server.is_down(false);
    bridge
        .until("/v1/status", |status| status["not_ready"].is_null())
        .await;
    bridge.stop().await;
}

#[tokio::test]
async fn a_directory_that_is_not_the_kubelets_is_refused_and_counted() {
    let mut world = World::new();
    let server = ApiServer::start(&mut world).await;
    let elsewhere = world.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, mailbox(&world, WEB)).unwrap();
    server.put("pods", pod("web", WEB, Some("10.0.0.7")));
    let bridge = world.start().await;
    let status = bridge
        .until("/v1/status", |status| status["coverage"]["refused"]["owner"] == 1)
        .await;
    assert_eq!(status["workloads"], 0);
    bridge.stop().await;
}

#[tokio::test]
async fn the_nodes_own_addresses_are_a_hosts() {
    let mut world = World::new();
    let server = ApiServer::start(&mut world).await;
    server.put(
        "nodes",
        json!({
            "metadata": { "name": "here" }, "spec": { "podCIDRs": ["10.9.0.0/16"] },
            "status": { "addresses": [{ "type": "InternalIP", "address": "192.0.2.1" }] },
        }),
    );
    world.pod("cache", 2);
    let proxy = crate::proxy::Proxy::start(&world.mailbox("cache"));
    let bridge = world.start().await;
    bridge.proxy_is("cache", "connected").await;
    for text in ["192.0.2.1", "10.9.0.0"] {
        proxy
            .hears(|heard| format!("{heard:?}").contains(text).then_some(()))
            .await;
    }
    assert_eq!(proxy.policy().unwrap().macs[..], [mac(2)]);
    bridge.stop().await;
}
