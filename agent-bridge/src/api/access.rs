//! Who may ask and who may change something.
//!
//! The unix socket is guarded by its mode. Over TCP a change needs a token with the role `write`;
//! looking needs one too once the listener can be reached from elsewhere. On loopback a change also
//! has to name this machine in `Host`: a page in somebody's browser must not set modes by way of a
//! name that resolves to 127.0.0.1.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Request, State},
    http::{
        HeaderMap, Method, StatusCode,
        header::{AUTHORIZATION, HOST, WWW_AUTHENTICATE},
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use outrider_api::ErrorBody;
use thiserror::Error;

use super::{
    review::{Refused, Review},
    tokens::{Role, Tokens},
};
use crate::counts::Denied;

/// Longest token that is looked at.
const MAX_TOKEN: usize = 4096;

/// How a request came in.
#[derive(Clone, Debug)]
pub enum Access {
    /// Over the unix socket.
    Unix,
    /// Over TCP.
    Tcp(Arc<Gate>),
}

/// What guards a TCP listener.
#[derive(Debug)]
pub struct Gate {
    /// Tokens of our own.
    pub tokens: Arc<Tokens>,
    /// Who knows others.
    pub review: Option<Review>,
    /// It is reached from this machine only.
    pub is_loopback: bool,
}

/// Why a request goes no further.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub(super) enum Denial {
    #[error(
        "this needs a token: send `Authorization: Bearer TOKEN` (`outrider --token-file FILE` or \
         OUTRIDER_TOKEN), or use the unix socket on the node; the bridge reads its tokens from \
         OUTRIDER_BRIDGE_TOKENS"
    )]
    NoToken,
    #[error(
        "the token is not known: its SHA-256 belongs into the file that OUTRIDER_BRIDGE_TOKENS \
         names, as `name read|write sha256`, or, with OUTRIDER_BRIDGE_REVIEW, it is to be one of \
         the cluster that has not run out: `kubectl create token ACCOUNT --audience outrider.dev`"
    )]
    UnknownToken,
    #[error("the token may only read; changes need one with the role `write`")]
    ReadOnly,
    #[error(
        "Host must name this machine (localhost or a loopback address) for a change over loopback"
    )]
    ForeignHost,
    #[error(
        "the cluster does not let the token's account: give it a role with the verb `{verb}` on \
         `bridges.outrider.dev`",
        verb = if *.0 == Role::Read { "get" } else { "update" }
    )]
    NotAllowed(Role),
    #[error(
        "the API server cannot be asked about the token, so it counts for nothing; the bridge's \
         log says why. Try again, or use the unix socket on the node"
    )]
    NotReviewed,
}

impl Denial {
    fn reason(self) -> Denied {
        match self {
            Self::NoToken => Denied::NoToken,
            Self::UnknownToken => Denied::UnknownToken,
            Self::ReadOnly => Denied::ReadOnly,
            Self::ForeignHost => Denied::ForeignHost,
            Self::NotAllowed(_) => Denied::NotAllowed,
            Self::NotReviewed => Denied::NotReviewed,
        }
    }
}

impl IntoResponse for Denial {
    fn into_response(self) -> Response {
        let body = Json(ErrorBody { error: self.to_string() });
        match self {
            Self::NoToken | Self::UnknownToken => {
                let scheme = [(WWW_AUTHENTICATE, "Bearer realm=\"outrider\"")];
                (StatusCode::UNAUTHORIZED, scheme, body).into_response()
            }
            Self::ReadOnly | Self::ForeignHost | Self::NotAllowed(_) => {
                (StatusCode::FORBIDDEN, body).into_response()
            }
            Self::NotReviewed => (StatusCode::SERVICE_UNAVAILABLE, body).into_response(),
        }
    }
}

/// Stands before every route, known or not.
pub(super) async fn guard(
    State((access, counts)): State<(Access, crate::counts::Counts)>,
    request: Request,
    next: Next,
) -> Response {
    match access.admit(request.method(), request.headers()).await {
        Ok(()) => next.run(request).await,
        Err(denial) => {
            counts.denied(denial.reason());
            tracing::debug!(%denial, "request refused");
            denial.into_response()
        }
    }
}

impl Access {
    async fn admit(&self, method: &Method, headers: &HeaderMap) -> Result<(), Denial> {
        let Self::Tcp(gate) = self else { return Ok(()) };
        let wanted = if method.is_safe() { Role::Read } else { Role::Write };
        if wanted == Role::Write && gate.is_loopback && !names_this_machine(headers) {
            return Err(Denial::ForeignHost);
        }
        let Some(token) = bearer(headers) else {
            let is_open = wanted == Role::Read && gate.is_loopback;
            return if is_open { Ok(()) } else { Err(Denial::NoToken) };
        };
        let name = gate.holder(token, wanted).await?;
        if wanted == Role::Write {
            tracing::info!(holder = name, %method, "change by token");
        }
        Ok(())
    }
}

impl Gate {
    /// The name of who may, by one of our own tokens or by the cluster's word.
    async fn holder(&self, token: &str, wanted: Role) -> Result<String, Denial> {
        if let Some(holder) = self.tokens.holder(token) {
            let may = holder.role >= wanted;
            return if may { Ok(holder.name) } else { Err(Denial::ReadOnly) };
        }
        let Some(review) = &self.review else { return Err(Denial::UnknownToken) };
        match review.ask(token, wanted).await {
            Ok(Ok(name)) => Ok(name),
            Ok(Err(Refused::NotAllowed)) => Err(Denial::NotAllowed(wanted)),
            Ok(Err(Refused::Unknown)) => Err(Denial::UnknownToken),
            Err(_unanswered) => Err(Denial::NotReviewed),
        }
    }
}

/// The token of `Authorization`, if it is a bearer's.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = text.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && token.len() <= MAX_TOKEN && !token.is_empty())
        .then_some(token)
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

    #[test]
    fn only_a_bearer_has_a_token() {
        let with = |text: &str| HeaderMap::from_iter([(AUTHORIZATION, text.parse().unwrap())]);
        assert_eq!(bearer(&with("bearer abc ")), Some("abc"));
        for text in ["Basic abc", "Bearer", "Bearer  ", &format!("Bearer {}", "a".repeat(4097))] {
            assert_eq!(bearer(&with(text)), None, "{text}");
        }
    }
}
