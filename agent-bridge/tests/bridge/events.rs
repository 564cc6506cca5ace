//! The stream of events: what is told, where it goes on, and how it ends.

use std::time::Duration;

use outrider_model::PolicyAction;
use outrider_wire::Connections;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines, ReadHalf, WriteHalf, split},
    net::UnixStream,
    time::timeout,
};

use crate::{
    proxy::Proxy,
    reports::{encode, row},
    world::World,
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
