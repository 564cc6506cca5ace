//! Replicas add their authorities, and bridges that are connected stay so when a certificate changes.

use std::{convert::Infallible, sync::Arc};

use http_body_util::BodyExt as _;
use hyper::{Method, Request, Response, StatusCode};
use kube::client::Body;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::task::TaskTracker;

use super::*;
use crate::controller::accept;

type Map = Arc<parking_lot::Mutex<Option<Value>>>;

/// An API server that has one ConfigMap, or none yet.
async fn answer(map: Map, request: Request<Body>) -> Response<String> {
    let method = request.method().clone();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let mut map = map.lock();
    if method != Method::GET {
        *map = Some(serde_json::from_slice(&body).unwrap());
    }
    let (status, object) = match &*map {
        Some(object) => (StatusCode::OK, object.clone()),
        None => {
            let missing = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {},
                "status": "Failure", "reason": "NotFound", "code": 404 });
            (StatusCode::NOT_FOUND, missing)
        }
    };
    let mut answer = Response::new(object.to_string());
    *answer.status_mut() = status;
    answer
}

fn client(map: &Map) -> Client {
    let map = Arc::clone(map);
    let service = tower::service_fn(move |request| {
        let answer = answer(Arc::clone(&map), request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    Client::new(service, "outrider")
}

fn authorities(map: &Map) -> Option<String> {
    let text = map.lock().as_ref()?["data"][KEY].as_str()?.to_owned();
    Some(text)
}

fn replica(map: &Map, terms: Terms) -> Ca {
    let name = |key: &str| (key == "OUTRIDER_CONTROLLER_NAMES").then(|| "controller".to_owned());
    Ca::new(client(map), &Settings::read(name).unwrap(), terms).unwrap()
}

#[tokio::test]
async fn replicas_are_merged_and_nothing_is_written_twice() {
    let map = Map::default();
    let [one, two] = [replica(&map, Terms::default()), replica(&map, Terms::default())];
    for replica in [&one, &two, &one] {
        replica.make_known(&[&replica.current.authority]).await;
    }
    let known = authorities(&map).unwrap();
    assert_eq!(known.matches("BEGIN").count(), 2);
    for replica in [&one, &two] {
        assert!(known.contains(&replica.current.authority));
    }
}

/// A connection of who believes these authorities; the certificate that it was shown.
async fn connect(port: u16, known: &str) -> std::io::Result<(TlsStream<TcpStream>, Vec<u8>)> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(known.as_bytes()) {
        roots.add(root.unwrap()).unwrap();
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let name = ServerName::try_from("controller").unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let stream = connector.connect(name, stream).await?;
    let shown = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
    Ok((stream, shown))
}

async fn echo(stream: &mut TlsStream<TcpStream>) {
    stream.write_all(b"?").await.unwrap();
    let mut back = [0];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"?");
}

#[tokio::test]
async fn who_is_connected_stays_and_who_connects_is_served_through_a_change_of_certificates() {
    const PATIENCE: Duration = Duration::from_secs(60);
    let map = Map::default();
    let (renew, settle) = (Duration::from_millis(300), Duration::from_millis(300));
    let ca = replica(&map, Terms { renew, settle, ..Terms::default() });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let tasks = TaskTracker::new();
    let (into, mut accepted) = mpsc::channel(4);
    tasks.spawn(accept::accept(listener, ca.served(), into));
    let echoes = tasks.clone();
    tasks.spawn(async move {
        while let Some(Ok(mut held)) = accepted.recv().await {
            echoes.spawn(async move {
                let (mut from, mut into) = tokio::io::split(&mut held.stream);
                drop(tokio::io::copy(&mut from, &mut into).await);
            });
        }
    });
    let mut known = ca.known();
    tasks.spawn(ca.keep());
    known.wait_for(|known| *known).await.unwrap();
    let (mut early, first) = connect(port, &authorities(&map).unwrap()).await.unwrap();
    echo(&mut early).await;
    let changes = async {
        let mut shown = std::collections::BTreeSet::from([first]);
        while shown.len() < 3 {
            // Whoever reads what is known and connects then finds it good: before, while and after it changes.
            let read = Instant::now();
            match connect(port, &authorities(&map).unwrap()).await {
                Ok((mut late, now)) => {
                    echo(&mut late).await;
                    shown.insert(now);
                }
                // Who holds on to what it read for longer than the settling time was not meant.
                Err(error) => assert!(read.elapsed() > settle, "{error}"),
            }
            echo(&mut early).await;
        }
    };
    timeout(PATIENCE, changes).await.expect("two changes");
}
