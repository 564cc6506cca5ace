//! The shapes of pods before a real API server, which calls the webhook and checks what comes of it, in dry run.

use futures_util::{StreamExt, stream};
use kube::Client;
use outrider_agent_bridge::{
    inject::Decision,
    webhook::{Terms, settings::Namespaces},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    apiserver::ApiServer,
    apply,
    golden::{self, Case},
    kubernetes::{ask, until},
    world::{World, settings},
};

/// A label of ours by which the API server finds the webhook that stands for a case's cluster.
const GROUP: &str = "outrider-test-group";
const REGISTRATIONS: &str = "/apis/admissionregistration.k8s.io/v1";
const KINDS: [(&str, &str, &str); 2] = [
    ("MutatingWebhookConfiguration", "mutatingwebhookconfigurations", "/inject"),
    ("ValidatingWebhookConfiguration", "validatingwebhookconfigurations", "/validate"),
];
/// Asked at a time.
const AT_ONCE: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_injected_is_accepted_by_a_real_api_server() {
    let Some(server) = ApiServer::start_with(&["--allow-privileged"]).await else { return };
    let client = server.client().await;
    // What is no pod at all never comes as far as a webhook.
    let cases: Vec<_> = golden::cases()
        .into_iter()
        .filter(|case| case.name != "malformed")
        .collect();
    let mut clusters: Vec<Value> = cases
        .iter()
        .map(|case| case.said["cluster"].clone())
        .collect();
    clusters.sort_by_key(Value::to_string);
    clusters.dedup();
    let group = |case: &Case| {
        clusters
            .iter()
            .position(|of| *of == case.said["cluster"])
            .unwrap()
    };
    let namespaces: Vec<_> = cases
        .iter()
        .map(|case| namespace(case, group(case)))
        .collect();
    stream::iter(&namespaces)
        .for_each_concurrent(AT_ONCE, |namespace| made(&client, namespace))
        .await;
    let list = json!({ "items": namespaces }).to_string();
    let (mut worlds, mut entries) = (Vec::new(), Vec::new());
    for (at, said) in clusters.iter().enumerate() {
        let (world, entry) = webhook(said, at, &list).await;
        worlds.push(world);
        entries.push(entry);
    }
    register(&client, &entries).await;
    let plain = cases.iter().find(|case| case.name == "plain").unwrap();
    // The API server takes a moment to hear of the webhook.
    until("the webhook is called", async || {
        created(&client, plain)
            .await
            .is_ok_and(|pod| has_ours(&pod))
    })
    .await;
    let mut wrong: Vec<_> = stream::iter(&cases)
        .map(|case| async {
            let why = wrong(&client, case).await?;
            Some(format!("{}: {why}", case.name))
        })
        .buffer_unordered(AT_ONCE)
        .filter_map(std::future::ready)
        .collect()
        .await;
    let injected = cases
        .iter()
        .filter(|case| matches!(case.decide(case.pod()), Decision::Inject(_)));
    assert!(injected.count() >= 40, "shapes");
    wrong.extend(debugged(&client).await.err());
    for world in worlds {
        world.end().await;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A namespace with the accounts that its pods name.
async fn made(client: &Client, namespace: &Value) {
    ask(client, "POST", "/api/v1/namespaces", namespace)
        .await
        .unwrap();
    let name = namespace["metadata"]["name"].as_str().unwrap();
    for account in ["default", "shop"] {
        let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": { "name": account } });
        let path = format!("/api/v1/namespaces/{name}/serviceaccounts");
        ask(client, "POST", &path, &account).await.unwrap();
    }
}

/// Makes the API server call us, for changes and for a last look.
async fn register(client: &Client, entries: &[Value]) {
    for (kind, plural, path) in KINDS {
        let mut entries = entries.to_vec();
        for entry in &mut entries {
            let url = entry["clientConfig"]["url"].as_str().unwrap().to_owned();
            entry["clientConfig"]["url"] = (url + path).into();
            if path == "/inject" {
                entry["reinvocationPolicy"] = "IfNeeded".into();
            }
        }
        let registered = json!({ "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
            "metadata": { "name": "outrider-test" }, "webhooks": entries });
        ask(client, "POST", &format!("{REGISTRATIONS}/{plural}"), &registered)
            .await
            .unwrap();
    }
}

/// A pod that is there, with a container to look into it: one that is fine, and ones that get around the proxy.
async fn debugged(client: &Client) -> Result<(), String> {
    let pods = "/api/v1/namespaces/plain/pods";
    let there = format!("{pods}/there");
    let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "there" },
        "spec": { "containers": [{ "name": "app", "image": "app:1" }] } });
    ask(client, "POST", pods, &pod).await?;
    let debug = async |container: Value| {
        let path = format!("{there}/ephemeralcontainers");
        let change = json!({ "spec": { "ephemeralContainers": [container] } });
        ask(client, "PATCH", &path, &change).await
    };
    let pod = debug(json!({ "name": "fine", "image": "busybox" })).await?;
    let drop = &pod["spec"]["ephemeralContainers"][0]["securityContext"]["capabilities"]["drop"];
    assert_eq!(*drop, json!(["NET_RAW"]), "{}", pod["spec"]["ephemeralContainers"]);
    let context =
        |context: Value| json!({ "name": "bad", "image": "busybox", "securityContext": context });
    for container in [
        json!({ "name": "bad", "image": "busybox", "targetContainerName": "outrider-proxy" }),
        context(json!({ "capabilities": { "add": ["NET_ADMIN"] } })),
        context(json!({ "privileged": true })),
        context(json!({ "runAsUser": 1771 })),
    ] {
        match debug(container.clone()).await {
            Err(said) if said.contains("outrider: ") => {}
            other => return Err(format!("{container}: {other:?}")),
        }
    }
    // Our image may not be changed, the application's may.
    let set = async |list: &str, name: &str, image: &str| {
        let change = json!({ "spec": { list: [{ "name": name, "image": image }] } });
        ask(client, "PATCH", &there, &change).await
    };
    set("containers", "app", "app:2").await?;
    match set("initContainers", "outrider-proxy", "evil.example/proxy").await {
        Err(said) if said.contains("outrider: ") => Ok(()),
        other => Err(format!("image: {other:?}")),
    }
}

