//! The `controller` role: what people write as objects becomes what each node's bridge needs, and what the bridges
//! see becomes learned policy of the cluster. Kubernetes is the store; there is nothing else to run.
//!
//! ```text
//!  API server ── watches ──► world, objects ──► resolve (pure) ──► plan ──► links ──► bridges
//!       ▲                                                                     │
//!       └──── statuses, learned policies, events ◄──── merged ◄── observed, applied
//! ```

pub mod plan;
pub mod resolve;
