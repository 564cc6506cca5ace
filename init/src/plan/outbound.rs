//! Connections that the pod opens.

use super::{
    Chain, Family, Hook, Match, Rule, TCP, Table, Target, all_of, delivery, loopback, out_lo,
    port_chunks, proxy_owners,
};
use crate::settings::{Destinations, Dns, Groups, Mode, Ports, Settings};
use ipnet::IpNet;

/// Chain that captures outbound connections.
const CHAIN: &str = "OUTRIDER_OUT";

/// The chains for outbound connections.
pub(super) fn chains(settings: &Settings) -> Vec<Chain> {
    let mut rules = super::inbound::excluded_interfaces(settings, Match::OutInterface);
    rules.extend(own_connections(settings));
    let itself = "the workload talks to itself: by loopback or by its own address";
    let loopback = Rule::new(itself, vec![out_lo()], Target::Return);
    let questions = super::dns::redirects(settings);
    // A name server that the settings name may be on loopback; one that they don't name stays the pod's own.
    if settings.dns == Dns::All {
        rules.push(loopback);
        rules.extend(questions);
    } else {
        rules.extend(questions);
        rules.push(loopback);
    }
    rules.extend(selection(settings, &[], &Target::Redirect(settings.outbound_port)));
    vec![Chain { table: Table::Nat, name: CHAIN, hook: Some(Hook::Output), rules }]
}

/// Connections that the proxy opens: delivery, hairpin, upstream. All owners get one kind of rule before
/// any gets the next, so that a second owner is never shadowed by the first.
fn own_connections(settings: &Settings) -> Vec<Rule> {
    let owners = proxy_owners(settings);
    let mut rules = Vec::new();
    if settings.mode == Mode::Tproxy {
        rules.extend(transparent_delivery(settings));
    }
    for owner in &owners {
        for family in Family::ALL {
            rules.push(Rule::new(
                "the proxy delivers an inbound flow to the workload",
                all_of(vec![out_lo(), Match::Source(delivery(family))], owner),
                Target::Return,
            ));
        }
    }
    if settings.inbound_ports != Ports::None {
        for owner in &owners {
            for family in Family::ALL {
                let other = Match::NotDestination(loopback(family));
                rules.push(Rule::new(
                    "hairpin: a service that resolved to this pod meets inbound policy too",
                    all_of(vec![TCP, out_lo(), other], owner),
                    Target::Redirect(settings.inbound_port),
                ));
            }
        }
    }
    for owner in owners {
        rules.push(Rule::new("the proxy's own connections", owner, Target::Return));
    }
    rules
}

/// The proxy delivers from the client's own address. Such a socket carries the mark of the policy route in
/// place of the secret one; either needs NET_RAW.
fn transparent_delivery(settings: &Settings) -> Vec<Rule> {
    let public = Settings { secret_mark: None, ..settings.clone() };
    let rule = |owner: Vec<Match>| {
        let when = all_of(vec![out_lo(), Match::Mark(settings.mark)], &owner);
        Rule::new("the proxy delivers with the client's own address", when, Target::Return)
    };
    proxy_owners(&public).into_iter().map(rule).collect()
}

/// Which outbound connections are left alone, and which get `then`.
pub(super) fn selection(settings: &Settings, given: &[Match], then: &Target) -> Vec<Rule> {
    let mut rules = groups(settings, given);
    rules.extend(destinations(settings, given, then));
    rules
}

fn groups(settings: &Settings, given: &[Match]) -> Vec<Rule> {
    let mut rules: Vec<Rule> = settings
        .exclude_groups
        .iter()
        .map(|gid| {
            let when = all_of(vec![Match::Gid(*gid)], given);
            Rule::new("group excluded by the settings", when, Target::Return)
        })
        .collect();
    if let Groups::Only(gids) = &settings.groups {
        rules.push(Rule::new(
            "only the groups that were asked for",
            all_of(vec![Match::NotGids(gids.clone())], given),
            Target::Return,
        ));
    }
    rules
}

/// Exclusions and inclusions by port and network. Ports and networks restrict each other.
pub(super) fn destinations(settings: &Settings, given: &[Match], then: &Target) -> Vec<Rule> {
    let mut rules = Vec::new();
    if settings.outbound_ports == Ports::None {
        return rules;
    }
    for ports in port_chunks(&settings.exclude_outbound_ports) {
        let when = all_of(vec![TCP, Match::DestinationPorts(ports)], given);
        rules.push(Rule::new("outbound ports excluded by the settings", when, Target::Return));
    }
    for net in &settings.exclude_outbound_cidrs {
        let when = all_of(vec![Match::Destination(*net)], given);
        rules.push(Rule::new("networks excluded by the settings", when, Target::Return));
    }
    for network in networks(&settings.outbound_cidrs) {
        for port in ports(&settings.outbound_ports) {
            let mut when = vec![TCP];
            when.extend(network.map(Match::Destination));
            when.extend(port);
            let why = "outbound connections";
            rules.push(Rule::new(why, all_of(when, given), then.clone()));
        }
    }
    rules
}

/// The networks to capture; one `None` stands for all.
fn networks(destinations: &Destinations) -> Vec<Option<IpNet>> {
    match destinations {
        Destinations::All => vec![None],
        Destinations::Only(list) => list.iter().copied().map(Some).collect(),
    }
}

/// The ports to capture, as matches; one `None` stands for all.
fn ports(ports: &Ports) -> Vec<Option<Match>> {
    match ports {
        Ports::None => Vec::new(),
        Ports::All => vec![None],
        Ports::Only(list) => port_chunks(list)
            .into_iter()
            .map(|chunk| Some(Match::DestinationPorts(chunk)))
            .collect(),
    }
}
