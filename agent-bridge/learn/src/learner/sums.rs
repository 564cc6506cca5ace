//! What is summed is the same whatever comes first, and one pod's noise is its own.

use std::collections::BTreeMap;

use outrider_model::{AppId, IpProto, PolicyAction, RuleId};
use proptest::prelude::*;

use super::*;
use crate::{
    MAX_WORKLOAD_VIOLATIONS,
    world::{against, group, inbound, ip, outbound, set_mode, world},
};

const FAR: &str = "192.0.2.1";

/// Sessions, bytes and violations by ends, protocol and port.
type Sums = BTreeMap<(Endpoint, Endpoint, u8, u16), (u64, u64, u64)>;

/// One flow as both its proxies report it, in rows of any number.
#[derive(Clone, Debug)]
struct Told {
    client: usize,
    server: usize,
    app: AppId,
    port: u16,
    violates: bool,
    v6: bool,
}

const NAMES: [&str; 4] = ["cache", "shop", "web", "intruder"];
const ADDRESSES: [[&str; 2]; 4] = [
    ["10.0.0.2", "fd00::2"],
    ["10.0.0.3", "fd00::3"],
    ["10.0.0.4", "fd00::4"],
    ["10.0.0.5", "fd00::5"],
];

impl Told {
    /// What the client's and the server's proxy say.
    fn rows(&self) -> [Row; 2] {
        let family = usize::from(self.v6);
        let client = ADDRESSES[self.client][family];
        let server = ADDRESSES[self.server][family];
        [
            outbound(NAMES[self.client], server, self.port, self.app),
            inbound(NAMES[self.server], client, self.port, self.app),
        ]
        .map(|row| if self.violates { against(row, PolicyAction::Violate, 1) } else { row })
    }
}

fn any_flow() -> impl Strategy<Value = Told> {
    let app = prop::sample::select(vec![AppId::UNKNOWN, AppId::REDIS, AppId::HTTP]);
    (0usize..4, 0usize..4, app, 80u16..82, any::<bool>(), any::<bool>()).prop_map(
        |(client, server, app, port, violates, v6)| Told {
            client,
            server,
            app,
            port,
            violates,
            v6,
        },
    )
}

/// Rows and an order in which they come.
fn shuffled() -> impl Strategy<Value = (Vec<Told>, Vec<Row>)> {
    prop::collection::vec(any_flow(), 0..80).prop_flat_map(|flows| {
        let rows: Vec<Row> = flows.iter().flat_map(Told::rows).collect();
        (Just(flows), Just(rows).prop_shuffle())
    })
}

fn summed(learner: &Learner) -> Sums {
    let mut sums = Sums::new();
    for known in learner.conversations() {
        let key = &known.key;
        let ends = (key.client.clone(), key.server.clone(), key.proto.0, key.port);
        let sum = sums.entry(ends).or_default();
        sum.0 += known.sessions;
        sum.1 += known.bytes;
        sum.2 += known.violations.total();
    }
    sums
}

fn fed<'r>(rows: impl IntoIterator<Item = &'r Row>) -> Learner {
    let mut learner = world();
    for row in rows {
        learner.observe(row);
    }
    learner
}

proptest! {
    #[test]
    fn flows_told_by_both_ends_in_any_order_are_counted_once((flows, rows) in shuffled()) {
        let mut expected = Sums::new();
        for flow in &flows {
            let end = |at: usize| Endpoint::Workload(format!("uid-{}", NAMES[at]).into());
            let ends = (end(flow.client), end(flow.server), IpProto::TCP.0, flow.port);
            let sum = expected.entry(ends).or_default();
            sum.0 += 1;
            sum.1 += 100;
            sum.2 += u64::from(flow.violates);
        }
        let learner = fed(&rows);
        prop_assert_eq!(summed(&learner), expected);
        let count = u64::try_from(flows.len()).unwrap();
        prop_assert_eq!((learner.totals().sessions, learner.totals().bytes), (count, 100 * count));
        prop_assert_eq!(learner.totals().mirrored_sessions, count);
        let violating = flows.iter().filter(|flow| flow.violates).count();
        let listed: u64 = learner.violations().map(|known| known.count.total()).sum();
        prop_assert_eq!(listed, u64::try_from(violating).unwrap());
    }

    #[test]
    fn one_end_is_enough((flows, rows) in shuffled(), inbound: bool) {
        let learner = fed(rows.iter().filter(|row| row.inbound == inbound));
        let count = u64::try_from(flows.len()).unwrap();
        let totals = learner.totals();
        let (own, others) = if inbound { (count, 0) } else { (0, count) };
        prop_assert_eq!((totals.sessions, totals.mirrored_sessions), (own, others));
    }
}

