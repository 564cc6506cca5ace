//! Learned rules as a `LearnedPolicy`, and back.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use outrider_learn::{Evidence, Group, LearnKey};
use outrider_model::{AppId, IpProto};
use serde_json::{Value, json};

use super::{Learned, Merged, Service, counted::Batch};
use crate::{
    cluster::objects::{GROUP, LearnedDirection, LearnedPolicy, LearnedRule, MAX_COUNTED, VERSION},
    controller::store::Key,
};

/// Clients of one rule that are named.
const MAX_CLIENTS: usize = 8;

/// What is to be written of one service.
#[derive(Debug)]
pub(in crate::controller) struct Write {
    /// Which.
    pub(in crate::controller) key: Key,
    /// The object, for a server-side apply; `None` if its rules are written.
    pub(in crate::controller) rules: Option<Value>,
    /// Its status.
    pub(in crate::controller) status: Value,
    /// How many rules were made when this was taken.
    made: u64,
}

impl Merged {
    /// Services that have something to write, those with new rules first.
    pub(in crate::controller) fn dirty(&self) -> Vec<(Key, bool)> {
        let dirty = |service: &Service| service.unwritten.is_some() || service.news;
        let found = self.services.iter().filter(|(_, service)| dirty(service));
        let mut found: Vec<_> = found
            .map(|(key, service)| (key.clone(), service.unwritten.is_some()))
            .collect();
        found.sort_by_key(|(_, rules)| !rules);
        found
    }

    /// What is to be written of a service.
    pub(in crate::controller) fn write(&mut self, key: &Key) -> Option<Write> {
        let made = self.made;
        let service = self.services.get_mut(key)?;
        service.news = false;
        let counted: Vec<_> = service
            .counted
            .forget(&self.under_way)
            .iter()
            .map(|(node, batch)| json!({"node": node, "instance": batch.instance, "number": batch.number}))
            .collect();
        let rules = service.unwritten.is_some().then(|| spec(key, service));
        let mut status = status(key, service);
        status["status"]["counted"] = counted.into();
        Some(Write { key: key.clone(), rules, status, made })
    }

    /// It is written, or was not.
    pub(in crate::controller) fn wrote(&mut self, write: &Write, done: bool) {
        let Some(service) = self.services.get_mut(&write.key) else { return };
        if !done {
            service.news = true;
        } else if write.rules.is_some() {
            // Rules that were made meanwhile are still to be written.
            let newer = service.last_made > write.made;
            let now = newer.then_some(write.made + 1);
            let before = std::mem::replace(&mut service.unwritten, now);
            let place = |first| (first, write.key.clone());
            before.map(|first| self.unwritten.remove(&place(first)));
            self.unwritten.extend(now.map(place));
        }
    }
}

/// The service of a group's name `nv.<service>.<namespace>`.
pub(super) fn owner(group: &str) -> Option<Key> {
    let (service, namespace) = group.strip_prefix("nv.")?.rsplit_once('.')?;
    let is_name = |name: &str| {
        let is_letter =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
        !name.is_empty() && name.len() <= 253 && name.bytes().all(is_letter)
    };
    (is_name(service) && is_name(namespace)).then(|| (namespace.to_owned(), service.to_owned()))
}

pub(super) fn key(object: &LearnedPolicy) -> Option<Key> {
    Some((object.namespace()?, object.name_any()))
}

fn head(key: &Key) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/{VERSION}"),
        "kind": "LearnedPolicy",
        "metadata": {"namespace": key.0, "name": key.1},
    })
}

fn spec(key: &Key, service: &Service) -> Value {
    let mut rules: Vec<_> = service
        .rules
        .iter()
        .map(|(rule, learned)| write(key, rule, learned))
        .collect();
    rules.sort_by_key(|rule| rule.id);
    let mut object = head(key);
    object["spec"] = json!({"service": key.1, "rules": rules});
    object
}

