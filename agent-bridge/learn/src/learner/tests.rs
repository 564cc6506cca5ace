//! From rows to rules and policy.

use outrider_model::{Direction, IpProto, Severity, ThreatId, Verdict};
use outrider_policy::{AppKnowledge, Network, Query, Snapshot};
use proptest::prelude::*;

use super::*;
use crate::{
    MAX_CONVERSATIONS, MAX_NAMES, MAX_WORKLOAD_VIOLATIONS, Tally,
    world::{against, group, inbound, ip, outbound, set_mode, world},
};

const SHOP: &str = "10.0.0.3";
const SHOP_V6: &str = "fd00::3";
const CACHE: &str = "10.0.0.2";
const INTRUDER: &str = "10.0.0.5";
const FAR: &str = "192.0.2.1";

/// Whether a workload's proxy lets a flow pass.
fn verdict(learner: &mut Learner, at: &str, query: Query<'_>) -> (Verdict, u32) {
    learner.compile_changed();
    let policy = learner.policy(&format!("uid-{at}")).unwrap();
    let network =
        Network { internal: learner.directory().internal().to_vec(), ..Network::default() };
    let snapshot = Snapshot::compile(Some(&policy.spec), &network).unwrap();
    let decision = snapshot.decide(&Query { mode: policy.mode, ..query });
    (decision.verdict(policy.mode), decision.rule.0)
}

fn query(client: &str, server: &str, port: u16, app: AppId) -> Query<'static> {
    Query {
        client: ip(client),
        server: ip(server),
        port,
        proto: IpProto::TCP,
        direction: Direction::Inbound,
        app: AppKnowledge::Known(app),
        host: None,
        mode: Mode::Protect,
    }
}

fn feed(learner: &mut Learner, row: &Row, times: usize) -> usize {
    (0..times).filter(|_| learner.observe(row)).count()
}

#[test]
fn what_was_learned_passes_in_protect_and_nothing_else() {
    let mut learner = world();
    assert_eq!(feed(&mut learner, &inbound("cache", SHOP, 6379, AppId::REDIS), 5), 1);
    set_mode(&mut learner, "cache", Mode::Protect);
    let mut judge = |client, server, port, app| {
        verdict(&mut learner, "cache", query(client, server, port, app))
    };
    assert_eq!(judge(SHOP, CACHE, 6379, AppId::REDIS), (Verdict::Allow, 10_001));
    assert_eq!(judge(SHOP_V6, "fd00::2", 6379, AppId::REDIS), (Verdict::Allow, 10_001));
    assert_eq!(judge(SHOP, CACHE, 6379, AppId::HTTP), (Verdict::Deny, 0));
    assert_eq!(judge(SHOP, CACHE, 6379, AppId::UNIDENTIFIED), (Verdict::Deny, 0));
    assert_eq!(judge(SHOP, CACHE, 6380, AppId::REDIS), (Verdict::Deny, 0));
    assert_eq!(judge(INTRUDER, CACHE, 6379, AppId::REDIS), (Verdict::Deny, 0));
}

#[test]
fn evidence_says_why() {
    let mut learner = world();
    feed(&mut learner, &inbound("cache", SHOP, 6379, AppId::REDIS), 3);
    feed(&mut learner, &inbound("cache", SHOP_V6, 6379, AppId::REDIS), 1);
    let rule = learner.rules().next().unwrap();
    assert_eq!((rule.key.from.clone(), rule.key.to.clone()), (group("shop"), group("cache")));
    let evidence = &rule.evidence;
    assert_eq!((evidence.sessions, evidence.bytes, evidence.clients()), (4, 400, 2));
    assert_eq!((evidence.first_seen, evidence.last_seen), (1_000, 1_001));
    assert_eq!(evidence.samples[0].to_string(), "10.0.0.3:40000 > 10.0.0.2:6379");
}

#[test]
fn sessions_without_data_teach_nothing() {
    let mut learner = world();
    let silent = Row { bytes: 0, ..inbound("cache", SHOP, 6379, AppId::UNKNOWN) };
    assert_eq!(feed(&mut learner, &silent, 100), 0);
    assert_eq!(learner.candidates().next().unwrap().evidence.data_sessions, 0);
}

