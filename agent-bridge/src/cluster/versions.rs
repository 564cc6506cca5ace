//! Versions of Kubernetes in a cluster: of its API server and of its oldest kubelet.

use std::time::Duration;

use hyper::{Request, header::ACCEPT};
use kube::Client;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::timeout;

use crate::inject::Version;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Nodes of one answer.
const PAGE: usize = 500;
/// Answers that are read at most: 50 000 nodes.
const MAX_PAGES: usize = 100;

/// The API server's version.
///
/// # Errors
/// What the API server or the way to it says.
pub(crate) async fn server(client: &Client) -> Result<Version, String> {
    let asked = timeout(PATIENCE, client.apiserver_version()).await;
    let info = asked
        .map_err(|_elapsed| "no answer".to_owned())?
        .map_err(|error| error.to_string())?;
    let said = format!("{}.{}", info.major, info.minor);
    said.parse()
        .map_err(|form| format!("{said:?} is not {form}"))
}

/// The oldest kubelet's version, none without nodes. The rows of a table are asked for, as kubectl does: nodes are
/// large, and their versions are not.
///
/// # Errors
/// What the API server or the way to it says.
pub(crate) async fn oldest_node(client: &Client) -> Result<Option<Version>, String> {
    let (mut oldest, mut after) = (None, String::new());
    for _ in 0..MAX_PAGES {
        let path = format!("/api/v1/nodes?limit={PAGE}&includeObject=None{after}");
        let request = Request::get(path)
            .header(ACCEPT, "application/json;as=Table;v=v1;g=meta.k8s.io")
            .body(Vec::new())
            .map_err(|error| error.to_string())?;
        let asked = timeout(PATIENCE, client.request::<Table>(request)).await;
        let table = asked
            .map_err(|_elapsed| "no answer".to_owned())?
            .map_err(|error| error.to_string())?;
        oldest = oldest.into_iter().chain(table.versions()).min();
        match table.metadata.more {
            None => return Ok(oldest),
            Some(token) if token.is_empty() => return Ok(oldest),
            Some(token) if token.bytes().all(is_plain) => after = format!("&continue={token}"),
            Some(_) => return Err("a token that has no place in an address".to_owned()),
        }
    }
    Err(format!("more than {} nodes", MAX_PAGES * PAGE))
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Table {
    metadata: Metadata,
    #[serde(default)]
    column_definitions: Vec<Column>,
    #[serde(default)]
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(rename = "continue")]
    more: Option<String>,
}

#[derive(Deserialize)]
struct Column {
    name: String,
}

#[derive(Deserialize)]
struct Row {
    cells: Vec<Value>,
}

impl Table {
    /// What its kubelets say they are. One that says nothing has not started.
    fn versions(&self) -> impl Iterator<Item = Version> {
        let at = self
            .column_definitions
            .iter()
            .position(|column| column.name == "Version");
        self.rows
            .iter()
            .filter_map(move |row| row.cells.get(at?)?.as_str()?.parse().ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_column_of_versions_is_found_by_name() {
        let table: Table = serde_json::from_value(serde_json::json!({
            "kind": "Table", "metadata": { "resourceVersion": "7" },
            "columnDefinitions": [{ "name": "Name" }, { "name": "Status" }, { "name": "Version" }],
            "rows": [
                { "cells": ["a", "Ready", "v1.33.4"] },
                { "cells": ["b", "NotReady", "<unknown>"] },
                { "cells": ["c", "Ready", "v1.29.0-eks-1"] },
                { "cells": [] },
            ],
        }))
        .unwrap();
        assert_eq!(table.versions().min(), Some(Version(1, 29)));
    }
}
