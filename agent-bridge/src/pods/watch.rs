//! The watches over this node's pods and over the node.

use std::{collections::BTreeMap, pin::pin, sync::Arc, time::Duration};

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::{Node as ApiNode, Pod as ApiPod};
use kube::{
    Api, Client,
    runtime::watcher::{self, Config, Event, watcher},
};
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{
    Known, KubeSettings, Origin, Pod,
    describe::describe,
    node::{self, Surroundings},
};
use crate::{cluster::client::client, node::Node, pause::patient};

/// Most pods of one node that are looked at; a kubelet runs 110 by default.
const MAX_PODS: usize = 4096;
/// Pods that come with one answer of a list.
const PAGE: u32 = 100;
/// Time to the next try when there is no client, a missing token for one.
const CLIENT_AGAIN: Duration = Duration::from_secs(5);

/// Keeps what is known of the pods up to date.
#[derive(Debug)]
pub(crate) struct Watch {
    settings: KubeSettings,
    node: Arc<Node>,
    known: watch::Sender<Arc<Known>>,
    /// What a list that has not ended yet has found.
    listing: Option<BTreeMap<String, Pod>>,
    /// Said once until it changes.
    failing: Option<String>,
}

type Watched<K> = Result<Event<K>, watcher::Error>;

impl Watch {
    /// Begins with what the store has.
    pub(crate) fn new(settings: KubeSettings, node: Arc<Node>) -> Self {
        let known = watch::Sender::new(Arc::new(node.stored_pods()));
        let watch = Self { settings, node, known, listing: None, failing: None };
        watch.tell(Some("it was not heard yet".into()));
        watch
    }

    /// For those who look.
    pub(crate) fn subscribe(&self) -> super::Shared {
        self.known.subscribe()
    }

    /// Runs until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            let client = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                client = client(&self.settings.source) => client,
            };
            match client {
                Ok(client) => {
                    stop.run_until_cancelled(Box::pin(self.follow(client)))
                        .await;
                    return;
                }
                Err(error) => self.failed(error.to_string()),
            }
            if stop
                .run_until_cancelled(sleep(CLIENT_AGAIN))
                .await
                .is_none()
            {
                return;
            }
        }
    }

    async fn follow(&mut self, client: Client) {
        let name = &self.settings.node;
        let of_node = Config::default()
            .fields(&format!("spec.nodeName={name}"))
            .page_size(PAGE);
        let itself = Config::default().fields(&format!("metadata.name={name}"));
        let mut pods = pin!(patient(watcher(Api::<ApiPod>::all(client.clone()), of_node)));
        let mut nodes = pin!(patient(watcher(Api::<ApiNode>::all(client), itself)));
        loop {
            tokio::select! {
                biased;
                event = pods.next() => match event {
                    Some(event) => self.pod(event),
                    None => return,
                },
                event = nodes.next() => match event {
                    Some(event) => self.own_node(event),
                    None => return,
                },
            }
        }
    }

    fn pod(&mut self, event: Watched<ApiPod>) {
        match event {
            Ok(Event::Init) => self.listing = Some(BTreeMap::new()),
            Ok(Event::InitApply(pod)) => {
                if let (Some(listing), Some((uid, pod))) = (&mut self.listing, describe(&pod))
                    && listing.len() < MAX_PODS
                {
                    listing.insert(uid, pod);
                }
            }
            Ok(Event::InitDone) => {
                let pods = self.listing.take().unwrap_or_default();
                self.publish(Known { origin: Origin::Server, pods });
            }
            Ok(Event::Apply(pod)) => {
                let Some((uid, pod)) = describe(&pod) else { return };
                self.change(|pods| {
                    if pods.contains_key(&uid) || pods.len() < MAX_PODS {
                        pods.insert(uid, pod);
                    }
                });
            }
            Ok(Event::Delete(pod)) => {
                let Some(uid) = pod.metadata.uid else { return };
                self.change(|pods| drop(pods.remove(&uid)));
            }
            Err(error) => self.failed(error.to_string()),
        }
    }

    fn own_node(&mut self, event: Watched<ApiNode>) {
        match event {
            Ok(Event::Apply(found) | Event::InitApply(found)) => {
                self.node.surrounded_by(node::surroundings(&found));
            }
            Ok(Event::Delete(_)) => self.node.surrounded_by(Surroundings::default()),
            Ok(Event::Init | Event::InitDone) => {}
            Err(error) => self.failed(error.to_string()),
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut BTreeMap<String, Pod>)) {
        let mut known = Known::clone(&self.known.borrow());
        change(&mut known.pods);
        known.origin = Origin::Server;
        self.publish(known);
    }

    fn publish(&mut self, known: Known) {
        self.heard();
        self.node.keep_pods(&known);
        self.known.send_if_modified(|old| {
            let is_new = **old != known;
            *old = Arc::new(known);
            is_new
        });
        self.tell(None);
    }

    fn tell(&self, failing: Option<String>) {
        let origin = self.known.borrow().origin.label();
        self.node.api_server(&self.settings.node, origin, failing);
    }

    fn heard(&mut self) {
        if self.failing.take().is_some() {
            tracing::info!("the API server answers again");
        }
    }

    fn failed(&mut self, error: String) {
        let origin = self.known.borrow().origin.label();
        if self.failing.as_ref() != Some(&error) {
            tracing::warn!(
                error,
                pods_from = origin,
                "the API server is not heard; going on with what is known"
            );
        }
        self.tell(Some(error.clone()));
        self.failing = Some(error);
    }
}
