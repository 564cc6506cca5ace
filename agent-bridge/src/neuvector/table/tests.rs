use std::net::Ipv4Addr;

use super::*;

fn key(number: u32) -> Key {
    Key {
        uid: "cache".into(),
        client: Ipv4Addr::from_bits(number).into(),
        server: Ipv4Addr::LOCALHOST.into(),
        port: 6379,
        proto: IpProto::TCP,
        rule: RuleId(0),
        app: AppId::REDIS,
        flags: 1,
    }
}

fn sum(action: PolicyAction, last_seen: u64) -> Sum {
    Sum { sessions: 1, bytes: 10, first_seen: last_seen, last_seen, action, ..Sum::default() }
}

fn full(action: PolicyAction) -> Table {
    let mut table = Table::default();
    for number in 0..u32::try_from(MAX_KEYS).unwrap() {
        assert_eq!(table.enter(key(number), sum(action, 1)), None);
    }
    table
}

#[test]
fn rows_of_a_key_are_summed_and_the_newest_decides() {
    let mut table = Table::default();
    table.enter(key(1), sum(PolicyAction::Deny, 5));
    let worse = Sum { severity: 4, threat: ThreatId(2001), ..sum(PolicyAction::Allow, 3) };
    table.enter(key(1), worse);
    let other = Key { uid: "web".into(), ..key(1) };
    table.enter(other.clone(), sum(PolicyAction::Allow, 5));
    let rows = table.take(10);
    assert_eq!(rows.len(), 2, "another proxy's are another row");
    let (_, found) = &rows[0];
    assert_eq!((found.sessions, found.bytes, found.action), (2, 20, PolicyAction::Deny));
    assert_eq!((found.first_seen, found.last_seen), (3, 5));
    assert_eq!((found.severity, found.threat), (4, ThreatId(2001)));
    assert_eq!(rows[1].0, other);
}

#[test]
fn what_comes_back_is_added_to_what_came_meanwhile() {
    let mut table = Table::default();
    table.enter(key(1), sum(PolicyAction::Allow, 5));
    let rows = table.take(10);
    assert_eq!((table.held(), table.rows.len()), (1, 0), "it keeps its room");
    table.enter(key(1), sum(PolicyAction::Violate, 7));
    table.take_back(rows);
    assert_eq!(table.held(), 1);
    let rows = table.take(10);
    assert_eq!((rows[0].1.sessions, rows[0].1.action), (2, PolicyAction::Violate));
    table.done_with(1);
    assert_eq!(table.held(), 0);
}

#[test]
fn no_more_keys_are_held_than_the_cap() {
    let mut table = full(PolicyAction::Allow);
    let (why, lost) = table
        .enter(key(u32::MAX), sum(PolicyAction::Allow, 1))
        .unwrap();
    assert_eq!((why, lost.sessions), (Lost::Full, 1));
    assert_eq!(table.enter(key(7), sum(PolicyAction::Allow, 1)), None, "of a key that is held");
    let (why, _) = table
        .enter(key(u32::MAX), sum(PolicyAction::Deny, 1))
        .unwrap();
    assert_eq!((why, table.held()), (Lost::Displaced, MAX_KEYS));
    let under_way = table.take(100);
    assert_eq!(under_way.len(), 100);
    assert!(
        table
            .enter(key(u32::MAX - 1), sum(PolicyAction::Allow, 1))
            .is_some()
    );
    table.take_back(under_way);
    assert_eq!(table.held(), MAX_KEYS);

    let mut table = full(PolicyAction::Learn);
    let (why, _) = table
        .enter(key(u32::MAX), sum(PolicyAction::Deny, 1))
        .unwrap();
    assert_eq!(why, Lost::FullUrgent);
}

#[test]
fn the_oldest_go_first_and_an_ordinary_one_becomes_urgent() {
    let mut table = Table::default();
    table.enter(key(1), sum(PolicyAction::Allow, 1));
    table.enter(key(2), sum(PolicyAction::Deny, 1));
    table.enter(key(3), sum(PolicyAction::Allow, 1));
    table.enter(key(3), sum(PolicyAction::Deny, 2));
    let order: Vec<_> = (0..3)
        .flat_map(|_| table.take(1))
        .map(|(key, _)| key)
        .collect();
    assert_eq!(order, [key(1), key(2), key(3)]);
    assert!(table.ordinary.is_empty() && table.urgent.is_empty());
}
