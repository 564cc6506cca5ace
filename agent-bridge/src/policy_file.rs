//! Policy that people write, without a cluster: a file of the same objects, read again when it changes.

mod read;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use outrider_learn::{ClusterChange, Group, PolicyRule, SetChange};
use outrider_model::{AppId, RuleId};
use outrider_policy::Name;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    cluster::objects::{ClusterNetworkRule, NetworkRule, RuleNumber, RuleStatus},
    controller::{
        plan::{Object, ObjectKey, Objects, Plan, Rule, Set, World},
        resolve::Resolver,
    },
    node::Node,
    stamp::Stamp,
};
pub(crate) use read::{parse, text};

/// How often the file is looked at.
const PERIOD: Duration = Duration::from_secs(1);
/// Follows the file, if there is one, until `stop`. One that is wrong changes nothing and is logged; one that goes away is an empty one.
pub(crate) fn follow(
    path: Option<PathBuf>,
    node: &Arc<Node>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    let Some(path) = path else { return };
    let (node, stop) = (Arc::clone(node), stop.child_token());
    tasks.spawn(async move {
        let mut file = PolicyFile { path, ..PolicyFile::default() };
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = ticks.tick() => file.look(&node),
            }
        }
    });
}

/// The file, and what it came to last.
#[derive(Default)]
struct PolicyFile {
    path: PathBuf,
    seen: Option<Stamp>,
    resolver: Resolver,
    world: World,
    plan: Plan,
    /// It was read a moment ago.
    is_read: bool,
}

impl PolicyFile {
    fn look(&mut self, node: &Node) {
        let now = Stamp::at(&self.path);
        let is_new = now != self.seen;
        if is_new {
            self.seen = now;
            match read::read(&self.path) {
                Ok(mut objects) => {
                    number(&mut objects, node);
                    self.resolver.set_objects(&objects);
                    self.is_read = true;
                }
                Err(error) => {
                    let path = self.path.display();
                    tracing::error!(%error, %path, "the policy file is wrong: what was in force stays");
                }
            }
        }
        self.meet(node.world());
        let plan = self.resolver.plan().clone();
        if is_new {
            complain(&plan);
        }
        if std::mem::take(&mut self.is_read) {
            node.keep_numbers(numbers(&plan));
        }
        let changes = changes(&self.plan, &plan);
        if !changes.is_empty() {
            tracing::info!(rules = plan.rules.len(), changes = changes.len(), "policy of the file");
            node.say(changes);
            self.plan = plan;
        }
    }

    /// Takes over who is here.
    fn meet(&mut self, world: World) {
        let before = std::mem::take(&mut self.world);
        for uid in before
            .pods
            .keys()
            .filter(|uid| !world.pods.contains_key(*uid))
        {
            self.resolver.remove_pod(uid);
        }
        for name in before
            .namespaces
            .keys()
            .filter(|name| !world.namespaces.contains_key(*name))
        {
            self.resolver.remove_namespace(name);
        }
        for (name, labels) in &world.namespaces {
            self.resolver.set_namespace(name, labels);
        }
        world
            .pods
            .values()
            .for_each(|pod| self.resolver.set_pod(pod));
        self.world = world;
    }
}

/// Rules have the numbers that they had when the bridge ran before, as objects of a cluster have them in their status.
fn number(objects: &mut Objects, node: &Node) {
    for object in &mut objects.rules {
        let rules = node.numbers(&name(&Object::Rule(Arc::clone(object)).key()));
        let status = Some(RuleStatus { rules, ..RuleStatus::default() });
        *object = Arc::new(NetworkRule { status, ..(**object).clone() });
    }
    for object in &mut objects.cluster_rules {
        let rules = node.numbers(&name(&Object::ClusterRule(Arc::clone(object)).key()));
        let status = Some(RuleStatus { rules, ..RuleStatus::default() });
        *object = Arc::new(ClusterNetworkRule { status, ..(**object).clone() });
    }
}

/// Numbers of all rules, by object.
fn numbers(plan: &Plan) -> BTreeMap<String, Vec<RuleNumber>> {
    let verdicts = plan.verdicts.iter();
    let with_rules = verdicts.filter(|(_, verdict)| !verdict.rules.is_empty());
    with_rules
        .map(|(key, verdict)| (name(key), verdict.rules.clone()))
        .collect()
}

fn name((kind, namespace, name): &ObjectKey) -> String {
    format!("{kind:?}/{namespace}/{name}")
}

/// What is wrong with objects that can be read is logged, as it is said in their status in a cluster.
fn complain(plan: &Plan) {
    for said in plan.verdicts.values().filter(|said| !said.accepted) {
        let (kind, field) = (said.kind, said.field.as_deref().unwrap_or_default());
        let (namespace, name, why) = (&said.namespace, &said.name, &said.message);
        tracing::warn!(?kind, namespace, name, field, why, reason = said.reason, "not accepted");
    }
}

/// What makes one plan of another.
pub(crate) fn changes(before: &Plan, now: &Plan) -> Vec<ClusterChange> {
    fn gone<'a, K: Ord, V>(
        before: &'a BTreeMap<K, V>,
        now: &'a BTreeMap<K, V>,
    ) -> impl Iterator<Item = &'a K> {
        before.keys().filter(|key| !now.contains_key(key))
    }
    fn fresh<'a, K: Ord, V: PartialEq>(
        before: &'a BTreeMap<K, V>,
        now: &'a BTreeMap<K, V>,
    ) -> impl Iterator<Item = (&'a K, &'a V)> {
        now.iter()
            .filter(|(key, value)| before.get(key) != Some(value))
    }
    let mut all: Vec<ClusterChange> = Vec::new();
    all.extend(gone(&before.rules, &now.rules).map(|id| ClusterChange::RuleGone(RuleId(*id))));
    all.extend(
        gone(&before.sets, &now.sets).map(|name| ClusterChange::SetGone(Group::named(name))),
    );
    all.extend(
        gone(&before.modes, &now.modes).map(|uid| ClusterChange::Mode(Arc::clone(uid), None)),
    );
    all.extend(
        fresh(&before.sets, &now.sets).map(|(name, set)| ClusterChange::Set(self::set(name, set))),
    );
    all.extend(
        fresh(&before.rules, &now.rules).map(|(_, rule)| ClusterChange::Rule(self::rule(rule))),
    );
    let modes = fresh(&before.modes, &now.modes);
    all.extend(modes.map(|(uid, mode)| ClusterChange::Mode(Arc::clone(uid), Some(*mode))));
    all
}

fn set(name: &str, set: &Set) -> SetChange {
    SetChange {
        added: set.members.iter().cloned().collect(),
        networks: set.networks.clone(),
        names: set
            .names
            .iter()
            .filter_map(|name| Name::new(name).ok())
            .collect(),
        external: set.external,
        nodes: set.nodes,
        any: set.any,
        ..SetChange::whole(name)
    }
}

fn rule(rule: &Rule) -> PolicyRule {
    PolicyRule {
        id: RuleId(rule.id),
        order: rule.order,
        from: Group::named(&rule.from),
        to: Group::named(&rule.to),
        ends: rule.ends,
        ports: rule.ports.clone(),
        apps: rule.apps.iter().copied().map(AppId).collect(),
        deny: rule.deny,
        learned: false,
        origin: Arc::clone(&rule.origin),
    }
}

#[cfg(test)]
mod tests;
