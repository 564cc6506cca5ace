//! What is in force in the cluster, with what links need to find their part of it fast. One change costs what it
//! touches, and says which nodes that may concern: the others are not even asked.

mod fronts;
pub(in crate::controller) mod index;
mod reach;

use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    hash::Hash,
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use outrider_learn::Ends;

use self::{
    fronts::Fronts,
    index::Index,
    reach::{Addresses, Reach, Reaches},
};
use super::{
    learned::address,
    plan::{Changes, Plan, Pod, Rule, Service, Set, Slice},
};

/// What is in force in the cluster, at one moment.
#[derive(Debug, Default, PartialEq)]
pub struct Published {
    /// Grows with each change.
    pub revision: u64,
    /// The policy that people wrote.
    pub plan: Plan,
    /// What was learned, between groups of services; sets of these names are not in the plan.
    pub learned: BTreeMap<u32, Arc<Rule>>,
    /// Networks of pods.
    pub internal: Vec<IpNet>,
    /// Pods by uid.
    pub pods: HashMap<Arc<str>, Arc<Pod>>,
    /// Services.
    pub(super) fronts: Fronts,
    /// The last of those that say they have an address has it.
    by_address: Addresses,
    by_group: HashMap<String, HashMap<Arc<str>, Arc<Pod>>>,
    by_node: HashMap<Arc<str>, HashMap<Arc<str>, Arc<Pod>>>,
    /// Nodes of what is in a set.
    reaches: Reaches,
    /// Sets by the uids of their members.
    sets_of: Index<Arc<str>>,
    /// Rules by the sets where they hold, and by both sets.
    near: HashMap<Arc<str>, BTreeSet<u32>>,
    naming: HashMap<Arc<str>, BTreeSet<u32>>,
}

/// Something as it was and as it is.
pub type Turn<T> = (Option<Arc<T>>, Option<Arc<T>>);

/// What is other than before.
#[derive(Debug, Default)]
pub struct Change {
    /// Pods by uid, as they are now.
    pub pods: HashMap<Arc<str>, Option<Arc<Pod>>>,
    /// Of the plan that goes with it.
    pub plan: Changes,
    /// Learned rules by id, as they are now.
    pub learned: BTreeMap<u32, Option<Arc<Rule>>>,
    /// Networks of pods, if they may be others.
    pub internal: Option<Vec<IpNet>>,
    /// Services, as they were and as they are now.
    pub services: Vec<Turn<Service>>,
    /// EndpointSlices, the same.
    pub slices: Vec<Turn<Slice>>,
}

/// Whom a change may concern.
#[derive(Debug, Default)]
pub struct Touched {
    /// Every node.
    pub all: bool,
    /// These at least.
    pub nodes: HashSet<Arc<str>>,
    /// And who asked for one of these.
    pub addresses: HashSet<IpAddr>,
    /// Nodes and groups that pods left.
    pub left: Vec<Arc<Pod>>,
}

impl Published {
    /// Takes in a change; `plan` is what the resolver has now.
    pub fn take(&mut self, change: Change, plan: &Plan) -> Touched {
        let mut touched = Touched::default();
        self.revision += 1;
        let rules: BTreeSet<u32> = change
            .plan
            .rules
            .iter()
            .chain(change.learned.keys())
            .copied()
            .collect();
        let groups = self.groups(&change);
        let named = change.plan.sets.iter().chain(&groups);
        let named: Vec<_> = named.map(Arc::clone).collect();
        self.touch(&rules, &named, &mut touched);
        for (before, now) in &change.services {
            touched.all |= self.fronts.service(before.as_deref(), now.as_ref());
        }
        for (before, now) in &change.slices {
            self.fronts.slice(before.as_deref(), now.as_ref());
        }
        for (uid, pod) in change.pods {
            self.pod(&uid, pod, &mut touched);
        }
        for name in change.plan.sets {
            self.set(&name, plan.sets.get(&name));
        }
        for id in change.plan.rules {
            self.rule(id, plan.rules.get(&id).map(Arc::clone), false);
        }
        for (id, rule) in change.learned {
            self.rule(id, rule, true);
        }
        self.touch(&rules, &named, &mut touched);
        self.serve(&mut touched);
        self.copy(change.plan.modes, change.plan.verdicts, plan, &mut touched);
        if let Some(internal) = change.internal.filter(|now| *now != self.internal) {
            self.internal = internal;
            touched.all = true;
        }
        touched
    }

