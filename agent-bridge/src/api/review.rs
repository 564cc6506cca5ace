//! A cluster's tokens: the API server says whose one is (`TokenReview`), and whether its roles let
//! that account look or change something here (`SubjectAccessReview`).
//!
//! What it says is kept for a short while, by the token's digest. When it cannot be asked, nobody
//! whose answer is not kept gets in: the mistake closes.

mod kept;
mod settings;

use std::{path::PathBuf, time::Duration};

use aws_lc_rs::digest;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request,
    body::Bytes,
    client::conn::http1,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use outrider_api::access::{GROUP, RESOURCE};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

pub(crate) use settings::{HELP, ReviewSettings};

use super::tokens::Role;
use crate::{
    connect::{ConnectError, Peer},
    counts::{Counts, Reviewed},
};
use kept::{Digest, Kept};

const TOKEN_REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const ACCESS_REVIEWS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
/// How long both questions may take, the wait for a place included.
const ASK_TIME: Duration = Duration::from_secs(5);
/// Questions under way; whoever invents tokens keeps no more than these busy.
const MAX_ASKING: usize = 8;
/// After a failure the API server is left alone for so long.
const PAUSE: Duration = Duration::from_secs(1);
/// Largest answer.
const MAX_ANSWER: usize = 1 << 20;
/// Largest token of our own.
const MAX_TOKEN: usize = 16 << 10;
/// Longest name of an account in the log.
const MAX_NAME: usize = 253;

/// What the API server says of a token.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// It is this account's, which may.
    Allowed(String),
    /// It is an account's, which may not.
    NotAllowed,
    /// It is nobody's, or not meant for us.
    Unknown,
}

/// Why the API server says nothing.
#[derive(Debug, Error)]
enum ReviewError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error("our request cannot be made: {0}")]
    Request(#[from] hyper::http::Error),
    #[error("{0}: {1}")]
    OwnToken(String, String),
    #[error(
        "the API server answered {0}: the bridge's own account needs the ClusterRole \
         system:auth-delegator"
    )]
    Refused(u16),
    #[error("the API server answered {0}")]
    Status(u16),
    #[error("the answer makes no sense: {0}")]
    Answer(String),
    #[error("no answer within {} s", ASK_TIME.as_secs())]
    TooLate,
}

/// Asks one API server.
#[derive(Debug)]
pub struct Review {
    peer: Peer,
    authority: String,
    token: PathBuf,
    audience: Option<String>,
    kept: Mutex<Kept>,
    asking: Semaphore,
    /// When it failed last.
    failed: Mutex<Option<Instant>>,
    counts: Counts,
}

impl Review {
    /// One, if the settings name whom to ask.
    pub(crate) fn of(settings: Option<&ReviewSettings>, counts: &Counts) -> Option<Self> {
        settings.map(|settings| Self::new(settings, counts.clone()))
    }

