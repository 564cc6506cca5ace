//! Tokens of a cluster, against a server that speaks `TokenReview` and `SubjectAccessReview` v1.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};

use crate::{
    grpc_tls::Authority,
    https::{Asked, serve},
    world::{Running, World, exchange},
};

const PATIENCE: Duration = Duration::from_secs(20);
const MODE: &str = "/v1/workloads/cache/mode";
const PROTECT: &str = r#"{"mode":"protect"}"#;

/// A cluster's API server.
#[derive(Default)]
struct Cluster {
    /// It hangs up on everybody.
    is_down: AtomicBool,
    /// It does not know the bridge.
    is_strict: AtomicBool,
    /// `TokenReview`s it was asked for.
    asked: AtomicUsize,
}

impl Cluster {
    fn answer(&self, asked: &Asked) -> Option<(u16, String)> {
        if self.is_down.load(Ordering::Relaxed) {
            return None;
        }
        let knows_us = asked
            .head
            .contains("authorization: Bearer of-the-bridge\r\n");
        if self.is_strict.load(Ordering::Relaxed) || !knows_us {
            return Some((401, json!({ "kind": "Status", "code": 401 }).to_string()));
        }
        let review: Value = serde_json::from_slice(&asked.body).unwrap();
        let path = asked.head.split(' ').nth(1).unwrap();
        let path = path.trim_end_matches('?');
        let status = match (path, &review["kind"], &review["apiVersion"]) {
            ("/apis/authentication.k8s.io/v1/tokenreviews", kind, version) => {
                assert_eq!(
                    (kind, version),
                    (&"TokenReview".into(), &"authentication.k8s.io/v1".into())
                );
                self.asked.fetch_add(1, Ordering::Relaxed);
                authenticated(&review["spec"])
            }
            ("/apis/authorization.k8s.io/v1/subjectaccessreviews", kind, version) => {
                let wanted = ("SubjectAccessReview".into(), "authorization.k8s.io/v1".into());
                assert_eq!((kind, version), (&wanted.0, &wanted.1));
                allowed(&review["spec"])
            }
            other => panic!("{other:?}"),
        };
        Some((201, json!({ "kind": review["kind"], "status": status }).to_string()))
    }
}

/// Tokens are accounts' names; one is made for another audience.
fn authenticated(spec: &Value) -> Value {
    assert_eq!(spec["audiences"], json!(["outrider.dev"]));
    let name = spec["token"].as_str().unwrap();
    if !["looker", "changer", "nobody", "late"].contains(&name) {
        return json!({ "error": "not known" });
    }
    let user =
        json!({ "username": name, "uid": "7", "groups": ["people"], "extra": { "k": ["v"] } });
    json!({ "authenticated": true, "user": user, "audiences": ["outrider.dev"] })
}

fn allowed(spec: &Value) -> Value {
    assert_eq!((&spec["groups"], &spec["extra"]), (&json!(["people"]), &json!({ "k": ["v"] })));
    let what = &spec["resourceAttributes"];
    assert_eq!((&what["group"], &what["resource"]), (&"outrider.dev".into(), &"bridges".into()));
    let may = match (spec["user"].as_str().unwrap(), what["verb"].as_str().unwrap()) {
        ("looker" | "late", "get") | ("changer", "get" | "update") => true,
        (_, "get" | "update") => false,
        other => panic!("{other:?}"),
    };
    json!({ "allowed": may })
}

/// A bridge that everybody can reach, in a cluster.
async fn start(world: &mut World, trusted: Option<&Authority>) -> (Running, Arc<Cluster>) {
    let ours = Authority::new();
    let files = ours.issue_for("127.0.0.1", &world.path().join("server"), trusted.unwrap_or(&ours));
    let cluster = Arc::new(Cluster::default());
    let serving = Arc::clone(&cluster);
    let at = serve(&files, move |asked| serving.answer(&asked)).await;
    let token = world.path().join("own-token");
    std::fs::write(&token, "of-the-bridge\n").unwrap();
    world.set("OUTRIDER_BRIDGE_REVIEW", format!("https://{at}"));
    world.set("OUTRIDER_BRIDGE_REVIEW_CA", files.ca.display().to_string());
    world.set("OUTRIDER_BRIDGE_REVIEW_TOKEN", token.display().to_string());
    world.set("OUTRIDER_BRIDGE_API", "0.0.0.0:0");
    world.pod("cache", 2);
    let bridge = world.start().await;
    bridge.proxy_is("cache", "never").await;
    (bridge, cluster)
}