    /// Goes through the Services again of which it is due. Of one that is other than before those nodes are told that
    /// know a pod behind it, those that asked for an address of it, or all.
    fn serve(&mut self, touched: &mut Touched) {
        let mut fronts = std::mem::take(&mut self.fronts);
        let other = fronts.renew(|address| self.at(address));
        self.fronts = fronts;
        let mut named: BTreeSet<Arc<str>> = BTreeSet::new();
        for served in other {
            touched.all |= served.chosen;
            let own = served.own().filter_map(|own| address(own));
            touched.addresses.extend(own);
            // Whoever asked for any address of a pod knows the pod.
            let behind = served.uids().filter_map(|uid| self.pods.get(uid));
            touched
                .addresses
                .extend(behind.flat_map(|pod| &pod.addresses));
            named.extend(
                served
                    .said
                    .backends
                    .iter()
                    .map(|alike| alike.group.as_str().into()),
            );
            let sets = served.uids().flat_map(|uid| index::of(&self.sets_of, uid));
            named.extend(sets.cloned());
        }
        let named: Vec<_> = named.into_iter().collect();
        self.touch(&BTreeSet::new(), &named, touched);
    }

    /// What a set is now, if there is any of that name.
    fn set(&mut self, name: &Arc<str>, set: Option<&Arc<Set>>) {
        let before = match set {
            Some(set) => self.plan.sets.insert(Arc::clone(name), Arc::clone(set)),
            None => self.plan.sets.remove(name),
        };
        match set {
            Some(set) => self.reaches.define(name, set, &self.pods, &self.by_address),
            None => self.reaches.forget(name),
        }
        let (none, before) = (BTreeSet::new(), before.map(|set| Arc::clone(&set.members)));
        let before = before.as_deref().unwrap_or(&none);
        let now = set.map_or(&none, |set| &set.members);
        for uid in before.difference(now) {
            index::leave(&mut self.sets_of, uid, name);
        }
        for uid in now.difference(before) {
            index::enter(&mut self.sets_of, Arc::clone(uid), name);
        }
    }

    /// Groups that pods leave or come to.
    fn groups(&self, change: &Change) -> BTreeSet<Arc<str>> {
        let before = change.pods.keys().filter_map(|uid| self.pods.get(uid));
        let now = change.pods.values().flatten();
        before.chain(now).map(|pod| pod.group().into()).collect()
    }

    /// Notes the nodes where these rules hold, and those that name one of these sets.
    fn touch(&self, rules: &BTreeSet<u32>, named: &[Arc<str>], touched: &mut Touched) {
        let naming = named.iter().filter_map(|name| self.naming.get(name));
        let ids: BTreeSet<_> = rules.iter().chain(naming.flatten()).copied().collect();
        let ends: BTreeSet<_> = ids
            .iter()
            .filter_map(|id| self.any_rule(*id))
            .flat_map(|rule| near(rule))
            .collect();
        for name in ends {
            match self.reaches.of(name) {
                Some(Reach::All) => touched.all = true,
                Some(Reach::Some(nodes)) => touched.nodes.extend(nodes.nodes().cloned()),
                None => {
                    let nodes = self.in_group(name).map(|pod| Arc::clone(&pod.node));
                    touched.nodes.extend(nodes);
                }
            }
        }
    }

    fn pod(&mut self, uid: &Arc<str>, pod: Option<Arc<Pod>>, touched: &mut Touched) {
        let before = match &pod {
            Some(pod) => self.pods.insert(Arc::clone(uid), Arc::clone(pod)),
            None => self.pods.remove(uid),
        };
        if let Some(before) = before {
            self.fronts.leave(&before);
            for ip in &before.addresses {
                if self.by_address.remove(&(*ip, Arc::clone(uid))).is_some() {
                    self.reaches.leave(*ip, &before.node);
                }
            }
            drop_out(&mut self.by_group, before.group().as_str(), uid);
            drop_out(&mut self.by_node, &*before.node, uid);
            touched.of(&before);
            if pod.is_none() {
                touched.left.push(before);
            }
        }
        let Some(pod) = pod else { return };
        self.fronts.come(&pod);
        for ip in &pod.addresses {
            let place = (*ip, Arc::clone(uid));
            if self.by_address.insert(place, Arc::clone(&pod)).is_none() {
                self.reaches.enter(*ip, &pod.node);
            }
        }
        let alike = self.by_group.entry(pod.group()).or_default();
        alike.insert(Arc::clone(uid), Arc::clone(&pod));
        if !pod.node.is_empty() {
            let beside = self.by_node.entry(Arc::clone(&pod.node)).or_default();
            beside.insert(Arc::clone(uid), Arc::clone(&pod));
        }
        touched.of(&pod);
    }

