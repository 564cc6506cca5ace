//! What holds for every pod.

use std::collections::BTreeMap;

use outrider_agent_bridge::inject::{
    self, Decision, INIT, MAILBOX, MAX_CONTAINERS, MAX_PORTS, MAX_PROBES, MAX_VALUE, MAX_VOLUMES,
    PROXY, STATUS,
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::{
    apply::{applied, cluster, enforced, injected, namespace, pod},
    golden,
};

#[test]
fn twice_is_once_and_validates_for_every_shape() {
    let mut seen = 0;
    for case in golden::cases() {
        let Decision::Inject(once) = case.decide(case.pod()) else { continue };
        let first = applied(case.pod(), &once.patch);
        let Decision::Inject(twice) = case.decide(&first) else {
            panic!("{}: {:?}", case.name, case.decide(&first));
        };
        assert_eq!(twice.patch, [], "{}", case.name);
        assert_eq!(case.validate(&first), Ok(()), "{}", case.name);
        assert!(case.validate(case.pod()).is_err(), "{}: not injected, yet valid", case.name);
        only_allowed(case.pod(), &first, &case.name);
        // What the API server does to it on the way.
        let Decision::Inject(twice) = case.decide(&defaulted(&first)) else { panic!() };
        assert_eq!(twice.patch, [], "{} with defaults", case.name);
        seen += 1;
    }
    assert!(seen >= 25, "{seen}");
}

#[test]
fn what_somebody_changes_of_ours_is_changed_back() {
    let (namespace, cluster) = (enforced(), cluster(&Value::Null));
    let plain = pod(json!({ "name": "app" }));
    let good = applied(&plain, &injected(&plain, &namespace, &cluster).unwrap().patch);
    let spoil: [(&str, Value); 9] = [
        ("/spec/initContainers/1/env/0/name", "X".into()),
        ("/spec/initContainers/1/command", json!(["/bin/sh"])),
        ("/spec/initContainers/1/securityContext/privileged", true.into()),
        ("/spec/initContainers/1/volumeMounts/0/mountPath", "/x".into()),
        ("/spec/initContainers/1/startupProbe/periodSeconds", 60.into()),
        ("/spec/initContainers/0/args", json!(["cleanup"])),
        ("/spec/initContainers/0/resources/limits/memory", "1Mi".into()),
        ("/spec/volumes/0/hostPath/path", "/tmp".into()),
        ("/spec/containers/0/securityContext/capabilities/drop", json!([])),
    ];
    for (path, value) in spoil {
        let mut bad = good.clone();
        *bad.pointer_mut(path).unwrap() = value;
        let why = inject::validate(&bad, &namespace, &cluster).unwrap_err();
        assert!(why[0].contains("not as injection makes it"), "{path}: {why:?}");
        let mended = injected(&bad, &namespace, &cluster).unwrap();
        assert_eq!(applied(&bad, &mended.patch), good, "{path}");
    }
    for (holder, key, value) in [
        ("/spec/initContainers/1", "envFrom", json!([{ "configMapRef": { "name": "x" } }])),
        ("/spec/initContainers/1", "workingDir", "/tmp".into()),
        ("/spec/initContainers/1/securityContext", "procMount", "Unmasked".into()),
        ("/spec/initContainers/0", "restartPolicy", "Always".into()),
    ] {
        let mut bad = good.clone();
        bad.pointer_mut(holder).unwrap()[key] = value;
        assert!(inject::validate(&bad, &namespace, &cluster).is_err(), "{holder} {key}");
    }
}

#[test]
fn too_much_is_refused() {
    let container = |extra: Value| {
        let mut container = json!({ "name": "app" });
        container
            .as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        container
    };
    let many = |count: usize, of: Value| Value::Array(vec![of; count]);
    let port = json!({ "containerPort": 80 });
    let probed = |ports: usize| {
        let containers: Vec<_> = (0..ports)
            .map(|port| json!({ "name": "a", "livenessProbe": { "tcpSocket": { "port": port + 1 } } }))
            .collect();
        json!({ "metadata": {}, "spec": {
            "containers": containers[..ports.min(MAX_CONTAINERS)],
            "initContainers": containers[ports.min(MAX_CONTAINERS)..],
        } })
    };
    let annotated = |length: usize| {
        let mut pod = pod(container(json!({})));
        let ports = format!("{:1$}", "80", length);
        pod["metadata"]["annotations"] = json!({ "outrider.dev/kubevirtInterfaces": ports });
        pod
    };
    let nested = |count: usize| json!({ "metadata": {}, "spec": { "containers": many(count, container(json!({}))) } });
    let tries = [
        (nested(MAX_CONTAINERS), true),
        (nested(MAX_CONTAINERS + 1), false),
        (pod(container(json!({ "ports": many(MAX_PORTS, port.clone()) }))), true),
        (pod(container(json!({ "ports": many(MAX_PORTS + 1, port) }))), false),
        (pod(container(json!({ "volumeMounts": many(MAX_VOLUMES + 1, json!({})) }))), false),
        (probed(MAX_PROBES), true),
        (probed(MAX_PROBES + 1), false),
        (annotated(MAX_VALUE), true),
        (annotated(MAX_VALUE + 1), false),
    ];
    for (at, (pod, fits)) in tries.iter().enumerate() {
        let decision = inject::inject(pod, &enforced(), &cluster(&Value::Null));
        assert_eq!(matches!(decision, Decision::Inject(_)), *fits, "{at}: {decision:?}");
    }
}

/// Cluster, namespace and pod against the rule in words.
#[test]
fn who_is_asked_follows_the_table() {
    let said = [None, Some("enforced"), Some("enabled"), Some("opt-in"), Some("disabled")];
    for unlabelled in said {
        for labelled in said {
            for wish in [None, Some("true"), Some("false")] {
                let cluster = match unlabelled {
                    Some(word) => cluster(&json!({ "unlabelled": word })),
                    None => cluster(&Value::Null),
                };
                let namespace = namespace(&match labelled {
                    Some(word) => json!({ "labels": { "outrider.dev/injection": word } }),
                    None => Value::Null,
                });
                let mut pod = pod(json!({ "name": "app" }));
                if let Some(wish) = wish {
                    pod["metadata"]["labels"] = json!({ "outrider.dev/inject": wish });
                }
                let expected = match labelled.or(unlabelled).unwrap_or("opt-in") {
                    "enforced" => true,
                    "enabled" => wish != Some("false"),
                    "opt-in" => wish == Some("true"),
                    _ => false,
                };
                let found = injected(&pod, &namespace, &cluster).is_some();
                assert_eq!(found, expected, "{unlabelled:?} {labelled:?} {wish:?}");
            }
        }
    }
}

/// Everything but what injection may change is as it was.
fn only_allowed(before: &Value, after: &Value, name: &str) {
    let mut before = before.clone();
    // Objects and lists that were not there may be now.
    strip(&mut before);
    let mut after = after.clone();
    strip(&mut after);
    assert_eq!(before, after, "{name}");
    let commands = |pod: &Value| -> BTreeMap<String, Value> {
        let of = |field: &str| pod["spec"][field].as_array().cloned().unwrap_or_default();
        let all = of("containers").into_iter().chain(of("initContainers"));
        let of = |container: &Value| {
            let pick = |field: &str| container[field].clone();
            json!([pick("image"), pick("command"), pick("args"), pick("env"), pick("envFrom")])
        };
        all.map(|container| (container["name"].to_string(), of(&container)))
            .collect()
    };
    assert_eq!(commands(&before), commands(&after), "{name}");
}

/// Takes away what injection may add, and what it may replace.
fn strip(pod: &mut Value) {
    let ours = |value: &Value| {
        ["name"].iter().any(|key| {
            let name = value[*key].as_str().unwrap_or_default();
            [INIT, PROXY, MAILBOX].contains(&name)
        })
    };
    if let Some(annotations) = pod["metadata"]["annotations"].as_object_mut() {
        annotations.retain(|key, _| {
            key != STATUS && !key.starts_with("prometheus.io/") && !key.starts_with("kubectl.")
        });
    }
    for list in ["containers", "initContainers", "volumes"] {
        let Some(items) = pod["spec"][list].as_array_mut() else { continue };
        items.retain(|item| !ours(item));
        for item in items {
            let context = &mut item["securityContext"];
            if let Some(context) = context.as_object_mut() {
                if context.get("allowPrivilegeEscalation") == Some(&false.into()) {
                    context.remove("allowPrivilegeEscalation");
                }
                if let Some(drop) = context
                    .get_mut("capabilities")
                    .map(|held| &mut held["drop"])
                    && let Some(dropped) = drop.as_array_mut()
                {
                    dropped.retain(|name| name != "NET_RAW");
                }
            }
            for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
                if let Some(probe) = item[probe].as_object_mut() {
                    for kind in ["tcpSocket", "httpGet", "grpc"] {
                        probe.remove(kind);
                    }
                }
            }
        }
    }
    prune(pod);
}

