//! One story, since an API server takes long to start: each step is a function.

use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use outrider_agent_bridge::cluster::objects::{
    Condition, LearnedPolicy, NetworkRule, WorkloadMode,
};
use outrider_api::cluster::{Applied, Conversation, Observed, Rule, Side, WorkloadState};
use serde_json::{Value, json};
use tokio::time::Instant;
use tonic::Code;

use crate::{
    bridge::Bridge,
    events, services,
    world::{Replica, World, eventually},
};

const WEB: [u8; 4] = [10, 0, 0, 1];
const DB: [u8; 4] = [10, 0, 0, 2];

/// Everything that steps go on with.
struct Stage {
    world: World,
    replicas: [Replica; 2],
    authorities: String,
    tokens: [String; 2],
    /// Uids of web on n1 and db on n2.
    uids: [String; 2],
}

impl Stage {
    fn ports(&self) -> [u16; 2] {
        [self.replicas[0].port, self.replicas[1].port]
    }

    async fn link(&self, at: usize) -> Bridge {
        let node = ["n1", "n2"][at];
        Bridge::link_leader(&self.ports(), &self.authorities, &self.tokens[at], node).await
    }

    fn rules(&self) -> Api<NetworkRule> {
        self.world.of("shop")
    }

    async fn leader(&self) -> usize {
        eventually("a leader", async || {
            for (at, replica) in self.replicas.iter().enumerate() {
                if replica.status().await["standing"] == "leading" {
                    return Some(at);
                }
            }
            None
        })
        .await
    }
}

#[tokio::test]
async fn a_cluster_is_told_learned_and_led_by_one() {
    let Some(world) = World::new().await else { return };
    let web = world.pod("shop", "web-0", "n1", "10.0.0.1").await;
    let db = world.pod("shop", "db-0", "n2", "10.0.0.2").await;
    let tokens =
        [world.token("outrider-bridge", "n1").await, world.token("outrider-bridge", "n2").await];
    events::bare_pod(&world).await;
    let replicas = [world.replica("one"), world.replica("two")];
    let authorities = world.authorities(2).await;
    let uids = [web.uid().unwrap(), db.uid().unwrap()];
    let mut stage = Stage { world, replicas, authorities, tokens, uids };
    let mut bridges = [stage.link(0).await, stage.link(1).await];
    who_is_not_a_bridge_of_its_node_is_refused(&stage).await;
    a_rule_reaches_the_node_and_says_what_runs(&stage, &mut bridges).await;
    a_mode_reaches_the_node(&stage, &mut bridges).await;
    what_is_wrong_is_said_with_its_field(&stage).await;
    addresses_are_answered(&mut bridges).await;
    services::are_told_changed_and_forgotten(&stage.world, &mut bridges).await;
    two_nodes_learn_one_rule(&stage, &mut bridges).await;
    events::are_on_the_workload(&stage.world, &bridges[0]).await;
    let ids: Vec<_> = bridges[1].rules.keys().copied().collect();
    let mut bridges = a_leader_is_killed(&mut stage, &ids).await;
    the_api_server_is_away(&mut stage, &mut bridges).await;
}

async fn who_is_not_a_bridge_of_its_node_is_refused(stage: &Stage) {
    let leader = stage.replicas[stage.leader().await].port;
    let other = stage.world.token("other", "n1").await;
    for (token, node, code) in [
        ("", "n1", Code::Unauthenticated),
        ("nonsense", "n1", Code::Unauthenticated),
        (&*other, "n1", Code::PermissionDenied),
        (&*stage.tokens[0], "n2", Code::PermissionDenied),
    ] {
        let refused = Bridge::link(leader, &stage.authorities, token, node).await;
        assert_eq!(refused.map(|_| ()).unwrap_err().code(), code, "{token} {node}");
    }
}

fn rule(name: &str, peer: &Value) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "target": {"podSelector": {"matchLabels": {"app": "db"}}},
            "ingress": [{"name": "front", "action": "Allow", "ports": ["tcp/5432"], "peers": [peer]}],
        },
    })
}

