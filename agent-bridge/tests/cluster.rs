//! The role `controller` against a real API server: bridges linked, rules told, learned policies written, a leader
//! killed, the API server stopped.
#![cfg(test)]
#![expect(clippy::large_futures, reason = "a test has the room")]

#[path = "apiserver/server.rs"]
mod apiserver;
#[path = "cluster/bridge.rs"]
mod bridge;
#[path = "cluster/chart.rs"]
mod chart;
#[path = "cluster/events.rs"]
mod events;
#[path = "cluster/objects.rs"]
mod objects;
#[path = "cluster/services.rs"]
mod services;
#[path = "cluster/steps.rs"]
mod steps;
#[path = "cluster/world.rs"]
mod world;