    /// Asks whom the settings name; nothing is sent yet.
    fn new(settings: &ReviewSettings, counts: Counts) -> Self {
        let ReviewSettings { host, port, ca, token, audience } = settings.clone();
        let is_v6 = host.contains(':');
        let authority = if is_v6 { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let peer = Peer { host, port, tls: true, ca: Some(ca), lost_after: None };
        Self {
            peer,
            authority,
            token,
            audience,
            kept: Mutex::default(),
            asking: Semaphore::new(MAX_ASKING),
            failed: Mutex::default(),
            counts,
        }
    }

    /// What the holder of a token may; `None` when the API server cannot be asked.
    ///
    /// Dropped while it waits, nothing is kept and the next one asks again.
    pub(super) async fn ask(&self, token: &str, wanted: Role) -> Option<Verdict> {
        let key = (digest(token), wanted);
        if let Some(known) = self.kept.lock().get(&key, Instant::now()) {
            return Some(known);
        }
        let failed = *self.failed.lock();
        if failed.is_some_and(|at| at.elapsed() < PAUSE) {
            self.counts.reviewed(Reviewed::Failed);
            return None;
        }
        let asked = Box::pin(self.review(token, wanted));
        match timeout(ASK_TIME, asked)
            .await
            .unwrap_or(Err(ReviewError::TooLate))
        {
            Ok(verdict) => {
                *self.failed.lock() = None;
                self.counts.reviewed(match verdict {
                    Verdict::Allowed(_) => Reviewed::Allowed,
                    Verdict::NotAllowed => Reviewed::NotAllowed,
                    Verdict::Unknown => Reviewed::Unknown,
                });
                self.kept.lock().keep(key, verdict.clone(), Instant::now());
                Some(verdict)
            }
            Err(error) => {
                self.counts.reviewed(Reviewed::Failed);
                if self.failed.lock().replace(Instant::now()).is_none() {
                    tracing::error!(%error, server = self.authority, "tokens cannot be reviewed");
                }
                None
            }
        }
    }

    async fn review(&self, token: &str, wanted: Role) -> Result<Verdict, ReviewError> {
        let Ok(_place) = self.asking.acquire().await else { return Err(ReviewError::TooLate) };
        let mut spec = json!({ "token": token });
        if let Some(audience) = &self.audience {
            spec["audiences"] = json!([audience]);
        }
        let reviewed: Reviewing = self
            .post(TOKEN_REVIEWS, ("authentication.k8s.io/v1", "TokenReview"), &spec)
            .await?;
        let Some(user) = reviewed.known(self.audience.as_deref()) else {
            return Ok(Verdict::Unknown);
        };
        let verb = match wanted {
            Role::Read => "get",
            Role::Write => "update",
        };
        let attributes = json!({ "group": GROUP, "resource": RESOURCE, "verb": verb });
        let spec = user.asks(&attributes);
        let access: Access = self
            .post(ACCESS_REVIEWS, ("authorization.k8s.io/v1", "SubjectAccessReview"), &spec)
            .await?;
        if access.allowed && !access.denied {
            let name: String = user.username.chars().take(MAX_NAME).collect();
            return Ok(Verdict::Allowed(name));
        }
        Ok(Verdict::NotAllowed)
    }

    /// Posts one review and gives the status of the answer.
    async fn post<T: for<'a> Deserialize<'a>>(
        &self,
        path: &str,
        (version, kind): (&str, &str),
        spec: &Value,
    ) -> Result<T, ReviewError> {
        let body = json!({ "apiVersion": version, "kind": kind, "spec": spec });
        let request = Request::post(path)
            .header(HOST, &self.authority)
            .header(AUTHORIZATION, format!("Bearer {}", self.own_token().await?))
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json")
            .body(Full::new(Bytes::from(body.to_string())))?;
        let stream = TokioIo::new(self.peer.connect().await?);
        let (mut sender, connection) = http1::handshake(stream).await?;
        let exchange = async move {
            let answer = sender.send_request(request).await?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
            Ok::<_, hyper::Error>((status, body))
        };
        let (answered, _closed) = tokio::join!(exchange, connection);
        let (status, body) = answered?;
        match status.as_u16() {
            200 | 201 => {}
            refused @ (401 | 403) => return Err(ReviewError::Refused(refused)),
            other => return Err(ReviewError::Status(other)),
        }
        let nonsense = |error: String| ReviewError::Answer(error);
        let body = body
            .map_err(|error| nonsense(error.to_string()))?
            .to_bytes();
        let answer: Answered<T> =
            serde_json::from_slice(&body).map_err(|error| nonsense(error.to_string()))?;
        Ok(answer.status)
    }

    /// Read anew each time: it is renewed every hour.
    async fn own_token(&self) -> Result<String, ReviewError> {
        let wrong =
            |reason: &str| ReviewError::OwnToken(self.token.display().to_string(), reason.into());
        let text = tokio::fs::read(&self.token)
            .await
            .map_err(|error| wrong(&error.to_string()))?;
        let text = text.trim_ascii();
        if text.is_empty() || text.len() > MAX_TOKEN || !text.iter().all(u8::is_ascii_graphic) {
            return Err(wrong("holds no token"));
        }
        Ok(String::from_utf8_lossy(text).into_owned())
    }
}

fn digest(token: &str) -> Digest {
    let mut bytes = Digest::default();
    let digest = digest::digest(&digest::SHA256, token.as_bytes());
    bytes.copy_from_slice(digest.as_ref());
    bytes
}

#[derive(Deserialize)]
struct Answered<T> {
    status: T,
}

/// The status of a `TokenReview`.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Reviewing {
    authenticated: bool,
    user: User,
    audiences: Vec<String>,
}

/// Whose a token is; all of it goes into the next question as it came.
#[derive(Default, Deserialize)]
#[serde(default)]
struct User {
    username: String,
    uid: String,
    groups: Vec<String>,
    extra: Value,
}

/// The status of a `SubjectAccessReview`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Access {
    allowed: bool,
    denied: bool,
}

impl Reviewing {
    /// The account, if there is one and the token is meant for `audience`. A server that knows no
    /// audiences names none: then it is not known to be.
    fn known(self, audience: Option<&str>) -> Option<User> {
        let is_meant = audience.is_none_or(|wanted| self.audiences.iter().any(|one| one == wanted));
        (self.authenticated && is_meant && !self.user.username.is_empty()).then_some(self.user)
    }
}

impl User {
    fn asks(&self, attributes: &Value) -> Value {
        json!({
            "user": self.username,
            "uid": self.uid,
            "groups": self.groups,
            "extra": self.extra,
            "resourceAttributes": attributes,
        })
    }
}

#[cfg(test)]
mod tests;
