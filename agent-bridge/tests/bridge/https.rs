//! An HTTPS server under a self-made authority, and the webhook that posts to it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use outrider_agent_bridge::grpc::tls::Files;
use outrider_model::PolicyAction;
use outrider_wire::{Connection, Connections};
use parking_lot::Mutex;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    grpc_tls::Authority,
    proxy::Proxy,
    reports::{batch, encode, row},
    world::World,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// A request: its head and its body.
pub(crate) struct Asked {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

/// Serves until the test ends. Whoever gets no answer is hung up on.
pub(crate) async fn serve(
    files: &Files,
    answer: impl Fn(Asked) -> Option<(u16, String)> + Send + Sync + 'static,
) -> SocketAddr {
    let chain = CertificateDer::pem_file_iter(&files.cert).unwrap();
    let chain = chain.collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let (acceptor, answer) = (TlsAcceptor::from(Arc::new(config)), Arc::new(answer));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, answer) = (acceptor.clone(), Arc::clone(&answer));
            #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
            tokio::spawn(async move {
                let mut stream = BufReader::new(acceptor.accept(stream).await.ok()?);
                let asked = read(&mut stream).await?;
                let (status, body) = answer(asked)?;
                let length = body.len();
                let text = format!(
                    "HTTP/1.1 {status} -\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
                );
                stream.write_all(text.as_bytes()).await.ok()?;
                stream.shutdown().await.ok()
            });
        }
    });
    at
}

async fn read(stream: &mut BufReader<TlsStream<TcpStream>>) -> Option<Asked> {
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        if let Some(text) = line.strip_prefix("content-length: ") {
            length = text.trim().parse().ok()?;
        }
        head.push_str(&line);
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Asked { head, body })
}

#[tokio::test]
async fn conversations_are_posted_to_who_can_prove_its_name_and_to_nobody_else() {
    let (ours, foreign) = (Authority::new(), Authority::new());
    let mut world = World::new();
    let files = ours.issue_for("127.0.0.1", &world.path().join("receiver"), &ours);
    let trusted = foreign.issue_for("127.0.0.1", &world.path().join("trusted"), &foreign);
    let events = Arc::new(Mutex::new(Vec::<Value>::new()));
    let seen = Arc::clone(&events);
    let at = serve(&files, move |asked| {
        assert!(
            asked
                .head
                .starts_with("POST /in?token=hunter2 HTTP/1.1\r\n"),
            "{}",
            asked.head
        );
        seen.lock()
            .extend(serde_json::from_slice::<Vec<Value>>(&asked.body).unwrap());
        Some((204, String::new()))
    })
    .await;
    world.set("OUTRIDER_EXPORT_KINDS", "conversation");
    world.set("OUTRIDER_EXPORT_WEBHOOK", format!("https://{at}/in?token=hunter2"));
    world.set("OUTRIDER_EXPORT_CA", trusted.ca.display().to_string());
    world.pod("cache", 2);
    world.pod("shop", 3);
    let proxy = Proxy::start(&world.mailbox("cache"));
    let bridge = world.start().await;
    bridge.proxy_is("cache", "connected").await;
    let on =
        |server_port, sessions| Connection { server_port, ..row(sessions, PolicyAction::Open) };
    let rows = encode(Connections { rows: vec![on(6379, 4), on(6380, 2), on(6379, 3)] });
    for datagram in batch(7, 1, &[rows]) {
        proxy.tell(&datagram).await;
    }
    proxy.hears_ack(1).await;
    // Signed by somebody else than who is trusted.
    let status = bridge
        .until("/v1/status", |status| status["export"][0]["failures"].as_u64() > Some(1))
        .await;
    let error = status["export"][0]["last_error"].as_str().unwrap();
    assert!(error.contains("certificate") && !error.contains("hunter2"), "{error}");
    assert!(events.lock().is_empty());
    // Authorities are read anew for each connection.
    std::fs::copy(&files.ca, &trusted.ca).unwrap();
    let delivered = async {
        while events.lock().len() < 2 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, delivered).await.unwrap();
    bridge
        .until("/v1/status", |status| {
            let sink = &status["export"][0];
            sink["failures"] == 0 && sink["sent"] == 2 && sink["waiting"] == 0
        })
        .await;
    are_right(events.lock().clone());
    bridge.stop().await;
}

fn are_right(mut events: Vec<Value>) {
    events.sort_by_key(|event| event["server"]["port"].as_u64());
    for (event, port, sessions) in [(&events[0], 6379, 7), (&events[1], 6380, 2)] {
        assert_eq!(event["kind"], "conversation", "{event}");
        assert_eq!((&event["server"]["port"], &event["count"]), (&port.into(), &sessions.into()));
        assert_eq!(event["client"]["name"], "default/shop");
        assert_eq!((&event["workload"], &event["app"]), (&"default/cache".into(), &"Redis".into()));
    }
}
