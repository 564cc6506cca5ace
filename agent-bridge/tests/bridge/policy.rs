//! Policy of people in a file, from the file to what a proxy has.

use outrider_api::code::{self, Form};
use outrider_model::PolicyAction;
use outrider_wire::Connections;
use serde_json::{Value, json};

use crate::{
    proxy::Proxy,
    reports::{batch, encode, row},
    world::World,
};

fn file(action: &str) -> String {
    format!(
        "
apiVersion: outrider.dev/v1alpha1
kind: NetworkRule
metadata: {{name: cache, namespace: default}}
spec:
  ingress:
  - {{name: shop, action: {action}, peers: [{{cidr: 10.0.0.9/32}}], ports: [tcp/6379]}}
---
apiVersion: outrider.dev/v1alpha1
kind: WorkloadMode
metadata: {{name: all, namespace: default}}
spec: {{mode: Protect}}
"
    )
}

#[tokio::test]
async fn a_file_of_policy_is_in_force_is_shown_with_its_origin_and_is_read_again() {
    const QUESTION: &str = "/v1/explain?client=10.0.0.9&server=cache&port=6379&app=redis";
    let mut world = World::new();
    world.pod("cache", 2);
    let path = world.path().join("policy.yaml");
    std::fs::write(&path, file("Allow")).unwrap();
    world.set("OUTRIDER_BRIDGE_POLICY", path.display().to_string());
    let _proxy = Proxy::start(&world.mailbox("cache"));
    let bridge = world.start().await;
    bridge.proxy_is("cache", "connected").await;
    let rules = bridge
        .until("/v1/rules", |rules| !rules.as_array().unwrap().is_empty())
        .await;
    let rule = &rules[0];
    assert_eq!(rule["origin"], "NetworkRule/default/cache/shop");
    assert_eq!((&rule["id"], &rule["action"]), (&200_000.into(), &"allow".into()));
    assert_eq!((&rule["ports"], &rule["learned"]), (&"tcp/6379".into(), &false.into()));
    // The pod may be met after the file.
    bridge
        .until("/v1/rules?workload=cache", |own| *own == rules)
        .await;
    let answer = bridge
        .until(QUESTION, |answer| answer["verdict"] == "allow")
        .await;
    let judged = &answer["judged"][0];
    assert_eq!((&judged["rule"], &judged["mode"]), (&200_000.into(), &"protect".into()));
    let in_force = |list: &Value| list[0]["mode"] == "protect" && list[0]["rules"] == 1;
    bridge.until("/v1/workloads", in_force).await;

    // A file that is wrong changes nothing; what comes after it does.
    std::fs::write(&path, "kind: Pod").unwrap();
    std::fs::write(&path, file("Deny") + "# changed").unwrap();
    let answer = bridge
        .until(QUESTION, |answer| answer["verdict"] == "deny")
        .await;
    let reason = answer["judged"][0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("NetworkRule/default/cache/shop (rule 200000) denies"), "{reason}");
    std::fs::remove_file(&path).unwrap();
    bridge
        .until("/v1/rules", |rules| rules.as_array().unwrap().is_empty())
        .await;
    bridge
        .until("/v1/workloads", |list| list[0]["mode"] == "discover")
        .await;
    bridge.stop().await;
}

