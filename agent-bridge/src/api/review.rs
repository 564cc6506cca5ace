//! Tokens of people: the API server says whose one is, and whether its roles let that account look or change
//! something here (`SubjectAccessReview`).

mod settings;

use std::time::Duration;

use k8s_openapi::api::{
    authentication::v1::UserInfo,
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::{Api, Client, api::PostParams};
use outrider_api::access::{GROUP, RESOURCE};
use parking_lot::Mutex;
use tokio::time::Instant;

pub(crate) use settings::{HELP, ReviewSettings};

use super::tokens::Role;
use crate::{
    cluster::review::{ReviewError, Reviews, Terms, whose},
    counts::{Counts, Reviewed},
};

const TERMS: Terms =
    Terms { fresh: Duration::from_secs(30), stale: Duration::from_secs(30), most: 1024 };
/// How long a client is used: our own token is renewed, and so may be who signs.
const CLIENT_LIFE: Duration = Duration::from_secs(60);
/// Longest name of an account in the log.
const MAX_NAME: usize = 253;

/// Why a token is of no use here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Refused {
    /// It is an account's, which may not.
    NotAllowed,
    /// It is nobody's, or not meant for us.
    Unknown,
}

/// Asks one API server.
pub struct Review {
    settings: ReviewSettings,
    client: Mutex<Option<(Client, Instant)>>,
    reviews: Reviews<String, Refused>,
    counts: Counts,
}

impl std::fmt::Debug for Review {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Review")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Review {
    /// One, if the settings name whom to ask. Nothing is sent yet.
    pub(crate) fn of(settings: Option<&ReviewSettings>, counts: &Counts) -> Option<Self> {
        let settings = settings?.clone();
        let (reviews, counts) = (Reviews::new(TERMS), counts.clone());
        Some(Self { settings, client: Mutex::default(), reviews, counts })
    }

    /// Whose token it is, if its account may do that.
    ///
    /// # Errors
    /// The API server cannot be asked.
    pub(super) async fn ask(
        &self,
        token: &str,
        wanted: Role,
    ) -> Result<Result<String, Refused>, ReviewError> {
        let verb = match wanted {
            Role::Read => "get",
            Role::Write => "update",
        };
        let asked =
            self.reviews
                .ask((token, verb), Box::pin(self.review(token, verb)), |answered| {
                    self.counts.reviewed(match answered {
                        Ok(Ok(_)) => Reviewed::Allowed,
                        Ok(Err(Refused::NotAllowed)) => Reviewed::NotAllowed,
                        Ok(Err(Refused::Unknown)) => Reviewed::Unknown,
                        Err(_) => Reviewed::Failed,
                    });
                });
        asked.await
    }

    async fn review(
        &self,
        token: &str,
        verb: &str,
    ) -> Result<Result<String, Refused>, ReviewError> {
        let client = self.client().await?;
        let reviewed = async {
            let audience = self.settings.audience.as_deref();
            let Some(user) = whose(&client, token, audience).await? else {
                return Ok(Err(Refused::Unknown));
            };
            let name = user.username.iter().flat_map(|name| name.chars());
            let name = name.take(MAX_NAME).collect();
            let reviews = Api::<SubjectAccessReview>::all(client.clone());
            let access = reviews
                .create(&PostParams::default(), &asks(user, verb))
                .await?;
            let access = access.status.unwrap_or_default();
            let may = access.allowed && access.denied != Some(true);
            Ok(if may { Ok(name) } else { Err(Refused::NotAllowed) })
        };
        let reviewed = reviewed.await;
        if reviewed.is_err() {
            *self.client.lock() = None;
        }
        reviewed
    }

    /// A client that has read our token, and who signs the API server's certificate, a moment ago and since it failed last.
    async fn client(&self) -> Result<Client, ReviewError> {
        let known = self.client.lock().clone();
        if let Some((client, at)) = known
            && at.elapsed() < CLIENT_LIFE
        {
            return Ok(client);
        }
        let client = self.settings.client().await?;
        *self.client.lock() = Some((client.clone(), Instant::now()));
        Ok(client)
    }
}

/// Whether an account may; all that is known of it goes into the question as it came.
fn asks(user: UserInfo, verb: &str) -> SubjectAccessReview {
    let spec = SubjectAccessReviewSpec {
        user: user.username,
        uid: user.uid,
        groups: user.groups,
        extra: user.extra,
        resource_attributes: Some(ResourceAttributes {
            group: Some(GROUP.to_owned()),
            resource: Some(RESOURCE.to_owned()),
            verb: Some(verb.to_owned()),
            ..ResourceAttributes::default()
        }),
        ..SubjectAccessReviewSpec::default()
    };
    SubjectAccessReview { spec, ..SubjectAccessReview::default() }
}
