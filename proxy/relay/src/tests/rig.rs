//! A relay between a client and a server of the test's own.

use std::{net::SocketAddr, sync::Arc};

use arc_swap::ArcSwap;
use outrider_dpi::DpiConfig;
use outrider_model::{AppId, Direction, FlowKey, IpProto, Mode, PolicyAction, RuleId};
use outrider_policy::{AddrSpec, AppRule, Network, PolicySpec, RuleSpec, Snapshot};
use outrider_telemetry::{Outcome, Refusal, Registry, Row, RowKey, Telemetry};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_util::task::TaskTracker;

use crate::{Delivery, PolicyHandle, PolicyView, Relay, RelaySettings};

/// One relay, one server, any number of flows.
pub(super) struct Rig {
    pub(super) relay: Relay,
    pub(super) telemetry: Telemetry,
    pub(super) tasks: TaskTracker,
    policy: PolicyHandle,
    intake: TcpListener,
    server: TcpListener,
}

/// One flow's two ends, as the peers hold them.
pub(super) struct Flow {
    pub(super) client: TcpStream,
    pub(super) server: TcpStream,
}

/// No policy at all.
pub(crate) fn unjudged() -> PolicyView {
    view(Mode::Discover, None)
}

/// What applications say of the one rule there is; the default action is the mode's.
pub(crate) fn apps(mode: Mode, apps: &[(AppId, PolicyAction)]) -> PolicyView {
    let apps = apps
        .iter()
        .map(|&(app, action)| AppRule { app, action, rule: RULE })
        .collect();
    view(mode, Some(&spec(mode, vec![rule(PolicyAction::CheckApp, apps)])))
}

/// One rule for everything.
pub(crate) fn all(mode: Mode, action: PolicyAction) -> PolicyView {
    view(mode, Some(&spec(mode, vec![rule(action, Vec::new())])))
}

pub(crate) const RULE: RuleId = RuleId(10_001);

fn rule(action: PolicyAction, apps: Vec<AppRule>) -> RuleSpec {
    RuleSpec {
        id: RULE,
        client: AddrSpec::Any,
        server: AddrSpec::Any,
        ports: (0, u16::MAX),
        proto: None,
        action,
        direction: Direction::Inbound,
        fqdn: None,
        vhost: false,
        apps,
    }
}

fn spec(mode: Mode, rules: Vec<RuleSpec>) -> PolicySpec {
    PolicySpec {
        default_action: mode.default_action(),
        inbound: true,
        outbound: true,
        rules,
        grace: false,
    }
}

fn view(mode: Mode, spec: Option<&PolicySpec>) -> PolicyView {
    let snapshot = Snapshot::compile(spec, &Network::default()).unwrap();
    PolicyView { snapshot, mode, managed: true, quarantined: false, version: 1 }
}

impl Rig {
    pub(super) async fn new(view: PolicyView) -> Self {
        Self::with(view, RelaySettings::default()).await
    }

    pub(super) async fn with(view: PolicyView, settings: RelaySettings) -> Self {
        let telemetry = Telemetry::new(&Registry::default()).unwrap();
        let policy: PolicyHandle = Arc::new(ArcSwap::from_pointee(view));
        let dpi = Arc::new(DpiConfig::default());
        Self {
            relay: Relay::new(settings, Arc::clone(&policy), dpi, telemetry.clone()),
            telemetry,
            tasks: TaskTracker::new(),
            policy,
            intake: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            server: TcpListener::bind("127.0.0.1:0").await.unwrap(),
        }
    }

    pub(super) fn server_addr(&self) -> SocketAddr {
        self.server.local_addr().unwrap()
    }

    /// A client connected to the relay's side, and that side.
    pub(super) async fn arrive(&self) -> (TcpStream, TcpStream, FlowKey) {
        let client = TcpStream::connect(self.intake.local_addr().unwrap())
            .await
            .unwrap();
        client.set_nodelay(true).unwrap();
        let (downstream, peer) = self.intake.accept().await.unwrap();
        let key = FlowKey {
            client: peer,
            server: self.server_addr(),
            proto: IpProto::TCP,
            direction: Direction::Inbound,
        };
        (client, downstream, key)
    }