async fn ask(bridge: &Running, method: &str, path: &str, token: &str) -> (u16, String) {
    let stream = TcpStream::connect(("127.0.0.1", bridge.api.port())).await;
    let bearer = format!("Bearer {token}");
    let headers = [("host", "bridge.example"), ("authorization", &bearer)];
    let (head, body) = exchange(&mut stream.unwrap(), method, path, &headers, PROTECT).await;
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_string())
}

async fn reviews(bridge: &Running, outcome: &str) -> u64 {
    let mut stream = TcpStream::connect(("127.0.0.1", bridge.metrics.port()))
        .await
        .unwrap();
    let (_, text) = exchange(&mut stream, "GET", "/metrics", &[("host", "localhost")], "").await;
    let name = format!("outrider_bridge_token_reviews_total{{outcome=\"{outcome}\"}} ");
    let mut lines = text.as_str().unwrap().lines();
    lines
        .find_map(|line| line.strip_prefix(&name))
        .unwrap()
        .parse()
        .unwrap()
}

#[tokio::test]
async fn the_cluster_says_who_may_look_and_who_may_change() {
    let mut world = World::new();
    let (bridge, cluster) = start(&mut world, None).await;
    for (method, path, token, expected, said) in [
        ("GET", "/v1/status", "looker", 200, ""),
        ("PUT", MODE, "looker", 403, "`update`"),
        ("GET", "/v1/status", "changer", 200, ""),
        ("PUT", MODE, "changer", 200, ""),
        ("GET", "/v1/status", "nobody", 403, "`get`"),
        ("GET", "/v1/status", "guess", 401, "not known"),
        ("PUT", MODE, "guess", 401, "not known"),
    ] {
        let (status, body) = ask(&bridge, method, path, token).await;
        assert_eq!(status, expected, "{method} {token}: {body}");
        assert!(body.contains(said), "{body}");
    }
    assert_eq!(reviews(&bridge, "allowed").await, 3);
    assert_eq!(reviews(&bridge, "not-allowed").await, 2);
    assert_eq!(reviews(&bridge, "unknown").await, 2);
    let asked = cluster.asked.load(Ordering::Relaxed);
    for _ in 0..20 {
        assert_eq!(ask(&bridge, "PUT", MODE, "changer").await.0, 200);
    }
    // Kept for half a minute, which this does not take even on a slow machine twice.
    let more = cluster.asked.load(Ordering::Relaxed) - asked;
    assert!(more <= 2, "what it said is kept: {more}");
    bridge.stop().await;
}

async fn only_who_was_known_gets_in(in_the_way: impl Fn(&Cluster) -> &AtomicBool) {
    let mut world = World::new();
    let (bridge, cluster) = start(&mut world, None).await;
    until_in(&bridge, "looker").await;
    in_the_way(&cluster).store(true, Ordering::Relaxed);
    nothing_new_is_known(&bridge).await;
    assert_eq!(ask(&bridge, "GET", "/v1/status", "looker").await.0, 200);
    assert!(reviews(&bridge, "failed").await >= 2);
    // Nobody asks for a token on the bridge's own socket.
    assert_eq!(bridge.ask("PUT", MODE, PROTECT).await.0, 200);
    in_the_way(&cluster).store(false, Ordering::Relaxed);
    until_in(&bridge, "late").await;
    bridge.stop().await;
}

async fn nothing_new_is_known(bridge: &Running) {
    let (status, body) = ask(bridge, "GET", "/v1/status", "late").await;
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("counts for nothing"), "{body}");
    assert_eq!(ask(bridge, "PUT", MODE, "looker").await.0, 503);
}

async fn until_in(bridge: &Running, token: &str) {
    let known = async {
        while ask(bridge, "GET", "/v1/status", token).await.0 != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, known).await.unwrap();
}

#[tokio::test]
async fn while_the_cluster_is_away_only_who_was_known_gets_in() {
    Box::pin(only_who_was_known_gets_in(|cluster| &cluster.is_down)).await;
}

#[tokio::test]
async fn while_the_cluster_does_not_know_the_bridge_only_who_was_known_gets_in() {
    Box::pin(only_who_was_known_gets_in(|cluster| &cluster.is_strict)).await;
}

#[tokio::test]
async fn a_server_that_cannot_prove_its_name_is_not_asked() {
    let mut world = World::new();
    let (bridge, cluster) = start(&mut world, Some(&Authority::new())).await;
    assert_eq!(ask(&bridge, "GET", "/v1/status", "looker").await.0, 503);
    assert_eq!(cluster.asked.load(Ordering::Relaxed), 0);
    bridge.stop().await;
}
