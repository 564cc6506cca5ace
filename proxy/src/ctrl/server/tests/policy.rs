//! Policy over the socket: whole or not at all, and never at the price of an answer.

use outrider_model::{Mode, RuleId};
use outrider_wire::{
    ActionCode, ChunkFlags, Directions, PolicyCommand,
    chunk::split,
    request::{Policy, Rule, TextIp},
};

use super::*;
use crate::{ctrl::keep, testing::POD_MAC};

fn policy(rules: u32, default_action: u8) -> Policy {
    let rule = |n: u32| Rule {
        id: RuleId(10_000 + n),
        client: TextIp::from(std::net::Ipv4Addr::from(0x0a00_0000 + n)),
        server: TextIp::from(std::net::Ipv4Addr::new(10, 77, 1, 5)),
        port: 80,
        port_end: 80,
        proto: outrider_model::IpProto::TCP,
        action: ActionCode(2),
        ingress: true,
        ..Rule::default()
    };
    Policy {
        command: PolicyCommand::ADD,
        chunk: ChunkFlags::WHOLE,
        default_action: ActionCode(default_action),
        directions: Directions::BOTH,
        macs: [POD_MAC].into_iter().collect(),
        rules: (1..=rules).map(rule).collect(),
        rules6: Vec::new(),
        grace: Some(false),
    }
}

async fn push(client: &Client, policy: &Policy) {
    for datagram in split(policy, Request::CfgPolicy).unwrap() {
        client.0.send(&datagram).await.unwrap();
    }
}

