//! What was learned, as objects to be reviewed and applied.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{
    API_VERSION, COMMENT, NAMESPACE_LABEL,
    edges::{Edge, End, Seen, edges},
    labels::{Known, Labels},
    network_policy, neuvector,
};
use crate::{Rule, Workload};

/// Rules of one object in one direction.
const MAX_ENTRIES: usize = 64;
/// Characters of a rule's name, and of an object's as they are made here.
const MAX_NAME: usize = 63;

/// Which kinds of objects.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Form {
    /// `NetworkRule` and `WorkloadMode`.
    Outrider,
    /// `NvSecurityRule`.
    NeuVector,
    /// `NetworkPolicy`: ports only.
    NetworkPolicy,
}

/// What was learned, as objects.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exported {
    /// The objects, in order of namespace and name, with evidence as [`COMMENT`]s.
    pub objects: Vec<Value>,
    /// What they do not say, or say more widely, and why.
    pub left_out: Vec<String>,
}

/// Makes objects of learned rules. Rules that people wrote are left alone: they are objects already.
///
/// `mode` (`discover`, `monitor`, `protect`) is written in place of the one that each group has.
#[must_use]
pub fn export(rules: &[Rule], workloads: &[Workload], form: Form, mode: Option<&str>) -> Exported {
    let edges = edges(rules);
    match form {
        Form::Outrider => Maker::new(&edges, workloads).ours(mode),
        Form::NeuVector => neuvector::export(&edges, workloads, mode),
        Form::NetworkPolicy => network_policy::export(&edges, workloads),
    }
}

/// Makes our own kinds.
struct Maker<'a> {
    edges: &'a BTreeMap<Edge, Seen>,
    known: Known<'a>,
    selectors: BTreeMap<String, Option<Labels>>,
    left_out: BTreeSet<String>,
}

/// Both directions of one group.
#[derive(Default)]
struct Ways {
    names: BTreeSet<String>,
    ingress: Vec<Value>,
    egress: Vec<Value>,
}

impl<'a> Maker<'a> {
    fn new(edges: &'a BTreeMap<Edge, Seen>, workloads: &'a [Workload]) -> Self {
        let known = Known::new(workloads);
        Self { edges, known, selectors: BTreeMap::new(), left_out: BTreeSet::new() }
    }

    fn ours(mut self, mode: Option<&str>) -> Exported {
        let mut ways: BTreeMap<(String, String), Ways> = BTreeMap::new();
        for (edge, seen) in self.edges {
            if !is_written(&edge.port) {
                let (port, ends) = (&edge.port, (edge.from.group(), edge.to.group()));
                self.left_out.insert(format!(
                    "{} to {} is left out: rules can't say {port}",
                    ends.0, ends.1
                ));
                continue;
            }
            for is_ingress in [true, false] {
                let (own, peer) =
                    if is_ingress { (&edge.to, &edge.from) } else { (&edge.from, &edge.to) };
                let End::Pods { group, service, namespace } = own else { continue };
                if self.selector(group).is_none() {
                    continue;
                }
                let Some(peer_value) = self.peer(peer, namespace) else { continue };
                let own = ways
                    .entry((namespace.clone(), service.clone()))
                    .or_default();
                own.add((edge, seen), (peer, peer_value), (is_ingress, namespace));
            }
        }
        let modes = self.known.groups();
        for group in modes.keys() {
            if let End::Pods { service, namespace, .. } = End::read(group) {
                ways.entry((namespace, service)).or_default();
            }
        }
        let mut objects = Vec::new();
        for ((namespace, service), ways) in ways {
            let group = format!("nv.{service}.{namespace}");
            let Some(labels) = self.selector(&group) else { continue };
            let name = name(&service, MAX_NAME);
            if let Some(mode) = modes.get(group.as_str()).map(|own| mode.unwrap_or(own)) {
                objects.push(json!({
                    "apiVersion": API_VERSION, "kind": "WorkloadMode",
                    "metadata": { "name": name, "namespace": namespace },
                    "spec": { "podSelector": { "matchLabels": labels }, "mode": capital(mode) },
                }));
            }
            objects.extend(ways.objects((&namespace, &name), &labels));
        }
        objects.sort_by_key(|object| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let meta = &object["metadata"];
            (text(&meta["namespace"]), text(&meta["name"]), text(&object["kind"]))
        });
        Exported { objects, left_out: self.left_out.into_iter().collect() }
    }

    /// What selects a group's pods; if nothing does, that is said once.
    fn selector(&mut self, group: &str) -> Option<Labels> {
        if let Some(known) = self.selectors.get(group) {
            return known.clone();
        }
        let found = match self.known.of(group) {
            Ok(labels) => Some(labels),
            Err(why) => {
                self.left_out
                    .insert(format!("rules of {group} are left out: {why}"));
                None
            }
        };
        self.selectors.insert(group.to_owned(), found.clone());
        found
    }

    fn peer(&mut self, end: &End, namespace: &str) -> Option<Value> {
        match end {
            End::Pods { group, namespace: own, .. } => {
                let pods = json!({ "matchLabels": self.selector(group)? });
                if own == namespace {
                    return Some(json!({ "podSelector": pods }));
                }
                let place = json!({ "matchLabels": { NAMESPACE_LABEL: own } });
                Some(json!({ "namespaceSelector": place, "podSelector": pods }))
            }
            End::External => Some(json!({ "external": true })),
            End::Nodes => Some(json!({ "nodes": true })),
            End::Address(address) => Some(json!({ "cidr": address.to_string() })),
            End::Ingress | End::Named(_) => {
                let what = end.group();
                let why = "write a WorkloadGroup with its addresses, and a rule that names it";
                self.left_out
                    .insert(format!("rules with {what} are left out: {why}"));
                None
            }
        }
    }
}

