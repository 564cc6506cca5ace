//! The node's end: speaks to every proxy of the node over its mailbox, sums what they report,
//! learns, and hands every one its policy.
//!
//! ```text
//!  mailbox::watch ── workloads ──► node ◄── reports ── mailbox::receive ◄── ctrl_listen.sock
//!                                   │  └── policy ───► mailbox::link ─────► dp_listen.sock
//!                                   ├── changes ► store, then acknowledgements ► mailbox::link
//!                                   ├── events ► store ► export
//!                                   ├── rows ► neuvector
//!                                   └── answers ► api, metrics
//! ```
//!
//! In its other role, `webhook`, it tells the API server what becomes of a pod: [`webhook`] serves, [`inject`]
//! decides.
#![forbid(unsafe_code)]

pub mod api;
pub mod bridge;
mod captures;
pub mod cluster;
pub(crate) mod connect;
pub mod controller;
pub mod counts;
pub mod csi;
pub mod export;
pub mod grpc;
pub mod help;
pub mod inject;
pub mod link;
pub mod mailbox;
pub mod metrics;
pub mod neuvector;
pub mod node;
mod pause;
pub mod pods;
mod policy_file;
pub mod process;
pub mod settings;
mod stamp;
pub mod store;
pub mod webhook;
