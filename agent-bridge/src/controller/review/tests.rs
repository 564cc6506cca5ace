//! Answers are kept while the API server is away.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use hyper::{Request, Response, StatusCode};
use kube::client::Body;
use outrider_telemetry::Registry;
use serde_json::json;

use super::*;
use crate::cluster::review::REFUSED_FOR;

/// An API server that knows one token.
#[derive(Debug, Default)]
struct ApiServer {
    away: AtomicBool,
    revoked: AtomicBool,
    asked: AtomicUsize,
}

impl ApiServer {
    fn answer(&self) -> Response<String> {
        self.asked.fetch_add(1, Relaxed);
        let (status, text) = if self.away.load(Relaxed) {
            (StatusCode::SERVICE_UNAVAILABLE, json!({}))
        } else {
            let review = json!({
                "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {},
                "spec": {}, "status": {
                    "authenticated": !self.revoked.load(Relaxed), "audiences": [AUDIENCE],
                    "user": { "username": "bridges", "extra": {
                        "authentication.kubernetes.io/node-name": ["n1"],
                    } },
                },
            });
            (StatusCode::CREATED, review)
        };
        let mut answer = Response::new(text.to_string());
        *answer.status_mut() = status;
        answer
    }
}

fn reviewer() -> (Reviewer, Arc<ApiServer>) {
    let server = Arc::new(ApiServer::default());
    let asked = Arc::clone(&server);
    let service = tower::service_fn(move |_request: Request<Body>| {
        let answer = asked.answer();
        async move { Ok::<_, std::convert::Infallible>(answer) }
    });
    let client = Client::new(service, "outrider");
    let counts = Counts::register(&Registry::default()).unwrap();
    (Reviewer::new(client, "bridges", "outrider", counts), server)
}

async fn later(time: Duration) {
    tokio::time::advance(time + Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_kept_for_a_minute_and_for_an_hour_while_nobody_can_be_asked() {
    let (reviewer, server) = reviewer();
    assert_eq!(&*reviewer.node("token").await.unwrap(), "n1");
    assert_eq!(&*reviewer.node("token").await.unwrap(), "n1");
    assert_eq!(server.asked.load(Relaxed), 1, "it is fresh");
    later(TERMS.fresh).await;
    server.away.store(true, Relaxed);
    assert_eq!(&*reviewer.node("token").await.unwrap(), "n1");
    assert_eq!(server.asked.load(Relaxed), 2, "it was asked first");
    let unknown = reviewer.node("another").await.unwrap_err();
    assert_eq!(unknown.reason(), "api", "nobody vouches for it: {unknown}");
    later(TERMS.stale).await;
    assert_eq!(reviewer.node("token").await.unwrap_err().reason(), "api");
    server.away.store(false, Relaxed);
    later(Duration::from_secs(1)).await;
    assert_eq!(&*reviewer.node("token").await.unwrap(), "n1");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_no_more_is_forgotten_at_once() {
    let (reviewer, server) = reviewer();
    reviewer.node("token").await.unwrap();
    later(TERMS.fresh).await;
    server.revoked.store(true, Relaxed);
    assert_eq!(reviewer.node("token").await.unwrap_err().reason(), "invalid");
    later(REFUSED_FOR).await;
    server.away.store(true, Relaxed);
    assert_eq!(reviewer.node("token").await.unwrap_err().reason(), "api", "the old answer is gone");
}
