use super::*;
use crate::cluster::objects::MAX_COUNTED;

fn said(from: &str, side: Side, sessions: u64) -> Conversation {
    Conversation {
        from: from.to_owned(),
        to: "nv.db.shop".to_owned(),
        proto: 6,
        port: 5432,
        app: AppId::HTTP.0,
        side: side.into(),
        sessions,
        bytes: sessions * 100,
        first_seen: 1_000,
        last_seen: 2_000,
        clients: vec![vec![10, 0, 0, 1]],
        ..Conversation::default()
    }
}

fn node(name: &str) -> Arc<str> {
    name.into()
}

fn policy(write: &object::Write) -> LearnedPolicy {
    let mut object = write.rules.clone().unwrap();
    object["status"] = write.status["status"].clone();
    serde_json::from_value(object).unwrap()
}

/// Sessions that speak for the only rule.
fn evidence(merged: &Merged) -> u64 {
    let mut rules = merged
        .services
        .values()
        .flat_map(|service| service.rules.values());
    rules.next().unwrap().seen.counted().data_sessions
}

fn plan(merged: &Merged) -> Vec<Arc<Rule>> {
    merged.plan().into_values().flatten().collect()
}

#[test]
fn sessions_of_two_nodes_make_one_rule() {
    let mut merged = Merged::default();
    assert_eq!(
        merged.observe(&node("a"), &said("nv.web.shop", Side::Server, 2), true),
        Taken::Counted
    );
    assert_eq!(
        merged.observe(&node("b"), &said("nv.web.shop", Side::Server, 1), true),
        Taken::Learned
    );
    assert_eq!(
        merged.observe(&node("a"), &said("nv.web.shop", Side::Server, 4), true),
        Taken::Counted
    );
    let plan = plan(&merged);
    assert_eq!((plan.len(), plan[0].id, &*plan[0].to), (1, FIRST_RULE, "nv.db.shop"));
    assert_eq!(merged.sizes(), (1, 0));
}

#[test]
fn sessions_that_only_confirm_make_no_rule_and_are_evidence_of_one() {
    let mut merged = Merged::default();
    let allowed = Conversation { confirming: 9, ..said("nv.web.shop", Side::Server, 9) };
    assert_eq!(merged.observe(&node("a"), &allowed, true), Taken::Counted);
    assert_eq!(merged.sizes(), (0, 0), "nothing has begun");
    let some = Conversation { confirming: 9, ..said("nv.web.shop", Side::Server, 11) };
    assert_eq!(merged.observe(&node("a"), &some, true), Taken::Counted);
    assert_eq!(merged.observe(&node("a"), &allowed, true), Taken::Counted);
    assert_eq!(merged.observe(&node("a"), &some, true), Taken::Learned);
    let before = evidence(&merged);
    assert_eq!((before, merged.observe(&node("a"), &allowed, true)), (4, Taken::Counted));
    assert_eq!(evidence(&merged), 13);
}

#[test]
fn what_both_ends_saw_counts_once() {
    let mut merged = Merged::default();
    for _ in 0..3 {
        merged.observe(&node("client"), &said("nv.web.shop", Side::Client, 1), true);
        merged.observe(&node("server"), &said("nv.web.shop", Side::Server, 1), true);
    }
    merged.observe(&node("client"), &said("nv.web.shop", Side::Client, 7), true);
    let write = merged.write(&("shop".into(), "db".into())).unwrap();
    assert_eq!(write.status["status"]["counts"]["sessions"], 3);
}

#[test]
fn without_the_servers_word_the_clients_counts() {
    let mut merged = Merged::default();
    assert_eq!(
        merged.observe(&node("a"), &said("nv.web.shop", Side::Client, 3), true),
        Taken::Learned
    );
}

#[test]
fn violations_speak_for_nothing() {
    let mut merged = Merged::default();
    let mut bad = said("nv.web.shop", Side::Server, 9);
    bad.violations = 9;
    assert_eq!(merged.observe(&node("a"), &bad, true), Taken::Counted);
    assert!(merged.plan().is_empty());
}

