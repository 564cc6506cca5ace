//! The webhook beside a real API server, which calls it.

use std::time::Duration;

use hyper::{Request, StatusCode};
use kube::Client;
use outrider_agent_bridge::{cluster::client::Source, webhook::Terms};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::{
    apiserver::ApiServer,
    apply::pod,
    world::{NAME, PATIENCE, World, review, settings},
};

/// Asks the API server; what it says if it refuses.
pub(crate) async fn ask(
    client: &Client,
    method: &str,
    path: &str,
    body: &Value,
) -> Result<Value, String> {
    let kind = match (method, &body["webhooks"]) {
        ("PATCH", Value::Null) => "application/strategic-merge-patch+json",
        ("PATCH", _) => "application/merge-patch+json",
        _ => "application/json",
    };
    let text = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let request = Request::builder().method(method).uri(path);
    let request = request.header("content-type", kind).body(text).unwrap();
    client
        .request(request)
        .await
        .map_err(|error| error.to_string())
}

/// Waits until it holds.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE * 2;
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(50)).await;
    }
}

const REGISTRATIONS: &str = "/apis/admissionregistration.k8s.io/v1";
const KINDS: [(&str, &str, &str); 2] = [
    ("MutatingWebhookConfiguration", "mutatingwebhookconfigurations", "inject"),
    ("ValidatingWebhookConfiguration", "validatingwebhookconfigurations", "validate"),
];

/// What the chart registers, an entry a replica.
async fn register(client: &Client, worlds: &[World]) {
    for (kind, plural, path) in KINDS {
        let entries = worlds.iter().enumerate().map(|(at, world)| {
            let url = format!("https://{}/{path}", world.address);
            json!({
                "name": format!("replica-{at}.test.outrider.dev"),
                "clientConfig": { "url": url },
                "rules": [{ "operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"],
                    "resources": ["pods"] }],
                "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "shop" } },
                "failurePolicy": "Fail", "sideEffects": "NoneOnDryRun", "timeoutSeconds": 30,
                "admissionReviewVersions": ["v1"],
            })
        });
        let registered = json!({ "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
            "metadata": { "name": "outrider" }, "webhooks": entries.collect::<Vec<_>>() });
        ask(client, "POST", &format!("{REGISTRATIONS}/{plural}"), &registered)
            .await
            .unwrap();
    }
}

async fn replica(server: &ApiServer, terms: Terms) -> World {
    let dir = TempDir::new().unwrap();
    let mut settings = settings(dir.path());
    settings.names = vec![NAME.to_owned(), "127.0.0.1".to_owned()];
    settings.kube = Some(Source::File(server.kubeconfig()));
    settings.cluster.kubernetes = None;
    World::start(dir, settings, terms).await
}

/// Authorities that each entry holds.
async fn authorities(client: &Client) -> Vec<usize> {
    let mut counts = Vec::new();
    for (_, plural, _) in KINDS {
        let path = format!("{REGISTRATIONS}/{plural}/outrider");
        let found = ask(client, "GET", &path, &Value::Null).await.unwrap();
        for entry in found["webhooks"].as_array().unwrap() {
            let bundle = &entry["clientConfig"]["caBundle"];
            let bundle: k8s_openapi::ByteString =
                serde_json::from_value(bundle.clone()).unwrap_or_default();
            let text = String::from_utf8(bundle.0).unwrap();
            counts.push(text.matches("BEGIN CERTIFICATE").count());
        }
    }
    counts
}

fn namespace(injection: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Namespace",
        "metadata": { "name": "shop", "labels": { "outrider.dev/injection": injection } } })
}

fn question() -> Value {
    let mut pod = pod(json!({ "name": "app", "image": "app:1" }));
    (pod["apiVersion"], pod["kind"]) = ("v1".into(), "Pod".into());
    pod
}

