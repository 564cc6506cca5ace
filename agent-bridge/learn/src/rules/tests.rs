use super::*;

fn key(port: u16, app: AppId) -> LearnKey {
    LearnKey {
        from: Group::named("nv.a.default"),
        to: Group::named("nv.b.default"),
        proto: IpProto::TCP,
        port,
        app,
    }
}

/// With a reporter, which none of these is about.
fn by(key: &LearnKey) -> (&LearnKey, &'static Arc<str>) {
    static REPORTER: std::sync::LazyLock<Arc<str>> = std::sync::LazyLock::new(|| "a".into());
    (key, &REPORTER)
}

fn feed(rules: &mut Rules, key: &LearnKey, times: usize) -> bool {
    let (settings, mut totals) = (Settings::default(), Totals::default());
    (0..times).fold(false, |made, _| {
        made | rules.learn(by(key), &settings, &mut totals, |evidence| evidence.count(1, 10))
    })
}

#[test]
fn several_sessions_with_data_make_a_rule() {
    let mut rules = Rules::default();
    let redis = key(6379, AppId::REDIS);
    assert!(!feed(&mut rules, &redis, 2));
    assert!(feed(&mut rules, &redis, 1));
    assert!(!feed(&mut rules, &redis, 1), "it is made once");
    assert_eq!(rules.by_id(RuleId(10_001)).unwrap().evidence.sessions, 4);
    assert_eq!(rules.candidates.len(), 0);
}

#[test]
fn a_bare_port_needs_more_and_that_nothing_was_identified() {
    let mut rules = Rules::default();
    assert!(!feed(&mut rules, &key(7000, AppId::UNIDENTIFIED), 4));
    assert!(feed(&mut rules, &key(7000, AppId::UNIDENTIFIED), 1));
    assert!(!feed(&mut rules, &key(7001, AppId::HTTP), 1));
    assert!(!feed(&mut rules, &key(7001, AppId::UNIDENTIFIED), 50));
}

#[test]
fn a_bare_port_gives_way_to_the_application_with_its_evidence() {
    let mut rules = Rules::default();
    assert!(feed(&mut rules, &key(7000, AppId::UNIDENTIFIED), 6));
    assert!(!feed(&mut rules, &key(7000, AppId::HTTP), 2));
    assert_eq!(rules.iter().count(), 1, "not for a few sessions");
    assert!(feed(&mut rules, &key(7000, AppId::HTTP), 1));
    let known: Vec<_> = rules.iter().collect();
    assert_eq!((known.len(), known[0].key.app), (1, AppId::HTTP));
    assert_eq!((known[0].evidence.sessions, known[0].evidence.bytes), (9, 90));
    assert!(feed(&mut rules, &key(7000, AppId::REDIS), 3), "a second application adds a rule");
    assert!(!feed(&mut rules, &key(7000, AppId::UNIDENTIFIED), 50), "it never comes back");
    assert_eq!(rules.iter().count(), 2);
    let held = &rules.of_group[&Group::named("nv.a.default")];
    assert_eq!((held.own.len(), held.others.len()), (0, 2));
}

#[test]
fn a_bare_port_restored_beside_an_application_gives_way() {
    let mut rules = Rules::default();
    let stored = |id: u32, port: u16, app: AppId| {
        let mut evidence = Evidence::default();
        evidence.count(u64::from(id), 10);
        Rule { id: RuleId(FIRST_RULE + id), key: key(port, app), evidence }
    };
    for rule in [
        stored(1, 80, AppId::UNIDENTIFIED),
        stored(2, 80, AppId::HTTP),
        stored(3, 80, AppId::REDIS),
        stored(4, 81, AppId::UNIDENTIFIED),
    ] {
        assert!(rules.restore_rule(rule));
    }
    rules.settle();
    let kept: Vec<_> = rules
        .iter()
        .map(|rule| (rule.key.port, rule.key.app, rule.evidence.sessions))
        .collect();
    let left = [(80, AppId::HTTP, 3), (80, AppId::REDIS, 3), (81, AppId::UNIDENTIFIED, 4)];
    assert_eq!(kept, left);
    let mut changes = Vec::new();
    rules
        .rules
        .take_changes(|key, rule| changes.push((key.app, rule.is_some())));
    assert_eq!(changes, [(AppId::UNIDENTIFIED, false), (AppId::HTTP, true)]);
}

#[test]
fn a_group_has_its_own_bound() {
    let (settings, mut totals) = (Settings::default(), Totals::default());
    let mut rules = Rules::default();
    let count = |evidence: &mut Evidence| evidence.count(9, 10);
    let cap = u16::try_from(MAX_GROUP_RULES).unwrap();
    for port in 0..cap {
        assert!(rules.learn(by(&key(port, AppId::HTTP)), &settings, &mut totals, count));
    }
    assert!(!rules.learn(by(&key(cap, AppId::HTTP)), &settings, &mut totals, count));
    assert_eq!(totals.refused_rules, 1);
    assert!(rules.is_full(&Group::named("nv.a.default")));
    let other = Group::named("nv.c.default");
    let to_other = LearnKey { from: other.clone(), to: other.clone(), ..key(1, AppId::HTTP) };
    assert!(rules.learn(by(&to_other), &settings, &mut totals, count), "others have their own");
    let from_outside = LearnKey { from: Group::named(Group::EXTERNAL), ..to_other };
    assert!(rules.learn(by(&from_outside), &settings, &mut totals, count));
    assert!(rules.remove(RuleId(FIRST_RULE)));
    assert!(rules.learn(by(&key(cap, AppId::HTTP)), &settings, &mut totals, count));
}

