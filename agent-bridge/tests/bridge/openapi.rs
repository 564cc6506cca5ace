//! The OpenAPI document against what the bridge really answers.

use std::net::{IpAddr, Ipv4Addr};

use outrider_model::{AppId, IpProto, PolicyAction, Severity, ThreatId};
use outrider_wire::{
    Connections, Session, SeverityCode, Text, ThreatFlags, ThreatLog,
    ext::{Evidence, Refusal, SampleFlow, Status},
};
use serde_json::Value;

use crate::{
    captures,
    events::Source,
    proxy::Proxy,
    reports::{encode, row},
    world::{Running, World, mac},
};

/// What is wrong with a value, measured by a schema of the document. Members that the schema does
/// not have are wrong too: every field has to be in it.
fn mistakes(document: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(reference.trim_start_matches('#')).unwrap();
        return mistakes(document, target, value, at, found);
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let is_of = |wanted: &&str| match *wanted {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("{at}: the schema has a type {other} that no answer has"),
    };
    if !types.is_empty() && !types.iter().any(is_of) {
        found.push(format!("{at}: {value} is no {types:?}"));
    }
    for choices in [&schema["oneOf"], &schema["anyOf"]] {
        let fits = |choice: &Value| {
            let mut wrong = Vec::new();
            mistakes(document, choice, value, at, &mut wrong);
            wrong.is_empty()
        };
        if choices.is_array() && !choices.as_array().unwrap().iter().any(fits) {
            found.push(format!("{at}: {value} is none of {choices}"));
        }
    }
    let listed = |name: &str| schema[name].as_array().cloned();
    if listed("enum").is_some_and(|all| !all.contains(value)) {
        found.push(format!("{at}: {value} is none of {}", schema["enum"]));
    }
    if !schema["const"].is_null() && schema["const"] != *value {
        found.push(format!("{at}: {value} is not {}", schema["const"]));
    }
    for (number, item) in value.as_array().into_iter().flatten().enumerate() {
        mistakes(document, &schema["items"], item, &format!("{at}[{number}]"), found);
    }
    let Some(members) = value.as_object() else { return };
    for name in listed("required").unwrap_or_default() {
        if !members.contains_key(name.as_str().unwrap()) {
            found.push(format!("{at}: {name} is missing"));
        }
    }
    for (name, member) in members {
        let known = match (&schema["properties"][name], &schema["additionalProperties"]) {
            (Value::Null, Value::Null) if schema["properties"].is_object() => {
                found.push(format!("{at}.{name} is not in the document"));
                continue;
            }
            (Value::Null, more) => more,
            (known, _) => known,
        };
        mistakes(document, known, member, &format!("{at}.{name}"), found);
    }
}

fn is_right(document: &Value, schema: &Value, value: &Value, at: &str) {
    assert!(!schema.is_null(), "{at} has no schema");
    let mut found = Vec::new();
    mistakes(document, schema, value, at, &mut found);
    assert!(found.is_empty(), "{found:#?}");
}

/// A node that has something to say on every path.
async fn busy(world: &World) -> (Proxy, Running) {
    world.pod("cache", 2);
    world.pod("shop", 3);
    let proxy = Proxy::start(&world.mailbox("cache"));
    let bridge = world.start().await;
    bridge.proxy_is("cache", "connected").await;
    let threat = ThreatLog {
        threat_id: ThreatId::SMUGGLING,
        reported_at: 300,
        count: 1,
        severity: SeverityCode::from(Severity::High),
        flags: ThreatFlags::TAP
            .with(ThreatFlags::PKT_INGRESS, true)
            .with(ThreatFlags::SESS_INGRESS, true),
        epmac: mac(2),
        src_ip: Ipv4Addr::new(10, 0, 0, 3).into(),
        dst_ip: Ipv4Addr::new(10, 0, 0, 2).into(),
        message: Text::cut("two lengths"),
        packet: b"evidence".to_vec(),
        ..ThreatLog::default()
    };
    let address = |last| IpAddr::V4(Ipv4Addr::new(10, 0, 0, last));
    let flow = SampleFlow {
        client: (address(3), 4000).into(),
        server: (address(2), 6379).into(),
        proto: IpProto::TCP,
        inbound: true,
        app: AppId::REDIS,
        rule: Default::default(),
        action: PolicyAction::Learn.into(),
        host: String::new(),
        sni: "shop.example".into(),
        bytes_client: 1,
        bytes_server: 2,
        at: 300,
    };
    let rows = |action| encode(Connections { rows: vec![row(9, action)] });
    for datagram in [
        rows(PolicyAction::Learn),
        rows(PolicyAction::Learn),
        rows(PolicyAction::Deny),
        encode(threat),
        encode(Evidence { flows: vec![flow] }),
    ] {
        proxy.tell(&datagram).await;
    }
    let session = Session { id: 1, epmac: mac(2), ..Session::default() };
    proxy.carries(vec![session]);
    let captured = captures::take(&world.path().join("api.sock"), "cache", "{}").await;
    assert_eq!(captured.status, 200);
    (proxy, bridge)
}

