//! What is not TCP waits in the packet queue until the proxy has decided about its flow. The verdict is kept in a bit of
//! the flow's mark, so that later packets don't wait.
//!
//! The proxy's verdict repeats the filter table for the packet, with the mark; no process may come with it.

use ipnet::IpNet;
use outrider_model::names::{OWN_MARK, QUEUE, VERDICT_MARK};
use std::net::{IpAddr, Ipv4Addr};

use super::{
    Chain, Family, Hook, Match, Protocol, Rule, State, TCP, Table, Target, all_of, in_lo, inbound,
    loopback, out_lo, proxy_owners,
};
use crate::settings::{Dns, Queue, Settings};

/// Chain that takes the verdict's mark off what processes send.
const MARK_CHAIN: &str = "OUTRIDER_QUEUE_MARK";
/// Chain that queues what leaves.
const OUT_CHAIN: &str = "OUTRIDER_QUEUE_OUT";
/// Chain that queues what arrives.
const IN_CHAIN: &str = "OUTRIDER_QUEUE_IN";

/// The chains; none if the queue is off.
pub(super) fn chains(settings: &Settings) -> Vec<Chain> {
    let open = match settings.queue {
        Queue::Off => return Vec::new(),
        Queue::Open => true,
        Queue::Closed => false,
    };
    let forged = Rule::new(
        "the verdict's mark is the proxy's to give: no process may set it",
        vec![Match::Marked(VERDICT_MARK)],
        Target::ClearMark(VERDICT_MARK),
    );
    let filter = |name, hook, rules| Chain { table: Table::Filter, name, hook: Some(hook), rules };
    vec![
        Chain {
            table: Table::Mangle,
            name: MARK_CHAIN,
            hook: Some(Hook::Output),
            rules: vec![forged],
        },
        filter(OUT_CHAIN, Hook::Output, out_rules(settings, open)),
        filter(IN_CHAIN, Hook::Input, in_rules(settings, open)),
    ]
}

fn out_rules(settings: &Settings, open: bool) -> Vec<Rule> {
    let mut rules = settled(out_lo());
    rules.extend(left_alone(settings, Match::OutInterface));
    if settings.dns != Dns::Off {
        // Here the device is still the one that the packet was meant for before it was redirected.
        rules.extend(Family::ALL.map(|family| {
            let when = vec![Match::Destination(loopback(family))];
            Rule::new("questions that go to the proxy's DNS listener", when, Target::Return)
        }));
    }
    for owner in proxy_owners(settings) {
        // An error belongs to the flow that it is about.
        let when = all_of(owner.clone(), &[Match::State(State::Related)]);
        rules.push(Rule::new("the proxy's errors about others' flows", when, Target::Return));
        let own = "the proxy's own flows, and the answers to them";
        rules.push(Rule::new(own, owner.clone(), Target::AddFlowMark(OWN_MARK)));
        rules.push(Rule::new(own, owner, Target::Return));
    }
    rules.extend(queued(open));
    rules
}

fn in_rules(settings: &Settings, open: bool) -> Vec<Rule> {
    let mut rules = settled(in_lo());
    rules.extend(left_alone(settings, Match::InInterface));
    rules.extend(queued(open));
    rules
}

/// First what most packets are.
fn settled(lo: Match) -> Vec<Rule> {
    vec![
        Rule::new("TCP goes through the proxy", vec![TCP], Target::Return),
        Rule::new("loopback", vec![lo], Target::Return),
        Rule::new(
            "the flow has its verdict, or is the proxy's own",
            vec![Match::FlowMarked(VERDICT_MARK | OWN_MARK)],
            Target::Return,
        ),
    ]
}

fn left_alone(settings: &Settings, side: fn(String) -> Match) -> Vec<Rule> {
    let mut rules = inbound::excluded_interfaces(settings, side);
    rules.extend(settings.virtual_interfaces.iter().map(|name| {
        let when = vec![side(name.clone())];
        Rule::new("between the pod and a virtual machine in it", when, Target::Return)
    }));
    rules.push(Rule::new(
        "neighbour, router and multicast listener discovery: all of ICMPv6 that conntrack leaves alone",
        vec![Match::Protocol(Protocol::Icmpv6), Match::State(State::Untracked)],
        Target::Return,
    ));
    let groups = IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 4);
    rules.push(Rule::new(
        "IGMP, which is the same for IPv4",
        vec![Match::Protocol(Protocol::Igmp), Match::Destination(groups)],
        Target::Return,
    ));
    rules
}

fn queued(open: bool) -> Vec<Rule> {
    let verdict = vec![Match::Marked(VERDICT_MARK)];
    vec![
        Rule::new(
            "back from the queue with its verdict: kept for the flow",
            verdict.clone(),
            Target::AddFlowMark(VERDICT_MARK),
        ),
        Rule::new("the same for a packet that has no flow", verdict, Target::Return),
        Rule::new("the proxy decides", Vec::new(), Target::Queue { number: QUEUE, open }),
    ]
}
