//! What proxies tell: summed once, acknowledged once stored, kept over a kill.

use std::net::{IpAddr, Ipv4Addr};

use outrider_model::{AppId, IpProto, PolicyAction, Severity, ThreatAction, ThreatId};
use outrider_wire::{
    AppPort, AppUpdate, Connection, ConnectionFlags, Connections, EtherType, Notification,
    SeverityCode, Text, ThreatActionCode, ThreatFlags, ThreatLog,
    ext::{Batch, Evidence, Instance, SampleFlow},
};

use crate::{
    proxy::Proxy,
    world::{World, mac},
};

/// Redis from pod 3 to pod 2, as pod 2 sees it.
pub(crate) fn row(sessions: u32, action: PolicyAction) -> Connection {
    let ip = |last| IpAddr::V4(Ipv4Addr::new(10, 0, 0, last));
    Connection {
        epmac: mac(2),
        server_port: 6379,
        client_ip: ip(3).into(),
        server_ip: ip(2).into(),
        ether_type: EtherType::IPV4,
        flags: ConnectionFlags::INGRESS,
        bytes: sessions * 100,
        sessions,
        first_seen_at: 100,
        last_seen_at: 200,
        application: AppId::REDIS,
        policy_action: action.into(),
        violates: if action.violates() { 1 } else { 0 },
        ..Connection::default()
    }
}

pub(crate) fn encode(note: impl Into<Notification>) -> Vec<u8> {
    note.into().encode().unwrap()
}

pub(crate) fn batch(instance: u64, seq: u64, notes: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let datagrams = u16::try_from(notes.len()).unwrap();
    let announced = encode(Batch { instance: Instance(instance), seq, datagrams });
    [&[announced], notes].concat()
}

async fn tell(proxy: &Proxy, datagrams: &[Vec<u8>]) {
    for datagram in datagrams {
        proxy.tell(datagram).await;
    }
}

fn rows(rows: Vec<Connection>) -> Vec<u8> {
    encode(Connections { rows })
}

#[tokio::test]
async fn a_batch_is_acknowledged_once_and_counted_once() {
    let world = World::new();
    world.pod("cache", 2);
    world.pod("shop", 3);
    let proxy = Proxy::start(&world.mailbox("cache"));
    let bridge = world.start().await;
    bridge.proxy_is("cache", "connected").await;
    let sent = batch(7, 1, &[rows(vec![row(5, PolicyAction::Learn)])]);
    tell(&proxy, &sent).await;
    proxy.hears_ack(1).await;
    proxy.forget_heard();
    tell(&proxy, &sent).await;
    proxy.hears_ack(1).await;
    let conversations = bridge.get("/v1/conversations").await;
    assert_eq!(conversations[0]["client"], "default/shop", "{conversations}");
    assert_eq!(conversations[0]["app"], "Redis");
    assert_eq!(
        (&conversations[0]["sessions"], &conversations[0]["bytes"]),
        (&5.into(), &500.into())
    );
    let status = bridge.get("/v1/status").await;
    assert_eq!(status["dropped"]["duplicate-batch"], 1, "{status}");
    bridge.stop().await;
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    let world = World::new();
    world.pod("cache", 2);
    world.pod("shop", 3);
    let proxy = Proxy::start(&world.mailbox("cache"));
    let bridge = world.spawn().await;
    bridge.proxy_is("cache", "connected").await;
    let first = batch(7, 1, &[rows(vec![row(5, PolicyAction::Learn), row(1, PolicyAction::Deny)])]);
    tell(&proxy, &first).await;
    proxy.hears_ack(1).await;
    let protect = r#"{"mode":"protect"}"#;
    assert_eq!(
        bridge
            .ask("PUT", "/v1/workloads/cache/mode", protect)
            .await
            .0,
        200
    );
    let before = bridge.get("/v1/conversations").await;
    bridge.kill().await;
    proxy.forget_heard();

    let bridge = world.spawn().await;
    bridge.proxy_is("cache", "connected").await;
    assert_eq!(bridge.get("/v1/conversations").await, before);
    assert_eq!(bridge.get("/v1/violations").await[0]["count"], 1);
    assert_eq!(bridge.get("/v1/workloads").await[0]["mode"], "protect");
    let pushed = proxy.policy().unwrap();
    assert_eq!(pushed.default_action.known(), Some(PolicyAction::Deny));
    tell(&proxy, &first).await;
    proxy.hears_ack(1).await;
    assert_eq!(bridge.get("/v1/conversations").await, before, "counted again after the kill");
    bridge.kill().await;
}

#[tokio::test]
async fn a_new_life_of_the_proxy_starts_its_numbers_again() {
    let world = World::new();
    world.pod("cache", 2);
    let proxy = Proxy::start(&world.mailbox("cache"));
    let bridge = world.start().await;
    bridge.proxy_is("cache", "connected").await;
    tell(&proxy, &batch(7, 9, &[rows(vec![row(5, PolicyAction::Learn)])])).await;
    proxy.hears_ack(9).await;
    tell(&proxy, &batch(8, 1, &[rows(vec![row(2, PolicyAction::Learn)])])).await;
    proxy.hears_ack(1).await;
    let conversations = bridge.get("/v1/conversations").await;
    assert_eq!(conversations[0]["sessions"], 7, "{conversations}");
    assert_eq!(bridge.get("/v1/workloads").await[0]["restarts"], 1);
    bridge.stop().await;
}

