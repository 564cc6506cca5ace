//! What all roles use of Kubernetes. Nothing here is needed by a bridge outside a cluster.

pub mod client;
pub(crate) mod events;
pub mod lease;
pub mod objects;
pub mod owner;
pub(crate) mod review;
pub(crate) mod versions;
