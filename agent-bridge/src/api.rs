//! The REST API, on TCP and on a unix socket.

mod access;
#[cfg(test)]
mod anything;
mod captures;
mod events;
pub(crate) mod lists;
mod params;
mod patient;
mod policy;
pub(crate) mod review;
pub(crate) mod serve;
mod tokens;

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::{Body, to_bytes},
    extract::{DefaultBodyLimit, Path, Request, State},
    http::StatusCode,
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{MethodRouter, delete, get, post, put},
};
use outrider_api::{ErrorBody, ExplainQuery, ListQuery, ModeRequest, openapi, paths};
use outrider_model::Mode;
use tokio::{sync::Semaphore, time::timeout};

pub use access::{Access, Gate};
pub use review::Review;
pub use tokens::{Holder, Role, TokenFile, Tokens, TokensError};

use crate::node::{Node, Refusal};
use lists::{Page, Selection, Whom};
use params::Params;

/// Largest request body.
const MAX_BODY: usize = 16 * 1024;
/// Largest body with a policy: its text, escaped.
const MAX_POLICY: usize = 16 << 20;
/// Requests with one that are answered at a time.
static POLICIES: Semaphore = Semaphore::const_new(2);
/// How long a client may take to send it.
const BODY_TIME: Duration = Duration::from_secs(10);

/// The whole API.
pub fn router(node: Arc<Node>, access: Access) -> Router {
    let guard = from_fn_with_state((access, node.counts().clone()), access::guard);
    routes()
        .into_iter()
        .fold(Router::new(), |router, (path, _method, handler)| router.route(path, handler))
        .fallback(unknown)
        .method_not_allowed_fallback(not_allowed)
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn(whole_body))
        .layer(guard)
        .with_state(node)
}

/// Every route: its path, its method as OpenAPI writes it, who answers.
fn routes() -> [(&'static str, &'static str, MethodRouter<Arc<Node>>); 20] {
    [
        (paths::STATUS, "get", get(status)),
        (paths::WORKLOADS, "get", get(workloads)),
        (paths::CONVERSATIONS, "get", get(conversations)),
        (paths::RULES, "get", get(rules)),
        (paths::VIOLATIONS, "get", get(violations)),
        (paths::THREATS, "get", get(threats)),
        (paths::FLOWS, "get", get(flows)),
        (paths::SESSIONS, "get", get(sessions)),
        (paths::EVENTS, "get", get(events::events)),
        (paths::EXPLAIN, "get", get(explain)),
        (paths::OPENAPI, "get", get(document)),
        (paths::POLICY, "get", get(policy::text)),
        (paths::POLICY, "put", put(policy::write)),
        (paths::REPLAY, "post", post(policy::replay)),
        (paths::MODE, "put", put(set_mode)),
        (paths::MODE_FULL, "put", put(set_mode_full)),
        (paths::CAPTURE, "post", post(captures::start)),
        (paths::CAPTURE_FULL, "post", post(captures::start_full)),
        (paths::CAPTURES, "get", get(captures::list)),
        (paths::CAPTURE_STOP, "delete", delete(captures::stop)),
    ]
}

type Asked = State<Arc<Node>>;
type Answer<T> = Result<Json<T>, Refusal>;
type Listing = Result<Page, Refusal>;

async fn document() -> impl IntoResponse {
    Json(openapi::document())
}

async fn status(State(node): Asked) -> impl IntoResponse {
    Json(node.status())
}

async fn workloads(State(node): Asked, Params(query): Params<ListQuery>) -> Listing {
    Ok(node.workloads(&selection(&node, &query)?).into())
}

async fn conversations(State(node): Asked, Params(query): Params<ListQuery>) -> Listing {
    Ok(node.conversations(&selection(&node, &query)?).into())
}

async fn rules(State(node): Asked, Params(query): Params<ListQuery>) -> Listing {
    Ok(node.rules(&selection(&node, &query)?).into())
}

async fn violations(State(node): Asked, Params(query): Params<ListQuery>) -> Listing {
    Ok(node.violations(&selection(&node, &query)?).into())
}

