//! `caBundle` of the webhook configurations: whom the API server believes when it asks us. Every replica has an
//! authority of its own and keeps it there, beside those of the others; what has expired is removed.

use std::{fmt, sync::Arc, time::Duration};

use futures_util::StreamExt;
use k8s_openapi::{
    ByteString,
    api::admissionregistration::v1::{
        MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
    },
};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
    runtime::watcher::watch_object,
};
use outrider_telemetry::unix_seconds;
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::{
    authorities::{Own, merged},
    counts::{Counts, Written},
};
use crate::pause::patient;

/// Authorities that are kept at most. Replicas that are gone leave theirs until it expires.
const MAX_AUTHORITIES: usize = 128;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Attempts of one write; others write too.
const ATTEMPTS: usize = 8;
/// After a failure; and when nothing happens, since authorities expire.
const PAUSES: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(3600)];
/// Between two looks, however often somebody writes.
const SPACE: Duration = Duration::from_millis(200);
/// Who we are to the API server.
const MANAGER: &str = "outrider-webhook";

/// The two configurations of our name.
pub(super) struct Bundle {
    client: Client,
    name: String,
    own: Mutex<Own>,
    counts: Counts,
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bundle")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A configuration that says where we are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Mutating,
    Validating,
}

impl Kind {
    pub(super) const ALL: [Self; 2] = [Self::Mutating, Self::Validating];

    fn resource(self) -> ApiResource {
        match self {
            Self::Mutating => ApiResource::erase::<MutatingWebhookConfiguration>(&()),
            Self::Validating => ApiResource::erase::<ValidatingWebhookConfiguration>(&()),
        }
    }
}

impl Bundle {
    pub(super) fn new(client: Client, name: String, counts: Counts) -> Arc<Self> {
        Arc::new(Self { client, name, own: Mutex::default(), counts })
    }

    /// These are ours from now on.
    pub(super) fn set(&self, authorities: Vec<String>) {
        let mut own = self.own.lock();
        let before = std::mem::replace(&mut own.current, authorities);
        own.gone.extend(before);
        let Own { current, gone } = &mut *own;
        gone.retain(|authority| !current.contains(authority));
        let many = gone.len().saturating_sub(MAX_AUTHORITIES);
        gone.drain(..many);
    }

    /// Makes them known now.
    ///
    /// # Errors
    /// When a configuration is there and cannot be written.
    pub(super) async fn publish(&self, authorities: Vec<String>) -> Result<(), String> {
        self.set(authorities);
        for kind in Kind::ALL {
            self.ensure(kind).await?;
        }
        Ok(())
    }

    /// Keeps them known in one configuration, whoever else writes it, for ever. `known` is called when they are, or
    /// when there is no such configuration.
    pub(super) async fn keep(&self, kind: Kind, known: impl Fn()) {
        // Other people's writes come back through here.
        let events = patient(watch_object(self.api(kind), &self.name));
        tokio::pin!(events);
        let mut pause = PAUSES[0];
        loop {
            tokio::select! {
                biased;
                event = events.next() => if let Some(Err(error)) = event {
                    tracing::debug!(%error, "webhook configuration is not watched");
                },
                () = sleep(pause) => {}
            }
            pause = match self.ensure(kind).await {
                Ok(()) => {
                    known();
                    PAUSES[1]
                }
                Err(why) => {
                    tracing::warn!(why, "caBundle cannot be kept; trying again");
                    PAUSES[0]
                }
            };
            sleep(SPACE).await;
        }
    }

    fn api(&self, kind: Kind) -> Api<DynamicObject> {
        Api::all_with(self.client.clone(), &kind.resource())
    }

    async fn ensure(&self, kind: Kind) -> Result<(), String> {
        let mut last = String::new();
        for _ in 0..ATTEMPTS {
            match timeout(PATIENCE, self.attempt(kind)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(kube::Error::Api(status))) if status.code == 409 => {
                    self.counts.wrote(Written::Conflict);
                    last = status.message;
                }
                Ok(Err(error)) => {
                    self.counts.wrote(Written::Failed);
                    return Err(error.to_string());
                }
                Err(_elapsed) => {
                    self.counts.wrote(Written::Failed);
                    return Err("no answer".to_owned());
                }
            }
        }
        Err(last)
    }

    /// Reads, and writes if it must; a conflict if somebody wrote in between.
    async fn attempt(&self, kind: Kind) -> Result<(), kube::Error> {
        let api = self.api(kind);
        let Some(found) = api.get_opt(&self.name).await? else { return Ok(()) };
        let entries = found.data["webhooks"]
            .as_array()
            .map_or(&[][..], Vec::as_slice);
        let mut changes = Vec::new();
        for entry in entries {
            let now = &entry["clientConfig"]["caBundle"];
            let now: ByteString = serde_json::from_value(now.clone()).unwrap_or_default();
            let (merged, count) = {
                let own = self.own.lock();
                merged(&now.0, &own, unix_seconds(), MAX_AUTHORITIES)
            };
            self.counts
                .authorities
                .set(i64::try_from(count).unwrap_or(i64::MAX));
            if merged.as_bytes() != now.0 {
                let bundle = ByteString(merged.into_bytes());
                changes.push(json!({
                    "name": entry["name"], "clientConfig": { "caBundle": bundle },
                }));
            }
        }
        if changes.is_empty() {
            return Ok(());
        }
        // Entries are told apart by name; with the version it is refused if somebody wrote in between.
        let patch = json!({
            "metadata": { "resourceVersion": found.metadata.resource_version },
            "webhooks": changes,
        });
        let parameters = PatchParams { field_manager: Some(MANAGER.into()), ..Default::default() };
        api.patch(&self.name, &parameters, &Patch::Strategic(&patch))
            .await?;
        self.counts.wrote(Written::Done);
        tracing::info!(configuration = %self.name, ?kind, "caBundle written");
        Ok(())
    }
}