#[test]
fn a_noisy_pods_violations_push_out_none_of_another() {
    let mut learner = world();
    let quiet = inbound("web", FAR, 80, AppId::HTTP);
    learner.observe(&against(quiet, PolicyAction::Violate, 1));
    for port in 1..2_000 {
        let noise = outbound("intruder", "10.0.0.4", port, AppId::NOT_CHECKED);
        let noise = Row { last_seen: 2_000 + u64::from(port), ..noise };
        learner.observe(&against(noise, PolicyAction::Deny, 1));
    }
    let kept: Vec<u16> = learner.violations().map(|known| known.key.port).collect();
    assert!(kept.len() <= MAX_WORKLOAD_VIOLATIONS + 1);
    assert!(kept.contains(&80) && kept.contains(&1_999) && !kept.contains(&1));
    let evicted = learner.totals().evicted_kinds;
    assert_eq!(u64::try_from(kept.len()).unwrap() + evicted, 2_000);
    let mut restored = world();
    for change in learner.take_changes() {
        assert!(change.record.is_none_or(|record| restored.restore(record)));
    }
    assert!(restored.violations().eq(learner.violations()));
}

#[test]
fn a_noisy_pods_conversations_and_beginnings_push_out_none_of_another() {
    let mut learner = world();
    learner.observe(&inbound("web", FAR, 80, AppId::HTTP));
    let many = u16::try_from(crate::MAX_CONVERSATIONS).unwrap();
    for port in 1..=many {
        for app in [AppId::HTTP, AppId::REDIS] {
            let noise = outbound("intruder", FAR, port, app);
            learner.observe(&Row { last_seen: 2_000 + u64::from(port), ..noise });
        }
    }
    let of_web = |known: &&Conversation| known.key.server == Endpoint::Workload("uid-web".into());
    let kept = learner.conversations().count();
    assert!(kept <= crate::MAX_CONVERSATIONS && kept > crate::MAX_CONVERSATIONS * 9 / 10);
    assert_eq!(learner.conversations().filter(of_web).count(), 1);
    let begun = learner
        .candidates()
        .filter(|known| known.key.to == group("web"));
    assert_eq!(begun.count(), 1);
    let all = 1 + 2 * u64::from(many);
    assert_eq!(learner.totals().evicted, all - u64::try_from(kept).unwrap());
    let mut restored = world();
    for change in learner.take_changes() {
        assert!(change.record.is_none_or(|record| restored.restore(record)));
    }
    assert!(restored.conversations().eq(learner.conversations()));
}

#[test]
fn what_has_no_port_is_one_conversation() {
    let mut learner = world();
    for (proto, port) in [(IpProto::ICMP, 0), (IpProto::ICMP, 0x0800), (IpProto(47), 7)] {
        learner.observe(&Row { proto, ..inbound("web", FAR, port, AppId::UNKNOWN) });
    }
    let kept: Vec<_> = learner
        .conversations()
        .map(|known| (known.key.proto, known.key.port, known.sessions))
        .collect();
    assert_eq!(kept, [(IpProto::ICMP, 0, 2), (IpProto(47), 0, 1)]);
}

#[test]
fn flows_to_a_name_are_a_conversation_of_their_own() {
    let mut learner = world();
    let row = outbound("shop", FAR, 443, AppId::SSL);
    learner.observe(&row);
    learner
        .directory_mut()
        .names_mut()
        .add("uid-shop", ip(FAR), "pay.example", 900);
    learner.observe(&row);
    learner.observe(&row);
    let kept: Vec<_> = learner
        .conversations()
        .map(|known| (known.server_name.as_str(), known.sessions))
        .collect();
    assert_eq!(kept, [("pay.example", 2), ("external", 1)]);
    let rule = learner.rules().next().unwrap();
    assert_eq!((rule.key.to.name(), rule.evidence.sessions), (Group::EXTERNAL, 3));
}

