//! The shapes of pods before a real API server, which calls the webhook and checks what comes of it, in dry run.
//!
//! Needs a cluster that KUBECONFIG names, kubectl, and in `OUTRIDER_WEBHOOK_HOST` the address that its API server
//! reaches this machine by. Without them it says SKIPPED.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use outrider_agent_bridge::{
    inject::Decision,
    webhook::{Terms, settings::Namespaces},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    task::block_in_place,
    time::{Duration, Instant, sleep},
};

use crate::{
    apply,
    golden::{self, Case},
    world::{PATIENCE, World, settings},
};

/// A label of ours by which the API server finds the webhook that stands for a case's cluster.
const GROUP: &str = "outrider-test-group";
const CONFIGURATION: &str = "outrider-test";
const KINDS: [(&str, &str); 2] =
    [("MutatingWebhookConfiguration", "/inject"), ("ValidatingWebhookConfiguration", "/validate")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_injected_is_accepted_by_a_real_api_server() {
    let Ok(host) = std::env::var("OUTRIDER_WEBHOOK_HOST") else {
        eprintln!("SKIPPED: no OUTRIDER_WEBHOOK_HOST");
        return;
    };
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
    let list = json!({ "items": namespaces }).to_string();
    for namespace in &namespaces {
        kubectl(&["apply", "--filename=-"], namespace).unwrap();
        for account in ["default", "shop"] {
            let metadata = json!({ "name": account, "namespace": namespace["metadata"]["name"] });
            let account =
                json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata });
            kubectl(&["apply", "--filename=-"], &account).unwrap();
        }
    }
    let (mut worlds, mut entries) = (Vec::new(), Vec::new());
    for (at, said) in clusters.iter().enumerate() {
        let (world, entry) = webhook(said, at, &host, &list).await;
        worlds.push(world);
        entries.push(entry);
    }
    register(&entries);
    let mut wrong = all(&cases).await;
    wrong.extend(debugged().err());
    for (kind, _) in KINDS {
        kubectl(&["delete", kind, CONFIGURATION], &Value::Null).unwrap();
    }
    for namespace in &namespaces {
        let name = namespace["metadata"]["name"].as_str().unwrap();
        kubectl(&["delete", "namespace", name, "--wait=false"], &Value::Null).unwrap();
    }
    for world in worlds {
        world.end().await;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Makes the API server call us, for changes and for a last look.
fn register(entries: &[Value]) {
    for (kind, path) in KINDS {
        let mut entries = entries.to_vec();
        for entry in &mut entries {
            let url = entry["clientConfig"]["url"].as_str().unwrap().to_owned();
            entry["clientConfig"]["url"] = (url + path).into();
            if path == "/inject" {
                entry["reinvocationPolicy"] = "IfNeeded".into();
            }
        }
        let registered = json!({ "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
            "metadata": { "name": CONFIGURATION }, "webhooks": entries });
        kubectl(&["apply", "--filename=-"], &registered).unwrap();
    }
}

async fn all(cases: &[Case]) -> Vec<String> {
    // The API server takes a moment to hear of the webhook.
    let plain = cases.iter().find(|case| case.name == "plain").unwrap();
    let deadline = Instant::now() + PATIENCE;
    while created(plain).is_ok_and(|pod| !has_ours(&pod)) {
        assert!(Instant::now() < deadline, "the webhook is not called");
        sleep(Duration::from_millis(200)).await;
    }
    cases
        .iter()
        .filter_map(|case| wrong(case).map(|why| format!("{}: {why}", case.name)))
        .collect()
}

/// A pod that is there, with a container to look into it: one that is fine, and one that joins the proxy.
fn debugged() -> Result<(), String> {
    let namespace = namespace_name("plain");
    let here = format!("--namespace={namespace}");
    let debug = |name: &str, more: &[&str]| {
        let arguments = [
            &["debug", &here, "pod/there", "--image=busybox", "--container"],
            &[name, "--attach=false", "--quiet"][..],
            more,
        ];
        kubectl(&arguments.concat(), &Value::Null)
    };
    let pod = json!({ "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "there", "namespace": namespace },
        "spec": { "containers": [{ "name": "app", "image": "app:1" }] } });
    kubectl(&["create", "--filename=-"], &pod)?;
    debug("fine", &["--profile=legacy"])?;
    let get = ["get", "pod", "there", &here, "--output=json"];
    let pod: Value = serde_json::from_str(&kubectl(&get, &Value::Null)?).unwrap();
    let drop = &pod["spec"]["ephemeralContainers"][0]["securityContext"]["capabilities"]["drop"];
    assert_eq!(*drop, json!(["NET_RAW"]), "{}", pod["spec"]["ephemeralContainers"]);
    for (name, more) in [
        ("joins", "--target=outrider-proxy"),
        ("admin", "--profile=netadmin"),
        ("root", "--profile=sysadmin"),
    ] {
        match debug(name, &[more]) {
            Err(said) if said.contains("outrider: ") => {}
            other => return Err(format!("{name}: {other:?}")),
        }
    }
    // Our image may not be changed, the application's may.
    let set = |image: &str| kubectl(&["set", "image", &here, "pod/there", image], &Value::Null);
    set("app=app:2")?;
    match set("outrider-proxy=evil.example/proxy") {
        Err(said) if said.contains("outrider: ") => Ok(()),
        other => Err(format!("image: {other:?}")),
    }
}

/// What is wrong with what the API server made of a case.
fn wrong(case: &Case) -> Option<String> {
    let made = created(case);
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

fn created(case: &Case) -> Result<Value, String> {
    let mut pod = case.pod().clone();
    pod["metadata"]["namespace"] = name(case).into();
    let text = kubectl(&["create", "--dry-run=server", "--output=json", "--filename=-"], &pod)?;
    serde_json::from_str(&text).map_err(|error| error.to_string())
}

fn has_ours(pod: &Value) -> bool {
    pod["spec"].to_string().contains("outrider-proxy")
}

fn name(case: &Case) -> String {
    namespace_name(&case.name)
}

/// Of this run only: a cluster may take long to forget a namespace.
fn namespace_name(case: &str) -> String {
    format!("{case}-{}", std::process::id())
}

fn namespace(case: &Case, group: usize) -> Value {
    let said = &case.said["namespace"];
    let mut labels = said["labels"].clone();
    labels[GROUP] = group.to_string().into();
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": {
        "name": name(case), "labels": labels, "annotations": said["annotations"] } })
}