async fn a_rule_reaches_the_node_and_says_what_runs(stage: &Stage, bridges: &mut [Bridge; 2]) {
    let peer = json!({"podSelector": {"matchLabels": {"app": "web"}}});
    stage.world.create(stage.rules(), rule("db", &peer)).await;
    let db = &mut bridges[1];
    db.until("the rule", |bridge| {
        bridge
            .rules
            .values()
            .any(|rule| rule.origin.contains("front"))
    })
    .await;
    let rule = db
        .rules
        .values()
        .find(|rule| rule.origin.contains("front"))
        .unwrap()
        .clone();
    assert_eq!(db.sets[&rule.from], [stage.uids[0].clone()]);
    assert_eq!(db.sets[&rule.to], [stage.uids[1].clone()]);
    assert_eq!(db.workloads[&stage.uids[0]].addresses, [WEB.to_vec()]);
    assert_eq!(db.workloads[&stage.uids[0]].service, "web");
    let status = condition(stage, "db", "Accepted", "True").await;
    assert_eq!(
        status["workloads"],
        json!({"concerned": 1, "enforced": 0, "refused": 0, "pending": 1})
    );
    let state = |revision| WorkloadState {
        uid: stage.uids[1].clone(),
        revision,
        mode: "protect".into(),
        connected: true,
        ..WorkloadState::default()
    };
    // A node that is behind, one that speaks for another's workload, then the truth.
    let behind = db.revision - 1;
    db.apply(Applied { workloads: vec![state(behind)], ..Applied::default() })
        .await;
    let now = bridges[1].revision;
    bridges[0]
        .apply(Applied { workloads: vec![state(now)], ..Applied::default() })
        .await;
    let status = condition(stage, "db", "Enforced", "Unknown").await;
    assert_eq!(status["workloads"]["enforced"], 0);
    bridges[1]
        .apply(Applied { revision: now, workloads: vec![state(now)], ..Applied::default() })
        .await;
    let status = condition(stage, "db", "Enforced", "True").await;
    assert_eq!(status["workloads"]["enforced"], 1);
    assert_eq!(status["rules"][0]["id"], rule.id);
}

async fn a_mode_reaches_the_node(stage: &Stage, bridges: &mut [Bridge; 2]) {
    let mode = json!({"metadata": {"name": "all"}, "spec": {"mode": "Monitor"}});
    stage
        .world
        .create::<WorkloadMode>(stage.world.of("shop"), mode)
        .await;
    for (bridge, uid) in bridges.iter_mut().zip(&stage.uids) {
        bridge
            .until("the mode", |bridge| bridge.modes.get(uid).is_some_and(|mode| mode == "monitor"))
            .await;
        assert_eq!(bridge.modes.len(), 1, "only of its own workloads");
    }
}

/// Waits until an object's condition has that status; gives all of its status.
async fn condition(stage: &Stage, name: &str, kind: &str, status: &str) -> Value {
    let rules = stage.rules();
    eventually(&format!("{kind}={status} of {name}"), async || {
        let found = rules.get(name).await.ok()?.status?;
        let is = |one: &Condition| one.kind == kind && one.status == status;
        found
            .conditions
            .iter()
            .any(is)
            .then(|| serde_json::to_value(&found).unwrap())
    })
    .await
}

async fn what_is_wrong_is_said_with_its_field(stage: &Stage) {
    stage
        .world
        .create(stage.rules(), rule("nobody", &json!({"group": "missing"})))
        .await;
    let status = condition(stage, "nobody", "Accepted", "False").await;
    let accepted = &status["conditions"][0];
    assert_eq!(accepted["field"], "spec.ingress[0].peers[0].group", "{status}");
    assert_ne!(accepted["reason"], "Accepted");
    let refused: NetworkRule = serde_json::from_value(rule("empty", &json!({}))).unwrap();
    let refused = stage
        .rules()
        .create(&Default::default(), &refused)
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("exactly one of"), "{refused}");
}

async fn addresses_are_answered(bridges: &mut [Bridge; 2]) {
    bridges[0]
        .ask(vec![DB.to_vec(), vec![192, 0, 2, 9], vec![1]])
        .await;
    bridges[0]
        .until("an answer", |bridge| !bridge.unknown.is_empty())
        .await;
    assert_eq!(bridges[0].unknown, [[192, 0, 2, 9]]);
    assert!(
        bridges[0]
            .workloads
            .values()
            .any(|one| one.addresses == [DB.to_vec()])
    );
}

fn said(side: Side, to: &str, sessions: u64) -> Conversation {
    Conversation {
        from: "nv.web.shop".into(),
        to: to.into(),
        proto: 6,
        port: 5432,
        app: 1001,
        side: side.into(),
        sessions,
        bytes: sessions * 1_000,
        first_seen: 1_700_000_000,
        last_seen: 1_700_000_100,
        clients: vec![WEB.to_vec()],
        ..Conversation::default()
    }
}

