//! What would have been, on the small node.

use outrider_model::{AppId, Mode, RuleId, Verdict};

use super::*;
use crate::{
    Ends, PolicyRule, Ports,
    world::{group, inbound, set_mode, world},
};

fn deny(id: u32, from: &str, to: &str) -> ClusterChange {
    ClusterChange::Rule(PolicyRule {
        id: RuleId(id),
        order: 1,
        from: group(from),
        to: group(to),
        ends: Ends::Both,
        ports: vec![Ports { proto: None, low: 6379, high: 6379 }],
        apps: Vec::new(),
        deny: true,
        learned: false,
        origin: "NetworkRule/default/x/no".into(),
    })
}

/// The shop asked the cache and the web, each often enough to be learned.
fn seen() -> Learner {
    let mut learner = world();
    for _ in 0..5 {
        learner.observe(&inbound("cache", "10.0.0.3", 6379, AppId::REDIS));
        learner.observe(&inbound("web", "10.0.0.3", 80, AppId::HTTP));
        learner.observe(&inbound("web", "198.51.100.7", 80, AppId::HTTP));
    }
    learner
}

fn changed(learner: &Learner, other: &Learner) -> Vec<(String, u16, Verdict, Verdict, String)> {
    let replay = learner.replay(other);
    assert_eq!((replay.judged, replay.unjudged), (3, 0));
    let all = replay.changed.iter().map(|one| {
        let known = one.conversation;
        (known.server_name.clone(), known.key.port, one.before, one.after, one.rule.clone())
    });
    all.collect()
}

#[test]
fn a_rule_that_would_refuse_what_happened_is_named() {
    let mut learner = seen();
    set_mode(&mut learner, "cache", Mode::Monitor);
    let other = learner
        .under([deny(200_000, "shop", "cache")], Supposed::default())
        .unwrap();
    let rule = "NetworkRule/default/x/no".to_owned();
    let cache = |before, after| ("default/cache".to_owned(), 6379, before, after, rule.clone());
    assert_eq!(changed(&learner, &other), [cache(Verdict::Allow, Verdict::Alert)]);
    set_mode(&mut learner, "cache", Mode::Protect);
    let other = learner
        .under([deny(200_000, "shop", "cache")], Supposed::default())
        .unwrap();
    assert_eq!(changed(&learner, &other), [cache(Verdict::Allow, Verdict::Deny)]);
    // What is in force is replaced, not added to.
    learner.cluster(deny(200_000, "shop", "cache")).unwrap();
    let other = learner.under([], Supposed::default()).unwrap();
    let found = changed(&learner, &other);
    assert_eq!((found[0].2, found[0].3), (Verdict::Deny, Verdict::Allow));
}

#[test]
fn alone_and_in_protect_only_what_people_said_passes() {
    let learner = seen();
    let protect = Supposed { mode: Some(Mode::Protect), alone: false };
    assert_eq!(changed(&learner, &learner.under([], protect).unwrap()), []);
    let alone = Supposed { alone: true, ..protect };
    let found = changed(&learner, &learner.under([], alone).unwrap());
    let denied: Vec<_> = found
        .iter()
        .map(|one| (one.0.as_str(), one.3, one.4.as_str()))
        .collect();
    assert_eq!(
        denied,
        [
            ("default/cache", Verdict::Deny, ""),
            ("default/web", Verdict::Deny, ""),
            ("default/web", Verdict::Deny, ""),
        ]
    );
}

#[test]
fn who_has_left_is_not_judged() {
    let mut learner = seen();
    learner.directory_mut().remove("uid-web", 2_000);
    let replay = learner.replay(&learner.under([], Supposed::default()).unwrap());
    assert_eq!((replay.judged, replay.unjudged), (2, 1), "the shop still judges what it opened");
}
