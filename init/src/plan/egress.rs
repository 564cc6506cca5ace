//! The guard at the devices, below everything that a packet socket passes by: what leaves there with an owner
//! who is not the proxy. Packets of the kernel's own have none.
//!
//! There is no conntrack at this place: a port or network that the settings exclude is let through by its number.

use super::{Family, Match, Rule, TCP, Target, all_of, inbound, outbound, proxy_owners};
use crate::settings::{Guard, Ports, Settings};

/// The rules of every device but the excluded ones; none if the guard is off.
pub(super) fn rules(settings: &Settings) -> Vec<Rule> {
    let foreign = [Match::HasSocket];
    let mut rules = Vec::new();
    if settings.guard == Guard::Off {
        return rules;
    }
    for owner in proxy_owners(settings) {
        rules.push(Rule::new("the proxy's own packets", owner, Target::Return));
    }
    rules.extend(tcp(settings, &foreign));
    if !settings.guards_everything() {
        rules.extend(Family::ALL.map(|family| {
            let when = all_of(vec![Match::Frame(family)], &foreign);
            Rule::new("what is not TCP, and says truly what it is", when, Target::Return)
        }));
    }
    rules.push(Rule::new(
        "whatever else a process sends, by packet sockets too",
        foreign.to_vec(),
        Target::Drop,
    ));
    rules
}

/// TCP of the workload: only what the settings exclude from capture.
fn tcp(settings: &Settings, foreign: &[Match]) -> Vec<Rule> {
    let drop = Target::Drop;
    let mut rules = inbound::excluded_ports(settings, Match::SourcePorts, foreign);
    match settings.inbound_ports {
        Ports::All => {}
        Ports::None => {
            let when = all_of(vec![TCP], foreign);
            rules.push(Rule::new("answers: no port is captured", when, Target::Return));
        }
        Ports::Only(_) => {
            rules.extend(inbound::selected(settings, Match::SourcePorts, foreign, &drop));
            let when = all_of(vec![TCP], foreign);
            rules.push(Rule::new("answers on ports that are not captured", when, Target::Return));
        }
    }
    rules.extend(outbound::selection(settings, foreign, &drop));
    let when = all_of(vec![TCP], foreign);
    rules.push(Rule::new("connections that are not captured", when, Target::Return));
    rules
}
