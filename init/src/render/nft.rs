//! Text for `nft -f -`: one table for both families and one for the devices, replaced in one transaction.

use std::fmt::Write as _;

use crate::plan::{
    Chain, Family, Hook, Match, Plan, PortRange, Protocol, Rule, State, Table, Target,
};

/// Name of our tables: in the family `inet`, and in `netdev` for the devices.
pub const TABLE: &str = "outrider";

/// What surrounds a plan.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    /// Devices that packets leave by; none if the kernel has no hook there.
    pub devices: Vec<String>,
    /// Whether our tables may be there: they are removed in the same step. Removing costs the tool a wait for
    /// the kernel, so a first run does without.
    pub occupied: bool,
}

/// The whole input of the tool.
pub fn ruleset(plan: &Plan, place: &Place) -> String {
    let mut text = if place.occupied { removal() } else { String::new() };
    if !place.devices.is_empty() && !plan.egress.is_empty() {
        egress(&mut text, &plan.egress, &place.devices);
    }
    line(&mut text, format_args!("table inet {TABLE} {{"));
    for chain in &plan.chains {
        chain_text(&mut text, chain);
    }
    line(&mut text, format_args!("}}"));
    text
}

/// Input that removes our tables, whether or not they are there: a table is declared, so that it can be deleted.
pub fn removal() -> String {
    ["netdev", "inet"]
        .map(|family| format!("table {family} {TABLE}\ndelete table {family} {TABLE}\n"))
        .concat()
}

fn egress(text: &mut String, rules: &[Rule], devices: &[String]) {
    let devices = devices.join(", ");
    line(text, format_args!("table netdev {TABLE} {{"));
    line(text, format_args!("  chain OUTRIDER_EGRESS {{"));
    let hook = "type filter hook egress devices";
    line(text, format_args!("    {hook} = {{ {devices} }} priority 0; policy accept;"));
    rule_lines(text, rules);
    line(text, format_args!("  }}\n}}"));
}

fn chain_text(text: &mut String, chain: &Chain) {
    line(text, format_args!("  chain {} {{", chain.name));
    if let Some(hook) = chain.hook {
        let (kind, priority) = kind_and_priority(chain.table, hook);
        let hook = hook_name(hook);
        line(text, format_args!("    type {kind} hook {hook} priority {priority}; policy accept;"));
    }
    rule_lines(text, &chain.rules);
    line(text, format_args!("  }}"));
}

fn rule_lines(text: &mut String, rules: &[Rule]) {
    let mut why = "";
    for rule in rules {
        if rule.why != why {
            why = rule.why;
            line(text, format_args!("    # {why}"));
        }
        line(text, format_args!("    {}", rule_text(rule)));
    }
}

/// Just before the place of the table of the same name in iptables, so that we are asked first; the guard
/// on the way out comes last of all.
fn kind_and_priority(table: Table, hook: Hook) -> (&'static str, i32) {
    match (table, hook) {
        (Table::Raw, _) => ("filter", -305),
        (Table::Nat, _) => ("nat", -105),
        (Table::Mangle, Hook::Output) => ("route", -155),
        (Table::Mangle, Hook::Postrouting) => ("filter", 300),
        (Table::Mangle, _) => ("filter", -155),
        (Table::Filter, _) => ("filter", -5),
    }
}

fn hook_name(hook: Hook) -> &'static str {
    match hook {
        Hook::Prerouting => "prerouting",
        Hook::Input => "input",
        Hook::Output => "output",
        Hook::Postrouting => "postrouting",
    }
}

fn rule_text(rule: &Rule) -> String {
    let protocol = rule.when.iter().find_map(|condition| match condition {
        Match::Protocol(protocol) => Some(protocol_name(*protocol)),
        _ => None,
    });
    let has_ports = rule
        .when
        .iter()
        .any(|condition| matches!(condition, Match::DestinationPorts(_) | Match::SourcePorts(_)));
    let mut words: Vec<String> = Vec::new();
    for condition in &rule.when {
        match condition {
            // A match of a port says the protocol too.
            Match::Protocol(_) if has_ports => {}
            _ => words.push(match_text(condition, protocol.unwrap_or("th"))),
        }
    }
    words.push(target_text(&rule.then));
    words.join(" ")
}

