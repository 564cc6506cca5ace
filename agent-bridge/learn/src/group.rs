//! What the ends of conversations are called.

use std::{fmt, net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};

/// Name of a set of endpoints that share rules and, if they are workloads, a mode.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Group(pub(crate) Arc<str>);

impl Group {
    /// Everything outside the internal networks.
    pub const EXTERNAL: &'static str = "external";
    /// Every node.
    pub const NODES: &'static str = "nodes";
    /// Whatever reaches a workload through a node's tunnel address.
    pub const INGRESS: &'static str = "Workload:ingress";

    /// A group by its name.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self(name.into())
    }

    /// The group of a service's workloads.
    #[must_use]
    pub fn of_service(service: &str, namespace: &str) -> Self {
        Self(format!("nv.{service}.{namespace}").into())
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }

    /// `<namespace>/<service>`, if workloads are its members.
    pub(crate) fn service(&self) -> Option<String> {
        let (service, namespace) = self.0.strip_prefix("nv.")?.rsplit_once('.')?;
        Some(format!("{namespace}/{service}"))
    }

    /// Whether it is a group without being configured.
    pub(crate) fn is_reserved(&self) -> bool {
        let reserved = [Self::EXTERNAL, Self::NODES, Self::INGRESS];
        self.is_of_workloads()
            || reserved.contains(&self.name())
            || self.name().starts_with(Endpoint::UNMANAGED_PREFIX)
    }

    /// Whether workloads are its members, so that it is the subject of a policy.
    pub(crate) fn is_of_workloads(&self) -> bool {
        self.0.starts_with("nv.")
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One end of a conversation.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Endpoint {
    /// A workload of this node, by uid.
    Workload(Arc<str>),
    /// A node.
    Host(IpAddr),
    /// What comes through a node's tunnel address: who it was cannot be told.
    Ingress,
    /// A group of addresses that was configured, by its name.
    Addresses(Arc<str>),
    /// An internal address that is no workload of this node.
    Unmanaged(IpAddr),
    /// An address outside the internal networks that a workload was given for that name.
    Named(Arc<str>),
    /// Anything else outside the internal networks.
    External,
    /// What is behind a Service's address: one of the workloads of that group, or, if they are of several, one of the
    /// Service `<namespace>/<name>`.
    Service(Arc<str>),
}

impl Endpoint {
    /// How the group of an unmanaged endpoint begins; its address follows.
    pub(crate) const UNMANAGED_PREFIX: &'static str = "Workload:";

    /// The closed word for its kind.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::Workload(_) => "workload",
            Self::Host(_) => "host",
            Self::Ingress => "ingress",
            Self::Addresses(_) => "address-group",
            Self::Unmanaged(_) => "unmanaged",
            Self::Named(_) => "external-name",
            Self::External => "external",
            Self::Service(_) => "service",
        }
    }
}