/// What is wrong with what the API server made of a case.
async fn wrong(client: &Client, case: &Case) -> Option<String> {
    let made = created(client, case).await;
    match (case.decide(case.pod()), made) {
        (Decision::Refuse(_), Err(said)) if said.contains("outrider: ") => None,
        (Decision::Skip(_), Ok(pod)) => has_ours(&pod).then(|| "injected all the same".to_owned()),
        (Decision::Inject(_), Ok(pod)) => match case.decide(&pod) {
            Decision::Inject(again) if again.patch.is_empty() => {
                case.validate(&pod).err().map(|why| why.join("; "))
            }
            other => Some(format!("a second pass would do more: {other:?}")),
        },
        (decided, made) => Some(format!("{decided:?}, but the API server: {made:?}")),
    }
}

async fn created(client: &Client, case: &Case) -> Result<Value, String> {
    let mut pod = case.pod().clone();
    pod["metadata"]["namespace"] = case.name.as_str().into();
    (pod["apiVersion"], pod["kind"]) = ("v1".into(), "Pod".into());
    ask(client, "POST", &format!("/api/v1/namespaces/{}/pods?dryRun=All", case.name), &pod).await
}

fn has_ours(pod: &Value) -> bool {
    pod["spec"].to_string().contains("outrider-proxy")
}

fn namespace(case: &Case, group: usize) -> Value {
    let said = &case.said["namespace"];
    let mut labels = said["labels"].clone();
    labels[GROUP] = group.to_string().into();
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": {
        "name": case.name, "labels": labels, "annotations": said["annotations"] } })
}

/// A webhook for the cases of one cluster, and its entry in the configuration.
async fn webhook(said: &Value, group: usize, namespaces: &str) -> (World, Value) {
    let dir = TempDir::new().unwrap();
    let list = dir.path().join("namespaces.json");
    std::fs::write(&list, namespaces).unwrap();
    let mut settings = settings(dir.path());
    settings.names = vec!["127.0.0.1".to_owned()];
    settings.namespaces = Namespaces::File(list);
    settings.cluster = apply::cluster(said);
    if !settings.cluster.ignored.is_empty() {
        settings.cluster.ignored = vec!["ignored-namespace".to_owned()];
    }
    let world = World::start(dir, settings, Terms::default()).await;
    let bundle = std::fs::read(world.dir.path().join("bundle.pem")).unwrap();
    let entry = json!({
        "name": format!("group-{group}.test.outrider.dev"),
        "clientConfig": {
            "url": format!("https://127.0.0.1:{}", world.address.port()),
            "caBundle": k8s_openapi::ByteString(bundle),
        },
        "rules": [{ "operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"],
            "resources": ["pods", "pods/ephemeralcontainers"] }],
        "namespaceSelector": { "matchLabels": { GROUP: group.to_string() } },
        "failurePolicy": "Fail", "sideEffects": "NoneOnDryRun", "timeoutSeconds": 30,
        "admissionReviewVersions": ["v1"],
    });
    (world, entry)
}
