//! What goes into a policy and what comes out: plain data, between the watches, `resolve` (pure) and the links.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use kube::ResourceExt;
use outrider_learn::{Ends, Ports};
use outrider_model::{IpProto, Mode};

use crate::cluster::objects::{
    ClusterNetworkRule, ClusterWorkloadGroup, ClusterWorkloadMode, NetworkRule, RuleNumber,
    WorkloadGroup, WorkloadMode,
};

/// Uids of pods; whoever says the same holds the same.
pub type Uids = Arc<BTreeSet<Arc<str>>>;

/// Labels by key.
pub type Labels = BTreeMap<String, String>;

/// What is kept of a pod.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Pod {
    /// Its uid.
    pub uid: Arc<str>,
    /// Where it lives.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// What it is a replica of; its learned group is `nv.<service>.<namespace>`.
    pub service: Arc<str>,
    /// The node that runs it, empty before it is scheduled.
    pub node: Arc<str>,
    /// Its addresses; none if they are those of the node.
    pub addresses: Vec<IpAddr>,
    /// Its labels, one copy for all pods that have the same.
    pub labels: Arc<Labels>,
    /// A proxy was injected.
    pub managed: bool,
}

impl Pod {
    /// The learned group that it is in.
    #[must_use]
    pub fn group(&self) -> String {
        format!("nv.{}.{}", self.service, self.namespace)
    }
}

/// Everything that people wrote.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// Groups of namespaces.
    pub groups: Vec<Arc<WorkloadGroup>>,
    /// Groups of the cluster.
    pub cluster_groups: Vec<Arc<ClusterWorkloadGroup>>,
    /// Rules of namespaces.
    pub rules: Vec<Arc<NetworkRule>>,
    /// Rules of the cluster.
    pub cluster_rules: Vec<Arc<ClusterNetworkRule>>,
    /// Modes of namespaces.
    pub modes: Vec<Arc<WorkloadMode>>,
    /// Modes of the cluster.
    pub cluster_modes: Vec<Arc<ClusterWorkloadMode>>,
}

impl Objects {
    /// All of them.
    pub fn each(&self) -> impl Iterator<Item = Object> {
        fn of<K>(list: &[Arc<K>], make: fn(Arc<K>) -> Object) -> impl Iterator<Item = Object> {
            list.iter().map(move |object| make(Arc::clone(object)))
        }
        of(&self.groups, Object::Group)
            .chain(of(&self.cluster_groups, Object::ClusterGroup))
            .chain(of(&self.rules, Object::Rule))
            .chain(of(&self.cluster_rules, Object::ClusterRule))
            .chain(of(&self.modes, Object::Mode))
            .chain(of(&self.cluster_modes, Object::ClusterMode))
    }
}

/// One thing that people wrote.
#[derive(Clone, Debug)]
pub enum Object {
    /// Pods, addresses and names of a namespace.
    Group(Arc<WorkloadGroup>),
    /// The same of the cluster.
    ClusterGroup(Arc<ClusterWorkloadGroup>),
    /// Rules of a namespace.
    Rule(Arc<NetworkRule>),
    /// Rules of the cluster.
    ClusterRule(Arc<ClusterNetworkRule>),
    /// A mode in a namespace.
    Mode(Arc<WorkloadMode>),
    /// A mode in the cluster.
    ClusterMode(Arc<ClusterWorkloadMode>),
}

impl Object {
    /// Which it is.
    #[must_use]
    pub fn key(&self) -> ObjectKey {
        fn key<K: ResourceExt>(kind: Kind, object: &K) -> ObjectKey {
            (kind, object.namespace().unwrap_or_default(), object.name_any())
        }
        match self {
            Self::Group(object) => key(Kind::Group, &**object),
            Self::ClusterGroup(object) => key(Kind::ClusterGroup, &**object),
            Self::Rule(object) => key(Kind::Rule, &**object),
            Self::ClusterRule(object) => key(Kind::ClusterRule, &**object),
            Self::Mode(object) => key(Kind::Mode, &**object),
            Self::ClusterMode(object) => key(Kind::ClusterMode, &**object),
        }
    }
}

/// Whom it is about.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// Pods by uid.
    pub pods: BTreeMap<Arc<str>, Arc<Pod>>,
    /// Labels of namespaces, by name.
    pub namespaces: BTreeMap<String, Arc<Labels>>,
    /// Services that have an address.
    pub services: Vec<Arc<Service>>,
    /// What is behind them.
    pub slices: Vec<Arc<Slice>>,
}

