//! From rules, sets, groups and modes to what each group's workloads enforce.

mod doors;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use outrider_model::{AppId, Direction, IpProto, Mode, PolicyAction, RuleId};
use outrider_policy::{AddrSpec, AppRule, MAX_NAMES, Name, PolicySpec, RuleSpec};

use crate::{
    Directory, Group, Policy, PolicyRule, Ports, Workload,
    reach::{Peer, Reach, Reaches, reach},
    rules::Rules,
};
pub use doors::MAX_DOORED;
use doors::{Doors, Judge, Judges};

/// Applications in one compiled rule, so that it fits a datagram of the ctrl wire; more make more
/// rules.
const APPS_PER_RULE: usize = 64;

/// Rules that the compiled policies of all groups have. What is free is shared: one may take half of
/// it, so the more there are, the less any gets.
pub const MAX_ALL_COMPILED: usize = 262_144;

/// Rules that one compiled policy has at most, which is what one gets that is alone. One that means all of the outside is
/// in the lists of both families, and a proxy takes 250 000.
pub const MAX_COMPILED: usize = MAX_ALL_COMPILED / SHARE;

/// Rules that what people said makes in one policy in each direction, beside those that were learned; one for both
/// families counts twice.
pub const MAX_SAID: usize = 49_152;

/// Rules of people that are named because not all that they make fits a policy.
pub const MAX_CUT: usize = 64;

/// Rules that a compiled policy may have however many the others have.
pub const MIN_COMPILED: usize = 128;

/// A policy may take this part of what is free.
const SHARE: usize = 2;

/// What the workloads of a group enforce.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CompiledPolicy {
    /// The group's mode.
    pub mode: Mode,
    /// Its rules, both directions.
    pub spec: PolicySpec,
    /// So many of them, the first, are Services' and what people said.
    pub said: usize,
    /// Rules that are not in it because it has as many as it may, or [`outrider_policy::MAX_NAMES`] names.
    pub left_out: usize,
    /// Rules that people said of which something is left out, the first [`MAX_CUT`] by number.
    pub cut: Vec<RuleId>,
}

impl CompiledPolicy {
    /// How many of its rules were learned.
    pub(crate) fn learned(&self) -> usize {
        self.spec.rules.len().saturating_sub(self.said)
    }
}

/// How many rules a policy may have, beside so many of all others.
pub(crate) fn allowance(others: usize) -> usize {
    (MAX_ALL_COMPILED.saturating_sub(others) / SHARE).max(MIN_COMPILED)
}

/// What policy is compiled from.
pub(crate) struct Compiler<'a> {
    pub(crate) directory: &'a Directory,
    pub(crate) rules: &'a Rules,
    pub(crate) policy: &'a Policy,
    /// Gathered as it is needed.
    pub(crate) reaches: &'a mut Reaches,
}

impl<'a> Compiler<'a> {
    /// What a workload enforces in that mode, and every one of its group that is in the same sets. What was learned
    /// makes `most` rules: what comes after them is left out, so what is in force stays so.
    pub(crate) fn policy(
        &mut self,
        workload: &Workload,
        mode: Mode,
        most: usize,
    ) -> CompiledPolicy {
        let group = workload.group();
        let action = match mode {
            Mode::Discover => PolicyAction::Learn,
            Mode::Monitor | Mode::Protect => PolicyAction::Allow,
        };
        let mut places = Places { most: most.min(MAX_COMPILED), ..Places::default() };
        let mut said = Said { mode, ..Said::default() };
        for direction in [Direction::Inbound, Direction::Outbound] {
            said.lists = 0;
            for rule in self.policy.rules_for(&workload.uid, &group, direction) {
                let reach = self.reach(peer(rule, direction));
                if !rule.learned {
                    said.add(rule, direction, &reach);
                    continue;
                }
                for (ports, app) in each(rule) {
                    places.add(direction, &reach, (ports, AppRule { app, action, rule: rule.id }));
                }
            }
        }
        self.learned(&group, action, &mut places);
        let judges = self.judges(workload, action, said.deny());
        let doors = Doors::compile(self.directory, &judges, mode.default_action());
        let left_out = doors.left_out + said.left_out + places.left_out;
        let (cut, mut rules) = (said.cut.into_iter().collect(), doors.specs);
        rules.append(&mut said.specs);
        let said_rules = rules.len();
        rules.append(&mut places.rules());
        let spec = PolicySpec {
            default_action: mode.default_action(),
            inbound: true,
            outbound: true,
            rules,
            grace: false,
        };
        CompiledPolicy { mode, spec, said: said_rules, left_out, cut }
    }

