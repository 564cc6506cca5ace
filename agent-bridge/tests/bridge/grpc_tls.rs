//! The services on TCP: mutual TLS, and certificates that change while it runs.

use std::{path::Path, time::Duration};

use outrider_agent_bridge::grpc::{
    dial,
    tls::{Certificates, Files},
};
use outrider_api::share::{RpcVoid, enforcer_service_client::EnforcerServiceClient};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio::time::{sleep, timeout};

use crate::world::{Running, World};

/// The name in the certificates, as NeuVector's has it.
pub(crate) const NAME: &str = "NeuVector";

/// Who signs.
pub(crate) struct Authority {
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        // Who signs is looked up by name.
        let name = key
            .public_key_raw()
            .iter()
            .map(|byte| format!("{byte:02x}"));
        params
            .distinguished_name
            .push(DnType::CommonName, name.take(16).collect::<String>());
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Writes a certificate of this authority, its key, and the one who is trusted.
    pub(crate) fn issue(&self, dir: &Path, trusted: &Self) -> Files {
        self.issue_for(NAME, dir, trusted)
    }

    /// The same, for another name.
    pub(crate) fn issue_for(&self, name: &str, dir: &Path, trusted: &Self) -> Files {
        std::fs::create_dir_all(dir).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        Files {
            cert: write("tls.crt", &leaf.pem()),
            key: write("tls.key", &key.serialize_pem()),
            ca: write("ca.crt", &trusted.pem),
            peer: None,
        }
    }
}

pub(crate) fn use_certificates(world: &mut World, files: &Files) {
    let path = |path: &Path| path.display().to_string();
    world.set("OUTRIDER_BRIDGE_GRPC_CERT", path(&files.cert));
    world.set("OUTRIDER_BRIDGE_GRPC_KEY", path(&files.key));
    world.set("OUTRIDER_BRIDGE_GRPC_CA", path(&files.ca));
    world.set("OUTRIDER_BRIDGE_GRPC", "127.0.0.1:0");
}

type Client = EnforcerServiceClient<tonic::transport::Channel>;

async fn client(bridge: &Running, files: &Files) -> Option<Client> {
    let certificates = Certificates::load(files.clone()).unwrap();
    let target = bridge.grpc.unwrap().to_string();
    let connection = dial::connect(&target, 0, &certificates).await.ok()?;
    Some(EnforcerServiceClient::new(connection.channel))
}

async fn answers(client: &mut Client) -> bool {
    client.get_session_counter(RpcVoid {}).await.is_ok()
}

/// Whether the bridge answers who shows these certificates.
async fn admits(bridge: &Running, files: &Files) -> bool {
    match client(bridge, files).await {
        Some(mut client) => answers(&mut client).await,
        None => false,
    }
}

#[tokio::test]
async fn only_who_shows_a_certificate_of_the_right_authority_is_answered() {
    let (ours, foreign) = (Authority::new(), Authority::new());
    let mut world = World::new();
    let files = ours.issue(&world.path().join("bridge"), &ours);
    use_certificates(&mut world, &files);
    let bridge = world.start().await;
    let right = ours.issue(&world.path().join("right"), &ours);
    assert!(admits(&bridge, &right).await);
    let stranger = foreign.issue(&world.path().join("stranger"), &ours);
    assert!(!admits(&bridge, &stranger).await, "signed by somebody else");
    let distrustful = ours.issue(&world.path().join("distrustful"), &foreign);
    assert!(!admits(&bridge, &distrustful).await, "the client refuses us");
    let misnamed = ours.issue_for("somebody.example", &world.path().join("misnamed"), &ours);
    assert!(!admits(&bridge, &misnamed).await, "for another name");
    let plain = format!("http://{}", bridge.grpc.unwrap());
    let plain = tonic::transport::Endpoint::from_shared(plain)
        .unwrap()
        .connect_lazy();
    assert!(!answers(&mut EnforcerServiceClient::new(plain)).await, "without TLS");
    bridge.stop().await;
}

#[tokio::test]
async fn renewed_certificates_are_used_and_connections_stay() {
    let (old, new) = (Authority::new(), Authority::new());
    let mut world = World::new();
    let dir = world.path().join("bridge");
    let files = old.issue(&dir, &old);
    use_certificates(&mut world, &files);
    let bridge = world.start().await;
    let mut before = client(&bridge, &old.issue(&world.path().join("old"), &old))
        .await
        .unwrap();
    assert!(answers(&mut before).await);
    let with_new = new.issue(&world.path().join("new"), &new);
    assert!(!admits(&bridge, &with_new).await, "not trusted yet");

    std::fs::write(&files.key, "half written").unwrap();
    let other = old.issue(&world.path().join("other"), &old);
    assert!(admits(&bridge, &other).await, "what cannot be used changes nothing");

    new.issue(&dir, &new);
    let used = async {
        while !admits(&bridge, &with_new).await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(10), used).await.unwrap();
    assert!(answers(&mut before).await, "a connection that is there stays");
    bridge.stop().await;
}

#[tokio::test]
async fn there_is_no_tcp_without_certificates_and_no_start_with_bad_ones() {
    let world = World::new();
    let bridge = world.start().await;
    assert_eq!(bridge.grpc, None);
    bridge.stop().await;
    let missing = world.path().join("nothing.pem");
    let files = Files { cert: missing.clone(), key: missing.clone(), ca: missing, peer: None };
    let error = Certificates::load(files).unwrap_err();
    assert!(error.to_string().contains("nothing.pem"), "{error}");
}
