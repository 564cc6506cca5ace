//! From rules to tables: every mistake refuses the whole policy.

use std::{collections::HashMap, net::IpAddr};

use outrider_model::{AppId, Direction, IpProto, PolicyAction, RuleId};

use crate::{
    AddrSpec, MAX_APPS, MAX_NAMES, MAX_RULES, Name, Network, PolicyError, PolicySpec, RuleSpec,
    addr_map::{highest, number},
    index::{Index, Item},
};

/// The point of the special tables that stands for every external peer; names follow it.
pub(crate) const EXTERNAL: u128 = 0;

/// The point of a name in the special tables.
pub(crate) fn name_point(code: u16) -> u128 {
    u128::from(code) + 1
}

/// Nothing is known of the application yet.
pub(crate) const PENDING: u32 = 0;

/// ICMP in either version, as a point of the protocol dimension.
const ICMP: u16 = 2;

/// A protocol as a point: those that a rule without protocol means lie side by side.
pub(crate) fn proto_point(proto: IpProto) -> u16 {
    match proto {
        IpProto::TCP => 0,
        IpProto::UDP => 1,
        IpProto::ICMP | IpProto::ICMPV6 => ICMP,
        IpProto(other) => 256 + u16::from(other),
    }
}

/// What is said where a box holds the flow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub(crate) action: PolicyAction,
    pub(crate) rule: RuleId,
    /// The name that stands for the peer.
    pub(crate) name: Option<u16>,
    /// The flow must carry that name.
    pub(crate) vhost: bool,
}

/// Applications the rules name, at most; more count as "any may be named".
pub(crate) const MAX_NAMED_APPS: usize = 64;

/// The rules of one workload, compiled.
#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) default_action: PolicyAction,
    pub(crate) inbound: bool,
    pub(crate) outbound: bool,
    pub(crate) grace: bool,
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) names: Vec<Name>,
    /// Addresses that rules give for a name.
    pub(crate) given: Vec<(u16, IpAddr)>,
    /// The applications the rules name; `None` if there are too many to try each.
    pub(crate) named_apps: Option<Vec<u32>>,
    pub(crate) exact: u32,
    pub(crate) ranges: u32,
    tables: HashMap<TableKey, Index>,
}

/// Which table a flow is looked up in.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct TableKey {
    pub(crate) inbound: bool,
    pub(crate) v4: bool,
    /// The peer is a name or "external" rather than an address.
    pub(crate) special: bool,
}

impl Tables {
    pub(crate) fn table(&self, key: TableKey) -> Option<&Index> {
        self.tables.get(&key)
    }

    pub(crate) fn compile(spec: &PolicySpec, network: &Network) -> Result<Self, PolicyError> {
        if spec.rules.len() > MAX_RULES {
            return Err(PolicyError::TooManyRules(spec.rules.len()));
        }
        check_result(RuleId::IMPLICIT, spec.default_action)?;
        let any_proto = match network {
            Network { ip_policy: true, .. } => u16::MAX,
            Network { icmp_policy: true, .. } => ICMP,
            _ => ICMP - 1,
        };
        let mut compiler = Compiler { any_proto, ..Compiler::default() };
        for rule in &spec.rules {
            compiler.add(rule)?;
        }
        Ok(compiler.finish(spec))
    }
}

#[derive(Default)]
struct Compiler {
    /// The last point of the protocols that a rule without one means.
    any_proto: u16,
    outcomes: Vec<Outcome>,
    names: Vec<Name>,
    codes: HashMap<Name, u16>,
    given: Vec<(u16, IpAddr)>,
    apps: Vec<u32>,
    exact: u32,
    ranges: u32,
    items: HashMap<TableKey, Vec<Item>>,
}

impl Compiler {
    fn add(&mut self, rule: &RuleSpec) -> Result<(), PolicyError> {
        check(rule)?;
        let (peer, local) = match rule.direction {
            Direction::Inbound => (rule.client, rule.server),
            Direction::Outbound => (rule.server, rule.client),
        };
        let name = rule
            .fqdn
            .as_ref()
            .map(|name| self.code(rule.id, name, peer))
            .transpose()?;
        let is_exact = name.is_none()
            && rule.client.is_one()
            && rule.server.is_one()
            && rule.ports.0 == rule.ports.1;
        *(if is_exact { &mut self.exact } else { &mut self.ranges }) += 1;

        let outcome = Outcome {
            action: rule.action,
            rule: rule.id,
            name,
            vhost: rule.vhost && name.is_some(),
        };
        let sides = Sides { peer, local, name };
        if rule.action != PolicyAction::CheckApp {
            return self.place(rule, sides, (0, u32::MAX), outcome);
        }
        if !rule.apps.is_empty() {
            self.place(rule, sides, (PENDING, PENDING), outcome)?;
        }
        for app in &rule.apps {
            let reach = match app.app {
                AppId::ANY => (PENDING + 1, u32::MAX),
                AppId(id) => (id, id),
            };
            self.apps.push(app.app.0);
            let outcome = Outcome { action: app.action, rule: app.rule, ..outcome };
            self.place(rule, sides, reach, outcome)?;
        }
        Ok(())
    }