    /// What this node learned, in order of number; what the cluster learned too is there already.
    fn learned(&mut self, group: &Group, action: PolicyAction, places: &mut Places) {
        for rule in self.rules.of(group) {
            let (key, app) = (&rule.key, AppRule { app: rule.key.app, action, rule: rule.id });
            let ports = Ports { proto: Some(key.proto), low: key.port, high: key.port };
            if key.to == *group {
                let from = self.reach(&key.from);
                places.add(Direction::Inbound, &from, (ports, app));
                if rule.evidence.by_client {
                    let unseen = AppRule { app: AppId::UNIDENTIFIED, ..app };
                    places.add(Direction::Inbound, &from, (ports, unseen));
                }
            }
            if key.from == *group {
                let to = self.reach(&key.to);
                places.add(Direction::Outbound, &to, (ports, app));
            }
        }
    }

    /// The rules that hold for what a workload opens, in order; none if no Service is known.
    fn judges(
        &mut self,
        workload: &Workload,
        allow: PolicyAction,
        deny: PolicyAction,
    ) -> Judges<'a> {
        let mut judges = Judges::default();
        if self.directory.services.is_empty() {
            return judges;
        }
        let group = workload.group();
        let (policy, rules) = (self.policy, self.rules);
        for rule in policy.rules_for(&workload.uid, &group, Direction::Outbound) {
            let action = match (rule.learned, rule.deny) {
                (true, _) => allow,
                (false, true) => deny,
                (false, false) => PolicyAction::Allow,
            };
            let reach = self.reach(&rule.to);
            let (ports, apps) = (ports(rule).to_vec(), rule.apps.clone());
            judges.add(Judge { to: &rule.to, reach, ports, apps, action, rule: rule.id });
        }
        for rule in rules.of(&group).filter(|rule| rule.key.from == group) {
            let key = &rule.key;
            let ports = vec![Ports { proto: Some(key.proto), low: key.port, high: key.port }];
            let reach = self.reach(&key.to);
            let apps = vec![key.app];
            judges.add(Judge { to: &key.to, reach, ports, apps, action: allow, rule: rule.id });
        }
        judges
    }

    fn reach(&mut self, group: &Group) -> Arc<Reach> {
        if let Some(known) = self.reaches.get(group) {
            return Arc::clone(known);
        }
        let fresh = Arc::new(reach(self.directory, self.policy, group));
        self.reaches.insert(group.clone(), Arc::clone(&fresh));
        fresh
    }
}

/// The other end of a rule.
fn peer(rule: &PolicyRule, direction: Direction) -> &Group {
    match direction {
        Direction::Inbound => &rule.from,
        Direction::Outbound => &rule.to,
    }
}

/// Every port and application of a rule.
fn each(rule: &PolicyRule) -> impl Iterator<Item = (Ports, AppId)> {
    ports(rule).iter().flat_map(|ports| {
        let any = rule.apps.is_empty().then_some(AppId::ANY);
        rule.apps
            .iter()
            .copied()
            .chain(any)
            .map(|app| (*ports, app))
    })
}

fn ports(rule: &PolicyRule) -> &[Ports] {
    const ANY: [Ports; 1] = [Ports::ANY];
    if rule.ports.is_empty() { &ANY } else { &rule.ports }
}

/// One place for each direction, peer and port, with the applications learned there: what is not among
/// them meets the default, an unidentified application too; except at a server whose clients alone
/// say what it is.
#[derive(Default)]
struct Places {
    most: usize,
    apps: BTreeMap<Place, Vec<AppRule>>,
    /// Rules that this makes.
    count: usize,
    left_out: usize,
}

/// Whether it is the way out, to or from whom, and the ports.
type Place = (bool, Peer, Option<IpProto>, (u16, u16));