    /// Relays what arrived to `target`, in a task of its own.
    pub(super) fn relay(&self, downstream: TcpStream, key: FlowKey, target: SocketAddr) {
        let delivery = Delivery::to(target);
        self.tasks
            .spawn(self.relay.clone().run(downstream, key, delivery));
    }

    /// One client relayed; whether anybody will be dialled is open.
    pub(super) async fn client(&self) -> TcpStream {
        let (client, downstream, key) = self.arrive().await;
        self.relay(downstream, key, self.server_addr());
        client
    }

    /// One client relayed to the server.
    pub(super) async fn flow(&self) -> Flow {
        let client = self.client().await;
        let (server, _) = self.server.accept().await.unwrap();
        server.set_nodelay(true).unwrap();
        Flow { client, server }
    }

    /// Whether the server has been dialled.
    pub(super) async fn was_dialled(&self) -> bool {
        let accept = self.server.accept();
        tokio::pin!(accept);
        std::future::poll_fn(|cx| std::task::Poll::Ready(accept.as_mut().poll(cx).is_ready())).await
    }

    /// Swaps the policy and judges what lives.
    pub(super) fn swap(&self, view: PolicyView) -> (usize, usize) {
        let version = self.policy.load().version + 1;
        self.policy.store(Arc::new(PolicyView { version, ..view }));
        self.relay.rejudge()
    }

    /// Waits until every flow's task has ended.
    pub(super) async fn settle(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        assert!(self.telemetry.flows().is_empty(), "no flow stays in the table");
    }

    pub(super) fn ended(&self, outcome: Outcome) -> u64 {
        self.telemetry
            .metrics()
            .closed(Direction::Inbound, outcome)
            .get()
    }

    pub(super) fn refused(&self, reason: Refusal) -> u64 {
        self.telemetry
            .metrics()
            .refused(Direction::Inbound, reason)
            .get()
    }

    pub(super) fn rows(&self) -> Vec<(RowKey, Row)> {
        self.telemetry.settle();
        self.telemetry.rows().lock().take()
    }

    /// Every flow was reported once: rows and counters agree on sessions and bytes.
    pub(super) fn assert_sums(&self, sessions: u32, bytes: u64) {
        let rows = self.rows();
        assert_eq!(rows.iter().map(|(_, row)| row.sessions).sum::<u32>(), sessions);
        assert_eq!(rows.iter().map(|(_, row)| row.bytes()).sum::<u64>(), bytes);
        let ended: u64 = Outcome::ALL
            .iter()
            .map(|outcome| self.ended(*outcome))
            .sum();
        assert_eq!(ended, u64::from(sessions));
        let totals = self.telemetry.totals();
        assert_eq!(totals.bytes_client + totals.bytes_server, bytes);
    }
}

impl Flow {
    pub(super) async fn ask(&mut self, text: &[u8]) {
        self.client.write_all(text).await.unwrap();
        let got = take(&mut self.server, text.len()).await;
        assert_eq!(got, text, "what the server got");
    }

    pub(super) async fn answer(&mut self, text: &[u8]) {
        self.server.write_all(text).await.unwrap();
        let got = take(&mut self.client, text.len()).await;
        assert_eq!(got, text, "what the client got");
    }
}

pub(super) async fn take(stream: &mut TcpStream, bytes: usize) -> Vec<u8> {
    let mut got = vec![0; bytes];
    stream.read_exact(&mut got).await.unwrap();
    got
}

/// Everything until the end; `Err` if the stream was reset.
pub(super) async fn rest(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut got = Vec::new();
    stream.read_to_end(&mut got).await?;
    Ok(got)
}

/// The stream is reset, without another byte.
pub(super) async fn assert_reset(stream: &mut TcpStream) {
    let mut byte = [0];
    let error = stream
        .read(&mut byte)
        .await
        .expect_err("a reset, not an end or a byte");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}
