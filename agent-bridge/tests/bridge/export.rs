//! Events leave the bridge at least once, with the same id, however often it is killed.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
    time::Duration,
};

use outrider_model::{PolicyAction, Severity, ThreatAction, ThreatId};
use outrider_wire::{Connections, SeverityCode, Text, ThreatActionCode, ThreatFlags, ThreatLog};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

use crate::{
    proxy::Proxy,
    reports::{batch, encode, row},
    world::{World, mac},
};

/// Longest wait for anything.
const LONG: Duration = Duration::from_secs(60);
/// A limit that none of these tests reaches.
const MANY: (&str, &str) = ("OUTRIDER_EXPORT_RATE", "1000");

/// An HTTP receiver that remembers events, and answers when it is told to.
#[derive(Clone, Default)]
struct Receiver {
    /// How often each event came, by id, and what it was.
    events: Arc<Mutex<BTreeMap<String, (usize, Value)>>>,
    answers: Arc<Mutex<bool>>,
}

impl Receiver {
    async fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let this = self.clone();
        #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let this = this.clone();
                #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
                tokio::spawn(async move { this.serve(stream).await });
            }
        });
        url
    }

    async fn serve(&self, stream: TcpStream) -> Option<()> {
        let mut stream = BufReader::new(stream);
        let (mut line, mut length) = (String::new(), 0);
        while line != "\r\n" {
            line.clear();
            stream.read_line(&mut line).await.ok()?;
            if let Some(text) = line.strip_prefix("content-length: ") {
                length = text.trim().parse().ok()?;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        let events: Vec<Value> = serde_json::from_slice(&body).ok()?;
        for event in events {
            let id = event["id"].as_str()?.to_owned();
            let mut known = self.events.lock();
            let (times, seen) = known.entry(id).or_insert((0, event.clone()));
            assert_eq!(*seen, event, "the same id is the same event");
            *times += 1;
        }
        if !*self.answers.lock() {
            // Until the bridge is gone.
            stream.read_u8().await.ok()?;
        }
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(answer).await.ok()
    }

    async fn until(&self, what: &str, right: impl Fn(&BTreeMap<String, (usize, Value)>) -> bool) {
        let asked = async {
            while !right(&self.events.lock()) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let seen = timeout(LONG, asked).await;
        assert!(seen.is_ok(), "{what}: {} events", self.events.lock().len());
    }
}

fn threat(number: u32) -> Vec<u8> {
    encode(ThreatLog {
        threat_id: ThreatId::SMUGGLING,
        reported_at: 300,
        count: 1,
        action: ThreatActionCode::from(ThreatAction::Drop),
        severity: SeverityCode::from(Severity::High),
        flags: ThreatFlags::PKT_INGRESS.with(ThreatFlags::SESS_INGRESS, true),
        epmac: mac(2),
        src_ip: Ipv4Addr::new(10, 0, 0, 3).into(),
        dst_ip: Ipv4Addr::new(10, 0, 0, 2).into(),
        src_port: 4000,
        dst_port: 80,
        message: Text::cut(&format!("finding {number}")),
        packet: b"evidence".to_vec(),
        ..ThreatLog::default()
    })
}

async fn tell_threats(proxy: &Proxy, seq: u64, numbers: std::ops::Range<u32>) {
    let notes: Vec<_> = numbers.map(threat).collect();
    for datagram in batch(7, seq, &notes) {
        proxy.tell(&datagram).await;
    }
    proxy.hears_ack(seq).await;
}

#[tokio::test]
async fn a_kill_in_mid_batch_repeats_events_under_the_same_id_and_loses_none() {
    let world = World::new();
    world.pod("cache", 2);
    let proxy = Proxy::start(&world.mailbox("cache"));
    let receiver = Receiver::default();
    let url = receiver.start().await;
    let webhook = ("OUTRIDER_EXPORT_WEBHOOK", url.as_str());
    let (mut acknowledged, mut told) = (0, 0);
    for life in 0..4u32 {
        let bridge = world.spawn_with(&[webhook, MANY]).await;
        bridge.proxy_is("cache", "connected").await;
        tell_threats(&proxy, u64::from(life) + 1, acknowledged..acknowledged + 40).await;
        acknowledged += 40;
        // The receiver has a batch, and the bridge does not know.
        let all = |events: &BTreeMap<String, (usize, Value)>| {
            events.values().map(|(times, _)| times).sum::<usize>()
        };
        let before = told;
        receiver
            .until("before the kill", |events| all(events) > before)
            .await;
        told = all(&receiver.events.lock());
        bridge.kill().await;
        proxy.forget_heard();
    }
    *receiver.answers.lock() = true;
    let bridge = world.spawn_with(&[webhook, MANY]).await;
    receiver
        .until("after the last start", |events| events.len() == acknowledged as usize)
        .await;
    let messages = |events: &BTreeMap<String, (usize, Value)>| {
        let texts: BTreeSet<_> = events
            .values()
            .map(|(_, event)| event["message"].to_string())
            .collect();
        texts.len()
    };
    receiver
        .until("every finding", |events| messages(events) == acknowledged as usize)
        .await;
    let counted: u64 = receiver
        .events
        .lock()
        .values()
        .filter_map(|(_, event)| event["count"].as_u64())
        .sum();
    assert_eq!(counted, u64::from(acknowledged), "each finding is in one event");
    assert!(receiver.events.lock().values().any(|(times, _)| *times > 1), "some came again");
    bridge.kill().await;
}

#[tokio::test]
async fn a_receiver_that_is_down_harms_neither_reports_nor_other_sinks_and_gets_all_later() {
    let world = World::new();
    world.pod("cache", 2);
    world.pod("shop", 3);
    let proxy = Proxy::start(&world.mailbox("cache"));
    let file = world.path().join("events.json");
    let settings = [
        ("OUTRIDER_EXPORT_WEBHOOK", "http://127.0.0.1:1/"),
        ("OUTRIDER_EXPORT_FILE", file.to_str().unwrap()),
        MANY,
    ];
    let bridge = world.spawn_with(&settings).await;
    bridge.proxy_is("cache", "connected").await;
    let rows = vec![row(1, PolicyAction::Deny)];
    for datagram in batch(7, 1, &[threat(1), encode(Connections { rows })]) {
        proxy.tell(&datagram).await;
    }
    proxy.hears_ack(1).await;
    let lines = || -> Vec<Value> {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        text.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    };
    let written = async {
        while lines().len() < 2 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LONG, written).await.unwrap();
    let lines = lines();
    let violation = lines.iter().find(|one| one["kind"] == "violation").unwrap();
    assert_eq!(violation["workload"], "default/cache", "{violation}");
    assert_eq!(violation["client"]["name"], "default/shop");
    assert_eq!(
        (&violation["server"]["port"], &violation["action"], &violation["severity"]),
        (&6379.into(), &"deny".into(), &"medium".into())
    );
    bridge.kill().await;

    let receiver = Receiver::default();
    *receiver.answers.lock() = true;
    let url = receiver.start().await;
    let bridge = world
        .spawn_with(&[("OUTRIDER_EXPORT_WEBHOOK", &url), settings[1], MANY])
        .await;
    receiver
        .until("what waited", |events| events.len() == 2)
        .await;
    let id = |event: &Value| event["id"].as_str().unwrap().to_owned();
    let in_file: BTreeSet<_> = lines.iter().map(id).collect();
    assert!(receiver.events.lock().keys().eq(in_file.iter()), "ids are the same at every sink");
    bridge.kill().await;
}

#[tokio::test]
async fn equal_findings_are_sent_once_and_counted() {
    let world = World::new();
    world.pod("cache", 2);
    let proxy = Proxy::start(&world.mailbox("cache"));
    let receiver = Receiver::default();
    *receiver.answers.lock() = true;
    let url = receiver.start().await;
    let bridge = world.spawn_with(&[("OUTRIDER_EXPORT_WEBHOOK", &url)]).await;
    bridge.proxy_is("cache", "connected").await;
    for seq in 1..=5 {
        tell_threats(&proxy, seq, 1..2).await;
    }
    tell_threats(&proxy, 6, 2..3).await;
    receiver
        .until("two events", |events| events.len() == 2)
        .await;
    let events = receiver.events.lock().clone();
    let find = |text: &str| {
        let found = events.values().find(|(_, event)| event["message"] == text);
        found.map(|(_, event)| (event["count"].clone(), event["suppressed"].clone()))
    };
    assert_eq!(find("finding 1"), Some((1.into(), 0.into())));
    assert_eq!(find("finding 2"), Some((1.into(), 4.into())));
    bridge.kill().await;
}
