//! Windows, budgets and the bound.

use outrider_model::IpProto;

use super::*;
use crate::{AppKnowledge, Network, PolicySpec};

const OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9));
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
const FAR: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

fn network() -> Network {
    Network { internal: vec!["10.0.0.0/8".parse().unwrap()], ..Network::default() }
}

fn snapshot(network: &Network, grace: bool) -> Snapshot {
    let spec = PolicySpec {
        default_action: PolicyAction::Deny,
        inbound: true,
        outbound: true,
        rules: Vec::new(),
        grace,
    };
    Snapshot::compile(Some(&spec), network)
        .unwrap()
        .with_version(1)
}

fn from(client: IpAddr) -> Query<'static> {
    Query {
        client,
        server: OWN,
        port: 80,
        proto: IpProto::TCP,
        direction: Direction::Inbound,
        app: AppKnowledge::Pending,
        host: None,
        mode: Mode::Protect,
    }
}

fn passes(grace: &mut Grace, query: &Query<'_>, snapshot: &Snapshot, now: u64) -> bool {
    let judged = grace.judge(snapshot.decide(query), query, snapshot, now);
    assert_eq!(judged.cause == DecisionCause::Grace, judged.action == PolicyAction::Open);
    judged.action == PolicyAction::Open
}

/// Seconds until a flow tried every second is stopped.
fn lasts(query: &Query<'_>, snapshot: &Snapshot) -> Option<u64> {
    let mut grace = Grace::default();
    (0..2_000).find(|now| !passes(&mut grace, query, snapshot, *now))
}

#[test]
fn windows_are_renewed_as_often_as_the_peer_may() {
    let mut network = network();
    assert_eq!(lasts(&from(PEER), &snapshot(&network, true)), Some(60 * 11));
    assert_eq!(lasts(&from(FAR), &snapshot(&network, true)), Some(60 * 3));
    network.special.push((PEER.into(), SpecialKind::Host));
    assert_eq!(lasts(&from(PEER), &snapshot(&network, true)), Some(60 * 4));
}

#[test]
fn gives_none_to_who_is_known_nor_where_it_is_off() {
    let mut network = network();
    assert_eq!(lasts(&from(PEER), &snapshot(&network, false)), Some(0));
    network.policy_addrs.insert(PEER);
    assert_eq!(lasts(&from(PEER), &snapshot(&network, true)), Some(0));
    network.policy_addrs = [OWN].into();
    assert_eq!(lasts(&from(FAR), &snapshot(&network, true)), Some(0));
    network.policy_addrs.clear();
    network.strict = true;
    assert_eq!(lasts(&from(PEER), &snapshot(&network, true)), Some(0));
    network.special.push((PEER.into(), SpecialKind::Service));
    assert_eq!(lasts(&from(PEER), &snapshot(&network, true)), Some(0));
    network.special[0].1 = SpecialKind::Device;
    assert_eq!(lasts(&from(PEER), &snapshot(&network, true)), None);
}

#[test]
fn a_new_policy_uses_up_a_renewal() {
    let (network, mut grace) = (network(), Grace::default());
    let snapshot = snapshot(&network, true);
    for version in 0..=10 {
        assert!(passes(&mut grace, &from(PEER), &snapshot.clone().with_version(version), 5));
    }
    assert!(!passes(&mut grace, &from(PEER), &snapshot.with_version(11), 5));
}

#[test]
fn forgets_a_pair_that_was_quiet() {
    let (network, mut grace) = (network(), Grace::default());
    let snapshot = snapshot(&network, true);
    let used_up = (0..)
        .find(|now| !passes(&mut grace, &from(PEER), &snapshot, *now))
        .unwrap();
    assert!(!passes(&mut grace, &from(PEER), &snapshot, used_up + FORGET_AFTER - 1));
    assert!(passes(&mut grace, &from(PEER), &snapshot, used_up + 2 * FORGET_AFTER));
}

#[test]
fn the_table_is_bounded_and_full_means_no_grace() {
    let (network, mut grace) = (network(), Grace::default());
    let snapshot = snapshot(&network, true);
    let peer = |at: u32| IpAddr::V4(Ipv4Addr::from_bits(0x0a01_0000 + at));
    for at in 0..u32::try_from(MAX_GRACE_PAIRS).unwrap() {
        assert!(passes(&mut grace, &from(peer(at)), &snapshot, 1));
    }
    assert!(!passes(&mut grace, &from(PEER), &snapshot, 2));
    assert_eq!(grace.refused(), 1);
    assert!(passes(&mut grace, &from(peer(7)), &snapshot, 3), "who is in the table stays");
    assert!(passes(&mut grace, &from(PEER), &snapshot, 1 + FORGET_AFTER));
}
