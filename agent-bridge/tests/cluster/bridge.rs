//! A bridge as far as the controller sees it.

use std::{collections::BTreeMap, sync::Arc};

use outrider_agent_bridge::controller::LEADER;
use outrider_api::cluster::{
    Applied, FromNode, Hello, Lookup, Observed, Rule, Service, ToNode, Update, Workload,
    cluster_client::ClusterClient, from_node, to_node,
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    net::TcpStream,
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming, transport::Endpoint};

use crate::world::PATIENCE;

/// What a bridge knows, and what it is linked by.
pub(crate) struct Bridge {
    into: mpsc::Sender<FromNode>,
    from: Streaming<ToNode>,
    pub(crate) rules: BTreeMap<u32, Rule>,
    pub(crate) sets: BTreeMap<String, Vec<String>>,
    pub(crate) workloads: BTreeMap<String, Workload>,
    pub(crate) modes: BTreeMap<String, String>,
    /// By `<namespace>/<name>`.
    pub(crate) services: BTreeMap<String, Service>,
    pub(crate) internal: Vec<String>,
    pub(crate) unknown: Vec<Vec<u8>>,
    pub(crate) acknowledged: Vec<u64>,
    pub(crate) revision: u64,
    pub(crate) whole: usize,
    /// Is shown every update.
    pub(crate) heard: Option<Heard>,
}

pub(crate) type Heard = Arc<dyn Fn(&Update) + Send + Sync>;

impl Bridge {
    /// Links, and waits for the first update.
    pub(crate) async fn link(
        port: u16,
        authorities: &str,
        token: &str,
        node: &str,
    ) -> Result<Self, Status> {
        let channel = channel(port, authorities).await?;
        let (into, sent) = mpsc::channel(64);
        let hello =
            Hello { node: node.into(), instance: "1".into(), services: true, ..Hello::default() };
        into.try_send(FromNode { message: Some(from_node::Message::Hello(hello)) })
            .unwrap();
        let mut request = Request::new(ReceiverStream::new(sent));
        if !token.is_empty() {
            let value = format!("Bearer {token}").parse().unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        let mut client = ClusterClient::new(channel).max_decoding_message_size(64 << 20);
        let from = client.link(request).await?.into_inner();
        let mut bridge = Self {
            into,
            from,
            rules: BTreeMap::new(),
            sets: BTreeMap::new(),
            workloads: BTreeMap::new(),
            modes: BTreeMap::new(),
            services: BTreeMap::new(),
            internal: Vec::new(),
            unknown: Vec::new(),
            acknowledged: Vec::new(),
            revision: 0,
            whole: 0,
            heard: None,
        };
        bridge
            .until("the first update", |bridge| bridge.whole == 1)
            .await;
        Ok(bridge)
    }

    /// Links to whichever of the replicas leads, however long that takes.
    pub(crate) async fn link_leader(ports: &[u16], ca: &str, token: &str, node: &str) -> Self {
        let until = Instant::now() + PATIENCE;
        let mut next = ports[0];
        for at in 0.. {
            match Self::link(next, ca, token, node).await {
                Ok(bridge) => return bridge,
                Err(status) => {
                    assert!(Instant::now() < until, "no leader: {status}");
                    let told = status
                        .metadata()
                        .get(LEADER)
                        .and_then(|text| text.to_str().ok());
                    let told = told.and_then(|text| text.rsplit(':').next()?.parse().ok());
                    next = told.unwrap_or(ports[at % ports.len()]);
                    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                }
            }
        }
        unreachable!()
    }

    async fn say(&self, message: from_node::Message) -> bool {
        let said = self.into.send(FromNode { message: Some(message) });
        said.await.is_ok()
    }

    pub(crate) async fn observe(&self, observed: Observed) {
        assert!(self.say(from_node::Message::Observed(observed)).await);
    }

    /// Says whether the link is there.
    pub(crate) async fn apply(&self, applied: Applied) -> bool {
        self.say(from_node::Message::Applied(applied)).await
    }

    pub(crate) async fn ask(&self, addresses: Vec<Vec<u8>>) {
        let asked = from_node::Message::Lookup(Lookup { addresses });
        assert!(self.say(asked).await);
    }

    /// Takes what comes until something holds.
    pub(crate) async fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !holds(self) {
            let left = until.saturating_duration_since(Instant::now());
            let came = timeout(left, self.next()).await;
            let came = came.unwrap_or_else(|_| panic!("waited for {what}: {:?}", self.rules));
            assert!(came, "the link ended");
        }
    }

    /// Takes one message; says whether one came.
    pub(crate) async fn next(&mut self) -> bool {
        let Ok(Some(came)) = self.from.message().await else { return false };
        match came.message {
            Some(to_node::Message::Update(update)) => self.take(update),
            Some(to_node::Message::Acknowledged(done)) => self.acknowledged.push(done.batch),
            None => {}
        }
        true
    }

    fn take(&mut self, update: Update) {
        assert!(update.revision >= self.revision);
        if let Some(heard) = &self.heard {
            heard(&update);
        }
        self.revision = update.revision;
        self.whole += usize::from(update.whole);
        for id in update.rules_gone {
            assert!(self.rules.remove(&id).is_some(), "{id} was not known");
        }
        self.rules
            .extend(update.rules.into_iter().map(|rule| (rule.id, rule)));
        for name in update.sets_gone {
            assert!(self.sets.remove(&name).is_some(), "{name} was not known");
        }
        for set in update.sets {
            let members = self.sets.entry(set.name).or_default();
            if set.whole {
                members.clear();
            }
            members.retain(|uid| !set.removed.contains(uid));
            members.extend(set.added);
        }
        for uid in update.workloads_gone {
            self.workloads.remove(&uid);
        }
        self.workloads.extend(
            update
                .workloads
                .into_iter()
                .map(|one| (one.uid.clone(), one)),
        );
        self.modes
            .extend(update.modes.into_iter().map(|mode| (mode.uid, mode.mode)));
        self.unknown.extend(update.unknown);
        for name in update.services_gone {
            assert!(self.services.remove(&name).is_some(), "{name} was not known");
        }
        for one in update.services {
            self.services
                .insert(format!("{}/{}", one.namespace, one.name), one);
        }
        if !update.internal.is_empty() {
            self.internal = update.internal;
        }
    }
}

async fn channel(port: u16, authorities: &str) -> Result<tonic::transport::Channel, Status> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
        roots.add(root.unwrap()).unwrap();
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let connect = tower::service_fn(move |_| {
        let connector = connector.clone();
        async move {
            let stream = TcpStream::connect(("127.0.0.1", port)).await?;
            let name = ServerName::try_from("controller.test").unwrap();
            let stream = connector.connect(name, stream).await?;
            Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
        }
    });
    let endpoint = Endpoint::from_static("http://controller.test");
    endpoint
        .connect_with_connector(connect)
        .await
        .map_err(|e| Status::unavailable(e.to_string()))
}
