//! Text for `iptables-restore --noflush` and `ip6tables-restore --noflush`.

use std::fmt::Write as _;

use crate::plan::{
    Chain, Family, Hook, Match, Plan, PortRange, Protocol, Rule, State, Table, Target,
};

/// What has to go for the plan to take its place; found by [`crate::apply`], empty on a first run.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Leftovers {
    /// Rules of the kernel's own chains that enter our chains, as `CHAIN match...`.
    pub jumps: Vec<(Table, String)>,
    /// Our chains that exist.
    pub chains: Vec<(Table, String)>,
}

/// The whole input of the restore tool for one family: one transaction per table.
pub fn restore_input(plan: &Plan, family: Family, found: &Leftovers) -> String {
    let mut text = String::new();
    for table in plan.tables() {
        table_input(&mut text, plan, family, (table, found));
    }
    text
}

/// Input that removes everything of ours and leaves the rest alone.
pub fn removal_input(found: &Leftovers) -> String {
    let mut text = String::new();
    for table in [Table::Nat, Table::Mangle, Table::Filter, Table::Raw] {
        let removal = Removal::of(found, table);
        if removal.is_empty() {
            continue;
        }
        line(&mut text, format_args!("*{}", table_name(table)));
        for chain in &removal.chains {
            line(&mut text, format_args!(":{chain} - [0:0]"));
        }
        for jump in &removal.jumps {
            line(&mut text, format_args!("-D {jump}"));
        }
        for chain in &removal.chains {
            line(&mut text, format_args!("-X {chain}"));
        }
        line(&mut text, format_args!("COMMIT"));
    }
    text
}

/// The leftovers of one table.
struct Removal<'a> {
    jumps: Vec<&'a str>,
    chains: Vec<&'a str>,
}

impl<'a> Removal<'a> {
    fn of(found: &'a Leftovers, table: Table) -> Self {
        let of_table = |list: &'a [(Table, String)]| {
            list.iter()
                .filter(|(of, _)| *of == table)
                .map(|(_, text)| text.as_str())
                .collect()
        };
        Self { jumps: of_table(&found.jumps), chains: of_table(&found.chains) }
    }

    fn is_empty(&self) -> bool {
        self.jumps.is_empty() && self.chains.is_empty()
    }
}

fn table_input(text: &mut String, plan: &Plan, family: Family, at: (Table, &Leftovers)) {
    let (table, found) = at;
    let removal = Removal::of(found, table);
    let chains: Vec<&Chain> = plan.chains_of(table).collect();
    if chains.is_empty() && removal.is_empty() {
        return;
    }
    line(text, format_args!("*{}", table_name(table)));
    // Declaring a chain empties it if it exists; all of it happens at COMMIT, in one step.
    for chain in &chains {
        line(text, format_args!(":{} - [0:0]", chain.name));
    }
    let stale: Vec<&str> = removal
        .chains
        .into_iter()
        .filter(|name| chains.iter().all(|chain| chain.name != *name))
        .collect();
    for name in &stale {
        line(text, format_args!(":{name} - [0:0]"));
    }
    for jump in removal.jumps {
        line(text, format_args!("-D {jump}"));
    }
    for chain in &chains {
        chain_rules(text, chain, family);
    }
    for chain in &chains {
        if let Some(hook) = chain.hook {
            line(text, format_args!("-I {} 1 -j {}", hook_name(hook), chain.name));
        }
    }
    for name in &stale {
        line(text, format_args!("-X {name}"));
    }
    line(text, format_args!("COMMIT"));
}

fn chain_rules(text: &mut String, chain: &Chain, family: Family) {
    let mut why = "";
    for rule in chain.rules.iter().filter(|rule| rule.is_for(family)) {
        if rule.why != why {
            why = rule.why;
            line(text, format_args!("# {why}"));
        }
        line(text, format_args!("-A {}{}", chain.name, rule_text(rule)));
    }
}

/// Conditions and target of a rule, each with a space in front.
fn rule_text(rule: &Rule) -> String {
    let mut text = String::new();
    // The tool wants the protocol before the matches that depend on it.
    for condition in &rule.when {
        if let Match::Protocol(protocol) = condition {
            text.push_str(" -p ");
            text.push_str(protocol_name(*protocol));
        }
    }
    for condition in &rule.when {
        text.push_str(&match_text(condition));
    }
    text.push_str(" -j ");
    text.push_str(&target_text(&rule.then));
    text
}

