//! Services that the controller tells of: in what a client's proxy is told, in rows, and in answers.

use std::net::IpAddr;

use outrider_api::cluster::{Backends, Service, ServicePort, Update, from_node};
use outrider_model::{AppId, IpProto, PolicyAction};
use outrider_wire::{ConnectionFlags, Connections};

use crate::{
    cluster::{Controller, everything, linked, until},
    proxy::Proxy,
    reports::{batch, encode, row},
};

const AT: [u8; 4] = [10, 96, 0, 9];

/// Service shop/web, port 80, in front of port 8080 of shop/web-1.
fn service() -> Service {
    let backends = Backends {
        group: "nv.web.shop".into(),
        managed: true,
        targets: vec![8080],
        addresses: vec![vec![10, 9, 0, 7]],
        uids: vec!["far-away".into()],
    };
    Service {
        namespace: "shop".into(),
        name: "web".into(),
        addresses: vec![AT.to_vec()],
        ports: vec![ServicePort { proto: 6, port: 80 }],
        backends: vec![backends],
        ..Service::default()
    }
}

fn update(revision: u64) -> Update {
    Update { epoch: "first".into(), revision, ..Update::default() }
}

/// What the proxy was told of the Service's address, by rule and action.
fn told(proxy: &Proxy) -> Vec<(u32, Option<PolicyAction>)> {
    let rules = proxy
        .policy()
        .map(|policy| policy.rules)
        .unwrap_or_default();
    let door = IpAddr::from(AT);
    let own = rules.iter().filter(|rule| {
        rule.server.0 == Some(door) && (rule.port, rule.port_end) == (80, 80) && !rule.ingress
    });
    own.map(|rule| (rule.id.0, rule.action.known())).collect()
}

/// A flow as the client's proxy sees it: the server's word counts for what passed.
async fn opens_a_flow(proxy: &Proxy, controller: &Controller) {
    let mut seen = row(3, PolicyAction::Allow);
    (seen.client_ip, seen.server_ip) =
        (IpAddr::from([10, 0, 0, 2]).into(), IpAddr::from(AT).into());
    (seen.flags, seen.server_port) = (ConnectionFlags::default(), 80);
    seen.application = AppId::HTTP;
    for datagram in batch(1, 1, &[encode(Connections { rows: vec![seen] })]) {
        proxy.tell(&datagram).await;
    }
    let said = controller
        .hears(|message| match message {
            from_node::Message::Observed(said) => said.conversations.first().cloned(),
            _ => None,
        })
        .await;
    assert_eq!((&*said.to, said.port, said.side), ("nv.web.shop", 8080, 1), "{said:?}");
    assert_eq!(IpProto(u8::try_from(said.proto).unwrap()), IpProto::TCP);
}

#[tokio::test]
async fn a_service_is_judged_by_what_is_behind_it_until_it_is_gone() {
    let (world, controller) = linked().await;
    // `cache` may open the port of what is behind.
    let mut first = everything(7);
    let rule = &mut first.rules[0];
    (rule.from, rule.to) = ("servers".into(), "clients".into());
    (rule.ports[0].low, rule.ports[0].high) = (8080, 8080);
    first.services = vec![service()];
    first.internal = vec!["10.96.0.0/24".into()];
    controller.says_first(first);
    world.pod("cache", 2);
    let proxy = Proxy::start(&world.mailbox("cache"));
    let bridge = world.start().await;
    controller.runs("cache", 7, "protect").await;
    assert_eq!(told(&proxy), [(200_001, Some(PolicyAction::Allow))]);
    let asked = "/v1/explain?client=default/cache&server=10.96.0.9&port=80";
    let answer = bridge.get(asked).await;
    assert_eq!(
        (&answer["verdict"], &answer["judged"][0]["rule"]),
        (&"allow".into(), &200_001.into())
    );
    assert_eq!(
        answer["service"], "Service shop/web, 10.96.0.9 tcp/80, to nv.web.shop tcp/8080",
        "{answer}"
    );
    opens_a_flow(&proxy, &controller).await;
    let conversations = bridge.get("/v1/conversations").await;
    assert_eq!(conversations.as_array().map(Vec::len), Some(0), "{conversations}");
    // Somebody lets it lead elsewhere too: one backend that is not allowed closes it.
    let mut moved = service();
    moved.backends.push(Backends {
        targets: vec![8080],
        addresses: vec![vec![10, 0, 0, 9]],
        ..Backends::default()
    });
    controller.says(Update { services: vec![moved], ..update(8) });
    controller.runs("cache", 8, "protect").await;
    until(|| {
        told(&proxy)
            .iter()
            .all(|(_, action)| *action != Some(PolicyAction::Allow))
    })
    .await;
    let answer = bridge.get(asked).await;
    assert_eq!(answer["verdict"], "deny", "{answer}");
    controller.says(Update { services_gone: vec!["shop/web".into()], ..update(9) });
    controller.runs("cache", 9, "protect").await;
    until(|| told(&proxy).is_empty()).await;
    let answer = bridge.get(asked).await;
    assert_eq!(
        (&answer["service"], &answer["server"]),
        (&serde_json::Value::Null, &"10.96.0.9".into())
    );
    bridge.stop().await;
}
