use outrider_model::{Direction, Verdict};
use outrider_policy::{AppKnowledge, Network, Query, Snapshot};
use proptest::prelude::*;

use super::*;
use crate::world::{against, group, inbound, ip, outbound, set_mode, world};

const SHOP: &str = "10.0.0.3";
const CACHE: &str = "10.0.0.2";

fn told_by_server() -> Row {
    inbound("cache", SHOP, 6379, AppId::UNKNOWN)
}

fn told_by_client() -> Row {
    outbound("shop", CACHE, 6379, AppId::REDIS)
}

fn listed(learner: &Learner) -> Vec<(AppId, u64, u64)> {
    let known = learner.conversations();
    known
        .map(|known| (known.key.app, known.sessions, known.bytes))
        .collect()
}

fn ruled(learner: &Learner) -> Vec<(AppId, u64)> {
    let rules = learner.rules();
    rules
        .map(|rule| (rule.key.app, rule.evidence.sessions))
        .collect()
}

/// What the proxy at one end says of a flow between the two in Protect.
fn verdict(learner: &mut Learner, direction: Direction, app: AppKnowledge) -> Verdict {
    for name in ["shop", "cache"] {
        set_mode(learner, name, Mode::Protect);
    }
    learner.compile_changed();
    let at = if direction == Direction::Inbound { "uid-cache" } else { "uid-shop" };
    let policy = learner.policy(at).unwrap();
    let network =
        Network { internal: learner.directory().internal().to_vec(), ..Network::default() };
    let snapshot = Snapshot::compile(Some(&policy.spec), &network).unwrap();
    let decision = snapshot.decide(&Query {
        client: ip(SHOP),
        server: ip(CACHE),
        port: 6379,
        proto: IpProto::TCP,
        direction,
        app,
        host: None,
        mode: policy.mode,
    });
    decision.verdict(policy.mode)
}

#[test]
fn the_clients_word_counts_where_the_server_saw_none_whoever_reports_first() {
    for server_first in [true, false] {
        let mut learner = world();
        let rows = [told_by_server(), told_by_client()];
        let in_turn = |at: usize| &rows[if server_first { at } else { 1 - at }];
        learner.observe(in_turn(0));
        learner.observe(in_turn(1));
        assert_eq!(listed(&learner), [(AppId::REDIS, 1, 100)], "server first: {server_first}");
        learner.observe(&rows[0]);
        learner.observe(&rows[0]);
        assert_eq!(listed(&learner), [(AppId::REDIS, 3, 300)]);
        assert_eq!(ruled(&learner), [(AppId::REDIS, 3)], "server first: {server_first}");
        assert_eq!(learner.candidates().count(), 0);
        let totals = learner.totals();
        assert_eq!((totals.sessions, totals.mirrored_sessions), (3, 1));
    }
}

#[test]
fn a_rule_of_the_bare_port_becomes_the_applications() {
    let mut learner = world();
    for _ in 0..5 {
        learner.observe(&told_by_server());
    }
    assert_eq!(ruled(&learner), [(AppId::UNIDENTIFIED, 5)]);
    assert!(learner.observe(&told_by_client()), "policy must be compiled");
    assert_eq!(ruled(&learner), [(AppId::REDIS, 5)]);
    assert_eq!(listed(&learner), [(AppId::REDIS, 5, 500)]);
}

#[test]
fn both_ends_let_pass_in_protect_what_they_know_of_it() {
    let mut learner = world();
    learner.observe(&told_by_client());
    for _ in 0..3 {
        learner.observe(&told_by_server());
    }
    let (redis, ssh) = (AppKnowledge::Known(AppId::REDIS), AppKnowledge::Known(AppId::SSH));
    let mut judge = |direction, app| verdict(&mut learner, direction, app);
    assert_eq!(judge(Direction::Outbound, redis), Verdict::Allow);
    assert_eq!(judge(Direction::Inbound, AppKnowledge::Unidentified), Verdict::Allow);
    assert_eq!(judge(Direction::Inbound, redis), Verdict::Allow);
    assert_eq!(judge(Direction::Inbound, ssh), Verdict::Deny);
    assert_eq!(judge(Direction::Outbound, AppKnowledge::Unidentified), Verdict::Deny);
}

#[test]
fn once_the_server_sees_it_itself_nothing_unidentified_passes() {
    let mut learner = world();
    learner.observe(&told_by_client());
    for _ in 0..3 {
        learner.observe(&told_by_server());
    }
    let own = Row { app: AppId::REDIS, ..told_by_server() };
    assert!(learner.observe(&own), "policy must be compiled");
    assert!(!learner.observe(&own));
    learner.observe(&told_by_server());
    let judged = verdict(&mut learner, Direction::Inbound, AppKnowledge::Unidentified);
    assert_eq!(judged, Verdict::Deny);
    assert_eq!(listed(&learner), [(AppId::REDIS, 6, 600)]);
}