#[tokio::test]
async fn a_flow_without_an_application_has_the_one_its_servers_port_speaks() {
    let world = World::new();
    world.pod("cache", 2);
    world.pod("shop", 3);
    let proxy = Proxy::start(&world.mailbox("cache"));
    let bridge = world.start().await;
    bridge.proxy_is("cache", "connected").await;
    let port = AppPort {
        port: 6379,
        proto: AppId::UNKNOWN,
        server: AppId::UNKNOWN,
        application: AppId::REDIS,
        ip_proto: IpProto::TCP,
    };
    let nameless = |action| Connection { application: AppId::UNKNOWN, ..row(2, action) };
    // Announced, and not known to speak anything: a line, but no session yet.
    let announced = Connection { sessions: 0, bytes: 0, ..nameless(PolicyAction::Learn) };
    tell(&proxy, &batch(7, 1, &[rows(vec![announced])])).await;
    proxy.hears_ack(1).await;
    let seen = bridge.get("/v1/conversations").await;
    assert_eq!((&seen[0]["app"], &seen[0]["sessions"]), (&"unknown".into(), &0.into()));
    proxy
        .tell(&encode(AppUpdate { mac: mac(2), ports: vec![port] }))
        .await;
    let flow = SampleFlow {
        client: "10.0.0.3:4000".parse().unwrap(),
        server: "10.0.0.2:6379".parse().unwrap(),
        proto: IpProto::TCP,
        inbound: true,
        app: AppId::UNKNOWN,
        rule: outrider_model::RuleId::IMPLICIT,
        action: PolicyAction::Learn.into(),
        host: String::new(),
        sni: String::new(),
        bytes_client: 100,
        bytes_server: 100,
        at: 150,
    };
    let evidence = encode(Evidence { flows: vec![flow] });
    let told = vec![nameless(PolicyAction::Learn), nameless(PolicyAction::Violate)];
    tell(&proxy, &batch(7, 2, &[rows(told), evidence])).await;
    proxy.hears_ack(2).await;
    let seen = bridge.get("/v1/conversations").await;
    let line = |app: &str| {
        let lines = seen.as_array().unwrap();
        lines
            .iter()
            .find(|line| line["app"] == app)
            .unwrap()
            .clone()
    };
    assert_eq!(line("Redis")["sessions"], 2, "{seen}");
    assert_eq!(line("Redis")["samples"][0], "10.0.0.3:4000 > 10.0.0.2:6379", "{seen}");
    assert_eq!(
        line("unknown")["violations"],
        1,
        "of what is outside policy nobody's word is taken"
    );
    bridge.stop().await;
}

#[tokio::test]
async fn rows_outside_of_a_batch_are_taken_as_they_come() {
    let world = World::new();
    world.pod("cache", 2);
    let proxy = Proxy::start(&world.mailbox("cache"));
    let bridge = world.start().await;
    proxy.tell(&rows(vec![row(1, PolicyAction::Learn)])).await;
    proxy.tell(&rows(vec![row(2, PolicyAction::Learn)])).await;
    bridge
        .until("/v1/conversations", |all| all[0]["sessions"] == 3)
        .await;
    bridge.stop().await;
}

#[tokio::test]
async fn a_threat_is_listed_with_its_evidence_and_a_flow_with_its_name() {
    let world = World::new();
    world.pod("cache", 2);
    let proxy = Proxy::start(&world.mailbox("cache"));
    let bridge = world.start().await;
    let threat = ThreatLog {
        threat_id: ThreatId::SMUGGLING,
        reported_at: 300,
        count: 1,
        action: ThreatActionCode::from(ThreatAction::Drop),
        severity: SeverityCode::from(Severity::High),
        flags: ThreatFlags::TAP
            .with(ThreatFlags::PKT_INGRESS, true)
            .with(ThreatFlags::SESS_INGRESS, true),
        epmac: mac(2),
        src_ip: Ipv4Addr::new(10, 0, 0, 3).into(),
        dst_ip: Ipv4Addr::new(10, 0, 0, 2).into(),
        src_port: 4000,
        dst_port: 80,
        message: Text::cut("two lengths"),
        packet: b"evidence".to_vec(),
        ..ThreatLog::default()
    };
    let flow = SampleFlow {
        client: "10.0.0.3:4000".parse().unwrap(),
        server: "10.0.0.2:443".parse().unwrap(),
        proto: outrider_model::IpProto::TCP,
        inbound: true,
        app: AppId::SSL,
        rule: Default::default(),
        action: PolicyAction::Learn.into(),
        host: String::new(),
        sni: "shop.example".into(),
        bytes_client: 1,
        bytes_server: 2,
        at: 300,
    };
    let notes = [encode(threat), encode(Evidence { flows: vec![flow] })];
    tell(&proxy, &batch(7, 1, &notes)).await;
    let threats = bridge
        .until("/v1/threats", |all| !all.as_array().unwrap().is_empty())
        .await;
    assert_eq!(threats[0]["name"], "HTTP.Request.Smuggling");
    assert_eq!(
        (&threats[0]["action"], &threats[0]["evidence"]),
        (&"alert".into(), &"ZXZpZGVuY2U=".into())
    );
    let flows = bridge
        .until("/v1/flows", |all| !all.as_array().unwrap().is_empty())
        .await;
    assert_eq!((&flows[0]["sni"], &flows[0]["app"]), (&"shop.example".into(), &"SSL".into()));
    bridge.stop().await;
}