/// Takes away what is empty.
fn prune(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.values_mut().for_each(prune);
            members.retain(|_, value| !empty(value));
        }
        Value::Array(items) => items.iter_mut().for_each(prune),
        _ => {}
    }
}

fn empty(value: &Value) -> bool {
    value.is_null() || *value == json!({}) || *value == json!([])
}

/// What an API server adds between two passes: tokens, amounts in its own form, limits of the namespace.
fn defaulted(pod: &Value) -> Value {
    let mut pod = pod.clone();
    for list in ["containers", "initContainers"] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            let token = json!({ "name": "kube-api-access-x", "readOnly": true,
                "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount" });
            let mounts = &mut container["volumeMounts"];
            match mounts.as_array_mut() {
                Some(mounts) => mounts.push(token),
                None => *mounts = json!([token]),
            }
            for kind in ["requests", "limits"] {
                let amounts = &mut container["resources"][kind];
                if amounts["cpu"].is_null() {
                    amounts["cpu"] = "2".into();
                }
                if amounts["cpu"] == "0.5" {
                    amounts["cpu"] = "500m".into();
                }
                if amounts["memory"] == "1Gi" {
                    amounts["memory"] = "1024Mi".into();
                }
            }
            if container["securityContext"].is_object() {
                container["securityContext"]["procMount"] = "Default".into();
            }
        }
    }
    pod
}