const PODS: &str = "/api/v1/namespaces/shop/pods";
const RENEWED: &str = "outrider_webhook_certificate_loads_total{outcome=\"good\"}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_api_server_is_served_through_rotations_and_its_own_absence() {
    let Some(mut server) = ApiServer::start().await else { return };
    let client = server.client().await;
    ask(&client, "POST", "/api/v1/namespaces", &namespace("enforced"))
        .await
        .unwrap();
    let terms = Terms {
        life: Duration::from_secs(3600),
        renew: Duration::from_secs(2),
        settle: Duration::from_secs(2),
    };
    let worlds = [replica(&server, terms).await, replica(&server, terms).await];
    register(&client, &worlds).await;
    for world in &worlds {
        until("ready", async || world.health("/healthz/ready").await.0 == StatusCode::OK).await;
    }
    rotate(&client, &worlds).await;
    mended(&client).await;
    told(&client).await;
    away(&mut server, &worlds[0]).await;
    for world in worlds {
        world.end().await;
    }
}

/// Every pod passes four times, through both replicas, whatever certificate they have by then.
async fn rotate(client: &Client, worlds: &[World]) {
    let mut asked = 0;
    until("three renewals of each", async || {
        let made = ask(client, "POST", &format!("{PODS}?dryRun=All"), &question()).await;
        let made = made.unwrap_or_else(|said| panic!("after {asked}: {said}"));
        assert!(made["spec"]["initContainers"][1]["name"] == "outrider-proxy", "{made}");
        asked += 1;
        worlds[0].count(RENEWED).await >= 4 && worlds[1].count(RENEWED).await >= 4
    })
    .await;
    eprintln!("{asked} admissions");
    let held = authorities(client).await;
    assert!(held.iter().all(|count| (2..=4).contains(count)), "{held:?}");
}

/// Somebody else writes the configuration, as an upgrade does, without the bundles.
async fn mended(client: &Client) {
    let path = format!("{REGISTRATIONS}/mutatingwebhookconfigurations/outrider");
    let mut found = ask(client, "GET", &path, &Value::Null).await.unwrap();
    for entry in found["webhooks"].as_array_mut().unwrap() {
        entry["clientConfig"]["caBundle"] = Value::Null;
    }
    let webhooks = found["webhooks"].take();
    ask(client, "PATCH", &path, &json!({ "webhooks": webhooks }))
        .await
        .unwrap();
    until("mended", async || authorities(client).await.iter().all(|count| *count >= 2)).await;
    until("believed", async || {
        ask(client, "POST", &format!("{PODS}?dryRun=All"), &question())
            .await
            .is_ok()
    })
    .await;
}

/// Refusals are events on what makes the pod; what is only tried is not told.
async fn told(client: &Client) {
    let mut bad = question();
    bad["metadata"]["annotations"] = json!({ "outrider.dev/logLevel": "loud" });
    for (path, name) in [(format!("{PODS}?dryRun=All"), "tried"), (PODS.to_owned(), "made")] {
        bad["metadata"]["ownerReferences"] = json!([{ "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "name": name, "uid": "7a1c", "controller": true }]);
        let said = ask(client, "POST", &path, &bad).await.unwrap_err();
        assert!(said.contains("outrider.dev/logLevel is \"loud\""), "{said}");
    }
    let events = async || {
        let path = "/api/v1/namespaces/shop/events";
        let found = ask(client, "GET", path, &Value::Null).await.unwrap();
        let items = found["items"].as_array().unwrap().clone();
        items
            .into_iter()
            .filter(|event| event["reason"] == "PodRefused")
            .map(|event| event["involvedObject"]["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    until("an event", async || !events().await.is_empty()).await;
    assert_eq!(events().await, ["made"]);
}

/// Without the API server the last list holds, and its age is said; then it is followed again.
async fn away(server: &mut ApiServer, world: &World) {
    let asked = review(&pod(json!({ "name": "app" })));
    let injected = async || world.ask("/inject", &asked).await.1["response"]["patch"].is_string();
    server.pause();
    let old = async || {
        let (status, said) = world.health("/healthz/ready").await;
        assert_eq!(status, StatusCode::OK, "{said}");
        said.contains("namespaces as they were")
    };
    until("its age", async || old().await).await;
    assert!(injected().await);
    server.resume().await;
    until("followed again", async || !old().await).await;
    let client = server.client().await;
    let changed = json!({ "metadata": { "labels": { "outrider.dev/injection": "disabled" } } });
    ask(&client, "PATCH", "/api/v1/namespaces/shop", &changed)
        .await
        .unwrap();
    until("the change", async || !injected().await).await;
}
