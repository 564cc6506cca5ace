//! The server over real sockets, asked as the node agent and as our bridge ask.

use std::path::PathBuf;

use outrider_model::AppId;
use outrider_telemetry::Telemetry;
use outrider_wire::{
    Kind, Notification, Reply,
    ext::{Ack, Instance, Status},
};
use tempfile::TempDir;
use tokio::{net::UnixDatagram, time::timeout};
use tokio_util::task::TaskTracker;

use super::*;
use crate::testing::{assemble, pod, settings};

mod ending;
mod golden;
mod policy;
mod reports;

/// A running server and where it lives.
struct Rig {
    dir: TempDir,
    context: SharedContext,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Rig {
    async fn start(env: &[(&'static str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::start_in(dir, env).await
    }

    async fn start_in(dir: TempDir, env: &[(&'static str, &str)]) -> Self {
        Self::start_reading(dir, env, || Ok(pod())).await
    }

    async fn start_reading(
        dir: TempDir,
        env: &[(&'static str, &str)],
        read_identity: fn() -> io::Result<Identity>,
    ) -> Self {
        let (context, relay, state) = assemble(settings(dir.path(), env));
        let first_policy = context.readiness.guard("policy");
        let server = Server::new(Arc::clone(&context), relay, state, Some(first_policy));
        assert!(context.readiness.waits_for().contains(&"ctrl"), "nothing is bound yet");
        let server = Server { read_identity, ..server };
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        tasks.spawn(server.run(stop.clone()));
        let rig = Self { dir, context, stop, tasks };
        while rig.context.readiness.waits_for().contains(&"ctrl") {
            tokio::task::yield_now().await;
        }
        assert!(rig.path(names::DP_LISTEN).exists(), "ready once requests can come");
        rig
    }

    /// Stops the server; the directory stays.
    async fn stop(self) -> TempDir {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.dir
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn telemetry(&self) -> &Telemetry {
        &self.context.telemetry
    }

    /// A client as the node agent is one: bound, then connected.
    fn client(&self, name: &str) -> Client {
        let socket = UnixDatagram::bind(self.path(name)).unwrap();
        socket.connect(self.path(names::DP_LISTEN)).unwrap();
        Client(socket)
    }

    /// The other end of the notifications.
    fn listen(&self) -> UnixDatagram {
        let path = self.path(names::CTRL_LISTEN);
        let _absent = std::fs::remove_file(&path);
        UnixDatagram::bind(path).unwrap()
    }
}

struct Client(UnixDatagram);

impl Client {
    async fn send(&self, text: &str) {
        self.0.send(text.as_bytes()).await.unwrap();
    }

    async fn reply(&self) -> Reply {
        Reply::decode_exact(&receive(&self.0).await).unwrap()
    }

    async fn ask(&self, text: &str) -> Reply {
        self.send(text).await;
        self.reply().await
    }

    async fn is_alive(&self, seq: u32) {
        let reply = self
            .ask(&format!(r#"{{"ctrl_keep_alive":{{"seq_num":{seq}}}}}"#))
            .await;
        assert_eq!(reply, Reply::KeepAlive(outrider_wire::KeepAlive { seq_num: seq }));
    }

    async fn hello(&self) -> Status {
        match self
            .ask(r#"{"ctrl_outrider_hello":{"version":1,"acks":true}}"#)
            .await
        {
            Reply::Status(status) => status,
            other => panic!("{other:?}"),
        }
    }

    async fn add_mac(&self) {
        self.send(
            r#"{"ctrl_add_mac":{"iface":"eth0","mac":"0a:58:0a:4d:01:05","ucmac":"","bcmac":"","oldmac":"","pmac":"","pips":null}}"#,
        )
        .await;
    }

    async fn ack(&self, instance: Instance, seq: u64) {
        let request = Request::OutriderAck(Ack { instance, seq });
        self.0.send(&request.encode().unwrap()).await.unwrap();
    }
}

/// One datagram. A paused clock jumps to its next timer whenever a socket wakes somebody, so that
/// the patience has to be long.
async fn receive(socket: &UnixDatagram) -> Vec<u8> {
    let mut buffer = vec![0; 9000];
    let length = timeout(Duration::from_secs(600), socket.recv(&mut buffer)).await;
    buffer.truncate(length.expect("nothing came").unwrap());
    buffer
}

async fn notification(socket: &UnixDatagram) -> Notification {
    Notification::decode_exact(&receive(socket).await).unwrap()
}

#[tokio::test(start_paused = true)]
async fn answers_every_client_at_its_own_address() {
    let rig = Rig::start(&[]).await;
    let (first, second) = (rig.client("first"), rig.client("second"));
    first.send(r#"{"ctrl_keep_alive":{"seq_num":1}}"#).await;
    second.is_alive(2).await;
    assert_eq!(first.reply().await, Reply::KeepAlive(outrider_wire::KeepAlive { seq_num: 1 }));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_without_an_address_gets_no_answer_and_disturbs_nobody() {
    let rig = Rig::start(&[]).await;
    let client = rig.client("client");
    client.is_alive(1).await;
    let unbound = UnixDatagram::unbound().unwrap();
    unbound.connect(rig.path(names::DP_LISTEN)).unwrap();
    unbound
        .send(br#"{"ctrl_keep_alive":{"seq_num":9}}"#)
        .await
        .unwrap();
    client.is_alive(2).await;
    assert_eq!(rig.context.ctrl.dropped(&rig.telemetry().totals()), [("reply-unbound", 1)].into());
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_gone_loses_its_replies_only() {
    let rig = Rig::start(&[]).await;
    let (gone, client) = (rig.client("gone"), rig.client("client"));
    gone.send(r#"{"ctrl_count_session":{}}"#).await;
    drop(gone);
    client.is_alive(1).await;
    assert_eq!(rig.context.ctrl.dropped(&rig.telemetry().totals()), [("reply-gone", 1)].into());
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_nothing_holds_up_nobody() {
    let rig = Rig::start(&[]).await;
    // Bound but not connected: its queue takes as few datagrams as the kernel allows.
    let silent = UnixDatagram::bind(rig.path("silent")).unwrap();
    for _ in 0..200 {
        let to = rig.path(names::DP_LISTEN);
        silent
            .send_to(br#"{"ctrl_count_session":{}}"#, to)
            .await
            .unwrap();
    }
    let client = rig.client("client");
    client.is_alive(1).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    client.is_alive(2).await;
    let lost = rig.context.ctrl.dropped(&rig.telemetry().totals());
    assert!(lost.get("reply-unread").is_some_and(|lost| *lost > 100), "{lost:?}");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn leaves_no_socket_behind_and_takes_over_a_stale_one() {
    let rig = Rig::start(&[]).await;
    let dir = rig.stop().await;
    let path = dir.path().join(names::DP_LISTEN);
    assert!(!path.exists());
    drop(UnixDatagram::bind(&path).unwrap());
    assert!(path.exists(), "what a killed proxy leaves");
    let rig = Rig::start_in(dir, &[]).await;
    let client = loop {
        let client = UnixDatagram::bind(rig.path("client")).unwrap();
        if client.connect(&path).is_ok() {
            break Client(client);
        }
        std::fs::remove_file(rig.path("client")).unwrap();
        tokio::task::yield_now().await;
    };
    client.is_alive(1).await;
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn binds_again_when_its_file_is_taken_away() {
    let rig = Rig::start(&[]).await;
    std::fs::remove_file(rig.path(names::DP_LISTEN)).unwrap();
    while !rig.path(names::DP_LISTEN).exists() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    rig.client("client").is_alive(1).await;
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn clears_one_session_or_all() {
    let rig = Rig::start(&[]).await;
    let client = rig.client("client");
    let open = |port| {
        crate::testing::flow(
            rig.telemetry(),
            crate::testing::inbound("10.0.0.9:4000", port),
            AppId::HTTP,
            1,
        )
    };
    let (first, second) = (open(80), open(81));
    client
        .send(&format!(r#"{{"ctrl_clear_session":{{"filter_id":{}}}}}"#, first.id().0))
        .await;
    client.is_alive(1).await;
    assert!(first.cut_reason().is_some() && second.cut_reason().is_none());
    client
        .send(r#"{"ctrl_clear_session":{"filter_id":0}}"#)
        .await;
    client.is_alive(2).await;
    assert!(second.cut_reason().is_some());
    rig.stop().await;
}

#[tokio::test]
async fn hellos_that_wait_for_a_policy_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let (context, relay, state) = assemble(settings(dir.path(), &[]));
    let mut server = Server::new(Arc::clone(&context), relay, state, None);
    server.want_policy();
    (0..=MAX_GREETED).for_each(|_| server.answer_hello(None, true));
    assert_eq!(server.greeted.len(), MAX_GREETED);
    assert_eq!(context.ctrl.dropped(&context.telemetry.totals()), [("reply-overflow", 1)].into());
}
