use outrider_model::AppId;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::*;
use crate::testing::{assemble, flow, inbound, settings};

/// Both surfaces on ports of their own.
pub(super) struct Rig {
    context: Arc<Context>,
    ports: [u16; 2],
    stop: CancellationToken,
    tasks: TaskTracker,
    _dir: tempfile::TempDir,
}

pub(super) const HEALTH: usize = 0;
const ADMIN: usize = 1;

fn start() -> Rig {
    start_with(&[("OUTRIDER_MARK", "4242")])
}

pub(super) fn start_with(set: &[(&'static str, &'static str)]) -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let (context, _relay, _state) = assemble(settings(dir.path(), set));
    let surfaces = Surfaces::bind([0, 0], None).unwrap();
    let ports =
        [&surfaces.health, &surfaces.admin].map(|sockets| sockets[0].local_addr().unwrap().port());
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    tasks.spawn(surfaces.serve(Arc::clone(&context), stop.clone()));
    Rig { context, ports, stop, tasks, _dir: dir }
}

impl Rig {
    /// Status code and body.
    async fn ask(&self, surface: usize, method: &str, path: &str) -> (u16, String) {
        self.ask_with(surface, method, path, "").await
    }

    /// The same with more headers, each with its end of line.
    pub(super) async fn ask_with(
        &self,
        surface: usize,
        method: &str,
        path: &str,
        headers: &str,
    ) -> (u16, String) {
        let mut socket = TcpStream::connect(("127.0.0.1", self.ports[surface]))
            .await
            .unwrap();
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    async fn json(&self, path: &str) -> Value {
        let (code, body) = self.ask(ADMIN, "GET", path).await;
        assert_eq!(code, 200, "{path}");
        serde_json::from_str(&body).unwrap()
    }
}

#[tokio::test]
async fn is_live_at_once_and_ready_when_nobody_is_waited_for() {
    let rig = start();
    let guard = rig.context.readiness.guard("listeners");
    assert_eq!(rig.ask(HEALTH, "GET", "/healthz/live").await.0, 200);
    let (code, why) = rig.ask(HEALTH, "GET", "/healthz/ready").await;
    assert_eq!(code, 503);
    assert!(why.contains("listeners"), "{why}");
    drop(guard);
    assert_eq!(rig.ask(HEALTH, "GET", "/healthz/ready").await.0, 200);
}

#[tokio::test]
async fn answers_for_the_ports_that_it_was_told_and_no_others() {
    let workload = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = workload.local_addr().unwrap().port();
    let rig = start_with(&[("OUTRIDER_PROXY_PROBE_PORTS", port.to_string().leak())]);
    let path = format!("/healthz/app/tcp/{port}");
    assert_eq!(rig.ask(HEALTH, "GET", &path).await.0, 200);
    let (_connection, from) = workload.accept().await.unwrap();
    assert_eq!(from.ip().to_string(), "127.0.0.6");
    drop(workload);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    // What it said may still hold.
    while rig.ask(HEALTH, "GET", &path).await.0 != 503 {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(rig.ask(HEALTH, "GET", "/healthz/app/tcp/1").await.0, 404);
    assert_eq!(rig.ask(HEALTH, "GET", "/healthz/app/tcp/http").await.0, 400);
    assert_eq!(rig.ask(ADMIN, "GET", &path).await.0, 404);
}

#[tokio::test]
async fn a_workload_is_asked_once_however_many_ask() {
    let workload = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = workload.local_addr().unwrap().port();
    let rig = start_with(&[("OUTRIDER_PROXY_PROBE_PORTS", port.to_string().leak())]);
    let path = format!("/healthz/app/tcp/{port}");
    let began = tokio::time::Instant::now();
    for _ in 0..20 {
        assert_eq!(rig.ask(HEALTH, "GET", &path).await.0, 200);
    }
    let mut asked = 0;
    while let Ok(Ok(_)) = tokio::time::timeout(Duration::from_millis(100), workload.accept()).await
    {
        asked += 1;
    }
    let most = began.elapsed().as_millis() / 500 + 1;
    assert!(asked <= most, "{asked} of at most {most}");
}

#[tokio::test]
async fn metrics_have_the_live_flows_in_them() {
    let rig = start();
    let _flow = flow(&rig.context.telemetry, inbound("10.0.0.9:4000", 80), AppId::HTTP, 42);
    let (code, text) = rig.ask(HEALTH, "GET", "/metrics").await;
    assert_eq!(code, 200);
    assert!(text.contains(r#"outrider_flow_bytes_total{direction="inbound",side="client"} 42"#));
    assert!(!text.contains("10.0.0.9"), "never an address");
}

#[tokio::test]
async fn the_two_surfaces_do_not_mix() {
    let rig = start();
    assert_eq!(rig.ask(HEALTH, "GET", "/status").await.0, 404);
    assert_eq!(rig.ask(ADMIN, "GET", "/metrics").await.0, 404);
    assert_eq!(rig.ask(ADMIN, "GET", "/log?level=debug").await.0, 405, "a look changes nothing");
}

#[tokio::test]
async fn status_says_who_we_are_and_what_we_can_do() {
    let rig = start();
    let _flow = flow(&rig.context.telemetry, inbound("10.0.0.9:4000", 80), AppId::HTTP, 42);
    let status = rig.json("/status").await;
    assert_eq!(status["mode"], "discover");
    assert_eq!(status["macs"][0], "0a:58:0a:4d:01:05");
    assert_eq!(status["flows"]["open"], 1);
    assert_eq!(status["flows"]["bytes_client"], 42);
    assert_eq!(status["instance"], "0000000000001234");
    assert_eq!(status["ready"], true);
    assert!(status["rights"]["can"].is_array());
    assert_eq!(status["tier"], "observe", "nothing was assembled");
}

#[tokio::test]
async fn flows_are_listed_up_to_the_limit() {
    let rig = start();
    let _flows: Vec<_> = (1..=5)
        .map(|n| flow(&rig.context.telemetry, inbound("10.0.0.9:4000", n), AppId::HTTP, 1))
        .collect();
    assert_eq!(rig.json("/flows").await.as_array().unwrap().len(), 5);
    let some = rig.json("/flows?limit=2").await;
    assert_eq!(some.as_array().unwrap().len(), 2);
    assert_eq!(some[0]["app"], "HTTP");
    assert_eq!(rig.ask(ADMIN, "GET", "/flows?limit=x").await.0, 400);
}

#[tokio::test]
async fn the_configuration_is_shown_without_its_secrets() {
    let rig = start();
    let (_, text) = rig.ask(ADMIN, "GET", "/config").await;
    assert!(text.contains("drain_grace: 10s"), "{text}");
    assert!(text.contains("<redacted>") && !text.contains("4242"), "{text}");
    assert_eq!(rig.ask(ADMIN, "POST", "/log?level=debug").await.0, 409, "no log in tests");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_stays_does_not_keep_the_process() {
    let rig = start();
    let _idle = TcpStream::connect(("127.0.0.1", rig.ports[ADMIN]))
        .await
        .unwrap();
    rig.ask(ADMIN, "GET", "/").await;
    rig.stop.cancel();
    rig.tasks.close();
    rig.tasks.wait().await;
}
