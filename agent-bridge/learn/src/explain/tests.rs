//! Explanations, by example.

use super::*;
use crate::world::{inbound, ip, set_mode, world};

fn ask(client: &str, server: &str, port: u16, app: AppKnowledge) -> Question {
    let place = |name: &str| match name.parse() {
        Ok(address) => Place::Address(address),
        Err(_) => Place::Workload(format!("uid-{name}")),
    };
    Question { client: place(client), server: place(server), port, proto: IpProto::TCP, app }
}

const REDIS: AppKnowledge = AppKnowledge::Known(AppId::REDIS);

fn learned() -> Learner {
    let mut learner = world();
    for _ in 0..4 {
        learner.observe(&inbound("cache", "10.0.0.3", 6379, AppId::REDIS));
    }
    set_mode(&mut learner, "cache", Mode::Protect);
    learner
}

#[test]
fn names_the_rule_that_allows() {
    let found = learned()
        .explain(&ask("shop", "cache", 6379, REDIS))
        .unwrap();
    assert_eq!((found.client.as_str(), found.server.as_str()), ("default/shop", "default/cache"));
    assert_eq!((found.verdict, found.to_allow.as_str()), (Verdict::Allow, ""));
    let [client, server] = found.judged.as_slice() else { panic!("both ends judge") };
    assert_eq!((client.direction, client.mode), (Direction::Outbound, Mode::Discover));
    assert_eq!((server.decision.rule.0, server.decision.action), (10_001, PolicyAction::Allow));
    assert_eq!(
        server.reason,
        "nv.shop.default may open Redis on tcp/6379 (rule 10001) to nv.cache.default, learned from \
         4 sessions"
    );
}

#[test]
fn says_what_is_missing_and_what_would_allow_it() {
    let mut learner = learned();
    let found = learner
        .explain(&ask("intruder", "cache", 6379, REDIS))
        .unwrap();
    assert_eq!(found.verdict, Verdict::Deny);
    assert_eq!(
        found.judged[1].reason,
        "no rule allows nv.intruder.default to open Redis on tcp/6379 to nv.cache.default; the \
         default in protect is deny"
    );
    assert_eq!(
        found.to_allow,
        "at default/cache: put nv.cache.default in discover until 3 more sessions with data make a \
         rule (0 of 3 seen), or in monitor to let it pass and be reported"
    );
    set_mode(&mut learner, "cache", Mode::Discover);
    learner.observe(&inbound("cache", "10.0.0.5", 6379, AppId::REDIS));
    set_mode(&mut learner, "cache", Mode::Monitor);
    let found = learner
        .explain(&ask("10.0.0.5", "10.0.0.2", 6379, REDIS))
        .unwrap();
    assert_eq!(found.verdict, Verdict::Alert);
    assert!(
        found.to_allow.contains("until 2 more sessions") && !found.to_allow.contains("monitor")
    );
}

#[test]
fn tells_which_other_applications_are_known_on_the_port() {
    let learner = learned();
    let http = AppKnowledge::Known(AppId::HTTP);
    let found = learner.explain(&ask("shop", "cache", 6379, http)).unwrap();
    assert!(
        found.judged[1]
            .reason
            .contains(", only Redis on tcp/6379 (rule 10001);")
    );
    let pending = learner
        .explain(&ask("shop", "cache", 6379, AppKnowledge::Pending))
        .unwrap();
    assert_eq!(
        pending.judged[1].reason,
        "depends on the application: Redis on tcp/6379 (rule 10001), any other meets deny"
    );
    assert!(
        pending
            .to_allow
            .contains("an application that the rules name")
    );
    let unknown = AppKnowledge::Unidentified;
    let found = learner
        .explain(&ask("shop", "cache", 6379, unknown))
        .unwrap();
    assert!(found.to_allow.contains("the port alone makes no rule"), "{}", found.to_allow);
}

#[test]
fn judges_at_the_ends_that_have_a_proxy() {
    let learner = learned();
    let found = learner
        .explain(&ask("192.0.2.1", "cache", 6379, REDIS))
        .unwrap();
    assert_eq!((found.client.as_str(), found.judged.len()), ("external", 1));
    assert_eq!(found.verdict, Verdict::Deny);
    let found = learner
        .explain(&ask("shop", "192.0.2.1", 443, REDIS))
        .unwrap();
    assert_eq!((found.verdict, found.judged[0].direction), (Verdict::Allow, Direction::Outbound));
}

#[test]
fn refuses_what_cannot_be() {
    let mut learner = learned();
    let refused = learner.explain(&ask("nobody", "cache", 1, REDIS));
    assert_eq!(refused, Err(LearnError::UnknownWorkload));
    let mut v6_only = crate::world::workload("six", 9);
    v6_only.addresses = vec![ip("fd00::9")];
    learner.directory_mut().enter(v6_only).unwrap();
    let refused = learner.explain(&ask("10.0.0.3", "six", 1, REDIS));
    assert_eq!(refused, Err(LearnError::NoCommonFamily));
}
