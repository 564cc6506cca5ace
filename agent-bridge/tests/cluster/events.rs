//! Events on what owns a pod, each once.

use k8s_openapi::api::{
    apps::v1::ReplicaSet,
    core::v1::{Event, Pod},
};
use kube::{
    ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use outrider_api::cluster::{Applied, Conversation, Observed, Side, WorkloadState};
use serde_json::{Value, json};

use crate::{
    bridge::Bridge,
    world::{World, eventually},
};

fn owned(kind: &str, name: &str) -> Value {
    json!([{ "apiVersion": "apps/v1", "kind": kind, "name": name, "uid": format!("uid-{name}"), "controller": true }])
}

/// A pod of a Deployment, by way of a ReplicaSet.
async fn pod(world: &World, name: &str, [node, ip]: [&str; 2], containers: &Value) -> Pod {
    let set = json!({
        "metadata": { "name": format!("{name}-5d4f8"), "ownerReferences": owned("Deployment", name) },
        "spec": { "selector": { "matchLabels": { "app": name } }, "template": {
            "metadata": { "labels": { "app": name } },
            "spec": { "containers": [{ "name": "app", "image": "x" }] },
        } },
    });
    world.create::<ReplicaSet>(world.of("shop"), set).await;
    let pod = format!("{name}-5d4f8-x7x2p");
    let object = json!({
        "metadata": { "name": pod, "ownerReferences": owned("ReplicaSet", &format!("{name}-5d4f8")),
            "labels": { "app": name, "pod-template-hash": "5d4f8", "outrider.dev/inject": "true" } },
        "spec": { "nodeName": node, "containers": containers },
    });
    world.create::<Pod>(world.of("shop"), object).await;
    let status = json!({ "status": { "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }] } });
    let pods = world.of::<Pod>("shop");
    pods.patch_status(&pod, &PatchParams::default(), &Patch::Merge(status))
        .await
        .unwrap()
}

/// Events of a reason on a Deployment.
async fn said(world: &World, reason: &str, name: &str) -> Vec<String> {
    let selector = format!(
        "involvedObject.kind=Deployment,involvedObject.name={name},involvedObject.uid=uid-{name},reason={reason}"
    );
    let list = ListParams::default().fields(&selector);
    let found = world.of::<Event>("shop").list(&list).await.unwrap();
    found
        .into_iter()
        .map(|event| event.message.unwrap_or_default())
        .collect()
}

/// One that asks for a proxy and has none, since before there was a controller.
pub(crate) async fn bare_pod(world: &World) {
    pod(world, "bare", ["n3", "10.0.0.12"], &json!([{ "name": "app", "image": "x" }])).await;
}

pub(crate) async fn are_on_the_workload(world: &World, bridge: &Bridge) {
    let proxied =
        json!([{ "name": "app", "image": "x" }, { "name": "outrider-proxy", "image": "x" }]);
    let uid = pod(world, "api", ["n1", "10.0.0.11"], &proxied)
        .await
        .uid()
        .unwrap();
    let mut batch = 1_000_000;
    // Until the controller knows the pod it takes nothing from its node about it.
    for (mode, refused, reason) in
        [("discover", "too many rules", "PolicyRefused"), ("protect", "", "ModeChanged")]
    {
        let state = WorkloadState {
            uid: uid.clone(),
            mode: mode.into(),
            refused: refused.into(),
            connected: true,
            ..WorkloadState::default()
        };
        let applied = Applied { workloads: vec![state], ..Applied::default() };
        eventually(reason, async || {
            bridge.apply(applied.clone()).await;
            (!said(world, reason, "api").await.is_empty()).then_some(())
        })
        .await;
    }
    let conversation = Conversation {
        from: "nv.intruder.elsewhere".into(),
        to: "nv.api.shop".into(),
        proto: 6,
        port: 8080,
        side: Side::Server.into(),
        sessions: 2,
        violations: 2,
        ..Conversation::default()
    };
    eventually("the violation", async || {
        batch += 1;
        let conversations = vec![conversation.clone()];
        bridge.observe(Observed { batch, conversations }).await;
        (!said(world, "PolicyViolated", "api").await.is_empty()).then_some(())
    })
    .await;
    eventually("the pod without a proxy", async || {
        (!said(world, "NotInjected", "bare").await.is_empty()).then_some(())
    })
    .await;
    for reason in ["PolicyRefused", "ModeChanged", "PolicyViolated"] {
        let said = said(world, reason, "api").await;
        assert_eq!(said.len(), 1, "once: {said:?}");
    }
    let violated = said(world, "PolicyViolated", "api").await;
    assert!(violated[0].contains("from nv.intruder.elsewhere, tcp/8080: stopped"), "{violated:?}");
    assert!(said(world, "NotInjected", "api").await.is_empty());
}