#[test]
fn learns_only_in_discover_and_only_from_what_passed() {
    let mut learner = world();
    let redis = inbound("cache", SHOP, 6379, AppId::REDIS);
    feed(&mut learner, &against(redis.clone(), PolicyAction::Violate, 1), 9);
    feed(&mut learner, &Row { action: PolicyAction::Open, ..redis.clone() }, 9);
    feed(&mut learner, &Row { app: AppId::NOT_CHECKED, ..redis.clone() }, 9);
    assert_eq!(learner.candidates().count(), 0);
    for mode in [Mode::Monitor, Mode::Protect] {
        set_mode(&mut learner, "cache", mode);
        feed(&mut learner, &redis, 9);
    }
    assert_eq!((learner.rules().count(), learner.candidates().count()), (0, 0));
    set_mode(&mut learner, "shop", Mode::Protect);
    set_mode(&mut learner, "cache", Mode::Discover);
    assert_eq!(feed(&mut learner, &redis, 3), 1, "the server's mode counts, not the client's");
}

#[test]
fn the_cluster_is_taught_by_what_teaches_here() {
    let mut learner = world();
    let redis = inbound("cache", SHOP, 6379, AppId::REDIS);
    let opened = outbound("shop", CACHE, 6379, AppId::REDIS);
    assert!(learner.teaches(&redis) && learner.teaches(&outbound("shop", FAR, 443, AppId::SSL)));
    assert!(!learner.teaches(&opened), "the server's proxy tells");
    learner.falls_silent("uid-cache");
    assert!(!learner.teaches(&opened), "it only says nothing");
    for action in [PolicyAction::Violate, PolicyAction::Deny, PolicyAction::Open] {
        assert!(!learner.teaches(&Row { action, ..redis.clone() }), "{action:?}");
    }
    for mode in [Mode::Monitor, Mode::Protect] {
        set_mode(&mut learner, "cache", mode);
        assert!(!learner.teaches(&redis), "{mode}");
    }
}

#[test]
fn a_rule_keeps_counting_in_protect() {
    let mut learner = world();
    let redis = inbound("cache", SHOP, 6379, AppId::REDIS);
    feed(&mut learner, &redis, 3);
    set_mode(&mut learner, "cache", Mode::Protect);
    let allowed = Row { action: PolicyAction::Allow, rule: RuleId(10_001), ..redis };
    assert_eq!(feed(&mut learner, &allowed, 2), 0);
    assert_eq!(learner.rules().next().unwrap().evidence.sessions, 5);
}

#[test]
fn a_port_is_learned_if_the_application_stayed_unknown() {
    let mut learner = world();
    let unknown = inbound("web", SHOP, 7000, AppId::UNKNOWN);
    assert_eq!(feed(&mut learner, &unknown, 4), 0);
    assert_eq!(feed(&mut learner, &unknown, 1), 1);
    set_mode(&mut learner, "web", Mode::Protect);
    let mut judge = |port, app| verdict(&mut learner, "web", query(SHOP, "10.0.0.4", port, app)).0;
    assert_eq!(judge(7000, AppId::UNIDENTIFIED), Verdict::Allow);
    assert_eq!(judge(7000, AppId::SSH), Verdict::Deny);
    set_mode(&mut learner, "web", Mode::Discover);
    feed(&mut learner, &inbound("web", SHOP, 7001, AppId::HTTP), 1);
    assert_eq!(feed(&mut learner, &inbound("web", SHOP, 7001, AppId::UNKNOWN), 50), 0);
}

#[test]
fn outbound_flows_to_the_outside_are_learned_at_the_client() {
    let mut learner = world();
    assert_eq!(feed(&mut learner, &outbound("shop", FAR, 443, AppId::SSL), 3), 1);
    assert_eq!(feed(&mut learner, &outbound("shop", "10.0.0.99", 443, AppId::SSL), 3), 1);
    set_mode(&mut learner, "shop", Mode::Protect);
    let mut judge = |server| {
        let query =
            Query { direction: Direction::Outbound, ..query(SHOP, server, 443, AppId::SSL) };
        verdict(&mut learner, "shop", query)
    };
    assert_eq!(judge("192.0.2.77"), (Verdict::Allow, 10_001));
    assert_eq!(judge("10.0.0.99"), (Verdict::Allow, 10_002));
    assert_eq!(judge("10.0.0.98"), (Verdict::Deny, 0));
    assert_eq!(judge(CACHE), (Verdict::Deny, 0));
}

