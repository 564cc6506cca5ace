//! The REST API, on loopback TCP and on a unix socket.
//!
//! Reading is open to whoever reaches the listener. Changing something needs the unix socket, whose
//! mode says who may, or a peer on this machine that names it so in `Host`: a page in somebody's
//! browser must not set modes by way of a name that resolves to 127.0.0.1.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Extension, Json, Router,
    extract::{ConnectInfo, DefaultBodyLimit, Path, Query, Request, State},
    http::{HeaderMap, StatusCode, header::HOST},
    response::{IntoResponse, Response},
    routing::{get, put},
};
use outrider_api::{ErrorBody, ExplainQuery, ModeRequest, paths};
use outrider_model::Mode;
use serde::Deserialize;

use crate::node::{Node, Refusal};

/// Largest request body.
const MAX_BODY: usize = 16 * 1024;

/// How a request came in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Access {
    /// Over the unix socket.
    Unix,
    /// Over TCP.
    Tcp,
}

/// Every route.
pub fn router(node: Arc<Node>, access: Access) -> Router {
    Router::new()
        .route(paths::STATUS, get(status))
        .route(paths::WORKLOADS, get(workloads))
        .route(paths::CONVERSATIONS, get(conversations))
        .route(paths::RULES, get(rules))
        .route(paths::VIOLATIONS, get(violations))
        .route(paths::THREATS, get(threats))
        .route(paths::FLOWS, get(flows))
        .route(paths::SESSIONS, get(sessions))
        .route(paths::EXPLAIN, get(explain))
        .route(paths::MODE, put(set_mode))
        .route(paths::MODE_FULL, put(set_mode_full))
        .fallback(unknown)
        .method_not_allowed_fallback(not_allowed)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(Extension(access))
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
    Query(whose): Query<Whose>,
) -> Answer<Vec<outrider_api::Session>> {
    node.sessions(whose.workload.as_deref()).await.map(Json)
}

async fn explain(
    State(node): Asked,
    Query(query): Query<ExplainQuery>,
) -> Answer<outrider_api::Explanation> {
    node.explain(&query).map(Json)
}

async fn set_mode(
    State(node): Asked,
    writer: Writer,
    Path(name): Path<String>,
    Json(wanted): Json<ModeRequest>,
) -> Answer<outrider_api::ModeReply> {
    change_mode(&node, writer, &name, &wanted).await
}

async fn set_mode_full(
    State(node): Asked,
    writer: Writer,
    Path((namespace, name)): Path<(String, String)>,
    Json(wanted): Json<ModeRequest>,
) -> Answer<outrider_api::ModeReply> {
    change_mode(&node, writer, &format!("{namespace}/{name}"), &wanted).await
}

async fn change_mode(
    node: &Node,
    _proof: Writer,
    name: &str,
    wanted: &ModeRequest,
) -> Answer<outrider_api::ModeReply> {
    let mode: Mode = wanted
        .mode
        .parse()
        .map_err(|error| Refusal::Bad(format!("{error}")))?;
    node.set_mode(name, mode).await.map(Json)
}

/// Proof that the request may change something.
#[derive(Clone, Copy, Debug)]
struct Writer;

impl<S: Sync> axum::extract::FromRequestParts<S> for Writer {
    type Rejection = Refusal;

    async fn from_request_parts(
        parts: &mut axum::http::request::Parts,
        _state: &S,
    ) -> Result<Self, Refusal> {
        let peer = parts
            .extensions
            .get::<ConnectInfo<SocketAddr>>()
            .map(|peer| peer.0);
        match parts.extensions.get::<Access>() {
            Some(Access::Unix) => Ok(Self),
            Some(Access::Tcp)
                if peer.is_some_and(|peer| peer.ip().to_canonical().is_loopback())
                    && names_this_machine(&parts.headers) =>
            {
                Ok(Self)
            }
            _ => Err(Refusal::Forbidden),
        }
    }
}

/// Whether `Host` is an address or `localhost`, rather than a name somebody else controls.
fn names_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST).and_then(|host| host.to_str().ok()) else { return false };
    let name = host.rsplit_once(':').map_or(host, |(name, _port)| name);
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost"
        || name
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

async fn unknown(request: Request) -> Refusal {
    Refusal::NotFound(format!("no {} here; see docs/bridge.md", request.uri().path()))
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
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotStored(_) => StatusCode::SERVICE_UNAVAILABLE,
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
    use super::*;

    fn host(text: &str) -> HeaderMap {
        HeaderMap::from_iter([(HOST, text.parse().unwrap())])
    }

    #[test]
    fn a_name_that_resolves_to_loopback_is_not_this_machine() {
        for (text, ours) in [
            ("127.0.0.1:15180", true),
            ("localhost:15180", true),
            ("localhost", true),
            ("[::1]:15180", true),
            ("evil.example:15180", false),
            ("10.0.0.1:15180", false),
        ] {
            assert_eq!(names_this_machine(&host(text)), ours, "{text}");
        }
        assert!(!names_this_machine(&HeaderMap::new()));
    }
}
