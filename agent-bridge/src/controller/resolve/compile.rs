//! Objects, one by one, into definitions of sets, rules, modes, and what to say of each.

mod peers;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use kube::{Resource, ResourceExt};
use outrider_learn::Ends;

use super::{
    ANY,
    members::{Definition, Scope, Selection},
    modes::Says,
    numbers::Numbers,
    words::{self, Problem},
};
use crate::{
    cluster::objects::{Action, MAX_PRIORITY, RuleEntry, RuleNumber, RuleStatus, Selector},
    controller::plan::{Kind, ObjectKey, Objects, Rule},
};
use peers::{Peers, Target};

/// What objects come to, before it is known which pods there are.
#[derive(Debug, Default)]
pub(super) struct Compiled {
    pub(super) sets: BTreeMap<Arc<str>, Definition>,
    pub(super) rules: Vec<Rule>,
    pub(super) modes: BTreeMap<Arc<str>, Says>,
    pub(super) noted: Vec<Noted>,
}

/// What is to be said of an object, before it is known which pods there are.
#[derive(Debug)]
pub(super) struct Noted {
    pub(super) kind: Kind,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) generation: i64,
    pub(super) problem: Option<Problem>,
    /// The set of the pods that it is about.
    pub(super) about: Option<Arc<str>>,
    /// Without any it is worth a word.
    pub(super) empties: bool,
    pub(super) rules: Vec<RuleNumber>,
}

impl Noted {
    pub(super) fn key(&self) -> ObjectKey {
        (self.kind, self.namespace.clone(), self.name.clone())
    }

    fn of<K: Resource>(kind: Kind, object: &K) -> Self {
        Self {
            kind,
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            generation: object.meta().generation.unwrap_or_default(),
            problem: None,
            about: None,
            empties: false,
            rules: Vec::new(),
        }
    }

    /// Only the first problem is said.
    fn note<T>(&mut self, result: Result<T, Problem>) -> Option<T> {
        match result {
            Ok(read) => Some(read),
            Err(problem) => {
                self.problem.get_or_insert(problem);
                None
            }
        }
    }
}

/// Compiles all objects. Numbers are given in order of kind, namespace and name.
pub(super) fn compile(objects: &Objects, numbers: &mut Numbers) -> Compiled {
    let mut compiled = Compiled::default();
    compiled.groups(objects);
    compiled.modes(objects);
    let mut rules: Vec<Written<'_>> = objects
        .cluster_rules
        .iter()
        .map(|object| Written {
            noted: Noted::of(Kind::ClusterRule, &**object),
            priority: object.spec.priority,
            target: Target::Cluster(&object.spec.target),
            ways: [&object.spec.ingress, &object.spec.egress],
            status: object.status.as_ref(),
        })
        .collect();
    rules.extend(objects.rules.iter().map(|object| Written {
        noted: Noted::of(Kind::Rule, &**object),
        priority: object.spec.priority,
        target: Target::Namespace(&object.spec.target),
        ways: [&object.spec.ingress, &object.spec.egress],
        status: object.status.as_ref(),
    }));
    rules.sort_by_key(|rule| rule.noted.key());
    numbers.retain(&rules.iter().map(|rule| rule.noted.key()).collect());
    for rule in &rules {
        let said = rule.status.map_or(&[][..], |status| &status.rules);
        numbers.read(&rule.noted.key(), said);
    }
    for rule in rules {
        compiled.rule(rule, numbers);
    }
    compiled
}

/// An object with rules, of either kind.
struct Written<'a> {
    noted: Noted,
    priority: i32,
    target: Target<'a>,
    ways: [&'a Vec<RuleEntry>; 2],
    status: Option<&'a RuleStatus>,
}

