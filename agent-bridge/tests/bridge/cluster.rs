//! The link to the cluster's controller, against one that says what it is told to.

use std::{net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt as _};
use outrider_api::cluster::{
    Acknowledged, FromNode, Hello, Mode, Ports, Rule, SetChange, ToNode, Update, Workload,
    cluster_server::{Cluster, ClusterServer},
    from_node, to_node,
};
use outrider_model::PolicyAction;
use parking_lot::Mutex;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    io::{DuplexStream, copy_bidirectional, duplex},
    net::TcpListener,
    sync::{broadcast, mpsc},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, transport::Server};

use crate::{
    grpc_tls::Authority,
    proxy::Proxy,
    reports::{batch, encode, row},
    world::World,
};

const PATIENCE: Duration = Duration::from_secs(30);
const NAME: &str = "outrider-controller.outrider.svc";

/// A controller.
#[derive(Clone)]
pub(crate) struct Controller(Arc<Parts>);

struct Parts {
    heard: Mutex<Vec<from_node::Message>>,
    tokens: Mutex<Vec<String>>,
    /// Said to whoever is linked.
    say: broadcast::Sender<to_node::Message>,
    /// Said first on each link.
    first: Mutex<Vec<to_node::Message>>,
    leader: Mutex<Option<SocketAddr>>,
    acknowledges: Mutex<bool>,
    at: Mutex<Option<SocketAddr>>,
}

type Answers = Pin<Box<dyn Stream<Item = Result<ToNode, Status>> + Send>>;

