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
    assert!(found.has_mailbox && !found.finished);
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

/// The pod of a Job with a classic sidecar and containers in these states, all of them or those that are known.
fn job(policy: &str, states: &[Option<Value>], change: impl FnOnce(&mut Value)) -> bool {
    let status = |name: &str, state: &Value| {
        json!({ "name": name, "ready": false, "restartCount": 0, "image": "", "imageID": "",
            "state": state })
    };
    let mut containers = vec![json!({ "name": "outrider-proxy" })];
    let mut statuses = vec![status("outrider-proxy", &json!({ "running": {} }))];
    for (number, state) in states.iter().enumerate() {
        let name = format!("work-{number}");
        containers.push(json!({ "name": name }));
        statuses.extend(state.as_ref().map(|state| status(&name, state)));
    }
    pod(|pod| {
        pod["spec"] = json!({ "restartPolicy": policy, "containers": containers,
            "volumes": [{ "name": "outrider-mailbox" }] });
        pod["status"]["containerStatuses"] = json!(statuses);
        change(pod);
    })
    .finished
}

fn code(code: i32) -> Option<Value> {
    Some(json!({ "terminated": { "exitCode": code } }))
}

fn running() -> Option<Value> {
    Some(json!({ "running": {} }))
}

#[test]
fn a_job_waits_for_its_proxy_once_nothing_else_will_run_again() {
    let one = |policy, state| job(policy, &[state], |_| {});
    assert!(one("Never", code(0)) && one("Never", code(1)));
    assert!(one("OnFailure", code(0)));
    assert!(!one("OnFailure", code(1)), "it is started again");
    assert!(!one("OnFailure", Some(json!({ "waiting": { "reason": "CrashLoopBackOff" } }))));
    assert!(!one("Always", code(0)));
    assert!(!one("Never", running()));
    assert!(!one("Never", Some(json!({ "waiting": {} }))), "not begun");
    assert!(!one("Never", None), "not known");
    let none: [Option<Value>; 0] = [];
    assert!(!job("Never", &none, |_| {}), "there is nothing that ended");
    assert!(!job("Never", &[code(0)], |pod| pod["status"]["phase"] = "Succeeded".into()));
}

#[test]
fn all_containers_have_to_have_ended_other_sidecars_too() {
    assert!(job("OnFailure", &[code(0), code(0)], |_| {}));
    assert!(job("Never", &[code(0), code(7)], |_| {}));
    assert!(!job("OnFailure", &[code(0), code(7)], |_| {}));
    assert!(!job("Never", &[code(0), running()], |_| {}));
    assert!(!job("Never", &[code(0), None], |_| {}));
}

#[test]
fn what_a_container_says_of_its_own_restarts_counts() {
    let own = |policy: &'static str, state| {
        job("Never", &[state], |pod| pod["spec"]["containers"][1]["restartPolicy"] = policy.into())
    };
    assert!(own("Never", code(1)) && own("OnFailure", code(0)));
    assert!(!own("OnFailure", code(1)) && !own("Always", code(0)) && !own("Sometimes", code(0)));
}

#[test]
fn init_containers_that_go_on_are_the_kubelets_to_end() {
    let with_native = |pod: &mut Value| {
        pod["spec"]["initContainers"] = json!([{ "name": "mesh", "restartPolicy": "Always" }]);
        pod["status"]["initContainerStatuses"] = json!([
            { "name": "mesh", "ready": true, "restartCount": 0, "image": "", "imageID": "",
              "state": { "running": {} } },
        ]);
    };
    assert!(job("Never", &[code(0)], with_native));
}

#[test]
fn a_native_sidecar_ends_by_itself() {
    assert!(!pod(|pod| pod["spec"]["restartPolicy"] = "Never".into()).finished);
}
