//! Which node a bridge is on: its token is reviewed by the API server, and the pod that the token is bound to says it.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use thiserror::Error;

use super::counts::Counts;
use crate::cluster::review::{ReviewError, Reviews, Terms, whose};

/// Whom tokens must be for.
pub(super) const AUDIENCE: &str = "outrider-controller";
/// While the API server is away an answer holds on, for bridges that come back. Tokens are renewed about every hour.
const TERMS: Terms =
    Terms { fresh: Duration::from_secs(60), stale: Duration::from_secs(3_600), most: 16_384 };
/// Longest token that is looked at.
pub(super) const MAX_TOKEN: usize = 16 << 10;

/// Why a bridge is not let in.
#[derive(Clone, Debug, Error)]
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
    reviews: Reviews<Arc<str>, Refusal>,
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
            reviews: Reviews::new(TERMS),
        }
    }

    /// The node of the pod that a token is bound to.
    pub(super) async fn node(&self, token: &str) -> Result<Arc<str>, Refusal> {
        let reviewed = self
            .reviews
            .ask((token, ""), Box::pin(self.review(token)), |_| {})
            .await;
        reviewed.unwrap_or_else(|error| Err(Refusal::Unknown(error.to_string())))
    }

    async fn review(&self, token: &str) -> Result<Result<Arc<str>, Refusal>, ReviewError> {
        self.counts.calls.with(&["create", "tokenreviews"]).inc();
        let Some(user) = whose(&self.client, token, Some(AUDIENCE)).await? else {
            return Ok(Err(Refusal::Invalid));
        };
        let name = user.username.unwrap_or_default();
        if name != self.account {
            return Ok(Err(Refusal::Account(name)));
        }
        let extra = user.extra.unwrap_or_default();
        let first = |key: &str| extra.get(key).and_then(|values| values.first()).cloned();
        // Since Kubernetes 1.31 the token itself says it.
        if let Some(node) = first("authentication.kubernetes.io/node-name") {
            return Ok(Ok(node.into()));
        }
        let Some(pod) = first("authentication.kubernetes.io/pod-name") else {
            return Ok(Err(Refusal::NoPod));
        };
        self.counts.calls.with(&["get", "pods"]).inc();
        let pods = Api::<Pod>::namespaced(self.client.clone(), &self.namespace);
        let Some(pod) = pods.get_opt(&pod).await? else { return Ok(Err(Refusal::NoPod)) };
        let uid = first("authentication.kubernetes.io/pod-uid");
        let node = pod.spec.and_then(|spec| spec.node_name);
        Ok(match node {
            Some(node) if uid.is_none() || uid == pod.metadata.uid => Ok(node.into()),
            _ => Err(Refusal::NoPod),
        })
    }
}

#[cfg(test)]
mod tests;
