use outrider_model::{AppId, Direction, IpProto, Mode, PolicyAction};

use super::*;
use crate::tests::rig::{RULE, all, apps, unjudged};

fn law(view: PolicyView) -> Law {
    Law::new(Arc::new(arc_swap::ArcSwap::from_pointee(view)))
}

fn key() -> FlowKey {
    FlowKey {
        client: "10.0.0.3:4000".parse().unwrap(),
        server: "10.0.0.2:80".parse().unwrap(),
        proto: IpProto::TCP,
        direction: Direction::Inbound,
    }
}

const HTTP_ONLY: &[(AppId, PolicyAction)] = &[(AppId::HTTP, PolicyAction::Allow)];

#[test]
fn holds_only_where_the_answer_may_be_no() {
    let everything = [(AppId::HTTP, PolicyAction::Allow), (AppId::ANY, PolicyAction::Allow)];
    for (view, holds) in [
        (unjudged(), false),
        (apps(Mode::Discover, HTTP_ONLY), false),
        (apps(Mode::Monitor, HTTP_ONLY), false),
        (apps(Mode::Protect, HTTP_ONLY), true),
        (apps(Mode::Protect, &everything), false),
        (all(Mode::Protect, PolicyAction::Allow), false),
    ] {
        let judge = Judge::open(key(), &law(view.clone()));
        assert_eq!(judge.holds(), holds, "{view:?}");
        assert_eq!(judge.verdict(), Verdict::Allow);
    }
}

#[test]
fn the_application_decides_and_ends_the_hold() {
    for (app, verdict) in [(AppId::HTTP, Verdict::Allow), (AppId::REDIS, Verdict::Deny)] {
        let law = law(apps(Mode::Protect, HTTP_ONLY));
        let mut judge = Judge::open(key(), &law);
        judge.learn_app(AppKnowledge::Known(app));
        judge.rule(&law);
        assert_eq!((judge.verdict(), judge.holds()), (verdict, false), "{app}");
    }
}

#[test]
fn giving_up_asks_for_unidentified() {
    let unidentified =
        [(AppId::HTTP, PolicyAction::Deny), (AppId::UNIDENTIFIED, PolicyAction::Allow)];
    let law = law(apps(Mode::Protect, &unidentified));
    let mut judge = Judge::open(key(), &law);
    judge.give_up(&law);
    assert_eq!((judge.verdict(), judge.holds()), (Verdict::Allow, false));
    assert_eq!(judge.decision().rule, RULE);
}

#[test]
fn giving_up_always_decides() {
    let law = law(apps(Mode::Protect, HTTP_ONLY));
    let mut judge = Judge::open(key(), &law);
    judge.give_up(&law);
    assert!(!judge.decision().action.undecided());
    assert_eq!(judge.verdict(), Verdict::Deny);
}

#[test]
fn quarantine_comes_before_everything() {
    let quarantined = PolicyView { quarantined: true, ..all(Mode::Discover, PolicyAction::Allow) };
    let judge = Judge::open(key(), &law(quarantined));
    assert_eq!(judge.decision().cause, DecisionCause::Quarantine);
    assert_eq!(judge.verdict(), Verdict::Deny);
}

#[test]
fn notices_a_swap() {
    let law = law(all(Mode::Protect, PolicyAction::Allow));
    let mut judge = Judge::open(key(), &law);
    assert!(judge.is_current(&law));
    let next = PolicyView { version: 2, ..all(Mode::Protect, PolicyAction::Deny) };
    law.policy.store(Arc::new(next));
    assert!(!judge.is_current(&law));
    judge.rule(&law);
    assert!(judge.is_current(&law));
    assert_eq!(judge.verdict(), Verdict::Deny);
}

#[test]
fn the_first_name_of_tls_stays_and_the_latest_of_http_counts() {
    let law = law(unjudged());
    let mut judge = Judge::open(key(), &law);
    judge.learn_sni("one".into());
    judge.learn_sni("two".into());
    assert_eq!(judge.host.as_deref(), Some("one"));
    judge.learn_host("three".into());
    judge.learn_host("four".into());
    assert_eq!(judge.host.as_deref(), Some("four"));
}
