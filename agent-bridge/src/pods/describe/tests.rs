use serde_json::{Value, json};

use super::*;

const UID: &str = "6b1f8a52-0b0e-4d62-9c53-5d2f3ad0c9aa";

fn pod(change: impl FnOnce(&mut Value)) -> Pod {
    let mut pod = json!({
        "metadata": { "name": "web-5d4f8-x7x2p", "namespace": "shop", "uid": UID,
            "labels": { "app": "web", "pod-template-hash": "5d4f8" },
            "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "controller": true,
                "name": "web-5d4f8", "uid": "x" }] },
        "spec": { "containers": [{ "name": "app" }], "initContainers": [
                { "name": "outrider-init" }, { "name": "outrider-proxy", "restartPolicy": "Always" }],
            "volumes": [{ "name": "outrider-mailbox" }] },
        "status": { "phase": "Running", "podIP": "10.1.0.7",
            "podIPs": [{ "ip": "10.1.0.7" }, { "ip": "fd01::7" }] },
    });
    change(&mut pod);
    let (uid, pod) = describe(&serde_json::from_value(pod).unwrap()).unwrap();
    assert_eq!(uid, UID);
    pod
}

#[test]
fn a_pod_with_a_proxy_is_a_workload_of_what_owns_it() {
    let found = pod(|_| {});
    let workload = found.workload.unwrap();
    assert_eq!(workload.name, "shop/web-5d4f8-x7x2p");
    assert_eq!(workload.group().name(), "nv.web.shop");
    assert_eq!(workload.addresses, ["10.1.0.7", "fd01::7"].map(|ip| ip.parse::<IpAddr>().unwrap()));
    assert_eq!(workload.labels["app"], "web");
    assert!(found.has_mailbox);
}

#[test]
fn without_a_proxy_or_its_volume_a_pod_is_none_of_ours() {
    assert_eq!(pod(|pod| pod["spec"]["initContainers"] = json!([])), Pod::default());
    assert_eq!(pod(|pod| pod["spec"]["volumes"] = json!([])), Pod::default());
}

#[test]
fn a_pod_without_an_address_has_a_mailbox_and_is_no_workload_yet() {
    let found = pod(|pod| pod["status"] = json!({ "phase": "Pending" }));
    assert!(found.has_mailbox && found.workload.is_none());
    let odd = pod(|pod| pod["status"]["podIPs"] = json!([{ "ip": "ten" }]));
    assert!(odd.workload.is_none());
    let many: Vec<_> = (0..100)
        .map(|n| json!({ "ip": format!("10.1.0.{n}") }))
        .collect();
    let many = pod(|pod| pod["status"]["podIPs"] = json!(many));
    assert_eq!(many.workload.unwrap().addresses.len(), MAX_ADDRESSES);
}

#[test]
fn a_pod_that_has_ended_is_gone_whatever_its_addresses() {
    for phase in ["Succeeded", "Failed"] {
        assert_eq!(pod(|pod| pod["status"]["phase"] = phase.into()), Pod::default(), "{phase}");
    }
}

#[test]
fn a_name_that_is_none_for_a_mailbox_is_nobody() {
    for uid in ["", "..", "../etc", "a/b", "x y"] {
        let pod = json!({ "metadata": { "uid": uid }, "spec": { "containers": [] } });
        assert!(describe(&serde_json::from_value(pod).unwrap()).is_none(), "{uid}");
    }
}

#[test]
fn the_mac_is_the_uids_and_of_our_own_making() {
    let mac = mac(UID);
    assert_eq!(mac.0[0], 0x02, "locally administered, one receiver");
    assert_eq!(mac, super::mac(UID));
    assert_ne!(mac, super::mac("6b1f8a52-0b0e-4d62-9c53-5d2f3ad0c9ab"));
}
