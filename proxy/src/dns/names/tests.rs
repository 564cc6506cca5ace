use arc_swap::ArcSwap;
use outrider_model::{Direction, IpProto, Mode};
use outrider_policy::{AppKnowledge, MAX_NAME_ADDRESSES, Query};
use outrider_telemetry::Registry;

use super::{super::testing::view, *};

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn names(about: &[&str]) -> Names {
    let policy = Arc::new(ArcSwap::from_pointee(view(about, 1)));
    let metrics = DnsMetrics::register(&Registry::default()).unwrap();
    Names::new(policy, NameTable::default(), metrics)
}

fn rule_for(names: &Names, server: &str) -> u32 {
    let view = names.policy.load();
    let query = Query {
        client: if server.contains(':') { "fd00::2" } else { "10.0.0.2" }
            .parse()
            .unwrap(),
        server: server.parse().unwrap(),
        port: 443,
        proto: IpProto::TCP,
        direction: Direction::Outbound,
        app: AppKnowledge::Pending,
        host: None,
        mode: Mode::Protect,
    };
    view.snapshot.decide(&query).rule.0
}

fn given(address: &str, ttl: u32) -> DnsAddress {
    DnsAddress { address: address.parse().unwrap(), ttl }
}

fn never(_: IpAddr) -> bool {
    false
}

#[test]
fn an_address_counts_at_once_for_the_name_and_its_wildcards() {
    let names = names(&["api.example.com", "*.example.org"]);
    assert_eq!(rule_for(&names, "11.0.0.1"), 0);
    names.learn(&name("api.example.com"), &[given("11.0.0.1", 60), given("2001:db8::1", 60)], 0);
    names.learn(&name("a.b.example.org"), &[given("11.0.0.2", 60)], 0);
    names.learn(&name("other.example.com"), &[given("11.0.0.3", 60)], 0);
    assert_eq!(rule_for(&names, "11.0.0.1"), 1);
    assert_eq!(rule_for(&names, "2001:db8::1"), 1);
    assert_eq!(rule_for(&names, "11.0.0.2"), 2);
    assert_eq!(rule_for(&names, "11.0.0.3"), 0);
    assert_eq!(names.policy.load().version, 1, "the policy is the same one");
}

#[test]
fn what_expires_no_longer_counts_unless_it_is_in_use() {
    let names = names(&["api.example.com"]);
    names.learn(&name("api.example.com"), &[given("11.0.0.1", 60), given("11.0.0.2", 60)], 0);
    names.expire(60, &|address| address == IpAddr::from([11, 0, 0, 2]));
    assert_eq!((rule_for(&names, "11.0.0.1"), rule_for(&names, "11.0.0.2")), (0, 1));
    names.expire(120, &never);
    assert_eq!(rule_for(&names, "11.0.0.2"), 0);
}

#[test]
fn a_new_policy_knows_what_was_learned_under_the_old_one() {
    let names = names(&[]);
    names.learn(&name("api.example.com"), &[given("11.0.0.1", 600)], 0);
    let mut configured = NameTable::default();
    configured
        .add(&name("fixed.example"), "11.0.0.9".parse().unwrap())
        .unwrap();
    names.enforce(&view(&["*.example.com", "fixed.example"], 2), configured);
    assert_eq!((rule_for(&names, "11.0.0.1"), rule_for(&names, "11.0.0.9")), (1, 2));
    names.learn(&name("www.example.com"), &[given("11.0.0.2", 60)], 0);
    assert_eq!((rule_for(&names, "11.0.0.2"), rule_for(&names, "11.0.0.9")), (1, 2));
    assert_eq!(names.policy.load().version, 2);
}

#[test]
fn swaps_from_two_sides_lose_nothing() {
    let names = names(&["*.example.com"]);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for version in 2..200 {
                names.enforce(&view(&["*.example.com"], version), NameTable::default());
            }
        });
        for last in 1..=200_u8 {
            let host = name(&format!("n{last}.example.com"));
            names.learn(&host, &[given(&format!("11.0.0.{last}"), 600)], 0);
            assert_eq!(rule_for(&names, &format!("11.0.0.{last}")), 1);
        }
    });
    assert_eq!(names.policy.load().version, 199);
    assert!((1..=200).all(|last| rule_for(&names, &format!("11.0.0.{last}")) == 1));
}

#[test]
fn tells_wildcards_that_grew_and_addresses_that_changed_their_names() {
    let names = names(&["*.example.com", "api.example.com"]);
    let all =
        |names: &Names| names.take_notices(usize::MAX, |peer| peer != IpAddr::from([10, 0, 0, 9]));
    names.learn(&name("api.example.com"), &[given("11.0.0.1", 60), given("2001:db8::1", 60)], 0);
    names.learn(&name("in.example.com"), &[given("10.0.0.9", 600)], 0);
    let v4 = |last| Ipv4Addr::new(11, 0, 0, last);
    let wildcard =
        |addresses| Notice::Wildcard { name: name("*.example.com"), vhost: false, addresses };
    let inside = Ipv4Addr::new(10, 0, 0, 9);
    let expected = [wildcard(vec![inside, v4(1)]), Notice::Named(v4(1), name("api.example.com"))];
    assert_eq!(all(&names), expected);
    assert_eq!(all(&names), []);
    names.learn(&name("api.example.com"), &[given("11.0.0.1", 60)], 1);
    assert_eq!(all(&names), [], "known already");
    names.expire(61, &never);
    assert_eq!(all(&names), [Notice::Released(v4(1))]);
}

#[test]
fn tells_no_more_than_there_is_room_for() {
    let names = names(&["*.example.com"]);
    for last in 1..=9 {
        let host = name(&format!("n{last}.example.com"));
        names.learn(&host, &[given(&format!("11.0.0.{last}"), 60)], 0);
    }
    let counts = [4, 4, 4].map(|room| names.take_notices(room, |_| true).len());
    assert_eq!(counts, [4, 4, 2], "one wildcard and nine addresses");
}

#[test]
fn names_of_rules_are_stale_until_they_stand_for_something() {
    let names = names(&["api.example.com", "*.example.org", "b.example"]);
    names.learn(&name("api.example.com"), &[given("11.0.0.1", 600)], 0);
    assert_eq!(names.stale(100), [name("b.example")]);
    assert_eq!(names.stale(600).len(), 2);
    assert_eq!(names.label("11.0.0.1".parse().unwrap()).as_deref(), Some("api.example.com"));
}

#[test]
fn counts_what_policy_has_no_room_for() {
    let names = names(&["api.example.com"]);
    let mut configured = NameTable::default();
    for at in 0..MAX_NAME_ADDRESSES {
        let address = IpAddr::from(u128::try_from(at + 1_000_000).unwrap().to_be_bytes());
        configured.add(&name("api.example.com"), address).unwrap();
    }
    names.enforce(&view(&["api.example.com"], 2), configured);
    names.learn(&name("api.example.com"), &[given("11.0.0.1", 60)], 0);
    assert_eq!(rule_for(&names, "11.0.0.1"), 0);
    assert_eq!(names.metrics.unused(), 1);
}