#[test]
fn what_a_node_learned_is_learned() {
    let mut merged = Merged::default();
    let mut one = said("nv.web.shop", Side::Server, 1);
    one.learned = true;
    assert_eq!(merged.observe(&node("a"), &one, true), Taken::Learned);
}

#[test]
fn a_new_leader_reads_rules_and_numbers_back() {
    let mut merged = Merged::default();
    merged.observe(&node("a"), &said("nv.web.shop", Side::Server, 3), true);
    let mut other = said("nv.api.shop", Side::Server, 5);
    other.app = AppId::UNIDENTIFIED.0;
    merged.observe(&node("a"), &other, true);
    let write = merged.write(&("shop".into(), "db".into())).unwrap();
    let object = Arc::new(policy(&write));
    let mut next = Merged::default();
    next.take([&object].into_iter());
    assert_eq!(next.plan(), merged.plan());
    assert_eq!(
        next.observe(&node("b"), &said("nv.new.shop", Side::Server, 3), true),
        Taken::Learned
    );
    assert_eq!(plan(&next).last().map(|rule| rule.id), Some(FIRST_RULE + 2));
    let write = next.write(&("shop".into(), "db".into())).unwrap();
    assert_eq!(write.status["status"]["counts"]["sessions"], 11);
}

#[test]
fn people_freeze_exclude_and_delete() {
    let mut merged = Merged::default();
    merged.observe(&node("a"), &said("nv.web.shop", Side::Server, 3), true);
    let key = ("shop".to_owned(), "db".to_owned());
    let write = merged.write(&key).unwrap();
    merged.wrote(&write, true);
    let mut object = policy(&write);
    (object.spec.frozen, object.spec.excluded) = (true, vec![FIRST_RULE]);
    merged.changed(false);
    merged.take_one(&object);
    assert!(merged.plan().is_empty());
    assert_eq!(merged.changed(false), BTreeMap::from([(FIRST_RULE, None)]));
    assert_eq!(
        merged.observe(&node("a"), &said("nv.new.shop", Side::Server, 9), true),
        Taken::Frozen
    );
    merged.take([].into_iter());
    assert_eq!((merged.sizes(), merged.written()), ((0, 0), merged.made()));
}

#[test]
fn a_batch_is_safe_once_its_rules_are_written() {
    let mut merged = Merged::default();
    merged.observe(&node("a"), &said("nv.web.shop", Side::Server, 3), true);
    assert_eq!((merged.made(), merged.written()), (1, 0));
    let key = ("shop".to_owned(), "db".to_owned());
    let write = merged.write(&key).unwrap();
    merged.observe(&node("a"), &said("nv.api.shop", Side::Server, 3), true);
    merged.wrote(&write, true);
    assert_eq!((merged.made(), merged.written()), (2, 1), "one came meanwhile");
    let write = merged.write(&key).unwrap();
    merged.wrote(&write, false);
    assert_eq!(merged.written(), 1, "it was not written");
    let write = merged.write(&key).unwrap();
    merged.wrote(&write, true);
    assert_eq!(merged.written(), 2);
    assert!(merged.dirty().is_empty());
}

#[test]
fn one_node_cannot_fill_the_table() {
    let mut merged = Merged::default();
    let mut taken = Taken::Counted;
    for at in 0..=MAX_OF_NODE {
        taken =
            merged.observe(&node("noisy"), &said(&format!("nv.s{at}.shop"), Side::Server, 1), true);
    }
    assert_eq!(taken, Taken::Full);
    assert_eq!(
        merged.observe(&node("quiet"), &said("nv.web.shop", Side::Server, 1), true),
        Taken::Counted
    );
    merged.sweep(2_000 + BEGUN_LIFE + 1);
    assert_eq!(merged.sizes(), (0, 0));
    assert_eq!(
        merged.observe(&node("noisy"), &said("nv.web.shop", Side::Server, 1), true),
        Taken::Counted
    );
}

