//! Rules towards what is behind a Service, as rules for the Service's own address and port.
//!
//! A client's proxy sees that address, not the backend's. So for each address and port the rules are gone through in
//! order, with every backend: what one of them may not be sent is refused, what all of them may be sent is allowed,
//! with the rule's own number. Then the default follows, so that no rule about addresses decides about a flow that goes
//! elsewhere.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use outrider_model::{AppId, Direction, IpProto, PolicyAction, RuleId};
use outrider_policy::{AddrSpec, AppRule, Name, RuleSpec};

use super::{APPS_PER_RULE, checked, spec};
use crate::{
    Directory, Group, Ports,
    reach::Reach,
    services::{self, Door, Service},
};

/// Rules for Services' addresses that one policy has.
pub const MAX_DOORED: usize = 16_384;

/// How often a backend is held against a rule, for one policy. Services with few backends come first; the others stay
/// closed.
const MAX_HELD: usize = 4_000_000;

/// A rule as the way out knows it.
pub(super) struct Judge<'a> {
    /// The set or group that it is about.
    pub(super) to: &'a Group,
    pub(super) reach: Arc<Reach>,
    pub(super) ports: Vec<Ports>,
    /// None: any.
    pub(super) apps: Vec<AppId>,
    pub(super) action: PolicyAction,
    pub(super) rule: RuleId,
}

/// Rules by exact port, and those of several.
#[derive(Default)]
pub(super) struct Judges<'a> {
    all: Vec<Judge<'a>>,
    of_port: HashMap<(IpProto, u16), Vec<usize>>,
    wide: Vec<usize>,
}

impl<'a> Judges<'a> {
    /// The next in order.
    pub(super) fn add(&mut self, judge: Judge<'a>) {
        let at = self.all.len();
        match judge.ports[..] {
            [Ports { proto: Some(proto), low, high }] if low == high => {
                self.of_port.entry((proto, low)).or_default().push(at);
            }
            _ => self.wide.push(at),
        }
        self.all.push(judge);
    }

    /// Those that may say something of one of these ports, in order.
    fn about(&self, ports: &BTreeSet<(IpProto, u16)>) -> impl Iterator<Item = &Judge<'a>> {
        // None: every port.
        let all = ports.is_empty().then_some(&self.of_port);
        let all = all.into_iter().flat_map(HashMap::values);
        let exact = ports.iter().filter_map(|port| self.of_port.get(port));
        let exact = exact.chain(all).flatten();
        let mut found: Vec<usize> = exact.chain(&self.wide).copied().collect();
        found.sort_unstable();
        found.into_iter().filter_map(|at| self.all.get(at))
    }
}

/// What is behind an address and port, as far as rules are concerned.
struct Behind<'a> {
    group: Option<&'a Group>,
    address: IpAddr,
    port: (IpProto, u16),
    /// Every application may be sent to it.
    all: bool,
    apps: BTreeSet<AppId>,
}

impl Behind<'_> {
    fn may(&self, app: AppId) -> bool {
        self.all || self.apps.contains(&app)
    }
}

/// An address with a port, or with all.
type Place = (IpAddr, Option<(IpProto, u16)>);

/// What Services' addresses make.
#[derive(Default)]
pub(super) struct Doors {
    pub(super) specs: Vec<RuleSpec>,
    pub(super) left_out: usize,
    held: usize,
}

impl Doors {
    /// Compiles every door; `default` is what no rule means.
    pub(super) fn compile(
        directory: &Directory,
        judges: &Judges<'_>,
        default: PolicyAction,
    ) -> Self {
        let mut at: BTreeMap<Place, Vec<Door<'_>>> = BTreeMap::new();
        for service in directory.services.iter() {
            for door in services::doors(service) {
                at.entry((door.address, door.port)).or_default().push(door);
            }
        }
        let mut all: Vec<_> = at.into_values().collect();
        all.sort_by_key(|doors| doors.iter().map(size).sum::<usize>());
        let mut made = Self::default();
        for (at, doors) in all.iter().enumerate() {
            let left = all.len() - at;
            let room = MAX_DOORED.saturating_sub(made.specs.len() + left);
            let Some(mut walk) = Walk::new(directory, doors, default) else { continue };
            walk.go(judges, &mut made.held);
            walk.finish(room, &mut made);
        }
        made
    }
}

