//! What the kernel is to be told, as data: pure, comparable, printable. [`Plan::new`] is the only way in.

mod dns;
mod egress;
mod guard;
mod inbound;
mod outbound;
mod queue;
mod rule;

use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use rule::{
    Chain, Family, Hook, Match, PORT_SLOTS, PREFIX, PortRange, Protocol, Rule, State, Table, Target,
};

use crate::settings::{Mode, Settings};

/// Address that the proxy binds when it delivers an inbound IPv4 flow to the workload; local without being set.
pub const DELIVERY_V4: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);

/// The same for IPv6; the plan adds it to `lo`.
pub const DELIVERY_V6: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6);

/// Preference of our policy rule: fixed, so that adding it again is refused instead of piling up.
pub const RULE_PREFERENCE: u32 = 171;

/// Routing that TPROXY needs: packets with the mark are for this host, whatever their destination.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PolicyRoute {
    /// Mark that selects the table.
    pub mark: u32,
    /// Table that holds one local default route.
    pub table: u32,
}

/// Everything that init does to a network namespace.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Plan {
    /// Mode, which decides the order in which tables are replaced.
    pub mode: Mode,
    /// Chains, in the order they are written.
    pub chains: Vec<Chain>,
    /// The guard at every device, where the backend has a hook for it.
    pub egress: Vec<Rule>,
    /// Devices that the guard leaves alone.
    pub unguarded: Vec<String>,
    /// Policy route, in TPROXY mode.
    pub route: Option<PolicyRoute>,
    /// Mark and table that [`Plan::route`] uses when it is there and cleanup removes always.
    pub route_names: PolicyRoute,
}

impl Plan {
    /// Works out the rules for `settings`. Chains without a rule are left out.
    pub fn new(settings: &Settings) -> Self {
        let mut chains = Vec::new();
        chains.extend(dns::zones(settings));
        chains.extend(inbound::chains(settings));
        chains.extend(outbound::chains(settings));
        chains.extend(queue::chains(settings));
        chains.extend(guard::chains(settings));
        for chain in &mut chains {
            simplify(&mut chain.rules);
        }
        chains.retain(|chain| !chain.rules.is_empty());
        let mut egress = egress::rules(settings);
        simplify(&mut egress);
        let excluded = [&settings.exclude_interfaces[..], &settings.virtual_interfaces].concat();
        let route_names = PolicyRoute { mark: settings.mark, table: settings.table };
        let route = (settings.mode == Mode::Tproxy).then_some(route_names);
        Self { mode: settings.mode, chains, egress, unguarded: excluded, route, route_names }
    }

    /// The tables that hold our chains, in the order of application: whatever captures in this mode comes
    /// before what may only have captured in the other one, so that a change of mode leaves no gap.
    pub fn tables(&self) -> Vec<Table> {
        match self.mode {
            Mode::Redirect => vec![Table::Raw, Table::Nat, Table::Mangle, Table::Filter],
            Mode::Tproxy => vec![Table::Raw, Table::Mangle, Table::Nat, Table::Filter],
        }
    }

    /// The chains of one table, in order.
    pub fn chains_of(&self, table: Table) -> impl Iterator<Item = &Chain> {
        self.chains.iter().filter(move |chain| chain.table == table)
    }
}

/// Removes rules that change nothing.
fn simplify(rules: &mut Vec<Rule>) {
    drop_unreachable(rules);
    drop_anticipated(rules);
}

/// Removes rules that do what a later and wider one does, with nothing else to come between them.
fn drop_anticipated(rules: &mut Vec<Rule>) {
    let mut at = 0;
    while let Some((rule, later)) = rules.get(at..).and_then(<[Rule]>::split_first) {
        let same = later.iter().take_while(|other| other.then == rule.then);
        let mut wider = same.filter(|other| other.hides(rule));
        if wider.next().is_some() {
            rules.remove(at);
        } else {
            at += 1;
        }
    }
}

/// Removes rules that an earlier rule of the chain never lets a packet reach.
fn drop_unreachable(rules: &mut Vec<Rule>) {
    let mut kept: Vec<Rule> = Vec::new();
    rules.retain(|rule| {
        let hidden = kept.iter().any(|earlier| earlier.hides(rule));
        if !hidden {
            kept.push(rule.clone());
        }
        !hidden
    });
}

/// A network of one address.
fn host(addr: IpAddr) -> IpNet {
    IpNet::from(addr)
}

/// The loopback network of a family.
fn loopback(family: Family) -> IpNet {
    match family {
        Family::V4 => IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
        Family::V6 => host(IpAddr::V6(Ipv6Addr::LOCALHOST)),
    }
}

/// The address that the proxy delivers from.
fn delivery(family: Family) -> IpNet {
    match family {
        Family::V4 => host(IpAddr::V4(DELIVERY_V4)),
        Family::V6 => host(IpAddr::V6(DELIVERY_V6)),
    }
}

/// Cuts a list of ports into pieces that fit in one rule each.
fn port_chunks(ports: &[PortRange]) -> Vec<Vec<PortRange>> {
    let mut chunks: Vec<Vec<PortRange>> = Vec::new();
    let mut used = PORT_SLOTS;
    for &range in ports {
        let slots = if range.first == range.last { 1 } else { 2 };
        match chunks.last_mut() {
            Some(chunk) if used + slots <= PORT_SLOTS => {
                chunk.push(range);
                used += slots;
            }
            _ => {
                chunks.push(vec![range]);
                used = slots;
            }
        }
    }
    chunks
}

/// The ways to recognise the proxy by its socket: any one of them is enough.
fn proxy_owners(settings: &Settings) -> Vec<Vec<Match>> {
    let uids = settings.proxy_uids.iter().map(|uid| Match::Uid(*uid));
    let gids = settings.proxy_gids.iter().map(|gid| Match::Gid(*gid));
    uids.chain(gids)
        .map(|owner| {
            let mut owner = vec![owner];
            owner.extend(settings.secret_mark.map(Match::Mark));
            owner
        })
        .collect()
}

/// `first` with `more` behind it.
fn all_of(first: Vec<Match>, more: &[Match]) -> Vec<Match> {
    let mut all = first;
    all.extend_from_slice(more);
    all
}

const TCP: Match = Match::Protocol(Protocol::Tcp);
const UDP: Match = Match::Protocol(Protocol::Udp);

fn in_lo() -> Match {
    Match::InInterface("lo".to_owned())
}

fn out_lo() -> Match {
    Match::OutInterface("lo".to_owned())
}

#[cfg(test)]
mod tests;
