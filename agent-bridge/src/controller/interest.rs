//! What one node is told, and what it was told already: the difference is the next update. Nothing is queued for a
//! node: who is slow gets all that changed meanwhile in one update.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    net::IpAddr,
    sync::Arc,
};

use outrider_api::cluster::{
    Ends as WireEnds, Mode as WireMode, Ports as WirePorts, Rule as WireRule, SetChange, Update,
    Workload,
};
use outrider_learn::{Ends, Ports};
use outrider_model::Mode;

use super::{
    plan::{Pod, Rule, Set},
    published::Published,
    services::{Served, bytes},
    status::Thing,
};

/// Addresses of one node's questions that are remembered; the oldest makes room.
pub const MAX_ASKED: usize = 8_192;
/// Services that one node is told of. Of more, those that it asked for come first.
pub const MAX_SERVICES: usize = 4_096;

/// What one node knows.
#[derive(Debug, Default)]
pub struct Known {
    workloads: HashMap<Arc<str>, Arc<Pod>>,
    sets: HashMap<Arc<str>, Arc<Set>>,
    rules: HashMap<u32, Arc<Rule>>,
    modes: HashMap<Arc<str>, Mode>,
    services: BTreeMap<Arc<str>, Arc<Served>>,
    /// The node knows what Services are.
    pub(super) serves: bool,
    /// Services that found no room.
    pub(super) left_out: usize,
    internal: Vec<String>,
    /// Addresses that it asked for, in the order of the last question.
    asked: VecDeque<IpAddr>,
    asked_for: HashSet<IpAddr>,
    /// Revision of the last update that changed a rule or one of its sets here, by its number.
    since: HashMap<u32, u64>,
    /// Revision of the last update that changed a mode, by uid.
    mode_since: HashMap<Arc<str>, u64>,
    told: bool,
}

impl Known {
    /// Of a node that knows what Services are.
    #[must_use]
    pub fn serving() -> Self {
        Self { serves: true, ..Self::default() }
    }

    /// Notes a question; the answer is in the next update. What does not fit is forgotten: these.
    pub fn ask(&mut self, addresses: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
        let mut forgotten = Vec::new();
        for address in addresses {
            if !self.asked_for.insert(address) {
                continue;
            }
            self.asked.push_back(address);
            if self.asked.len() > MAX_ASKED
                && let Some(oldest) = self.asked.pop_front()
            {
                self.asked_for.remove(&oldest);
                forgotten.push(oldest);
            }
        }
        forgotten
    }

    /// Whether it asked for that address.
    pub fn asks(&self, address: &IpAddr) -> bool {
        self.asked_for.contains(address)
    }

    /// What it asked for.
    pub(super) fn asked(&self) -> impl Iterator<Item = &IpAddr> {
        self.asked.iter()
    }

    /// When a rule changed last at this node; `None` if it does not have it.
    pub fn rule_since(&self, id: u32) -> Option<u64> {
        self.since.get(&id).copied()
    }

    /// When a workload's mode changed last at this node.
    pub fn mode_since(&self, uid: &str) -> u64 {
        self.mode_since.get(uid).copied().unwrap_or_default()
    }

    /// What is to be said now, if anything: everything the first time, then what changed. `questions` are addresses
    /// of which it is to be said if they are nobody's.
    pub fn update(&mut self, node: &str, now: &Published, questions: &[IpAddr]) -> Option<Update> {
        let mut wanted = Wanted::new(node, now, &self.asked);
        let mut internal = now.internal.iter().collect::<Vec<_>>();
        if self.serves {
            wanted.serve(now, &self.asked);
            internal.extend(now.fronts.networks.all());
        }
        let mut update = Update { revision: now.revision, whole: !self.told, ..Update::default() };
        self.rules(&wanted, &mut update);
        self.sets(&wanted, &mut update);
        self.since(now.revision, &update);
        self.workloads(&wanted, &mut update);
        self.modes(&wanted, now.revision, &mut update);
        self.services(&wanted, &mut update);
        let internal: Vec<_> = internal.into_iter().map(ToString::to_string).collect();
        if internal != self.internal {
            self.internal.clone_from(&internal);
            update.internal = internal;
        }
        let is_served = |ip: IpAddr| self.serves && now.fronts.at(ip).next().is_some();
        let is_known = |ip: IpAddr| now.at(ip).is_some() || is_served(ip);
        let unknown = questions.iter().filter(|ip| !is_known(**ip));
        update.unknown = unknown.map(|ip| bytes(*ip)).collect();
        let bare = Update { revision: now.revision, ..Update::default() };
        let says = update.whole || update != bare;
        self.told = true;
        says.then_some(update)
    }

