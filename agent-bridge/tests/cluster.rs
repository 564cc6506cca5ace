//! The roles against a real API server.
#![cfg(test)]

#[path = "apiserver/server.rs"]
mod apiserver;
#[path = "cluster/chart.rs"]
mod chart;
#[path = "cluster/objects.rs"]
mod objects;

use apiserver::ApiServer;

#[tokio::test]
async fn the_harness_answers() {
    let Some(server) = ApiServer::start().await else { return };
    let version = server.client().await.apiserver_version().await.unwrap();
    assert_eq!(version.major, "1");
}
