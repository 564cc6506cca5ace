//! Who leads: one holder of a Lease at a time.
//!
//! Nobody compares clocks. Who does not hold the Lease counts from when it *saw* the Lease change last, and takes it
//! after [`LIFE`]. The holder stops leading [`DEADLINE`] after the *beginning* of its last successful renewal, which
//! is earlier than anybody can have seen it: so it has stopped before the Lease can be another's, whatever the clocks
//! say, as long as they run about equally fast.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use tokio::{
    sync::watch,
    time::{Instant, error::Elapsed, sleep_until, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

/// How long others wait for a holder that does not renew.
pub const LIFE: Duration = Duration::from_secs(10);
/// How long a holder that cannot renew goes on leading.
pub const DEADLINE: Duration = Duration::from_secs(7);
/// How long one look and what follows of it may take: there is time for another before the deadline.
const TURN: Duration = Duration::from_secs(3);
/// Between two looks, and two renewals.
pub const RETRY: Duration = Duration::from_secs(2);
/// Where bridges find the holder.
const ADDRESS: &str = "outrider.dev/address";

/// How it stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Standing {
    /// We lead.
    Leading,
    /// We led, and cannot reach the API server. Most likely nobody can, so what is known is served on, and nothing is
    /// decided that another leader might decide otherwise.
    Unsure,
    /// Somebody else does, at this address as far as we know.
    Following(Option<String>),
}

/// One who would lead.
#[derive(Debug)]
pub struct Candidate {
    api: Api<Lease>,
    name: String,
    identity: String,
    address: String,
}

/// The Lease as one replica knows it.
#[derive(Debug)]
struct View {
    /// Its version, and when that was seen first.
    seen: Option<String>,
    seen_at: Instant,
    /// Its version as we wrote it last: as long as nobody else wrote it, it is ours.
    mine: Option<String>,
    /// The time in what we tried to write last: a write that was not answered may have been done.
    tried: Option<MicroTime>,
    /// Beginning of our last successful renewal, while that counts.
    held: Option<Instant>,
}

impl View {
    fn new() -> Self {
        Self { seen: None, seen_at: Instant::now(), mine: None, tried: None, held: None }
    }

    /// Whether nobody has written the Lease since we did.
    fn is_ours(&self, lease: &Lease, identity: &str) -> bool {
        let is_known = self.mine.is_some() && self.mine == lease.metadata.resource_version;
        let as_tried = lease.spec.as_ref().is_some_and(|spec| {
            self.tried.is_some()
                && spec.renew_time == self.tried
                && spec.holder_identity.as_deref() == Some(identity)
        });
        is_known || as_tried
    }

    /// What a turn that began then means for us; `None`: what was before still holds.
    fn judge(
        &mut self,
        turn: Result<Result<Standing, kube::Error>, Elapsed>,
        began: Instant,
    ) -> Option<Standing> {
        match turn {
            Ok(Ok(now)) => {
                self.held = (now == Standing::Leading).then_some(began);
                return Some(now);
            }
            Ok(Err(error)) => tracing::warn!(%error, "the lease cannot be read or written"),
            Err(_elapsed) => tracing::warn!("the lease cannot be read or written: no answer"),
        }
        // While nobody can renew, nobody's silence says anything.
        self.seen = None;
        let is_over = self.held.is_some_and(|held| held.elapsed() >= DEADLINE);
        is_over.then(|| {
            self.held = None;
            Standing::Unsure
        })
    }
}

