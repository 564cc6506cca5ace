//! The policy that the API server itself holds pods to, without any webhook.

use std::{io::Write as _, process::Stdio};

use kube::Client;
use outrider_agent_bridge::inject::Decision;
use serde_json::{Value, json};

use crate::{
    apiserver::ApiServer,
    apply::applied,
    golden::{self, Case},
    kubernetes::{ask, until},
};

/// What the chart makes of it.
fn policy() -> String {
    let spec = include_str!("../../../charts/outrider/files/backstop.yaml")
        .replace("IGNORED", r#"["kube-system"]"#)
        .replace("INIT", "registry.example/outrider-init")
        .replace("PROXY", "registry.example/outrider-proxy")
        .replace("EXEMPT", "false");
    let spec: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicy\n\
         metadata: {{name: outrider}}\nspec:\n{spec}---\n\
         apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicyBinding\n\
         metadata: {{name: outrider}}\n\
         spec: {{policyName: outrider, validationActions: [Deny, Audit]}}\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_of_enforced_namespaces_carry_ours_though_nobody_asks_the_webhook() {
    const FLAGS: [&str; 2] = ["--allow-privileged", "--disable-admission-plugins=ServiceAccount"];
    let Some(server) = ApiServer::start_with(&FLAGS).await else { return };
    let Some(mut kubectl) = server.kubectl() else { return };
    let mut applied = kubectl
        .args(["apply", "--filename=-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    applied
        .stdin
        .take()
        .unwrap()
        .write_all(policy().as_bytes())
        .unwrap();
    assert!(applied.wait().unwrap().success());
    let client = server.client().await;
    for (name, annotations) in
        [("shop", json!({})), ("exempt", json!({ "outrider.dev/exempt": "net-raw" }))]
    {
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name,
            "labels": { "outrider.dev/injection": "enforced" }, "annotations": annotations } });
        ask(&client, "POST", "/api/v1/namespaces", &namespace)
            .await
            .unwrap();
    }
    let cases = golden::cases();
    let plain = cases.iter().find(|case| case.name == "plain").unwrap();
    until("the policy holds", async || create(&client, "shop", plain.pod()).await.is_err()).await;
    whole(&client, &cases).await;
    spoilt(&client, &injected(plain).unwrap()).await;
    changed(&client, &injected(plain).unwrap()).await;
}

async fn create(client: &Client, namespace: &str, pod: &Value) -> Result<Value, String> {
    let mut pod = pod.clone();
    pod["metadata"]["namespace"] = namespace.into();
    (pod["apiVersion"], pod["kind"]) = ("v1".into(), "Pod".into());
    ask(client, "POST", &format!("/api/v1/namespaces/{namespace}/pods?dryRun=All"), &pod).await
}

/// A case's pod as the webhook makes it.
fn injected(case: &Case) -> Option<Value> {
    match case.decide(case.pod()) {
        Decision::Inject(made) => Some(applied(case.pod(), &made.patch)),
        _ => None,
    }
}

/// What the webhook injects passes.
async fn whole(client: &Client, cases: &[Case]) {
    let mut wrong = Vec::new();
    for case in cases {
        let Some(pod) = injected(case) else { continue };
        let is_exempt = case.said.to_string().contains("exempt\":");
        let namespace = if is_exempt { "exempt" } else { "shop" };
        if let Err(said) = create(client, namespace, &pod).await {
            wrong.push(format!("{}: {said}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What gets around it does not; what the webhook leaves alone is left alone.
async fn spoilt(client: &Client, good: &Value) {
    let context = "/spec/containers/0/securityContext";
    let spoil: [(&str, Value, bool); 14] = [
        ("/spec/initContainers/0/image", "registry.example/outrider-init@sha256:00".into(), true),
        ("/spec/initContainers/0/image", "evil.example/outrider-init:1".into(), false),
        ("/spec/initContainers/0/args", json!(["cleanup"]), false),
        ("/spec/initContainers/0/securityContext/capabilities/add", json!([]), false),
        ("/spec/initContainers/1/image", "registry.example/outrider-proxy-evil:1".into(), false),
        ("/spec/initContainers/1/command", json!(["/bin/sh"]), false),
        ("/spec/initContainers/1/securityContext/runAsUser", 1000.into(), false),
        ("/spec/initContainers/1/name", "other".into(), false),
        ("/spec/hostPID", true.into(), false),
        ("/spec/shareProcessNamespace", true.into(), false),
        ("/spec/securityContext", json!({ "fsGroup": 1771 }), false),
        (context, json!({ "runAsUser": 1771 }), false),
        (context, json!({ "capabilities": { "add": ["cap_net_raw"] } }), false),
        (context, json!({ "privileged": true }), false),
    ];
    for (path, value, passes) in spoil {
        let mut pod = good.clone();
        let (holder, field) = path.rsplit_once('/').unwrap();
        pod.pointer_mut(holder).unwrap()[field] = value.clone();
        match create(client, "shop", &pod).await {
            Ok(_) if passes => {}
            Err(said) if !passes && said.contains("outrider: ") => {}
            other => panic!("{path} {value}: {other:?}"),
        }
    }
    let mut host = json!({ "metadata": { "name": "host" },
        "spec": { "hostNetwork": true, "containers": [{ "name": "app", "image": "app:1" }] } });
    create(client, "shop", &host).await.unwrap();
    host["spec"]["hostNetwork"] = false.into();
    assert!(create(client, "shop", &host).await.is_err());
}

/// A pod that is there may be changed, but not so that it gets around.
async fn changed(client: &Client, good: &Value) {
    let mut pod = good.clone();
    pod["metadata"] = json!({ "name": "there" });
    (pod["apiVersion"], pod["kind"]) = ("v1".into(), "Pod".into());
    let there = "/api/v1/namespaces/shop/pods/there";
    ask(client, "POST", "/api/v1/namespaces/shop/pods", &pod)
        .await
        .unwrap();
    let label = json!({ "metadata": { "labels": { "a": "b" } } });
    ask(client, "PATCH", there, &label).await.unwrap();
    let image = |list: &str, name: &str| json!({ "spec": { list: [{ "name": name, "image": "other.example/x:1" }] } });
    ask(client, "PATCH", there, &image("containers", "app"))
        .await
        .unwrap();
    let ours = image("initContainers", "outrider-proxy");
    assert!(
        ask(client, "PATCH", there, &ours)
            .await
            .unwrap_err()
            .contains("outrider: ")
    );
    let debug = async |context: Value| {
        let container = json!({ "name": "debug", "image": "busybox", "securityContext": context });
        let change = json!({ "spec": { "ephemeralContainers": [container] } });
        ask(client, "PATCH", &format!("{there}/ephemeralcontainers"), &change).await
    };
    for context in
        [json!({ "runAsUser": 1771 }), json!({ "capabilities": { "add": ["SYS_PTRACE"] } })]
    {
        assert!(debug(context).await.unwrap_err().contains("outrider: "));
    }
    debug(json!({})).await.unwrap();
}
