//! Changes of pods that are there: ephemeral containers, images, labels.

use outrider_agent_bridge::inject::{Cluster, change};
use serde_json::{Value, json};

use crate::apply::{applied, cluster, enforced, injected, namespace, pod};

fn running() -> (Value, Cluster) {
    let cluster = cluster(&Value::Null);
    let plain = pod(json!({ "name": "app", "image": "app:1" }));
    let patch = injected(&plain, &enforced(), &cluster).unwrap().patch;
    (applied(&plain, &patch), cluster)
}

fn with_debug(pod: &Value, debug: Value) -> Value {
    let mut pod = pod.clone();
    pod["spec"]["ephemeralContainers"] = vec![debug].into();
    pod
}

#[test]
fn a_debug_container_loses_its_rights_and_stays_so() {
    let (before, cluster) = running();
    let now = with_debug(&before, json!({ "name": "debug", "image": "busybox" }));
    let patch = change(&now, &before, &enforced(), &cluster).unwrap();
    let now = applied(&now, &patch);
    let context = &now["spec"]["ephemeralContainers"][0]["securityContext"];
    assert_eq!(
        *context,
        json!({ "allowPrivilegeEscalation": false, "capabilities": { "drop": ["NET_RAW"] } })
    );
    assert_eq!(change(&now, &before, &enforced(), &cluster), Ok(vec![]));
    // One that is there cannot be changed any more.
    let old = with_debug(&before, json!({ "name": "debug" }));
    assert_eq!(change(&old, &old, &enforced(), &cluster), Ok(vec![]));
}

#[test]
fn a_debug_container_that_gets_around_the_proxy_is_refused() {
    let (before, cluster) = running();
    let hostile = [
        (json!({ "securityContext": { "runAsUser": 1771 } }), "runAsUser"),
        (json!({ "securityContext": { "runAsGroup": 1771 } }), "runAsGroup"),
        (json!({ "securityContext": { "privileged": true } }), "privileged"),
        (json!({ "securityContext": { "capabilities": { "add": ["NET_ADMIN"] } } }), "NET_ADMIN"),
        (json!({ "securityContext": { "capabilities": { "add": ["NET_RAW"] } } }), "NET_RAW"),
        (json!({ "securityContext": { "capabilities": { "add": ["SYS_PTRACE"] } } }), "SYS_PTRACE"),
        (json!({ "targetContainerName": "outrider-proxy" }), "targetContainerName"),
        (json!({ "volumeMounts": [{ "name": "outrider-mailbox" }] }), "outrider-mailbox"),
        (json!({ "name": "outrider-proxy", "image": cluster.images.proxy }), "the name is kept"),
    ];
    for (extra, what) in hostile {
        let mut debug = json!({ "name": "debug" });
        debug
            .as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        let reasons =
            change(&with_debug(&before, debug), &before, &enforced(), &cluster).unwrap_err();
        assert!(reasons.iter().any(|reason| reason.contains(what)), "{what}: {reasons:?}");
    }
}

#[test]
fn our_images_stay_and_the_applications_may_change() {
    let (before, mut cluster) = running();
    let set = |path: &str, image: &str| {
        let mut now = before.clone();
        *now.pointer_mut(path).unwrap() = image.into();
        now
    };
    let now = set("/spec/containers/0/image", "app:2");
    assert_eq!(change(&now, &before, &enforced(), &cluster), Ok(vec![]));
    let now = set("/spec/initContainers/1/image", "evil.example/proxy");
    assert!(change(&now, &before, &enforced(), &cluster).is_err());
    cluster.images.proxy = "registry.example/outrider-proxy:2".into();
    let now = set("/spec/initContainers/1/image", "registry.example/outrider-proxy:2");
    assert_eq!(change(&now, &before, &enforced(), &cluster), Ok(vec![]));
    // An older one that is left alone is nobody's business.
    assert_eq!(change(&before, &before, &enforced(), &cluster), Ok(vec![]));
}

#[test]
fn a_label_that_is_taken_away_opens_nothing() {
    let (before, cluster) = running();
    let unlabelled = namespace(&Value::Null);
    let now =
        with_debug(&before, json!({ "name": "debug", "securityContext": { "privileged": true } }));
    assert!(change(&now, &before, &unlabelled, &cluster).is_err());
    let plain = pod(json!({ "name": "app" }));
    let now =
        with_debug(&plain, json!({ "name": "debug", "securityContext": { "privileged": true } }));
    assert_eq!(change(&now, &plain, &unlabelled, &cluster), Ok(vec![]));
}
