//! The watches. Each begins again by itself, after seconds while the API server is away; what is known meanwhile
//! stays in force.

use std::{fmt::Debug, sync::Arc};

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, Resource,
    core::PartialObjectMeta,
    runtime::watcher::{self, Event},
};
use serde::de::DeserializeOwned;
use tokio_util::task::TaskTracker;

use super::{
    counts::Counts,
    nodes, pods, slices,
    store::{Store, Table, Tables, key},
};
use crate::pause::patient;

/// Objects of one page of a list.
const PAGE: u32 = 500;

/// Begins all watches.
pub(super) fn begin(client: &Client, store: &Arc<Store>, counts: &Counts, tasks: &TaskTracker) {
    let watch = Watch { store: Arc::clone(store), counts: counts.clone() };
    let pods = Api::all_with(client.clone(), &pods::resource());
    tasks.spawn(watch.clone().follow("pods", pods, Tables::pod));
    let nodes = Api::all_with(client.clone(), &nodes::resource());
    tasks.spawn(watch.clone().follow("nodes", nodes, Tables::node));
    let services = Api::all_with(client.clone(), &slices::services());
    tasks.spawn(watch.clone().follow("services", services, Tables::service));
    let (own, asked) = (watch.clone(), client.clone());
    tasks.spawn(async move {
        let version = slices::slices(&asked).await;
        let slices = Api::all_with(asked, &version);
        own.follow("endpointslices", slices, Tables::slice).await;
    });
    let namespaces = Api::<PartialObjectMeta<Namespace>>::all(client.clone());
    tasks.spawn(
        watch
            .clone()
            .follow("namespaces", namespaces, |tables, event| {
                let keep = |object: PartialObjectMeta<Namespace>| {
                    Some(Arc::new(object.metadata.labels.unwrap_or_default()))
                };
                tables.namespaces.take(event, keep)
            }),
    );
    macro_rules! ours {
        ($kind:literal, $table:ident) => {
            let api = Api::all(client.clone());
            tasks.spawn(
                watch
                    .clone()
                    .follow($kind, api, |tables, event| keep(&mut tables.$table, event)),
            );
        };
    }
    ours!("workloadgroups", groups);
    ours!("clusterworkloadgroups", cluster_groups);
    ours!("networkrules", rules);
    ours!("clusternetworkrules", cluster_rules);
    ours!("workloadmodes", modes);
    ours!("clusterworkloadmodes", cluster_modes);
    ours!("learnedpolicies", learned);
}

/// Takes in an object of ours, without what nobody reads. What we write into its status ourselves is no change.
fn keep<K: Resource>(table: &mut Table<Arc<K>>, event: Event<K>) -> bool {
    let strip = |mut object: K| {
        let meta = object.meta_mut();
        (meta.managed_fields, meta.annotations) = (None, None);
        Some(Arc::new(object))
    };
    let mut is_echo = false;
    if let Event::Apply(object) = &event {
        let (meta, key) = (object.meta(), key(object));
        is_echo = table.get(&key).is_some_and(|known| {
            let known = known.meta();
            known.uid == meta.uid && known.generation == meta.generation
        });
    }
    table.take(event, strip) && !is_echo
}

#[derive(Clone, Debug)]
struct Watch {
    store: Arc<Store>,
    counts: Counts,
}

impl Watch {
    async fn follow<K, F>(self, kind: &'static str, api: Api<K>, take: F)
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
        F: Fn(&mut Tables, Event<K>) -> bool,
    {
        let config = watcher::Config::default().page_size(PAGE);
        let stream = patient(watcher::watcher(api, config));
        let mut stream = std::pin::pin!(stream);
        while let Some(event) = stream.next().await {
            self.took(kind, event, &take);
        }
    }

    fn took<K, F>(&self, kind: &'static str, event: Result<Event<K>, watcher::Error>, take: &F)
    where
        F: Fn(&mut Tables, Event<K>) -> bool,
    {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                tracing::warn!(kind, %error, "watch");
                self.counts.watch_failures.with(&[kind]).inc();
                return self.store.watched(
                    kind,
                    Some(error.to_string()),
                    &self.counts.watches_failing,
                );
            }
        };
        if matches!(event, Event::Init) {
            self.counts.calls.with(&["list", kind]).inc();
        } else {
            self.counts.events.with(&[kind]).inc();
            self.store.watched(kind, None, &self.counts.watches_failing);
        }
        if take(&mut self.store.tables.lock(), event) {
            self.store.changed.notify_one();
        }
    }
}