    /// The number of a rule's name, with the address that the rule gives for it.
    fn code(&mut self, rule: RuleId, name: &Name, peer: AddrSpec) -> Result<u16, PolicyError> {
        let code = match self.codes.get(name) {
            Some(code) => *code,
            None if self.names.len() >= MAX_NAMES => return Err(PolicyError::TooManyNames),
            None => {
                let code = u16::try_from(self.names.len())
                    .map_err(|_capped_above| PolicyError::TooManyNames)?;
                self.names.push(name.clone());
                self.codes.insert(name.clone(), code);
                code
            }
        };
        match peer {
            AddrSpec::Range(low, high) if low == high => {
                self.given.push((code, low.to_canonical()));
            }
            AddrSpec::Range(..) => return Err(PolicyError::NameAndRange(rule)),
            AddrSpec::External | AddrSpec::Any => {}
        }
        Ok(code)
    }

    /// Puts one box into every table it belongs to.
    fn place(
        &mut self,
        rule: &RuleSpec,
        sides: Sides,
        app: (u32, u32),
        outcome: Outcome,
    ) -> Result<(), PolicyError> {
        let at = u32::try_from(self.outcomes.len())
            .map_err(|_beyond| PolicyError::TooManyRules(self.outcomes.len()))?;
        self.outcomes.push(outcome);
        let proto = match rule.proto {
            None => (0, self.any_proto),
            Some(proto) => (proto_point(proto), proto_point(proto)),
        };
        for v4 in [true, false] {
            let Some(((special, peer), local)) = sides.peer(v4).zip(reach(sides.local, v4)) else {
                continue;
            };
            let key = TableKey { inbound: rule.direction == Direction::Inbound, v4, special };
            let conditional = outcome.name.is_some();
            self.items.entry(key).or_default().push(Item {
                peer,
                local,
                port: rule.ports,
                app,
                proto,
                outcome: at,
                conditional: conditional && outcome.vhost,
            });
        }
        Ok(())
    }

    fn finish(mut self, spec: &PolicySpec) -> Tables {
        self.apps.sort_unstable();
        self.apps.dedup();
        Tables {
            default_action: spec.default_action,
            inbound: spec.inbound,
            outbound: spec.outbound,
            grace: spec.grace,
            outcomes: self.outcomes,
            names: self.names,
            given: self.given,
            named_apps: (self.apps.len() <= MAX_NAMED_APPS).then_some(self.apps),
            exact: self.exact,
            ranges: self.ranges,
            tables: self
                .items
                .into_iter()
                .map(|(key, items)| (key, Index::new(items)))
                .collect(),
        }
    }
}

#[derive(Clone, Copy)]
struct Sides {
    peer: AddrSpec,
    local: AddrSpec,
    name: Option<u16>,
}

impl Sides {
    /// Whether the peer is in the special table of a family, and its range there.
    fn peer(self, v4: bool) -> Option<(bool, (u128, u128))> {
        match (self.name, self.peer) {
            (Some(code), _) => Some((true, (name_point(code), name_point(code)))),
            (None, AddrSpec::External) => Some((true, (EXTERNAL, EXTERNAL))),
            (None, range) => reach(range, v4).map(|range| (false, range)),
        }
    }
}

/// A range of addresses as numbers, if it is of that family.
fn reach(spec: AddrSpec, v4: bool) -> Option<(u128, u128)> {
    match spec {
        AddrSpec::Any => Some((0, u128::MAX)),
        AddrSpec::External => None,
        AddrSpec::Range(low, high) => {
            let (low, high) = (low.to_canonical(), high.to_canonical());
            let whole = number(low) == 0 && number(high) == highest(v4);
            let range = (number(low), if whole { u128::MAX } else { number(high) });
            (low.is_ipv4() == v4).then_some(range)
        }
    }
}

fn check(rule: &RuleSpec) -> Result<(), PolicyError> {
    let local = match rule.direction {
        Direction::Inbound => rule.server,
        Direction::Outbound => rule.client,
    };
    if local == AddrSpec::External {
        return Err(PolicyError::ExternalWorkload(rule.id));
    }
    let families = (family(rule.id, rule.client)?, family(rule.id, rule.server)?);
    if let (Some(client), Some(server)) = families
        && client != server
    {
        return Err(PolicyError::MixedFamilies(rule.id));
    }
    if rule.ports.0 > rule.ports.1 {
        let (low, high) = rule.ports;
        return Err(PolicyError::PortRange { rule: rule.id, low, high });
    }
    check_action(rule)
}

fn check_action(rule: &RuleSpec) -> Result<(), PolicyError> {
    match rule.action {
        PolicyAction::CheckVhost => Err(PolicyError::Action { rule: rule.id, action: rule.action }),
        PolicyAction::CheckApp if rule.apps.len() > MAX_APPS => {
            Err(PolicyError::TooManyApps(rule.id))
        }
        PolicyAction::CheckApp => rule
            .apps
            .iter()
            .try_for_each(|app| check_result(app.rule, app.action)),
        _ => Ok(()),
    }
}

/// What ends a search may not itself be undecided.
fn check_result(rule: RuleId, action: PolicyAction) -> Result<(), PolicyError> {
    if action.undecided() { Err(PolicyError::Action { rule, action }) } else { Ok(()) }
}

/// Whether a range is of IPv4; `None` if it is of both families.
fn family(rule: RuleId, spec: AddrSpec) -> Result<Option<bool>, PolicyError> {
    let AddrSpec::Range(low, high) = spec else { return Ok(None) };
    let (first, last) = (low.to_canonical(), high.to_canonical());
    if first.is_ipv4() != last.is_ipv4() || first > last {
        return Err(PolicyError::AddressRange { rule, low, high });
    }
    Ok(Some(first.is_ipv4()))
}
