//! Connections that arrive at the pod.

use super::{Chain, Hook, Match, PortRange, Rule, TCP, Table, Target, in_lo, port_chunks};
use crate::settings::{Guard, Mode, Ports, Settings};

/// Chain that captures inbound connections by REDIRECT.
const REDIRECT_CHAIN: &str = "OUTRIDER_IN";
/// Chain that captures inbound connections by TPROXY.
const TPROXY_CHAIN: &str = "OUTRIDER_TPROXY";
/// Chain that routes the workload's answers back to the proxy in TPROXY mode.
const RETURN_CHAIN: &str = "OUTRIDER_MARK";

/// The chains for inbound connections.
pub(super) fn chains(settings: &Settings) -> Vec<Chain> {
    match settings.mode {
        Mode::Redirect => vec![redirect(settings)],
        Mode::Tproxy => vec![tproxy(settings), answers(settings)],
    }
}

/// Which inbound ports are left alone, and which get `then`; `port` says how a rule names the port.
pub(super) fn selection(
    settings: &Settings,
    port: fn(Vec<PortRange>) -> Match,
    given: &[Match],
    then: &Target,
) -> Vec<Rule> {
    let mut rules = excluded_ports(settings, port, given);
    rules.extend(selected(settings, port, given, then));
    rules
}

/// The ports that are left alone.
pub(super) fn excluded_ports(
    settings: &Settings,
    port: fn(Vec<PortRange>) -> Match,
    given: &[Match],
) -> Vec<Rule> {
    if settings.inbound_ports == Ports::None {
        return Vec::new();
    }
    let rule = |ports| {
        let when = super::all_of(vec![TCP, port(ports)], given);
        Rule::new("inbound ports excluded by the settings", when, Target::Return)
    };
    port_chunks(&settings.exclude_inbound_ports)
        .into_iter()
        .map(rule)
        .collect()
}

/// The ports that get `then`, where no excluded one comes by.
pub(super) fn selected(
    settings: &Settings,
    port: fn(Vec<PortRange>) -> Match,
    given: &[Match],
    then: &Target,
) -> Vec<Rule> {
    let mut rules = Vec::new();
    let on = |ports: Vec<PortRange>| super::all_of(vec![TCP, port(ports)], given);
    match &settings.inbound_ports {
        Ports::None => {}
        Ports::All => {
            let when = super::all_of(vec![TCP], given);
            rules.push(Rule::new("every other inbound connection", when, then.clone()));
        }
        Ports::Only(list) => {
            for ports in port_chunks(list) {
                rules.push(Rule::new("inbound ports that were asked for", on(ports), then.clone()));
            }
        }
    }
    rules
}

/// The health port: the proxy itself serves it, so nothing is hidden by leaving it alone.
pub(super) fn health(settings: &Settings) -> Rule {
    Rule::new(
        "health and metrics are the proxy's own: the only exemption by default",
        vec![TCP, Match::DestinationPorts(vec![settings.health_port.into()])],
        Target::Return,
    )
}

/// Interfaces that are left alone, as `side` names them.
pub(super) fn excluded_interfaces(settings: &Settings, side: fn(String) -> Match) -> Vec<Rule> {
    settings
        .exclude_interfaces
        .iter()
        .map(|name| {
            Rule::new(
                "interface excluded by the settings",
                vec![side(name.clone())],
                Target::Return,
            )
        })
        .collect()
}

fn redirect(settings: &Settings) -> Chain {
    let then = Target::Redirect(settings.inbound_port);
    let mut rules = excluded_interfaces(settings, Match::InInterface);
    rules.extend(virtual_machines(settings));
    if settings.inbound_ports != Ports::None {
        rules.push(health(settings));
    }
    rules.extend(selection(settings, Match::DestinationPorts, &[], &then));
    Chain { table: Table::Nat, name: REDIRECT_CHAIN, hook: Some(Hook::Prerouting), rules }
}

/// What a virtual machine inside the pod sends is outbound traffic, though it arrives on an interface.
fn virtual_machines(settings: &Settings) -> Vec<Rule> {
    let mut rules = Vec::new();
    for name in &settings.virtual_interfaces {
        let given = [Match::InInterface(name.clone())];
        let then = Target::Redirect(settings.outbound_port);
        rules.extend(super::outbound::destinations(settings, &given, &then));
        rules.push(Rule::new(
            "the rest of what a virtual machine sends is not inbound",
            given.to_vec(),
            Target::Return,
        ));
    }
    rules
}

fn tproxy(settings: &Settings) -> Chain {
    let mark = settings.mark;
    let mut rules = excluded_interfaces(settings, Match::InInterface);
    if settings.inbound_ports != Ports::None {
        rules.push(Rule::new(
            "the proxy delivers to the workload with the mark: remember it for the answers",
            vec![TCP, in_lo(), Match::Mark(mark)],
            Target::SaveMark,
        ));
        rules.push(Rule::new(
            "loopback is not inbound: the workload's own, and between proxy and workload",
            vec![in_lo()],
            Target::Return,
        ));
        rules.push(Rule::new(
            "answers to connections that this pod opened",
            vec![TCP, Match::Reply],
            Target::Return,
        ));
        rules.extend(settings.virtual_interfaces.iter().map(|name| {
            let when = vec![Match::InInterface(name.clone())];
            Rule::new("what a virtual machine sends is not inbound", when, Target::Return)
        }));
        rules.push(health(settings));
    }
    let then = Target::Tproxy { port: settings.inbound_port, mark };
    rules.extend(selection(settings, Match::DestinationPorts, &[], &then));
    if settings.guard == Guard::Off {
        // The guard drops it otherwise. The iptables target drops it by itself, that of nft does not.
        let closed = selected(settings, Match::DestinationPorts, &[], &Target::Drop);
        rules.extend(closed.into_iter().map(|rule| Rule {
            why: "nobody listens: without its proxy the pod is closed",
            ..rule
        }));
    }
    Chain { table: Table::Mangle, name: TPROXY_CHAIN, hook: Some(Hook::Prerouting), rules }
}

fn answers(settings: &Settings) -> Chain {
    let mut rules = Vec::new();
    if settings.inbound_ports != Ports::None {
        rules.push(Rule::new(
            "the workload answers a client whose address the proxy borrowed: back to the proxy",
            vec![TCP, Match::FlowMark(settings.mark)],
            Target::RestoreMark,
        ));
    }
    Chain { table: Table::Mangle, name: RETURN_CHAIN, hook: Some(Hook::Output), rules }
}