    /// Of what something else may be to be said now that the node was told this.
    pub(super) fn told(&self, node: &Arc<str>, update: &Update) -> Vec<Thing> {
        if update.whole {
            return vec![Thing::Node(Arc::clone(node))];
        }
        let fresh = self.since.iter().filter(|(_, at)| **at == update.revision);
        let rules = fresh.map(|(id, _)| id).chain(&update.rules_gone);
        let rules = rules.map(|id| Thing::Told(Arc::clone(node), *id));
        let modes = update
            .modes
            .iter()
            .map(|mode| Thing::Workload(mode.uid.as_str().into()));
        rules.chain(modes).collect()
    }

    fn rules(&mut self, wanted: &Wanted, update: &mut Update) {
        let gone = self
            .rules
            .extract_if(|id, _| !wanted.rules.contains_key(id));
        update.rules_gone.extend(gone.map(|(id, _)| id));
        for (id, rule) in &wanted.rules {
            if self.rules.get(id) != Some(rule) {
                update
                    .rules
                    .push(wire_rule(rule, wanted.learned.contains(id)));
                self.rules.insert(*id, Arc::clone(rule));
            }
        }
    }

    fn sets(&mut self, wanted: &Wanted, update: &mut Update) {
        let gone = self
            .sets
            .extract_if(|name, _| !wanted.sets.contains_key(name));
        update
            .sets_gone
            .extend(gone.map(|(name, _)| name.to_string()));
        for (name, set) in &wanted.sets {
            if let Some(change) = set_change(name, self.sets.get(name), set) {
                update.sets.push(change);
                self.sets.insert(Arc::clone(name), Arc::clone(set));
            }
        }
    }

    /// Notes for which rules the proxies have to catch up.
    fn since(&mut self, revision: u64, update: &Update) {
        for gone in &update.rules_gone {
            self.since.remove(gone);
        }
        for rule in &update.rules {
            self.since.insert(rule.id, revision);
        }
        let changed: HashSet<_> = update.sets.iter().map(|set| set.name.as_str()).collect();
        if changed.is_empty() {
            return;
        }
        for (id, rule) in &self.rules {
            if changed.contains(&*rule.from) || changed.contains(&*rule.to) {
                self.since.insert(*id, revision);
            }
        }
    }

    fn workloads(&mut self, wanted: &Wanted, update: &mut Update) {
        let gone = self
            .workloads
            .extract_if(|uid, _| !wanted.workloads.contains_key(uid));
        update
            .workloads_gone
            .extend(gone.map(|(uid, _)| uid.to_string()));
        for (uid, pod) in &wanted.workloads {
            if !self
                .workloads
                .get(uid)
                .is_some_and(|known| is_same(known, pod))
            {
                update.workloads.push(wire_workload(pod));
                self.workloads.insert(Arc::clone(uid), Arc::clone(pod));
            }
        }
    }

    fn modes(&mut self, wanted: &Wanted, revision: u64, update: &mut Update) {
        let mut say = |uid: &Arc<str>, mode: &str| {
            update
                .modes
                .push(WireMode { uid: uid.to_string(), mode: mode.to_owned() });
        };
        let gone = self
            .modes
            .extract_if(|uid, _| !wanted.modes.contains_key(uid));
        for (uid, _) in gone {
            say(&uid, "");
            self.mode_since.remove(&uid);
        }
        for (uid, mode) in &wanted.modes {
            if self.modes.get(uid) != Some(mode) {
                say(uid, mode.name());
                self.modes.insert(Arc::clone(uid), *mode);
                self.mode_since.insert(Arc::clone(uid), revision);
            }
        }
    }

    fn services(&mut self, wanted: &Wanted, update: &mut Update) {
        let gone = self
            .services
            .extract_if(.., |name, _| !wanted.services.contains_key(name));
        update
            .services_gone
            .extend(gone.map(|(name, _)| name.to_string()));
        for (name, service) in &wanted.services {
            let known = self.services.get(name);
            if !known.is_some_and(|known| Arc::ptr_eq(known, service) || known == service) {
                update.services.push(service.said.clone());
                self.services.insert(Arc::clone(name), Arc::clone(service));
            }
        }
        self.left_out = wanted.left_out;
    }
}

/// What a node has to know.
struct Wanted {
    rules: HashMap<u32, Arc<Rule>>,
    /// Those among them that were learned.
    learned: HashSet<u32>,
    sets: HashMap<Arc<str>, Arc<Set>>,
    workloads: HashMap<Arc<str>, Arc<Pod>>,
    modes: HashMap<Arc<str>, Mode>,
    services: BTreeMap<Arc<str>, Arc<Served>>,
    left_out: usize,
}

