//! The chart against a real API server, by real Helm: every object is one, and what was installed goes in order.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use futures_util::StreamExt as _;
use k8s_openapi::api::{
    admissionregistration::v1::MutatingWebhookConfiguration, apps::v1::Deployment,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams, WatchEvent, WatchParams},
};
use serde_json::{Value, json};
use tokio::{task::spawn_blocking, time::timeout};

use crate::apiserver::ApiServer;

/// Groups of others, which this API server has no definitions of.
const FOREIGN: [&str; 3] = ["cert-manager.io", "monitoring.coreos.com", "security.openshift.io"];

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_takes_every_object_and_only_the_bridge_is_privileged() {
    let Some(server) = ApiServer::start().await else { return };
    let Some(mut kubectl) = server.kubectl() else { return eprintln!("SKIPPED: no kubectl") };
    let version = server.client().await.apiserver_version().await.unwrap();
    let version = format!("{}.{}", version.major, version.minor);
    let Some(mut objects) = rendered(&version) else { return };
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": {
        "name": "outrider", "labels": { "pod-security.kubernetes.io/warn": "restricted" } } });
    let namespaces = ["outrider", "outrider-test"].map(|name| {
        let mut namespace = namespace.clone();
        namespace["metadata"]["name"] = name.into();
        namespace
    });
    let list = |items: &[Value]| json!({ "apiVersion": "v1", "kind": "List", "items": items });
    let made = fed(kubectl.args(["create", "--filename=-"]), &list(&namespaces));
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));

    let all = objects.len();
    objects.retain(|object| {
        let group = object["apiVersion"].as_str().unwrap().split('/').next();
        !FOREIGN.contains(&group.unwrap())
    });
    assert!(objects.len() > 150 && all > objects.len(), "{} of {all}", objects.len());
    // Definitions are made for real, so that there are objects of theirs.
    let (definitions, _): (Vec<_>, Vec<_>) = objects
        .iter()
        .cloned()
        .partition(|object| object["kind"] == "CustomResourceDefinition");
    let mut kubectl = server.kubectl().unwrap();
    let apply = ["apply", "--server-side", "--filename=-"];
    let made = fed(kubectl.args(apply), &list(&definitions));
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut kubectl = server.kubectl().unwrap();
    let wait = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"];
    assert!(kubectl.args(wait).status().unwrap().success());
    let mut kubectl = server.kubectl().unwrap();
    let dry = ["apply", "--server-side", "--dry-run=server", "--filename=-"];
    let answer = fed(kubectl.args(dry), &list(&objects));
    let said = String::from_utf8_lossy(&answer.stderr);
    assert!(answer.status.success(), "{said}");
    let taken = String::from_utf8_lossy(&answer.stdout).lines().count();
    assert_eq!(taken, objects.len());
    for warning in said.lines() {
        // One set asks for the node's network.
        let asked = warning.ends_with("host namespaces (hostNetwork=true)");
        let bridge = warning.contains("container \"bridge\"");
        assert!((bridge || asked) && warning.contains("would violate PodSecurity"), "{warning}");
    }
    assert!(said.contains("would violate PodSecurity"), "the bridge is restricted by now?");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bundle_outlives_an_upgrade_and_registrations_go_first() {
    let Some(server) = ApiServer::start().await else { return };
    let Some(_there) = rendered("1.34") else { return };
    let client = server.client().await;
    let config = server.kubeconfig();
    helm(&config, &["install", "outrider", &chart(), "{}"]).await;

    let registrations = Api::<MutatingWebhookConfiguration>::all(client.clone());
    let names: Vec<_> = registered(&registrations)
        .await
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names.len(), 3);
    let bundles: Vec<_> = names
        .iter()
        .map(|name| json!({ "name": name, "clientConfig": { "caBundle": "QUJD" } }))
        .collect();
    let patch = Patch::Strategic(json!({ "webhooks": bundles }));
    registrations
        .patch("outrider", &PatchParams::default(), &patch)
        .await
        .unwrap();
    let values = r#"{"webhook":{"timeoutSeconds":7},"controller":{"replicas":3}}"#;
    helm(&config, &["upgrade", "outrider", &chart(), values]).await;
    for (name, bundle) in registered(&registrations).await {
        assert_eq!(bundle.as_deref(), Some(&b"ABC"[..]), "{name}");
    }

    let deployments = Api::<Deployment>::namespaced(client.clone(), "outrider");
    let webhook = deployments.get("outrider-webhook").await.unwrap();
    let before = webhook.resource_version().unwrap();
    helm(&config, &["uninstall", "outrider"]).await;
    let registration = deleted(&registrations, "outrider", &before).await;
    let answerer = deleted(&deployments, "outrider-webhook", &before).await;
    assert!(registration < answerer, "{registration} {answerer}");
    let left = kept(&client).await;
    assert!(left.iter().any(|name| name == "networkrules.outrider.dev"), "{left:?}");
}

