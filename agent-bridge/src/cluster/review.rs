//! Tokens of a cluster: the API server says whose one is (`TokenReview`), and what follows from that is kept for a
//! while, by the token's digest. When it cannot be asked, nobody whose answer is not kept gets in: the mistake closes.

use std::{collections::HashMap, time::Duration};

use aws_lc_rs::digest::{SHA256, digest};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use kube::{Api, Client, api::PostParams};
use parking_lot::Mutex;
use thiserror::Error;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

use super::client::ClientError;

/// How long an answer may take, the wait for a place included.
const ASK_TIME: Duration = Duration::from_secs(5);
/// Questions under way; whoever invents tokens keeps no more than these busy.
const MAX_ASKING: usize = 16;
/// After a failure the API server is left alone for so long.
const PAUSE: Duration = Duration::from_secs(1);
/// How long who may not get in is not asked about again; a role that is given is noticed after it.
pub(crate) const REFUSED_FOR: Duration = Duration::from_secs(5);

/// Why the API server says nothing.
#[derive(Debug, Error)]
pub(crate) enum ReviewError {
    /// There is no client.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// It does not know us, or does not let us ask.
    #[error(
        "the API server answered {0}: our own account needs the ClusterRole system:auth-delegator"
    )]
    NotOurs(u16),
    /// Anything else.
    #[error("the API server: {0}")]
    Api(#[source] kube::Error),
    /// It takes too long.
    #[error("no answer within {} s", ASK_TIME.as_secs())]
    TooLate,
    /// It is not asked just now.
    #[error("it could not be asked a moment ago")]
    Pause,
}

impl From<kube::Error> for ReviewError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if matches!(status.code, 401 | 403) => {
                Self::NotOurs(status.code)
            }
            other => Self::Api(other),
        }
    }
}

/// For how long answers count, and how many are kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// How long who may get in is not asked about again; a token that is revoked is noticed after it.
    pub(crate) fresh: Duration,
    /// The same while the API server cannot be asked.
    pub(crate) stale: Duration,
    /// Answers that are kept; those that end first make room.
    pub(crate) most: usize,
}

/// SHA-256 of a token and of what it was used for.
type Key = [u8; 32];

/// Answers of one API server: what tokens are good for, or why for nothing.
#[derive(Debug)]
pub(crate) struct Reviews<A, R> {
    terms: Terms,
    kept: Mutex<HashMap<Key, Kept<A, R>>>,
    asking: Semaphore,
    /// When it failed last.
    failed: Mutex<Option<Instant>>,
}

#[derive(Clone, Debug)]
struct Kept<A, R> {
    answer: Result<A, R>,
    at: Instant,
}

impl<A: Clone, R: Clone> Reviews<A, R> {
    pub(crate) fn new(terms: Terms) -> Self {
        Self {
            terms,
            kept: Mutex::default(),
            asking: Semaphore::new(MAX_ASKING),
            failed: Mutex::default(),
        }
    }

    /// What a token is good for: as was said lately, or else what comes of the question. `asked` hears what came of it.
    ///
    /// Dropped while it waits, nothing is kept and the next one asks again.
    ///
    /// # Errors
    /// The API server cannot be asked, and what it said before counts no more.
    pub(crate) async fn ask(
        &self,
        (token, purpose): (&str, &str),
        question: impl Future<Output = Result<Result<A, R>, ReviewError>>,
        asked: impl FnOnce(Result<&Result<A, R>, &ReviewError>),
    ) -> Result<Result<A, R>, ReviewError> {
        let key = key(token, purpose);
        let kept = self.kept.lock().get(&key).cloned();
        if let Some(kept) = kept
            .as_ref()
            .filter(|kept| self.ends(kept) > Instant::now())
        {
            return Ok(kept.answer.clone());
        }
        let answered = self.question(question).await;
        asked(answered.as_ref());
        match answered {
            Ok(answer) => {
                self.keep(key, answer.clone());
                Ok(answer)
            }
            Err(error) => match kept {
                Some(Kept { answer: Ok(answer), at }) if at.elapsed() < self.terms.stale => {
                    Ok(Ok(answer))
                }
                _ => Err(error),
            },
        }
    }

    async fn question(
        &self,
        question: impl Future<Output = Result<Result<A, R>, ReviewError>>,
    ) -> Result<Result<A, R>, ReviewError> {
        let failed = *self.failed.lock();
        if failed.is_some_and(|at| at.elapsed() < PAUSE) {
            return Err(ReviewError::Pause);
        }
        let placed = async {
            let Ok(_place) = self.asking.acquire().await else { return Err(ReviewError::TooLate) };
            question.await
        };
        let answered = timeout(ASK_TIME, Box::pin(placed)).await;
        let answered = answered.unwrap_or(Err(ReviewError::TooLate));
        let mut failed = self.failed.lock();
        match &answered {
            Ok(_) => *failed = None,
            Err(error) => {
                if failed.replace(Instant::now()).is_none() {
                    tracing::error!(%error, "tokens cannot be reviewed");
                }
            }
        }
        answered
    }

    fn keep(&self, key: Key, answer: Result<A, R>) {
        let mut all = self.kept.lock();
        if all.len() >= self.terms.most && !all.contains_key(&key) {
            let now = Instant::now();
            all.retain(|_, kept| self.ends(kept) > now);
        }
        if all.len() >= self.terms.most && !all.contains_key(&key) {
            let ends_first = all.iter().min_by_key(|(_, kept)| self.ends(kept));
            if let Some(key) = ends_first.map(|(key, _)| *key) {
                all.remove(&key);
            }
        }
        all.insert(key, Kept { answer, at: Instant::now() });
    }

    fn ends(&self, kept: &Kept<A, R>) -> Instant {
        kept.at + if kept.answer.is_ok() { self.terms.fresh } else { REFUSED_FOR }
    }
}

/// Whose token it is, if it is somebody's and meant for `audience` (`None`: for the API server). A server that knows no
/// audiences names none: then it is not known to be.
///
/// # Errors
/// The API server does not say.
pub(crate) async fn whose(
    client: &Client,
    token: &str,
    audience: Option<&str>,
) -> Result<Option<UserInfo>, ReviewError> {
    let audiences = audience.map(|audience| vec![audience.to_owned()]);
    let spec = TokenReviewSpec { token: Some(token.to_owned()), audiences };
    let review = TokenReview { spec, ..TokenReview::default() };
    let reviews = Api::<TokenReview>::all(client.clone());
    let status = reviews
        .create(&PostParams::default(), &review)
        .await?
        .status
        .unwrap_or_default();
    let named: Vec<_> = status.audiences.into_iter().flatten().collect();
    let is_meant = audience.is_none_or(|wanted| named.iter().any(|one| one == wanted));
    let is_somebody = |user: &UserInfo| user.username.as_ref().is_some_and(|name| !name.is_empty());
    let is_known = status.authenticated == Some(true) && is_meant;
    Ok(status.user.filter(|user| is_known && is_somebody(user)))
}

fn key(token: &str, purpose: &str) -> Key {
    let mut key = Key::default();
    let text = [purpose.as_bytes(), token.as_bytes()].join(&0);
    key.copy_from_slice(digest(&SHA256, &text).as_ref());
    key
}

#[cfg(test)]
mod tests;