fn size(door: &Door<'_>) -> usize {
    door.backends().map(|(one, _)| one.members.len()).sum()
}

/// The rules gone through for one address and port.
struct Walk<'a> {
    directory: &'a Directory,
    doors: &'a [Door<'a>],
    first: &'a Door<'a>,
    behind: Vec<Behind<'a>>,
    default: PolicyAction,
    /// What is decided, in order: for which application (none: any), how, by which rule.
    said: Vec<(Option<AppId>, PolicyAction, RuleId)>,
    /// Of which applications something is said.
    named: BTreeSet<AppId>,
    /// A rule about addresses may mean this one.
    is_meant: bool,
    /// Not everything was looked at.
    is_cut: bool,
}

impl<'a> Walk<'a> {
    fn new(directory: &'a Directory, doors: &'a [Door<'a>], default: PolicyAction) -> Option<Self> {
        let first = doors.first()?;
        let mut behind = Vec::new();
        for door in doors {
            let Some((proto, _)) = door.port else { continue };
            for (backends, target) in door.backends() {
                behind.extend(door.members(backends).map(|(address, _)| Behind {
                    group: backends.group.as_ref(),
                    address: *address,
                    port: (proto, target),
                    all: false,
                    apps: BTreeSet::new(),
                }));
            }
        }
        // Who chose an address had it from nobody: it must be allowed itself, too.
        if let Some(port) = first.port
            && !behind.is_empty()
            && doors.iter().all(|door| door.is_borrowed)
        {
            let (address, apps) = (first.address, BTreeSet::new());
            behind.push(Behind { group: None, address, port, all: false, apps });
        }
        let (said, named) = (Vec::new(), BTreeSet::new());
        let (is_meant, is_cut) = (false, false);
        Some(Self { directory, doors, first, behind, default, said, named, is_meant, is_cut })
    }

    fn go(&mut self, judges: &Judges<'_>, held: &mut usize) {
        let mut ports: BTreeSet<_> = self.behind.iter().map(|one| one.port).collect();
        ports.extend(self.first.port);
        for judge in judges.about(&ports) {
            *held += self.behind.len() + 1;
            if *held > MAX_HELD {
                self.is_cut = true;
                return;
            }
            if self.ask(judge) {
                return;
            }
        }
    }

    /// Takes in what a rule says; says whether nothing more is to be said.
    fn ask(&mut self, judge: &Judge<'_>) -> bool {
        let is_meant = self.means_the_address(judge);
        self.is_meant |= is_meant || !judge.reach.names.is_empty();
        let whole = self
            .doors
            .iter()
            .all(|door| names(&judge.reach.names, door.service));
        let directory = self.directory;
        let means = |one: &Behind<'_>| {
            whole && !judge.reach.names.is_empty()
                || one.group == Some(judge.to) && covers(&judge.ports, one.port)
                || reaches(directory, judge, one.address, Some(one.port))
        };
        if matches!(judge.action, PolicyAction::Deny | PolicyAction::Violate) {
            let met = self.behind.iter().filter(|one| means(one));
            let open: Vec<_> = met.filter(|one| !one.all).collect();
            if judge.apps.is_empty() {
                let denies = is_meant || !open.is_empty();
                if denies {
                    self.said.push((None, judge.action, judge.rule));
                }
                return denies;
            }
            let denied = judge.apps.iter().copied();
            let denied: Vec<_> = denied
                .filter(|app| is_meant || open.iter().any(|one| !one.may(*app)))
                .collect();
            denied.into_iter().for_each(|app| self.say(app, judge));
            return false;
        }
        let mut is_news = false;
        for one in self.behind.iter_mut().filter(|one| means(one)) {
            is_news = true;
            one.all |= judge.apps.is_empty();
            one.apps.extend(judge.apps.iter().copied());
        }
        is_news && self.allow(judge)
    }