#[test]
fn in_protect_what_the_bare_port_let_pass_confirms_it() {
    let mut learner = world();
    for _ in 0..5 {
        learner.observe(&told_by_server());
    }
    set_mode(&mut learner, "cache", Mode::Protect);
    assert!(!learner.observe(&told_by_client()));
    learner.observe(&Row { action: PolicyAction::Allow, ..told_by_server() });
    assert_eq!(ruled(&learner), [(AppId::UNIDENTIFIED, 6)], "nothing is learned in protect");
    assert_eq!(listed(&learner), [(AppId::REDIS, 6, 600)]);
}

#[test]
fn of_what_is_outside_policy_nobodys_word_is_taken() {
    let mut learner = world();
    learner.observe(&against(told_by_server(), PolicyAction::Violate, 1));
    learner.observe(&told_by_client());
    learner.observe(&against(told_by_server(), PolicyAction::Violate, 1));
    assert_eq!(listed(&learner), [(AppId::UNKNOWN, 2, 200)]);
    let violation = learner.violations().next().unwrap();
    assert_eq!((violation.key.app, violation.count.total()), (AppId::UNKNOWN, 2));
    assert_eq!(learner.rules().count() + learner.candidates().count(), 0);
}

#[test]
fn what_the_server_sees_is_nobody_elses_to_say() {
    let mut learner = world();
    learner.observe(&told_by_client());
    learner.observe(&Row { app: AppId::SSH, ..told_by_server() });
    assert_eq!(listed(&learner), [(AppId::SSH, 1, 100)]);
    let refused = Row { app: AppId::NOT_CHECKED, sessions: 0, bytes: 0, ..told_by_server() };
    learner.observe(&against(refused, PolicyAction::Deny, 1));
    let apps: Vec<_> = learner.violations().map(|known| known.key.app).collect();
    assert_eq!(apps, [AppId::NOT_CHECKED]);
    // One client's word is about its own flows.
    learner.observe(&inbound("cache", "10.0.0.4", 6379, AppId::UNKNOWN));
    let web = Endpoint::Workload("uid-web".into());
    let mut of_web = learner
        .conversations()
        .filter(|known| known.key.client == web);
    assert_eq!(of_web.next().unwrap().key.app, AppId::UNKNOWN);
}

#[test]
fn examples_go_where_the_flows_are() {
    let mut learner = world();
    learner.observe(&told_by_client());
    learner.observe(&told_by_server());
    learner.sample(&crate::Sample {
        reporter: "uid-cache".into(),
        inbound: true,
        client: "10.0.0.3:50000".parse().unwrap(),
        server: "10.0.0.2:6379".parse().unwrap(),
        proto: IpProto::TCP,
        app: AppId::UNKNOWN,
        at: 1_001,
        names: Vec::new(),
    });
    assert_eq!(learner.conversations().next().unwrap().samples.len(), 1);
}

#[test]
fn the_words_of_one_client_are_bounded() {
    let mut learner = world();
    let cap = u16::try_from(MAX_WORDS).unwrap();
    for port in 0..=cap {
        let row = outbound("shop", CACHE, 1_000 + port, AppId::REDIS);
        learner.observe(&Row { last_seen: 1_001 + u64::from(port), ..row });
    }
    let known: Vec<_> = learner.words.0.values().map(BTreeMap::len).collect();
    assert_eq!(known, [MAX_WORDS]);
    for port in [1_000, 1_000 + cap] {
        learner.observe(&inbound("cache", SHOP, port, AppId::UNKNOWN));
    }
    assert_eq!(listed(&learner), [(AppId::UNKNOWN, 1, 100), (AppId::REDIS, 1, 100)]);
}

#[test]
fn a_rule_never_goes_before_another_takes_its_place() {
    let mut learner = world();
    learner.settings.identified_sessions = 9;
    for _ in 0..5 {
        learner.observe(&told_by_server());
    }
    learner.observe(&told_by_client());
    assert_eq!(ruled(&learner), [(AppId::UNIDENTIFIED, 5)]);
    for _ in 0..9 {
        learner.observe(&told_by_server());
    }
    assert_eq!(ruled(&learner), [(AppId::REDIS, 14)]);
    assert_eq!(learner.rules().next().unwrap().key.to, group("cache"));
}

proptest! {
    #[test]
    fn whatever_the_order_there_is_one_conversation_and_nothing_twice(
        order in prop::collection::vec(prop::bool::weighted(0.7), 1..40),
    ) {
        let mut learner = world();
        for by_server in &order {
            learner.observe(&if *by_server { told_by_server() } else { told_by_client() });
        }
        let by_server = order.iter().filter(|by_server| **by_server).count() as u64;
        let app = if by_server < order.len() as u64 { AppId::REDIS } else { AppId::UNKNOWN };
        let expected: Vec<_> =
            (by_server > 0).then_some((app, by_server, 100 * by_server)).into_iter().collect();
        prop_assert_eq!(listed(&learner), expected);
        prop_assert_eq!(learner.totals().sessions, by_server);
        let evidence: u64 = learner.rules().map(|rule| rule.evidence.sessions)
            .chain(learner.candidates().map(|known| known.evidence.sessions)).sum();
        prop_assert_eq!(evidence, by_server);
    }
}
