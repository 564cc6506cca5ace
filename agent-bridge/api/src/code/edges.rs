//! What was learned, as edges between groups.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::date::date;
use crate::Rule;

/// The application that could not be identified, as rules name it.
pub(super) const UNKNOWN: &str = "unknown";

/// One end of an edge.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum End {
    /// A group of pods: its whole name, its service, its namespace.
    Pods {
        group: String,
        service: String,
        namespace: String,
    },
    External,
    Nodes,
    /// Whatever comes through a node's tunnel address.
    Ingress,
    Address(IpAddr),
    /// A group of addresses by its name.
    Named(String),
}

impl End {
    /// Reads a group's name. A service's name may have dots, a namespace has none.
    pub(super) fn read(group: &str) -> Self {
        let pods = group
            .strip_prefix("nv.")
            .and_then(|rest| rest.rsplit_once('.'));
        let address = group
            .strip_prefix("Workload:")
            .and_then(|text| text.parse().ok());
        match (pods, address, group) {
            (Some((service, namespace)), ..) => Self::Pods {
                group: group.to_owned(),
                service: service.to_owned(),
                namespace: namespace.to_owned(),
            },
            (_, Some(address), _) => Self::Address(address),
            (.., "external") => Self::External,
            (.., "nodes") => Self::Nodes,
            (.., "Workload:ingress") => Self::Ingress,
            _ => Self::Named(group.to_owned()),
        }
    }

    /// The group's name.
    pub(super) fn group(&self) -> String {
        match self {
            Self::Pods { group, .. } | Self::Named(group) => group.clone(),
            Self::External => "external".into(),
            Self::Nodes => "nodes".into(),
            Self::Ingress => "Workload:ingress".into(),
            Self::Address(address) => format!("Workload:{address}"),
        }
    }

    /// What a rule's name calls it, seen from a namespace.
    pub(super) fn word(&self, from: &str) -> String {
        match self {
            Self::Pods { service, namespace, .. } if namespace == from => service.clone(),
            Self::Pods { service, namespace, .. } => format!("{service}-{namespace}"),
            Self::Address(address) => address.to_string(),
            other => other.group(),
        }
    }
}

/// Who may open what to whom, on one port.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Edge {
    pub(super) to: End,
    pub(super) from: End,
    /// `tcp/80`, `udp/any`, `icmp`, `any`.
    pub(super) port: String,
}

/// In which applications, and why.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// None for any.
    pub(super) apps: BTreeSet<String>,
    /// The server's proxy saw no application in some of it: there, what can't be identified passes too.
    pub(super) unseen: bool,
    sessions: u64,
    last_seen: u64,
}

impl Seen {
    /// Applications as the server's or the client's end has to let them pass.
    pub(super) fn apps_at(&self, server: bool) -> Vec<String> {
        let mut apps = self.apps.clone();
        if server && self.unseen && !apps.is_empty() {
            apps.insert(UNKNOWN.into());
        }
        apps.into_iter().collect()
    }

    /// The evidence, for people.
    pub(super) fn evidence(&self) -> String {
        match self.sessions {
            0 => "learned in the cluster".into(),
            1 => format!("1 session, on {} UTC", date(self.last_seen)),
            many => format!("{many} sessions, the last on {} UTC", date(self.last_seen)),
        }
    }
}

/// Sums up learned rules. Of one that several nodes learned, the node counts that saw more of it.
pub(super) fn edges(rules: &[Rule]) -> BTreeMap<Edge, Seen> {
    let mut all: BTreeMap<Edge, BTreeMap<String, (u64, u64, bool)>> = BTreeMap::new();
    for rule in rules.iter().filter(|rule| rule.learned) {
        for port in rule.ports.split(',') {
            let port = match port {
                "tcp" | "udp" | "sctp" => format!("{port}/any"),
                other => other.to_owned(),
            };
            let edge = Edge { to: End::read(&rule.to), from: End::read(&rule.from), port };
            let apps = all.entry(edge).or_default();
            for app in rule.app.split(',') {
                let (sessions, last, unseen) = apps.entry(app.to_owned()).or_default();
                let evidence = &rule.evidence;
                *sessions = evidence.sessions.max(*sessions);
                *last = evidence.last_seen.max(*last);
                *unseen |= evidence.by_client;
            }
        }
    }
    all.into_iter()
        .map(|(edge, apps)| (edge, together(&apps)))
        .collect()
}

fn together(apps: &BTreeMap<String, (u64, u64, bool)>) -> Seen {
    let mut seen = Seen::default();
    for (app, (sessions, last, unseen)) in apps {
        seen.apps.insert(app.clone());
        seen.sessions = seen.sessions.saturating_add(*sessions);
        seen.last_seen = seen.last_seen.max(*last);
        seen.unseen |= unseen;
    }
    if seen.apps.contains("any") {
        seen.apps.clear();
    }
    seen
}