    /// Allows what every backend may be sent by now.
    fn allow(&mut self, judge: &Judge<'_>) -> bool {
        if self.behind.iter().all(|one| one.all) {
            self.said.push((None, judge.action, judge.rule));
            return true;
        }
        let apps: BTreeSet<_> = match judge.apps.is_empty() {
            true => self
                .behind
                .iter()
                .flat_map(|one| one.apps.iter().copied())
                .collect(),
            false => judge.apps.iter().copied().collect(),
        };
        for app in apps {
            if self.behind.iter().all(|one| one.may(app)) {
                self.say(app, judge);
            }
        }
        false
    }

    fn say(&mut self, app: AppId, judge: &Judge<'_>) {
        if self.named.insert(app) {
            self.said.push((Some(app), judge.action, judge.rule));
        }
    }

    /// Whether a rule means the Service's address, whatever is behind it.
    fn means_the_address(&self, judge: &Judge<'_>) -> bool {
        reaches(self.directory, judge, self.first.address, self.first.port)
    }

    /// Makes the rules, `room` of them besides the default's.
    fn finish(self, room: usize, made: &mut Doors) {
        if self.said.is_empty() && !self.is_meant && !self.is_cut {
            // The default holds for it anyway.
            return;
        }
        let (proto, (low, high)) = match self.first.port {
            Some((proto, port)) => (Some(proto), (port, port)),
            None => (None, (0, u16::MAX)),
        };
        let ports = Ports { proto, low, high };
        let address = self.first.address;
        let one = |id| spec((id, Direction::Outbound), AddrSpec::one(address), ports);
        let mut fresh = Vec::new();
        // Neighbours that each name an application are one rule.
        for lot in self.said.chunk_by(|a, b| a.0.is_some() && b.0.is_some()) {
            let app = |(app, action, rule): &(Option<AppId>, PolicyAction, RuleId)| {
                Some(AppRule { app: (*app)?, action: *action, rule: *rule })
            };
            let apps: Vec<_> = lot.iter().filter_map(app).collect();
            for chunk in apps.chunks(APPS_PER_RULE) {
                let id = chunk.first().map_or(RuleId::IMPLICIT, |app| app.rule);
                fresh.push(checked(one(id), chunk.to_vec()));
            }
            if let [(None, action, rule)] = lot {
                fresh.push(RuleSpec { action: *action, ..one(*rule) });
            }
        }
        let is_decided = self.said.last().is_some_and(|(app, ..)| app.is_none());
        if fresh.len() > room || self.is_cut {
            made.left_out += 1;
            fresh.clear();
        }
        if fresh.is_empty() || !is_decided {
            fresh.push(RuleSpec { action: self.default, ..one(RuleId::IMPLICIT) });
        }
        made.specs.append(&mut fresh);
    }
}

/// Whether a rule means an address and port; without a port: any of them.
fn reaches(
    directory: &Directory,
    judge: &Judge<'_>,
    address: IpAddr,
    port: Option<(IpProto, u16)>,
) -> bool {
    let has_port = port.is_none_or(|port| covers(&judge.ports, port));
    has_port && judge.reach.has(address, !directory.is_internal(address))
}

fn covers(all: &[Ports], (proto, port): (IpProto, u16)) -> bool {
    all.iter().any(|ports| {
        ports.proto.is_none_or(|own| own == proto) && ports.low <= port && port <= ports.high
    })
}

/// Whether a rule names the Service itself, as the cluster's DNS has it, or all of its namespace's.
fn names(names: &[Name], service: &Service) -> bool {
    let Some((namespace, name)) = service.name.split_once('/') else { return false };
    let full = format!("{name}.{namespace}.svc");
    let all = format!("*.{namespace}.svc");
    let is = |text: &str, begin: &str| {
        text.strip_prefix(begin)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    names
        .iter()
        .any(|one| is(one.as_str(), &full) || is(one.as_str(), &all))
}

#[cfg(test)]
mod tests;
