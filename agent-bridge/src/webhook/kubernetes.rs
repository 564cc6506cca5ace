//! What the webhook hears from the API server and tells it. All of it goes on beside the questions: no question waits
//! for it.

use std::{fmt, sync::Arc, time::Duration};

use kube::Client;
use tokio::{sync::mpsc, time::sleep};

use super::{
    bundle::{Bundle, Kind},
    namespaces::{Table, watch},
    refusals::{self, Refusal},
    serve::Shared,
};
use crate::{cluster::versions, inject::Version};

/// Between two looks at versions; until they are known; and until a bundle that has been written is believed by
/// every API server.
const LOOK: Duration = Duration::from_secs(120);
const RETRY: Duration = Duration::from_secs(3);
const SETTLE: Duration = Duration::from_secs(2);

/// What the webhook waits for before it is ready.
pub(super) const NAMESPACES: &str = "namespaces";
pub(super) const VERSIONS: &str = "versions";
pub(super) const BUNDLE: [&str; 2] = ["caBundle (mutating)", "caBundle (validating)"];

/// The API server's other side.
pub(super) struct Kubernetes {
    pub(super) client: Client,
    /// The configurations that say where we are, if their authorities are ours.
    pub(super) bundle: Option<Arc<Bundle>>,
    /// What is said of refused pods.
    pub(super) refusals: mpsc::Receiver<Refusal>,
    /// Versions that the settings name: they hold.
    pub(super) said: [Option<Version>; 2],
}

impl fmt::Debug for Kubernetes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kubernetes")
            .field("said", &self.said)
            .finish_non_exhaustive()
    }
}

impl Kubernetes {
    /// Follows and tells for ever.
    pub(super) async fn run(self, shared: &Shared, table: &Table) {
        let Self { client, bundle, refusals, said } = self;
        let namespaces = watch::follow(table, client.clone(), || shared.waits.done(NAMESPACES));
        let versions = versions(&client, said, shared);
        let bundles = async {
            match &bundle {
                None => std::future::pending().await,
                Some(bundle) => {
                    tokio::join!(
                        keep(bundle, Kind::Mutating, BUNDLE[0], shared),
                        keep(bundle, Kind::Validating, BUNDLE[1], shared)
                    );
                }
            }
        };
        let events = refusals::tell(client.clone(), refusals, &shared.counts);
        tokio::join!(namespaces, versions, bundles, events);
    }
}

async fn keep(bundle: &Bundle, kind: Kind, name: &'static str, shared: &Shared) {
    let (known, is_known) = tokio::sync::oneshot::channel();
    let known = parking_lot::Mutex::new(Some(known));
    let keep = bundle.keep(kind, || {
        if let Some(known) = known.lock().take() {
            // Whoever waits is there as long as this runs.
            let _sent = known.send(());
        }
    });
    let ready = async {
        if is_known.await.is_ok() {
            sleep(SETTLE).await;
            shared.waits.done(name);
        }
    };
    tokio::join!(keep, ready);
}

/// Follows the versions. What cannot be read stays as it was.
async fn versions(client: &Client, said: [Option<Version>; 2], shared: &Shared) {
    if let [Some(_), Some(_)] = said {
        return shared.waits.done(VERSIONS);
    }
    loop {
        let server = versions::server(client).await;
        let nodes = versions::oldest_node(client).await;
        for why in [server.as_ref().err(), nodes.as_ref().err()]
            .into_iter()
            .flatten()
        {
            tracing::warn!(%why, "versions cannot be read; keeping what is known");
        }
        let known = server.is_ok();
        shared.heard(said[0].or(server.ok()), said[1].map(Some).or(nodes.ok()));
        if known {
            shared.waits.done(VERSIONS);
        }
        sleep(if known { LOOK } else { RETRY }).await;
    }
}
