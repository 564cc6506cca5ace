//! Namespaces from the API server: listed, then watched. While it is away the last list holds, and is said to be old.

use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1;
use kube::{
    Api, Client,
    api::{ListParams, PartialObjectMeta, WatchEvent, WatchParams},
};
use tokio::time::{sleep, timeout};

use super::{MAX_NAMESPACES, Table};
use crate::{inject::Namespace, pause::Pauses};

/// Namespaces of one answer.
const PAGE: u32 = 500;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Seconds after which the API server ends a watch, which goes on where it was: a connection that died without a word is
/// found out then.
const WATCH: u32 = 60;

/// Follows for ever. `listed` is called when the list is complete.
pub(in crate::webhook) async fn follow(table: &Table, client: Client, listed: impl Fn()) {
    let api: Api<v1::Namespace> = Api::all(client);
    for pause in Pauses::default() {
        let why = match list(&api, table).await {
            Ok(version) => {
                listed();
                watch(&api, table, version).await
            }
            Err(why) => why,
        };
        table.outdated(&why);
        sleep(pause).await;
    }
}

/// Takes the whole list. The version to watch from.
async fn list(api: &Api<v1::Namespace>, table: &Table) -> Result<String, String> {
    let mut found = Vec::new();
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let answer = timeout(PATIENCE, api.list_metadata(&page)).await;
        let answer = answer
            .map_err(|_elapsed| "no answer".to_owned())?
            .map_err(|error| error.to_string())?;
        found.extend(answer.items.into_iter().filter_map(namespace));
        if found.len() > MAX_NAMESPACES {
            return Err(format!("more than {MAX_NAMESPACES} namespaces"));
        }
        match answer.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => {
                table.replace(found);
                return Ok(answer.metadata.resource_version.unwrap_or_default());
            }
        }
    }
}

/// Follows changes until it cannot; why not.
async fn watch(api: &Api<v1::Namespace>, table: &Table, mut version: String) -> String {
    let wanted = WatchParams::default().timeout(WATCH);
    let silence = Duration::from_secs(WATCH.into()) + PATIENCE;
    loop {
        let events = match timeout(PATIENCE, api.watch_metadata(&wanted, &version)).await {
            Ok(Ok(events)) => events,
            Ok(Err(error)) => return error.to_string(),
            Err(_elapsed) => return "no answer".to_owned(),
        };
        tokio::pin!(events);
        loop {
            let event = match timeout(silence, events.next()).await {
                Ok(Some(Ok(event))) => event,
                Ok(Some(Err(error))) => return error.to_string(),
                // It ended in order.
                Ok(None) => break,
                Err(_elapsed) => return "silence".to_owned(),
            };
            match event {
                WatchEvent::Added(meta) | WatchEvent::Modified(meta) => {
                    if let Some(is) = &meta.metadata.resource_version {
                        version.clone_from(is);
                    }
                    namespace(meta)
                        .into_iter()
                        .for_each(|namespace| table.put(namespace));
                }
                WatchEvent::Deleted(meta) => {
                    if let Some(is) = &meta.metadata.resource_version {
                        version.clone_from(is);
                    }
                    table.remove(meta.metadata.name.as_deref().unwrap_or_default());
                }
                WatchEvent::Bookmark(mark) => version = mark.metadata.resource_version,
                WatchEvent::Error(status) => return status.message,
            }
        }
    }
}

fn namespace(meta: PartialObjectMeta<v1::Namespace>) -> Option<Namespace> {
    let meta = meta.metadata;
    Some(Namespace {
        name: meta.name?,
        labels: meta.labels.unwrap_or_default(),
        annotations: meta.annotations.unwrap_or_default(),
    })
}
