//! Policy that people write, in the bridge's file.

use std::sync::Arc;

use axum::{Json, extract::State};
use outrider_api::{PolicyReply, PolicyRequest, PolicyText, ReplayReply, ReplayRequest};
use tokio::task::spawn_blocking;

use super::{Answer, Asked};
use crate::node::{Node, Refusal};

pub(super) async fn text(State(node): Asked) -> Answer<PolicyText> {
    apart(node, |node| node.written()).await
}

pub(super) async fn write(
    State(node): Asked,
    Json(asked): Json<PolicyRequest>,
) -> Answer<PolicyReply> {
    apart(node, move |node| node.write(&asked)).await
}

pub(super) async fn replay(
    State(node): Asked,
    Json(asked): Json<ReplayRequest>,
) -> Answer<ReplayReply> {
    apart(node, move |node| node.replay(&asked)).await
}

/// Off the threads that answer others: it reads a file, or judges tens of thousands of conversations.
async fn apart<T: Send + 'static>(
    node: Arc<Node>,
    ask: impl FnOnce(&Node) -> Result<T, Refusal> + Send + 'static,
) -> Answer<T> {
    let answer = spawn_blocking(move || ask(&node)).await;
    answer
        .unwrap_or_else(|failed| Err(Refusal::Unable(failed.to_string())))
        .map(Json)
}
