//! How long the webhook takes for a question: over TLS, on connections that are kept, as an API server asks.
//! Prints the quantiles of `QUESTIONS` (20 000) questions on `CONNECTIONS` (16) connections at once.
#![expect(clippy::print_stdout, reason = "the figures are the result")]

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::Arc};

use anyhow::{Context, Result};
use http_body_util::{BodyExt, Full};
use hyper::{Request, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use outrider_agent_bridge::webhook::{Terms, Webhook, settings::Settings};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::json;
use tokio::{net::TcpStream, task::JoinSet, time::Instant};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

const NAME: &str = "outrider-webhook.outrider.svc";
const NAMESPACES: usize = 5000;

fn number(key: &str, default: usize) -> usize {
    std::env::var(key)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

fn main() -> Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(measure())
}

async fn measure() -> Result<()> {
    let (questions, connections) = (number("QUESTIONS", 20_000), number("CONNECTIONS", 16));
    let dir = tempfile::tempdir()?;
    let (bundle, file) = (dir.path().join("bundle.pem"), dir.path().join("namespaces.json"));
    let namespaces: Vec<_> = (0..NAMESPACES)
        .map(|at| {
            json!({ "metadata": { "name": format!("shop-{at}"),
                "labels": { "outrider.dev/injection": "enforced" } } })
        })
        .collect();
    std::fs::write(&file, json!({ "items": namespaces }).to_string())?;
    let said: BTreeMap<&str, String> = [
        ("OUTRIDER_WEBHOOK_LISTEN", "127.0.0.1:0".into()),
        ("OUTRIDER_WEBHOOK_METRICS_PORT", "0".into()),
        ("OUTRIDER_WEBHOOK_BUNDLE", bundle.display().to_string()),
        ("OUTRIDER_WEBHOOK_NAMESPACES", file.display().to_string()),
        ("OUTRIDER_WEBHOOK_INIT_IMAGE", "registry.example/outrider-init:1".into()),
        ("OUTRIDER_WEBHOOK_PROXY_IMAGE", "registry.example/outrider-proxy:1".into()),
        ("OUTRIDER_WEBHOOK_KUBERNETES", "1.34".into()),
    ]
    .into();
    let settings = Settings::read(|key| said.get(key).cloned())?;
    let webhook = Webhook::open(settings, Terms::default()).await?;
    let (address, stop) = (webhook.address()?, CancellationToken::new());
    let mut tasks = JoinSet::new();
    let running = Box::pin(webhook.run(stop.clone()));
    tasks.spawn(async move { running.await.map_err(anyhow::Error::from) });
    let mut asking = JoinSet::new();
    let began = Instant::now();
    for connection in 0..connections {
        let share = questions / connections;
        asking.spawn(Box::pin(ask(address, bundle.clone(), connection, share)));
    }
    let mut took = Vec::new();
    while let Some(done) = asking.join_next().await {
        took.extend(done??);
    }
    let elapsed = began.elapsed();
    took.sort_unstable();
    let at = |share: usize| took.get((took.len() * share / 1000).min(took.len().saturating_sub(1)));
    let shown = |share| at(share).map_or(0.0, |nanos: &u128| *nanos as f64 / 1e6);
    let rate = took.len() as f64 / elapsed.as_secs_f64();
    println!(
        "{} questions on {connections} connections, {NAMESPACES} namespaces: {rate:.0}/s, \
         p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, longest {:.2} ms",
        took.len(),
        shown(500),
        shown(990),
        shown(999),
        shown(1000),
    );
    stop.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

/// Asks on one connection, one question after the other; how long each took, in nanoseconds.
async fn ask(
    address: SocketAddr,
    bundle: PathBuf,
    connection: usize,
    share: usize,
) -> Result<Vec<u128>> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(&bundle)? {
        roots.add(root?)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(NAME)?;
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await?;
    let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
    let mut driving = JoinSet::new();
    driving.spawn(async move { drop(driver.await) });
    let mut took = Vec::with_capacity(share);
    for at in 0..share {
        let body = question(connection * share + at);
        let request = Request::post("/inject/enforced")
            .header("host", NAME)
            .body(Full::new(body))?;
        let began = Instant::now();
        let answer = sender.send_request(request).await?;
        let text = answer.into_body().collect().await?.to_bytes();
        took.push(began.elapsed().as_nanos());
        let patched = text.windows(9).any(|part| part == b"JSONPatch");
        patched.then_some(()).context("not patched")?;
    }
    Ok(took)
}

/// A pod of three containers with probes, ports, mounts and managed fields: some 10 KiB.
fn question(at: usize) -> Bytes {
    let containers: Vec<_> = ["web", "cache", "logs"]
        .iter()
        .map(|name| {
            json!({ "name": name, "image": format!("registry.example/{name}:1"),
                "env": (0..20).map(|at| json!({ "name": format!("SETTING_{at}"), "value": "x".repeat(60) }))
                    .collect::<Vec<_>>(),
                "ports": [{ "name": "http", "containerPort": 8080, "protocol": "TCP" }],
                "livenessProbe": { "tcpSocket": { "port": "http" } },
                "readinessProbe": { "httpGet": { "path": "/ready", "port": "http" } },
                "volumeMounts": [{ "name": "data", "mountPath": "/data" }] })
        })
        .collect();
    let pod = json!({
        "metadata": { "generateName": "web-5d8f-", "labels": { "app": "web" },
            "managedFields": [{ "fieldsV1": { "f:x": "y".repeat(2000) } }] },
        "spec": { "containers": containers, "volumes": [{ "name": "data", "emptyDir": {} }] },
    });
    let namespace = format!("shop-{}", at % NAMESPACES);
    let review = json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": at.to_string(), "operation": "CREATE", "namespace": namespace,
        "resource": { "group": "", "version": "v1", "resource": "pods" }, "object": pod } });
    review.to_string().into()
}
