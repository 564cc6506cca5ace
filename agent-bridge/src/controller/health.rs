//! `/metrics`, `/healthz/*` and `/status`.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use outrider_telemetry::Registry;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{links::Links, store::Store};
use crate::cluster::lease::Standing;

/// What is told of the role.
#[derive(Clone)]
pub(super) struct Health {
    pub(super) registry: Registry,
    pub(super) links: Arc<Links>,
    pub(super) store: Arc<Store>,
    pub(super) standing: watch::Receiver<Standing>,
    pub(super) ready: watch::Receiver<bool>,
    pub(super) known: watch::Receiver<bool>,
}

impl Health {
    pub(super) fn router(self) -> Router {
        Router::new()
            .route("/metrics", get(exposed))
            .route("/healthz", get(live))
            .route("/healthz/live", get(live))
            .route("/healthz/ready", get(ready))
            .route("/status", get(status))
            .with_state(self)
    }

    /// What keeps us from doing our part.
    fn wrong(&self) -> Option<String> {
        if !*self.known.borrow() {
            return Some("the authority of our certificate is not known to bridges yet".to_owned());
        }
        let leads = !matches!(*self.standing.borrow(), Standing::Following(_));
        (leads && !*self.ready.borrow()).then(|| "what the API server has is being read".to_owned())
    }

    fn status(&self) -> Value {
        let (standing, leader) = match &*self.standing.borrow() {
            Standing::Leading => ("leading", None),
            Standing::Unsure => ("unsure", None),
            Standing::Following(leader) => ("following", leader.clone()),
        };
        let missing = self.store.tables.lock().missing();
        json!({
            "standing": standing,
            "leader": leader,
            "not_ready": self.wrong(),
            "not_read_yet": missing,
            "api_failing": self.store.failing(),
            "links": self.links.counts.links.get(),
            "revision": self.links.published.read().revision,
            "writes_waiting": self.links.counts.waiting.get(),
        })
    }
}

async fn exposed(State(health): State<Health>) -> Response {
    match health.registry.expose() {
        Ok(text) => ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn live() -> &'static str {
    "ok\n"
}

async fn ready(State(health): State<Health>) -> Response {
    match health.wrong() {
        None => "ok\n".into_response(),
        Some(wrong) => (StatusCode::SERVICE_UNAVAILABLE, format!("{wrong}\n")).into_response(),
    }
}

async fn status(State(health): State<Health>) -> Json<Value> {
    Json(health.status())
}
