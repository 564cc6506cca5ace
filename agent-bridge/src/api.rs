//! The REST API, on TCP and on a unix socket.

mod access;
mod events;
mod params;
mod patient;
mod tokens;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, Request, State},
    http::StatusCode,
    middleware::from_fn_with_state,
    response::{IntoResponse, Response},
    routing::{get, put},
};
use outrider_api::{ErrorBody, ExplainQuery, ModeRequest, paths};
use outrider_model::Mode;
use serde::Deserialize;

pub use access::{Access, Gate};
pub use patient::{Patient, Watched};
pub use tokens::{Holder, Role, TokenFile, Tokens, TokensError};

use crate::node::{Node, Refusal};
use params::Params;

/// Largest request body.
const MAX_BODY: usize = 16 * 1024;

/// Every route.
pub fn router(node: Arc<Node>, access: Access) -> Router {
    let guard = from_fn_with_state((access, node.counts().clone()), access::guard);
    Router::new()
        .route(paths::STATUS, get(status))
        .route(paths::WORKLOADS, get(workloads))
        .route(paths::CONVERSATIONS, get(conversations))
        .route(paths::RULES, get(rules))
        .route(paths::VIOLATIONS, get(violations))
        .route(paths::THREATS, get(threats))
        .route(paths::FLOWS, get(flows))
        .route(paths::SESSIONS, get(sessions))
        .route(paths::EVENTS, get(events::events))
        .route(paths::EXPLAIN, get(explain))
        .route(paths::MODE, put(set_mode))
        .route(paths::MODE_FULL, put(set_mode_full))
        .fallback(unknown)
        .method_not_allowed_fallback(not_allowed)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(guard)
        .with_state(node)
}

type Asked = State<Arc<Node>>;
type Answer<T> = Result<Json<T>, Refusal>;

async fn status(State(node): Asked) -> impl IntoResponse {
    Json(node.status())
}

async fn workloads(State(node): Asked) -> impl IntoResponse {
    Json(node.workloads())
}

async fn conversations(State(node): Asked) -> impl IntoResponse {
    Json(node.conversations())
}

async fn rules(State(node): Asked) -> impl IntoResponse {
    Json(node.rules())
}

async fn violations(State(node): Asked) -> impl IntoResponse {
    Json(node.violations())
}

async fn threats(State(node): Asked) -> impl IntoResponse {
    Json(node.threats())
}

async fn flows(State(node): Asked) -> impl IntoResponse {
    Json(node.flows())
}

/// Narrows a list of sessions.
#[derive(Debug, Deserialize)]
struct Whose {
    workload: Option<String>,
}

async fn sessions(
    State(node): Asked,
    Params(whose): Params<Whose>,
) -> Answer<Vec<outrider_api::Session>> {
    node.sessions(whose.workload.as_deref()).await.map(Json)
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
            Self::Ambiguous(_) => StatusCode::CONFLICT,
            Self::Busy(_) | Self::NotStored(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        said(status, &self.to_string())
    }
}

fn said(status: StatusCode, error: &str) -> Response {
    let body = Json(ErrorBody { error: error.to_owned() });
    (status, body).into_response()
}