impl Places {
    fn add(&mut self, direction: Direction, reach: &Reach, (ports, app): (Ports, AppRule)) {
        let is_out = direction == Direction::Outbound;
        for peer in &reach.peers {
            let place = (is_out, *peer, ports.proto, (ports.low, ports.high));
            let known = self.apps.get_mut(&place);
            if known
                .as_ref()
                .is_some_and(|known| known.iter().any(|one| one.app == app.app))
            {
                continue;
            }
            let begins = known
                .as_ref()
                .is_none_or(|known| known.len() % APPS_PER_RULE == 0);
            if begins && self.count >= self.most {
                self.left_out += 1;
                continue;
            }
            self.count += usize::from(begins);
            match known {
                Some(known) => known.push(app),
                None => drop(self.apps.insert(place, vec![app])),
            }
        }
    }

    fn rules(self) -> Vec<RuleSpec> {
        let mut specs = Vec::with_capacity(self.count);
        for ((is_out, peer, proto, (low, high)), apps) in self.apps {
            let direction = if is_out { Direction::Outbound } else { Direction::Inbound };
            let ports = Ports { proto, low, high };
            let of = |apps: &[AppRule]| {
                let id = apps.first().map_or(RuleId::IMPLICIT, |app| app.rule);
                checked(spec((id, direction), peer.spec(), ports), apps.to_vec())
            };
            specs.extend(apps.chunks(APPS_PER_RULE).map(of));
        }
        specs
    }
}

/// What people said, compiled in order.
#[derive(Default)]
struct Said {
    mode: Mode,
    specs: Vec<RuleSpec>,
    /// What those of this direction count as in the lists of both families.
    lists: usize,
    names: BTreeSet<Name>,
    left_out: usize,
    cut: BTreeSet<RuleId>,
}

impl Said {
    /// What a rule that refuses comes to.
    fn deny(&self) -> PolicyAction {
        match self.mode {
            Mode::Protect => PolicyAction::Deny,
            Mode::Discover | Mode::Monitor => PolicyAction::Violate,
        }
    }

    fn add(&mut self, rule: &PolicyRule, direction: Direction, reach: &Reach) {
        let action = if rule.deny { self.deny() } else { PolicyAction::Allow };
        let apps = rule
            .apps
            .iter()
            .map(|app| AppRule { app: *app, action, rule: rule.id });
        let apps: Vec<_> = apps.collect();
        for ports in ports(rule) {
            for peer in &reach.peers {
                let fresh = spec((rule.id, direction), peer.spec(), *ports);
                self.push(RuleSpec { action, ..fresh }, &apps, peer.lists());
            }
            for name in &reach.names {
                if self.names.len() >= MAX_NAMES && !self.names.contains(name) {
                    self.leave_out(rule.id);
                    continue;
                }
                self.names.insert(name.clone());
                let fresh = spec((rule.id, direction), AddrSpec::Any, *ports);
                self.push(RuleSpec { action, fqdn: Some(name.clone()), ..fresh }, &apps, 2);
            }
        }
    }

    fn push(&mut self, spec: RuleSpec, apps: &[AppRule], lists: usize) {
        if self.lists + lists > MAX_SAID {
            self.leave_out(spec.id);
            return;
        }
        self.lists += lists;
        self.specs
            .push(if apps.is_empty() { spec } else { checked(spec, apps.to_vec()) });
    }

    fn leave_out(&mut self, rule: RuleId) {
        self.left_out += 1;
        if self.cut.len() < MAX_CUT {
            self.cut.insert(rule);
        }
    }
}

/// A rule for a peer and ports; what it says is still to be filled in.
fn spec((id, direction): (RuleId, Direction), peer: AddrSpec, ports: Ports) -> RuleSpec {
    let (client, server) = match direction {
        Direction::Inbound => (peer, AddrSpec::Any),
        Direction::Outbound => (AddrSpec::Any, peer),
    };
    RuleSpec {
        id,
        client,
        server,
        ports: (ports.low, ports.high),
        proto: ports.proto,
        action: PolicyAction::Allow,
        direction,
        fqdn: None,
        vhost: false,
        apps: Vec::new(),
    }
}

/// The same, for those applications only.
fn checked(spec: RuleSpec, apps: Vec<AppRule>) -> RuleSpec {
    RuleSpec { action: PolicyAction::CheckApp, apps, ..spec }
}
