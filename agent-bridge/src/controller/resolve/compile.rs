//! One object into definitions of sets, rules, a mode, and what to say of it.

mod peers;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use kube::{Resource, ResourceExt};
use outrider_learn::Ends;

use super::{
    ANY,
    defined::Defined,
    members::{Definition, Scope, Selection},
    modes::Says,
    numbers::Numbers,
    words::{self, Problem},
};
use crate::{
    cluster::objects::{
        Action, ClusterWorkloadGroup, ClusterWorkloadMode, MAX_PRIORITY, RuleEntry, RuleNumber,
        Selector, WorkloadGroup, WorkloadMode,
    },
    controller::plan::{Kind, Object, ObjectKey, Rule},
};
use peers::{Peers, Target};

/// What one object comes to, before it is known which pods there are.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) noted: Noted,
    /// Sets that it defines; of one name they are the same in every object.
    pub(super) sets: BTreeMap<Arc<str>, Definition>,
    /// Sets that its rules name: they go to the nodes.
    pub(super) named: BTreeSet<Arc<str>>,
    /// Sets of groups that it asks for, whether they are there or not.
    pub(super) groups: BTreeSet<Arc<str>>,
    pub(super) rules: Vec<Rule>,
    pub(super) says: Option<Says>,
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

/// The numbers of its rules, as the status of an object says them.
pub(super) fn said(object: &Object) -> &[RuleNumber] {
    let status = match object {
        Object::Rule(object) => object.status.as_ref(),
        Object::ClusterRule(object) => object.status.as_ref(),
        _ => None,
    };
    status.map_or(&[], |status| &status.rules)
}

/// Compiles an object. Groups of which it speaks are looked for among `known`.
pub(super) fn compile(
    object: &Object,
    known: &BTreeMap<Arc<str>, Defined>,
    numbers: &mut Numbers,
) -> Part {
    match object {
        Object::Group(object) => group(object),
        Object::ClusterGroup(object) => cluster_group(object),
        Object::Mode(object) => mode(object),
        Object::ClusterMode(object) => cluster_mode(object),
        Object::Rule(object) => {
            let spec = &object.spec;
            let written = Written {
                priority: spec.priority,
                target: Target::Namespace(&spec.target),
                ways: [&spec.ingress, &spec.egress],
            };
            Compiling::new(Noted::of(Kind::Rule, &**object), known).rules(&written, numbers)
        }
        Object::ClusterRule(object) => {
            let spec = &object.spec;
            let written = Written {
                priority: spec.priority,
                target: Target::Cluster(&spec.target),
                ways: [&spec.ingress, &spec.egress],
            };
            Compiling::new(Noted::of(Kind::ClusterRule, &**object), known).rules(&written, numbers)
        }
    }
}

impl Part {
    fn new(noted: Noted) -> Self {
        Self {
            noted,
            sets: BTreeMap::new(),
            named: BTreeSet::new(),
            groups: BTreeSet::new(),
            rules: Vec::new(),
            says: None,
        }
    }
}

fn group(object: &WorkloadGroup) -> Part {
    let noted = Noted::of(Kind::Group, object);
    let scope = Scope::One(noted.namespace.as_str().into());
    let pods = object.spec.pod_selector.clone();
    let pods = pods.map(|pods| Selection { scope, pods });
    let name = format!("WorkloadGroup/{}/{}", noted.namespace, noted.name);
    of_group(noted, name, pods, (&object.spec.cidrs, &object.spec.names))
}

fn cluster_group(object: &ClusterWorkloadGroup) -> Part {
    let noted = Noted::of(Kind::ClusterGroup, object);
    let (namespaces, pods) = (&object.spec.namespace_selector, &object.spec.pod_selector);
    let is_given = namespaces.is_some() || pods.is_some();
    let selection = is_given.then(|| Selection {
        scope: namespaces.clone().map_or(Scope::All, Scope::Labelled),
        pods: pods.clone().unwrap_or_default(),
    });
    let name = format!("ClusterWorkloadGroup/{}", noted.name);
    of_group(noted, name, selection, (&object.spec.cidrs, &object.spec.names))
}

fn of_group(
    mut noted: Noted,
    name: String,
    pods: Option<Selection>,
    (cidrs, names): (&[String], &[String]),
) -> Part {
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
    about(noted, name, definition)
}

/// An object that is about the one set that it defines.
fn about(mut noted: Noted, name: String, definition: Definition) -> Part {
    let name: Arc<str> = name.into();
    noted.about = Some(Arc::clone(&name));
    Part { sets: BTreeMap::from([(name, definition)]), ..Part::new(noted) }
}