fn match_text(condition: &Match) -> String {
    match condition {
        Match::Protocol(_) => String::new(),
        Match::Icmpv6Type(number) => format!(" -p ipv6-icmp --icmpv6-type {number}"),
        Match::InInterface(name) => format!(" -i {name}"),
        Match::OutInterface(name) => format!(" -o {name}"),
        Match::Source(net) => format!(" -s {net}"),
        Match::Destination(net) => format!(" -d {net}"),
        Match::NotDestination(net) => format!(" ! -d {net}"),
        Match::DestinationPorts(ports) => ports_text("dport", ports),
        Match::SourcePorts(ports) => ports_text("sport", ports),
        Match::Uid(uid) => format!(" -m owner --uid-owner {uid}"),
        Match::Gid(gid) => format!(" -m owner --gid-owner {gid}"),
        Match::NotGids(gids) => gids
            .iter()
            .map(|gid| format!(" -m owner ! --gid-owner {gid}"))
            .collect(),
        // Not `--socket-exists`, which also holds for the kernel's own socket that resets are sent by:
        // a peer of a dead proxy would wait instead of being refused.
        Match::HasSocket => " -m owner --uid-owner 0-4294967294".to_owned(),
        Match::Mark(mark) => format!(" -m mark --mark {mark:#x}"),
        Match::NotMark(mark) => format!(" -m mark ! --mark {mark:#x}"),
        Match::Marked(bits) => format!(" -m mark ! --mark 0x0/{bits:#x}"),
        Match::FlowMark(mark) => format!(" -m connmark --mark {mark:#x}"),
        Match::FlowMarked(bits) => format!(" -m connmark ! --mark 0x0/{bits:#x}"),
        Match::State(state) => format!(" -m conntrack --ctstate {}", state_name(*state)),
        Match::Redirected => " -m conntrack --ctstate DNAT".to_owned(),
        Match::Reply => " -m conntrack --ctdir REPLY".to_owned(),
        // Never here: devices have no place in these tables.
        Match::Frame(_) => String::new(),
    }
}

fn ports_text(side: &str, ports: &[PortRange]) -> String {
    let list: Vec<String> = ports
        .iter()
        .map(|range| {
            if range.first == range.last {
                range.first.to_string()
            } else {
                format!("{}:{}", range.first, range.last)
            }
        })
        .collect();
    if let [one] = list.as_slice() {
        format!(" --{side} {one}")
    } else {
        format!(" -m multiport --{side}s {}", list.join(","))
    }
}

fn target_text(target: &Target) -> String {
    match target {
        Target::Return => "RETURN".to_owned(),
        Target::Accept => "ACCEPT".to_owned(),
        Target::Drop => "DROP".to_owned(),
        Target::Reset => "REJECT --reject-with tcp-reset".to_owned(),
        Target::Redirect(port) => format!("REDIRECT --to-ports {port}"),
        Target::Tproxy { port, mark } => {
            format!("TPROXY --on-port {port} --tproxy-mark {mark:#x}/0xffffffff")
        }
        Target::SetMark(mark) => format!("MARK --set-mark {mark:#x}"),
        Target::ClearMark(bits) => format!("MARK --set-xmark 0x0/{bits:#x}"),
        Target::SaveMark => "CONNMARK --save-mark".to_owned(),
        Target::AddFlowMark(bits) => format!("CONNMARK --or-mark {bits:#x}"),
        Target::RestoreMark => "CONNMARK --restore-mark".to_owned(),
        Target::Zone(zone) => format!("CT --zone {zone}"),
        Target::Queue { number, open } => {
            let bypass = if *open { " --queue-bypass" } else { "" };
            format!("NFQUEUE --queue-num {number}{bypass}")
        }
        Target::Jump(chain) => (*chain).to_owned(),
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
        State::Invalid => "INVALID",
        State::Known => "RELATED,ESTABLISHED",
        State::Related => "RELATED",
        State::Untracked => "UNTRACKED",
    }
}

/// The tool's name of a table.
pub fn table_name(table: Table) -> &'static str {
    match table {
        Table::Raw => "raw",
        Table::Nat => "nat",
        Table::Mangle => "mangle",
        Table::Filter => "filter",
    }
}

/// The table of that name, if it is one that we use.
pub fn table_of(name: &str) -> Option<Table> {
    [Table::Raw, Table::Nat, Table::Mangle, Table::Filter]
        .into_iter()
        .find(|table| table_name(*table) == name)
}

fn hook_name(hook: Hook) -> &'static str {
    match hook {
        Hook::Prerouting => "PREROUTING",
        Hook::Input => "INPUT",
        Hook::Output => "OUTPUT",
        Hook::Postrouting => "POSTROUTING",
    }
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    writeln!(text, "{arguments}").expect("a String takes any text");
}