/// Objects of all value sets, rendered for a version.
fn rendered(version: &str) -> Option<Vec<Value>> {
    let mut texts = Vec::new();
    for entry in fs::read_dir(root().join("charts/outrider/ci")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        let lines = text
            .lines()
            .filter(|line| !line.starts_with("kubernetesVersion"));
        let text: Vec<_> = lines.collect();
        texts.push(format!("kubernetesVersion: \"{version}\"\n{}\n", text.join("\n")));
    }
    let mut helm = Command::new(root().join("e2e/cluster/helm"));
    let answer = fed(helm.args(["render", &chart()]), &json!(texts));
    if !answer.status.success() {
        eprintln!("SKIPPED: no Helm: {}", String::from_utf8_lossy(&answer.stderr));
        return None;
    }
    let answer: Value = serde_json::from_slice(&answer.stdout).unwrap();
    let results = answer["results"].as_array().unwrap();
    let objects = results.iter().flat_map(|result| {
        result["objects"]
            .as_array()
            .unwrap_or_else(|| panic!("{}", result["error"]))
            .clone()
    });
    Some(objects.collect())
}

/// Every webhook's name and bundle.
async fn registered(
    registrations: &Api<MutatingWebhookConfiguration>,
) -> Vec<(String, Option<Vec<u8>>)> {
    let registration = registrations.get("outrider").await.unwrap();
    let webhooks = registration.webhooks.unwrap_or_default();
    let one = |webhook: k8s_openapi::api::admissionregistration::v1::MutatingWebhook| {
        (webhook.name, webhook.client_config.ca_bundle.map(|bundle| bundle.0))
    };
    webhooks.into_iter().map(one).collect()
}

/// The store's revision at which an object went, by its history since another one.
async fn deleted<K>(objects: &Api<K>, name: &str, since: &str) -> u64
where
    K: kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let params = WatchParams::default().timeout(60);
    let mut events = objects.watch(&params, since).await.unwrap().boxed();
    let find = async {
        while let Some(event) = events.next().await {
            if let WatchEvent::Deleted(object) = event.unwrap()
                && object.meta().name.as_deref() == Some(name)
            {
                return object.meta().resource_version.clone().unwrap();
            }
        }
        panic!("{name} was not deleted")
    };
    let revision = timeout(std::time::Duration::from_secs(60), find)
        .await
        .unwrap();
    revision.parse().unwrap()
}

/// Names of the definitions that are there.
async fn kept(client: &Client) -> Vec<String> {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    let all = definitions
        .list(&kube::api::ListParams::default())
        .await
        .unwrap();
    all.iter().map(kube::ResourceExt::name_any).collect()
}

async fn helm(config: &Path, arguments: &[&str]) {
    let mut command = Command::new(root().join("e2e/cluster/helm"));
    command.args(arguments).env("KUBECONFIG", config);
    command
        .env("HELM_NAMESPACE", "outrider")
        .env("HELM_WAIT", "hookOnly");
    let what = format!("{arguments:?}");
    let output = spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
}

fn fed(command: &mut Command, input: &Value) -> Output {
    let pipes = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = pipes.spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.to_string().as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

fn chart() -> String {
    root().join("charts/outrider").display().to_string()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}
