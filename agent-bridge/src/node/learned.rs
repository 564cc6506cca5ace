//! The learner's words and the API's, one into the other.

use std::sync::Arc;

use outrider_api::{Conversation, Evidence, Rule, Violation};
use outrider_learn::{PolicyRule, Ports, Row, Sample};
use outrider_model::{IpProto, PolicyAction};
use outrider_wire::{Connection, ConnectionFlags, ext::SampleFlow};

use crate::mailbox::watch::Workload;

/// A workload as the learner knows it.
pub(super) fn workload(workload: &Workload) -> outrider_learn::Workload {
    outrider_learn::Workload {
        uid: Arc::from(workload.uid.as_str()),
        name: workload.name.clone(),
        namespace: workload.namespace.clone(),
        service: workload.service.clone(),
        addresses: workload.addresses.clone(),
        mac: Some(workload.mac),
        labels: workload.labels.clone(),
        managed: true,
    }
}

/// A connection row; `None` if its addresses or its action make no sense.
pub(super) fn row(uid: &Arc<str>, row: &Connection) -> Option<Row> {
    Some(Row {
        reporter: Arc::clone(uid),
        inbound: row.flags.contains(ConnectionFlags::INGRESS),
        client: row.client()?.to_canonical(),
        client_port: (row.client_port != 0).then_some(row.client_port),
        server: row.server()?.to_canonical(),
        port: row.server_port,
        proto: row.ip_proto,
        app: row.application,
        action: row.policy_action.known()?,
        rule: row.policy_id,
        bytes: row.bytes.into(),
        sessions: row.sessions.into(),
        violations: row.violates.into(),
        first_seen: row.first_seen_at.into(),
        last_seen: row.last_seen_at.into(),
        threat: row.threat_id,
        severity: row.severity.severity(),
    })
}

/// A sample flow.
pub(super) fn sample(uid: &Arc<str>, flow: &SampleFlow) -> Sample {
    let names = [&flow.host, &flow.sni];
    Sample {
        reporter: Arc::clone(uid),
        inbound: flow.inbound,
        client: flow.client,
        server: flow.server,
        proto: flow.proto,
        app: flow.app,
        at: flow.at,
        names: names
            .into_iter()
            .filter(|name| is_name(name))
            .map(|name| (**name).into())
            .collect(),
    }
}

/// The longest name of the domain name system, as text.
const MAX_NAME: usize = 253;

/// Whether a text may be shown as a name: what a client wrote goes no further otherwise.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_NAME && text.bytes().all(|byte| byte.is_ascii_graphic())
}

pub(crate) fn conversation(known: &outrider_learn::Conversation) -> Conversation {
    Conversation {
        client: known.client_name.clone(),
        server: known.server_name.clone(),
        client_class: known.key.client.class().into(),
        server_class: known.key.server.class().into(),
        app: known.key.app.to_string(),
        proto: known.key.proto.to_string(),
        port: known.key.port,
        sessions: known.sessions,
        bytes: known.bytes,
        violations: known.violations.total(),
        threats: known.threats,
        action: known.action.label().into(),
        first_seen: known.first_seen,
        last_seen: known.last_seen,
        names: known.names.iter().map(|name| name.to_string()).collect(),
        samples: known.samples.iter().map(ToString::to_string).collect(),
    }
}

pub(crate) fn rule(rule: &outrider_learn::Rule) -> Rule {
    let evidence = &rule.evidence;
    Rule {
        id: rule.id.0,
        from: rule.key.from.to_string(),
        to: rule.key.to.to_string(),
        app: rule.key.app.to_string(),
        ports: ports(rule.key.proto, rule.key.port),
        action: PolicyAction::Allow.label().into(),
        learned: true,
        origin: None,
        evidence: Evidence {
            sessions: evidence.sessions,
            bytes: evidence.bytes,
            clients: evidence.clients() as u64,
            first_seen: evidence.first_seen,
            last_seen: evidence.last_seen,
            samples: evidence.samples.iter().map(ToString::to_string).collect(),
            by_client: evidence.by_client,
        },
    }
}

/// A rule that people wrote, or that the cluster learned.
pub(crate) fn said(rule: &PolicyRule) -> Rule {
    let apps: Vec<_> = rule.apps.iter().map(ToString::to_string).collect();
    let ports: Vec<_> = rule.ports.iter().map(range).collect();
    let or_any = |list: Vec<String>| match list.is_empty() {
        true => "any".to_owned(),
        false => list.join(","),
    };
    let action = if rule.deny { PolicyAction::Deny } else { PolicyAction::Allow };
    Rule {
        id: rule.id.0,
        from: rule.from.to_string(),
        to: rule.to.to_string(),
        app: or_any(apps),
        ports: or_any(ports),
        action: action.label().into(),
        learned: rule.learned,
        origin: Some(rule.origin.to_string()),
        evidence: Evidence::default(),
    }
}

fn range(ports: &Ports) -> String {
    let proto = ports
        .proto
        .map_or_else(|| "any".to_owned(), |proto| proto.to_string());
    match (ports.low, ports.high) {
        (0, u16::MAX) => proto,
        (low, high) if low == high => format!("{proto}/{low}"),
        (low, high) => format!("{proto}/{low}-{high}"),
    }
}

fn ports(proto: IpProto, port: u16) -> String {
    match proto {
        IpProto::TCP | IpProto::UDP | IpProto::SCTP => format!("{proto}/{port}"),
        _ => proto.to_string(),
    }
}

pub(crate) fn violation(known: &outrider_learn::Violation) -> Violation {
    Violation {
        client: known.client_name.clone(),
        server: known.server_name.clone(),
        client_ip: known.key.client_ip.to_string(),
        server_ip: known.key.server_ip.to_string(),
        port: known.key.port,
        proto: known.key.proto.to_string(),
        app: known.key.app.to_string(),
        action: known.action.label().into(),
        rule: known.rule.0,
        reason: known.reason.clone(),
        count: known.count.total(),
        first_seen: known.first_seen,
        last_seen: known.last_seen,
    }
}

#[cfg(test)]
mod tests {
    use outrider_wire::{ActionCode, EtherType};

    use super::*;

    #[test]
    fn a_row_without_meaning_is_none() {
        let pod = Arc::from("pod");
        assert!(row(&pod, &Connection::default()).is_some());
        let family = Connection { ether_type: EtherType(1), ..Connection::default() };
        assert!(row(&pod, &family).is_none());
        let action = Connection { policy_action: ActionCode(99), ..Connection::default() };
        assert!(row(&pod, &action).is_none());
    }

    #[test]
    fn only_what_may_be_shown_is_a_name() {
        assert!(is_name("shop.example") && is_name("[fd00::1]"));
        assert!(!is_name("") && !is_name("a b") && !is_name("a\u{1b}[2J") && !is_name("ä"));
    }
}
