//! A small node for tests: web, cache and shop, and an intruder.

use std::{collections::BTreeMap, net::IpAddr};

use outrider_model::{AppId, IpProto, Mode, PolicyAction, RuleId, Severity, ThreatId};

use crate::{Group, Learner, Row, Settings, Workload};

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn workload(name: &str, at: u8) -> Workload {
    Workload {
        uid: format!("uid-{name}").into(),
        name: format!("default/{name}"),
        namespace: "default".into(),
        service: name.into(),
        addresses: vec![ip(&format!("10.0.0.{at}")), ip(&format!("fd00::{at}"))],
        mac: None,
        labels: BTreeMap::new(),
        managed: true,
    }
}

/// Pods 2 to 5, in 10.0.0.0/24 and fd00::/64; the node is 10.0.0.1.
pub(crate) fn world() -> Learner {
    let mut learner = Learner::new(Settings::default());
    for name in ["cache", "shop", "web", "intruder"] {
        learner
            .directory_mut()
            .enter(workload(name, number(name)))
            .unwrap();
    }
    let nets = ["10.0.0.0/24", "fd00::/64"];
    learner
        .directory_mut()
        .set_internal(nets.map(|net| net.parse().unwrap()).to_vec());
    learner.directory_mut().set_hosts([ip("10.0.0.1")]);
    learner
}

pub(crate) fn group(name: &str) -> Group {
    Group::of_service(name, "default")
}

pub(crate) fn set_mode(learner: &mut Learner, name: &str, mode: Mode) {
    learner.set_mode(group(name), mode);
}

/// One session with data, as the server's proxy saw it and learned from it.
pub(crate) fn inbound(server: &str, client: &str, port: u16, app: AppId) -> Row {
    let own = if client.contains(':') { v6(server) } else { v4(server) };
    Row {
        reporter: format!("uid-{server}").into(),
        inbound: true,
        client: ip(client),
        client_port: Some(40_000),
        server: own,
        port,
        proto: IpProto::TCP,
        app,
        action: PolicyAction::Learn,
        rule: RuleId::IMPLICIT,
        bytes: 100,
        sessions: 1,
        violations: 0,
        first_seen: 1_000,
        last_seen: 1_001,
        threat: ThreatId::default(),
        severity: Severity::None,
    }
}

/// The same, as the client's proxy saw it.
pub(crate) fn outbound(client: &str, server: &str, port: u16, app: AppId) -> Row {
    let own = if server.contains(':') { v6(client) } else { v4(client) };
    Row {
        reporter: format!("uid-{client}").into(),
        inbound: false,
        client: own,
        server: ip(server),
        ..inbound(client, server, port, app)
    }
}

/// A row of flows outside policy.
pub(crate) fn against(row: Row, action: PolicyAction, violations: u64) -> Row {
    let sessions = if action == PolicyAction::Deny { 0 } else { row.sessions };
    let bytes = if action == PolicyAction::Deny { 0 } else { row.bytes };
    Row { action, violations, sessions, bytes, ..row }
}

fn v4(name: &str) -> IpAddr {
    workload(name, number(name)).addresses[0]
}

fn v6(name: &str) -> IpAddr {
    workload(name, number(name)).addresses[1]
}

fn number(name: &str) -> u8 {
    match name {
        "cache" => 2,
        "shop" => 3,
        "web" => 4,
        _ => 5,
    }
}
