//! Captures of a proxy that is made up: what comes through the pipe is passed on or refused.

use std::path::Path;

use outrider_wire::pcapng::{Block, Link, Packet, Totals};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

use crate::{
    proxy::{Manner, Proxy},
    world::{Running, World},
};

/// An answer as it comes.
pub(crate) struct Taken {
    pub(crate) status: u16,
    /// What was sent before the end, in chunks of HTTP.
    body: Vec<u8>,
}

impl Taken {
    /// The end of the last chunk is there.
    fn is_whole(&self) -> bool {
        self.body.ends_with(b"0\r\n\r\n")
    }

    fn holds(&self, file: &[u8]) -> bool {
        self.body.windows(file.len()).any(|part| part == file)
    }
}

/// Asks for a capture and takes all that comes.
pub(crate) async fn take(socket: &Path, workload: &str, wish: &str) -> Taken {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let request = format!(
        "POST /v1/workloads/{workload}/capture HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{wish}",
        wish.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let end = answer
        .windows(4)
        .position(|part| part == b"\r\n\r\n")
        .unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    Taken {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        body: answer[end + 4..].to_vec(),
    }
}

fn file(packets: usize) -> Vec<u8> {
    let mut out = Vec::new();
    Block::Section.write(&mut out);
    Block::Interface { link: Link::Ethernet, snap: 65_535, name: "eth0" }.write(&mut out);
    for _ in 0..packets {
        let packet = Packet { interface: 0, at: 1, outbound: false, wire: 60, bytes: &[7; 60] };
        Block::Packet(packet).write(&mut out);
    }
    out
}

fn whole(packets: usize) -> Vec<u8> {
    let mut out = file(packets);
    Block::Totals(Totals { at: 2, seen: 9, lost: 7 }).write(&mut out);
    out
}

async fn last(bridge: &Running) -> Value {
    let all = bridge.get("/v1/captures").await;
    all.as_array().unwrap().last().unwrap().clone()
}

#[tokio::test]
async fn what_a_proxy_captures_comes_and_what_is_no_capture_does_not() {
    let world = World::new();
    world.pod("a", 2);
    let proxy = Proxy::start(&world.mailbox("a"));
    let bridge = world.start().await;
    bridge.proxy_is("a", "connected").await;
    let socket = world.path().join("api.sock");
    proxy.captures(whole(2));
    let wish = r#"{"filter":"port 80","packets":2,"bytes":4096,"seconds":30}"#;
    let taken = take(&socket, "a", wish).await;
    assert!(taken.status == 200 && taken.is_whole() && taken.holds(&whole(2)));
    let told = last(&bridge).await;
    let want = ("ended", 2, 7, "port 80", "default/a");
    let text = |name: &str| told[name].as_str().unwrap_or_default();
    let number = |name: &str| told[name].as_u64().unwrap_or_default();
    let seen = (text("state"), number("packets"), number("lost"), text("filter"), text("workload"));
    assert_eq!(seen, want, "{told}");
    for (sent, why) in [
        (b"\x0a\x0d\x0d\x0a not at all a capture".to_vec(), "is no capture"),
        ([file(1), file(1)].concat(), "is no capture"),
        (whole(3), "more than it was asked for"),
        (whole(500), "more than it was asked for"),
        (file(2), "gone, or broke off"),
        (Vec::new(), "gone, or broke off"),
    ] {
        proxy.captures(sent.clone());
        let taken = take(&socket, "a", wish).await;
        assert!(taken.status == 200 && !taken.is_whole(), "{why}");
        assert!(sent.is_empty() || !taken.holds(&sent) || why.contains("broke off"), "{why}");
        let told = last(&bridge).await;
        assert_eq!(told["state"], "failed");
        assert!(told["error"].as_str().unwrap().contains(why), "{told}");
    }
    bridge.stop().await;
}

#[tokio::test]
async fn who_cannot_capture_is_said() {
    let world = World::new();
    world.pod("a", 2);
    world.pod("b", 3);
    let _foreign = Proxy::start_as(&world.mailbox("a"), Manner::Foreign);
    let bridge = world.start().await;
    bridge.proxy_is("a", "connected").await;
    let socket = world.path().join("api.sock");
    for (workload, wish, status, why) in [
        ("a", "{}", 409, "does not know captures"),
        ("b", "{}", 409, "is not connected"),
        ("c", "{}", 404, "no workload"),
        ("a", r#"{"filter":"port http"}"#, 400, "is no port"),
        ("a", r#"{"seconds":0}"#, 400, "1 to 3600 seconds"),
        ("a", r#"{"snap_length":5}"#, 400, "64 to 65535"),
        ("a", r#"{"speed":5}"#, 422, ""),
    ] {
        let taken = take(&socket, workload, wish).await;
        let said = String::from_utf8_lossy(&taken.body).into_owned();
        assert_eq!(taken.status, status, "{wish}: {said}");
        assert!(said.contains(why), "{said}");
    }
    assert_eq!(bridge.get("/v1/captures").await, Value::Array(Vec::new()));
    bridge.stop().await;
}