async fn two_nodes_learn_one_rule(stage: &Stage, bridges: &mut [Bridge; 2]) {
    let one = |batch, said| Observed { batch, conversations: vec![said] };
    bridges[0]
        .observe(one(1, said(Side::Client, "nv.db.shop", 4)))
        .await;
    // n1 may not speak for db: that is on n2.
    bridges[0]
        .observe(one(2, said(Side::Server, "nv.db.shop", 100)))
        .await;
    bridges[1]
        .observe(one(1, said(Side::Server, "nv.db.shop", 4)))
        .await;
    // The same batch again counts once.
    bridges[1]
        .observe(one(1, said(Side::Server, "nv.db.shop", 4)))
        .await;
    bridges[1]
        .until("the batch", |bridge| bridge.acknowledged.contains(&1))
        .await;
    for bridge in bridges.iter_mut() {
        bridge
            .until("the learned rule", |bridge| bridge.rules.values().any(|rule| rule.learned))
            .await;
    }
    let policies = stage.world.of::<LearnedPolicy>("shop");
    let policy = eventually("a learned policy", async || {
        let policy = policies.get_opt("db").await.ok()??;
        (policy.status.as_ref()?.counts.sessions > 0).then_some(policy)
    })
    .await;
    assert_eq!(policy.spec.rules.len(), 1);
    assert_eq!((policy.spec.rules[0].id, &*policy.spec.rules[0].peer), (1_000_000, "nv.web.shop"));
    assert_eq!(policy.status.unwrap().counts.sessions, 4);
}

async fn a_leader_is_killed(stage: &mut Stage, ids: &[u32]) -> [Bridge; 2] {
    let leader = stage.leader().await;
    stage.replicas[leader].kill();
    let mut bridges = [stage.link(0).await, stage.link(1).await];
    assert_eq!(bridges[1].rules.keys().copied().collect::<Vec<_>>(), ids, "numbers stay");
    let next = Observed { batch: 9, conversations: vec![said(Side::Server, "nv.db.shop", 2)] };
    bridges[1].observe(next).await;
    let mut new = said(Side::Server, "nv.db.shop", 3);
    new.port = 80;
    bridges[1]
        .observe(Observed { batch: 10, conversations: vec![new] })
        .await;
    let learned = |bridge: &Bridge| bridge.rules.values().filter(|rule| rule.learned).count();
    bridges[1]
        .until("another rule", |bridge| learned(bridge) == 2)
        .await;
    assert!(bridges[1].rules.contains_key(&1_000_001));
    bridges[1]
        .until("the batch", |bridge| bridge.acknowledged.contains(&10))
        .await;
    let policy = stage
        .world
        .of::<LearnedPolicy>("shop")
        .get("db")
        .await
        .unwrap();
    assert_eq!(policy.spec.rules.len(), 2, "acknowledged means written");
    bridges
}

async fn the_api_server_is_away(stage: &mut Stage, bridges: &mut [Bridge; 2]) {
    let leader = stage.leader().await;
    stage.world.server.pause();
    let replica = &stage.replicas[leader];
    let status = eventually("the API server to be missed", async || {
        let status = replica.status().await;
        (status["standing"] == "unsure" && status["api_failing"].is_string()).then_some(status)
    })
    .await;
    assert_eq!((&status["links"], &status["not_ready"]), (&json!(2), &Value::Null), "{status}");
    let unknown = bridges[0].unknown.len();
    bridges[0].ask(vec![vec![192, 0, 2, 77]]).await;
    bridges[0]
        .until("an answer", |bridge| bridge.unknown.len() > unknown)
        .await;
    stage.world.server.resume().await;
    let back = Instant::now();
    let patch = Patch::Merge(json!({"spec": {"priority": 70}}));
    let is_ours = |rule: &&Rule| rule.origin.contains("front");
    let before = bridges[1].rules.values().find(is_ours).unwrap().clone();
    stage
        .rules()
        .patch("db", &PatchParams::default(), &patch)
        .await
        .unwrap();
    let changed = |bridge: &Bridge| bridge.rules[&before.id].order != before.order;
    bridges[1].until("the change", changed).await;
    eprintln!("a change {:?} after the API server was back", back.elapsed());
    assert_eq!(bridges[1].whole, 1, "it is the same link");
}