fn write(owner: &Key, key: &LearnKey, learned: &Learned) -> LearnedRule {
    let is_ingress = super::object::owner(key.to.name()).as_ref() == Some(owner);
    let (direction, peer) = if is_ingress {
        (LearnedDirection::Ingress, &key.from)
    } else {
        (LearnedDirection::Egress, &key.to)
    };
    let application = match key.app {
        AppId::UNIDENTIFIED => String::new(),
        app => app.name().map_or_else(|| app.0.to_string(), str::to_owned),
    };
    LearnedRule {
        id: learned.id,
        direction,
        peer: peer.name().to_owned(),
        application,
        port: key.port,
        protocol: key.proto.to_string(),
    }
}

fn status(key: &Key, service: &Service) -> Value {
    let mut evidence: Vec<_> = service.rules.values().collect();
    evidence.sort_by_key(|learned| learned.id);
    let time = |seconds: u64| {
        let seconds = i64::try_from(seconds).unwrap_or_default();
        Timestamp::from_second(seconds)
            .unwrap_or_default()
            .to_string()
    };
    let sessions: u64 = evidence
        .iter()
        .map(|learned| learned.seen.counted().sessions)
        .fold(0, u64::saturating_add);
    let evidence: Vec<_> = evidence
        .into_iter()
        .map(|learned| {
            let seen = learned.seen.counted();
            let clients: Vec<_> = seen.addresses().take(MAX_CLIENTS).collect();
            json!({
                "id": learned.id,
                "firstSeen": time(seen.first_seen), "lastSeen": time(seen.last_seen),
                "sessions": seen.sessions, "bytes": seen.bytes, "clients": clients,
            })
        })
        .collect();
    let mut object = head(key);
    object["status"] = json!({
        "counts": {
            "rules": service.rules.len(), "excluded": service.excluded.len(), "sessions": sessions,
        },
        "evidence": evidence,
    });
    object
}

/// The rules of an object with what speaks for them. What cannot be read is left out.
pub(super) fn rules<'a>(
    owner: &'a Key,
    object: &'a LearnedPolicy,
) -> impl Iterator<Item = (LearnKey, u32, Evidence)> + 'a {
    let own = Group::of_service(&owner.1, &owner.0);
    let known = object.status.iter().flat_map(|status| &status.evidence);
    let known: std::collections::HashMap<_, _> = known.map(|one| (one.id, one)).collect();
    object.spec.rules.iter().filter_map(move |rule| {
        let peer = Group::named(&rule.peer);
        let (from, to) = match rule.direction {
            LearnedDirection::Ingress => (peer, own.clone()),
            LearnedDirection::Egress => (own.clone(), peer),
        };
        let app = match &*rule.application {
            "" => AppId::UNIDENTIFIED,
            name => AppId::from_name(name)?,
        };
        let key = LearnKey { from, to, proto: protocol(&rule.protocol)?, port: rule.port, app };
        let mut evidence = Evidence::default();
        if let Some(known) = known.get(&rule.id) {
            evidence.count(known.sessions, known.bytes);
            let clients = known.clients.iter().filter_map(|ip| ip.parse().ok());
            evidence.see_all(clients, seconds(&known.first_seen), seconds(&known.last_seen));
        }
        (rule.id >= super::FIRST_RULE).then_some((key, rule.id, evidence))
    })
}

/// Batches that an object's evidence has, by node.
pub(super) fn counted(object: &LearnedPolicy) -> BTreeMap<Arc<str>, Batch> {
    let counted = object.status.iter().flat_map(|status| &status.counted);
    counted
        .take(MAX_COUNTED)
        .map(|one| {
            let batch = Batch { instance: one.instance.as_str().into(), number: one.number };
            (one.node.as_str().into(), batch)
        })
        .collect()
}

fn seconds(time: &str) -> u64 {
    let time = time.parse::<Timestamp>().map(Timestamp::as_second);
    time.map_or(0, |seconds| u64::try_from(seconds).unwrap_or_default())
}

fn protocol(text: &str) -> Option<IpProto> {
    let named = [IpProto::ICMP, IpProto::TCP, IpProto::UDP, IpProto::ICMPV6, IpProto::SCTP];
    let named = named.into_iter().find(|proto| proto.to_string() == text);
    named.or_else(|| text.strip_prefix("ip/")?.parse().ok().map(IpProto))
}
