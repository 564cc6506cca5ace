//! The webhook over real TLS: what the API server asks, certificates that change, hostile callers.

#![cfg(test)]

#[path = "webhook/answers.rs"]
mod answers;
#[path = "apiserver/server.rs"]
mod apiserver;
#[path = "inject/apply.rs"]
mod apply;
#[path = "webhook/backstop.rs"]
mod backstop;
#[path = "webhook/certificates.rs"]
mod certificates;
#[path = "webhook/cluster.rs"]
mod cluster;
#[path = "inject/golden.rs"]
mod golden;
#[path = "webhook/kubernetes.rs"]
mod kubernetes;
#[path = "webhook/world.rs"]
mod world;
