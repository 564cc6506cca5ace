//! The stream of events: what is told, where it goes on, and how it ends.

use std::{net::Ipv4Addr, time::Duration};

use outrider_model::{PolicyAction, Severity, ThreatId};
use outrider_wire::{Connections, SeverityCode, Text, ThreatFlags, ThreatLog};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines, ReadHalf, WriteHalf, split},
    net::UnixStream,
    time::timeout,
};

use crate::{
    proxy::Proxy,
    reports::{encode, row},
    world::{World, mac},
};

const PATIENCE: Duration = Duration::from_secs(20);
const MODE: &str = "/v1/workloads/cache/mode";

/// An `EventSource`.
pub(crate) struct Source {
    lines: Lines<BufReader<ReadHalf<UnixStream>>>,
    _other_half: WriteHalf<UnixStream>,
    pub(crate) status: u16,
}

pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) data: Value,
}

impl Source {
    pub(crate) async fn open(world: &World, query: &str, last: Option<&str>) -> Self {
        let stream = UnixStream::connect(world.path().join("api.sock"))
            .await
            .unwrap();
        let (reader, mut writer) = split(stream);
        let last = last.map_or_else(String::new, |id| format!("last-event-id: {id}\r\n"));
        let request = format!("GET /v1/events{query} HTTP/1.1\r\nhost: localhost\r\n{last}\r\n");
        writer.write_all(request.as_bytes()).await.unwrap();
        let mut lines = BufReader::new(reader).lines();
        let first = lines.next_line().await.unwrap().unwrap();
        let status = first.split(' ').nth(1).unwrap().parse().unwrap();
        while !lines.next_line().await.unwrap().unwrap().is_empty() {}
        Self { lines, _other_half: writer, status }
    }

    /// The next event; `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        let (mut id, mut kind, mut data) = (String::new(), String::new(), None);
        loop {
            let line = timeout(PATIENCE, self.lines.next_line()).await.unwrap();
            let line = line.unwrap()?;
            match line.split_once(": ") {
                Some(("id", text)) => id = text.into(),
                Some(("event", text)) => kind = text.into(),
                Some(("data", text)) => data = Some(serde_json::from_str(text).unwrap()),
                _ if line.is_empty() && data.is_some() => {
                    return Some(Event { id, kind, data: data.unwrap_or_default() });
                }
                // Chunk sizes, comments.
                _ => {}
            }
        }
    }
}

#[tokio::test]
async fn modes_and_violations_are_told_and_a_listener_goes_on_where_it_was() {
    let world = World::new();
    world.pod("cache", 2);
    let proxy = Proxy::start(&world.mailbox("cache"));
    let bridge = world.start().await;
    bridge.proxy_is("cache", "connected").await;
    let mut source = Source::open(&world, "?kinds=mode,violation", None).await;
    bridge.ask("PUT", MODE, r#"{"mode":"protect"}"#).await;
    let first = source.next().await.unwrap();
    assert_eq!((first.kind.as_str(), &first.data["mode"]), ("mode", &"protect".into()));
    drop(source);
    proxy
        .tell(&encode(Connections { rows: vec![row(3, PolicyAction::Deny)] }))
        .await;
    bridge
        .until("/v1/violations", |all| all[0]["count"] == 1)
        .await;
    let mut source = Source::open(&world, "?kinds=mode,violation", Some(&first.id)).await;
    let second = source.next().await.unwrap();
    assert_eq!((second.kind.as_str(), &second.data["count"]), ("violation", &1.into()));
    assert_ne!(first.id, second.id);
    bridge.stop().await;
    assert!(source.next().await.is_none(), "the stream ends with the bridge");
}

#[tokio::test]
async fn a_listener_of_an_earlier_life_is_told_of_the_gap() {
    let world = World::new();
    world.pod("cache", 2);
    let bridge = world.start().await;
    bridge.proxy_is("cache", "never").await;
    bridge.ask("PUT", MODE, r#"{"mode":"monitor"}"#).await;
    let mut source = Source::open(&world, "?kinds=mode", Some("1-0.0.0.7")).await;
    let gap = source.next().await.unwrap();
    assert_eq!((gap.kind.as_str(), &gap.data["missed"]), ("gap", &Value::Null));
    assert_eq!(source.next().await.unwrap().kind, "mode");
    for (query, last) in [("?kinds=nonsense", None), ("", Some("nonsense"))] {
        assert_eq!(Source::open(&world, query, last).await.status, 400);
    }
    bridge.stop().await;
}

#[tokio::test]
async fn a_threat_that_both_ends_report_is_one_event_there_and_in_the_export() {
    let mut world = World::new();
    let file = world.path().join("events.json");
    world.set("OUTRIDER_EXPORT_FILE", file.display().to_string());
    world.pod("cache", 2);
    world.pod("shop", 3);
    let proxies = ["shop", "cache"].map(|name| Proxy::start(&world.mailbox(name)));
    let bridge = world.start().await;
    for name in ["shop", "cache"] {
        bridge.proxy_is(name, "connected").await;
    }
    let mut source = Source::open(&world, "?kinds=threat,mode", None).await;
    let report = |number: u8, flags, severity| ThreatLog {
        threat_id: ThreatId::SMUGGLING,
        reported_at: 300,
        count: 1,
        severity: SeverityCode::from(severity),
        flags,
        epmac: mac(number),
        src_ip: Ipv4Addr::new(10, 0, 0, 3).into(),
        dst_ip: Ipv4Addr::new(10, 0, 0, 2).into(),
        dst_port: 80,
        message: Text::cut("two lengths"),
        ..ThreatLog::default()
    };
    let inbound = ThreatFlags::PKT_INGRESS.with(ThreatFlags::SESS_INGRESS, true);
    let client = report(3, ThreatFlags::NONE, Severity::High);
    let server = report(2, inbound, Severity::High);
    proxies[0].tell(&encode(client.clone())).await;
    proxies[1].tell(&encode(server)).await;
    let told = source.next().await.unwrap();
    assert_eq!((&told.data["workload"], &told.data["count"]), (&"default/cache".into(), &1.into()));
    // A second finding that the server does not have is told later: nothing came in between.
    proxies[0].tell(&encode(client)).await;
    let told = source.next().await.unwrap();
    assert_eq!((&told.data["workload"], &told.data["count"]), (&"default/shop".into(), &1.into()));
    let written = async {
        loop {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            if text.lines().count() >= 2 {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let text = timeout(PATIENCE, written).await.unwrap();
    let events = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let events: Vec<_> = events
        .map(|event| (event["workload"].clone(), event["count"].clone()))
        .collect();
    assert_eq!(events, [("default/cache".into(), 1.into()), ("default/shop".into(), 1.into())]);
    bridge.stop().await;
}

#[tokio::test]
async fn there_are_places_for_so_many_listeners() {
    let world = World::new();
    let bridge = world.start().await;
    let mut open = Vec::new();
    let refused = loop {
        let source = Source::open(&world, "", None).await;
        if source.status != 200 || open.len() > 64 {
            break source.status;
        }
        open.push(source);
    };
    assert_eq!((open.len(), refused), (64, 503));
    drop(open);
    let free = async {
        while Source::open(&world, "", None).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, free).await.unwrap();
    bridge.stop().await;
}
