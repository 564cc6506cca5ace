//! Messages of the controller in the learner's words. What cannot be read is refused one by one, so that the rest
//! holds.

use std::{net::IpAddr, sync::Arc};

use outrider_api::cluster::{Ends as WireEnds, Rule, Service, SetChange, Workload};
use outrider_learn::{
    Backends, Ends, Group, MAX_RULE_PARTS, MAX_SERVICE_PARTS, MAX_SET_PARTS, PolicyRule, Ports,
    Service as Served, SetChange as Set, Workload as Known,
};
use outrider_model::{AppId, IpProto, RuleId};

use crate::mailbox::watch::{MAX_ADDRESSES, is_name, is_uid};

/// An address of 4 or 16 bytes.
pub(super) fn address(bytes: &[u8]) -> Option<IpAddr> {
    match *bytes {
        [a, b, c, d] => Some(IpAddr::from([a, b, c, d])),
        _ => <[u8; 16]>::try_from(bytes)
            .ok()
            .map(|all| IpAddr::from(all).to_canonical()),
    }
}

/// The same the other way.
pub(super) fn bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// A workload.
pub(super) fn workload(said: &Workload) -> Option<Known> {
    let Workload { uid, namespace, name, service, addresses, managed } = said;
    let is_readable = is_uid(uid)
        && [namespace, name, service]
            .into_iter()
            .all(|text| is_name(text));
    if !is_readable || addresses.len() > MAX_ADDRESSES {
        return None;
    }
    Some(Known {
        uid: uid.as_str().into(),
        name: format!("{namespace}/{name}"),
        namespace: namespace.clone(),
        service: service.clone(),
        addresses: addresses
            .iter()
            .map(|one| address(one))
            .collect::<Option<_>>()?,
        mac: None,
        labels: Default::default(),
        managed: *managed,
    })
}

/// What a Service is known by.
pub(super) fn service_name(said: &Service) -> String {
    format!("{}/{}", said.namespace, said.name)
}

/// A Service.
pub(super) fn service(said: &Service) -> Option<Served> {
    let is_readable = [&said.namespace, &said.name]
        .into_iter()
        .all(|text| is_name(text));
    let parts = [said.addresses.len(), said.borrowed.len(), said.ports.len()];
    if !is_readable || parts.iter().any(|count| *count > MAX_SERVICE_PARTS) {
        return None;
    }
    let addresses = |all: &[Vec<u8>]| all.iter().map(|one| address(one)).collect::<Option<_>>();
    let ports = said.ports.iter().map(|one| {
        let proto = IpProto(u8::try_from(one.proto).ok()?);
        Some((proto, u16::try_from(one.port).ok()?))
    });
    Some(Served {
        name: service_name(said).into(),
        addresses: addresses(&said.addresses)?,
        borrowed: addresses(&said.borrowed)?,
        ports: ports.collect::<Option<_>>()?,
        backends: said.backends.iter().map(backends).collect::<Option<_>>()?,
        partial: said.partial,
    })
}

fn backends(said: &outrider_api::cluster::Backends) -> Option<Backends> {
    let targets = said.targets.iter().map(|port| u16::try_from(*port).ok());
    let uids = said.uids.iter().map(|uid| Some(Arc::from(uid.as_str())));
    let uids = uids.chain(std::iter::repeat(None));
    let members = said
        .addresses
        .iter()
        .zip(uids)
        .map(|(one, uid)| Some((address(one)?, uid)));
    // Groups of workloads only: no other is anybody's by being written here.
    let group = (!said.group.is_empty()).then(|| Group::named(&said.group));
    if group
        .as_ref()
        .is_some_and(|group| !group.name().starts_with("nv."))
    {
        return None;
    }
    Some(Backends {
        group,
        managed: said.managed,
        targets: targets.collect::<Option<_>>()?,
        members: members.collect::<Option<_>>()?,
    })
}

/// A set, or what changed in it.
pub(super) fn set(said: &SetChange) -> Option<Set> {
    if said.networks.len() > MAX_SET_PARTS || said.names.len() > MAX_SET_PARTS {
        return None;
    }
    let uids = |all: &[String]| all.iter().map(|uid| Arc::from(uid.as_str())).collect();
    let networks = said.networks.iter().map(|text| text.parse().ok());
    let names = said.names.iter().map(|text| text.parse().ok());
    Some(Set {
        name: Group::named(&said.name),
        whole: said.whole,
        added: uids(&said.added),
        removed: uids(&said.removed),
        networks: networks.collect::<Option<_>>()?,
        names: names.collect::<Option<_>>()?,
        external: said.external,
        nodes: said.nodes,
        any: said.any,
    })
}

/// A rule.
pub(super) fn rule(said: &Rule) -> Option<PolicyRule> {
    if said.ports.len() > MAX_RULE_PARTS || said.apps.len() > MAX_RULE_PARTS {
        return None;
    }
    let ends = match WireEnds::try_from(said.ends).ok()? {
        WireEnds::Both => Ends::Both,
        WireEnds::Server => Ends::Server,
        WireEnds::Client => Ends::Client,
    };
    let mut all: Vec<_> = said
        .ports
        .iter()
        .map(|one| ports(one.proto, one.low, one.high))
        .collect();
    let one = ports(said.proto, said.low_port, said.high_port);
    if all.is_empty() && one != Some(Ports::ANY) {
        all.push(one);
    }
    Some(PolicyRule {
        id: RuleId(said.id),
        order: said.order,
        from: Group::named(&said.from),
        to: Group::named(&said.to),
        ends,
        ports: all.into_iter().collect::<Option<_>>()?,
        apps: said.apps.iter().map(|app| AppId(*app)).collect(),
        deny: said.deny,
        learned: said.learned,
        origin: said.origin.as_str().into(),
    })
}

/// Protocol 0 is any; a range of 0 to 0, which is what is not said, is every port.
fn ports(proto: u32, low: u32, high: u32) -> Option<Ports> {
    let proto = u8::try_from(proto).ok()?;
    let (low, high) = (u16::try_from(low).ok()?, u16::try_from(high).ok()?);
    let high = if (low, high) == (0, 0) { u16::MAX } else { high };
    Some(Ports { proto: (proto != 0).then_some(IpProto(proto)), low, high })
}