/// A node whose pods have labels, with a file for policy.
fn labelled() -> World {
    let mut world = World::new();
    for (name, number) in [("cache", 2), ("shop", 3)] {
        world.pod(name, number);
        let file = world.path().join("pods").join(format!("{name}.json"));
        let text = std::fs::read_to_string(&file).unwrap();
        let mut workload: Value = serde_json::from_str(&text).unwrap();
        workload["labels"] = json!({ "app": name });
        std::fs::write(file, workload.to_string()).unwrap();
    }
    let path = world.path().join("policy.yaml");
    world.set("OUTRIDER_BRIDGE_POLICY", path.display().to_string());
    world
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

#[tokio::test]
async fn what_one_bridge_learned_is_in_force_at_another_and_a_replay_says_what_it_would_deny() {
    let (first, second) = (labelled(), labelled());
    let proxy = Proxy::start(&first.mailbox("cache"));
    let bridge = first.start().await;
    bridge.proxy_is("cache", "connected").await;
    let rows = encode(Connections { rows: vec![row(12, PolicyAction::Learn)] });
    for datagram in batch(1, 1, &[rows]) {
        proxy.tell(&datagram).await;
    }
    let rules = bridge
        .until("/v1/rules", |rules| rules[0]["id"] == 10_001)
        .await;
    let workloads = bridge
        .until("/v1/workloads", |all| all[1]["labels"]["app"] == "shop")
        .await;
    let (rules, workloads): (Vec<_>, Vec<_>) = (read(rules), read(workloads));
    let made = code::export(&rules, &workloads, Form::Outrider, Some("protect"));
    assert_eq!(made.left_out, Vec::<String>::new());
    let policy = code::write(&made.objects);

    let other = second.start().await;
    other
        .until("/v1/workloads", |all| all[1]["name"].is_string())
        .await;
    let put =
        |policy: &str, dry_run: bool| json!({ "policy": policy, "dry_run": dry_run }).to_string();
    let wrong = policy.replace("Protect", "Loud");
    let (status, reply) = other.ask("PUT", "/v1/policy", &put(&wrong, false)).await;
    assert_eq!((status, &reply["written"]), (200, &json!(false)), "{reply}");
    let refused = &reply["objects"][0];
    assert_eq!((&refused["accepted"], &refused["field"]), (&json!(false), &json!("spec.mode")));
    let (_, reply) = other.ask("PUT", "/v1/policy", &put(&policy, true)).await;
    assert_eq!(reply["written"], false);
    assert_eq!(other.get("/v1/policy").await["policy"], "", "a dry run writes nothing");
    let (_, reply) = other.ask("PUT", "/v1/policy", &put(&policy, false)).await;
    assert_eq!(reply["written"], true, "{reply}");
    assert_eq!(other.get("/v1/policy").await["policy"], policy.as_str());
    let question = "/v1/explain?client=shop&server=cache&port=6379&app=";
    other
        .until(&format!("{question}redis"), |answer| answer["verdict"] == "allow")
        .await;
    other
        .until(&format!("{question}http"), |answer| answer["verdict"] == "deny")
        .await;

    let replay = |policy: &str| json!({ "policy": policy, "alone": true }).to_string();
    let (status, kept) = bridge
        .ask("POST", "/v1/policy/replay", &replay(&policy))
        .await;
    assert_eq!((status, &kept["judged"], &kept["changed"]), (200, &json!(1), &json!([])), "{kept}");
    let narrower = policy.replace("tcp/6379", "tcp/6380");
    let (_, denied) = bridge
        .ask("POST", "/v1/policy/replay", &replay(&narrower))
        .await;
    let one = &denied["changed"][0];
    assert_eq!((&one["before"], &one["after"]), (&json!("allow"), &json!("deny")), "{denied}");
    assert_eq!((&one["server"], &one["sessions"]), (&json!("default/cache"), &json!(12)));
    bridge.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_bridge_without_a_file_says_what_to_do_and_a_bomb_is_refused() {
    let world = World::new();
    let bridge = world.start().await;
    let (status, said) = bridge.ask("GET", "/v1/policy", "").await;
    assert_eq!(status, 409);
    assert!(
        said["error"]
            .as_str()
            .unwrap()
            .contains("OUTRIDER_BRIDGE_POLICY"),
        "{said}"
    );
    let bomb =
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b, *b".to_owned() + &", *b".repeat(50_000) + "]";
    let body = json!({ "policy": bomb }).to_string();
    let (status, said) = bridge.ask("POST", "/v1/policy/replay", &body).await;
    assert_eq!(status, 400, "{said}");
    bridge.stop().await;
}