fn mode(object: &WorkloadMode) -> Part {
    let noted = Noted::of(Kind::Mode, object);
    let pods = object.spec.pod_selector.clone();
    let rank = if pods.is_some() { 4 } else { 3 };
    let scope = Scope::One(noted.namespace.as_str().into());
    let name = format!("WorkloadMode/{}/{}", noted.namespace, noted.name);
    let selection = Selection { scope, pods: pods.unwrap_or_default() };
    of_mode(noted, name, rank, (selection, object.spec.mode.into()))
}

fn cluster_mode(object: &ClusterWorkloadMode) -> Part {
    let noted = Noted::of(Kind::ClusterMode, object);
    let (namespaces, pods) = (&object.spec.namespace_selector, &object.spec.pod_selector);
    let rank = if pods.is_some() || namespaces.is_some() { 2 } else { 1 };
    let scope = namespaces.clone().map_or(Scope::All, Scope::Labelled);
    let name = format!("ClusterWorkloadMode/{}", noted.name);
    let selection = Selection { scope, pods: pods.clone().unwrap_or_default() };
    of_mode(noted, name, rank, (selection, object.spec.mode.into()))
}

fn of_mode(
    mut noted: Noted,
    name: String,
    rank: u8,
    (selection, mode): (Selection, outrider_model::Mode),
) -> Part {
    noted.empties = true;
    let says = Says { mode, rank, key: noted.key(), name: name.clone() };
    let selections = BTreeSet::from([selection]);
    let definition = Definition { selections, ..Definition::default() };
    Part { says: Some(says), ..about(noted, name, definition) }
}

/// An object with rules, of either kind.
struct Written<'a> {
    priority: i32,
    target: Target<'a>,
    ways: [&'a Vec<RuleEntry>; 2],
}

/// An object with rules that is being compiled.
struct Compiling<'a> {
    part: Part,
    known: &'a BTreeMap<Arc<str>, Defined>,
}

impl<'a> Compiling<'a> {
    fn new(noted: Noted, known: &'a BTreeMap<Arc<str>, Defined>) -> Self {
        Self { part: Part::new(noted), known }
    }

    fn note<T>(&mut self, result: Result<T, Problem>) -> Option<T> {
        self.part.noted.note(result)
    }

    /// Numbers are given in the order of its rules.
    fn rules(mut self, written: &Written<'_>, numbers: &mut Numbers) -> Part {
        let Written { priority, target, ways: [ingress, egress] } = *written;
        self.part.noted.empties = true;
        let (kind, key) = (self.part.noted.kind, self.part.noted.key());
        let origin = match kind {
            Kind::ClusterRule => format!("ClusterNetworkRule/{}", key.2),
            _ => format!("NetworkRule/{}/{}", key.1, key.2),
        };
        let whom = self.target(target);
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
                self.note::<()>(Err(Problem::invalid(&format!("{field}.name"), message)));
                continue;
            }
            let Some(id) = numbers.number(&key, &entry.name) else {
                let message = "every number of a rule is taken".to_owned();
                self.note::<()>(Err(Problem::new("NoNumbers", &field, message)));
                continue;
            };
            let Some(whom) = &whom else { continue };
            let from =
                Entry { entry, field: &field, origin: &origin, is_ingress: way == "ingress" };
            if let Some(rule) = self.entry(whom, &from) {
                let order = order(kind, priority, entry.action);
                self.part.rules.push(Rule { id, order, ..rule });
            }
        }
        self.part.noted.rules = numbers.of(&key, &names);
        self.part
    }

    /// One rule; `None` if a part of it can't be read: half of a rule would mean something else.
    fn entry(&mut self, target: &Arc<str>, from: &Entry<'_>) -> Option<Rule> {
        let Entry { entry, field, origin, is_ingress } = *from;
        let (mut ports, mut apps, mut sound) = (Vec::new(), Vec::new(), true);
        for (at, text) in entry.ports.iter().enumerate() {
            let read = self.note(words::ports(text, &format!("{field}.ports[{at}]")));
            sound &= read.is_some();
            ports.extend(read);
        }
        for (at, text) in entry.applications.iter().enumerate() {
            let read = self.note(words::application(text, &format!("{field}.applications[{at}]")));
            sound &= read.is_some();
            apps.extend(read);
        }
        let origin: Arc<str> = format!("{origin}/{}", entry.name).into();
        let Peers { set, has_pods } = self.peers(from, &origin)?;
        if !sound {
            return None;
        }
        let both = has_pods && self.part.noted.kind == Kind::ClusterRule;
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
        self.part.sets.entry(Arc::clone(&name)).or_insert_with(make);
        self.part.named.insert(Arc::clone(&name));
        name
    }

    /// What a group comes to, if it is there.
    fn group(&mut self, set: &Arc<str>) -> Option<&'a Definition> {
        self.part.groups.insert(Arc::clone(set));
        Some(&self.known.get(set)?.definition)
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
