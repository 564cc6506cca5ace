use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use hyper::{Request, Response, StatusCode};
use kube::client::Body;
use serde_json::{Value, json};

use super::*;

const TERMS: Terms =
    Terms { fresh: Duration::from_secs(60), stale: Duration::from_secs(3_600), most: 64 };

/// Answers, and how often there was a question.
struct Asked(Reviews<u32, &'static str>, AtomicUsize);

impl Asked {
    fn new() -> Self {
        Self(Reviews::new(TERMS), AtomicUsize::default())
    }

    /// Asks about a token; if there is a question, this is the answer. Without one the API server is away.
    async fn ask(
        &self,
        token: &str,
        answer: Option<Result<u32, &'static str>>,
    ) -> Option<Result<u32, &'static str>> {
        let question = async {
            self.1.fetch_add(1, Relaxed);
            answer.ok_or(ReviewError::TooLate)
        };
        self.0.ask((token, "read"), question, |_| {}).await.ok()
    }
}

async fn later(time: Duration) {
    tokio::time::advance(time + Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_counts_for_its_time_and_longer_while_nobody_can_be_asked() {
    let asked = Asked::new();
    assert_eq!(asked.ask("a", Some(Ok(1))).await, Some(Ok(1)));
    assert_eq!(asked.ask("a", Some(Ok(2))).await, Some(Ok(1)), "it is fresh");
    later(TERMS.fresh).await;
    assert_eq!(asked.ask("a", None).await, Some(Ok(1)));
    assert_eq!(asked.1.load(Relaxed), 2, "it was asked first");
    assert_eq!(asked.ask("b", Some(Ok(3))).await, None, "it is left alone for a moment");
    assert_eq!(asked.1.load(Relaxed), 2);
    later(TERMS.stale).await;
    assert_eq!(asked.ask("a", None).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_no_counts_for_a_moment_and_undoes_a_yes() {
    let asked = Asked::new();
    asked.ask("a", Some(Ok(1))).await;
    later(TERMS.fresh).await;
    assert_eq!(asked.ask("a", Some(Err("gone"))).await, Some(Err("gone")));
    assert_eq!(asked.ask("a", Some(Ok(1))).await, Some(Err("gone")));
    later(REFUSED_FOR).await;
    assert_eq!(asked.ask("a", None).await, None, "the old answer is gone");
}

#[tokio::test(start_paused = true)]
async fn what_it_was_used_for_is_another_question() {
    let asked = Asked::new();
    asked.ask("a", Some(Ok(1))).await;
    let question = std::future::ready(Ok(Err("may not")));
    let other = asked.0.ask(("a", "write"), question, |_| {}).await;
    assert!(matches!(other, Ok(Err("may not"))));
}

#[tokio::test(start_paused = true)]
async fn invented_tokens_push_out_only_each_other() {
    let asked = Asked::new();
    asked.ask("ours", Some(Ok(1))).await;
    for at in 0..3 * TERMS.most {
        asked.ask(&at.to_string(), Some(Err("nobody's"))).await;
    }
    assert_eq!(asked.0.kept.lock().len(), TERMS.most);
    assert_eq!(asked.ask("ours", None).await, Some(Ok(1)));
    later(REFUSED_FOR).await;
    asked.ask("next", Some(Err("nobody's"))).await;
    assert_eq!(asked.0.kept.lock().len(), 2, "what has ended takes no room");
}

#[tokio::test(start_paused = true)]
async fn so_many_questions_are_under_way() {
    let asked = Asked::new();
    let ask = async || {
        let question = async {
            let others = asked.1.fetch_add(1, Relaxed);
            assert!(others < MAX_ASKING);
            tokio::time::sleep(Duration::from_secs(1)).await;
            asked.1.fetch_sub(1, Relaxed);
            Ok(Ok(1))
        };
        asked.0.ask(("token", "read"), question, |_| {}).await
    };
    // The last ones would have to wait for longer than anybody does.
    let all = (0..6 * MAX_ASKING).map(|_| ask());
    let all = futures_util::future::join_all(all).await;
    let late = all
        .iter()
        .filter(|one| matches!(one, Err(ReviewError::TooLate)));
    assert!((MAX_ASKING..=2 * MAX_ASKING).contains(&late.count()));
}

async fn reviewed(status: Value) -> Option<UserInfo> {
    let review = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {},
        "spec": {}, "status": status,
    });
    let service = tower::service_fn(move |_request: Request<Body>| {
        let mut answer = Response::new(review.to_string());
        *answer.status_mut() = StatusCode::CREATED;
        async move { Ok::<_, std::convert::Infallible>(answer) }
    });
    whose(&Client::new(service, "outrider"), "token", Some("outrider.dev"))
        .await
        .unwrap()
}

#[tokio::test]
async fn a_token_must_be_somebodys_and_meant_for_us() {
    let user = json!({ "username": "ops", "groups": ["a"], "extra": { "k": ["v"] } });
    let whole =
        json!({ "authenticated": true, "audiences": ["x", "outrider.dev"], "user": user.clone() });
    assert_eq!(reviewed(whole).await.unwrap().username.as_deref(), Some("ops"));
    for nobody in [
        json!({ "authenticated": true, "user": user.clone() }),
        json!({ "authenticated": true, "user": user.clone(), "audiences": ["other"] }),
        json!({ "authenticated": true, "audiences": ["outrider.dev"] }),
        json!({ "user": user, "audiences": ["outrider.dev"] }),
        json!({ "error": "expired" }),
    ] {
        assert!(reviewed(nobody.clone()).await.is_none(), "{nobody}");
    }
}