#[test]
fn what_a_server_learned_its_client_may_open() {
    let mut learner = world();
    feed(&mut learner, &inbound("cache", SHOP, 6379, AppId::REDIS), 3);
    set_mode(&mut learner, "shop", Mode::Protect);
    let query = Query { direction: Direction::Outbound, ..query(SHOP, CACHE, 6379, AppId::REDIS) };
    assert_eq!(verdict(&mut learner, "shop", query), (Verdict::Allow, 10_001));
}

#[test]
fn a_flow_that_both_ends_report_counts_once() {
    let mut learner = world();
    feed(&mut learner, &inbound("cache", SHOP, 6379, AppId::REDIS), 2);
    feed(&mut learner, &outbound("shop", CACHE, 6379, AppId::REDIS), 2);
    let all: Vec<_> = learner.conversations().collect();
    assert_eq!(all.len(), 1);
    assert_eq!((all[0].sessions, all[0].bytes), (2, 200));
    assert_eq!(
        (all[0].client_name.as_str(), all[0].server_name.as_str()),
        ("default/shop", "default/cache")
    );
    assert_eq!(learner.totals().mirrored_sessions, 2);
}

#[test]
fn what_the_client_stopped_is_added_and_what_it_passed_on_is_not() {
    let mut learner = world();
    let stopped =
        against(outbound("intruder", CACHE, 6379, AppId::NOT_CHECKED), PolicyAction::Deny, 2);
    let seen = against(inbound("cache", INTRUDER, 6379, AppId::REDIS), PolicyAction::Violate, 3);
    let passed = against(outbound("intruder", CACHE, 6379, AppId::REDIS), PolicyAction::Violate, 3);
    for row in [&stopped, &seen, &passed] {
        learner.observe(row);
    }
    let violations: u64 = learner
        .conversations()
        .map(|known| known.violations.total())
        .sum();
    assert_eq!(violations, 5);
    let listed: u64 = learner.violations().map(|known| known.count.total()).sum();
    assert_eq!(listed, 5);
}

#[test]
fn a_violation_says_who_judged_and_what_is_missing() {
    let mut learner = world();
    set_mode(&mut learner, "cache", Mode::Protect);
    let refused = inbound("cache", INTRUDER, 6379, AppId::NOT_CHECKED);
    feed(&mut learner, &against(refused, PolicyAction::Deny, 1), 4);
    let found = learner.violations().next().unwrap();
    assert_eq!((found.count.total(), found.action), (4, PolicyAction::Deny));
    assert_eq!(
        found.reason,
        "refused inbound at default/cache, in protect: no rule allows nv.intruder.default to \
         nv.cache.default: any application on tcp/6379"
    );
}

#[test]
fn a_refusal_joins_the_conversation_once_it_is_allowed() {
    let mut learner = world();
    let refused = inbound("cache", SHOP, 6379, AppId::NOT_CHECKED);
    feed(&mut learner, &against(refused, PolicyAction::Deny, 1), 2);
    feed(&mut learner, &inbound("cache", SHOP, 6379, AppId::REDIS), 1);
    let all: Vec<_> = learner.conversations().collect();
    assert_eq!(all.len(), 1);
    let expected = Tally { judged: 2, passed_on: 0, stopped: 0 };
    assert_eq!((all[0].key.app, all[0].violations), (AppId::REDIS, expected));
}

#[test]
fn threats_are_counted_where_the_worst_stays() {
    let mut learner = world();
    let clean = inbound("web", SHOP, 80, AppId::HTTP);
    let bad = Row { severity: Severity::High, threat: ThreatId::SMUGGLING, ..clean.clone() };
    let mild = Row { severity: Severity::Low, threat: ThreatId::SSH_VERSION_1, ..clean.clone() };
    for row in [&clean, &bad, &mild] {
        learner.observe(row);
    }
    let known = learner.conversations().next().unwrap();
    assert_eq!(
        (known.threats, known.threat, known.severity),
        (2, ThreatId::SMUGGLING, Severity::High)
    );
}

