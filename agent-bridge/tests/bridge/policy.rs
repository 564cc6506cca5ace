//! Policy of people in a file, from the file to what a proxy has.

use serde_json::Value;

use crate::{proxy::Proxy, world::World};

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
