use super::{Match, PORT_SLOTS, Plan, PortRange, Target, port_chunks};
use crate::settings::{Ports, Settings};

#[test]
fn cuts_ports_into_rules_of_fifteen_slots() {
    let ports: Vec<PortRange> = (1..=16).map(PortRange::from).collect();
    let chunks = port_chunks(&ports);
    assert_eq!(chunks.iter().map(Vec::len).collect::<Vec<_>>(), [PORT_SLOTS, 1]);
    let ranges = vec![PortRange { first: 1, last: 9 }; 8];
    assert_eq!(
        port_chunks(&ranges)
            .iter()
            .map(Vec::len)
            .collect::<Vec<_>>(),
        [7, 1]
    );
}

#[test]
fn exempts_only_the_health_port_by_default() {
    let settings = Settings::default();
    let plan = Plan::new(&settings);
    let exempt: Vec<_> = plan
        .chains
        .iter()
        .filter(|chain| chain.name == "OUTRIDER_IN")
        .flat_map(|chain| &chain.rules)
        .filter(|rule| rule.then == Target::Return)
        .flat_map(|rule| &rule.when)
        .filter(|condition| matches!(condition, Match::DestinationPorts(_)))
        .collect();
    assert_eq!(exempt, [&Match::DestinationPorts(vec![settings.health_port.into()])]);
}

#[test]
fn recognises_every_owner_before_it_lets_any_go() {
    let settings = Settings { proxy_uids: vec![1, 2], ..Settings::default() };
    let plan = Plan::new(&settings);
    let out = plan
        .chains
        .iter()
        .find(|chain| chain.name == "OUTRIDER_OUT")
        .expect("captured");
    let hairpins = out
        .rules
        .iter()
        .rposition(|rule| rule.then == Target::Redirect(15106));
    let first_exit = out
        .rules
        .iter()
        .position(|rule| rule.when == [Match::Uid(1)]);
    assert!(hairpins < first_exit, "{:#?}", out.rules);
}

#[test]
fn honours_exclusions_of_a_list() {
    let settings = Settings {
        inbound_ports: Ports::Only(vec![80.into(), 81.into()]),
        exclude_inbound_ports: vec![81.into()],
        ..Settings::default()
    };
    let plan = Plan::new(&settings);
    let chain = plan
        .chains
        .iter()
        .find(|chain| chain.name == "OUTRIDER_IN")
        .expect("captured");
    let excluded = Match::DestinationPorts(vec![81.into()]);
    let at = |then: &dyn Fn(&Target) -> bool, condition: &Match| {
        chain
            .rules
            .iter()
            .position(|rule| then(&rule.then) && rule.when.contains(condition))
    };
    let bypass = at(&|then| *then == Target::Return, &excluded).expect("excluded");
    let listed = Match::DestinationPorts(vec![80.into(), 81.into()]);
    let capture = at(&|then| *then == Target::Redirect(15106), &listed).expect("captured");
    assert!(bypass < capture);
}