#[test]
fn samples_add_names_and_examples_and_count_nothing() {
    let mut learner = world();
    feed(&mut learner, &inbound("web", SHOP, 80, AppId::HTTP), 3);
    let sample = |at: usize| Sample {
        reporter: "uid-web".into(),
        inbound: true,
        client: SocketAddr::new(ip(SHOP), 50_000),
        server: "10.0.0.4:80".parse().unwrap(),
        proto: IpProto::TCP,
        app: AppId::HTTP,
        at: 1_001,
        names: vec![format!("web{at}.example").into()],
    };
    for at in 0..=MAX_NAMES {
        learner.sample(&sample(at));
    }
    let known = learner.conversations().next().unwrap();
    assert_eq!((known.sessions, known.names.len()), (3, MAX_NAMES));
    assert_eq!(learner.rules().next().unwrap().evidence.samples.len(), 2);
}

#[test]
fn reports_of_strangers_are_counted_and_not_taken_in() {
    let mut learner = world();
    let row = Row { reporter: "nobody".into(), ..inbound("cache", SHOP, 6379, AppId::REDIS) };
    assert_eq!(feed(&mut learner, &row, 9), 0);
    let totals = learner.totals();
    assert_eq!(
        (totals.unknown_reporters, totals.unknown_sessions, totals.unknown_bytes),
        (9, 9, 900)
    );
    assert_eq!(learner.conversations().count(), 0);
}

#[test]
fn late_reports_about_a_pod_that_left_teach_of_its_group() {
    let mut learner = world();
    learner.directory_mut().remove("uid-shop", 1_000);
    assert_eq!(feed(&mut learner, &inbound("cache", SHOP, 6379, AppId::REDIS), 3), 1);
    assert_eq!(learner.rules().next().unwrap().key.from, group("shop"));
}

#[test]
fn hands_out_policy_only_when_it_differs() {
    let mut learner = world();
    assert_eq!(learner.compile_changed().len(), 4);
    assert!(learner.compile_changed().is_empty());
    feed(&mut learner, &inbound("cache", SHOP, 6379, AppId::REDIS), 3);
    assert_eq!(learner.compile_changed(), [group("cache"), group("shop")]);
    set_mode(&mut learner, "web", Mode::Protect);
    assert_eq!(learner.compile_changed().len(), 1);
    learner.directory_mut().remove("uid-web", 1);
    assert!(learner.compile_changed().is_empty() && learner.policy("uid-web").is_none());
}

#[test]
fn in_discover_learned_rules_say_learn() {
    let mut learner = world();
    feed(&mut learner, &inbound("cache", SHOP, 6379, AppId::REDIS), 3);
    learner.compile_changed();
    let spec = &learner.policy("uid-cache").unwrap().spec;
    assert_eq!(spec.default_action, PolicyAction::Learn);
    assert!(
        spec.rules
            .iter()
            .flat_map(|rule| &rule.apps)
            .all(|app| app.action == PolicyAction::Learn)
    );
    assert!(spec.inbound && spec.outbound && !spec.grace);
    assert_eq!(spec.rules.len(), 2, "one for each address of the client");
}