/// A webhook for the cases of one cluster, and its entry in the configuration.
async fn webhook(said: &Value, group: usize, host: &str, namespaces: &str) -> (World, Value) {
    let dir = TempDir::new().unwrap();
    let list = dir.path().join("namespaces.json");
    std::fs::write(&list, namespaces).unwrap();
    let mut settings = settings(dir.path());
    settings.listen = ([0, 0, 0, 0], 0).into();
    settings.names = vec![host.to_owned()];
    settings.namespaces = Namespaces::File(list);
    settings.cluster = apply::cluster(said);
    if !settings.cluster.ignored.is_empty() {
        settings.cluster.ignored = vec![namespace_name("ignored-namespace")];
    }
    let world = World::start(dir, settings, Terms::default()).await;
    let bundle = std::fs::read(world.dir.path().join("bundle.pem")).unwrap();
    let entry = json!({
        "name": format!("group-{group}.test.outrider.dev"),
        "clientConfig": {
            "url": format!("https://{host}:{}", world.address.port()),
            "caBundle": encoded(&bundle),
        },
        "rules": [{ "operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"],
            "resources": ["pods", "pods/ephemeralcontainers"] }],
        "namespaceSelector": { "matchLabels": { GROUP: group.to_string() } },
        "failurePolicy": "Fail", "sideEffects": "None", "timeoutSeconds": 30,
        "admissionReviewVersions": ["v1"],
    });
    (world, entry)
}

fn encoded(bytes: &[u8]) -> String {
    let output = fed(Command::new("base64").arg("--wrap=0"), bytes).unwrap();
    output.trim().to_owned()
}

fn kubectl(arguments: &[&str], object: &Value) -> Result<String, String> {
    let input = if object.is_null() { String::new() } else { object.to_string() };
    block_in_place(|| fed(Command::new("kubectl").args(arguments), input.as_bytes()))
}

fn fed(command: &mut Command, input: &[u8]) -> Result<String, String> {
    let pipes = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = pipes.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout).unwrap());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}