#[test]
fn what_cannot_be_read_is_refused() {
    let mut merged = Merged::default();
    let change: [fn(&mut Conversation); 6] = [
        |said| said.from = String::new(),
        |said| said.to = "x".repeat(MAX_NAME + 1),
        |said| (said.from, said.to) = ("external".into(), "external".into()),
        |said| said.proto = 256,
        |said| said.port = 65_536,
        |said| said.side = 0,
    ];
    for change in change {
        let mut bad = said("nv.web.shop", Side::Server, 3);
        change(&mut bad);
        assert_eq!(merged.observe(&node("a"), &bad, true), Taken::Malformed, "{bad:?}");
    }
}

#[test]
fn who_is_not_sure_to_lead_makes_no_rule() {
    let mut merged = Merged::default();
    let web = said("nv.web.shop", Side::Server, 9);
    assert_eq!(merged.observe(&node("a"), &web, false), Taken::Counted);
    assert!(merged.plan().is_empty());
    assert_eq!(merged.observe(&node("a"), &web, true), Taken::Learned);
}

/// The next leader, after what was written.
fn next_leader(write: &object::Write) -> Merged {
    let object = Arc::new(policy(write));
    let mut next = Merged::default();
    next.take([&object].into_iter());
    next
}

fn db() -> Key {
    ("shop".to_owned(), "db".to_owned())
}

fn sessions(merged: &mut Merged) -> serde_json::Value {
    merged.write(&db()).unwrap().status["status"]["counts"]["sessions"].clone()
}

#[test]
fn a_batch_that_was_written_and_not_acknowledged_counts_once() {
    let (a, b) = (node("a"), node("b"));
    let (web, api) = (said("nv.web.shop", Side::Server, 3), said("nv.api.shop", Side::Server, 1));
    let tell = |merged: &mut Merged, node, number, said: &[&Conversation]| {
        merged.begin_batch(node, "start", number);
        for one in said {
            merged.observe(node, one, true);
        }
    };
    let mut merged = Merged::default();
    tell(&mut merged, &a, 1, &[&web, &api]);
    tell(&mut merged, &b, 5, &[&web]);
    merged.acknowledged("b", 5);
    // Killed here.
    let mut next = next_leader(&merged.write(&db()).unwrap());
    assert_eq!(sessions(&mut next), 6);
    let written_again = next.write(&db()).unwrap().status;
    tell(&mut next, &a, 1, &[&web, &api, &api]);
    assert_eq!(sessions(&mut next), 6, "the batch came again");
    assert_eq!(next.begun.len(), 1, "beginnings that were not written do count");
    next.acknowledged("a", 1);
    tell(&mut next, &a, 2, &[&web]);
    assert_eq!(sessions(&mut next), 9, "the next batch counts");
    let mut object = policy(&merged.write(&db()).unwrap());
    object.status = serde_json::from_value(written_again["status"].clone()).unwrap();
    let mut third = Merged::default();
    third.take_one(&object);
    tell(&mut third, &a, 1, &[&web]);
    assert_eq!(sessions(&mut third), 6, "it is still known after a second leader was killed");
    third.begin_batch(&a, "another start", 1);
    third.observe(&a, &web, true);
    assert_eq!(sessions(&mut third), 9, "another start of the bridge counts anew");
}

#[test]
fn so_many_batches_are_named() {
    let mut merged = Merged::default();
    for at in 0..MAX_COUNTED + 10 {
        let node = node(&format!("n{at}"));
        merged.begin_batch(&node, "start", 1);
        merged.observe(&node, &said("nv.web.shop", Side::Server, 3), true);
    }
    let named = |merged: &mut Merged| {
        let write = merged.write(&db()).unwrap();
        write.status["status"]["counted"].as_array().unwrap().len()
    };
    assert_eq!(named(&mut merged), MAX_COUNTED);
    for at in 0..MAX_COUNTED {
        merged.acknowledged(&format!("n{at}"), 1);
    }
    merged.begin_batch(&node("late"), "start", 1);
    merged.observe(&node("late"), &said("nv.web.shop", Side::Server, 1), true);
    assert_eq!(named(&mut merged), 1, "those that are acknowledged are named no more");
}