    fn rule(&mut self, id: u32, rule: Option<Arc<Rule>>, is_learned: bool) {
        let all = if is_learned { &mut self.learned } else { &mut self.plan.rules };
        let before = match &rule {
            Some(rule) => all.insert(id, Arc::clone(rule)),
            None => all.remove(&id),
        };
        if let Some(before) = before {
            near(&before).for_each(|set| drop_id(&mut self.near, set, id));
            for set in [&before.from, &before.to] {
                drop_id(&mut self.naming, set, id);
            }
        }
        let Some(rule) = rule else { return };
        for set in near(&rule) {
            self.near.entry(Arc::clone(set)).or_default().insert(id);
        }
        for set in [&rule.from, &rule.to] {
            self.naming.entry(Arc::clone(set)).or_default().insert(id);
        }
    }

    /// Modes and verdicts, as the resolver has them now.
    fn copy(
        &mut self,
        modes: BTreeSet<Arc<str>>,
        verdicts: BTreeSet<super::plan::ObjectKey>,
        plan: &Plan,
        touched: &mut Touched,
    ) {
        for uid in modes {
            if let Some(pod) = self.pods.get(&uid) {
                touched.nodes.insert(Arc::clone(&pod.node));
            }
            match plan.modes.get(&uid) {
                Some(mode) => drop(self.plan.modes.insert(uid, *mode)),
                None => drop(self.plan.modes.remove(&uid)),
            }
        }
        for key in verdicts {
            match plan.verdicts.get(&key) {
                Some(verdict) => drop(self.plan.verdicts.insert(key, Arc::clone(verdict))),
                None => drop(self.plan.verdicts.remove(&key)),
            }
        }
    }

    fn any_rule(&self, id: u32) -> Option<&Arc<Rule>> {
        self.plan.rules.get(&id).or_else(|| self.learned.get(&id))
    }

    /// Rules that concern a node's pods: one of them is at an end where the rule holds.
    pub fn rules_of(&self, node: &str) -> impl Iterator<Item = &Arc<Rule>> {
        let groups: BTreeSet<_> = self.on(node).map(|pod| pod.group()).collect();
        let groups = groups
            .iter()
            .filter(|group| self.reaches.of(group).is_none())
            .filter_map(|group| self.near.get(&**group));
        let sets = self.reaches.at(node).filter_map(|set| self.near.get(set));
        let ids: BTreeSet<u32> = groups.chain(sets).flatten().copied().collect();
        ids.into_iter().filter_map(|id| self.any_rule(id))
    }

    /// Whose address that is.
    #[must_use]
    pub fn at(&self, address: IpAddr) -> Option<&Arc<Pod>> {
        let address = address.to_canonical();
        let owners = self.by_address.range((address, Arc::default())..);
        let owners = owners.take_while(|((ip, _), _)| *ip == address);
        owners.last().map(|(_, pod)| pod)
    }

    /// Pods of a node.
    pub fn on(&self, node: &str) -> impl Iterator<Item = &Arc<Pod>> {
        self.by_node.get(node).into_iter().flat_map(HashMap::values)
    }

    /// Pods of a learned group.
    pub fn in_group(&self, group: &str) -> impl Iterator<Item = &Arc<Pod>> {
        self.by_group
            .get(group)
            .into_iter()
            .flat_map(HashMap::values)
    }

    /// Whether a pod of that group runs on the node.
    #[must_use]
    pub fn has_member(&self, node: &str, group: &str) -> bool {
        self.in_group(group).any(|pod| &*pod.node == node)
    }
}

impl Touched {
    fn of(&mut self, pod: &Pod) {
        self.nodes.insert(Arc::clone(&pod.node));
        self.addresses.extend(&pod.addresses);
    }
}

/// Sets at whose members a rule holds.
fn near(rule: &Rule) -> impl Iterator<Item = &Arc<str>> {
    let (from, to) = match rule.ends {
        Ends::Both => (true, true),
        Ends::Server => (false, true),
        Ends::Client => (true, false),
    };
    let both = [from.then_some(&rule.from), to.then_some(&rule.to)];
    both.into_iter().flatten()
}

fn drop_id(all: &mut HashMap<Arc<str>, BTreeSet<u32>>, set: &Arc<str>, id: u32) {
    if let Some(ids) = all.get_mut(set) {
        ids.remove(&id);
        if ids.is_empty() {
            all.remove(set);
        }
    }
}

fn drop_out<K, Q>(all: &mut HashMap<K, HashMap<Arc<str>, Arc<Pod>>>, key: &Q, uid: &Arc<str>)
where
    K: Borrow<Q> + Eq + Hash,
    Q: Eq + Hash + ?Sized,
{
    if let Some(pods) = all.get_mut(key) {
        pods.remove(uid);
        if pods.is_empty() {
            all.remove(key);
        }
    }
}

#[cfg(test)]
mod tests;