impl Compiled {
    fn groups(&mut self, objects: &Objects) {
        for object in &objects.groups {
            let mut noted = Noted::of(Kind::Group, &**object);
            let scope = Scope::One(noted.namespace.as_str().into());
            let pods = object
                .spec
                .pod_selector
                .clone()
                .map(|pods| Selection { scope, pods });
            let name = format!("WorkloadGroup/{}/{}", noted.namespace, noted.name);
            let parts = (&object.spec.cidrs[..], &object.spec.names[..]);
            self.group(&mut noted, name.into(), pods, parts);
            self.noted.push(noted);
        }
        for object in &objects.cluster_groups {
            let mut noted = Noted::of(Kind::ClusterGroup, &**object);
            let (namespaces, pods) = (&object.spec.namespace_selector, &object.spec.pod_selector);
            let is_given = namespaces.is_some() || pods.is_some();
            let selection = is_given.then(|| Selection {
                scope: namespaces.clone().map_or(Scope::All, Scope::Labelled),
                pods: pods.clone().unwrap_or_default(),
            });
            let name = format!("ClusterWorkloadGroup/{}", noted.name);
            let parts = (&object.spec.cidrs[..], &object.spec.names[..]);
            self.group(&mut noted, name.into(), selection, parts);
            self.noted.push(noted);
        }
    }

    fn group(
        &mut self,
        noted: &mut Noted,
        name: Arc<str>,
        pods: Option<Selection>,
        (cidrs, names): (&[String], &[String]),
    ) {
        let mut definition = Definition::default();
        for (at, text) in cidrs.iter().enumerate() {
            let read = words::network(text, &format!("spec.cidrs[{at}]"));
            definition.networks.extend(noted.note(read));
        }
        for (at, text) in names.iter().enumerate() {
            let read = words::name(text, &format!("spec.names[{at}]"));
            definition.names.extend(noted.note(read));
        }
        noted.empties = cidrs.is_empty() && names.is_empty();
        definition.selections.extend(pods);
        noted.about = Some(Arc::clone(&name));
        self.sets.insert(name, definition);
    }

    fn modes(&mut self, objects: &Objects) {
        for object in &objects.modes {
            let noted = Noted::of(Kind::Mode, &**object);
            let pods = object.spec.pod_selector.clone();
            let rank = if pods.is_some() { 4 } else { 3 };
            let scope = Scope::One(noted.namespace.as_str().into());
            let name = format!("WorkloadMode/{}/{}", noted.namespace, noted.name);
            self.mode(
                noted,
                name,
                rank,
                (Selection { scope, pods: pods.unwrap_or_default() }, object.spec.mode.into()),
            );
        }
        for object in &objects.cluster_modes {
            let noted = Noted::of(Kind::ClusterMode, &**object);
            let (namespaces, pods) = (&object.spec.namespace_selector, &object.spec.pod_selector);
            let rank = if pods.is_some() || namespaces.is_some() { 2 } else { 1 };
            let scope = namespaces.clone().map_or(Scope::All, Scope::Labelled);
            let name = format!("ClusterWorkloadMode/{}", noted.name);
            let pods = pods.clone().unwrap_or_default();
            self.mode(noted, name, rank, (Selection { scope, pods }, object.spec.mode.into()));
        }
    }

    fn mode(
        &mut self,
        mut noted: Noted,
        name: String,
        rank: u8,
        (selection, mode): (Selection, outrider_model::Mode),
    ) {
        let set: Arc<str> = name.as_str().into();
        self.modes
            .insert(Arc::clone(&set), Says { mode, rank, at: self.noted.len(), name });
        let selections = BTreeSet::from([selection]);
        self.sets
            .insert(Arc::clone(&set), Definition { selections, ..Definition::default() });
        noted.about = Some(set);
        noted.empties = true;
        self.noted.push(noted);
    }