impl Candidate {
    /// For the Lease `name` in `namespace`.
    #[must_use]
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str, address: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
            address: address.to_owned(),
        }
    }

    /// Tries to lead until `stop`, and then gives the Lease back if it is ours.
    pub async fn run(self, standing: watch::Sender<Standing>, stop: CancellationToken) {
        let mut view = View::new();
        loop {
            let began = Instant::now();
            let limit = (view.held.unwrap_or(began) + DEADLINE).min(began + TURN);
            let turn = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                turn = timeout_at(limit, self.turn(&mut view)) => turn,
            };
            if let Some(now) = view.judge(turn, began) {
                tell(&standing, now);
            }
            let next = Instant::now() + RETRY;
            let until = view.held.map_or(next, |held| next.min(held + DEADLINE));
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = sleep_until(until) => {}
            }
        }
        if view.held.is_some() {
            tell(&standing, Standing::Following(None));
            if let Ok(Err(error)) = timeout(RETRY, self.release()).await {
                tracing::info!(%error, "the lease was not given back");
            }
        }
    }

    /// One look, and what follows of it.
    async fn turn(&self, view: &mut View) -> Result<Standing, kube::Error> {
        let Some(lease) = self.api.get_opt(&self.name).await? else {
            let lease = self.ours(Lease::default(), false, view);
            return took(self.api.create(&PostParams::default(), &lease).await, view);
        };
        let version = lease.metadata.resource_version.clone();
        let is_ours = view.is_ours(&lease, &self.identity);
        let now = Instant::now();
        if view.seen != version {
            (view.seen, view.seen_at) = (version, now);
        }
        let holder = lease
            .spec
            .as_ref()
            .and_then(|spec| spec.holder_identity.clone());
        let is_held = holder.is_some_and(|holder| !holder.is_empty());
        // After a restart under the same name the Lease says us and is not held: it is waited for like another's.
        if !is_ours && is_held && now.duration_since(view.seen_at) < LIFE {
            return Ok(Standing::Following(address(&lease)));
        }
        let lease = self.ours(lease, is_ours, view);
        took(
            self.api
                .replace(&self.name, &PostParams::default(), &lease)
                .await,
            view,
        )
    }

    /// The Lease with us as its holder.
    fn ours(&self, mut lease: Lease, renewed: bool, view: &mut View) -> Lease {
        let now = Timestamp::now();
        // As precise as the API server keeps it.
        let now = Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now);
        let now = Some(MicroTime(now));
        view.tried.clone_from(&now);
        lease.metadata.name = Some(self.name.clone());
        let notes = lease.metadata.annotations.get_or_insert_with(BTreeMap::new);
        notes.insert(ADDRESS.to_owned(), self.address.clone());
        let before = lease.spec.take().unwrap_or_default();
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(LIFE.as_secs()).ok(),
            renew_time: now.clone(),
            acquire_time: if renewed { before.acquire_time } else { now },
            lease_transitions: Some(
                before
                    .lease_transitions
                    .unwrap_or(0)
                    .saturating_add(i32::from(!renewed)),
            ),
            ..before
        });
        lease
    }

    /// Lets the next one lead at once.
    async fn release(&self) -> Result<(), kube::Error> {
        let mut lease = self.api.get(&self.name).await?;
        let Some(spec) = &mut lease.spec else { return Ok(()) };
        if spec.holder_identity.as_deref() == Some(&self.identity) {
            spec.holder_identity = None;
            self.api
                .replace(&self.name, &PostParams::default(), &lease)
                .await?;
        }
        Ok(())
    }
}

/// What became of an attempt to write the Lease: who comes second follows.
fn took(written: Result<Lease, kube::Error>, view: &mut View) -> Result<Standing, kube::Error> {
    match written {
        Ok(lease) => {
            view.mine = lease.metadata.resource_version;
            Ok(Standing::Leading)
        }
        Err(error) if is_conflict(&error) => Ok(Standing::Following(None)),
        Err(error) => Err(error),
    }
}

/// Waits until we lead.
pub async fn leading(standing: &mut watch::Receiver<Standing>) -> bool {
    standing
        .wait_for(|standing| *standing == Standing::Leading)
        .await
        .is_ok()
}

fn tell(standing: &watch::Sender<Standing>, now: Standing) {
    standing.send_if_modified(|known| {
        let changed = *known != now;
        if changed {
            tracing::info!(standing = ?now, "leader election");
            *known = now;
        }
        changed
    });
}

fn address(lease: &Lease) -> Option<String> {
    lease.metadata.annotations.as_ref()?.get(ADDRESS).cloned()
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(held: Option<Instant>) -> View {
        View { seen: Some("7".into()), mine: Some("7".into()), held, ..View::new() }
    }

    async fn no_answer(limit: Instant) -> Result<Result<Standing, kube::Error>, Elapsed> {
        timeout_at(limit, std::future::pending()).await
    }

    #[tokio::test(start_paused = true)]
    async fn who_cannot_renew_stops_leading_before_another_may_begin() {
        let renewed = Instant::now();
        let mut view = view(Some(renewed));
        let before = no_answer(renewed + DEADLINE - RETRY).await;
        assert_eq!(view.judge(before, Instant::now()), None, "it goes on for a while");
        let after = no_answer(renewed + DEADLINE).await;
        assert_eq!(view.judge(after, Instant::now()), Some(Standing::Unsure));
        assert!(renewed.elapsed() < LIFE && view.held.is_none());
        assert_eq!(view.seen, None, "nor is another's silence counted meanwhile");
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_counts_from_its_beginning() {
        let (mut view, began) = (view(None), Instant::now());
        tokio::time::advance(RETRY).await;
        assert_eq!(view.judge(Ok(Ok(Standing::Leading)), began), Some(Standing::Leading));
        assert_eq!(view.held, Some(began));
        let other = Standing::Following(None);
        assert_eq!(view.judge(Ok(Ok(other.clone())), began), Some(other));
        assert_eq!(view.held, None);
    }
    #[test]
    fn what_was_written_without_an_answer_is_ours_and_no_one_elses() {
        let time = |seconds| Some(MicroTime(Timestamp::from_second(seconds).unwrap()));
        let lease = |holder: &str, at| {
            let spec = LeaseSpec {
                holder_identity: Some(holder.into()),
                renew_time: time(at),
                ..LeaseSpec::default()
            };
            Lease { spec: Some(spec), ..Lease::default() }
        };
        let mut view = View::new();
        assert!(!view.is_ours(&lease("one", 5), "one"), "after a restart it is waited for");
        view.tried = time(5);
        assert!(view.is_ours(&lease("one", 5), "one"));
        assert!(!view.is_ours(&lease("one", 4), "one"));
        assert!(!view.is_ours(&lease("two", 5), "one"));
    }
}
