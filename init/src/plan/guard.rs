//! What is not captured and not allowed neither leaves nor enters: the same selection as capture, ending in
//! a drop. It stands where a captured packet has already been rewritten, so it only meets what escaped.

use super::{
    Chain, Hook, Match, Rule, State, TCP, Table, Target, all_of, in_lo, out_lo, proxy_owners,
};
use crate::settings::{Guard, Mode, Ports, Settings};

/// Guard on the way out.
const OUT_CHAIN: &str = "OUTRIDER_GUARD_OUT";
/// Guard on the way in.
const IN_CHAIN: &str = "OUTRIDER_GUARD_IN";

/// The guard's chains; none if the guard is off and invalid segments may pass.
pub(super) fn chains(settings: &Settings) -> Vec<Chain> {
    vec![
        Chain {
            table: Table::Mangle,
            name: OUT_CHAIN,
            hook: Some(Hook::Postrouting),
            rules: out_rules(settings),
        },
        Chain {
            table: Table::Filter,
            name: IN_CHAIN,
            hook: Some(Hook::Input),
            rules: in_rules(settings),
        },
    ]
}

/// What the guard judges: TCP, or everything.
fn scope(settings: &Settings) -> Vec<Match> {
    if settings.guards_everything() { Vec::new() } else { vec![TCP] }
}

fn out_rules(settings: &Settings) -> Vec<Rule> {
    let scope = scope(settings);
    let mut rules = Vec::new();
    if settings.guard == Guard::Off && !settings.drop_invalid {
        return rules;
    }
    rules.push(Rule::new("loopback, and what was captured", vec![out_lo()], Target::Return));
    rules.extend(super::inbound::excluded_interfaces(settings, Match::OutInterface));
    rules.extend(settings.virtual_interfaces.iter().map(|name| {
        let when = vec![Match::OutInterface(name.clone())];
        Rule::new("towards a virtual machine", when, Target::Return)
    }));
    if settings.drop_invalid {
        rules.push(invalid(&scope));
    }
    if settings.guard == Guard::Off {
        return rules;
    }
    for owner in proxy_owners(settings) {
        rules.push(Rule::new("the proxy's own packets", owner, Target::Return));
    }
    rules.extend(app_rules(settings, &scope));
    rules.push(Rule::new(
        "packets without an owner: the kernel's part in a known flow",
        all_of(vec![Match::State(State::Known)], &scope),
        Target::Return,
    ));
    rules.extend(discovery(settings, SENT));
    rules.push(Rule::new("nothing else leaves", scope, Target::Drop));
    rules
}

/// What a process of the workload sends directly: only what the settings exclude from capture.
fn app_rules(settings: &Settings, scope: &[Match]) -> Vec<Rule> {
    let app = [Match::HasSocket];
    let answer = [Match::HasSocket, Match::Reply];
    let drop = Target::Drop;
    let mut rules = super::inbound::selection(settings, Match::SourcePorts, &answer, &drop);
    let when = all_of(vec![TCP], &answer);
    rules.push(Rule::new("answers on ports that are not captured", when, Target::Return));
    rules.extend(super::outbound::selection(settings, &app, &drop));
    let when = all_of(vec![TCP], &app);
    rules.push(Rule::new("connections that are not captured", when, Target::Return));
    let when = all_of(app.to_vec(), scope);
    rules.push(Rule::new("the workload's packets that nothing captures", when, drop));
    rules
}

fn in_rules(settings: &Settings) -> Vec<Rule> {
    let scope = scope(settings);
    let mut rules = Vec::new();
    if settings.guard != Guard::Off {
        rules.push(Rule::new("captured by REDIRECT", vec![TCP, Match::Redirected], Target::Return));
        let listeners = vec![settings.outbound_port.into(), settings.inbound_port.into()];
        rules.push(Rule::new(
            "nobody dials the proxy's listeners directly: a loop otherwise",
            vec![TCP, Match::DestinationPorts(listeners)],
            Target::Reset,
        ));
    }
    if settings.drop_invalid || settings.guard != Guard::Off {
        rules.push(Rule::new("loopback", vec![in_lo()], Target::Return));
        rules.extend(super::inbound::excluded_interfaces(settings, Match::InInterface));
        rules.extend(settings.virtual_interfaces.iter().map(|name| {
            let when = vec![Match::InInterface(name.clone())];
            Rule::new("from a virtual machine", when, Target::Return)
        }));
    }
    if settings.drop_invalid {
        rules.push(invalid(&scope));
    }
    if settings.guard != Guard::Off {
        rules.extend(in_default_deny(settings, &scope));
    }
    rules
}

fn in_default_deny(settings: &Settings, scope: &[Match]) -> Vec<Rule> {
    let mut rules = Vec::new();
    if settings.mode == Mode::Tproxy {
        let when = vec![TCP, Match::Mark(settings.mark)];
        rules.push(Rule::new("captured by TPROXY", when, Target::Return));
    }
    rules.push(Rule::new(
        "answers to what this pod opened",
        all_of(vec![Match::Reply], scope),
        Target::Return,
    ));
    if settings.inbound_ports != Ports::None {
        rules.push(super::inbound::health(settings));
    }
    let drop = Target::Drop;
    rules.extend(super::inbound::selection(settings, Match::DestinationPorts, &[], &drop));
    if settings.guards_everything() {
        rules.push(Rule::new("ports that are not captured", vec![TCP], Target::Return));
        rules.push(Rule::new(
            "errors about a known flow, path MTU for one",
            vec![Match::State(State::Related)],
            Target::Return,
        ));
        rules.extend(discovery(settings, RECEIVED));
        rules.push(Rule::new("nothing else enters", Vec::new(), Target::Drop));
    }
    rules
}

fn invalid(scope: &[Match]) -> Rule {
    Rule::new(
        "a segment that conntrack does not understand is not rewritten and would pass the proxy by",
        all_of(vec![Match::State(State::Invalid)], scope),
        Target::Drop,
    )
}

/// IPv6 does not work without it, and conntrack doesn't track it.
fn discovery(settings: &Settings, kinds: [u8; 3]) -> Vec<Rule> {
    if !settings.guards_everything() {
        return Vec::new();
    }
    let rule = |number| {
        let when = vec![Match::Icmpv6Type(number)];
        Rule::new("router and neighbour discovery", when, Target::Return)
    };
    kinds.map(rule).into()
}

/// Router solicitation, neighbour solicitation and advertisement.
const SENT: [u8; 3] = [133, 135, 136];
/// Router advertisement, neighbour solicitation and advertisement.
const RECEIVED: [u8; 3] = [134, 135, 136];