impl Ways {
    fn add(
        &mut self,
        (edge, seen): (&Edge, &Seen),
        (peer, value): (&End, Value),
        (is_ingress, namespace): (bool, &str),
    ) {
        let way = if is_ingress { "from" } else { "to" };
        let wanted = format!("{way}-{}-{}", peer.word(namespace), edge.port);
        let mut entry = json!({
            COMMENT: seen.evidence(),
            "name": free(&mut self.names, &wanted),
            "action": "Allow",
            "peers": [value],
        });
        let apps = seen.apps_at(is_ingress);
        if !apps.is_empty() {
            entry["applications"] = json!(apps);
        }
        if edge.port != "any" {
            entry["ports"] = json!([edge.port]);
        }
        if is_ingress { self.ingress.push(entry) } else { self.egress.push(entry) }
    }

    /// One object, or as many as it takes.
    fn objects(self, (namespace, name): (&str, &str), labels: &Labels) -> Vec<Value> {
        let count = self
            .ingress
            .len()
            .max(self.egress.len())
            .div_ceil(MAX_ENTRIES);
        let part = |all: &[Value], at: usize| -> Vec<Value> {
            all.chunks(MAX_ENTRIES).nth(at).unwrap_or_default().to_vec()
        };
        let one = |at: usize| {
            let mut spec = Map::new();
            spec.insert("target".into(), json!({ "podSelector": { "matchLabels": labels } }));
            for (way, all) in [("ingress", &self.ingress), ("egress", &self.egress)] {
                let entries = part(all, at);
                if !entries.is_empty() {
                    spec.insert(way.into(), entries.into());
                }
            }
            let name = if at == 0 { name.to_owned() } else { format!("{name}-{}", at + 1) };
            json!({
                "apiVersion": API_VERSION, "kind": "NetworkRule",
                "metadata": { "name": name, "namespace": namespace },
                "spec": spec,
            })
        };
        (0..count).map(one).collect()
    }
}

/// Whether rules have a word for a port.
fn is_written(port: &str) -> bool {
    let whole = ["any", "icmp"];
    let protocols = ["tcp/", "udp/", "sctp/"];
    whole.contains(&port) || protocols.iter().any(|protocol| port.starts_with(protocol))
}

/// A name that nobody in the object has yet, like the wanted one.
pub(super) fn free(taken: &mut BTreeSet<String>, wanted: &str) -> String {
    let first = name(wanted, MAX_NAME);
    let numbered = (2u32..).map(|number| {
        let tail = format!("-{number}");
        format!("{}{tail}", name(wanted, MAX_NAME.saturating_sub(tail.len())))
    });
    let found = std::iter::once(first)
        .chain(numbered)
        .find(|name| !taken.contains(name))
        .unwrap_or_default();
    taken.insert(found.clone());
    found
}

/// The text in the letters that names may have.
pub(super) fn name(text: &str, most: usize) -> String {
    let mut name = String::new();
    for letter in text.chars() {
        match letter.to_ascii_lowercase() {
            letter @ ('a'..='z' | '0'..='9') => name.push(letter),
            _ if name.is_empty() || name.ends_with('-') => {}
            _ => name.push('-'),
        }
    }
    name.truncate(most);
    let name = name.trim_end_matches('-');
    if name.is_empty() { "unnamed".into() } else { name.to_owned() }
}

/// A mode as objects have it.
pub(super) fn capital(mode: &str) -> String {
    let mut letters = mode.chars();
    letters
        .next()
        .map(|first| first.to_ascii_uppercase().to_string() + letters.as_str())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