impl Wanted {
    fn new(node: &str, now: &Published, asked: &VecDeque<IpAddr>) -> Self {
        let mut wanted = Self {
            rules: HashMap::new(),
            learned: HashSet::new(),
            sets: HashMap::new(),
            workloads: HashMap::new(),
            modes: HashMap::new(),
            services: BTreeMap::new(),
            left_out: 0,
        };
        let mut groups: HashSet<&str> = HashSet::new();
        for rule in now.rules_of(node) {
            wanted.rules.insert(rule.id, Arc::clone(rule));
            if !now.plan.rules.contains_key(&rule.id) {
                wanted.learned.insert(rule.id);
            }
            for end in [&rule.from, &rule.to] {
                match now.plan.sets.get(end) {
                    Some(set) => {
                        wanted.sets.insert(Arc::clone(end), Arc::clone(set));
                    }
                    None => {
                        groups.insert(end);
                    }
                }
            }
        }
        let members = wanted.sets.values().flat_map(|set| &*set.members);
        let members = members.filter_map(|uid| now.pods.get(uid));
        let members = members.chain(groups.into_iter().flat_map(|group| now.in_group(group)));
        let members = members.chain(asked.iter().filter_map(|ip| now.at(*ip)));
        let members = members.map(|pod| (Arc::clone(&pod.uid), Arc::clone(pod)));
        wanted.workloads = members.collect();
        let own = now
            .on(node)
            .filter_map(|pod| Some((Arc::clone(&pod.uid), *now.plan.modes.get(&pod.uid)?)));
        wanted.modes = own.collect();
        wanted
    }

    /// Services that were asked for, that a pod is behind which the node knows of, and those with an address or a
    /// backend that somebody chose.
    fn serve(&mut self, now: &Published, asked: &VecDeque<IpAddr>) {
        let asked = asked.iter().rev().flat_map(|ip| now.fronts.at(*ip));
        let mut near: Vec<_> = self
            .workloads
            .keys()
            .flat_map(|uid| now.fronts.by(uid))
            .collect();
        near.sort_unstable();
        let names = asked.chain(near).chain(&now.fronts.chosen);
        let mut left_out = HashSet::new();
        for name in names {
            let Some(service) = now.fronts.served.get(name) else { continue };
            if self.services.contains_key(name) {
                continue;
            }
            if self.services.len() >= MAX_SERVICES {
                left_out.insert(name);
                continue;
            }
            self.services.insert(Arc::clone(name), Arc::clone(service));
        }
        self.left_out = left_out.len();
    }
}

/// Whether a node would be told the same of both.
fn is_same(known: &Arc<Pod>, pod: &Arc<Pod>) -> bool {
    Arc::ptr_eq(known, pod)
        || (known.addresses == pod.addresses
            && known.managed == pod.managed
            && known.service == pod.service
            && known.name == pod.name)
}

fn set_change(name: &str, known: Option<&Arc<Set>>, set: &Arc<Set>) -> Option<SetChange> {
    let Some(known) = known else { return Some(whole(name, set)) };
    if Arc::ptr_eq(known, set) || known == set {
        return None;
    }
    let alike = known.networks == set.networks
        && known.names == set.names
        && (known.external, known.nodes, known.any) == (set.external, set.nodes, set.any);
    if !alike {
        return Some(whole(name, set));
    }
    let text = |uid: &Arc<str>| uid.to_string();
    Some(SetChange {
        name: name.to_owned(),
        added: set.members.difference(&known.members).map(text).collect(),
        removed: known.members.difference(&set.members).map(text).collect(),
        ..SetChange::default()
    })
}

fn whole(name: &str, set: &Set) -> SetChange {
    SetChange {
        name: name.to_owned(),
        whole: true,
        added: set.members.iter().map(|uid| uid.to_string()).collect(),
        removed: Vec::new(),
        networks: set.networks.iter().map(ToString::to_string).collect(),
        names: set.names.iter().map(|name| name.to_string()).collect(),
        external: set.external,
        nodes: set.nodes,
        any: set.any,
    }
}

fn wire_workload(pod: &Pod) -> Workload {
    Workload {
        uid: pod.uid.to_string(),
        namespace: pod.namespace.to_string(),
        name: pod.name.to_string(),
        service: pod.service.to_string(),
        addresses: pod.addresses.iter().map(|ip| bytes(*ip)).collect(),
        managed: pod.managed,
    }
}

fn wire_rule(rule: &Rule, learned: bool) -> WireRule {
    WireRule {
        id: rule.id,
        order: rule.order,
        from: rule.from.to_string(),
        to: rule.to.to_string(),
        ports: rule.ports.iter().map(wire_ports).collect(),
        ends: match rule.ends {
            Ends::Both => WireEnds::Both,
            Ends::Server => WireEnds::Server,
            Ends::Client => WireEnds::Client,
        }
        .into(),
        apps: rule.apps.clone(),
        deny: rule.deny,
        learned,
        origin: rule.origin.to_string(),
        ..WireRule::default()
    }
}

fn wire_ports(ports: &Ports) -> WirePorts {
    WirePorts {
        proto: ports.proto.map_or(0, |proto| proto.0).into(),
        low: ports.low.into(),
        high: ports.high.into(),
    }
}

#[cfg(test)]
mod tests;
