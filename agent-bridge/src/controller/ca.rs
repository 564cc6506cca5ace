//! Our certificate and its authority. Every replica makes its own, and adds it to what the others have made known in
//! the ConfigMap that bridges mount.

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, Client, api::PostParams};
use outrider_telemetry::unix_seconds;
use parking_lot::RwLock;
use rustls::ServerConfig;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::settings::Settings;
use crate::webhook::{
    Terms,
    authorities::{Own, merged},
    authority::{Authority, Pair},
};

/// The key of the ConfigMap.
pub const KEY: &str = "ca.crt";
/// Authorities that are kept; those that end first make room.
const MAX_AUTHORITIES: usize = 32;
/// Between two looks whether ours is still there.
const LOOK: Duration = Duration::from_secs(60);
/// After a failure.
const RETRY: Duration = Duration::from_secs(2);
/// Time for one call.
const CALL_TIME: Duration = Duration::from_secs(5);

/// What is served, and where it is made known.
pub(super) struct Ca {
    authority: Authority,
    current: Pair,
    served: Arc<RwLock<Arc<ServerConfig>>>,
    maps: Api<ConfigMap>,
    name: String,
    known: watch::Sender<bool>,
}

/// Current configuration for who connects.
pub(super) type Served = Arc<RwLock<Arc<ServerConfig>>>;

impl Ca {
    /// Makes the first certificate.
    pub(super) fn new(client: Client, settings: &Settings, terms: Terms) -> io::Result<Self> {
        let authority = Authority::plain(settings.names.clone(), terms);
        let current = authority.make()?;
        let served = Arc::new(RwLock::new(Arc::clone(&current.loaded.config)));
        Ok(Self {
            authority,
            current,
            served,
            maps: Api::namespaced(client, &settings.namespace),
            name: settings.ca_configmap.clone(),
            known: watch::Sender::new(false),
        })
    }

    pub(super) fn served(&self) -> Served {
        Arc::clone(&self.served)
    }

    /// Whether bridges can know us.
    pub(super) fn known(&self) -> watch::Receiver<bool> {
        self.known.subscribe()
    }

    /// Keeps it known, and renews it, for ever.
    pub(super) async fn keep(mut self) {
        let mut renewed = Instant::now();
        loop {
            self.make_known(&[&self.current.authority]).await;
            self.known.send_replace(true);
            sleep(LOOK.min(self.authority.terms.renew)).await;
            if renewed.elapsed() < self.authority.terms.renew {
                continue;
            }
            match self.authority.make() {
                Ok(next) => {
                    self.make_known(&[&self.current.authority, &next.authority])
                        .await;
                    sleep(self.authority.terms.settle).await;
                    *self.served.write() = Arc::clone(&next.loaded.config);
                    self.current = next;
                    renewed = Instant::now();
                }
                Err(error) => tracing::error!(%error, "no new certificate; keeping the old"),
            }
        }
    }

    /// Until it is done.
    async fn make_known(&self, own: &[&String]) {
        loop {
            match timeout(CALL_TIME, self.add(own)).await {
                Ok(Ok(())) => return,
                Ok(Err(kube::Error::Api(status))) if status.code == 409 => continue,
                Ok(Err(error)) => tracing::warn!(%error, "our authority is not known to bridges"),
                Err(_elapsed) => tracing::warn!("our authority is not known to bridges: no answer"),
            }
            sleep(RETRY).await;
        }
    }

    async fn add(&self, own: &[&String]) -> Result<(), kube::Error> {
        let before = self.maps.get_opt(&self.name).await?;
        let text = |map: &ConfigMap| map.data.as_ref()?.get(KEY).cloned();
        let known = before.as_ref().and_then(text).unwrap_or_default();
        let own =
            Own { current: own.iter().map(|text| (*text).clone()).collect(), ..Own::default() };
        let (merged, _) = merged(known.as_bytes(), &own, unix_seconds(), MAX_AUTHORITIES);
        if merged == known {
            return Ok(());
        }
        let is_new = before.is_none();
        let mut map = before.unwrap_or_else(|| ConfigMap {
            metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
            ..ConfigMap::default()
        });
        map.data
            .get_or_insert_with(BTreeMap::new)
            .insert(KEY.to_owned(), merged);
        let parameters = PostParams::default();
        let done = match is_new {
            true => self.maps.create(&parameters, &map).await,
            false => self.maps.replace(&self.name, &parameters, &map).await,
        };
        done.map(drop)
    }
}

#[cfg(test)]
mod tests;