/// What is kept of a Service.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Service {
    /// Where it lives.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Its cluster IPs.
    pub addresses: Vec<IpAddr>,
    /// External IPs, and those of load balancers that a node rewrites too.
    pub borrowed: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<NamedPort>,
}

/// What is kept of an EndpointSlice. Only addresses count: whose they are, whoever writes one may say as he likes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Slice {
    /// Where it lives, and its Service.
    pub namespace: Arc<str>,
    /// Name of its Service.
    pub service: Arc<str>,
    /// Its own name.
    pub name: Arc<str>,
    /// Ports of the endpoints, named as the Service's.
    pub ports: Vec<NamedPort>,
    /// Endpoints that a node may send traffic to.
    pub addresses: Vec<IpAddr>,
}

/// A port of a Service or of what is behind it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NamedPort {
    /// Its name, empty if it has none.
    pub name: Box<str>,
    /// By which protocol.
    pub proto: IpProto,
    /// Its number.
    pub port: u16,
}

/// What the objects come to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Sets that rules name.
    pub sets: BTreeMap<Arc<str>, Arc<Set>>,
    /// Rules by id, `outrider.cluster.v1.Rule`s without those that were learned.
    pub rules: BTreeMap<u32, Arc<Rule>>,
    /// Modes by uid, where an object says one.
    pub modes: BTreeMap<Arc<str>, Mode>,
    /// What is to be said of each object.
    pub verdicts: BTreeMap<ObjectKey, Arc<Verdict>>,
}

/// What of a plan may be other than it was before.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Sets, and those of which only a pod changed.
    pub sets: BTreeSet<Arc<str>>,
    /// Rules by id.
    pub rules: BTreeSet<u32>,
    /// Modes by uid.
    pub modes: BTreeSet<Arc<str>>,
    /// Objects of which something else is to be said.
    pub verdicts: BTreeSet<ObjectKey>,
}

/// A named set of endpoints.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Set {
    /// Uids of pods.
    pub members: Uids,
    /// Networks.
    pub networks: Vec<IpNet>,
    /// DNS names, `*.` in front for all below.
    pub names: Vec<Arc<str>>,
    /// Everything outside the internal networks.
    pub external: bool,
    /// The nodes.
    pub nodes: bool,
    /// Everything.
    pub any: bool,
}

/// A rule between two sets.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Rule {
    /// Its number.
    pub id: u32,
    /// The first that matches decides, in this order.
    pub order: u64,
    /// Set of the clients.
    pub from: Arc<str>,
    /// Set of the servers.
    pub to: Arc<str>,
    /// Where it holds: one of a namespace at its target only.
    pub ends: Ends,
    /// Server ports, none for any.
    pub ports: Vec<Ports>,
    /// Applications, none for any.
    pub apps: Vec<u32>,
    /// It refuses.
    pub deny: bool,
    /// For people: `<kind>/<namespace>/<object>/<rule>`.
    pub origin: Arc<str>,
}

/// Which object.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// `WorkloadGroup`.
    Group,
    /// `ClusterWorkloadGroup`.
    ClusterGroup,
    /// `NetworkRule`.
    Rule,
    /// `ClusterNetworkRule`.
    ClusterRule,
    /// `WorkloadMode`.
    Mode,
    /// `ClusterWorkloadMode`.
    ClusterMode,
}

/// An object by kind, namespace (empty for those of the cluster) and name.
pub type ObjectKey = (Kind, String, String);

/// What is to be said of an object, apart from what nodes say.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace, empty for those of the cluster.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its generation.
    pub generation: i64,
    /// Whether it holds.
    pub accepted: bool,
    /// One word: `Accepted`, `Invalid`, `UnknownGroup`, `Contested`, ….
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// What the message is about, `spec.ingress[0].peers[1].group`.
    pub field: Option<String>,
    /// Numbers of its rules, one each; also of those that it had, so that no other gets them while it lives.
    pub rules: Vec<RuleNumber>,
    /// How many pods it is about: targets of rules, members of groups, those that have their mode from it.
    pub count: usize,
    /// Which these are, of rules and groups.
    pub workloads: Uids,
}
