//! Which node a bridge is on: its token is reviewed by the API server, and the pod that the token is bound to says
//! it. Answers are kept for a while, by the token's digest.

use std::{collections::HashMap, sync::Arc, time::Duration};

use aws_lc_rs::digest::{SHA256, digest};
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec},
    core::v1::Pod,
};
use kube::{Api, Client, api::PostParams};
use parking_lot::Mutex;
use thiserror::Error;
use tokio::time::{Instant, timeout};

use super::counts::Counts;

/// Whom tokens must be for.
pub(super) const AUDIENCE: &str = "outrider-controller";
/// How long an answer holds. While the API server is away it holds on, for bridges that come back.
const FRESH: Duration = Duration::from_secs(60);
const STALE: Duration = Duration::from_secs(3_600);
/// Answers that are kept; tokens are renewed about every hour.
const MAX_KEPT: usize = 16_384;
/// Longest token that is looked at.
pub(super) const MAX_TOKEN: usize = 16 << 10;
/// Time for an answer of the API server.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// Why a bridge is not let in.
#[derive(Debug, Error)]
pub(super) enum Refusal {
    /// It shows no token.
    #[error("no token")]
    NoToken,
    /// The token is of no use.
    #[error("the token is not valid for audience {AUDIENCE}")]
    Invalid,
    /// It is somebody else's.
    #[error("the token is of {0}, not of the bridges' account")]
    Account(String),
    /// It says no pod, or none that runs.
    #[error("the token is of no pod that runs on a node")]
    NoPod,
    /// The bridge says another node.
    #[error("the token's pod runs on {0}")]
    Node(String),
    /// The API server does not say.
    #[error("the token cannot be reviewed now: {0}")]
    Unknown(String),
}

impl Refusal {
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::NoToken => "no-token",
            Self::Invalid => "invalid",
            Self::Account(_) => "account",
            Self::NoPod => "no-pod",
            Self::Node(_) => "node",
            Self::Unknown(_) => "api",
        }
    }
}

/// Reviews tokens.
pub(super) struct Reviewer {
    client: Client,
    account: String,
    namespace: String,
    counts: Counts,
    kept: Mutex<HashMap<[u8; 32], Kept>>,
}

#[derive(Clone, Debug)]
struct Kept {
    node: Arc<str>,
    at: Instant,
}

impl std::fmt::Debug for Reviewer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reviewer")
            .field("account", &self.account)
            .finish_non_exhaustive()
    }
}

impl Reviewer {
    pub(super) fn new(client: Client, account: &str, namespace: &str, counts: Counts) -> Self {
        Self {
            client,
            account: account.to_owned(),
            namespace: namespace.to_owned(),
            counts,
            kept: Mutex::default(),
        }
    }

    /// The node of the pod that a token is bound to.
    pub(super) async fn node(&self, token: &str) -> Result<Arc<str>, Refusal> {
        let mut key = [0; 32];
        key.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        let kept = self.kept.lock().get(&key).cloned();
        if let Some(kept) = kept.as_ref().filter(|kept| kept.at.elapsed() < FRESH) {
            return Ok(Arc::clone(&kept.node));
        }
        match timeout(ANSWER_TIME, self.ask(token)).await {
            Ok(Ok(node)) => {
                let mut all = self.kept.lock();
                if all.len() >= MAX_KEPT {
                    all.retain(|_, kept| kept.at.elapsed() < FRESH);
                }
                if all.len() < MAX_KEPT {
                    all.insert(key, Kept { node: Arc::clone(&node), at: Instant::now() });
                }
                Ok(node)
            }
            Ok(Err(Refusal::Unknown(why))) => kept.map_or(Err(Refusal::Unknown(why)), in_force),
            Ok(Err(refused)) => {
                self.kept.lock().remove(&key);
                Err(refused)
            }
            Err(_elapsed) => {
                kept.map_or_else(|| Err(Refusal::Unknown("no answer".into())), in_force)
            }
        }
    }

    async fn ask(&self, token: &str) -> Result<Arc<str>, Refusal> {
        let unknown = |error: kube::Error| Refusal::Unknown(error.to_string());
        let spec = TokenReviewSpec {
            token: Some(token.to_owned()),
            audiences: Some(vec![AUDIENCE.to_owned()]),
        };
        let review = TokenReview { spec, ..TokenReview::default() };
        self.counts.calls.with(&["create", "tokenreviews"]).inc();
        let reviews = Api::<TokenReview>::all(self.client.clone());
        let review = reviews
            .create(&PostParams::default(), &review)
            .await
            .map_err(unknown)?;
        let status = review.status.unwrap_or_default();
        let for_us = status
            .audiences
            .iter()
            .flatten()
            .any(|audience| audience == AUDIENCE);
        if status.authenticated != Some(true) || !for_us {
            return Err(Refusal::Invalid);
        }
        let user = status.user.unwrap_or_default();
        let name = user.username.unwrap_or_default();
        if name != self.account {
            return Err(Refusal::Account(name));
        }
        let extra = user.extra.unwrap_or_default();
        let first = |key: &str| extra.get(key).and_then(|values| values.first()).cloned();
        // Since Kubernetes 1.31 the token itself says it.
        if let Some(node) = first("authentication.kubernetes.io/node-name") {
            return Ok(node.into());
        }
        let pod = first("authentication.kubernetes.io/pod-name").ok_or(Refusal::NoPod)?;
        self.counts.calls.with(&["get", "pods"]).inc();
        let pods = Api::<Pod>::namespaced(self.client.clone(), &self.namespace);
        let pod = pods
            .get_opt(&pod)
            .await
            .map_err(unknown)?
            .ok_or(Refusal::NoPod)?;
        let uid = first("authentication.kubernetes.io/pod-uid");
        let node = pod.spec.and_then(|spec| spec.node_name);
        match node {
            Some(node) if uid.is_none() || uid == pod.metadata.uid => Ok(node.into()),
            _ => Err(Refusal::NoPod),
        }
    }
}

fn in_force(kept: Kept) -> Result<Arc<str>, Refusal> {
    if kept.at.elapsed() < STALE { Ok(kept.node) } else { Err(Refusal::NoPod) }
}

#[cfg(test)]
mod tests;