#[tokio::test]
async fn every_answer_is_as_the_document_says() {
    let mut world = World::new();
    let file = world.path().join("policy.yaml");
    world.set("OUTRIDER_BRIDGE_POLICY", file.display().to_string());
    let (_proxy, bridge) = busy(&world).await;
    let document = bridge.get("/v1/openapi.json").await;
    let answers = |path: &str, method: &str, status: &str| {
        let place = &document["paths"][path][method]["responses"][status];
        place["content"]["application/json"]["schema"].clone()
    };
    let mut checked = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        if methods["get"].is_null() || path == "/v1/events" {
            continue;
        }
        let is_list = answers(path, "get", "200")["type"] == "array";
        let query = "?client=10.0.0.9&server=cache&port=6379&app=redis";
        let asked = if path == "/v1/explain" { format!("{path}{query}") } else { path.clone() };
        let has_content =
            |value: &Value| !is_list || value.as_array().is_some_and(|all| !all.is_empty());
        let answer = bridge.until(&asked, has_content).await;
        is_right(&document, &answers(path, "get", "200"), &answer, path);
        checked += 1;
    }
    assert_eq!(checked, 12);
    for (status, mode) in [(200, "protect"), (400, "block")] {
        let body = format!("{{\"mode\":{mode:?}}}");
        let (found, said) = bridge.ask("PUT", "/v1/workloads/cache/mode", &body).await;
        assert_eq!(found, status);
        let key = if status == 200 { "200" } else { "default" };
        let schema = answers("/v1/workloads/{name}/mode", "put", key);
        is_right(&document, &schema, &said, "mode");
    }
    let asked = r#"{"policy":"kind: Pod"}"#;
    for (path, method) in [("/v1/policy", "put"), ("/v1/policy/replay", "post")] {
        let (found, said) = bridge.ask(&method.to_uppercase(), path, asked).await;
        assert_eq!(found, 200, "{said}");
        is_right(&document, &answers(path, method, "200"), &said, path);
    }
    bridge.stop().await;
}

#[tokio::test]
async fn every_event_is_as_the_document_says() {
    let world = World::new();
    let (proxy, bridge) = busy(&world).await;
    let document = bridge.get("/v1/openapi.json").await;
    let stream = &document["paths"]["/v1/events"]["get"]["responses"]["200"]["content"];
    let data = &stream["text/event-stream"]["x-event-data"];
    bridge
        .ask("PUT", "/v1/workloads/cache/mode", r#"{"mode":"protect"}"#)
        .await;
    proxy.says(&Status { refused: Some(Refusal::new("odd", String::new())), ..Status::default() });
    bridge
        .ask("PUT", "/v1/workloads/cache/mode", r#"{"mode":"monitor"}"#)
        .await;
    // An earlier life's id: the gap comes first, then all that is kept.
    let mut source = Source::open(&world, "", Some("1-0.0.0.0")).await;
    let mut missing: Vec<_> = data.as_object().unwrap().keys().cloned().collect();
    while !missing.is_empty() {
        let event = source.next().await.unwrap();
        is_right(&document, &data[&event.kind], &event.data, &event.kind);
        missing.retain(|kind| *kind != event.kind);
    }
    bridge.stop().await;
}
