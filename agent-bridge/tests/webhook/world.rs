//! A webhook that runs, and an API server's side of the conversation.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, StatusCode, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use outrider_agent_bridge::webhook::{
    Terms, Webhook, WebhookError,
    settings::{Given, Namespaces, Settings},
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpStream, task::JoinHandle, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;

use crate::apply;

/// What the webhook is called by.
pub(crate) const NAME: &str = "outrider-webhook.outrider.svc";
/// For everything that must happen at some time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A webhook that runs in this process.
pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) address: SocketAddr,
    metrics: SocketAddr,
    stop: CancellationToken,
    running: JoinHandle<Result<(), WebhookError>>,
}

pub(crate) fn settings(dir: &Path) -> Settings {
    Settings {
        listen: ([127, 0, 0, 1], 0).into(),
        metrics_port: 0,
        given: None,
        client_ca: None,
        names: vec![NAME.into()],
        bundle: Some(dir.join("bundle.pem")),
        namespaces: Namespaces::None,
        kube: None,
        configuration: "outrider".into(),
        cluster: apply::cluster(&Value::Null),
        log: "info".into(),
    }
}

impl World {
    /// One with certificates of its own making.
    pub(crate) async fn own(terms: Terms) -> Self {
        let dir = TempDir::new().unwrap();
        let settings = settings(dir.path());
        Self::start(dir, settings, terms).await
    }

    /// One with a certificate in `tls.crt` and `tls.key`.
    pub(crate) async fn given(dir: TempDir) -> Self {
        let mut settings = settings(dir.path());
        settings.given = Some(given(dir.path()));
        Self::start(dir, settings, Terms::default()).await
    }

    pub(crate) async fn start(dir: TempDir, settings: Settings, terms: Terms) -> Self {
        let webhook = Webhook::open(settings, terms).await.unwrap();
        let address = webhook.address().unwrap();
        let metrics = ([127, 0, 0, 1], webhook.metrics_address().unwrap().port()).into();
        let stop = CancellationToken::new();
        #[expect(clippy::disallowed_methods, reason = "its end is awaited in `end`")]
        let running = tokio::spawn(webhook.run(stop.clone()));
        Self { dir, address, metrics, stop, running }
    }

    /// Ends it in order.
    pub(crate) async fn end(self) {
        self.stop.cancel();
        timeout(PATIENCE, self.running)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }

    pub(crate) fn bundle(&self) -> Vec<CertificateDer<'static>> {
        read_pem(&self.dir.path().join("bundle.pem"))
    }

    /// Asks on a connection of its own, verified by what the bundle file holds.
    pub(crate) async fn ask(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        let mut connection = Connection::open(self.address, &self.bundle())
            .await
            .unwrap();
        connection
            .post(path, body.to_string().into())
            .await
            .unwrap()
    }

    /// What the health port says.
    pub(crate) async fn health(&self, path: &str) -> (StatusCode, String) {
        let stream = TcpStream::connect(self.metrics).await.unwrap();
        let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let request = Request::get(path)
            .header("host", "x")
            .body(Full::<Bytes>::default());
        let exchange = async {
            let answer = sender.send_request(request.unwrap()).await.unwrap();
            let status = answer.status();
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            (status, String::from_utf8(body.to_vec()).unwrap())
        };
        tokio::pin!(exchange);
        tokio::select! {
            biased;
            answer = &mut exchange => answer,
            _ = driver => exchange.await,
        }
    }

    /// A counter's value, 0 if it is not there.
    pub(crate) async fn count(&self, metric: &str) -> u64 {
        let (_, text) = self.health("/metrics").await;
        let line = text.lines().find_map(|line| line.strip_prefix(metric));
        line.map_or(0, |value| value.trim().parse().unwrap())
    }
}

pub(crate) fn given(dir: &Path) -> Given {
    Given { cert: dir.join("tls.crt"), key: dir.join("tls.key") }
}

pub(crate) fn read_pem(path: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(path)
        .unwrap()
        .map(Result::unwrap)
        .collect()
}

/// A connection as an API server keeps it.
pub(crate) struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    _driver: JoinHandle<()>,
    /// What the server showed.
    pub(crate) shown: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(
        address: SocketAddr,
        bundle: &[CertificateDer<'static>],
    ) -> Result<Self, std::io::Error> {
        let stream = tls(address, bundle).await?;
        let shown = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
        let (sender, driver) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(std::io::Error::other)?;
        #[expect(clippy::disallowed_methods, reason = "it ends with the connection")]
        let driver = tokio::spawn(async move { drop(driver.await) });
        Ok(Self { sender, _driver: driver, shown })
    }

    pub(crate) async fn post(
        &mut self,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Value), hyper::Error> {
        self.send(Method::POST, path, body).await
    }

    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Value), hyper::Error> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", NAME);
        let answer = self
            .sender
            .send_request(request.body(Full::new(body)).unwrap())
            .await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        let text = String::from_utf8_lossy(&body).into_owned();
        Ok((status, serde_json::from_slice(&body).unwrap_or(Value::String(text))))
    }
}

pub(crate) async fn tls(
    address: SocketAddr,
    bundle: &[CertificateDer<'static>],
) -> Result<TlsStream<TcpStream>, std::io::Error> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(bundle.iter().cloned());
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config))
        .connect(ServerName::try_from(NAME).unwrap(), stream)
        .await
}

/// What the API server asks of a new pod.
pub(crate) fn review(pod: &Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "7a1c", "operation": "CREATE", "namespace": "shop", "dryRun": true,
            "resource": { "group": "", "version": "v1", "resource": "pods" },
            "object": pod, "oldObject": null, "userInfo": { "username": "somebody" },
        },
    })
}
