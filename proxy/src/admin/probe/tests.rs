//! Questions that are passed on to a workload, and those that are not.

use std::{convert::Infallible, sync::Arc};

use axum::{
    body::Bytes,
    http::{HeaderMap, Request, Response},
};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::{Frame, Incoming},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use rcgen::{CertificateParams, KeyPair};
use rustls::{ServerConfig, crypto::aws_lc_rs, pki_types::PrivatePkcs8KeyDer};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_rustls::TlsAcceptor;

use crate::admin::tests::{HEALTH, Rig, start_with};

/// How a workload speaks.
#[derive(Clone)]
enum Speech {
    Http,
    Https(TlsAcceptor),
    Grpc,
}

/// A workload and what it was asked.
struct Workload {
    port: u16,
    asked: Arc<Mutex<Vec<(String, HeaderMap)>>>,
    running: JoinHandle<()>,
}

impl Drop for Workload {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Workload {
    async fn start(speech: Speech) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&asked);
        #[expect(clippy::disallowed_methods, reason = "it is aborted with the workload")]
        let running = tokio::spawn(async move {
            loop {
                let (stream, from) = listener.accept().await.unwrap();
                assert_eq!(from.ip().to_string(), "127.0.0.6");
                let heard = Arc::clone(&heard);
                let answer = service_fn(move |request: Request<Incoming>| {
                    let (path, headers) = (request.uri().path().to_owned(), request.headers());
                    heard.lock().push((path.clone(), headers.clone()));
                    async move { Ok::<_, Infallible>(answer(&path, request, port).await) }
                });
                let io = TokioIo::new(stream);
                // What comes of a connection shows at its other end.
                match &speech {
                    Speech::Http => {
                        drop(http1::Builder::new().serve_connection(io, answer).await);
                    }
                    Speech::Https(acceptor) => {
                        if let Ok(stream) = acceptor.accept(io.into_inner()).await {
                            let io = TokioIo::new(stream);
                            drop(http1::Builder::new().serve_connection(io, answer).await);
                        }
                    }
                    Speech::Grpc => {
                        let builder = http2::Builder::new(TokioExecutor::new());
                        drop(builder.serve_connection(io, answer).await);
                    }
                }
            }
        });
        Self { port, asked, running }
    }

    fn last(&self) -> HeaderMap {
        self.asked.lock().last().unwrap().1.clone()
    }
}

type Body = http_body_util::combinators::BoxBody<Bytes, Infallible>;

async fn answer(path: &str, request: Request<Incoming>, port: u16) -> Response<Body> {
    let response = Response::builder();
    let full = |text: &str| Full::from(text.to_owned()).boxed();
    if path == "/grpc.health.v1.Health/Check" {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let serving = if body.ends_with(b"shop") { 1 } else { 2 };
        let message = Bytes::from(vec![0, 0, 0, 0, 2, 8, serving]);
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        let frames = [Ok(Frame::data(message)), Ok(Frame::trailers(trailers))];
        let body = http_body_util::StreamBody::new(futures_util::stream::iter(frames));
        return response.body(BodyExt::boxed(body)).unwrap();
    }
    let moved = |to: String| response.status(302).header("location", to).body(full(""));
    match path {
        "/good" => Response::new(full("a secret")),
        "/moved" => moved("/good".to_owned()).unwrap(),
        "/away" => moved("http://elsewhere.example/".to_owned()).unwrap(),
        "/ours" => moved("http://127.0.0.1:15120/metrics".to_owned()).unwrap(),
        "/round" => moved(format!("http://127.0.0.1:{port}/round")).unwrap(),
        _ => Response::builder()
            .status(418)
            .body(full("a secret"))
            .unwrap(),
    }
}