fn match_text(condition: &Match, protocol: &str) -> String {
    let address = |net: &ipnet::IpNet, side: &str| {
        let family = match Family::of(net) {
            Family::V4 => "ip",
            Family::V6 => "ip6",
        };
        let alone = net.prefix_len() == net.max_prefix_len();
        let net = if alone { net.addr().to_string() } else { net.to_string() };
        format!("{family} {side} {net}")
    };
    match condition {
        Match::Protocol(protocol) => format!("meta l4proto {}", protocol_name(*protocol)),
        Match::Icmpv6Type(number) => format!("icmpv6 type {number}"),
        Match::InInterface(name) => format!("iifname \"{name}\""),
        Match::OutInterface(name) => format!("oifname \"{name}\""),
        Match::Source(net) => address(net, "saddr"),
        Match::Destination(net) => address(net, "daddr"),
        Match::NotDestination(net) => address(net, "daddr !="),
        Match::DestinationPorts(ports) => format!("{protocol} dport {}", ports_text(ports)),
        Match::SourcePorts(ports) => format!("{protocol} sport {}", ports_text(ports)),
        Match::Uid(uid) => format!("meta skuid {uid}"),
        Match::Gid(gid) => format!("meta skgid {gid}"),
        Match::NotGids(gids) => {
            let list: Vec<String> = gids.iter().map(u32::to_string).collect();
            format!("meta skgid != {{ {} }}", list.join(", "))
        }
        Match::HasSocket => "meta skuid >= 0".to_owned(),
        Match::Mark(mark) => format!("meta mark {mark:#x}"),
        Match::NotMark(mark) => format!("meta mark != {mark:#x}"),
        Match::Marked(bits) => format!("meta mark and {bits:#x} != 0"),
        Match::FlowMark(mark) => format!("ct mark {mark:#x}"),
        Match::FlowMarked(bits) => format!("ct mark and {bits:#x} != 0"),
        Match::State(state) => format!("ct state {}", state_name(*state)),
        Match::Redirected => "ct status dnat".to_owned(),
        Match::Reply => "ct direction reply".to_owned(),
        Match::Frame(Family::V4) => "ether type ip meta protocol ip".to_owned(),
        Match::Frame(Family::V6) => "ether type ip6 meta protocol ip6".to_owned(),
    }
}

fn ports_text(ports: &[PortRange]) -> String {
    let list: Vec<String> = ports
        .iter()
        .map(|range| {
            if range.first == range.last {
                range.first.to_string()
            } else {
                format!("{}-{}", range.first, range.last)
            }
        })
        .collect();
    match list.as_slice() {
        [one] => one.clone(),
        // Ports that a setting names twice, or ranges that overlap, are one set.
        _ => format!("{{ {} }}", list.join(", ")),
    }
}

fn target_text(target: &Target) -> String {
    match target {
        Target::Return => "return".to_owned(),
        Target::Accept => "accept".to_owned(),
        Target::Drop => "drop".to_owned(),
        Target::Reset => "reject with tcp reset".to_owned(),
        Target::Redirect(port) => format!("redirect to :{port}"),
        Target::Tproxy { port, mark } => {
            format!("tproxy to :{port} meta mark set {mark:#x} accept")
        }
        Target::SetMark(mark) => format!("meta mark set {mark:#x}"),
        Target::ClearMark(bits) => format!("meta mark set meta mark and {:#x}", !bits),
        Target::SaveMark => "ct mark set meta mark".to_owned(),
        Target::AddFlowMark(bits) => format!("ct mark set ct mark or {bits:#x}"),
        Target::RestoreMark => "meta mark set ct mark".to_owned(),
        Target::Zone(zone) => format!("ct zone set {zone} accept"),
        Target::Queue { number, open } => {
            let bypass = if *open { " flags bypass" } else { "" };
            format!("queue{bypass} to {number}")
        }
        Target::Jump(chain) => format!("jump {chain}"),
    }
}

fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Icmpv6 => "ipv6-icmp",
        Protocol::Igmp => "igmp",
    }
}

fn state_name(state: State) -> &'static str {
    match state {
        State::Invalid => "invalid",
        State::Known => "established,related",
        State::Related => "related",
        State::Untracked => "untracked",
    }
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    writeln!(text, "{arguments}").expect("a String takes any text");
}