#[test]
fn a_restart_forgets_nothing() {
    let mut learner = world();
    feed(&mut learner, &inbound("cache", SHOP, 6379, AppId::REDIS), 4);
    feed(&mut learner, &inbound("web", SHOP, 80, AppId::HTTP), 2);
    feed(&mut learner, &outbound("shop", FAR, 443, AppId::SSL), 3);
    let refused = inbound("cache", INTRUDER, 6379, AppId::NOT_CHECKED);
    feed(&mut learner, &against(refused, PolicyAction::Deny, 1), 2);
    let stored: Vec<String> = learner
        .take_changes()
        .into_iter()
        .map(|change| serde_json::to_string(&change.record.unwrap()).unwrap())
        .collect();
    assert!(learner.take_changes().is_empty());

    let mut restarted = world();
    for record in &stored {
        assert!(restarted.restore(serde_json::from_str(record).unwrap()), "{record}");
    }
    assert!(restarted.take_changes().is_empty());
    assert_eq!(restarted.totals(), learner.totals());
    assert!(restarted.rules().eq(learner.rules()));
    assert!(restarted.candidates().eq(learner.candidates()));
    assert!(restarted.conversations().eq(learner.conversations()));
    assert!(restarted.violations().eq(learner.violations()));
    assert_eq!(feed(&mut restarted, &inbound("web", SHOP, 80, AppId::HTTP), 1), 1);
    assert_eq!(restarted.rules().last().unwrap().id, RuleId(10_003));
    learner.compile_changed();
    restarted.compile_changed();
    assert_eq!(learner.policy("uid-cache"), restarted.policy("uid-cache"));
}

#[test]
fn every_record_has_a_key_of_its_own() {
    let mut learner = world();
    for port in [80, 81] {
        for client in [SHOP, INTRUDER, FAR, "10.0.0.99", "10.0.0.1"] {
            feed(&mut learner, &inbound("web", client, port, AppId::HTTP), 3);
            feed(&mut learner, &inbound("web", client, port, AppId::SSL), 1);
            let row = inbound("web", client, port, AppId::NOT_CHECKED);
            learner.observe(&against(row, PolicyAction::Deny, 1));
        }
    }
    let changes = learner.take_changes();
    let keys: std::collections::BTreeSet<_> = changes.iter().map(|change| &change.key).collect();
    assert_eq!(keys.len(), changes.len());
    assert!(learner.forget_rule(RuleId(10_001)));
    let gone = learner.take_changes();
    assert_eq!(gone.len(), 1);
    assert!(gone[0].record.is_none() && changes.iter().any(|change| change.key == gone[0].key));
}

#[test]
fn floods_stay_within_the_bounds_and_add_up() {
    let mut learner = world();
    let rows = u32::try_from(MAX_CONVERSATIONS + 5_000).unwrap();
    for at in 0..rows {
        let port = u16::try_from(at % 60_000).unwrap();
        let client = std::net::IpAddr::from((0x0a00_0064 + at / 60_000).to_be_bytes()).to_string();
        let row = inbound("web", &client, port, AppId::UNKNOWN);
        let row = Row { last_seen: 1_001 + u64::from(at), ..row };
        learner.observe(&against(row, PolicyAction::Violate, 1));
    }
    assert!(learner.conversations().count() <= MAX_CONVERSATIONS);
    assert!(learner.violations().count() <= MAX_WORKLOAD_VIOLATIONS);
    let totals = learner.totals();
    assert!(totals.evicted > 0 && totals.evicted_kinds > 0);
    let kept: u64 = learner
        .conversations()
        .map(|known| known.violations.total())
        .sum();
    assert_eq!(kept + totals.evicted_violations, u64::from(rows));
    let newest = learner.conversations().map(|known| known.last_seen).max();
    assert_eq!(newest, Some(1_000 + u64::from(rows)));
}

fn any_row() -> impl Strategy<Value = Row> {
    let names = prop::sample::select(vec!["cache", "shop", "web", "intruder"]);
    let peers = prop::sample::select(vec![CACHE, SHOP, SHOP_V6, INTRUDER, FAR, "10.0.0.99"]);
    let app =
        prop::sample::select(vec![AppId::UNKNOWN, AppId::NOT_CHECKED, AppId::REDIS, AppId::HTTP]);
    let action = prop::sample::select(vec![
        PolicyAction::Open,
        PolicyAction::Learn,
        PolicyAction::Allow,
        PolicyAction::Violate,
        PolicyAction::Deny,
    ]);
    (names, peers, any::<bool>(), 80u16..83, app, action, 0u64..4, 0u64..9, 0u64..3, 0u64..50)
        .prop_map(|(own, peer, is_inbound, port, app, action, sessions, bytes, violations, at)| {
            let row = match is_inbound {
                true => inbound(own, peer, port, app),
                false => outbound(own, peer, port, app),
            };
            let violations = if action.violates() { violations } else { 0 };
            Row { action, sessions, bytes, violations, last_seen: 1_001 + at, ..row }
        })
}