    fn rule(&mut self, rule: Written<'_>, numbers: &mut Numbers) {
        let Written { mut noted, priority, target, ways: [ingress, egress], .. } = rule;
        noted.empties = true;
        let key = noted.key();
        let origin = match noted.kind {
            Kind::ClusterRule => format!("ClusterNetworkRule/{}", noted.name),
            _ => format!("NetworkRule/{}/{}", noted.namespace, noted.name),
        };
        let whom = self.target(&mut noted, target);
        let mut names = BTreeSet::new();
        let ways = [("ingress", ingress), ("egress", egress)];
        let entries = ways.into_iter().flat_map(|(way, entries)| {
            entries
                .iter()
                .enumerate()
                .map(move |(at, entry)| (way, at, entry))
        });
        for (way, at, entry) in entries {
            let field = format!("spec.{way}[{at}]");
            if !names.insert(entry.name.as_str()) {
                let message = format!("the object has another rule {:?}", entry.name);
                noted.note::<()>(Err(Problem::invalid(&format!("{field}.name"), message)));
                continue;
            }
            let Some(id) = numbers.number(&key, &entry.name) else {
                let message = "every number of a rule is taken".to_owned();
                noted.note::<()>(Err(Problem::new("NoNumbers", &field, message)));
                continue;
            };
            let Some(whom) = &whom else { continue };
            let from =
                Entry { entry, field: &field, origin: &origin, is_ingress: way == "ingress" };
            if let Some(rule) = self.entry(&mut noted, whom, &from) {
                let order = order(noted.kind, priority, entry.action);
                self.rules.push(Rule { id, order, ..rule });
            }
        }
        noted.rules = numbers.of(&key, &names);
        self.noted.push(noted);
    }

    /// One rule; `None` if a part of it can't be read: half of a rule would mean something else.
    fn entry(&mut self, noted: &mut Noted, target: &Arc<str>, from: &Entry<'_>) -> Option<Rule> {
        let Entry { entry, field, origin, is_ingress } = *from;
        let (mut ports, mut apps, mut sound) = (Vec::new(), Vec::new(), true);
        for (at, text) in entry.ports.iter().enumerate() {
            let read = noted.note(words::ports(text, &format!("{field}.ports[{at}]")));
            sound &= read.is_some();
            ports.extend(read);
        }
        for (at, text) in entry.applications.iter().enumerate() {
            let read = noted.note(words::application(text, &format!("{field}.applications[{at}]")));
            sound &= read.is_some();
            apps.extend(read);
        }
        let origin: Arc<str> = format!("{origin}/{}", entry.name).into();
        let Peers { set, has_pods } = self.peers(noted, from, &origin)?;
        if !sound {
            return None;
        }
        let both = has_pods && noted.kind == Kind::ClusterRule;
        let (from, to, end) = match is_ingress {
            true => (set, Arc::clone(target), Ends::Server),
            false => (Arc::clone(target), set, Ends::Client),
        };
        let ends = if both { Ends::Both } else { end };
        let deny = entry.action == Action::Deny;
        Some(Rule { id: 0, order: 0, from, to, ends, ports, apps, deny, origin })
    }

    /// The set of that name, to go to the nodes.
    fn name(&mut self, name: Arc<str>, make: impl FnOnce() -> Definition) -> Arc<str> {
        let definition = self.sets.entry(Arc::clone(&name)).or_insert_with(make);
        definition.named = true;
        name
    }

    /// The set of some pods.
    fn pods(&mut self, scope: Scope, pods: &Selector) -> Arc<str> {
        let text = |selector: &Selector| serde_json::to_string(selector).unwrap_or_default();
        let whose = match &scope {
            Scope::One(namespace) => namespace.to_string(),
            Scope::Labelled(selector) => text(selector),
            Scope::All => String::new(),
        };
        let name = format!("pods/{whose}/{}", text(pods)).into();
        let selection = Selection { scope, pods: pods.clone() };
        self.name(name, || Definition {
            selections: BTreeSet::from([selection]),
            ..Definition::default()
        })
    }

    /// The set that everything is in.
    fn anything(&mut self) -> Arc<str> {
        self.name(ANY.into(), || Definition { any: true, ..Definition::default() })
    }
}

/// A rule of an object, and where it is.
#[derive(Clone, Copy)]
struct Entry<'a> {
    entry: &'a RuleEntry,
    field: &'a str,
    origin: &'a str,
    is_ingress: bool,
}

/// Rules of the cluster first, then the larger priority, then Deny before Allow; among equals the number decides, which
/// changes nothing but whose name a report has.
fn order(kind: Kind, priority: i32, action: Action) -> u64 {
    let tier = u64::from(kind != Kind::ClusterRule);
    let behind = u64::try_from(MAX_PRIORITY.saturating_sub(priority)).unwrap_or_default();
    (tier << 16) | (behind << 8) | u64::from(action == Action::Allow)
}