fn rig(port: u16, asks: &[&str]) -> Rig {
    let asks: Vec<_> = asks
        .iter()
        .map(|ask| {
            let (ask, more) = ask.split_once(' ').unwrap_or((ask, ""));
            format!(r#"{{"ask":"{}","seconds":20{more}}}"#, ask.replace("PORT", &port.to_string()))
        })
        .collect();
    let text = format!("[{}]", asks.join(","));
    start_with(&[("OUTRIDER_PROXY_PROBES", text.leak())])
}

async fn status(rig: &Rig, path: &str, headers: &str) -> u16 {
    let (status, body) = rig
        .ask_with(HEALTH, "GET", &format!("/healthz/app/{path}"), headers)
        .await;
    assert!(!body.contains("secret"), "{body}");
    status
}

#[tokio::test]
async fn the_workloads_status_is_told_and_nothing_else() {
    let workload = Workload::start(Speech::Http).await;
    let port = workload.port;
    let paths = ["good", "bad", "moved", "away", "ours", "round"];
    let asks = paths.map(|path| format!("http/PORT/{path}"));
    let rig = rig(port, &asks.each_ref().map(String::as_str));
    for (path, wanted) in paths.into_iter().zip([200, 418, 200, 200, 503, 503]) {
        assert_eq!(status(&rig, &format!("http/{port}/{path}"), "").await, wanted, "{path}");
    }
    assert_eq!(workload.last()["host"], format!("127.0.0.1:{port}"));
    let many = workload.asked.lock().len();
    // Neither another path nor another port, whoever asks.
    for path in
        ["http/PORT/other", "http/PORT/good?x", "https/PORT/good", "http/1/good", "grpc/PORT/"]
    {
        let path = path.replace("PORT", &port.to_string());
        assert_eq!(status(&rig, &path, "").await, 404, "{path}");
    }
    assert_eq!(workload.asked.lock().len(), many);
}

#[tokio::test]
async fn a_question_takes_its_headers_and_carries_no_others() {
    let workload = Workload::start(Speech::Http).await;
    let with = r#"http/PORT/good ,"headers":[["X-Probe","live"],["Host","shop.example"]]"#;
    let rig = rig(workload.port, &[with]);
    let path = format!("http/{}/good", workload.port);
    assert_eq!(status(&rig, &path, "").await, 404);
    assert_eq!(status(&rig, &path, "X-Probe: dead\r\n").await, 404);
    // The rig says `Host: x` first; a kubelet would say the probe's.
    let said =
        "X-Probe: live\r\nHost: shop.example\r\nX-More: 1\r\nUser-Agent: kube-probe/1.34\r\n";
    assert_eq!(status(&rig, &path, said).await, 200);
    let heard = workload.last();
    assert_eq!(
        (&heard["x-probe"], &heard["host"]),
        (&"live".parse().unwrap(), &"shop.example".parse().unwrap())
    );
    assert_eq!(heard["user-agent"], "kube-probe/1.34");
    assert!(heard.get("x-more").is_none());
}

#[tokio::test]
async fn what_it_said_holds_for_a_moment() {
    let workload = Workload::start(Speech::Http).await;
    let rig = rig(workload.port, &["http/PORT/good"]);
    let path = format!("http/{}/good", workload.port);
    let began = tokio::time::Instant::now();
    for _ in 0..20 {
        assert_eq!(status(&rig, &path, "").await, 200);
    }
    let most = began.elapsed().as_millis() / 500 + 1;
    assert!(workload.asked.lock().len() as u128 <= most);
}

#[tokio::test]
async fn any_certificate_will_do() {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["nobody.example".to_owned()]).unwrap();
    let made = params.self_signed(&key).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![made.der().clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .unwrap();
    let workload = Workload::start(Speech::Https(TlsAcceptor::from(Arc::new(config)))).await;
    let rig = rig(workload.port, &["https/PORT/good", "http/PORT/good"]);
    assert_eq!(status(&rig, &format!("https/{}/good", workload.port), "").await, 200);
    assert_eq!(status(&rig, &format!("http/{}/good", workload.port), "").await, 502);
}

#[tokio::test]
async fn a_service_serves_or_does_not() {
    let workload = Workload::start(Speech::Grpc).await;
    let rig = rig(workload.port, &["grpc/PORT/shop", "grpc/PORT/"]);
    assert_eq!(status(&rig, &format!("grpc/{}/shop", workload.port), "").await, 200);
    assert_eq!(status(&rig, &format!("grpc/{}/", workload.port), "").await, 503);
    let port = workload.port;
    drop(workload);
    let gone = start_with(&[(
        "OUTRIDER_PROXY_PROBES",
        format!(r#"[{{"ask":"grpc/{port}/","seconds":20}}]"#).leak(),
    )]);
    assert_eq!(status(&gone, &format!("grpc/{port}/"), "").await, 502);
}