proptest! {
    #[test]
    fn sums_agree(rows in prop::collection::vec(any_row(), 0..300)) {
        let mut learner = world();
        let (mut sessions, mut bytes, mut violations) = (0, 0, 0);
        for row in &rows {
            sessions += row.sessions;
            bytes += row.bytes;
            violations += row.violations;
            learner.observe(row);
        }
        let totals = learner.totals();
        let sum = |of: fn(&Conversation) -> u64| learner.conversations().map(of).sum::<u64>();
        let kept = sum(|known| known.sessions);
        prop_assert_eq!(kept + totals.evicted_sessions, totals.sessions);
        prop_assert_eq!(totals.sessions + totals.mirrored_sessions, sessions);
        let kept = sum(|known| known.bytes);
        prop_assert_eq!(kept + totals.evicted_bytes, totals.bytes);
        prop_assert_eq!(totals.bytes + totals.mirrored_bytes, bytes);
        let raw = |tally: Tally| tally.judged + tally.passed_on + tally.stopped;
        let seen: u64 = learner.conversations().map(|known| raw(known.violations)).sum();
        prop_assert_eq!(seen, violations);
        let listed: u64 = learner.violations().map(|known| raw(known.count)).sum();
        prop_assert_eq!(listed, violations);
    }

    #[test]
    fn learning_never_makes_a_policy_that_is_refused(rows in prop::collection::vec(any_row(), 0..200)) {
        let mut learner = world();
        for row in &rows {
            learner.observe(&Row { sessions: 3, bytes: 9, ..row.clone() });
        }
        learner.compile_changed();
        for name in ["cache", "shop", "web", "intruder"] {
            let policy = learner.policy(&format!("uid-{name}")).unwrap();
            prop_assert!(Snapshot::compile(Some(&policy.spec), &Network::default()).is_ok());
        }
    }
}

#[test]
fn a_silent_servers_clients_count_until_it_speaks() {
    let mut learner = world();
    let told = |learner: &Learner| {
        let totals = learner.totals();
        let of = |known: &Conversation| (known.sessions, known.bytes, known.lent.sessions);
        (
            learner.conversations().map(of).collect::<Vec<_>>(),
            totals.sessions,
            totals.mirrored_sessions,
        )
    };
    let (by_server, by_client) =
        (inbound("cache", SHOP, 6379, AppId::REDIS), outbound("shop", CACHE, 6379, AppId::REDIS));
    for row in [&by_server, &by_client] {
        feed(&mut learner, row, 1);
    }
    learner.falls_silent("uid-cache");
    assert_eq!(feed(&mut learner, &by_client, 4), 0);
    assert_eq!(told(&learner), (vec![(5, 500, 4)], 5, 1));
    assert_eq!(learner.rules().count(), 0, "no rule is made of the client's word");
    // Over a restart of the bridge.
    let mut again = world();
    for change in learner.take_changes() {
        assert!(again.restore(change.record.unwrap()));
    }
    again.speak(["uid-cache"]);
    assert_eq!(told(&again), (vec![(1, 100, 0)], 1, 5));
    feed(&mut again, &by_server, 4);
    feed(&mut again, &by_client, 2);
    assert_eq!(told(&again), (vec![(5, 500, 0)], 5, 7));
}

#[test]
fn what_only_a_silent_servers_client_told_is_gone_when_it_speaks() {
    let mut learner = world();
    learner.falls_silent("uid-cache");
    feed(&mut learner, &outbound("shop", CACHE, 6379, AppId::REDIS), 2);
    feed(&mut learner, &outbound("shop", FAR, 443, AppId::SSL), 1);
    assert_eq!(learner.conversations().count(), 2);
    learner.speak(["uid-web"]);
    assert_eq!(learner.conversations().count(), 2, "another one spoke");
    learner.speak(["uid-cache"]);
    let left: Vec<_> = learner
        .conversations()
        .map(|known| known.key.port)
        .collect();
    assert_eq!(left, [443]);
}