async fn threats(State(node): Asked, Params(query): Params<ListQuery>) -> Listing {
    Ok(node.threats(&selection(&node, &query)?).into())
}

async fn flows(State(node): Asked, Params(query): Params<ListQuery>) -> Listing {
    Ok(node.flows(&selection(&node, &query)?).into())
}

async fn sessions(State(node): Asked, Params(query): Params<ListQuery>) -> Listing {
    Ok(node.sessions(&selection(&node, &query)?).await?.into())
}

fn selection(node: &Node, query: &ListQuery) -> Result<Selection, Refusal> {
    let workload = query.workload.clone();
    let group = workload.as_deref().and_then(|name| node.group_of(name));
    Selection::read(query, Whom { workload, group, app: query.app.clone() })
}

async fn explain(
    State(node): Asked,
    Params(query): Params<ExplainQuery>,
) -> Answer<outrider_api::Explanation> {
    node.explain(&query).map(Json)
}

async fn set_mode(
    State(node): Asked,
    Path(name): Path<String>,
    Json(wanted): Json<ModeRequest>,
) -> Answer<outrider_api::ModeReply> {
    change_mode(&node, &name, &wanted).await
}

async fn set_mode_full(
    State(node): Asked,
    Path((namespace, name)): Path<(String, String)>,
    Json(wanted): Json<ModeRequest>,
) -> Answer<outrider_api::ModeReply> {
    change_mode(&node, &format!("{namespace}/{name}"), &wanted).await
}

async fn change_mode(
    node: &Node,
    name: &str,
    wanted: &ModeRequest,
) -> Answer<outrider_api::ModeReply> {
    let mode: Mode = wanted
        .mode
        .parse()
        .map_err(|error| Refusal::Bad(format!("{error}")))?;
    node.set_mode(name, mode).await.map(Json)
}

/// Waits for a change's body, so that nobody is waited for later. What only looks has none.
async fn whole_body(request: Request, next: Next) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    let is_policy = [paths::POLICY, paths::REPLAY].contains(&request.uri().path());
    let place = if is_policy { POLICIES.try_acquire().map(Some) } else { Ok(None) };
    let Ok(_place) = place else {
        return said(StatusCode::SERVICE_UNAVAILABLE, "other policies are being read: try again");
    };
    let most = if is_policy { MAX_POLICY } else { MAX_BODY };
    let (head, body) = request.into_parts();
    match timeout(BODY_TIME, to_bytes(body, most)).await {
        Ok(Ok(body)) => next.run(Request::from_parts(head, Body::from(body))).await,
        Ok(Err(_too_large)) => {
            said(StatusCode::PAYLOAD_TOO_LARGE, &format!("a body has {most} bytes at most"))
        }
        Err(_elapsed) => said(StatusCode::REQUEST_TIMEOUT, "the body took too long"),
    }
}

async fn unknown(request: Request) -> Refusal {
    Refusal::NotFound(format!("no {} here; see docs/api.md", request.uri().path()))
}

async fn not_allowed() -> Response {
    said(StatusCode::METHOD_NOT_ALLOWED, "this path is not for that method")
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Bad(_) => StatusCode::BAD_REQUEST,
            Self::Ambiguous(_) | Self::Unable(_) => StatusCode::CONFLICT,
            Self::Busy(_) | Self::NotStored(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        said(status, &self.to_string())
    }
}

fn said(status: StatusCode, error: &str) -> Response {
    let body = Json(ErrorBody { error: error.to_owned() });
    (status, body).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_route_is_in_the_document_and_nothing_else() {
        let routed: BTreeSet<_> = routes()
            .iter()
            .map(|(path, method, _)| ((*path).to_owned(), (*method).to_owned()))
            .collect();
        let document = openapi::document();
        let written: BTreeSet<_> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, methods)| {
                let methods = methods.as_object().unwrap().keys();
                methods.map(|method| (path.clone(), method.clone()))
            })
            .collect();
        assert_eq!(routed, written);
    }
}