async fn enforce(client: &Client) {
    client.add_mac().await;
    client
        .send(r#"{"ctrl_cfg_mac":{"macs":["0a:58:0a:4d:01:05"],"tap":false}}"#)
        .await;
}

#[tokio::test]
async fn answers_keep_alives_while_ten_thousand_rules_are_loaded() {
    let rig = Rig::start(&[]).await;
    let client = rig.client("client");
    enforce(&client).await;
    let mut slowest = Duration::ZERO;
    let mut seq = 0;
    for datagram in split(&policy(10_000, 7), Request::CfgPolicy).unwrap() {
        client.0.send(&datagram).await.unwrap();
        seq += 1;
        let asked = Instant::now();
        client.is_alive(seq).await;
        slowest = slowest.max(asked.elapsed());
    }
    while rig.context.policy.load().snapshot.rule_counts().0 < 10_000 {
        seq += 1;
        let asked = Instant::now();
        client.is_alive(seq).await;
        slowest = slowest.max(asked.elapsed());
    }
    // As long as a bridge waits for one: on a busy machine most of it is waiting for a turn.
    assert!(slowest < Duration::from_secs(3), "{slowest:?}");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_hello_after_a_policy_is_answered_when_it_is_in_force() {
    let rig = Rig::start(&[]).await;
    let client = rig.client("client");
    let before = client.hello().await;
    assert_eq!((before.mode.as_str(), before.managed), ("discover", false));
    enforce(&client).await;
    push(&client, &policy(2_000, 7)).await;
    let after = client.hello().await;
    assert_eq!((after.mode.as_str(), after.managed), ("protect", true));
    assert!(after.policy_version > before.policy_version);
    assert_eq!(rig.context.policy.load().snapshot.rule_counts().0, 2_000);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_malformed_policy_changes_nothing() {
    let rig = Rig::start(&[]).await;
    let client = rig.client("client");
    enforce(&client).await;
    push(&client, &policy(3, 7)).await;
    let good = client.hello().await;
    let mut swapped_ports = policy(4, 1);
    swapped_ports.rules = swapped_ports
        .rules
        .iter()
        .map(|rule| Rule { port_end: 1, ..rule.clone() })
        .collect();
    push(&client, &swapped_ports).await;
    client
        .send(r#"{"ctrl_cfg_policy":{"cmd":1,"flag":3,"defact":1,"mac":["0a:58:0a:4d:01:05"],"rules":[{"id":1}]}}"#)
        .await;
    client.send("{\"ctrl_cfg_policy\":").await;
    let after = client.hello().await;
    assert_eq!(rig.context.policy.load().snapshot.rule_counts().0, 3);
    assert_eq!(after.mode, good.mode);
    let text = rig.context.registry.expose().unwrap();
    assert!(text.contains(r#"outrider_policy_refused_total{reason="port-range"} 1"#), "{text}");
    assert!(text.contains(r#"outrider_ctrl_errors_total{reason="missing"} 1"#), "{text}");
    assert!(text.contains(r#"outrider_ctrl_errors_total{reason="json"} 1"#), "{text}");
    rig.stop().await;
}

/// Its policy as it says it, and whether it says that it refused one, and why.
fn said(status: &Status) -> (&str, Option<&str>) {
    (
        status.policy.as_str(),
        status
            .refused
            .as_ref()
            .map(|refused| refused.reason.as_str()),
    )
}

#[tokio::test(start_paused = true)]
async fn a_refused_policy_is_said_until_another_one_comes() {
    let rig = Rig::start(&[]).await;
    let client = rig.client("client");
    enforce(&client).await;
    assert_eq!(said(&client.hello().await), ("default", None));
    let mut odd = policy(4, 7);
    odd.rules = policy(1, 7).rules;
    odd.default_action = ActionCode(99);
    push(&client, &odd).await;
    assert_eq!(said(&client.hello().await), ("default", Some("unknown-action")));
    push(&client, &policy(3, 7)).await;
    let good = client.hello().await;
    assert_eq!(said(&good), ("rules", None));
    push(&client, &odd).await;
    let refused = client.hello().await;
    assert_eq!(said(&refused), ("rules", Some("unknown-action")));
    assert_eq!(refused.refused.unwrap().detail, "action 99 is not known");
    assert_eq!(rig.context.policy.load().snapshot.rule_counts().0, 3, "the last good one");
    assert_eq!(refused.mode, "protect", "what came beside it holds");
    push(&client, &policy(2, 7)).await;
    assert_eq!(said(&client.hello().await), ("rules", None));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_policy_with_a_hole_is_refused_whole() {
    let broken = [
        r#"{"ctrl_cfg_policy":{"cmd":1,"flag":0,"defact":7,"mac":["0a:58:0a:4d:01:05"],"rules":[{"id":1}]}}"#,
        r#"{"ctrl_cfg_policy":{"cmd":1,"fl"#,
    ];
    for broken in broken {
        let rig = Rig::start(&[]).await;
        let client = rig.client("client");
        enforce(&client).await;
        push(&client, &policy(3, 7)).await;
        let chunks = split(&policy(200, 7), Request::CfgPolicy).unwrap();
        assert!(chunks.len() > 2);
        for (at, chunk) in chunks.iter().enumerate() {
            client
                .0
                .send(if at == 1 { broken.as_bytes() } else { chunk })
                .await
                .unwrap();
        }
        let status = client.hello().await;
        let reason = said(&status).1.unwrap();
        assert!(["missing", "json"].contains(&reason), "{reason}");
        assert_eq!(rig.context.policy.load().snapshot.rule_counts().0, 3);
        rig.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_rule_too_many_is_said_and_the_last_good_policy_stays() {
    let rig = Rig::start(&[]).await;
    let client = rig.client("client");
    enforce(&client).await;
    push(&client, &policy(3, 7)).await;
    let many = u32::try_from(outrider_wire::limits::MAX_RULES).unwrap() + 1;
    push(&client, &policy(many, 7)).await;
    let status = client.hello().await;
    assert_eq!(said(&status), ("rules", Some("too-many")));
    assert_eq!(rig.context.policy.load().snapshot.rule_counts().0, 3);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_last_policy_is_in_force_again_after_a_restart() {
    let rig = Rig::start(&[("OUTRIDER_PROXY_FIRST_POLICY", "wait")]).await;
    assert_eq!(rig.context.readiness.waits_for(), ["policy"]);
    let client = rig.client("client");
    enforce(&client).await;
    push(&client, &policy(50, 7)).await;
    client.hello().await;
    while !rig.path("policy.json").exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(rig.context.readiness.waits_for().is_empty());
    drop(client);
    let dir = rig.stop().await;
    std::fs::remove_file(dir.path().join("client")).unwrap();
    let rig = Rig::start_in(dir, &[("OUTRIDER_PROXY_FIRST_POLICY", "wait")]).await;
    let view = rig.context.policy.load_full();
    assert_eq!((view.mode, view.managed), (Mode::Protect, true));
    assert_eq!(view.snapshot.rule_counts().0, 50);
    rig.client("client").is_alive(1).await;
    assert!(rig.context.readiness.waits_for().is_empty(), "a kept policy is a policy");
    rig.stop().await;
}

#[tokio::test]
async fn what_the_bridge_is_told_is_in_force_is_on_disk() {
    let rig = Rig::start(&[]).await;
    let client = rig.client("client");
    client.hello().await;
    for rules in 1..=20 {
        enforce(&client).await;
        push(&client, &policy(rules, 7)).await;
        assert_eq!(client.hello().await.mode, "protect");
        // As a proxy would find it that is killed now and starts again.
        let kept = keep::load(&keep::path(rig.dir.path())).unwrap().unwrap();
        let rules_kept = kept.iter().map(|request| match request {
            Request::CfgPolicy(policy) => policy.rules.len(),
            _ => 0,
        });
        assert_eq!(rules_kept.sum::<usize>(), rules as usize);
    }
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_keeps_the_bridge_waiting_for_a_while_only() {
    let rig = Rig::start(&[]).await;
    let client = rig.client("client");
    client.hello().await;
    // Nobody reads, so that whoever opens it to write waits.
    let beside = keep::path(rig.dir.path()).with_extension("json.new");
    nix::unistd::mkfifo(&beside, nix::sys::stat::Mode::S_IRWXU).unwrap();
    enforce(&client).await;
    push(&client, &policy(5, 7)).await;
    client
        .send(r#"{"ctrl_outrider_hello":{"version":1,"acks":true}}"#)
        .await;
    // A clock that stands while there is work on other threads is moved by hand.
    let reply = loop {
        tokio::select! {
            biased;
            reply = client.reply() => break reply,
            () = tokio::time::advance(Duration::from_millis(100)) => {}
        }
    };
    let Reply::Status(status) = reply else { panic!("{reply:?}") };
    assert_eq!(status.mode, "protect");
    let _reader = std::fs::File::open(&beside).unwrap();
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_cannot_be_kept_is_in_force_all_the_same() {
    let rig = Rig::start(&[("OUTRIDER_STATE_DIR", "/nonexistent")]).await;
    let client = rig.client("client");
    enforce(&client).await;
    push(&client, &policy(5, 7)).await;
    assert_eq!(client.hello().await.mode, "protect");
    loop {
        let text = rig.context.registry.expose().unwrap();
        if !text.contains("outrider_policy_save_failures_total 0") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_live_flow_that_a_new_policy_denies_is_cut() {
    let rig = Rig::start(&[]).await;
    let client = rig.client("client");
    let key = crate::testing::inbound("10.0.0.1:4000", 80);
    let allowed = crate::testing::flow(rig.telemetry(), key, AppId::HTTP, 1);
    let key = crate::testing::inbound("10.0.0.9:4000", 80);
    let denied = crate::testing::flow(rig.telemetry(), key, AppId::HTTP, 1);
    enforce(&client).await;
    push(&client, &policy(1, 7)).await;
    client.hello().await;
    assert!(denied.cut_reason().is_some());
    assert!(allowed.cut_reason().is_none());
    rig.stop().await;
}