#[tonic::async_trait]
impl Cluster for Controller {
    async fn link(
        &self,
        request: Request<Streaming<FromNode>>,
    ) -> Result<Response<Answers>, Status> {
        let token = request
            .metadata()
            .get("authorization")
            .map(|it| it.to_str().unwrap().to_owned());
        self.0.tokens.lock().push(token.unwrap_or_default());
        if let Some(leader) = *self.0.leader.lock() {
            let mut status = Status::unavailable("another replica leads");
            let leader = leader.to_string().parse().unwrap();
            status.metadata_mut().insert("outrider-leader", leader);
            return Err(status);
        }
        let (into, answers) = mpsc::channel(64);
        let mut said = self.0.say.subscribe();
        let first = self.0.first.lock().clone();
        let (own, mut from) = (self.clone(), request.into_inner());
        let answer = into.clone();
        let tell = async move {
            for message in first {
                tell(&answer, message).await;
            }
            while let Ok(message) = said.recv().await {
                tell(&answer, message).await;
            }
        };
        let listen = async move {
            while let Ok(Some(FromNode { message: Some(message) })) = from.message().await {
                if let from_node::Message::Observed(said) = &message
                    && *own.0.acknowledges.lock()
                {
                    let message =
                        to_node::Message::Acknowledged(Acknowledged { batch: said.batch });
                    drop(into.send(Ok(ToNode { message: Some(message) })).await);
                }
                own.0.heard.lock().push(message);
            }
        };
        #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
        tokio::spawn(async move {
            tokio::select! { () = tell => (), () = listen => () }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}

async fn tell(into: &mpsc::Sender<Result<ToNode, Status>>, message: to_node::Message) {
    drop(into.send(Ok(ToNode { message: Some(message) })).await);
}

impl Controller {
    fn new() -> Self {
        Self(Arc::new(Parts {
            heard: Mutex::default(),
            tokens: Mutex::default(),
            say: broadcast::channel(64).0,
            first: Mutex::default(),
            leader: Mutex::default(),
            acknowledges: Mutex::new(true),
            at: Mutex::default(),
        }))
    }

    /// Serves under a certificate of `authority`, for [`NAME`].
    pub(crate) async fn start(world: &World, authority: &Authority) -> Self {
        let files = authority.issue_for(NAME, &world.path().join("controller"), authority);
        let chain: Result<_, _> = CertificateDer::pem_file_iter(&files.cert)
            .unwrap()
            .collect();
        let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain.unwrap(), key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let controller = Self::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        *controller.0.at.lock() = Some(listener.local_addr().unwrap());
        let (into, accepted) = mpsc::channel::<std::io::Result<DuplexStream>>(8);
        #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    // A stream that the server knows how to take.
                    let (mut outer, inner) = duplex(1 << 16);
                    drop(into.send(Ok(inner)).await);
                    #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
                    tokio::spawn(async move { copy_bidirectional(&mut stream, &mut outer).await });
                }
            }
        });
        let service = ClusterServer::new(controller.clone());
        #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
        tokio::spawn(
            Server::builder()
                .add_service(service)
                .serve_with_incoming(ReceiverStream::new(accepted)),
        );
        controller
    }

    fn at(&self) -> SocketAddr {
        self.0.at.lock().unwrap()
    }

    pub(crate) fn says(&self, update: Update) {
        drop(self.0.say.send(to_node::Message::Update(update)));
    }

    pub(crate) fn says_first(&self, update: Update) {
        self.0.first.lock().push(to_node::Message::Update(update));
    }

    /// What `find` finds in what was heard, once it does.
    pub(crate) async fn hears<T>(&self, find: impl Fn(&from_node::Message) -> Option<T>) -> T {
        let heard = async {
            loop {
                if let Some(found) = self.0.heard.lock().iter().rev().find_map(&find) {
                    return found;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        match timeout(PATIENCE, heard).await {
            Ok(found) => found,
            Err(_) => panic!("heard {:?}", self.0.heard.lock()),
        }
    }

    async fn hello(&self) -> Hello {
        self.hears(|message| match message {
            from_node::Message::Hello(hello) => Some(hello.clone()),
            _ => None,
        })
        .await
    }

    /// Waits until the bridge says that a workload's proxy has confirmed this.
    pub(crate) async fn runs(&self, uid: &str, revision: u64, mode: &str) {
        self.hears(|message| match message {
            from_node::Message::Applied(said) => said
                .workloads
                .iter()
                .any(|one| one.uid == uid && one.revision == revision && one.mode == mode)
                .then_some(()),
            _ => None,
        })
        .await;
    }
}

/// A world with a controller, to which its bridge is to be linked.
pub(crate) async fn linked() -> (World, Controller) {
    let (mut world, authority) = (World::new(), Authority::new());
    let controller = Controller::start(&world, &authority).await;
    link(&mut world, &controller, &authority);
    (world, controller)
}

fn link(world: &mut World, controller: &Controller, authority: &Authority) {
    let write = |name: &str, text: &str| {
        let path = world.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (ca, token) =
        (write("controller-ca.crt", &authority.pem), write("token", "of-the-bridge\n"));
    world.set("OUTRIDER_BRIDGE_NODE", "here");
    world.set("OUTRIDER_BRIDGE_CLUSTER", controller.at().to_string());
    world.set("OUTRIDER_BRIDGE_CLUSTER_NAME", NAME);
    world.set("OUTRIDER_BRIDGE_CLUSTER_CA", ca);
    world.set("OUTRIDER_BRIDGE_CLUSTER_TOKEN", token);
}

/// Everything that a node with the pod `cache` is told: who may open its port, and how far that goes.
pub(crate) fn everything(revision: u64) -> Update {
    let set = |name: &str, uid: &str| SetChange {
        name: name.into(),
        whole: true,
        added: vec![uid.into()],
        ..SetChange::default()
    };
    Update {
        epoch: "first".into(),
        revision,
        whole: true,
        workloads: vec![Workload {
            uid: "far-away".into(),
            namespace: "shop".into(),
            name: "web-1".into(),
            service: "web".into(),
            addresses: vec![vec![10, 9, 0, 7]],
            managed: true,
        }],
        sets: vec![set("clients", "far-away"), set("servers", "cache")],
        rules: vec![Rule {
            id: 200_001,
            order: 1,
            from: "clients".into(),
            to: "servers".into(),
            ports: vec![Ports { proto: 6, low: 6379, high: 6379 }],
            origin: "NetworkRule/shop/cache/clients".into(),
            ..Rule::default()
        }],
        modes: vec![Mode { uid: "cache".into(), mode: "protect".into() }],
        ..Update::default()
    }
}

/// Whether a proxy's policy has a rule of that number.
fn allows(proxy: &Proxy, id: u32) -> bool {
    proxy.policy().is_some_and(|policy| {
        policy.default_action.known() == Some(PolicyAction::Deny)
            && policy.rules.iter().any(|rule| rule.id.0 == id)
    })
}

pub(crate) async fn until(what: impl Fn() -> bool) {
    let seen = async {
        while !what() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, seen).await.unwrap();
}

#[tokio::test]
async fn what_the_controller_says_is_in_force_and_outlives_both() {
    let (mut world, controller) = linked().await;
    controller.says_first(everything(7));
    world.pod("cache", 2);
    let proxy = Proxy::start(&world.mailbox("cache"));
    let bridge = world.start().await;
    controller.runs("cache", 7, "protect").await;
    assert!(allows(&proxy, 200_001), "{:?}", proxy.policy());
    assert_eq!(controller.0.tokens.lock()[0], "Bearer of-the-bridge");
    let hello = controller.hello().await;
    assert_eq!((hello.node.as_str(), hello.revision), ("here", 0));
    let status = bridge
        .until("/v1/status", |status| status["cluster"]["state"] == "linked")
        .await;
    assert_eq!(status["cluster"]["revision"], 7);
    // A change takes a rule away and brings another.
    let rule = Rule { id: 200_002, ..everything(0).rules[0].clone() };
    controller.says(Update {
        epoch: "first".into(),
        revision: 8,
        rules: vec![rule],
        rules_gone: vec![200_001],
        ..Update::default()
    });
    controller.runs("cache", 8, "protect").await;
    assert!(allows(&proxy, 200_002) && !allows(&proxy, 200_001));
    bridge.stop().await;
    drop(proxy);
    // Without the controller, and after a restart, the last update counts.
    world.set("OUTRIDER_BRIDGE_CLUSTER", "127.0.0.1:1");
    let proxy = Proxy::start(&world.mailbox("cache"));
    let bridge = world.start().await;
    until(|| allows(&proxy, 200_002)).await;
    let status = bridge
        .until("/v1/status", |status| status["cluster"]["state"] == "failing")
        .await;
    assert_eq!(status["cluster"]["revision"], 8);
    bridge.stop().await;
}

#[tokio::test]
async fn a_bridge_goes_where_the_leader_is_and_says_what_it_has() {
    let mut world = World::new();
    let authority = Authority::new();
    let (other, leader) =
        (Controller::start(&world, &authority).await, Controller::start(&world, &authority).await);
    *other.0.leader.lock() = Some(leader.at());
    link(&mut world, &other, &authority);
    leader.says_first(everything(7));
    world.pod("cache", 2);
    let _proxy = Proxy::start(&world.mailbox("cache"));
    let bridge = world.start().await;
    leader.runs("cache", 7, "protect").await;
    bridge.stop().await;
    leader.0.heard.lock().clear();
    let bridge = world.start().await;
    let hello = leader.hello().await;
    assert_eq!((hello.epoch.as_str(), hello.revision), ("first", 7));
    bridge.stop().await;
}

#[tokio::test]
async fn what_is_seen_is_told_by_the_groups_at_both_ends() {
    let (world, controller) = linked().await;
    *controller.0.acknowledges.lock() = false;
    world.pod("cache", 2);
    world.pod("web", 4);
    let proxy = Proxy::start(&world.mailbox("cache"));
    let bridge = world.start().await;
    bridge.proxy_is("cache", "connected").await;
    reports(&proxy, 4).await;
    let first = controller.hears(observed).await;
    let told = &first.conversations[0];
    assert_eq!((told.from.as_str(), told.to.as_str()), ("nv.web.default", "nv.cache.default"));
    assert_eq!(told.clients, [vec![10, 0, 0, 4]]);
    assert!(told.sessions > 0 && told.side == 2, "{told:?}");
    assert_eq!(told.confirming, 0, "it is in Discover");
    let status = bridge.get("/v1/status").await;
    assert!(status["cluster"]["waiting"].as_u64().unwrap() > 0, "not acknowledged: {status}");
    bridge.stop().await;
}

#[tokio::test]
async fn sessions_of_a_workload_in_protect_only_confirm() {
    let (world, controller) = linked().await;
    controller.says_first(everything(7));
    world.pod("cache", 2);
    let proxy = Proxy::start(&world.mailbox("cache"));
    let bridge = world.start().await;
    controller.runs("cache", 7, "protect").await;
    reports(&proxy, 4).await;
    let told = controller.hears(observed).await;
    let one = &told.conversations[0];
    assert!(one.sessions > 0 && one.confirming == one.sessions, "{one:?}");
    bridge.stop().await;
}

/// The proxy of `cache` saw sessions of that client.
async fn reports(proxy: &Proxy, client: u8) {
    let mut seen = row(2, PolicyAction::Learn);
    seen.client_ip = std::net::IpAddr::from([10, 0, 0, client]).into();
    for datagram in batch(1, 1, &[encode(outrider_wire::Connections { rows: vec![seen] })]) {
        proxy.tell(&datagram).await;
    }
}

fn observed(message: &from_node::Message) -> Option<outrider_api::cluster::Observed> {
    match message {
        from_node::Message::Observed(said) => Some(said.clone()),
        _ => None,
    }
}

#[tokio::test]
async fn an_unknown_peer_is_asked_about_and_then_known() {
    let (world, controller) = linked().await;
    world.pod("cache", 2);
    let proxy = Proxy::start(&world.mailbox("cache"));
    let bridge = world.start().await;
    bridge.proxy_is("cache", "connected").await;
    reports(&proxy, 77).await;
    let asked = controller
        .hears(|message| match message {
            from_node::Message::Lookup(asked) => Some(asked.addresses.clone()),
            _ => None,
        })
        .await;
    assert_eq!(asked, [vec![10, 0, 0, 77]]);
    let mut answer = everything(3).workloads;
    answer[0].addresses = asked;
    let (epoch, revision) = ("first".into(), 3);
    controller.says(Update { epoch, revision, workloads: answer, ..Update::default() });
    let told = controller.hears(observed).await;
    assert_eq!(told.conversations[0].from, "nv.web.shop", "{told:?}");
    bridge.stop().await;
}

#[tokio::test]
async fn a_controller_that_is_not_the_clusters_is_not_spoken_to() {
    let mut world = World::new();
    let (authority, other) = (Authority::new(), Authority::new());
    let controller = Controller::start(&world, &other).await;
    link(&mut world, &controller, &authority);
    let bridge = world.start().await;
    let status = bridge
        .until("/v1/status", |status| status["cluster"]["state"] == "failing")
        .await;
    assert!(
        status["cluster"]["reason"]
            .as_str()
            .unwrap()
            .contains("certificate"),
        "{status}"
    );
    assert!(controller.0.tokens.lock().is_empty());
    bridge.stop().await;
}

#[tokio::test]
async fn messages_and_members_of_a_newer_version_are_passed_over() {
    let (world, controller) = linked().await;
    // A message that this version does not know is none to it.
    let newer = futures_util::stream::iter([ToNode { message: None }])
        .next()
        .await
        .unwrap();
    assert!(newer.message.is_none());
    let mut odd = everything(7);
    // Parts that cannot be read are left out, the rest holds.
    odd.workloads
        .push(Workload { uid: "../..".into(), ..Workload::default() });
    odd.rules
        .push(Rule { id: 200_009, low_port: 1 << 20, ..Rule::default() });
    odd.modes
        .push(Mode { uid: "cache-2".into(), mode: "quarantine".into() });
    controller.says_first(odd);
    world.pod("cache", 2);
    let proxy = Proxy::start(&world.mailbox("cache"));
    let bridge = world.start().await;
    controller.runs("cache", 7, "protect").await;
    assert!(allows(&proxy, 200_001));
    let status = bridge.get("/v1/status").await;
    assert_eq!(status["cluster"]["refused"], 3, "{status}");
    bridge.stop().await;
}