#[test]
fn all_groups_have_a_bound_and_quiet_ones_their_part_of_it() {
    let (settings, mut totals) = (Settings::default(), Totals::default());
    let mut rules = Rules::default();
    let count = |evidence: &mut Evidence| evidence.count(9, 10);
    let to =
        |group: &str, port: u16| LearnKey { to: Group::named(group), ..key(port, AppId::HTTP) };
    let mut learn = |rules: &mut Rules, group: &str, port: u16| {
        let key = LearnKey { from: Group::named("external"), ..to(group, port) };
        rules.learn(by(&key), &settings, &mut totals, count)
    };
    for noisy in 0..10 {
        let group = format!("nv.noisy-{noisy}.default");
        let made = (0..5_000).filter(|port| learn(&mut rules, &group, *port));
        assert!(made.count() >= MIN_GROUP_RULES);
    }
    assert!(rules.rules.len() <= MAX_RULES - KEPT_FREE + 10 * MIN_GROUP_RULES);
    assert!(rules.is_full(&Group::named("nv.noisy-0.default")));
    for quiet in 0..MAX_RULES {
        for port in 0..16 {
            learn(&mut rules, &format!("nv.quiet-{quiet}.default"), port);
        }
        if rules.rules.len() >= MAX_RULES {
            assert!(quiet >= 1_000, "{quiet}");
            break;
        }
    }
    assert_eq!(rules.rules.len(), MAX_RULES);
    assert!(!learn(&mut rules, "nv.late.default", 1) && rules.wants_room);
    let before: Vec<_> = rules.iter().map(|rule| rule.id).collect();
    let gone = rules.forget_unused(|group| group.name().starts_with("nv.noisy"));
    assert_eq!((gone, rules.rules.len()), (LOT, before.len() - LOT));
    let noisy = |rule: &&Rule| rule.key.to.name().starts_with("nv.noisy");
    assert!(rules.iter().filter(noisy).count() > 20_000, "what is in force stays");
    assert!(learn(&mut rules, "nv.late.default", 1));
    assert!(totals.refused_rules > 20_000);
}

#[test]
fn an_application_takes_the_place_of_a_bare_port_though_there_is_no_room() {
    let mut rules = Rules::default();
    for port in 0..u16::try_from(MAX_GROUP_RULES).unwrap() {
        assert!(feed(&mut rules, &key(port, AppId::UNIDENTIFIED), 5));
    }
    assert!(!feed(&mut rules, &key(5_000, AppId::HTTP), 3), "the group is full");
    assert!(feed(&mut rules, &key(7, AppId::HTTP), 3));
    let bare = (key(8, AppId::UNIDENTIFIED), key(8, AppId::REDIS));
    let (settings, mut totals) = (Settings::default(), Totals::default());
    let whose = (&bare.1, by(&bare.1).1);
    assert!(rules.rename(&bare.0, whose, &settings, &mut totals));
    assert_eq!((rules.rules.len(), totals.refused_rules), (MAX_GROUP_RULES, 0));
    assert!(rules.has(&key(7, AppId::HTTP)) && rules.has(&key(8, AppId::REDIS)));
}

#[test]
fn numbers_go_up_and_then_fill_gaps() {
    let mut rules = Rules::default();
    let restored = |id: u32| Rule {
        id: RuleId(id),
        key: key(u16::try_from(id % 60_000).unwrap(), AppId(id)),
        evidence: Evidence::default(),
    };
    for id in [FIRST_RULE, FIRST_RULE + 1, FIRST_RULE + 3, LAST_RULE] {
        assert!(rules.restore_rule(restored(id)));
        assert!(!rules.restore_rule(restored(id)));
    }
    assert_eq!(rules.next_id(), Some(RuleId(FIRST_RULE + 2)));
    assert!(rules.remove(RuleId(FIRST_RULE)) && !rules.remove(RuleId(FIRST_RULE)));
    assert_eq!(rules.next_id(), Some(RuleId(FIRST_RULE)));
    assert!(rules.remove(RuleId(LAST_RULE)));
    assert_eq!(rules.next_id(), Some(RuleId(FIRST_RULE + 4)));
}

#[test]
fn refuses_when_all_numbers_are_taken() {
    let (settings, mut totals) = (Settings::default(), Totals::default());
    let mut rules = Rules::default();
    for id in FIRST_RULE..=LAST_RULE {
        rules.by_id.insert(RuleId(id), key(1, AppId(id)));
    }
    let count = |evidence: &mut Evidence| evidence.count(9, 10);
    assert!(!rules.learn(by(&key(80, AppId::HTTP)), &settings, &mut totals, count));
    assert_eq!(totals.refused_rules, 1);
}
