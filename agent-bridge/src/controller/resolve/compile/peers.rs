//! Both ends of rules as sets.

use std::{collections::BTreeSet, sync::Arc};

use super::{super::words, Compiling, Definition, Entry, Problem, Scope, Selection};
use crate::{
    cluster::objects::{ClusterTarget, Peer, Selector, Target as NamespaceTarget},
    controller::plan::Kind,
};

/// Whose flows an object is about.
#[derive(Clone, Copy)]
pub(super) enum Target<'a> {
    Namespace(&'a NamespaceTarget),
    Cluster(&'a ClusterTarget),
}

/// The other end of a rule.
pub(super) struct Peers {
    pub(super) set: Arc<str>,
    /// Pods are in it, at whose end a rule of the cluster holds too.
    pub(super) has_pods: bool,
}

/// One peer, read.
enum Part {
    /// A group that has a set of that name.
    Group(Arc<str>),
    Pods(Selection),
    Network(ipnet::IpNet),
    Name(Arc<str>),
    External,
    Nodes,
}

impl Compiling<'_> {
    /// The set of an object's own pods, which its verdict is about too; `None` if its group is not there.
    pub(super) fn target(&mut self, target: Target<'_>) -> Option<Arc<str>> {
        let (group, selection) = match target {
            Target::Namespace(NamespaceTarget { group, pod_selector }) => {
                let scope = Scope::One(self.part.noted.namespace.as_str().into());
                let group = group.as_ref().map(|group| ("spec.target.group", group));
                (group, Selection { scope, pods: pod_selector.clone().unwrap_or_default() })
            }
            Target::Cluster(ClusterTarget { namespace_selector, pod_selector, cluster_group }) => {
                let scope = namespace_selector
                    .clone()
                    .map_or(Scope::All, Scope::Labelled);
                let group = cluster_group
                    .as_ref()
                    .map(|group| ("spec.target.clusterGroup", group));
                (group, Selection { scope, pods: pod_selector.clone().unwrap_or_default() })
            }
        };
        let Some((field, group)) = group else {
            let everywhere = matches!(selection.scope, Scope::All) && selection.pods.is_empty();
            let set = self.pods(selection.scope, &selection.pods);
            self.part.noted.about = Some(Arc::clone(&set));
            return Some(if everywhere { self.anything() } else { set });
        };
        let known = self.known(field, group);
        let set = self.note(known)?;
        if self
            .group(&set)
            .is_some_and(|group| group.selections.is_empty())
        {
            let message = format!("the group {group} has no pods, only addresses or names");
            self.note::<()>(Err(Problem::new("NoPodsInGroup", field, message)));
            return None;
        }
        self.part.noted.about = Some(Arc::clone(&set));
        self.part.named.insert(Arc::clone(&set));
        Some(set)
    }

    /// The set of a group that must be there.
    fn known(&mut self, field: &str, group: &str) -> Result<Arc<str>, Problem> {
        let in_cluster = field.ends_with("clusterGroup");
        let (kind, name) = match in_cluster {
            true => ("ClusterWorkloadGroup", format!("ClusterWorkloadGroup/{group}")),
            false => {
                let namespace = &self.part.noted.namespace;
                ("WorkloadGroup", format!("WorkloadGroup/{namespace}/{group}"))
            }
        };
        let name = name.into();
        if self.group(&name).is_some() {
            return Ok(name);
        }
        Err(Problem::new("UnknownGroup", field, format!("there is no {kind} {group:?}")))
    }

    /// The set of a rule's peers. A group that is not there is empty until it is.
    pub(super) fn peers(&mut self, from: &Entry<'_>, origin: &Arc<str>) -> Option<Peers> {
        if from.entry.peers.is_empty() {
            return Some(Peers { set: self.anything(), has_pods: false });
        }
        let (mut parts, mut sound) = (Vec::new(), true);
        for (at, peer) in from.entry.peers.iter().enumerate() {
            let field = format!("{}.peers[{at}]", from.field);
            match self.peer(peer, &field, from.is_ingress) {
                Ok(part) => parts.push(part),
                Err(problem) => {
                    sound &= problem.reason != "Invalid";
                    self.note::<()>(Err(problem));
                }
            }
        }
        if !sound {
            return None;
        }
        if let [part] = parts.as_slice()
            && from.entry.peers.len() == 1
        {
            return Some(self.single(part));
        }
        let mut all = Definition::default();
        parts.iter().for_each(|part| self.join(part, &mut all));
        let has_pods = !all.selections.is_empty();
        let set = self.name(format!("{origin}/peers").into(), || all);
        Some(Peers { set, has_pods })
    }

    fn peer(&mut self, peer: &Peer, field: &str, is_ingress: bool) -> Result<Part, Problem> {
        let pods = peer.pod_selector.is_some() || peer.namespace_selector.is_some();
        let given = [
            peer.group.is_some(),
            peer.cluster_group.is_some(),
            pods,
            peer.cidr.is_some(),
            peer.name.is_some(),
            peer.external == Some(true),
            peer.nodes == Some(true),
        ];
        if given.into_iter().filter(|given| *given).count() != 1 {
            return Err(Problem::invalid(field, "a peer is exactly one thing".into()));
        }
        if let Some(group) = &peer.group {
            let field = format!("{field}.group");
            if self.part.noted.kind == Kind::ClusterRule {
                let message = "a cluster rule has no namespace: name a clusterGroup".to_owned();
                return Err(Problem::invalid(&field, message));
            }
            return self.known(&field, group).map(Part::Group);
        }
        if let Some(group) = &peer.cluster_group {
            return self
                .known(&format!("{field}.clusterGroup"), group)
                .map(Part::Group);
        }
        if pods {
            return Ok(Part::Pods(self.selection(peer)));
        }
        if let Some(text) = &peer.cidr {
            return words::network(text, &format!("{field}.cidr")).map(Part::Network);
        }
        if let Some(text) = &peer.name {
            let field = format!("{field}.name");
            if is_ingress {
                let message =
                    "who opens a flow has no DNS name: names stand in egress only".to_owned();
                return Err(Problem::invalid(&field, message));
            }
            return words::name(text, &field).map(Part::Name);
        }
        Ok(if peer.nodes == Some(true) { Part::Nodes } else { Part::External })
    }

    /// A set of one peer, shared by all rules that have the same.
    fn single(&mut self, part: &Part) -> Peers {
        let alone = |name: String, compiling: &mut Self| {
            let mut definition = Definition::default();
            compiling.join(part, &mut definition);
            Peers { set: compiling.name(name.into(), || definition), has_pods: false }
        };
        match part {
            Part::Group(set) => {
                let group = self.group(set);
                let has_pods = group.is_some_and(|group| !group.selections.is_empty());
                self.part.named.insert(Arc::clone(set));
                Peers { set: Arc::clone(set), has_pods }
            }
            Part::Pods(Selection { scope, pods }) => {
                Peers { set: self.pods(scope.clone(), pods), has_pods: true }
            }
            Part::Network(net) => alone(format!("cidr/{net}"), self),
            Part::Name(name) => alone(format!("name/{name}"), self),
            Part::External => Peers { set: "external".into(), has_pods: false },
            Part::Nodes => Peers { set: "nodes".into(), has_pods: false },
        }
    }

    /// Adds a peer to a set of several.
    fn join(&mut self, part: &Part, all: &mut Definition) {
        match part {
            Part::Group(set) => {
                let Some(group) = self.group(set) else { return };
                all.selections.extend(group.selections.iter().cloned());
                all.networks.extend(group.networks.iter().copied());
                all.names.extend(group.names.iter().cloned());
            }
            Part::Pods(selection) => drop(all.selections.insert(selection.clone())),
            Part::Network(net) => all.networks.push(*net),
            Part::Name(name) => all.names.push(Arc::clone(name)),
            Part::External => all.external = true,
            Part::Nodes => all.nodes = true,
        }
        let distinct: BTreeSet<_> = all.networks.drain(..).collect();
        all.networks.extend(distinct);
    }

    fn selection(&self, peer: &Peer) -> Selection {
        let pods: Selector = peer.pod_selector.clone().unwrap_or_default();
        let scope = match &peer.namespace_selector {
            Some(selector) if selector.is_empty() => Scope::All,
            Some(selector) => Scope::Labelled(selector.clone()),
            None if self.part.noted.kind == Kind::ClusterRule => Scope::All,
            None => Scope::One(self.part.noted.namespace.as_str().into()),
        };
        Selection { scope, pods }
    }
}
