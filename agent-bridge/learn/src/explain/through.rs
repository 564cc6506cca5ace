//! The way through a Service.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use outrider_model::IpProto;

use crate::{Endpoint, Group, Learner, services::Door};

/// Groups behind a Service that are named.
const MAX_NAMED: usize = 8;

/// A way through a Service.
pub(super) struct Through {
    pub(super) text: String,
    pub(super) end: Endpoint,
    /// Of what is behind it; the Service's own name, which is no group, if that is of several.
    pub(super) group: Group,
    /// The port there.
    pub(super) target: u16,
    /// Workloads of this node that are behind it, one of each group, with their address and port.
    pub(super) here: Vec<(Arc<str>, IpAddr, u16)>,
}

impl Learner {
    /// Where a flow to a Service's address leads; `None` if it is none.
    pub(super) fn through(&self, address: IpAddr, proto: IpProto, port: u16) -> Option<Through> {
        let directory = &self.directory;
        let Some(door) = directory.services.door(address, proto, port) else {
            let service = directory.services.owns(address)?;
            let text = format!("Service {} has no port {proto}/{port}", service.name);
            let end = Endpoint::Service(Arc::clone(&service.name));
            let group = Group(Arc::clone(&service.name));
            return Some(Through { text, end, group, target: port, here: Vec::new() });
        };
        let name = &door.service.name;
        let (end, target) = match directory.reached(address, proto, port) {
            Some(reached) => (reached.endpoint, reached.port),
            None => (directory.endpoint(address), port),
        };
        let group = directory
            .group(&end)
            .unwrap_or_else(|| Group(Arc::clone(name)));
        let behind = self.behind(&door, proto);
        let also = match (door.service.partial, door.is_borrowed) {
            (true, _) => ": there is more behind it than is known, so nothing allows it",
            (_, true) => ": the address must be allowed, too, since somebody chose it",
            _ => "",
        };
        let text = format!("Service {name}, {address} {proto}/{port}, to {behind}{also}");
        Some(Through { text, end, group, target, here: self.here(&door) })
    }

    fn behind(&self, door: &Door<'_>, proto: IpProto) -> String {
        let mut groups = BTreeSet::new();
        for (backends, target) in door.backends() {
            let ends = door
                .members(backends)
                .map(|(address, _)| match &backends.group {
                    Some(group) => format!("{group} {proto}/{target}"),
                    None => format!("{address} {proto}/{target}"),
                });
            groups.extend(ends);
        }
        let more = groups.len().saturating_sub(MAX_NAMED);
        let named: Vec<_> = groups.into_iter().take(MAX_NAMED).collect();
        match (named.is_empty(), more) {
            (true, _) => "nobody".into(),
            (false, 0) => named.join(", "),
            (false, more) => format!("{} and {more} more", named.join(", ")),
        }
    }

    fn here(&self, door: &Door<'_>) -> Vec<(Arc<str>, IpAddr, u16)> {
        let mut here = BTreeMap::new();
        for (backends, target) in door.backends() {
            for (address, uid) in door.members(backends) {
                let known = uid.as_ref().and_then(|uid| self.directory.get(uid));
                if let Some(workload) = known {
                    here.entry((workload.group(), target))
                        .or_insert_with(|| (Arc::clone(&workload.uid), *address, target));
                }
            }
        }
        here.into_values().collect()
    }
}