#[test]
fn an_address_group_and_ingress_are_enforced_by_their_addresses() {
    let mut learner = world();
    let directory = learner.directory_mut();
    directory.set_tunnels([ip("10.0.0.100")]);
    directory.set_address_groups([("192.0.2.0/24".parse().unwrap(), Group::named("office"))]);
    for client in ["10.0.0.100", FAR] {
        for _ in 0..3 {
            learner.observe(&inbound("web", client, 80, AppId::HTTP));
        }
    }
    learner.compile_changed();
    let spec = &learner.policy("uid-web").unwrap().spec;
    let clients: Vec<_> = spec.rules.iter().map(|rule| rule.client).collect();
    let office = outrider_policy::AddrSpec::Range(ip("192.0.2.0"), ip("192.0.2.255"));
    assert_eq!(clients.len(), 2);
    assert!(clients.contains(&outrider_policy::AddrSpec::one(ip("10.0.0.100"))));
    assert!(clients.contains(&office));
}

#[test]
fn a_policy_never_outgrows_a_proxy() {
    let mut learner = world();
    // 60 addresses at the other end that don't touch, so that each rule is 60 in the compiled policy.
    let mut many = crate::world::workload("many", 9);
    many.addresses = (0..60u32)
        .map(|at| std::net::IpAddr::from((0x0a00_0080 + 2 * at).to_be_bytes()))
        .collect();
    learner.directory_mut().enter(many).unwrap();
    let rule = |at: u16| crate::Rule {
        id: RuleId(crate::FIRST_RULE + u32::from(at)),
        key: LearnKey {
            from: group("many"),
            to: group("web"),
            proto: IpProto::TCP,
            port: at,
            app: AppId::HTTP,
        },
        evidence: Evidence::default(),
    };
    for at in 0..5_000 {
        assert!(learner.restore(Record::Rule(rule(at))));
    }
    learner.compile_changed();
    let policy = learner.policy("uid-web").unwrap();
    // The other group has its two addresses' 10 000, and half of what is left may be one's own.
    let room = (crate::MAX_ALL_COMPILED - 10_000) / 2;
    assert_eq!((policy.spec.rules.len(), policy.left_out), (room, 300_000 - room));
    let kept = |learner: &Learner| learner.policy("uid-web").unwrap().spec.rules.clone();
    let before = kept(&learner);
    let late = (0..1_000).map(|at| crate::Rule {
        key: LearnKey { from: group("many"), to: group("shop"), ..rule(at).key },
        ..rule(at + 5_000)
    });
    late.for_each(|rule| assert!(learner.restore(Record::Rule(rule))));
    set_mode(&mut learner, "web", Mode::Discover);
    learner.compile_changed();
    assert_eq!(kept(&learner), before, "what is in force stays, whatever others have");
    let shop = learner.policy("uid-shop").unwrap();
    assert!(shop.spec.rules.len() > 40_000, "{}", shop.spec.rules.len());
    assert!(learner.is_full(&group("web")) && !learner.is_full(&group("shop")));
}

#[test]
fn what_is_announced_is_listed_and_becomes_one_with_what_it_turns_out_to_be() {
    let mut learner = world();
    let told = inbound("web", FAR, 80, AppId::UNKNOWN);
    learner.observe(&Row { sessions: 0, bytes: 0, first_seen: 5, ..told });
    let listed = |learner: &Learner| {
        let known = learner.conversations();
        known
            .map(|known| (known.key.app, known.sessions, known.first_seen))
            .collect::<Vec<_>>()
    };
    assert_eq!(listed(&learner), [(AppId::UNKNOWN, 0, 5)]);
    assert_eq!(learner.candidates().count(), 0, "nothing is learned from it");
    learner.observe(&Row { first_seen: 9, ..inbound("web", FAR, 80, AppId::HTTP) });
    assert_eq!(listed(&learner), [(AppId::HTTP, 1, 5)]);
    learner.observe(&inbound("web", FAR, 80, AppId::UNKNOWN));
    learner.observe(&inbound("web", FAR, 80, AppId::HTTP));
    assert_eq!(listed(&learner).len(), 2, "what was counted stays as it was told");
}