/// Any JSON, with names that mean something in likely places.
fn any_json() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "app", INIT, PROXY, MAILBOX, "tcp", "NET_RAW", "ALL", "80", "", "true", "csi", "native",
        "é~/",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        Just(Value::from(1771)),
        Just(Value::from(15120)),
        word.prop_map(Value::from),
    ];
    let key = prop::sample::select(vec![
        "name",
        "image",
        "securityContext",
        "capabilities",
        "add",
        "drop",
        "tcpSocket",
        "httpGet",
        "port",
        "ports",
        "containerPort",
        "livenessProbe",
        "resources",
        "volumeMounts",
        "hostPath",
        "path",
        "x",
    ]);
    leaf.prop_recursive(5, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..7).prop_map(|members| {
                let members = members
                    .into_iter()
                    .map(|(key, value)| (key.to_owned(), value));
                Value::Object(members.collect::<Map<_, _>>())
            }),
        ]
    })
}

/// A pod whose lists hold anything at all.
fn any_pod() -> impl Strategy<Value = Value> {
    let list =
        || prop_oneof![any_json(), prop::collection::vec(any_json(), 0..4).prop_map(Value::from)];
    let named = || {
        prop::collection::vec(any_json(), 0..3).prop_map(|mut list| {
            for (at, item) in list.iter_mut().enumerate() {
                if item.is_object() {
                    item["name"] = format!("app{at}").into();
                } else {
                    *item = json!({ "name": format!("app{at}") });
                }
            }
            Value::from(list)
        })
    };
    (prop_oneof![named(), list()], prop_oneof![named(), list()], list(), any_json()).prop_map(
        |(containers, init, volumes, context)| {
            json!({ "metadata": {}, "spec": { "containers": containers, "initContainers": init,
                "volumes": volumes, "securityContext": context } })
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn nothing_panics_and_what_is_injected_stays(pod in any_pod(), exempt: bool) {
        let cluster = cluster(&match exempt {
            true => json!({ "exempt": "privileged,net-raw,net-admin,sys-admin,sys-ptrace" }),
            false => Value::Null,
        });
        if let Some(once) = injected(&pod, &enforced(), &cluster) {
            let first = applied(&pod, &once.patch);
            let twice = inject::inject(&first, &enforced(), &cluster);
            let Decision::Inject(twice) = twice else { panic!("{twice:?}") };
            prop_assert_eq!(twice.patch, []);
            only_allowed(&pod, &first, "any");
        }
    }
}
